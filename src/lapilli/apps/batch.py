"""Many pictures, many questions: a file of lines goes in, a row for each answer comes out.

    {"image": "cat.png", "question": "What is this?"}
    {"images": ["a.png", "b.png"], "questions": ["What colour is it?", "How many are there?"], "id": "pair"}
    {"images": [["before.png", "after.png"]], "question": "What changed?", "options": {"max_tokens": 64}}
    {"question": "Name a stone.", "system": "One word.", "schema": {"type": "string", "maxLength": 20}}

Each question of a line is asked of each of its pictures; pictures in a list of their own are shown together. A picture
is opened once, and encoded once, however many questions it has.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lapilli
from lapilli.apps.backend.patience import Patience
from lapilli.apps.jobs.columns import Columns
from lapilli.apps.jobs.job import Job, JobReport
from lapilli.apps.jobs.work import Executor, Item, Row, Worker
from lapilli.errors import InputError, LapilliError
from lapilli.ground.files import open_regular
from lapilli.inputs.chat import Message, Part, TextPart, require_json, show

if TYPE_CHECKING:
    from lapilli.apps.backend.call import Backend, Call, Reply

COLUMNS: Columns = {
    "line": "int", "id": "text", "images": "json", "question": "text", "answer": "text", "value": "json",
    "finish": "text", "prompt_tokens": "int", "tokens": "int", "error": "text",
}  # fmt: skip
"""A row: `value` is the answer read as JSON where the line has a schema, `error` why there is no answer."""

SHARD = 64
_LONGEST_LINE = 4 << 20
_LARGEST_PICTURE = 256 << 20
_KEYS = ("id", "image", "images", "question", "questions", "system", "schema", "options")
_OPTIONS: Mapping[str, tuple[type, ...]] = {
    "max_tokens": (int,), "temperature": (int, float), "top_p": (int, float), "seed": (int,), "stop": (str, list),
}  # fmt: skip


@dataclass(frozen=True)
class Answering:
    """Who answers: the arguments of `open_backend`, and how many calls are under way at once."""

    model: str = "mini"
    url: str | None = None
    dialect: str | None = None
    key: str | None = field(default=None, repr=False)
    quantize: str | None = None
    device: str = "auto"
    window: int = 32


@dataclass(frozen=True)
class Questions:
    """A file of lines that was looked over: each of them can be asked."""

    path: Path
    digest: str
    items: int
    rows: int

    @classmethod
    def read(cls, path: Path) -> Questions:
        """Look a file over. Raises InputError with the number of the first line that cannot be asked."""
        digest, items, rows = hashlib.sha256(), 0, 0
        for line, text in _lines(path):
            digest.update(text)
            for item in _read(path, line, text):
                items, rows = items + 1, rows + len(item["questions"])
        if not items:
            raise InputError(f'{path}: asks nothing; each line is an object such as {{"question": "…"}}')
        return cls(path, digest.hexdigest(), items, rows)

    def each(self) -> Iterator[Item]:
        """What is asked: an item for each picture of a line, with all questions about it."""
        for line, text in _lines(self.path):
            yield from _read(self.path, line, text)


def run_batch(
    questions: Questions,
    out: Path,
    answering: Answering,
    *,
    executor: Executor,
    shard: int = SHARD,
    limit: int | None = None,
    carry: bool = False,
    retry: bool = False,
    progress: Callable[[JobReport], None] = lambda _: None,
) -> JobReport:
    """Ask all that is not answered yet, in the job's folder `out`; `limit` counts pictures (or lines without any).

    With `carry`, pictures are read here and go to the workers as bytes: for workers that do not see these files.
    Raises InputError where the folder is another run's, and what opening the model raises.
    """
    from lapilli.apps.backend.opening import identify

    how = {name: getattr(answering, name) for name in ("url", "dialect", "key", "quantize")}
    digest = identify(answering.model, **how)
    made_for = {"work": "batch", "lapilli": lapilli.__version__, "questions": questions.digest, "model": digest}
    folder = str(questions.path.absolute().parent)
    settings = {"answering": vars(answering), "digest": digest, "folder": folder}
    worker = Worker("lapilli.apps.batch:open_questions", settings)
    with Job.open(out, made_for, shard=shard, columns=COLUMNS) as job:
        return job.run(
            questions.each, worker, executor=executor, limit=limit, retry=retry, progress=progress,
            carry=(lambda item: with_pictures(item, Path(folder))) if carry else None,
        )  # fmt: skip


def open_questions(settings: Mapping[str, Any]) -> Asking:
    """The worker: a model, opened. Raises InputError where it is not the one that the job was begun with."""
    from lapilli.apps.backend.opening import open_backend

    how = dict(settings["answering"])
    window = how.pop("window")
    backend = open_backend(**how)
    if backend.digest != settings["digest"]:
        found, wanted = backend.digest[:12], settings["digest"][:12]
        backend.close()
        raise InputError(f"{backend.name} is {found} here, and {wanted} where the job was begun: have the same in both")
    return Asking(backend, Path(settings["folder"]), window)


class Asking:
    """Work on items: each picture opened once, the calls of many items under way together."""

    def __init__(self, backend: Backend, folder: Path, window: int = 32) -> None:
        self._backend, self._folder, self._window = backend, folder, window
        self._patience = Patience()

    def rows(self, items: Iterable[Item]) -> Iterator[Sequence[Row]]:
        """The rows of each item, in order. Raises what the machine failed with, many questions in a row."""
        waiting: deque[_Answers] = deque()

        def calls() -> Iterator[Call]:
            for item in items:
                answers = _Answers(item)
                waiting.append(answers)
                yield from answers.begin(self._folder)

        for reply in self._backend.ask_all(calls(), window=self._window):
            while waiting[0].whole:
                yield waiting.popleft().rows
            self._patience.weigh(reply)
            waiting[0].hear(reply)
        while waiting:
            yield waiting.popleft().rows

    def close(self) -> None:
        self._backend.close()


class _Answers:
    """An item on its way: its rows, as far as they are there."""

    def __init__(self, item: Item) -> None:
        self._item = item
        self.rows: list[Row] = []

    @property
    def whole(self) -> bool:
        return len(self.rows) == len(self._item["questions"])

    def begin(self, folder: Path) -> Iterator[Call]:
        """A call for each question, none where the pictures cannot be shown."""
        from lapilli.apps.backend.call import Call

        try:
            shown = _shown(self._item, folder)
        except LapilliError as error:
            for _ in self._item["questions"]:
                self.hear(error)
            return
        system = self._item.get("system")
        before = (Message("system", (TextPart(system),)),) if system else ()
        options = dict(self._item.get("options", {}))
        stop = options.pop("stop", ())
        options["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
        for question in self._item["questions"]:
            user = Message("user", (*shown, TextPart(question)))
            yield Call(messages=(*before, user), schema=self._item.get("schema"), **options)

    def hear(self, reply: Reply | LapilliError) -> None:
        """Take the answer to the next question."""
        asked = self._item
        row: dict[str, Any] = {name: asked.get(name) for name in ("line", "id", "images")}
        row["question"] = asked["questions"][len(self.rows)]
        if isinstance(reply, LapilliError):
            row["error"] = " ".join(str(reply).split()) or type(reply).__name__
        else:
            row |= {
                "answer": reply.text, "value": _value(reply) if "schema" in asked else None, "finish": reply.finish,
                "prompt_tokens": reply.prompt_tokens, "tokens": reply.tokens,
            }  # fmt: skip
        self.rows.append(row)


def with_pictures(item: Item, folder: Path) -> Item:
    """An item with the bytes of its pictures, or why they cannot be read."""
    if "data" in item or "unreadable" in item:
        return item
    data = []
    for name in item["images"]:
        try:
            with open_regular(folder / name) as file:
                content = file.read(_LARGEST_PICTURE + 1)
        except (OSError, ValueError) as error:
            return {**item, "unreadable": f"{name}: {getattr(error, 'strerror', None) or error}"}
        if len(content) > _LARGEST_PICTURE:
            return {**item, "unreadable": f"{name}: is larger than {_LARGEST_PICTURE:,} bytes"}
        data.append(base64.b64encode(content).decode())
    return {**item, "data": data}


def _shown(item: Item, folder: Path) -> tuple[Part, ...]:
    """The pictures of an item, opened. Raises ImageError and InputError with the name of the one that cannot be."""
    held = with_pictures(item, folder)
    if "unreadable" in held:
        raise InputError(held["unreadable"])
    shown: list[Part] = []
    for name, data in zip(item["images"], held["data"], strict=True):
        try:
            shown.append(show(base64.b64decode(data)))
        except LapilliError as error:
            raise type(error)(f"{name}: {error}") from None
    return tuple(shown)


def _value(reply: Reply) -> Any:
    """An answer under a schema as a value; None where it was cut."""
    try:
        value = json.loads(reply.text)
        require_json(value, "the answer")
    except (ValueError, RecursionError):
        return None
    return value


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, numbered from 1. Raises InputError for one that is too long."""
    with open_regular(path) as file:
        number = 0
        while text := file.readline(_LONGEST_LINE + 1):
            number += 1
            if len(text) > _LONGEST_LINE:
                raise InputError(f"{path}, line {number}: is longer than {_LONGEST_LINE:,} bytes")
            if text.strip():
                yield number, text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text


