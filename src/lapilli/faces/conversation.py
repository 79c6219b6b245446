"""A conversation with a model by way of a server: several turns, pictures by their paths."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from lapilli.errors import ModelNotFoundError
from lapilli.faces.answer import Told, account_text, tell
from lapilli.faces.client import Client
from lapilli.faces.pictures import picture, read_picture, take_paths
from lapilli.faces.terminal import printable, show


@dataclass
class Session:
    """What a conversation is made of, and how it is shown; commands change it.

    `unstored` names the model that lies at a path, and in no store.
    """

    model: str
    unstored: str = ""
    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    format: str | Mapping[str, Any] | None = None
    think: bool | str | None = None
    hide_thinking: bool = False
    keep_alive: str | None = None
    verbose: bool = False
    wrap: bool = True
    messages: list[dict[str, Any]] = field(default_factory=list)


class Conversation:
    """Turns with one model at a time, which commands may change.

    `fetch` brings a model here that the server does not have. Output goes to `out`, remarks to `err`; with `history_on`
    what is sent is kept.
    """

    def __init__(
        self,
        client: Client,
        session: Session,
        *,
        fetch: Callable[[str], None],
        history_on: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        self.client = client
        self.session = session
        self.shown: dict[str, Any] = {}
        self.history_on = history_on
        self._fetch = fetch
        self.out = out or sys.stdout
        self.err = err or sys.stderr

    def open(self, model: str) -> None:
        """Begin with a model: have it loaded, and show the messages that it begins with.

        Raises LapilliError, and leaves everything as it was.
        """
        try:
            shown = self.client.show(model)
        except ModelNotFoundError:
            self._fetch(model)
            shown = self.client.show(model)
        with self._turning(f"loading {model}"):
            self.client.load(model, self.session.keep_alive)
        self.shown = shown
        self.session.model = model
        for message in shown.get("messages") or ():
            mark = ">>> " if message.get("role") == "user" else ""
            if message.get("role") in ("user", "assistant"):
                self.say(f"{mark}{message.get('content', '')}\n")

    def ask(self, text: str) -> None:
        """Send a message with the pictures it names, and show the answer; Ctrl-C stops that and keeps what was said.

        A turn that nothing was said to is taken back, so that the next one is not answered in its place.
        """
        message = self._message(text)
        session, told = self.session, Told()
        replies = self.client.chat(
            session.model, self.messages(message), options=session.options or None, format=session.format,
            think=session.think, keep_alive=session.keep_alive,
        )  # fmt: skip
        try:
            tell(replies, told, self.out, wrap=session.wrap, hide_thinking=session.hide_thinking)
        except KeyboardInterrupt:
            if not told.text:
                self.remark("stopped before anything was said: the message is taken back")
        finally:
            replies.close()  # the server stops, too
            if told.text:
                session.messages += [message, {"role": "assistant", "content": told.text}]
            self.say("\n" if told.text or told.thinking else "")
        if session.verbose and told.account:
            print(account_text(told.account), file=self.err)

    def messages(self, *more: dict[str, Any]) -> list[dict[str, Any]]:
        """The messages as they are sent: what the person set as system message, all turns, and some more."""
        first = [] if self.session.system is None else [{"role": "system", "content": self.session.system}]
        return [*first, *self.session.messages, *more]

    def say(self, text: str) -> None:
        """A line for the person."""
        show(f"{text}\n", self.out)

    def remark(self, text: str) -> None:
        """A line beside the conversation."""
        print(printable(" ".join(text.split())), file=self.err)

    def _message(self, text: str) -> dict[str, Any]:
        capabilities = self.shown.get("capabilities")
        if capabilities is not None and "vision" not in capabilities:
            return {"role": "user", "content": text}
        words, paths = take_paths(text, self.remark)
        images = [picture(read_picture(path)) for path in paths]
        for path in paths:
            self.remark(f"Added image '{path}'")
        return {"role": "user", "content": words, **({"images": images} if images else {})}

    def _turning(self, text: str) -> Any:
        if not self.err.isatty():
            return contextlib.nullcontext()
        from rich.console import Console

        return Console(file=self.err).status(printable(text))
