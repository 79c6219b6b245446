"""`lapilli list`, `show`, `ps`, `stop`, `cp`, `rm`: the models that are here, and those in memory."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from lapilli.errors import InputError, ModelNotFoundError
from lapilli.faces.cli.completion import complete_model, complete_running
from lapilli.faces.cli.server import connected
from lapilli.faces.terminal import printable, show

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name.", autocompletion=complete_model)]


def list_models(
    prefix: Annotated[str | None, typer.Argument(metavar="PREFIX", help="Only names that begin so.")] = None,
) -> None:
    """List the models that are here.

    mini comes with the package; the rest was pulled or created. See `lapilli ps` for those in memory.
    """
    from lapilli.faces.columns import models_table

    with connected() as client:
        models = client.tags()
    print(models_table(model for model in models if model.name.lower().startswith((prefix or "").lower())))


def show_model(
    model: Model,
    license: Annotated[bool, typer.Option("--license", help="Print its license.")] = False,
    modelfile: Annotated[bool, typer.Option("--modelfile", help="Print its Modelfile.")] = False,
    parameters: Annotated[bool, typer.Option("--parameters", help="Print its parameters.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Print its chat template.")] = False,
    system: Annotated[bool, typer.Option("--system", help="Print its system message.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also metadata and every tensor.")] = False,
) -> None:
    """Show what is known about a model.

    Sizes, context, capabilities, parameters; with one of the options, that part alone and as it is.
    """
    from lapilli.faces.showing import info_text, part_text

    flags = {"license": license, "modelfile": modelfile, "parameters": parameters, "template": template,
             "system": system}  # fmt: skip
    asked = [name for name, given in flags.items() if given]
    if len(asked) + verbose > 1:
        given = [*asked, *["verbose"] * verbose]
        raise InputError(f"{' and '.join(f'--{name}' for name in given)}: one of them at a time")
    with connected() as client:
        known = client.show(model, verbose=verbose)
    text = part_text(known, asked[0]) if asked else info_text(known, verbose=verbose)
    show(text if text.endswith("\n") else f"{text}\n", sys.stdout)


def list_running() -> None:
    """List the models in memory.

    How large they are, where they lie, and until when they stay: see --keepalive of `lapilli run`.
    """
    from lapilli.faces.columns import running_table

    with connected() as client:
        running = client.ps()
    print(running_table(running))


def stop_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model in memory.", autocompletion=complete_running)],
) -> None:
    """Have a model leave memory.

    Answers that are being given are finished first.
    """
    with connected() as client:
        try:
            client.stop(model)
        except ModelNotFoundError:
            raise ModelNotFoundError(f'couldn\'t find model "{model}" to stop') from None


def copy_model(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A model's name.", autocompletion=complete_model)],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The second name.")],
) -> None:
    """Give a model a second name.

    Takes no room: both names share the same files.
    """
    with connected() as client:
        client.copy(source, target)
    print(printable(f"copied '{source}' to '{target}'"))


def remove_models(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="Names of models.", autocompletion=complete_model)
    ],
) -> None:
    """Remove models.

    Files that no other model needs go with them; models in memory leave it.
    """
    with connected() as client:
        for model in models:
            with contextlib.suppress(ModelNotFoundError, InputError):
                client.stop(model)
            client.delete(model)
            print(printable(f"deleted '{model}'"))
