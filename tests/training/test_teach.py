"""From data to a model that answers: transformers' gradients, resumed to the bit, shared, and taken into use."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file

import lapilli
from lapilli import TrainingError
from lapilli.checkpoints import names
from lapilli.checkpoints.load import load_checkpoint
from lapilli.faces.cli import main
from lapilli.training.loop import STATE_FILE
from lapilli.training.lowrank import adapters_of
from lapilli.training.recipe import Recipe
from lapilli.training.samples import SampleMaker
from lapilli.training.talks import open_talks
from lapilli.training.teach import Lesson, prepare, teach

RECIPE = Recipe(
    name="test", epochs=2, batch=4, at_once=1024, rate=5e-3, pack=400, max_tokens=512, bf16=False, log_every=1
)


def lesson(base: Path, data: Path, work: Path, **changes: Any) -> Lesson:
    return prepare(dataclasses.replace(RECIPE, **changes), base, open_talks(data), work)


def loss_and_gradients(made: Lesson, step: int = 0) -> tuple[float, dict[str, torch.Tensor]]:
    made.checkpoint.model.zero_grad()
    total = 0.0
    for piece in next(made.objective.batches(step)):
        loss = made.objective.loss(piece)["loss"]
        if loss.requires_grad:
            loss.backward()
        total += loss.item()
    named = made.checkpoint.model.named_parameters()
    return total, {name: p.grad.clone() for name, p in named if p.requires_grad and p.grad is not None}


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("train", ["projector", "projector+language"])
@pytest.mark.parametrize(("pack", "at_once"), [(0, 4096), (500, 4096), (500, 1)])
def test_loss_and_gradients_are_those_of_transformers(
    base: Path, data: Path, tmp_path: Path, train: Any, pack: int, at_once: int
) -> None:
    """One step of each stage, padded, packed, and in pieces."""
    from transformers import LlavaForConditionalGeneration

    made = lesson(base, data, tmp_path, train=train, pack=pack, at_once=at_once)
    loss, gradients = loss_and_gradients(made)
    maker = SampleMaker(made.checkpoint.prompts, 512)
    samples = [maker.make(made.course.talks[n]) for n in made.course.order.step(0)]
    longest = max(map(len, samples))
    ids, labels, mask = (np.full((4, longest), value) for value in (4, -100, 0))
    for row, sample in enumerate(samples):
        ids[row, : len(sample)], mask[row, : len(sample)] = sample.ids_T, 1
        labels[row, : len(sample)] = np.where(sample.said_T, sample.ids_T, -100)
    theirs = LlavaForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    pixels = torch.from_numpy(np.concatenate([image.pixels_TCHW for sample in samples for image in sample.images]))
    out = theirs(
        input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), pixel_values=pixels,
        labels=torch.from_numpy(labels),
    )  # fmt: skip
    out.loss.backward()
    assert abs(loss - out.loss.item()) <= 1e-5 * abs(out.loss.item())
    layout = names.hugging_face("llama")
    found = {names.spelt_first(name): p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    assert gradients
    for ours, gradient in gradients.items():
        (foreign,) = names.tensors_of(layout, [ours])
        assert relative(gradient, found[foreign]) <= 1e-5, ours


@pytest.mark.parametrize("train", ["projector", "language", "projector+language"])
def test_what_is_frozen_stays_to_the_bit(base: Path, data: Path, tmp_path: Path, train: Any) -> None:
    made = lesson(base, data, tmp_path / "work", train=train, epochs=150 / 3, batch=4, log_every=50)
    before = {name: value.clone() for name, value in made.checkpoint.model.state_dict().items()}
    assert made.loop.steps >= 50
    teach(made, tmp_path / "out")
    moved = {
        name.split(".")[0]
        for name, value in made.checkpoint.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert moved == set(train.split("+"))


def test_features_are_kept_and_pictures_read_once(base: Path, data: Path, tmp_path: Path) -> None:
    made = lesson(base, data, tmp_path, train="projector")
    first, _ = loss_and_gradients(made)
    shown = [file for batch in made.course.step(0) for sample in batch.samples for file in sample.files]
    assert shown
    again = lesson(base, data, tmp_path, train="projector")
    opened = [again.course.maker.make(again.course.talks[n]) for n in again.course.order.step(0)]
    assert all(image.pixels_TCHW.size == 0 for sample in opened for image in sample.images)
    second, _ = loss_and_gradients(again)
    assert first == second


IN_A_PROCESS = """
import sys
from pathlib import Path
from lapilli.training.recipe import Recipe
from lapilli.training.samples import SampleMaker
from lapilli.training.talks import open_talks
from lapilli.training.teach import prepare, teach
base, data, work, changes = sys.argv[1:5]
recipe = Recipe.read(sys.argv[5], changes.split())
print(teach(prepare(recipe, Path(base), open_talks(Path(data)), Path(work)), Path(work + ".out")), flush=True)
"""


def in_a_process(base: Path, data: Path, work: Path, *changes: str, **more: str) -> subprocess.Popen[bytes]:
    own = work.parent / "own.toml"
    own.write_text('train = "projector+language"\nbatch = 4\nrate = 5e-3\npack = 400\nbf16 = false\nlog_every = 1\n')
    command = [sys.executable, "-c", IN_A_PROCESS, str(base), str(data), str(work), " ".join(changes), str(own)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_killed_run_goes_on_to_the_bit(base: Path, data: Path, tmp_path: Path) -> None:
    """Saved after every step, killed at a moment of its own choosing, and gone on with: as if nothing had been."""
    changes = ("epochs=8", "lora={rank=4, dropout=0.2}".replace(" ", ""), "save_minutes=0")
    whole = in_a_process(base, data, tmp_path / "whole", *changes)
    cut = tmp_path / "cut"
    killed, rng = 0, np.random.default_rng(1)
    while True:
        process = in_a_process(base, data, cut, *changes)
        if killed < 3:
            deadline, wanted = time.monotonic() + 60, rng.uniform(0.0, 0.6)
            while not (cut / "metrics.jsonl").exists() and time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.02)
            time.sleep(wanted)
            process.send_signal(signal.SIGKILL)
            killed += 1
            process.communicate()
            continue
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
        break
    whole.communicate(timeout=300)
    assert whole.returncode == 0
    ours, theirs = load_file(cut / STATE_FILE), load_file(tmp_path / "whole" / STATE_FILE)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_two_processes_learn_what_one_learns(base: Path, data: Path, tmp_path: Path) -> None:
    alone = in_a_process(base, data, tmp_path / "one", "epochs=7")
    port = str(29000 + os.getpid() % 500)
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [in_a_process(base, data, tmp_path / "two", "epochs=7", RANK=str(rank), **shared) for rank in range(2)]
    for process in (alone, *both):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert len(losses[0]) == 21
    assert np.abs(np.subtract(*losses)).max() <= 1e-5


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT's own use of transformers
@pytest.mark.parametrize("train", ["language", "projector+language"])
def test_an_adapter_is_peft_s_and_ours_alike(base: Path, data: Path, tmp_path: Path, train: Any) -> None:
    """What the model said at the end of training, it says with its adapter merged, and PEFT opens the same folder."""
    from peft import PeftModel
    from transformers import LlavaForConditionalGeneration

    made = prepare(
        dataclasses.replace(Recipe.read("small-lora", ["lora.rank=4"]), train=train, bf16=False, batch=4),
        base, open_talks(data), tmp_path / "work",
    )  # fmt: skip
    teach(made, tmp_path / "adapter")
    trained = made.checkpoint.model.eval()
    merged = load_checkpoint(base, dtype=torch.float32, adapter=tmp_path / "adapter").model
    theirs = PeftModel.from_pretrained(LlavaForConditionalGeneration.from_pretrained(base), tmp_path / "adapter")
    ids = torch.tensor([[1, 40, 50, 60, 70]])
    place = torch.arange(5)[None]
    with torch.no_grad():
        logits = trained.logits(trained(trained.embed(ids), place))
        plain = load_checkpoint(base, dtype=torch.float32).model
        assert float((logits - plain.logits(plain(plain.embed(ids), place))).abs().max()) > 0.1
        assert float((logits - merged.logits(merged(merged.embed(ids), place))).abs().max()) <= 1e-4
        assert float((logits - theirs(input_ids=ids).logits).abs().max()) <= 1e-4


def test_an_adapter_learns_over_four_bits(data: Path, tmp_path: Path) -> None:
    """Gradients through quantized layers are those through the same layers expanded."""
    config = tiny.llava_config(
        tiny.vision_config("clip"), tiny.text_config("llama", hidden_size=64, intermediate_size=128)
    )
    tiny.save(tiny.random_model(config), tmp_path / "base")
    recipe = dataclasses.replace(Recipe.read("small-lora"), quantize="int8", bf16=False, batch=4)
    made = prepare(recipe, tmp_path / "base", open_talks(data), tmp_path / "work")
    assert any(type(module).__name__ == "QuantizedLinear" for module in made.checkpoint.model.modules())
    loss, _ = loss_and_gradients(made)
    plain = prepare(dataclasses.replace(recipe, quantize=None), tmp_path / "base", open_talks(data), tmp_path / "work2")
    loss_plain, _ = loss_and_gradients(plain)
    assert abs(loss - loss_plain) <= 0.02 * loss_plain
    # Names of layers are the same whether layers are fused or not.
    ours, theirs = ({n: up.grad for n, _, up in adapters_of(each.checkpoint.model)} for each in (made, plain))
    assert ours
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert gradient is not None
        cosine = torch.cosine_similarity(gradient.flatten(), theirs[name].flatten(), dim=0)
        assert cosine > 0.98, name


def test_checkpointing_and_a_mean_of_weights_change_no_loss(base: Path, data: Path, tmp_path: Path) -> None:
    loss, gradients = loss_and_gradients(lesson(base, data, tmp_path / "a"))
    again, same = loss_and_gradients(lesson(base, data, tmp_path / "b", checkpointing=True))
    assert loss == again
    assert all(torch.equal(gradient, same[name]) for name, gradient in gradients.items())
    made = lesson(base, data, tmp_path / "c", ema=0.5, epochs=1)
    teach(made, tmp_path / "out")
    kept = load_file(tmp_path / "c" / STATE_FILE)
    assert any(name.startswith("model.ema.") for name in kept)


def test_another_recipe_does_not_go_on_with_this_run(base: Path, data: Path, tmp_path: Path) -> None:
    teach(lesson(base, data, tmp_path / "work"), tmp_path / "out", minutes=0)
    with pytest.raises(TrainingError, match=r"keeps another run: rate was 0\.005, is 0\.001"):
        teach(lesson(base, data, tmp_path / "work", rate=1e-3), tmp_path / "out")


def test_a_loss_that_is_no_number_names_its_records(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"made of my\.json: record \d+.*lower the rate") as caught:
        teach(lesson(base, data, tmp_path / "work", rate=1e30, clip=1e30), tmp_path / "out")
    assert str(caught.value).count("my.json") == 4


def test_records_that_cannot_be_used_stop_the_run_or_are_counted(base: Path, data: Path, tmp_path: Path) -> None:
    records = json.loads(data.read_text())
    (data.parent / "torn.png").write_bytes(b"no picture")
    records[3] = {**records[3], "image": "torn.png"}
    records[5] = {"conversations": []}
    torn = data.parent / "torn.json"
    torn.write_text(json.dumps(records))
    with pytest.raises(TrainingError, match=r"torn\.json: record 6: .*--skip"):
        lesson(base, torn, tmp_path / "a")
    recipe = dataclasses.replace(RECIPE, epochs=1)
    made = prepare(recipe, base, open_talks(torn), tmp_path / "b", skip=True)
    assert len(made.course.records) == 11
    teach(made, tmp_path / "out")
    assert [text.split(":")[1].strip() for text in sorted(set(made.course.left_out))] == ["record 4", "record 6"]


def test_from_tuning_to_use_in_one_breath(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mini` learns a word that it did not know, whole and as an adapter, and says it."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    records = []
    for number in range(16):
        picture = Image.new("RGB", (64, 64), "white")
        picture.paste((90, 40 + number, 160), (8, 8, 40 + number, 56))
        picture.save(tmp_path / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\nWhat is this called?"}, {"from": "gpt", "value": "A zorb."}]
        records.append({"image": f"{number}.png", "conversations": turns})
    (tmp_path / "my.json").write_text(json.dumps(records))
    data = ["--data", str(tmp_path / "my.json"), "--base", "mini"]
    assert main(["train", "tune", *data, "--out", str(tmp_path / "none"), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "learning  4,131,584 parameters" in told
    assert "[picture: 64 tokens]\nWhat is this called? ASSISTANT:« A zorb.</s>»" in told
    assert not (tmp_path / "none").exists()
    asked = ["What is this called?", str(tmp_path / "3.png")]
    assert main(["train", "tune", *data, "--out", str(tmp_path / "own"), "--set", "epochs=20"]) == 0
    assert (
        main(
            [
                "train",
                "tune",
                "small-lora",
                *data,
                "--out",
                str(tmp_path / "adapter"),
                "--set",
                "epochs=40",
                "--set",
                "rate=2e-3",
            ]
        )
        == 0
    )
    capsys.readouterr()
    assert main(["run", str(tmp_path / "own"), *asked]) == 0
    assert main(["run", "mini", *asked, "--adapter", str(tmp_path / "adapter")]) == 0
    assert main(["run", str(tmp_path / "adapter"), *asked]) == 0
    assert capsys.readouterr().out == "A zorb.\nA zorb.\nA zorb.\n"
    assert main(["train", "tune", "--base", str(tmp_path / "adapter"), *data[:2], "--out", str(tmp_path / "no")]) == 2
    assert "give the model below it" in capsys.readouterr().err
    picture = Image.open(io.BytesIO((tmp_path / "own.training" / "loss.png").read_bytes()))
    assert picture.size == (960, 480)
    assert "zorb" not in lapilli.load("mini").chat("What is this called?", [tmp_path / "3.png"]).text


def test_a_stage_refuses_the_other_stage_s_recipe(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--base", "mini", "--data", str(data), "--out", "x"]
    assert main(["train", "tune", "small-align", *asked]) == 2
    assert "that is `lapilli train align`" in capsys.readouterr().err
