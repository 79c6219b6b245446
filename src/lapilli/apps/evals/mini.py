"""What `mini` is made for, examined: colours, shapes, counts, places, names and words in pictures never trained on.

results = examine(lapilli.load("mini"), Path("data"))
print(results.table())
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lapilli.engine.local import LocalModel
from lapilli.engine.sampler import SamplingOptions
from lapilli.errors import InputError
from lapilli.inputs.chat import conversation
from lapilli.training.art import Art
from lapilli.training.material import SKILLS, examination
from lapilli.training.skills import Answer, Score, record, score, table

KNOWN_STYLES = ("noto", "twemoji")
UNSEEN_STYLE = "fluent3d"
UNSEEN_LOG = Path("docs") / "unseen-style.jsonl"

_NO_NAMING = "naming is left out: it needs the folder with emoji/ and text/"
_FEW_WORDS = "words are letters drawn by chance and the names that mini knows: the folder's text/ has English ones"


@dataclass(frozen=True, kw_only=True)
class ExamOptions:
    """How much is asked, and of which pictures: the same numbers give the same questions."""

    each: int = 200
    seed: int = 0
    batch: int = 32
    misses: int = 5

    def __post_init__(self) -> None:
        for name, least in (("each", 1), ("seed", 0), ("batch", 1), ("misses", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}, it must be at least {least}")


@dataclass(frozen=True)
class Results:
    """The score of each skill, and notes on what could not be asked."""

    scores: tuple[Score, ...]
    notes: tuple[str, ...] = ()

    def table(self) -> str:
        """The scores as lines of text."""
        return table(self.scores)

    def to_dict(self) -> dict[str, Any]:
        skills = {x.skill: {"right": x.right, "asked": x.asked, "share": round(x.share, 4)} for x in self.scores}
        return {"skills": skills, "notes": list(self.notes)}


def examine(model: LocalModel, data: Path | None = None, options: ExamOptions = ExamOptions()) -> Results:
    """Ask about drawings of the test split: held-out compositions, words and typefaces, things in known styles.

    `data` is the folder with emoji/ and text/. Without it the skills that need no picture of a thing are asked all the
    same, and a note says what is left out. Raises TrainingError where the folder lacks something.
    """
    art = Art.load(data, KNOWN_STYLES)
    notes = () if art.things else (_NO_NAMING, _FEW_WORDS)
    return Results(tuple(_ask(model, art, SKILLS, options)), notes)


def examine_unseen(
    model: LocalModel,
    data: Path,
    log: Path = UNSEEN_LOG,
    options: ExamOptions = ExamOptions(),
    *,
    name: str = "mini",
    style: str = UNSEEN_STYLE,
) -> Results:
    """Ask for the names of things in a style that training never shows; each call leaves a line in `log`.

    A style stays unseen only as long as nobody chooses by its score, so the model card says how often it was scored.
    Raises InputError for a style that is trained on, OSError before anything is asked where `log` cannot be written.
    """
    if style in KNOWN_STYLES:
        raise InputError(f"{style} is no unseen style: mini is trained on {' and '.join(KNOWN_STYLES)}")
    art = Art.load(data, (style,))
    log.parent.mkdir(parents=True, exist_ok=True)
    log.open("a").close()
    scores = _ask(model, art, ("naming",), options)
    record(scores, log, f"{name}: naming in {style}, seed {options.seed}")
    return Results(tuple(scores))


def answerer(model: LocalModel, *, longest: int = 64) -> Answer:
    """Greedy answers of the engine through the model's own chat format, a batch at once."""
    options = SamplingOptions(max_tokens=longest)

    def answer(pictures: Sequence[np.ndarray], questions: Sequence[str]) -> list[str]:
        pairs = zip(pictures, questions, strict=True)
        prompts = [model.prompts.chat(conversation(text, [Image.fromarray(pixels)])) for pixels, text in pairs]
        return [done.text.strip() for done in model.complete(prompts, options)]

    return answer


def _ask(model: LocalModel, art: Art, skills: Sequence[str], options: ExamOptions) -> list[Score]:
    tasks = examination(art, options.seed, options.each, skills=skills)
    scores = score(answerer(model), tasks, batch=options.batch, show=options.misses)
    return sorted(scores, key=lambda result: SKILLS.index(result.skill))
