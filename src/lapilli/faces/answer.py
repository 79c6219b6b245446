"""An answer on its way from a server to a person: thoughts, words, and what it took."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from lapilli.faces.client import Reply
from lapilli.faces.terminal import Wrapping, show

_GREY, _PLAIN = "\x1b[90m", "\x1b[0m"


@dataclass
class Told:
    """What was said so far; the account comes with the last piece, so an answer that was stopped has none."""

    text: str = ""
    thinking: str = ""
    account: Mapping[str, Any] | None = None

    def add(self, reply: Reply) -> None:
        """Keep one more piece."""
        self.text += reply.text
        self.thinking += reply.thinking
        self.account = reply.account or self.account


def tell(replies: Iterable[Reply], told: Told, out: TextIO, *, wrap: bool = True, hide_thinking: bool = False) -> None:
    """Print an answer as it is made, and keep it in `told`, also where it breaks off.

    On a terminal lines are broken between words with `wrap`, and thoughts are grey.
    """
    screen = out.isatty()
    wrapping = Wrapping(out) if wrap and screen else None
    thinking = False
    try:
        with _waiting(screen) as found:
            for reply in replies:
                if reply.text or reply.thinking or reply.account:
                    found()
                told.add(reply)
                if reply.thinking and not hide_thinking:
                    if not thinking:
                        out.write("Thinking...\n" + (_GREY if screen else ""))
                        thinking = True
                    _write(reply.thinking, out, wrapping)
                if reply.text:
                    if thinking:
                        thinking = _end_thinking(out, told, screen)
                    _write(reply.text, out, wrapping)
    finally:
        if thinking:  # also where it breaks off: nothing else is to be grey
            _end_thinking(out, told, screen)


def account_text(account: Mapping[str, Any]) -> str:
    """What an answer took, as `--verbose` prints it: Ollama's lines, then our own where there is something to say."""
    prompt, answer = account.get("prompt_eval_count", 0), account.get("eval_count", 0)
    spent, said = account.get("prompt_eval_duration", 0), account.get("eval_duration", 0)
    rows: list[tuple[str, str]] = [
        ("total duration", duration_text(account.get("total_duration", 0))),
        ("load duration", duration_text(account.get("load_duration", 0))),
    ]
    if account.get("queue_duration"):
        rows.append(("queue duration", duration_text(account["queue_duration"])))
    if account.get("image_tokens"):
        rows.append(("image count", f"{account['image_tokens']} token(s)"))
    if account.get("image_duration"):
        rows.append(("image duration", duration_text(account["image_duration"])))
    rows += [("prompt eval count", f"{prompt} token(s)")] if prompt else []
    rows += [("prompt cached count", f"{account['cached_tokens']} token(s)")] if account.get("cached_tokens") else []
    if prompt and spent:
        rows += [("prompt eval duration", duration_text(spent)), ("prompt eval rate", _rate(prompt, spent))]
    rows += [("eval count", f"{answer} token(s)")] if answer else []
    if answer and said:
        rows += [("eval duration", duration_text(said)), ("eval rate", _rate(answer, said))]
    return "\n".join(f"{f'{name}:':<22}{value}" for name, value in rows)


def duration_text(nanoseconds: int) -> str:
    """A duration as Go writes it: 1m2.5s, 12.25ms, 3µs."""
    for limit, unit in ((1_000, "ns"), (1_000_000, "µs"), (1_000_000_000, "ms")):
        if nanoseconds < limit:
            return f"{nanoseconds * 1000 / limit:.6f}".rstrip("0").rstrip(".") + unit if nanoseconds else "0s"
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    seconds = f"{rest / 1e9:.9f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + seconds


def _rate(tokens: int, nanoseconds: int) -> str:
    return f"{tokens / nanoseconds * 1e9:.2f} tokens/s"


def _write(text: str, out: TextIO, wrapping: Wrapping | None) -> None:
    if wrapping is None:
        show(text, out)
    else:
        wrapping.write(text)


def _end_thinking(out: TextIO, told: Told, screen: bool) -> bool:
    out.write(("" if told.thinking.endswith("\n") else "\n") + (_PLAIN if screen else "") + "...done thinking.\n\n")
    return False


@contextlib.contextmanager
def _waiting(screen: bool) -> Iterator[Any]:
    """Something that turns while nothing has been said yet, on a terminal; what is yielded ends it."""
    if not (screen and sys.stderr.isatty()):
        yield lambda: None
        return
    from rich.console import Console

    status = Console(stderr=True).status("", spinner="dots")
    status.start()
    try:
        yield status.stop
    finally:
        status.stop()
