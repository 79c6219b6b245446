"""`lapilli pull` and `push`: models from and to a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lapilli.faces.cli.completion import complete_model
from lapilli.faces.cli.server import connected

if TYPE_CHECKING:
    from lapilli.faces.client import Client

Insecure = Annotated[bool, typer.Option("--insecure", help="Over http, so unprotected; for a registry of your own.")]


def pull(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name such as llava:7b, or hf:owner/name.")],
    insecure: Insecure = False,
) -> None:
    """Fetch a model from a registry or from the Hugging Face hub.

    lapilli pull llava

    What was fetched stays when you stop it: the same command goes on from there. Every byte is checked.
    """
    with connected() as client:
        fetch(client, model, insecure=insecure)


def push(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name with its registry.", autocompletion=complete_model)
    ],
    insecure: Insecure = False,
) -> None:
    """Send a model to a registry.

    \b
    lapilli cp mini registry.example.org/me/mini
    lapilli push registry.example.org/me/mini

    What the registry has already is not sent again.
    """
    from lapilli.faces.progress import following

    again = f"What was sent stays there; to go on: lapilli push {model}"
    with connected() as client, following(again) as step:
        for progress in client.push(model, insecure=insecure):
            step(progress)


def fetch(client: Client, model: str, *, insecure: bool = False) -> None:
    """Pull a model and show how far it is."""
    from lapilli.faces.progress import following

    with following(f"What was fetched is kept; to go on: lapilli pull {model}") as step:
        for progress in client.pull(model, insecure=insecure):
            step(progress)
