"""`lapilli eval mini`: what is asked, what is said about it, and that no scoring of the unseen style goes unnoticed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lapilli import InputError
from lapilli.apps.evals import mini as exam
from lapilli.apps.evals.mini import ExamOptions, answerer, examine, examine_unseen
from lapilli.checkpoints.generation import GenerationDefaults
from lapilli.checkpoints.load import Checkpoint
from lapilli.config import LlavaConfig, TextConfig, VisionConfig
from lapilli.engine.local import LocalModel
from lapilli.faces.cli import main
from lapilli.inputs.processor import ImageProcessor
from lapilli.inputs.prompt import PromptBuilder
from lapilli.inputs.templates import ChatTemplate
from lapilli.inputs.tokenizer import Tokenizer
from lapilli.model.llava import Llava
from lapilli.training.art import Art
from lapilli.training.material import SKILLS, examination
from lapilli.training.names import thing_names
from lapilli.training.skills import Answer
from lapilli.training.vocabulary import build_vocabulary

DRAWN = ("colour", "shape", "count", "relation", "word")


@pytest.fixture(scope="module")
def babbler() -> LocalModel:
    """A LLaVA of random weights that says something else to each question."""
    tokenizer = Tokenizer.from_json(
        build_vocabulary([], 300, whole=["USER ASSISTANT"]), config={"bos_token": "<s>", "eos_token": "</s>"}
    )
    config = LlavaConfig(
        text=TextConfig(
            family="llama", vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_layers=2,
            num_heads=2, num_kv_heads=2, head_dim=16, norm_eps=1e-5, max_positions=256, eos_ids=(2,),
        ),
        vision=VisionConfig(
            family="siglip", hidden_size=32, intermediate_size=64, num_layers=1, num_heads=2, image_size=32,
            patch_size=16, activation="gelu_tanh", norm_eps=1e-6,
        ),
        image_token_id=3, feature_layers=(-1,), drop_class_token=False,
    )  # fmt: skip
    model, random = Llava(config), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not (name.endswith("weight") and "norm" in name):
                parameter.normal_(0, 0.3, generator=random)
    processor = ImageProcessor.square(32, (0.5,) * 3, (0.5,) * 3, fit="stretch")
    prompts = PromptBuilder(config, tokenizer, processor, ChatTemplate.built_in("llava_hf"))
    return LocalModel(Checkpoint(config, model, prompts, GenerationDefaults()))


def knowing(answers: dict[str, str]) -> Answer:
    """Says what it knows of a question, whatever the picture."""

    def answer(pictures: Sequence[np.ndarray], questions: Sequence[str]) -> list[str]:
        return [answers.get(question, "I do not know.") for question in questions]

    return answer


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A data folder in which every thing has a plain tile for a picture, in the style that is kept out of training."""
    folder = tmp_path / "data" / "emoji" / "fluent3d"
    folder.mkdir(parents=True)
    concepts = [{"id": f"c{number}", "name": name} for number, name in enumerate(thing_names())]
    (folder.parent / "concepts.json").write_text(json.dumps(concepts))
    Image.new("RGBA", (72, 72), "teal").save(folder / "c0.png")
    for concept in concepts[1:]:
        (folder / f"{concept['id']}.png").write_bytes((folder / "c0.png").read_bytes())
    return tmp_path / "data"


def test_a_batch_is_answered_as_each_alone_in_a_chat(babbler: LocalModel) -> None:
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(4)]
    questions = ["What?", "Where is the red circle relative to the square?", "a", "How many are there?"]
    together = answerer(babbler, longest=12)(pictures, questions)
    alone = [
        babbler.chat(question, [Image.fromarray(pixels)], max_tokens=12).text.strip()
        for pixels, question in zip(pictures, questions, strict=True)
    ]
    assert together == alone
    assert len(set(alone)) == 4


def test_the_same_numbers_give_the_same_result(babbler: LocalModel) -> None:
    one, again, other = (examine(babbler, None, ExamOptions(each=2, seed=seed)) for seed in (0, 0, 1))
    assert one == again
    assert [score.misses for score in one.scores] != [score.misses for score in other.scores]


