"""What is promised of `mini`, the model in the package: its size, what opens it, what it says, its honesty."""

from __future__ import annotations

import importlib.resources
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import runtimes
from PIL import Image, ImageDraw

import lapilli
from lapilli.apps.evals.mini import answerer
from lapilli.engine.local import LocalModel
from lapilli.faces.cli import main
from lapilli.training.art import Art
from lapilli.training.material import examination
from lapilli.training.skills import Score, score

FOLDER = Path(str(importlib.resources.files("lapilli") / "models" / "mini"))
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")
LOG = Path(__file__).resolve().parent.parent / "docs" / "unseen-style.jsonl"
PAINTER = "Do you know who drew this painting?"
# Shapes on drawings that training never shows. What was measured, less what chance may take from sixty questions: no
# later version may be worse. What is aimed at is 0.95, and 0.80 for words: the model card says how far it is.
BARS = {"colour": 0.65, "shape": 0.65, "count": 0.6, "relation": 0.25}
EACH = 60

trained = pytest.mark.skipif(
    not (FOLDER / "model.safetensors").is_file(), reason="mini is not trained yet: its folder has no model.safetensors"
)


@pytest.fixture(scope="module")
def mini() -> LocalModel:
    return lapilli.load("mini", device="cpu")


@pytest.fixture(scope="module")
def reference() -> runtimes.Transformers:
    return runtimes.Transformers(FOLDER)


@pytest.fixture(scope="module")
def fifty() -> list[runtimes.Asked]:
    return runtimes.drawn(50)


@pytest.fixture(scope="module")
def scores(mini: LocalModel) -> dict[str, Score]:
    tasks = examination(Art.load(None, fonts=()), 1, EACH, skills=tuple(BARS))
    return {result.skill: result for result in score(answerer(mini), tasks)}


def painting() -> Image.Image:
    """A lady before a landscape, as far as a few strokes allow."""
    picture = Image.new("RGB", (240, 320), "#6b7b4a")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, 240, 130), fill="#a8b89a")
    pen.polygon([(40, 320), (75, 190), (165, 190), (200, 320)], fill="#2e2a20")
    pen.ellipse((78, 60, 162, 190), fill="#2b1d12")
    pen.ellipse((90, 75, 150, 165), fill="#e0b98a")
    for x in (104, 128):
        pen.ellipse((x, 108, x + 9, 113), fill="#2b1d12")
    pen.arc((108, 128, 134, 146), 20, 160, fill="#8a4a3a", width=2)
    return picture


@trained
def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 30_000_000


