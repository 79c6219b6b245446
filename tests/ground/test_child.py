"""A child answers, is kept, and is ended at each of its limits; nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import ended, zombies

from lapilli.ground.child import ChildError, call_in_child

JOBS = """
    import os, signal, socket, subprocess, sys, time

    def same(value): return value
    def beside(value, data): return [value, len(data), data[:3].hex(), data[-3:].hex()]
    def pid(_): return os.getpid()
    def spin(_):
        while True: pass
    def deaf(_):
        for number in (signal.SIGALRM, signal.SIGXCPU, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)
        spin(_)
    def hoard(mb): return len(bytearray(mb << 20))
    def shout(count): return "x" * count
    def die(number): os.kill(os.getpid(), number)
    def leave(code): os._exit(code)
    def fail(text): raise KeyError(text)
    def noise(_):
        print("not an answer", flush=True)
        os.write(1, b"nor this")
        return "quiet"
    def secret(name): return os.environ.get(name)
    def write(path):
        with open(path, "wb") as file: file.write(b"x" * 10)
    def grandchild(_): return subprocess.Popen(["sleep", "600"]).pid
    def loaded(_): return sorted(sys.modules)
"""


@pytest.fixture(scope="module", autouse=True)
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "child_jobs.py").write_text(textwrap.dedent(JOBS))
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def call(job: str, payload: Any = None, *, seconds: float = 20.0, memory_mb: int = 256, most: int = 1 << 20) -> Any:
    return call_in_child(f"child_jobs:{job}", payload, seconds=seconds, memory_mb=memory_mb, max_output_bytes=most)


@pytest.mark.parametrize(
    "value",
    [None, True, -3, 1.5, "", "naïve 🪨 \x00 \n", "half a pair: \ud800", ["a", {"b": [1, None]}], "x" * 300_000],
    ids=range(9),
)
def test_a_value_comes_back_as_it_went(value: Any) -> None:
    assert call("same", value) == value


@pytest.mark.parametrize("data", [b"", b"\x00\xff\n", b"abc" * 100_000])
def test_bytes_go_beside_a_value_as_they_are(data: bytes) -> None:
    for _ in range(2):  # the next call finds the pipe where it should be
        answer = call_in_child(
            "child_jobs:beside", {"a": 1}, data=data, seconds=20, memory_mb=256, max_output_bytes=999
        )
        assert answer == [{"a": 1}, len(data), data[:3].hex(), data[-3:].hex()]


def test_a_child_is_kept_and_replaced_after_a_kill() -> None:
    first = call("pid")
    assert first not in (os.getpid(), None)
    assert call("pid") == first
    os.kill(first, signal.SIGKILL)
    time.sleep(0.1)
    assert call("pid") != first


def test_functions_and_limits_do_not_share_a_child() -> None:
    assert call("pid", memory_mb=256) != call("pid", memory_mb=300)


@pytest.mark.parametrize("job", ["spin", "deaf"])
def test_a_child_is_killed_at_its_deadline(job: str) -> None:
    began = time.monotonic()
    with pytest.raises(ChildError, match=r"ran longer than 0\.3 s") as caught:
        call(job, seconds=0.3)
    assert caught.value.reason == "time"
    assert time.monotonic() - began < 5


def test_memory_is_limited_and_the_next_call_is_well() -> None:
    assert call("hoard", 50) == 50 << 20
    with pytest.raises(ChildError, match="256 MB") as caught:
        call("hoard", 1000)
    assert caught.value.reason == "memory"
    assert call("hoard", 50) == 50 << 20


def test_output_is_limited_and_never_read() -> None:
    assert len(call("shout", 1000, most=1000 + 64)) == 1000
    with pytest.raises(ChildError, match="1000 are allowed") as caught:
        call("shout", 5_000_000, most=1000)
    assert caught.value.reason == "output"


@pytest.mark.parametrize(
    ("job", "payload", "text"),
    [("die", 11, "signal 11"), ("die", 9, "signal 9"), ("leave", 3, "exit code 3")],
)
def test_a_child_that_dies_says_how(job: str, payload: int, text: str) -> None:
    with pytest.raises(ChildError, match=text) as caught:
        call(job, payload)
    assert caught.value.reason == "died"


def test_an_error_comes_back_on_one_line_and_the_child_lives() -> None:
    with pytest.raises(ChildError, match=r"^KeyError: 'two lines'$") as caught:
        call("fail", "two lines")
    assert caught.value.reason == "raised"
    with pytest.raises(ChildError) as caught:
        call("fail", "x" * 10_000 + "\n")
    assert len(str(caught.value)) <= 400


def test_what_a_function_prints_is_no_answer() -> None:
    assert call("noise") == "quiet"
    assert call("noise") == "quiet"


def test_no_secret_of_ours_is_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert call("secret", "HF_TOKEN", memory_mb=270) is None
    assert call("secret", "PATH", memory_mb=270)


def test_it_writes_no_file(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match="File too large"):
        call("write", str(tmp_path / "written"))
    assert not (tmp_path / "written").exists() or (tmp_path / "written").stat().st_size == 0


def test_it_loads_no_torch_and_little_else() -> None:
    loaded = call("loaded")
    assert not {"torch", "numpy", "PIL", "transformers"} & set(loaded)


def test_threads_have_their_own_children_and_a_slow_one_delays_nobody() -> None:
    call("pid")
    reasons: list[str] = []

    def spin() -> None:
        try:
            call("spin", seconds=1.5)
        except ChildError as error:
            reasons.append(error.reason)

    slow = threading.Thread(target=spin)
    slow.start()
    answers: list[Any] = []
    began = time.monotonic()
    others = [threading.Thread(target=lambda n=n: answers.append(call("same", n))) for n in range(24)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    assert sorted(answers) == list(range(24))
    assert time.monotonic() - began < 10
    slow.join()
    assert reasons == ["time"]


def test_what_a_killed_child_started_dies_with_it() -> None:
    marker = call("grandchild")
    assert not ended(marker)
    # The same child, so the same process group.
    with pytest.raises(ChildError):
        call_in_child("child_jobs:grandchild", None, seconds=0, memory_mb=256, max_output_bytes=1)
    for _ in range(100):
        if ended(marker):
            break
        time.sleep(0.05)
    else:
        pytest.fail(f"process {marker} outlived the child that started it")


USER = """
    import os, sys, warnings
    from lapilli.ground.child import ChildError, call_in_child
    def ask(function, payload, seconds=20.0):
        return call_in_child(function, payload, seconds=seconds, memory_mb=256, max_output_bytes=1 << 20)
    pids = [ask("child_jobs:pid", None)]
    try: ask("child_jobs:spin", None, 0.2)
    except ChildError: pass
    if sys.argv[1] == "fork":
        child = os.fork()
        if child == 0:
            pids.append(ask("child_jobs:pid", None))
            assert pids[0] != pids[1], "a forked process uses its parent's child"
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert ask("child_jobs:pid", None) == pids[0], "a fork took our child away"
    if sys.argv[1] == "crash":
        print(pids[0], flush=True)
        os._exit(1)
    assert "torch" not in sys.modules
    print(pids[0])
"""


@pytest.mark.parametrize("way", ["exit", "fork", "crash"])
def test_nothing_is_left_when_the_parent_ends(way: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(USER), way],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert done.stderr == ""
    assert done.returncode == (way == "crash")
    pid = int(done.stdout)
    for _ in range(100):
        if ended(pid):
            return
        time.sleep(0.05)
    pytest.fail(f"child {pid} outlived its parent")


def test_no_zombie_is_left() -> None:
    for _ in range(3):
        with pytest.raises(ChildError):
            call("leave", 1)
    assert not zombies()
