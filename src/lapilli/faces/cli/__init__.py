"""The command line: `lapilli run`, `pull`, `serve` and the other commands of Ollama; `train`, `quantize`, `eval`.

Each command imports what it needs when it runs, so that `--help` answers at once. Whatever goes wrong is one line on
standard error: exit code 2, or 130 after Ctrl-C. `LAPILLI_DEBUG=1` adds the traceback.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

import lapilli
from lapilli.errors import InputError, LapilliError
from lapilli.faces.cli import doctor, models, run, transfer
from lapilli.faces.cli.batch import batch
from lapilli.faces.cli.bench import bench
from lapilli.faces.cli.create import create
from lapilli.faces.cli.eval import evaluate
from lapilli.faces.cli.quantize import quantize
from lapilli.faces.cli.rag import rag
from lapilli.faces.cli.serve import serve
from lapilli.faces.cli.train import train
from lapilli.faces.cli.trials import trials
from lapilli.faces.terminal import printable

app = typer.Typer(
    name="lapilli",
    help="LLaVA on your own machine, in small pieces.",
    epilog='Begin with: lapilli run mini "What is in this picture?" photo.png',
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command(name="serve")(serve)
app.command(name="start", hidden=True)(serve)
app.command(name="run")(run.run)
app.command(name="pull")(transfer.pull)
app.command(name="push")(transfer.push)
app.command(name="create")(create)
app.command(name="list")(models.list_models)
app.command(name="ls", hidden=True)(models.list_models)
app.command(name="show")(models.show_model)
app.command(name="ps")(models.list_running)
app.command(name="stop")(models.stop_model)
app.command(name="cp")(models.copy_model)
app.command(name="rm")(models.remove_models)
app.add_typer(train)
app.command(name="quantize")(quantize)
app.add_typer(evaluate)
app.add_typer(rag)
app.add_typer(batch)
app.add_typer(trials)
app.command(name="bench")(bench)
app.command(name="doctor")(doctor.doctor)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"lapilli {lapilli.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _lapilli(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-v", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    elif sys.platform == "win32":
        raise InputError(
            "Windows cannot limit and end processes as lapilli has to: run it under WSL 2, see docs/install.md"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; the console script `lapilli`."""
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        code = app(with_values(given), prog_name="lapilli", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except TyperException as error:
        return _refuse(error.format_message())
    except BrokenPipeError:
        # Whoever read our output has gone: point it nowhere, so that the interpreter's last flush is quiet too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (LapilliError, OSError) as error:
        return _refuse(_said(error))
    except (KeyboardInterrupt, typer.Abort):
        if sys.stdout is not None and sys.stdout.isatty():
            print()  # the terminal has shown ^C, and the shell's prompt wants a line of its own
        return 128 + 2


def with_values(arguments: list[str]) -> list[str]:
    """The arguments as Ollama's are read: `--think` alone is yes, and a switch may have `=true` or `=false`.

    Never in what follows `--`, which is text.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    spelt = {"--think": "--think=true", "--truncate=true": "--truncate", "--truncate=false": "--no-truncate"}
    return [spelt.get(argument, argument) for argument in arguments[:end]] + arguments[end:]


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, LapilliError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _refuse(message: str) -> int:
    if os.environ.get("LAPILLI_DEBUG", "0") not in ("", "0"):
        traceback.print_exc()
    print("lapilli: error:", printable(" ".join(message.split())), file=sys.stderr)
    return 2
