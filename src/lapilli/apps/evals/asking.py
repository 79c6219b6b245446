"""Asking a model many things, a batch at once: each answer kept as it is given, gone on with where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lapilli.inputs.prompt import Prompt

if TYPE_CHECKING:
    from lapilli.engine.grammar import Constraint
    from lapilli.engine.local import LocalModel


class Asked(Protocol):
    """Something to ask, with a name of its own."""

    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Asked)
Answerer = Callable[[Sequence[Item]], Sequence[str]]


def ask_all(
    items: Sequence[Item],
    answer: Answerer[Item],
    kept: Path,
    *,
    read: Callable[[Path], dict[str, str]],
    line: Callable[[Item, str], Mapping[str, Any]],
    batch: int = 32,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, str]:
    """Ask what `kept` has no answer to yet; each answer is there as soon as it is given, as a JSON `line` of its own.

    `read` gives the answers of that file by id. Returns all of them.
    """
    said = read(kept) if kept.exists() else {}
    left = [item for item in items if item.id not in said]
    progress(len(items) - len(left))
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("a", encoding="utf-8") as file:
        for start in range(0, len(left), batch):
            group = left[start : start + batch]
            for item, text in zip(group, answer(group), strict=True):
                said[item.id] = text
                file.write(json.dumps(line(item, text), ensure_ascii=False) + "\n")
            file.flush()
            progress(len(items) - len(left) + start + len(group))
    return said


def answers(
    model: LocalModel, prompts: Sequence[Prompt], longest: int, forms: Sequence[Constraint | None]
) -> list[str]:
    """Greedy answers to prompts, all together; the empty one where a prompt is too long for the model."""
    from lapilli.engine.sampler import SamplingOptions

    jobs = {
        model.engine.submit(prompt, SamplingOptions(max_tokens=longest), form): number
        for number, (prompt, form) in enumerate(zip(prompts, forms, strict=True))
        if len(prompt.token_ids) < model.config.text.max_positions
    }
    texts = [""] * len(prompts)
    for job, piece in model.engine.stream_all(list(jobs)):
        if piece.answer is not None:
            texts[jobs[job]] = piece.answer.text.strip()
    return texts