def test_without_data_the_drawn_skills_are_asked_and_the_rest_is_named(babbler: LocalModel) -> None:
    results = examine(babbler, None, ExamOptions(each=2))
    assert {score.skill: score.asked for score in results.scores} == dict.fromkeys(DRAWN, 2)
    assert any("naming is left out" in note for note in results.notes)


def test_with_data_every_skill_is_asked(babbler: LocalModel, shared_data: Path) -> None:
    results = examine(babbler, shared_data, ExamOptions(each=2))
    assert {score.skill: score.asked for score in results.scores} == dict.fromkeys(SKILLS, 2)
    assert results.notes == ()


def test_right_answers_are_counted(babbler: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = examination(Art.load(None), 0, 20)
    words = [task for task in tasks if task.skill == "shape"]
    known = {task.question: min(task.accept) for task in words[:7]}
    expected = sum(known.get(task.question) in task.accept for task in words)
    monkeypatch.setattr(exam, "answerer", lambda model: knowing(known))
    scores = {score.skill: score for score in examine(babbler, None, ExamOptions(each=20)).scores}
    assert (scores["shape"].right, scores["shape"].asked) == (expected, 20)
    assert 0 < expected < 20
    assert scores["count"].right == 0


@pytest.mark.parametrize(("name", "value"), [("each", 0), ("batch", 0), ("seed", -1), ("misses", -1)])
def test_numbers_that_ask_nothing_are_refused(name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}"):
        ExamOptions(**{name: value})


def test_every_scoring_of_the_unseen_style_leaves_a_line(
    babbler: LocalModel, strange: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exam, "answerer", lambda model: knowing({}))
    log = tmp_path / "docs" / "unseen.jsonl"
    for seed in (0, 1):
        results = examine_unseen(babbler, strange, log, ExamOptions(each=2, seed=seed))
        assert [(score.skill, score.right, score.asked) for score in results.scores] == [("naming", 0, 2)]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["what"] for line in lines] == ["mini: naming in fluent3d, seed 0", "mini: naming in fluent3d, seed 1"]
    assert lines[0]["scores"] == {"naming": [0, 2]}


def test_what_cannot_be_logged_is_not_scored(
    babbler: LocalModel, strange: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exam, "answerer", lambda model: pytest.fail("it was asked"))
    with pytest.raises(OSError, match="directory"):
        examine_unseen(babbler, strange, tmp_path)


def test_a_style_that_is_trained_on_is_not_unseen(babbler: LocalModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trained on"):
        examine_unseen(babbler, tmp_path, tmp_path / "log", style="noto")
    assert not (tmp_path / "log").exists()


@pytest.fixture
def loaded(babbler: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapilli.engine.local.load", lambda *_, **__: babbler)


@pytest.mark.usefixtures("loaded")
def test_the_command_prints_a_table_and_what_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "mini", "--each", "1"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == list(DRAWN)
    assert "naming is left out" in err
    assert "said" not in err


@pytest.mark.usefixtures("loaded")
def test_the_command_prints_one_object_and_shows_misses_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "mini", "--each", "1", "--seed", "3", "--json", "--verbose"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (result["model"], result["seed"], result["unseen"]) == ("mini", 3, False)
    assert result["skills"]["colour"] == {"right": 0, "asked": 1, "share": 0.0}
    assert "right  " in err


@pytest.mark.usefixtures("loaded")
def test_the_command_logs_the_unseen_style(strange: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "unseen.jsonl"
    assert main(["eval", "mini", "--unseen", "--data", str(strange), "--each", "1", "--log", str(log)]) == 0
    assert capsys.readouterr().out.startswith("naming")
    assert len(log.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--unseen"], "--unseen needs --data"),
        (["--data", "no/such/folder"], "no such folder"),
        (["--each", "0"], "each is 0"),
        (["--model", "mino"], "did you mean 'mini'?"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "mini", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1
