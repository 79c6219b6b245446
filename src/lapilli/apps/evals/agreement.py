"""Two forms of one model, asked the same: how often they say the same, and how likely one finds the other's answers.

agreement = compare(lapilli.load("mini"), lapilli.load("mini.gguf"))
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lapilli.apps.evals.mini import KNOWN_STYLES, ExamOptions, answerer
from lapilli.engine.local import LocalModel
from lapilli.engine.scores import rank
from lapilli.inputs.chat import conversation
from lapilli.training.art import Art
from lapilli.training.material import SKILLS, examination


@dataclass(frozen=True)
class Agreement:
    """Of `asked` questions, how many had the very same answer; and the perplexity that each finds the first's to have.

    Perplexity is e to the mean negative log-likelihood of a token of the first model's own answers.
    """

    asked: int
    same: int
    perplexity: float
    perplexity_after: float

    @property
    def share(self) -> float:
        return self.same / self.asked

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "share": round(self.share, 4)}


def compare(
    before: LocalModel, after: LocalModel, data: Path | None = None, options: ExamOptions | None = None
) -> Agreement:
    """Ask both the questions of `mini`'s examination, greedily; `data` is the folder with emoji/ and text/.

    Without it, the skills that need no picture of a thing are asked. Raises PromptError for a model that does not see.
    """
    options = options or ExamOptions(each=20)
    tasks = examination(Art.load(data, KNOWN_STYLES), options.seed, options.each, skills=SKILLS)
    said: list[list[str]] = []
    for model in (before, after):
        answer = answerer(model)
        texts: list[str] = []
        for start in range(0, len(tasks), options.batch):
            group = tasks[start : start + options.batch]
            texts += answer([task.pixels_HWC for task in group], [task.question for task in group])
        said.append(texts)
    totals, tokens = [0.0, 0.0], 0
    for task, text in zip(tasks, said[0], strict=True):
        prompt = before.prompts.chat(conversation(task.question, [Image.fromarray(task.pixels_HWC)]))
        spoken = before.tokenizer.encode(f" {text}") if text else []
        if not spoken:
            continue
        tokens += len(spoken)
        for number, model in enumerate((before, after)):
            (scored,) = rank(model.model, prompt, [spoken], features=model.features(prompt))
            totals[number] -= scored.sum
    perplexities = [math.exp(total / tokens) if tokens else math.nan for total in totals]
    same = sum(one == other for one, other in zip(*said, strict=True))
    return Agreement(len(tasks), same, *perplexities)
