"""An answer by a model that is opened in this process."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapilli.errors import InputError, PromptError
from lapilli.faces.cli.question import Question
from lapilli.faces.cli.wishes import Opening, Wishes, read_form
from lapilli.faces.terminal import Wrapping, show

if TYPE_CHECKING:
    from lapilli.engine.answer import Answer
    from lapilli.engine.grammar import Constraint
    from lapilli.engine.local import LocalModel
    from lapilli.engine.sampler import SamplingOptions


def answer_here(model: str, question: Question, wishes: Wishes, opening: Opening) -> None:
    """Load the model and print its answer; without a question, only load it.

    Raises LapilliError.
    """
    options = _options(**wishes.sampling)
    constraint = _constraint(wishes.format)
    if opening.show_attention is not None:
        _check_picture(opening.show_attention, question)
    started = time.perf_counter()
    loaded = _load(model, opening)
    load_seconds = time.perf_counter() - started
    if question.prompt is None:
        return  # nothing to ask: the model is there and opens, which is all there was to see
    answer = _ask(loaded, question, wishes, options, constraint)
    if opening.show_attention is not None:
        _write_relevance(opening.show_attention, loaded, question, wishes.system, answer)
    if wishes.as_json:
        print(json.dumps(_report(model, answer, load_seconds), ensure_ascii=False))
    if wishes.verbose:
        _account(answer, load_seconds)


def _load(model: str, opening: Opening) -> LocalModel:
    from lapilli.engine.local import load

    return load(
        model, quantize=opening.quantize, device=opening.device, dtype=opening.dtype, projector=opening.projector,
        adapter=opening.adapter,
    )  # fmt: skip


def _constraint(format: str | None) -> Constraint | None:
    """The form that the answer must have."""
    from lapilli.engine.grammar import Constraint

    form = read_form(format)
    if form is None:
        return None
    return Constraint.json() if form == "json" else Constraint.json_schema(form)


def _options(**given: Any) -> SamplingOptions:
    from lapilli.engine.sampler import SamplingOptions

    try:
        return SamplingOptions(**{name: value for name, value in given.items() if value is not None and value != []})
    except InputError as error:
        name, _, rest = str(error).partition(" ")
        raise InputError(f"--{name.replace('_', '-')} {rest}") from None


def _ask(
    model: LocalModel, question: Question, wishes: Wishes, options: SamplingOptions, constraint: Constraint | None
) -> Answer:
    """The whole answer; printed as it is made, unless it is wanted as JSON."""
    answer: Answer | None = None
    wrapping = Wrapping(sys.stdout) if wishes.wrap and sys.stdout.isatty() else None
    asked = model.stream(question.prompt, question.images, system=wishes.system, options=options, constraint=constraint)
    for chunk in asked:
        if wrapping is not None and not wishes.as_json:
            wrapping.write(chunk.text)
        elif not wishes.as_json:
            show(chunk.text, sys.stdout)
        answer = chunk.answer or answer
    if not wishes.as_json:
        show("\n", sys.stdout)
    assert answer is not None, "a stream always ends with its answer"
    return answer


def _check_picture(path: Path, question: Question) -> None:
    """Refuse what could not be drawn before anything is loaded."""
    if path.suffix.lower() != ".png":
        raise InputError(f"--show-attention {path}: a PNG is written, give a name that ends in .png")
    if not question.images:
        raise PromptError("--show-attention needs a picture: name one after the prompt")


def _write_relevance(path: Path, model: LocalModel, question: Question, system: str | None, answer: Answer) -> None:
    """The pictures, with where the answer was seen over them."""
    from lapilli.engine.heatmap import draw
    from lapilli.engine.relevance import relevance
    from lapilli.ground.files import publish

    prompt = model.prompt(question.prompt or "", question.images, system=system)
    processor = model.prompts.image_processor
    assert processor is not None, "a model that answered about a picture has prepared it"
    seen = relevance(model.model, prompt, answer.token_ids, processor, features=model.features(prompt))
    sheet = draw(question.images, seen, answer.text)
    try:
        with publish(path) as fresh:
            sheet.save(fresh, format="PNG")
    except OSError as error:
        raise InputError(f"--show-attention {path}: {error.strerror or error}") from error


def _report(model: str, answer: Answer, load_seconds: float) -> dict[str, Any]:
    values = dataclasses.asdict(answer)
    del values["token_ids"], values["logprobs"]
    if not values["stopped_by"]:
        del values["stopped_by"]
    times = {name: round(values.pop(name), 6) for name in [*values] if name.endswith("_seconds")}
    return {
        "model": model,
        "text": values.pop("text"),
        "finish_reason": values.pop("finish_reason"),
        **values,
        "completion_tokens": answer.completion_tokens,
        "load_seconds": round(load_seconds, 6),
        **times,
    }


def _account(answer: Answer, load_seconds: float) -> None:
    """Counts and rates on standard error."""
    lines = (
        ("load", load_seconds, None),
        ("queue", answer.queue_seconds, None),
        ("images", answer.image_seconds, answer.image_tokens),
        ("prompt", answer.prefill_seconds, answer.prompt_tokens),
        ("answer", answer.decode_seconds, answer.completion_tokens),
    )
    for name, seconds, tokens in lines:
        rate = f"{tokens:8d} tokens {tokens / seconds:10.1f} tokens/s" if tokens and seconds > 0 else ""
        print(f"{name:<8}{seconds * 1000:10.1f} ms {rate}".rstrip(), file=sys.stderr)
    if answer.cached_tokens:
        print(f"{'cached':<8}{answer.cached_tokens} tokens of the prompt", file=sys.stderr)
    print(f"{'finish':<8}{answer.finish_reason}", file=sys.stderr)
