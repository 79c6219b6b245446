"""An answer, or a conversation, by way of a server: the one that is up, else a private one."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapilli.errors import LapilliError, ModelNotFoundError
from lapilli.faces.cli.question import Question
from lapilli.faces.cli.server import connected
from lapilli.faces.cli.transfer import fetch
from lapilli.faces.cli.wishes import Wishes, read_form
from lapilli.faces.client import Client
from lapilli.faces.pictures import picture, read_picture
from lapilli.faces.terminal import printable, show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lapilli.faces.answer import Told


def answer_there(model: str, question: Question, wishes: Wishes) -> None:
    """Print a model's answer; without a question, have it loaded. A model that the server does not have is pulled.

    Raises LapilliError.
    """
    form = read_form(wishes.format)
    with connected() as client:
        shown = known(client, model, insecure=wishes.insecure)
        capabilities = shown.get("capabilities") or ()
        if question.prompt is None:
            client.load(model, wishes.keep_alive)
        elif wishes.dimensions is not None or ("embedding" in capabilities and "completion" not in capabilities):
            _embed(client, model, question.prompt, wishes)
        else:
            _answer(client, model, question, wishes, form)


def talk_there(model: str, wishes: Wishes, *, private: bool) -> None:
    """Talk with a model at the terminal; with `private` by a server of our own, which a path is given a name for.

    Raises LapilliError.
    """
    from lapilli.faces.connection import alone, connect
    from lapilli.faces.conversation import Session
    from lapilli.faces.repl import Repl
    from lapilli.faces.repl_keys import find_editor
    from lapilli.ground.settings import Settings, data_folder
    from lapilli.store.sources import BUILT_IN

    settings = Settings()
    path = None if model in BUILT_IN else Path(model).expanduser()
    name = model if path is None or not private else _name_of(path)
    session = Session(
        model=name,
        unstored=name if private and path is not None else "",
        system=wishes.system,
        options=_options(wishes),
        format=read_form(wishes.format),
        think=wishes.think,
        hide_thinking=wishes.hide_thinking,
        keep_alive=wishes.keep_alive,
        verbose=wishes.verbose,
        wrap=wishes.wrap,
    )
    named = {name: path} if private and path is not None else {}
    with alone(settings, named) if private else connect(settings) as client:
        Repl(
            client,
            session,
            fetch=lambda name: _fetch(client, name, insecure=wishes.insecure),
            history=None if settings.nohistory else data_folder() / "history",
            editor=find_editor(),
        ).run()


def _name_of(path: Path) -> str:
    """What a folder or a file is called while it is talked with: its own name, where a model may be called so."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", path.resolve().stem).lstrip("-.")[:80] or "model"


def known(client: Client, model: str, *, insecure: bool) -> dict[str, Any]:
    """What the server knows of a model, which is pulled where it does not have it.

    Raises ModelNotFoundError where it cannot be pulled either, with the nearest name of those that are there.
    """
    try:
        return client.show(model)
    except ModelNotFoundError:
        _fetch(client, model, insecure=insecure)
    return client.show(model)


def _fetch(client: Client, model: str, *, insecure: bool) -> None:
    import difflib

    try:
        fetch(client, model, insecure=insecure)
    except LapilliError as error:
        names = [name for listed in client.tags() for name in (listed.name, listed.name.removesuffix(":latest"))]
        near = difflib.get_close_matches(model, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`lapilli list` shows what is here;"
        raise ModelNotFoundError(f"no model {model[:200]!r} is here: {hint} It cannot be pulled: {error}") from error


def _options(wishes: Wishes) -> dict[str, Any]:
    names = {"max_tokens": "num_predict"}
    return {names.get(name, name): value for name, value in wishes.sampling.items() if value is not None}


def _answer(
    client: Client, model: str, question: Question, wishes: Wishes, form: str | Mapping[str, Any] | None
) -> None:
    from lapilli.faces.answer import Told, account_text, tell

    images = [picture(source if isinstance(source, bytes) else read_picture(source)) for source in question.sources]
    asked: dict[str, Any] = {"role": "user", "content": question.prompt, **({"images": images} if images else {})}
    before = [] if wishes.system is None else [{"role": "system", "content": wishes.system}]
    told = Told()
    replies = client.chat(
        model, [*before, asked], options=_options(wishes) or None, format=form, think=wishes.think,
        keep_alive=wishes.keep_alive, truncate=wishes.truncate,
    )  # fmt: skip
    if wishes.as_json:
        for reply in replies:
            told.add(reply)
        print(json.dumps(_report(model, told), ensure_ascii=False))
    else:
        tell(replies, told, sys.stdout, wrap=wishes.wrap, hide_thinking=wishes.hide_thinking)
        show("\n", sys.stdout)
    if wishes.verbose and told.account:
        print(printable(account_text(told.account)), file=sys.stderr)


def _embed(client: Client, model: str, text: str, wishes: Wishes) -> None:
    [vector] = client.embed(
        model, [text], truncate=wishes.truncate, dimensions=wishes.dimensions, keep_alive=wishes.keep_alive
    )
    print(json.dumps(vector))


def _report(model: str, told: Told) -> dict[str, Any]:
    account = told.account or {}
    counts = {"prompt_tokens": "prompt_eval_count", "cached_tokens": "cached_tokens", "image_tokens": "image_tokens",
              "completion_tokens": "eval_count"}  # fmt: skip
    times = {"load": "load_duration", "queue": "queue_duration", "image": "image_duration",
             "prefill": "prompt_eval_duration", "decode": "eval_duration"}  # fmt: skip
    return {
        "model": model,
        "text": told.text,
        **({"thinking": told.thinking} if told.thinking else {}),
        "finish_reason": account.get("done_reason"),
        **{name: account.get(key, 0) for name, key in counts.items()},
        **{f"{name}_seconds": round(account.get(key, 0) / 1e9, 6) for name, key in times.items()},
    }