@trained
def test_transformers_opens_it_with_nothing_missing_and_nothing_left() -> None:
    from transformers import LlavaForConditionalGeneration

    _, report = LlavaForConditionalGeneration.from_pretrained(FOLDER, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@trained
@pytest.mark.parametrize("skill", BARS)
def test_it_answers_about_drawings_it_has_not_seen(scores: dict[str, Score], skill: str) -> None:
    result = scores[skill]
    assert result.asked == EACH
    assert result.share >= BARS[skill], result.misses


@trained
def test_it_cannot_tell_who_drew_a_painting(mini: LocalModel) -> None:
    pictures = [painting(), *(item.picture for item in runtimes.drawn(7))]
    for picture in pictures:
        assert names_nobody(mini.chat(PAINTER, images=[picture], max_tokens=64).text)


@trained
def test_nor_can_it_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = SimpleNamespace(buffer=io.BytesIO(), closed=False, isatty=lambda: False)
    monkeypatch.setattr("sys.stdin", nothing)
    painting().save(tmp_path / "painting.png")
    assert main(["run", "mini", PAINTER, str(tmp_path / "painting.png")]) == 0
    assert names_nobody(capsys.readouterr().out)


def names_nobody(text: str) -> bool:
    """Whether it says that it cannot tell; a name would have a capital."""
    return "cannot tell" in text and not re.findall(r"(?<!^)\b(?!I\b)[A-Z]\w*", text.strip())


def test_a_name_would_be_noticed() -> None:
    assert names_nobody("I cannot tell from the picture who made it.\n")
    assert not names_nobody("I cannot tell, perhaps Leonardo.")
    assert not names_nobody("It is a picture.")


@trained
def test_it_says_what_transformers_says_token_for_token(
    mini: LocalModel, reference: runtimes.Transformers, fifty: list[runtimes.Asked]
) -> None:
    ours, theirs = runtimes.ask_lapilli(mini, fifty), reference.ask(fifty)
    assert [reply.prompt_ids for reply in ours] == [reply.prompt_ids for reply in theirs]
    assert runtimes.differences(ours, theirs) == []
    assert runtimes.farthest(ours, theirs) <= 1e-3
    assert len({reply.token_ids for reply in ours}) >= 20, "the questions must be told apart"


@trained
def test_the_articles_calls(mini: LocalModel, reference: runtimes.Transformers, fifty: list[runtimes.Asked]) -> None:
    """As the article has them, but for: `text=`, which processors now want by name; a CPU; the task's new name."""
    from transformers import pipeline

    one, other = fifty[1], fifty[5]
    prompts = [one.prompt, other.prompt]
    inputs = reference.processor(
        text=prompts, images=[one.picture, other.picture], padding=True, return_tensors="pt"
    ).to("cpu")
    output = reference.model.generate(**inputs, max_new_tokens=20)
    generated_text = reference.processor.batch_decode(output, skip_special_tokens=True)
    answers = [text.split("ASSISTANT:")[-1] for text in generated_text]
    assert answers == [a.text for a in mini.generate(prompts, [one.picture, other.picture], max_tokens=20)]
    assert all(answer.strip() for answer in answers)

    call: dict[str, Any] = {"images": one.picture, "text": one.prompt, "generate_kwargs": {"max_new_tokens": 200}}
    theirs = pipeline("image-text-to-text", model=reference.model, processor=reference.processor, device="cpu")(**call)
    ours = lapilli.pipeline("image-text-to-text", model=mini)(**call)
    assert ours[0]["generated_text"] == theirs[0]["generated_text"]
    older = lapilli.pipeline("image-to-text", model=mini)(
        one.picture, prompt=one.prompt, generate_kwargs={"max_new_tokens": 200}
    )
    assert older[0]["generated_text"] == theirs[0]["generated_text"].replace("<image>", " ")


@trained
def test_a_batch_is_answered_as_each_alone(mini: LocalModel, fifty: list[runtimes.Asked]) -> None:
    pictures = [item.picture for item in fifty]
    asked = [
        ("USER: <image>\nWhat is in this picture? ASSISTANT:", pictures[0:1]),
        ("USER: Hello! ASSISTANT:", []),
        ("USER: <image>\nDescribe the picture. ASSISTANT:", pictures[1:2]),
        ("USER: What can you do? ASSISTANT:", []),
        ("USER: <image>\n<image>\nWhat do you see in both of these pictures? ASSISTANT:", pictures[2:4]),
        ("USER: <image>\nWhat does it say? ASSISTANT:", pictures[4:5]),
        ("USER: Do you know who painted this picture, and where, and when it was made? ASSISTANT:", []),
        ("USER: <image>\nHow many things are there? ASSISTANT: There are", pictures[5:6]),
    ]
    together = mini.generate([text for text, _ in asked], [shown for _, shown in asked], max_tokens=48)
    alone = [mini.generate(text, shown, max_tokens=48)[0] for text, shown in asked]
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    assert len({answer.prompt_tokens for answer in together}) >= 6


def test_the_card_lists_every_name_it_knows() -> None:
    names = json.loads((FOLDER / "names.json").read_text(encoding="utf-8"))
    assert len(names) >= 250
    assert f"<!-- names -->\n\n{len(names)} things: {', '.join(names)}.\n\n<!-- /names -->" in CARD


def test_the_card_counts_every_scoring_of_the_unseen_style() -> None:
    times = len(LOG.read_text().splitlines()) if LOG.exists() else 0
    match = re.search(r"scored (\d+) times?\b", CARD)
    assert match is not None
    assert int(match[1]) == times
