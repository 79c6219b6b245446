"""The commands that Ollama has as well: what they send to the server that is up, and what they print."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from parrot_server import SEER, ParrotServer, serving
from PIL import Image

from lapilli.faces.cli import main, with_values
from lapilli.faces.columns import processor_text, size_text, time_text, until_text
from lapilli.faces.progress import Lines
from lapilli.store.progress import Progress

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def parrot() -> Iterator[ParrotServer]:
    with serving(ParrotServer()) as up:
        yield up


@pytest.fixture
def server(parrot: ParrotServer, monkeypatch: pytest.MonkeyPatch) -> ParrotServer:
    """The server that is up, and nothing on standard input."""
    monkeypatch.setattr("sys.stdin", None)
    monkeypatch.setenv("LAPILLI_HOST", parrot.url)
    return parrot.reset()


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    """What a command that ends well prints, on standard output and standard error."""
    assert main(arguments) == 0, capsys.readouterr().err
    out, err = capsys.readouterr()
    return out, err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


# --- columns ---


def test_list_has_ollamas_columns(server: ParrotServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.models["a-much-longer-name:latest"] = dict(SEER)
    out, _ = printed(capsys, "list")
    lines = out.splitlines()
    assert lines[0].split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    name, digest, size, modified = lines[1].split("    ")[0].strip(), *lines[1].split()[1:2], "4.7 GB", "years ago"
    assert (name, len(digest)) == ("parrot:latest", 12)
    assert size in lines[1]
    assert lines[1].endswith(modified)
    assert [line.index(size) for line in lines[1:]] == [lines[0].index("SIZE")] * 2
    assert printed(capsys, "ls")[0] == out
    assert [line.split()[0] for line in printed(capsys, "list", "PAR")[0].splitlines()] == ["NAME", "parrot:latest"]


def test_ps_has_ollamas_columns(server: ParrotServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "ps")[0].split() == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    server.running.append("parrot:latest")
    row = printed(capsys, "ps")[0].splitlines()[1]
    cells = [cell.strip() for cell in row.split("    ") if cell]
    assert cells == ["parrot:latest", "abababababab", "1 KB", "100% CPU", "4096", "Forever"]


def test_names_of_strangers_cannot_drive_the_terminal(server: ParrotServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.models["\x1b[2Jevil\nname:latest"] = dict(SEER)
    out = printed(capsys, "list")[0]
    assert "\x1b" not in out
    assert len(out.splitlines()) == 3


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 KB"), (1500, "1.5 KB"), (65_900_000, "65 MB"), (4_733_000_000, "4.7 GB")],
)
def test_sizes_are_decimal(nbytes: int, text: str) -> None:
    assert size_text(nbytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (61, "About a minute"), (299, "4 minutes"),
        (3700, "About an hour"), (86400, "24 hours"), (3 * 86400, "3 days"), (20 * 86400, "2 weeks"),
        (90 * 86400, "3 months"), (800 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_times_are_told_from_now(seconds: float, text: str) -> None:
    span = timedelta(seconds=seconds)
    assert time_text(NOW - span, NOW) == f"{text} ago"
    assert until_text(NOW + span, NOW) == f"{text} from now"


def test_who_stays_for_ever_and_who_is_leaving() -> None:
    assert until_text(None, NOW) == until_text(datetime(2318, 1, 1, tzinfo=UTC), NOW) == "Forever"
    assert until_text(NOW - timedelta(seconds=1), NOW) == "Stopping..."


@pytest.mark.parametrize(("vram", "text"), [(0, "100% CPU"), (1000, "100% GPU"), (590, "41%/59% CPU/GPU")])
def test_where_a_model_lies(vram: int, text: str) -> None:
    assert processor_text(1000, vram) == text


# --- show ---


def test_show_has_a_block_for_each_thing(server: ParrotServer, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = printed(capsys, "show", "parrot")[0].split("\n\n")
    titles = [block.splitlines()[0].strip() for block in blocks]
    assert titles == ["Model", "Projector", "Capabilities", "Parameters", "System", "License"]
    assert [line.split()[-1] for line in blocks[0].splitlines()[1:]] == ["llama", "7B", "32768", "4096", "Q4_0"]
    assert [line.strip() for line in blocks[2].splitlines()[1:]] == ["completion", "vision"]
    assert blocks[3].splitlines()[1].split() == ["stop", '"[INST]"']
    assert blocks[5].splitlines()[-1].strip() == "..."
    assert "January 2004" in printed(capsys, "show", "parrot", "--verbose")[0]


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--license", "Apache License\nVersion 2.0\nJanuary 2004\n"),
        ("--modelfile", "FROM parrot\n"),
        ("--parameters", SEER["parameters"] + "\n"),  # type: ignore[operator]
        ("--system", "Be kind.\n"),
        ("--template", "{{ .Prompt }}\n"),
    ],
)
def test_one_part_is_shown_as_it_is(
    flag: str, text: str, server: ParrotServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(capsys, "show", "parrot", flag)[0] == text


def test_two_parts_at_once_are_refused(server: ParrotServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--license and --system: one of them" in refused(capsys, "show", "parrot", "--system", "--license")
    assert "model 'nobody' not found" in refused(capsys, "show", "nobody")


# --- stop, cp, rm ---


def test_copy_remove_and_stop(server: ParrotServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.running.append("parrot")
    assert printed(capsys, "cp", "parrot", "second")[0] == "copied 'parrot' to 'second'\n"
    assert printed(capsys, "cp", "parrot", "third")[0] == "copied 'parrot' to 'third'\n"
    assert printed(capsys, "rm", "second", "third")[0] == "deleted 'second'\ndeleted 'third'\n"
    assert [*server.models] == ["parrot:latest"]
    assert printed(capsys, "stop", "parrot") == ("", "")
    assert server.running == []
    assert 'couldn\'t find model "nobody" to stop' in refused(capsys, "stop", "nobody")
    assert "model 'nobody' not found" in refused(capsys, "rm", "nobody")
    assert 'model "nobody" not found' in refused(capsys, "cp", "nobody", "other")


# --- pull and push ---


LAYER = {"status": "pulling 170370233dd5", "digest": "sha256:170370233dd5", "total": 4_109_000_000}


def test_pull_says_each_step_once_it_is_over(server: ParrotServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.pulls["bird"] = [
        *({**LAYER, "completed": part} for part in (0, 2_000_000_000, 4_109_000_000)),
        {"status": "verifying sha256 digest"},
    ]
    out, err = printed(capsys, "pull", "bird", "--insecure")
    assert out == ""
    assert err.splitlines() == [
        "pulling manifest", "pulling 170370233dd5: 4.1 GB", "verifying sha256 digest", "success",
    ]  # fmt: skip
    assert server.bodies("/api/pull") == [{"model": "bird", "insecure": True}]
    assert refused(capsys, "pull", "nobody") == "lapilli: error: pull model manifest: file does not exist\n"


def test_a_long_step_says_rate_and_time_left() -> None:
    out = io.StringIO()
    lines = Lines(out, seconds=0)
    for completed in (0, 25, 50):
        lines.step(Progress("pulling ab", "sha256:ab", 100, completed))
        time.sleep(0.01)
    assert [line.split(",")[0] for line in out.getvalue().splitlines()] == [
        "pulling ab: 25% of 100 B", "pulling ab: 50% of 100 B",
    ]  # fmt: skip
    assert out.getvalue().endswith("s left\n")


def test_push_goes_to_the_server(server: ParrotServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.pulls["host.example/me/bird"] = [{"status": "pushing manifest"}]
    _, err = printed(capsys, "push", "host.example/me/bird")
    assert err.splitlines()[-2:] == ["pushing manifest", "success"]


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent as a signal")
def test_a_pull_that_is_stopped_says_how_it_goes_on(server: ParrotServer) -> None:
    server.pulls["bird"] = [{**LAYER, "completed": 7}, {"status": "waiting"}, {"status": "never"}]
    command = [sys.executable, "-m", "lapilli", "pull", "bird"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as run:
        assert run.stderr is not None
        while "pulling 1703" not in run.stderr.readline():
            assert run.poll() is None
        run.send_signal(signal.SIGINT)
        assert "kept; to go on: lapilli pull bird" in run.stderr.read()
        assert run.wait(10) == 130


# --- create ---


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_create_sends_files_and_what_the_modelfile_says(
    server: ParrotServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF one")
    (tmp_path / "mmproj.gguf").write_bytes(b"GGUF two")
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_model.safetensors").write_bytes(b"lora")
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    file = tmp_path / "Birdfile"
    file.write_text(
        "FROM ./model.gguf\nFROM ./mmproj.gguf\nADAPTER lora\nSYSTEM Be brief.\nTEMPLATE {{ .Prompt }}\n"
        'PARAMETER temperature 0.1\nPARAMETER stop "END"\nMESSAGE user Hi\nMESSAGE assistant Ho\nLICENSE free\n'
    )
    _, err = printed(capsys, "create", "bird", "-f", str(file), "-q", "Q4_K_M")
    assert err.splitlines()[-1] == "success"
    assert server.bodies("/api/create") == [
        {
            "model": "bird",
            "files": {"model.gguf": sha256(b"GGUF one"), "mmproj.gguf": sha256(b"GGUF two")},
            "adapters": {"adapter_model.safetensors": sha256(b"lora"), "adapter_config.json": sha256(b"{}")},
            "system": "Be brief.",
            "template": "{{ .Prompt }}",
            "parameters": {"temperature": 0.1, "stop": ["END"]},
            "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}],
            "license": ["free"],
            "quantize": "Q4_K_M",
        }
    ]
    assert server.blobs[sha256(b"GGUF two")] == b"GGUF two"


def test_create_from_a_folder_takes_weights_and_what_belongs_to_them(
    server: ParrotServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "pytorch_model.bin",
                 "README.md", ".hidden.json"):  # fmt: skip
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    printed(capsys, "create", "bird")  # no Modelfile is FROM .
    assert sorted(server.bodies("/api/create")[0]["files"]) == [
        "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip


def test_create_from_a_name_and_from_standard_input(
    server: ParrotServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"FROM parrot\nSYSTEM Sing.\n")))
    printed(capsys, "create", "bird", "--file", "-")
    assert server.bodies("/api/create") == [{"model": "bird", "from": "parrot", "system": "Sing."}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM ./gone.gguf\n", "./gone.gguf: there is no such file"),
        ("FROM parrot\nADAPTER gone\n", "ADAPTER gone: there is no such"),
        ("FROM empty\n", "holds no .safetensors and no .gguf"),
        ("SYSTEM Hi\n", "no FROM line"),
        ("FROM parrot\nNONSENSE 1\n", "(line 2)"),
    ],
)
def test_what_cannot_be_created_is_one_line(
    text: str, message: str, server: ParrotServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Modelfile").write_text(text)
    (tmp_path / "empty").mkdir()
    err = refused(capsys, "create", "bird", "-f", str(tmp_path / "Modelfile"))
    assert message in err
    assert server.bodies("/api/create") == []
    assert "no such file" in refused(capsys, "create", "bird", "-f", str(tmp_path / "gone")).lower()


# --- run, with a server that is up ---


def picture(path: Path) -> Path:
    Image.new("RGB", (8, 8), "red").save(path)
    return path


def test_run_asks_the_server_that_is_up(
    server: ParrotServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = picture(tmp_path / "one.png")
    more = [
        *("--temperature", "0.5", "--max-tokens", "9", "--stop", "END", "--system", "Brief", "--format", "json"),
        *("--keepalive", "1h", "--truncate"),
    ]
    assert printed(capsys, "run", "parrot", "What is it", str(one), *more) == ("What is it [1 pictures] \n", "")
    [sent] = server.bodies("/api/chat")
    assert len(sent["messages"][1].pop("images")) == 1
    assert sent == {
        "model": "parrot",
        "messages": [{"role": "system", "content": "Brief"}, {"role": "user", "content": "What is it"}],
        "options": {"temperature": 0.5, "num_predict": 9, "stop": ["END"]},
        "format": "json",
        "keep_alive": "1h",
        "truncate": True,
    }


def test_verbose_prints_ollamas_lines_on_standard_error(
    server: ParrotServer, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = printed(capsys, "run", "parrot", "one two", "--verbose")
    assert [tuple(part.strip() for part in line.split(":")) for line in err.splitlines()] == [
        ("total duration", "1.5s"), ("load duration", "250µs"), ("prompt eval count", "9 token(s)"),
        ("prompt eval duration", "500ms"), ("prompt eval rate", "18.00 tokens/s"), ("eval count", "2 token(s)"),
        ("eval duration", "2s"), ("eval rate", "1.00 tokens/s"),
    ]  # fmt: skip


def test_json_is_the_same_object_as_without_a_server(server: ParrotServer, capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(printed(capsys, "run", "parrot", "one two", "--json")[0])
    assert (report["text"], report["finish_reason"], report["completion_tokens"]) == ("one two ", "stop", 2)
    assert report["decode_seconds"] == 2.0


def test_thoughts_are_shown_or_hidden(server: ParrotServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "run", "parrot", "Hi", "--think")[0] == "Thinking...\nhm hm\n...done thinking.\n\nHi \n"
    assert printed(capsys, "run", "parrot", "Hi", "--think=high", "--hidethinking")[0] == "Hi \n"
    printed(capsys, "run", "parrot", "Hi", "--think=false")
    assert [sent["think"] for sent in server.bodies("/api/chat")] == [True, "high", False]
    assert "--think=much" in refused(capsys, "run", "parrot", "Hi", "--think=much")


def test_switches_are_read_as_ollamas_are() -> None:
    assert with_values(["run", "m", "--think", "x", "--truncate=false", "--", "--think"]) == [
        "run", "m", "--think=true", "x", "--no-truncate", "--", "--think",
    ]  # fmt: skip


def test_a_missing_model_is_pulled(server: ParrotServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.pulls["bird"] = [{**LAYER, "completed": LAYER["total"]}]
    out, err = printed(capsys, "run", "bird", "Hi")
    assert out == "Hi \n"
    assert "pulling 170370233dd5: 4.1 GB" in err
    err = refused(capsys, "run", "parot", "Hi")
    assert "did you mean 'parrot'?" in err
    assert "file does not exist" in err


def test_no_prompt_and_no_terminal_only_loads(server: ParrotServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "run", "parrot", "--keepalive", "-1") == ("", "")
    assert server.bodies("/api/generate") == [{"model": "parrot", "keep_alive": -1}]
    assert server.bodies("/api/chat") == []


def test_an_embedding_is_an_array(server: ParrotServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed(capsys, "run", "parrot", "Hi", "--dimensions", "1")[0]) == [0.6]
    server.models["vectors:latest"] = {"capabilities": ["embedding"]}
    assert json.loads(printed(capsys, "run", "vectors", "Hi")[0]) == [0.6, 0.8]


def test_a_server_that_does_not_know_what_is_built_in_is_not_asked(
    server: ParrotServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr("lapilli.engine.local.load", lambda name, **_: loaded.append(name))
    assert main(["run", "mini"]) == 0
    assert loaded == ["mini"]
    assert server.bodies("/api/pull") == []


def test_what_only_this_process_can_do_is_done_here(server: ParrotServer, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr("lapilli.engine.local.load", lambda name, **how: loaded.append(how["quantize"]))
    assert main(["run", "mini", "--quantize", "int8"]) == 0
    assert loaded == ["int8"]
    assert server.asked == []


@pytest.mark.skipif(os.name == "nt", reason="nohup")
def test_under_nohup_it_loads_and_ends_well(server: ParrotServer) -> None:
    # nohup gives a command whose standard input is a terminal one that can be written only.
    unreadable = os.open(os.devnull, os.O_WRONLY)
    run = subprocess.run(
        [sys.executable, "-m", "lapilli", "run", "parrot"], stdin=unreadable, capture_output=True, timeout=60
    )
    os.close(unreadable)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")
    assert server.bodies("/api/generate") == [{"model": "parrot"}]


# --- the shell ---


def test_the_shell_completes_models(server: ParrotServer) -> None:
    server.models["parakeet:latest"] = dict(SEER)
    words = {"_LAPILLI_COMPLETE": "complete_bash", "COMP_WORDS": "lapilli show par", "COMP_CWORD": "2"}
    run = subprocess.run(
        [sys.executable, "-m", "lapilli"], env={**os.environ, **words}, capture_output=True, text=True, timeout=60
    )
    assert run.stdout.split() == ["parrot", "parakeet"]
