"""The command line: what it reads, what it prints, and its manners when something is wrong."""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import lapilli
from lapilli.config import LlavaConfig, TextConfig
from lapilli.engine.answer import Answer, Chunk
from lapilli.errors import LapilliError
from lapilli.faces.cli import main
from lapilli.faces.cli.question import take_paths
from lapilli.inputs.tokenizer import Tokenizer
from lapilli.training.vocabulary import build_vocabulary

COMMAND = [sys.executable, "-m", "lapilli"]


@pytest.fixture(autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is up, nothing is reached, and no model is here but those that come with the package."""
    monkeypatch.setenv("LAPILLI_HOST", "127.0.0.1:1")
    monkeypatch.setenv("LAPILLI_OFFLINE", "1")
    monkeypatch.setenv("LAPILLI_MODELS", str(tmp_path_factory.mktemp("models")))
    monkeypatch.setenv("LAPILLI_OLLAMA_MODELS", "none")


def picture(path: Path, color: str = "red", size: tuple[int, int] = (20, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def stdin_of(data: bytes, *, terminal: bool = False) -> Any:
    """Standard input with these bytes piped in, or a terminal."""
    return SimpleNamespace(buffer=io.BytesIO(data), closed=False, isatty=lambda: terminal)


class Parrot:
    """A model that says what it was asked, a word at a time, and keeps the question."""

    def __init__(self) -> None:
        self.prompt: str | None = None
        self.sizes: list[tuple[int, int]] = []
        self.system: str | None = None
        self.options: Any = None
        self.loaded: tuple[Any, ...] = ()

    def stream(
        self, prompt: str, images: Any, *, system: str | None, options: Any, constraint: Any = None
    ) -> Iterator[Chunk]:
        self.prompt, self.sizes, self.system, self.options = prompt, [i.size for i in images], system, options
        words = [f"{word} " for word in prompt.split()]
        for word in words:
            yield Chunk(text=word)
        answer = Answer(
            text="".join(words),
            finish_reason="stop",
            token_ids=tuple(range(len(words))),
            prompt_tokens=9,
            cached_tokens=0,
            image_tokens=64 * len(images),
            queue_seconds=0.0,
            image_seconds=0.25,
            prefill_seconds=0.5,
            decode_seconds=2.0,
        )
        yield Chunk(text="", answer=answer)


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> Parrot:
    """`load` gives a parrot, and nothing is piped in."""
    bird = Parrot()

    def load(name: str, *arguments: Any, **named: Any) -> Parrot:
        bird.loaded = (name, *arguments, named)
        return bird

    monkeypatch.setattr("lapilli.engine.local.load", load)
    monkeypatch.setattr("sys.stdin", stdin_of(b""))
    return bird


# --- what is asked ---


def test_a_prompt_and_pictures_reach_the_model_and_the_answer_is_printed(
    parrot: Parrot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = picture(tmp_path / "one.png", size=(3, 4)), picture(tmp_path / "two.png", size=(5, 6))
    assert main(["run", "mini", "What is this?", str(one), str(two)]) == 0
    assert capsys.readouterr().out == "What is this? \n"
    assert (parrot.loaded[0], parrot.prompt, parrot.sizes) == ("mini", "What is this?", [(3, 4), (5, 6)])


@pytest.mark.parametrize(
    ("prompt", "left", "names"),
    [
        ("What is in ./photo.png ?", "What is in ?", ["photo.png"]),
        ("What is in ./photo.png?", "What is in ?", ["photo.png"]),
        ("photo.png", "", ["photo.png"]),
        ("Compare photo.png, with other.JPG.", "Compare , with .", ["photo.png", "other.JPG"]),
        ("What is in './my photo.png'?", "What is in ?", ["my photo.png"]),
        ('What is in "my photo.png"?', "What is in ?", ["my photo.png"]),
        (r"What is in my\ photo.png?", "What is in ?", ["my photo.png"]),
        ("Don't say what's in 'my photo.png'.", "Don't say what's in .", ["my photo.png"]),
        ("In (photo.png) I see", "In () I see", ["photo.png"]),
        ("What is a photo.pngx or a missing.png?", "What is a photo.pngx or a missing.png?", []),
        ("Summarise:\nphoto.png shows it", "Summarise:\nphoto.png shows it", []),
        ("Summarise:\n./photo.png shows it", "Summarise:\n shows it", ["photo.png"]),
        ("Two  blanks stay", "Two  blanks stay", []),
    ],
)
def test_paths_of_pictures_are_taken_out_of_the_prompt(
    prompt: str, left: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo.png", "other.JPG", "my photo.png"):
        picture(tmp_path / name)
    text, paths = take_paths(prompt, note=lambda _: None)
    assert (text, [os.path.normpath(path) for path in paths]) == (left, names)


def test_absolute_and_home_paths_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    inside = picture(tmp_path / "deep" / "photo.webp")
    assert take_paths(f"Look at {inside} now", print) == ("Look at now", [str(inside)])
    assert take_paths("Look at ~/deep/photo.webp", print) == ("Look at", [str(inside)])


def test_a_path_without_a_file_stays_and_is_mentioned(parrot: Parrot, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "mini", "What is in ./missing.png ?"]) == 0
    assert parrot.prompt == "What is in ./missing.png ?"
    assert "note: there is no file ./missing.png" in capsys.readouterr().err


def test_looking_for_paths_takes_no_time() -> None:
    hostile = "\\ " * 20_000 + "./" * 20_000 + "'" * 20_000 + "a." * 20_000
    started = time.process_time()
    take_paths(hostile, note=lambda _: None)
    assert time.process_time() - started < 2


def test_piped_text_goes_before_the_prompt(parrot: Parrot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", stdin_of("Größe: 3\n".encode()))
    assert main(["run", "mini", "How big?"]) == 0
    assert parrot.prompt == "Größe: 3\n\nHow big?"


def test_piped_text_is_a_prompt_by_itself_and_opens_no_file(
    parrot: Parrot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = picture(tmp_path / "secret.png")
    monkeypatch.setattr("sys.stdin", stdin_of(f"What is in {secret}?\n".encode()))
    assert main(["run", "mini"]) == 0
    assert (parrot.prompt, parrot.sizes) == (f"What is in {secret}?", [])


def test_a_piped_picture_is_a_picture(parrot: Parrot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = picture(tmp_path / "photo.png", size=(7, 8)).read_bytes()
    monkeypatch.setattr("sys.stdin", stdin_of(data))
    assert main(["run", "mini", "What is it?"]) == 0
    assert (parrot.prompt, parrot.sizes) == ("What is it?", [(7, 8)])


@pytest.mark.parametrize("piped", [b"", b"\n"])
def test_no_prompt_and_nothing_piped_only_loads(
    piped: bytes, parrot: Parrot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", stdin_of(piped))
    assert main(["run", "mini"]) == 0
    assert (parrot.loaded[0], parrot.prompt, capsys.readouterr().out) == ("mini", None, "")


def test_no_prompt_at_a_terminal_asks_for_one(
    parrot: Parrot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", stdin_of(b"", terminal=True))
    assert main(["run", "mini"]) == 2
    assert "give a prompt: lapilli run mini" in capsys.readouterr().err
    assert parrot.loaded == ()


def test_options_reach_the_model(parrot: Parrot) -> None:
    given = "--temperature 0.5 --top-k 7 --top-p 0.9 --min-p 0.1 --repeat-penalty 1.1 --seed 3 --max-tokens 5"
    more = [
        "--stop",
        "END",
        "--stop",
        "\n",
        "--system",
        "Be brief.",
        "--dtype",
        "bfloat16",
        "--device",
        "cpu",
        "--quantize",
        "int8",
    ]
    assert main(["run", "mini", "Hi", *given.split(), *more]) == 0
    options = parrot.options
    assert (options.temperature, options.top_k, options.top_p, options.min_p) == (0.5, 7, 0.9, 0.1)
    assert (options.repeat_penalty, options.seed, options.max_tokens) == (1.1, 3, 5)
    assert tuple(options.stop) == ("END", "\n")
    assert parrot.system == "Be brief."
    name, how = parrot.loaded
    assert (name, how["device"], how["dtype"], how["quantize"]) == ("mini", "cpu", "bfloat16", "int8")


# --- what is printed ---


def test_json_is_one_object_with_counts_and_durations(
    parrot: Parrot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "mini", "What is it", str(picture(tmp_path / "a.png")), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report.pop("load_seconds") >= 0
    assert report == {
        "model": "mini",
        "text": "What is it ",
        "finish_reason": "stop",
        "prompt_tokens": 9,
        "cached_tokens": 0,
        "image_tokens": 64,
        "completion_tokens": 3,
        "queue_seconds": 0.0,
        "image_seconds": 0.25,
        "prefill_seconds": 0.5,
        "decode_seconds": 2.0,
    }


def test_verbose_puts_counts_and_rates_on_standard_error(
    parrot: Parrot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "mini", "one two three four", str(picture(tmp_path / "a.png")), "--verbose"]) == 0
    out, err = capsys.readouterr()
    assert out == "one two three four \n"
    rows = {line.split()[0]: line.split() for line in err.splitlines()}
    assert rows["answer"] == ["answer", "2000.0", "ms", "4", "tokens", "2.0", "tokens/s"]
    assert rows["images"] == ["images", "250.0", "ms", "64", "tokens", "256.0", "tokens/s"]
    assert rows["prompt"] == ["prompt", "500.0", "ms", "9", "tokens", "18.0", "tokens/s"]
    assert rows["finish"] == ["finish", "stop"]


def test_a_terminal_gets_no_control_characters(parrot: Parrot, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    assert main(["run", "mini", "a\x1b]0;title\x07b \x9b2Jc"]) == 0
    assert screen.getvalue() == "a]0;titleb 2Jc \n"


# --- what can be wrong ---


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command ends with; checks that it is one line, with exit code 2 and no output."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lapilli: error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    "arguments",
    [["run"], ["nonsense"], ["run", "mini", "Hi", "--temperature", "warm"], ["run", "mini", "Hi", "--no-such-option"]],
)
def test_misuse_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    refused(arguments, capsys)


def test_an_option_out_of_range_is_named_as_it_was_written(parrot: Parrot, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--top-p is 1.5" in refused(["run", "mini", "Hi", "--top-p", "1.5"], capsys)


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_an_empty_prompt_is_refused_before_anything_is_loaded(
    prompt: str, parrot: Parrot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "the prompt is empty" in refused(["run", "mini", prompt], capsys)
    assert "the prompt is empty" in refused(["run", "mini", prompt, str(picture(tmp_path / "a.png"))], capsys)
    assert "the prompt is empty" in refused(["run", "mini", str(tmp_path / "a.png")], capsys)
    assert parrot.loaded == ()


def test_a_file_that_is_no_picture_is_refused(
    parrot: Parrot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = tmp_path / "fake.png"
    fake.write_text("not a picture")
    assert "fake.png" in refused(["run", "mini", "What is this?", str(fake)], capsys)
    assert "fake.png" in refused(["run", "mini", f"What is in {fake} ?"], capsys)
    assert parrot.loaded == ()


def test_a_missing_picture_is_refused_with_the_way_out(
    parrot: Parrot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no such file" in refused(["run", "mini", "What?", str(tmp_path / "gone.png")], capsys)
    assert "put the prompt in quotes" in refused(["run", "mini", "What", "is", "this"], capsys)
    assert parrot.loaded == ()


def test_a_picture_past_the_limits_is_refused_quickly(
    parrot: Parrot, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    huge = tmp_path / "huge.png"
    # A small picture whose header says 50,000 x 50,000: a whole one takes longer to write than to refuse.
    data = bytearray(picture(tmp_path / "small.png").read_bytes())
    data[16:24] = struct.pack(">II", 50_000, 50_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    huge.write_bytes(data)
    started = time.process_time()
    assert "50000" in refused(["run", "mini", "What is this?", str(huge)], capsys)
    assert time.process_time() - started < 1


def test_binary_that_is_no_picture_on_standard_input_is_refused(
    parrot: Parrot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", stdin_of(b"\xff\xfe\x00\x01" * 100))
    assert "standard input" in refused(["run", "mini", "What?"], capsys)


def test_an_unknown_model_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", stdin_of(b""))
    assert "mini" in refused(["run", "minni", "Hi"], capsys)
    refused(["run", "no-such-model", "Hi"], capsys)


# What is done to a checkpoint folder, and what the one line must speak of.
def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def promise_too_much(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


def pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'touch was-here'\ntR.")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def no_json(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def endless_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def giant(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    values["hidden_size"] = 1 << 40
    (folder / "config.json").write_text(json.dumps(values))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint folder, whole but for its weights, which are one tensor."""
    text = TextConfig(
        family="llama", vocab_size=300, hidden_size=32, intermediate_size=64, num_layers=1, num_heads=2,
        num_kv_heads=2, head_dim=16, norm_eps=1e-5, max_positions=64,
    )  # fmt: skip
    folder = tmp_path / "model"
    Tokenizer.from_json(build_vocabulary([], 300)).save(folder)
    (folder / "config.json").write_text(json.dumps(LlavaConfig(text=text).to_dict()))
    save_file({"model.embed_tokens.weight": np.zeros((300, 32), np.float32)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("damage", "speaks_of"),
    [
        (truncate, "model.safetensors"),
        (promise_too_much, "model.safetensors"),
        (pickle, "pickle"),
        (no_weights, "safetensors"),
        (no_json, "config.json"),
        (no_config, "config.json"),
        (endless_config, "config.json"),
        (giant, "hidden_size"),
        (lambda folder: None, "missing"),
    ],
)
def test_a_bad_checkpoint_is_one_line_and_leaves_nothing(
    damage: Callable[[Path], None],
    speaks_of: str,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(checkpoint)
    monkeypatch.setattr("sys.stdin", stdin_of(b""))
    monkeypatch.chdir(checkpoint.parent)
    before = sorted(checkpoint.parent.rglob("*"))
    assert speaks_of in refused(["run", str(checkpoint), "Hi"], capsys)
    assert sorted(checkpoint.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "data", "speaks_of"),
    [
        ("model.gguf", b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60), "model.gguf"),
        ("model.gguf", b"GGUF", "model.gguf"),
        ("model.gguf", b"", "model.gguf"),
        ("model.pt", b"\x80\x02}q\x00.", "GGUF"),
        ("photo.png", b"\x89PNG\r\n\x1a\n", "GGUF"),
    ],
)
def test_a_file_that_is_no_model_is_one_line(
    name: str,
    data: bytes,
    speaks_of: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / name).write_bytes(data)
    monkeypatch.setattr("sys.stdin", stdin_of(b""))
    assert speaks_of in refused(["run", str(tmp_path / name), "Hi"], capsys)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_debugging_shows_the_traceback(
    parrot: Parrot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAPILLI_DEBUG", "1")
    assert main(["run", "mini", ""]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_error_of_many_lines_is_one_line_and_cannot_drive_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise LapilliError("one\ntwo \x1b[2Jthree")

    monkeypatch.setattr("lapilli.engine.local.load", load)
    monkeypatch.setattr("sys.stdin", stdin_of(b""))
    assert refused(["run", "mini", "Hi"], capsys) == "lapilli: error: one two [2Jthree\n"


def test_a_file_that_may_not_be_read_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "model.safetensors")

    monkeypatch.setattr("lapilli.engine.local.load", load)
    monkeypatch.setattr("sys.stdin", stdin_of(b""))
    assert "model.safetensors: Permission denied" in refused(["run", "mini", "Hi"], capsys)


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lapilli.engine.local.load", load)
    monkeypatch.setattr("sys.stdin", stdin_of(b""))
    assert main(["run", "mini", "Hi"]) == 130
    assert capsys.readouterr().err == ""


def test_a_broken_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run([*COMMAND, "doctor"], stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (run.returncode, run.stderr) == (1, b"")


# --- the rest ---


def test_help_answers_at_once() -> None:
    # Processor time, so that a busy machine does not fail the test: alone the two are the same.
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*COMMAND, "--help"], check=True, capture_output=True, stdin=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.3


@pytest.mark.parametrize("arguments", [[], ["train"], ["--help"], ["run", "--help"], ["train", "mini", "tower", "-h"]])
def test_help_is_where_it_is_looked_for(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    command = " ".join(["lapilli", *(word for word in arguments if not word.startswith("-"))])
    assert out.startswith(f"Usage: {command} ")
    assert err == ""


@pytest.mark.parametrize("stage", ["tower", "language", "align", "tune"])
def test_training_without_data_is_refused_and_writes_nothing(
    stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert "no such folder" in refused(
        ["train", "mini", stage, "--data", str(tmp_path / "no"), "--out", str(out)], capsys
    )
    empty = ["train", "mini", stage, "--data", str(tmp_path), "--out", str(out)]
    assert "emoji" in refused(empty, capsys)
    assert "--minutes" in refused([*empty, "--minutes", "0"], capsys)
    assert not out.exists()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lapilli {lapilli.__version__}\n"


def test_doctor_says_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["software"]["torch"] == str(torch.__version__)
    assert report["device"]["in_use"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert report["processor"]["threads"] == torch.get_num_threads()
    assert report["processor"]["memory_gib"] > report["processor"]["memory_free_gib"] > 0
    assert report["models"]["built_in"] == ["mini"]
    assert main(["doctor"]) == 0
    assert "instruction sets" in capsys.readouterr().out
