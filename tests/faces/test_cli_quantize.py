"""`lapilli quantize` on the built-in model: files that load finds by their names, a report, and manners."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch

import lapilli
from lapilli.checkpoints.load import load_checkpoint
from lapilli.faces.cli import main
from lapilli.model.quantized import QuantizedLinear
from lapilli.store.reference import resolve
from lapilli.training.art import Art
from lapilli.training.material import SKILLS, examination
from lapilli.training.skills import answerer


def test_quantized_mini_answers_like_mini(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Another model beside it: each finds the projector of its own name.
    (tmp_path / "mmproj-other.gguf").write_bytes(b"")
    out = tmp_path / "mini.gguf"
    assert main(["quantize", "mini", str(out), "--type", "q8_0", "--check", "--each", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == {str(path): path.stat().st_size for path in (out, tmp_path / "mmproj-mini.gguf")}
    assert 8.5 <= report["bits"] <= 9
    kinds = {group["name"]: group for group in report["groups"]}
    assert kinds.keys() == {"embeddings", "attention", "feed-forward", "tower", "projector", "norms, biases"}
    assert 0.004 <= kinds["attention"]["error"] <= 0.006
    agreement = report["agreement"]
    assert agreement["asked"] == 5
    assert agreement["same"] >= 4
    assert agreement["perplexity_after"] == pytest.approx(agreement["perplexity"], rel=0.01)
    model = lapilli.load(out).model
    assert isinstance(model.language.head, QuantizedLinear)
    assert isinstance(model.vision.blocks[0].mlp.up, QuantizedLinear)


def test_the_report_is_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", "mini", str(tmp_path / "small.gguf")]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:7]] == [
        "embeddings", "attention", "feed-forward", "tower", "projector", "norms,",
    ]  # fmt: skip
    assert "Q4_K Q6_K" in out
    assert "small.gguf: " in out
    assert "mmproj-small.gguf: " in out
    assert main(["quantize", "mini", str(tmp_path / "small.gguf")]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["quantize", "mini", str(tmp_path / "small.gguf"), "--type", "Q8_0", "--force"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mini", "OUT.bin"], "must end in .gguf"),
        (["mini", "OUT.gguf", "--type", "Q2"], "no type 'Q2' to quantize to; there are Q8_0"),
        (["minni", "OUT.gguf"], "no model 'minni': did you mean 'mini'?"),
        (["mini", "OUT.gguf", "--each", "0"], "--each is 0, it must be at least 1"),
        (["mini"], "Missing argument 'OUT'"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(tmp_path / text) if text.startswith("OUT") else text for text in arguments]
    assert main(["quantize", *given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_eyes_is_not_asked_about_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.save(tiny.random_model(tiny.text_config("llama")), tmp_path / "blind")
    assert main(["quantize", str(tmp_path / "blind"), str(tmp_path / "blind.gguf"), "--check"]) == 0
    assert "this model reads text only" in capsys.readouterr().err
    assert [path.name for path in tmp_path.glob("*.gguf")] == ["blind.gguf"]


def test_int8_says_what_floats_say() -> None:
    path = resolve("mini").path
    tasks = examination(Art.load(None, ()), 1, 8, skills=SKILLS)
    said = []
    for bits in (None, "int8"):
        checkpoint = load_checkpoint(path, dtype=torch.float32, quantize=bits)
        answer = answerer(checkpoint.model, checkpoint.prompts.tokenizer)
        said.append(answer([task.pixels_HWC for task in tasks], [task.question for task in tasks]))
    assert len(tasks) == 40
    assert sum(one == other for one, other in zip(*said, strict=True)) >= 38
