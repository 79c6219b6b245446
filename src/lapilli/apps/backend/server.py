"""What backends on a server have in common, whatever its dialect."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import io
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from lapilli.apps.backend.call import WINDOW, Call, Reply, checked_window
from lapilli.apps.backend.connection import Connection
from lapilli.apps.backend.spelling import spell
from lapilli.errors import LapilliError

if TYPE_CHECKING:
    from PIL.Image import Image

_AHEAD = 4  # windows of answers that may wait for one before them
_TEXTS = 64  # of one request for vectors


class ServerBackend:
    """A model behind HTTP; a dialect says how to `ask`, `stream` and `embed`. Safe from several threads."""

    def __init__(self, connection: Connection, name: str, digest: str, *, context: int | None, sees: bool) -> None:
        self.connection, self.name, self.digest = connection, name, digest
        self.context, self.sees = context, sees

    def ask(self, call: Call) -> Reply:
        """The answer to one call. Raises what `Connection` does, LapilliError for an answer that is none."""
        with self._reading():
            return self._ask(call)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The server's vectors (N, D), of length 1. Raises what `ask` does."""
        rows: list[Sequence[float]] = []
        with self._reading():
            for start in range(0, len(texts), _TEXTS):
                rows += self._embed(list(texts[start : start + _TEXTS]))
        return _unit_rows(rows, len(texts))

    def stream(self, call: Call) -> Iterator[str]:
        """An answer in pieces; leaving early ends it. Raises what `ask` does."""
        begun = False
        with self._reading():
            for piece in self._stream(call):
                # The blank between the cue and the first word belongs to the format.
                text = piece if begun else piece.lstrip()
                begun = begun or bool(text)
                if text:
                    yield text

    def _ask(self, call: Call) -> Reply:
        raise AssertionError("a dialect asks")

    def _embed(self, texts: list[str]) -> list[Sequence[float]]:
        raise AssertionError("a dialect embeds")

    def _stream(self, call: Call) -> Iterator[str]:
        raise AssertionError("a dialect streams")

    def ask_all(self, calls: Iterable[Call], *, window: int = WINDOW) -> Iterator[Reply | LapilliError]:
        """Answers in the order of the calls, `window` requests at a time. Raises InputError for a window below 1."""
        return self._answers(iter(calls), checked_window(window))

    def _answers(self, calls: Iterator[Call], window: int) -> Iterator[Reply | LapilliError]:
        line: deque[Future[Reply | LapilliError]] = deque()
        askers = ThreadPoolExecutor(window, "ask")
        try:
            for call in calls:
                line.append(askers.submit(self._outcome, call))
                while line and (line[0].done() or not _has_room(line, window)):
                    if line[0].done():
                        yield line.popleft().result()
                    else:
                        concurrent.futures.wait(
                            [asked for asked in line if not asked.done()],
                            return_when=concurrent.futures.FIRST_COMPLETED,
                        )
            while line:
                yield line.popleft().result()
        finally:
            askers.shutdown(wait=False, cancel_futures=True)

    def _outcome(self, call: Call) -> Reply | LapilliError:
        try:
            return self.ask(call)
        except LapilliError as error:
            return error

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """An answer of another shape than the dialect's is the server's fault, and told as such."""
        try:
            yield
        except LapilliError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            told = f"{self.connection.url} sent an answer that is none: {type(error).__name__}: {error}"
            raise LapilliError(" ".join(told.split())[:300]) from error

    def count(self, call: Call) -> int | None:
        """None: a server tells how long a prompt was when it has read it."""
        return None

    def close(self) -> None:
        """Let go of the connection."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _has_room(line: deque[Future[Reply | LapilliError]], window: int) -> bool:
    return len(line) < window * _AHEAD and sum(not asked.done() for asked in line) < window


def picture_base64(image: Image) -> str:
    """A picture as a server takes it; PNG, so that it sees the very pixels."""
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=1)
    return base64.b64encode(data.getvalue()).decode("ascii")


def chances_of(rows: Sequence[Mapping[str, Any]] | None, text: str) -> tuple[tuple[str, float], ...] | None:
    """Tokens with their log-probabilities, in the shape that Ollama and OpenAI share; None where none were told."""
    if not rows:
        return None if text else ()
    spelt = spell([bytes(row["bytes"]) if row.get("bytes") else str(row["token"]).encode() for row in rows], text)
    return tuple((piece, float(row["logprob"])) for piece, row in zip(spelt, rows, strict=True))


def _unit_rows(rows: Sequence[Sequence[float]], count: int) -> NDArray[np.float32]:
    """Vectors (N, D) of length 1. Raises LapilliError where they are not one a text, or not all of one size."""
    if len(rows) != count or len({len(row) for row in rows}) > 1:
        raise LapilliError(f"the server gave {len(rows)} vectors for {count} texts, or of several sizes")
    vectors_ND = np.asarray(rows, np.float32).reshape(count, -1)
    lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    if not np.isfinite(vectors_ND).all():
        raise LapilliError("the server gave vectors with what is no number")
    found: NDArray[np.float32] = vectors_ND / np.maximum(lengths_N1, np.finfo(np.float32).tiny)
    return found
