"""`lapilli run`: ask a model, and print the answer as it is made; without a question, talk with it."""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import Annotated

import typer

from lapilli.errors import InputError, ModelNotFoundError, PromptError
from lapilli.faces.cli.completion import complete_model
from lapilli.faces.cli.question import Question, piped_stdin, read_question
from lapilli.faces.cli.wishes import Opening, Wishes, read_think
from lapilli.faces.terminal import printable


def run(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model's name (mini), a checkpoint folder, or a .gguf file.",
            autocompletion=complete_model,
        ),
    ],
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="What to ask; paths of pictures in it are taken out.")
    ] = None,
    pictures: Annotated[list[str] | None, typer.Argument(metavar="PICTURES", help="Files of pictures.")] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0 (default, if the model sets none) says the likeliest token.")
    ] = None,
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
    think: Annotated[
        str | None, typer.Option(metavar="[=LEVEL]", help="Think first: =true, =false, =low, =medium, =high, =max.")
    ] = None,
    hide_thinking: Annotated[bool, typer.Option("--hidethinking", help="Print the answer without the thoughts.")] = (
        False
    ),
    keep_alive: Annotated[
        str | None,
        typer.Option("--keepalive", metavar="TIME", help="How long a server keeps it in memory: 5m, 1h, -1 for ever."),
    ] = None,
    truncate: Annotated[
        bool | None,
        typer.Option("--truncate/--no-truncate", help="Leave out what does not fit, instead of refusing it."),
    ] = None,
    dimensions: Annotated[int | None, typer.Option(help="Print an embedding of so many numbers.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="A model that must be pulled may come over http.")] = (
        False
    ),
    no_wrap: Annotated[bool, typer.Option("--nowordwrap", help="Leave long lines to the terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Counts and rates on standard error.")] = False,
    quantize: Annotated[str | None, typer.Option(help="Round the weights on loading: int8 or int4.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32 (default on a CPU), bfloat16 or float16.")] = None,
    projector: Annotated[Path | None, typer.Option(help="The mmproj file of a .gguf model.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="A folder with a LoRA adapter in PEFT's layout.")] = None,
    show_attention: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Where it looked: write the pictures with relevance over them.")
    ] = None,
) -> None:
    """Ask a model about pictures, or about anything.

    lapilli run mini "What is in this picture?" photo.png

    Without a prompt, at a terminal, it talks with you. Standard input is read when something is piped in: text goes
    before the prompt, a picture is a picture. A model that is not here is pulled.

    A server that is up is asked (`lapilli serve`, or Ollama's), else the model is opened here, and for this once. The
    options from --quantize on always have it opened here.
    """
    stdin = piped_stdin()
    question = read_question(prompt, pictures or (), stdin, _note)
    talk = question.prompt is None and sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
    if talk and not sys.stdout.isatty():
        raise PromptError(f'give a prompt: lapilli run {model} "What is in this picture?" photo.png')
    if question.prompt is not None and not question.prompt:
        raise PromptError("the prompt is empty: say what you want to know")
    wishes = Wishes(
        sampling={
            "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
            "repeat_penalty": repeat_penalty, "seed": seed, "max_tokens": max_tokens, "stop": stop or None,
        },
        system=system, format=format, think=read_think(think), hide_thinking=hide_thinking, keep_alive=keep_alive,
        truncate=truncate, dimensions=dimensions, insecure=insecure, wrap=not no_wrap, as_json=as_json,
        verbose=verbose,
    )  # fmt: skip
    opening = Opening(
        quantize=quantize, device=device, dtype=dtype, projector=projector, adapter=adapter,
        show_attention=show_attention,
    )  # fmt: skip
    if talk and opening.given():
        raise PromptError(f"{opening.given()[0]} needs a prompt: a conversation takes the model as it is stored")
    place = Place.HERE if opening.given() else find_place(model, wishes)
    if talk:
        from lapilli.faces.cli.there import talk_there

        talk_there(model, wishes, private=place is Place.HERE)
    elif place is Place.HERE:
        _run_here(model, question, wishes, opening)
    else:
        from lapilli.faces.cli.there import answer_there

        answer_there(model, question, wishes)


def _run_here(model: str, question: Question, wishes: Wishes, opening: Opening) -> None:
    from lapilli.faces.cli.here import answer_here

    if wishes.think or wishes.dimensions is not None or wishes.truncate:
        name = "--think" if wishes.think else "--truncate" if wishes.truncate else "--dimensions"
        raise InputError(f"{name} needs a server: start one with `lapilli serve`")
    answer_here(model, question, wishes, opening)


class Place(enum.Enum):
    """Where a model is run: in this process, or by a server, the one that is up or a private one."""

    HERE = enum.auto()
    SERVER = enum.auto()


def find_place(model: str, wishes: Wishes) -> Place:
    """Where a model is run: what only this machine has is run here, all else by a server.

    That is a path, and a built-in model where no server is up, or one that does not know it (Ollama's).
    Raises LapilliError.
    """
    from lapilli.store.sources import BUILT_IN

    if model not in BUILT_IN:
        return Place.HERE if _is_path(model) else Place.SERVER
    known = _server_knows(model)
    if known is None and (wishes.think or wishes.truncate or wishes.dimensions is not None):
        return Place.SERVER
    return Place.SERVER if known else Place.HERE


def _is_path(model: str) -> bool:
    """Whether a model's name is a path; one that does not look so is a name first, if there is a model of that name."""
    path = Path(model).expanduser()
    try:
        if not path.exists():
            return False
    except (OSError, ValueError):
        return False
    if model.startswith((".", "~")) or path.is_absolute():
        return True
    known = _server_knows(model)
    return not (_is_stored(model) if known is None else known)


def _is_stored(model: str) -> bool:
    from lapilli.store.reference import default_library

    try:
        default_library().find(model)
    except (InputError, ModelNotFoundError):
        return False
    return True


def _server_knows(model: str) -> bool | None:
    """Whether the server that is up has a model; None where none is up."""
    from lapilli.faces.connection import reach
    from lapilli.ground.settings import Settings

    server = reach(Settings())
    if server is None:
        return None
    with server:
        try:
            server.show(model)
        except (InputError, ModelNotFoundError):
            return False
    return True


def _note(text: str) -> None:
    print("lapilli: note:", printable(text), file=sys.stderr)
