"""`lapilli run`: ask a model, and print the answer as it is made."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lapilli.errors import InputError, PromptError
from lapilli.faces.cli.question import Question, piped_stdin, read_question
from lapilli.faces.cli.terminal import printable, show

if TYPE_CHECKING:
    from lapilli.engine.answer import Answer
    from lapilli.engine.grammar import Constraint
    from lapilli.engine.local import LocalModel
    from lapilli.engine.sampler import SamplingOptions


def run(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's name (mini), a checkpoint folder, or a .gguf file.")
    ],
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="What to ask; paths of pictures in it are taken out.")
    ] = None,
    pictures: Annotated[list[str] | None, typer.Argument(metavar="PICTURES", help="Files of pictures.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 says the likeliest token each time (default).")] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest tokens; 0 is all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest that add up to p.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Leave out what is less likely than p times the best.")] = None,
    repeat_penalty: Annotated[float | None, typer.Option(help="Above 1, say again less.")] = None,
    seed: Annotated[int | None, typer.Option(help="Draw the same answer again.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The longest answer; the model's own by default.")] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="<str>", help="End before this text; may be given again.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="What the model is told before the conversation.")] = None,
    format: Annotated[
        str | None, typer.Option(help="json, or a JSON Schema that the answer keeps: its text, or a file.")
    ] = None,
    quantize: Annotated[str | None, typer.Option(help="Round the weights on loading: int8 or int4.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32 (default on a CPU), bfloat16 or float16.")] = None,
    projector: Annotated[Path | None, typer.Option(help="The mmproj file of a .gguf model.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="A folder with a LoRA adapter in PEFT's layout.")] = None,
    show_attention: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Where it looked: write the pictures with relevance over them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Counts and rates on standard error.")] = False,
) -> None:
    """Ask a model about pictures, or about anything.

    lapilli run mini "What is in this picture?" photo.png

    Standard input is read when something is piped in: text goes before the prompt, a picture is a picture.
    """
    stdin = piped_stdin()
    question = read_question(prompt, pictures or (), stdin, _note)
    if question.prompt is None and stdin is None:
        raise PromptError(f'give a prompt: lapilli run {model} "What is in this picture?" photo.png')
    if question.prompt is not None and not question.prompt:
        raise PromptError("the prompt is empty: say what you want to know")
    options = _options(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repeat_penalty=repeat_penalty, seed=seed,
        max_tokens=max_tokens, stop=stop,
    )  # fmt: skip
    constraint = _constraint(format)
    if show_attention is not None:
        _check_picture(show_attention, question)
    started = time.perf_counter()
    loaded = _load(model, quantize, device, dtype, projector, adapter)
    load_seconds = time.perf_counter() - started
    if question.prompt is None:
        return  # nothing to ask: the model is there and opens, which is all there was to see
    answer = _ask(loaded, question, system, options, constraint, aloud=not as_json)
    if show_attention is not None:
        _write_relevance(show_attention, loaded, question, system, answer)
    if as_json:
        print(json.dumps(_report(model, answer, load_seconds), ensure_ascii=False))
    if verbose:
        _account(answer, load_seconds)


def _load(
    model: str, quantize: str | None, device: str, dtype: str | None, projector: Path | None, adapter: Path | None
) -> LocalModel:
    from lapilli.engine.local import load

    return load(model, quantize=quantize, device=device, dtype=dtype, projector=projector, adapter=adapter)


def _constraint(format: str | None) -> Constraint | None:
    """The form that the answer must have: any JSON, or what a schema says."""
    from lapilli.engine.grammar import Constraint

    if format is None:
        return None
    if format == "json":
        return Constraint.json()
    if format.lstrip().startswith("{"):
        return Constraint.json_schema(format)
    try:
        return Constraint.json_schema(Path(format).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--format {format[:80]}: is neither json nor a schema, and no such file is there") from error


def _options(**given: Any) -> SamplingOptions:
    from lapilli.engine.sampler import SamplingOptions

    try:
        return SamplingOptions(**{name: value for name, value in given.items() if value is not None and value != []})
    except InputError as error:
        name, _, rest = str(error).partition(" ")
        raise InputError(f"--{name.replace('_', '-')} {rest}") from None


def _ask(
    model: LocalModel,
    question: Question,
    system: str | None,
    options: SamplingOptions,
    constraint: Constraint | None,
    *,
    aloud: bool,
) -> Answer:
    """The whole answer; printed as it is made where `aloud`."""
    answer: Answer | None = None
    asked = model.stream(question.prompt, question.images, system=system, options=options, constraint=constraint)
    for chunk in asked:
        if aloud:
            show(chunk.text, sys.stdout)
        answer = chunk.answer or answer
    if aloud:
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


def _note(text: str) -> None:
    print("lapilli: note:", printable(text), file=sys.stderr)
