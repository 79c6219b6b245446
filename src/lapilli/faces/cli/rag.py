"""`lapilli rag`: questions answered from your own documents."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lapilli.errors import InputError, LapilliError
from lapilli.faces.terminal import Wrapping, printable, show

if TYPE_CHECKING:
    from lapilli.apps.rag.adding import Added, Step
    from lapilli.apps.rag.app import App, Cited, Stream

rag = typer.Typer(name="rag", help="Ask your own documents.", rich_markup_mode=None)

Folder = Annotated[Path | None, typer.Option(help="Where documents lie; else the setting LAPILLI_DOCUMENTS.")]
Model = Annotated[str | None, typer.Option(help="A model's name, a folder, a .gguf file; a server's, with --url.")]
Url = Annotated[str | None, typer.Option(help="A server of Ollama's or OpenAI's kind that has the model.")]
Vectors = Annotated[
    str | None, typer.Option("--embedder", help="Who makes vectors: a folder or a name; none is full text alone.")
]
Config = Annotated[Path | None, typer.Option(help="A configuration in YAML or JSON, as embedchain has it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Count = Annotated[int | None, typer.Option(min=1, max=100, help="Passages to find.")]
_SNIPPET = 160


@rag.callback(invoke_without_command=True)
def _rag(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@rag.command()
def add(
    sources: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders or URLs.")],
    kind: Annotated[str | None, typer.Option(help="What they are, where their names do not say it.")] = None,
    folder: Folder = None,
    model: Model = None,
    url: Url = None,
    embedder: Vectors = None,
    config: Config = None,
    as_json: AsJson = False,
) -> int:
    """Add files, folders and web pages.

    Pictures are described by the model, so that they are found by what they show. What is there already in the same
    bytes is passed over, what has changed is replaced. Stopped with Ctrl-C, it goes on from there when done again.

    lapilli rag add notes/ manual.pdf
    """
    with _app(folder, model, url, embedder, config) as app:
        again = f"lapilli rag add {shlex.join(sources)}"
        with _steps(again) as step:
            added = app.add_all([_named(source) for source in sources], kind=kind, tell=step, note=_note)
    if as_json:
        print(json.dumps(dataclasses.asdict(added), ensure_ascii=False))
    else:
        print(_sum(added))
    return 1 if added.failed and not (added.added or added.unchanged) else 0


@rag.command()
def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
    count: Count = None,
    folder: Folder = None,
    model: Model = None,
    url: Url = None,
    embedder: Vectors = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Answer a question from the documents, and say where it is from.

    lapilli rag ask "How is the filter cleaned?"
    """
    with _app(folder, model, url, embedder, config) as app:
        if as_json:
            print(json.dumps(_report(app.ask(question, count=count)), ensure_ascii=False))
        else:
            _print(app.stream(question, count=count))


@rag.command()
def chat(
    session: Annotated[str, typer.Option(help="The session to go on with.")] = "default",
    count: Count = None,
    folder: Folder = None,
    model: Model = None,
    url: Url = None,
    embedder: Vectors = None,
    config: Config = None,
) -> None:
    """Talk about the documents; what was said counts.

    /clear forgets the session, /bye or Ctrl-D leaves, Ctrl-C stops an answer.
    """
    with _app(folder, model, url, embedder, config) as app:
        for line in _lines():
            question = line.strip()
            if question in ("/bye", "/exit"):
                break
            if question == "/clear":
                app.delete_session_chat_history(session)
                continue
            if not question:
                continue
            try:
                _print(app.stream(question, session=session, count=count))
            except KeyboardInterrupt:
                print()
            except LapilliError as error:
                _note(f"error: {error}")


@rag.command()
def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for.")],
    count: Count = None,
    folder: Folder = None,
    embedder: Vectors = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Find passages, best first, without asking a model."""
    with _app(folder, None, None, embedder, config) as app:
        found = app.find(query, count or 5)
    if as_json:
        print(
            json.dumps([{**dataclasses.asdict(hit.passage), "score": hit.score} for hit in found], ensure_ascii=False)
        )
        return
    for hit in found:
        passage = hit.passage
        text = " ".join(passage.text.split())
        place = _place(passage.source, passage.label, passage.start, passage.end)
        show(f"{hit.score:.4f}  {place}\n        {_short(text)}\n", sys.stdout)
    if not found:
        _note("nothing was found")


@rag.command(name="ls")
def list_documents(folder: Folder = None, config: Config = None, as_json: AsJson = False) -> None:
    """List what was added."""
    from lapilli.faces.columns import table

    with _app(folder, None, None, None, config) as app:
        entries = app.sources()
    if as_json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries], ensure_ascii=False, default=str))
        return
    rows = [(entry.source, entry.kind, str(entry.passages), str(entry.characters)) for entry in entries]
    print(table(("SOURCE", "KIND", "PASSAGES", "CHARACTERS"), rows))


@rag.command(name="rm")
def remove(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="As `lapilli rag ls` names them.")],
    folder: Folder = None,
    config: Config = None,
) -> None:
    """Remove documents; a folder's name removes all that lies in it."""
    with _app(folder, None, None, None, config) as app:
        for source in sources:
            if not app.delete(source):
                near = difflib.get_close_matches(source, [entry.source for entry in app.sources()], n=1, cutoff=0.3)
                hint = f"did you mean {near[0]!r}?" if near else "`lapilli rag ls` shows what there is"
                raise InputError(f"no document {source!r} was added: {hint}")


