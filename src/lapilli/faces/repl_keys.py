"""The REPL's line: its keys, its history, and what Tab offers."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style

from lapilli.ground.files import publish

HISTORY_LIMIT = 100
_COMMANDS = (
    "/set parameter", "/set system", "/set history", "/set nohistory", "/set wordwrap", "/set nowordwrap",
    "/set format json", "/set noformat", "/set verbose", "/set quiet", "/set think", "/set nothink",
    "/show info", "/show license", "/show modelfile", "/show parameters", "/show system", "/show template",
    "/load", "/save", "/clear", "/list", "/bye", "/exit", "/help", "/? shortcuts",
)  # fmt: skip


def bindings(editor: str, is_open: Callable[[str], bool]) -> KeyBindings:
    """Enter sends, or begins a line inside of a block; M-Enter always begins one; C-g opens the editor."""
    keys = KeyBindings()
    here = has_focus(DEFAULT_BUFFER)

    @keys.add("enter", filter=here)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=here)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-g", filter=here)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer

        async def edit() -> None:
            text = await run_in_terminal(lambda: edited(buffer.text, editor), in_executor=True)
            buffer.document = Document(text)

        event.app.create_background_task(edit())

    return keys


def find_editor() -> str:
    """The person's editor, as LAPILLI_EDITOR, OLLAMA_EDITOR, VISUAL or EDITOR names it."""
    named = (os.environ.get(name) for name in ("LAPILLI_EDITOR", "OLLAMA_EDITOR", "VISUAL", "EDITOR"))
    return next(filter(None, named), "notepad" if os.name == "nt" else "vi")


def edited(text: str, editor: str) -> str:
    """The text after a person changed it in their editor; as it was where that cannot be started."""
    with tempfile.TemporaryDirectory(prefix="lapilli-") as folder:
        path = Path(folder, "message.txt")
        path.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor, posix=os.name != "nt"), str(path)], check=False)
            return path.read_text(encoding="utf-8").rstrip("\n")
        except (OSError, ValueError) as error:
            print(f"the editor {editor!r} cannot be started: {error}")
            return text


def style() -> Style:
    """Grey for what is no text of the person's."""
    return Style.from_dict({"placeholder": "ansibrightblack"})


class RecentHistory(History):
    """The last lines that were sent, kept in a file that only its owner may read; `on` says whether to keep more."""

    def __init__(self, path: Path, on: Callable[[], bool] = lambda: True, limit: int = HISTORY_LIMIT) -> None:
        super().__init__()
        self._path = path
        self._on = on
        self._limit = limit

    def load_history_strings(self) -> Iterable[str]:
        """The kept lines, the latest first."""
        return reversed(self._read())

    def store_string(self, string: str) -> None:
        """Keep one more; what cannot be written is not kept, a conversation does not end for it."""
        if not self._on():
            return
        lines = [*self._read(), string][-self._limit :]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with publish(self._path) as fresh:
                handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        except OSError:
            return

    def _read(self) -> list[str]:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return []
        found: list[str] = []
        for line in lines:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, str):
                found.append(value)
        return found[-self._limit :]


class ReplCompleter(Completer):
    """Commands and models' names after a slash, files elsewhere."""

    def __init__(self, names: Callable[[], list[str]]) -> None:
        self._names = names
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What may stand at the cursor."""
        text = document.text_before_cursor
        if text.startswith("/load "):
            offered = [f"/load {name}" for name in self._names()]
        else:
            offered = [command for command in _COMMANDS if text.startswith("/")]
        matching = [command for command in offered if command.startswith(text)]
        if matching:
            yield from (Completion(command, start_position=-len(text)) for command in matching)
            return
        word = text.rpartition(" ")[2]
        if "/" in word:
            yield from self._files.get_completions(Document(word), complete_event)
