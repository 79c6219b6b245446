"""The terminal of a conversation that `lapilli run MODEL` opens: lines, commands, a history."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from lapilli.errors import LapilliError
from lapilli.faces.client import Client
from lapilli.faces.conversation import Conversation, Session
from lapilli.faces.pictures import names_a_file
from lapilli.faces.repl_commands import run_command

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

BLOCK = '"""'
_OPENERS = ("", "/set system ", "/set template ")


class Repl(Conversation):
    """A conversation with one model at a time, until /bye, Ctrl-D or the end of the input."""

    def __init__(
        self,
        client: Client,
        session: Session,
        *,
        fetch: Callable[[str], None],
        history: Path | None = None,
        editor: str = "vi",
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        super().__init__(client, session, fetch=fetch, history_on=history is not None, out=out, err=err)
        self._history = history
        self._editor = editor

    def run(self) -> None:
        """Load the model and talk until the person leaves."""
        self.open(self.session.model)
        prompts = self._prompts()
        while True:
            try:
                line = prompts.prompt()
            except KeyboardInterrupt:
                if not prompts.default_buffer.text:
                    self.say("\nUse Ctrl + d or /bye to exit.")
                continue
            except EOFError:
                self.say("")
                return
            if not self.take(line):
                return

    def take(self, line: str) -> bool:
        """Do what a line says: a command, or a message to the model; False ends the conversation."""
        text = line.strip()
        if not text:
            return True
        try:
            if text.startswith("/") and not names_a_file(text):
                return run_command(self, text)
            self.ask(unblocked(text))
        except KeyboardInterrupt:
            self.say("")
        except (LapilliError, OSError) as error:
            self.remark(f"error: {error}")
        return True

    def _prompts(self) -> PromptSession[str]:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import InMemoryHistory

        from lapilli.faces.repl_keys import RecentHistory, ReplCompleter, bindings, style

        recent = InMemoryHistory() if self._history is None else RecentHistory(self._history, lambda: self.history_on)
        return PromptSession(
            ">>> ",
            multiline=True,
            prompt_continuation="... ",
            placeholder=[("class:placeholder", "Send a message (/? for help)")],
            history=recent,
            key_bindings=bindings(self._editor, is_open),
            completer=ReplCompleter(self._names),
            complete_while_typing=False,
            enable_suspend=os.name != "nt",
            style=style(),
        )

    def _names(self) -> list[str]:
        return [model.name for model in self.client.tags()]


def is_open(text: str) -> bool:
    '''Whether a block that began with """ waits for its end, so that Enter begins a line instead of sending.'''
    for opener in _OPENERS:
        rest = text.lstrip()
        if rest.startswith(opener + BLOCK):
            return BLOCK not in rest[len(opener + BLOCK) :]
    return False


def unblocked(text: str) -> str:
    '''What stands between """ and """, or the text as it is.'''
    if not text.startswith(BLOCK):
        return text
    return text[len(BLOCK) :].removesuffix(BLOCK).strip("\n")