def _app(folder: Path | None, model: str | None, url: str | None, embedder: str | None, config: Path | None) -> App:
    """The App that the options say; they go before the file."""
    from lapilli.apps.rag.app import App
    from lapilli.apps.rag.config import AppConfig
    from lapilli.apps.rag.config_text import read_config_text

    tree: dict[str, Any] = {} if config is None else dict(read_config_text(config))
    if url is not None and model is None:
        raise InputError("--url needs --model, the name of a model there")
    if model is not None:
        kept = _kept_options(tree)
        tree["llm"] = {"provider": "lapilli", "config": kept | {"model": model} | ({"base_url": url} if url else {})}
    if embedder is not None:
        tree.pop("embedding_model", None)
        none = embedder.lower() == "none"
        tree["embedder"] = {"provider": "none"} if none else {"provider": "lapilli", "config": {"model": embedder}}
    return App(AppConfig.of(tree), folder=folder)


def _kept_options(tree: dict[str, Any]) -> dict[str, Any]:
    """What a file says of answers, without what it says of the model."""
    llm = tree.get("llm")
    options = llm.get("config") if isinstance(llm, dict) else None
    gone = {"model", "model_name", "base_url", "endpoint", "api_key"}
    return {name: value for name, value in options.items() if name not in gone} if isinstance(options, dict) else {}


def _named(source: str) -> str | Path:
    """What an argument names: an address, else a file or a folder, never words."""
    return source if source.lower().startswith(("http://", "https://")) else Path(source).expanduser()


@contextlib.contextmanager
def _steps(again: str) -> Iterator[Callable[[Step], None]]:
    """Show how far adding is: a bar at a terminal; what cannot be read is said at once."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    name = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), name)
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("", total=None)

            def step(done: Step) -> None:
                if done.outcome == "failed":
                    _note(f"{done.source}: not added: {done.problem}")
                shown = printable(done.source)
                bar.update(task, completed=done.done, total=done.total, description=shown[-40:])

            yield step
    except KeyboardInterrupt:
        _note(f"stopped; what was written stays, and the same command goes on from there: {again}")
        raise


def _sum(added: Added) -> str:
    parts = [
        f"{len(found)} {what}"
        for found, what in ((added.added, "added"), (added.unchanged, "unchanged"), (added.failed, "failed"))
        if found
    ]
    return ", ".join(parts or ["nothing to add"]) + (f"; {added.characters} characters" if added.added else "")


def _print(stream: Stream) -> None:
    """The answer as it is written, then where it is from."""
    wrapping = Wrapping(sys.stdout) if sys.stdout.isatty() else None
    with contextlib.closing(stream):  # Ctrl-C has the model stop as well
        for piece in stream:
            if wrapping is None:
                show(piece, sys.stdout)
            else:
                wrapping.write(piece)
        answer = stream.cited
    lines = [
        f"[{citation.number}] {_place(citation.source, citation.label, citation.start, citation.end)}\n"
        f"    {_short(' '.join(citation.text.split()))}\n"
        for citation in answer.citations
    ]
    show("\n" + ("\n" if lines else "") + "".join(lines), sys.stdout)
    if answer.found and not answer.citations:
        _note("no passage bears this answer out")
    for note in answer.notes:
        _note(note)


def _report(answer: Cited) -> dict[str, Any]:
    return {
        "text": answer.text,
        "found": answer.found,
        "citations": [dataclasses.asdict(citation) for citation in answer.citations],
        "hits": [
            {"source": hit.passage.source, "start": hit.passage.start, "end": hit.passage.end, "score": hit.score}
            for hit in answer.hits
        ],
        "prompt_tokens": answer.prompt_tokens,
        "tokens": answer.tokens,
        "notes": list(answer.notes),
    }


def _place(source: str, label: str, start: int, end: int) -> str:
    return ", ".join(part for part in (source, label, f"characters {start} to {end}") if part)


def _short(text: str) -> str:
    return text if len(text) <= _SNIPPET else f"{text[: _SNIPPET - 1]}…"


def _lines() -> Iterator[str]:
    """What is typed, line by line; from a pipe, its lines."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    from prompt_toolkit import PromptSession

    prompts: PromptSession[str] = PromptSession(">>> ")
    while True:
        try:
            yield prompts.prompt()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def _note(text: str) -> None:
    print("lapilli: note:", printable(" ".join(text.split())), file=sys.stderr)