def _read(path: Path, line: int, text: bytes) -> Iterator[dict[str, Any]]:
    """The items of a line."""
    try:
        value = json.loads(text.decode())
        require_json(value, "the line")
        yield from _items(line, value)
    except RecursionError:
        raise InputError(f"{path}, line {line}: is nested too deep") from None
    except (ValueError, OverflowError) as error:  # InputError and what json raises are such
        raise InputError(f"{path}, line {line}: {error}") from None


def _items(line: int, value: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(value, dict):
        raise InputError(f"must be an object, it is {type(value).__name__}")
    for key in value:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, 1)
            raise InputError(f"{key[:40]!r} is not known" + (f"; did you mean {near[0]}?" if near else ""))
    asked = {"line": line, "id": str(value.get("id", line)), "questions": _one_or_many(value, "question", "questions")}
    for name, kind in (("system", str), ("schema", dict)):
        if value.get(name) is not None:
            asked[name] = _require(value[name], name, (kind,))
    options = _require(value.get("options") or {}, "options", (dict,))
    for name, option in options.items():
        if name not in _OPTIONS:
            raise InputError(f"option {name[:40]!r} is not known: use {', '.join(_OPTIONS)}")
        _require(option, f"option {name}", _OPTIONS[name])
    if options:
        asked["options"] = options
    for shown in _pictures(value):
        yield {**asked, "images": shown}


def _one_or_many(value: Mapping[str, Any], one: str, many: str) -> list[str]:
    found = [value[one]] if one in value else _require(value.get(many, []), many, (list,))
    if (one in value) == (many in value) or not found:
        raise InputError(f"needs either {one} or {many}")
    for text in found:
        if not _require(text, one, (str,)).strip():
            raise InputError(f"a {one} is empty")
    return list(found)


def _pictures(value: Mapping[str, Any]) -> list[list[str]]:
    """Lists of pictures that are shown together."""
    if "image" not in value and "images" not in value:
        return [[]]
    given = [value["image"]] if "image" in value else _require(value["images"], "images", (list,))
    if ("image" in value and "images" in value) or not given:
        raise InputError("needs either image or images, or neither")
    groups = [group if isinstance(group, list) else [group] for group in given]
    for name in (name for group in groups for name in group or [None]):
        if not _require(name, "a picture", (str,)):
            raise InputError("a picture's name is empty")
    return groups


def _require(value: Any, name: str, kinds: tuple[type, ...]) -> Any:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise InputError(f"{name} must be {' or '.join(kind.__name__ for kind in kinds)}, it is {type(value).__name__}")
    return value
