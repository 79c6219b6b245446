"""From what a person names (a file, a folder, an address, words) to documents.

for source in find_sources("papers/"):
    document = read_document(source)

Bytes of strangers are parsed in a child that can be killed: this process opens the file, looks at its size, reads it
and hands the bytes over, so the child needs no name to open, and what was hashed is what was parsed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lapilli.apps.rag.document import Document, Value
from lapilli.apps.rag.folders import OutsideError, check_inside, is_utf8, open_source, walk
from lapilli.apps.rag.kinds import kind_named, suffix_kind
from lapilli.apps.rag.readers.sniffing import is_picture
from lapilli.apps.rag.readers.text import clean
from lapilli.errors import InputError
from lapilli.ground.child import ChildError, call_in_child
from lapilli.ground.fetch import FetchLimits
from lapilli.ground.fetch import fetch as fetch_bytes

FETCH = FetchLimits(bytes=50 << 20, seconds=30)
"""What is fetched of a web page, unless told otherwise."""
MAX_ADDRESSES = 1000
_READERS = "lapilli.apps.rag.readers"
_PATH = re.compile(r"(?:[/\\~]|\.\.?[/\\]|[A-Za-z]:[/\\])[^\n]*|\S*[/\\]\S*|\S+")
_LONGEST_PATH = 4096


@dataclass(frozen=True)
class ReadLimits:
    """The most bytes of a source, the most characters of its text, and what its parser may take."""

    bytes: int = 200 << 20
    characters: int = 30_000_000
    seconds: float = 30.0
    memory_mb: int = 1024


@dataclass(frozen=True)
class Source:
    """Something to read: `name` is what its document will be called, `shown` what messages call it.

    `kind` is None where the bytes decide. One of `path`, `url`, `words` and `data` says where the bytes are.
    """

    name: str
    kind: str | None = None
    shown: str = ""
    path: Path | None = None
    url: str | None = None
    words: str | None = field(default=None, repr=False)
    data: bytes | None = field(default=None, repr=False)
    roots: tuple[Path, ...] | None = None
    limits: FetchLimits = FETCH
    allow_private: bool = False

    @classmethod
    def of_bytes(cls, name: str, data: bytes, *, kind: str | None = None) -> Source:
        """A file that somebody sent: its name, and its bytes. Raises InputError for a name that cannot be kept."""
        if not name.strip() or len(name) > _LONGEST_PATH or not name.isprintable():
            raise InputError(f"{_name(name)}: this is no name for a document: give it a short one, of letters")
        return cls(name, None if kind is None else kind_named(kind), data=data)


def find_sources(
    what: str | Path | tuple[str, str],
    *,
    kind: str | None = None,
    roots: Sequence[Path] | None = None,
    fetch: FetchLimits | None = None,
    allow_private: bool = False,
    tell: Callable[[str], None] = lambda said: None,
) -> Iterator[Source]:
    """The sources that something names: a file, a folder with all that lies in it, an address, or the words themselves.

    A string is a path where one is there, an address where it begins with http:// or https://, and else words; a pair
    is a question with its answer. Folders are walked in order; hidden files, links that lead out of the folder and
    files of no kind that is read are left out, and `tell` hears of them. `kind` is one of `kinds.KINDS` or a name of
    embedchain's. With `roots` only what really lies in these folders may be named (what others ask for over HTTP), and
    whatever looks like a path is one.

    Raises InputError; OutsideError (403) for a path that is not in `roots`.
    """
    named = kind_named(kind) if kind is not None else None
    if isinstance(what, tuple | list) or named == "qna":
        yield _pair(what)
        return
    if isinstance(what, str):
        scheme = what[:8].lower()
        if scheme.startswith(("http://", "https://")) and not re.search(r"\s", what.strip()):
            yield from _addressed(what.strip(), named, fetch or FETCH, allow_private)
            return
        if scheme.startswith("file:"):
            raise OutsideError("file: addresses are not read; give the path itself")
        if not (_looks_like_path(what) if roots is not None else _is_path(what)):
            yield _spoken(what, named, is_path=roots is None and _looks_like_path(what))
            return
    allowed = None if roots is None else tuple(Path(os.path.realpath(root)) for root in roots)
    yield from _at(Path(os.path.expanduser(what)), named, allowed, tell)


def read_document(
    source: Source, *, describe: Callable[[bytes], str] | None = None, limits: ReadLimits | None = None
) -> Document:
    """Read a source: fetch or open it, tell its kind, and take its text out in a child process.

    `describe` says what a picture shows. Raises InputError in one line, FetchError for an address, and whatever
    `describe` raises.
    """
    limits = limits or ReadLimits()
    if source.words is not None:
        return _read_words(source, limits)
    shown = source.shown or _name(source.name)
    data, meta, name, served = _get(source, limits)
    digest = hashlib.sha256(data).hexdigest()
    title = os.path.basename(name.rstrip("/")) or shown
    if is_picture(data) and source.kind in (None, "picture", "web"):
        return _read_picture(source, data, digest, meta, title, shown, describe)
    asked = {"kind": source.kind, "name": name, "content_type": served, "most": limits.characters}
    found = _in_child("read_bytes", asked, data, limits, shown)
    text = str(found["text"])
    if not text.strip():
        raise InputError(f"{shown}: no text was found in it")
    return Document(
        source=source.name,
        kind=str(found["kind"]),
        title=str(found["title"]) or title,
        text=text,
        digest=digest,
        meta=meta | found["meta"],
        marks=tuple((int(at), str(label)) for at, label in found["marks"]),
    )


def _addressed(url: str, kind: str | None, limits: FetchLimits, allow_private: bool) -> Iterator[Source]:
    """The page at an address, or all that a sitemap lists on its own host."""
    if kind != "sitemap":
        yield Source(url, kind or "web", url[:200], url=url, limits=limits, allow_private=allow_private)
        return
    host = urllib.parse.urlsplit(url).netloc.casefold()
    seen: dict[str, None] = {}
    todo = [url]
    for depth in range(2):
        further: list[str] = []
        for address in todo:
            data = fetch_bytes(address, limits=limits, allow_private=allow_private).data
            found = _in_child("read_sitemap", MAX_ADDRESSES, data, ReadLimits(), address[:200])
            pages, sitemaps = ([each for each in found[of] if _is_on(host, each)] for of in ("pages", "sitemaps"))
            seen |= dict.fromkeys(pages)
            further += sitemaps
            if len(seen) > MAX_ADDRESSES or len(further) > MAX_ADDRESSES:
                raise InputError(f"{url[:200]}: lists more than the {MAX_ADDRESSES} addresses that are read")
        todo = further if depth == 0 else []
    if not seen:
        raise InputError(f"{url[:200]}: this sitemap lists no page of its own host")
    for page in seen:
        yield Source(page, "web", page[:200], url=page, limits=limits, allow_private=allow_private)


def _is_on(host: str, url: str) -> bool:
    try:
        return urllib.parse.urlsplit(url).netloc.casefold() == host
    except ValueError:
        return False


def _at(path: Path, kind: str | None, roots: tuple[Path, ...] | None, tell: Callable[[str], None]) -> Iterator[Source]:
    """The file, or the files of the folder, at a path."""
    if roots is not None:
        check_inside(path, roots)
    shown, absolute = _name(str(path)), Path(os.path.abspath(path))
    try:
        mode = absolute.stat().st_mode
    except (OSError, ValueError) as error:
        raise InputError(f"{shown}: {getattr(error, 'strerror', None) or 'this is no path'}") from None
    if not is_utf8(str(absolute)):
        raise InputError(f"{shown}: this name is not UTF-8: give the file another one")
    if stat.S_ISDIR(mode):
        wanted = None if kind == "folder" else kind
        empty = True
        for found in walk(absolute, wanted, tell):
            empty = False
            yield Source(str(found), wanted, _name(str(path / found.relative_to(absolute))), path=found, roots=roots)
        if empty:
            as_said = f" as {wanted}" if wanted else ""
            raise InputError(f"{shown}: there is no file in this folder that is read{as_said}")
        return
    if kind in ("folder", "sitemap"):
        raise InputError(f"{shown}: this is a file, and a {kind} was asked for")
    if not stat.S_ISREG(mode):
        raise InputError(f"{shown}: neither a file nor a folder")
    yield Source(str(absolute), "html" if kind == "web" else kind, shown, path=absolute, roots=roots)


def _spoken(words: str, kind: str | None, *, is_path: bool) -> Source:
    """Words that are added as they are. Raises InputError where a path was meant."""
    if is_path and kind != "text":
        raise InputError(f"{_name(words)}: no such file or folder; words that look so are added with the kind 'text'")
    if kind not in (None, "text", "markdown"):
        raise InputError(f"{_name(words)}: {kind} is read from a file or an address, and this is neither")
    return _worded(words, kind or "text")


def _pair(what: Any) -> Source:
    if not (isinstance(what, tuple | list) and len(what) == 2 and all(isinstance(part, str) for part in what)):
        raise InputError("qna: give a pair of texts, a question and its answer")
    question, answer = what
    if not question.strip() or not answer.strip():
        raise InputError("qna: the question or its answer is empty")
    return _worded(f"Question: {question.strip()}\nAnswer: {answer.strip()}", "qna")


def _worded(words: str, kind: str) -> Source:
    if not words.strip():
        raise InputError("there are no words in this text")
    digest = hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()
    return Source(f"text:{digest[:16]}", kind, words=words)


def _is_path(what: str) -> bool:
    """Whether there is a file or a folder of this name."""
    if not what or "\n" in what or "\x00" in what or len(what) > _LONGEST_PATH:
        return False
    try:
        return os.path.lexists(os.path.expanduser(what))
    except (OSError, ValueError):
        return False


def _looks_like_path(what: str) -> bool:
    if not what or len(what) > _LONGEST_PATH or not _PATH.fullmatch(what):
        return False
    return what in (".", "..", "~") or bool(re.search(r"[/\\]", what)) or suffix_kind(what) is not None


def _get(source: Source, limits: ReadLimits) -> tuple[bytes, dict[str, Value], str, str]:
    """The bytes of a source, what is known of them, the name that may tell their kind, and the kind a server says."""
    if source.url is not None:
        fetched = fetch_bytes(source.url, limits=source.limits, allow_private=source.allow_private)
        address = urllib.parse.urlsplit(fetched.url)
        return fetched.data, {"bytes": len(fetched.data), "host": address.netloc}, address.path, fetched.content_type
    if source.data is not None:
        _check_size(len(source.data), limits, source.shown or _name(source.name))
        return source.data, {"bytes": len(source.data)}, source.name, ""
    assert source.path is not None
    shown = source.shown or _name(source.name)
    try:
        with open_source(source.path, source.roots) as file:
            state = os.fstat(file.fileno())
            _check_size(state.st_size, limits, shown)
            data = file.read(limits.bytes + 1)
    except OSError as error:
        raise InputError(f"{shown}: {error.strerror or 'cannot be read'}") from None
    _check_size(len(data), limits, shown)
    return data, {"bytes": len(data), "mtime": round(state.st_mtime, 3)}, source.path.name, ""


def _check_size(size: int, limits: ReadLimits, shown: str) -> None:
    if size > limits.bytes:
        raise InputError(f"{shown}: it has {size} bytes, at most {limits.bytes} are read: divide it into several")


def _read_words(source: Source, limits: ReadLimits) -> Document:
    assert source.words is not None
    data = source.words.encode("utf-8", "surrogatepass")
    _check_size(len(data), limits, "this text")
    text = clean(source.words).strip()
    if len(text) > limits.characters:
        raise InputError(f"this text has {len(text)} characters, at most {limits.characters} are read: divide it")
    first = text.partition("\n")[0].removeprefix("Question: ") if source.kind == "qna" else text.partition("\n")[0]
    title = first if len(first) <= 80 else f"{first[:79]}…"
    return Document(source.name, source.kind or "text", title, text, hashlib.sha256(data).hexdigest())


def _read_picture(
    source: Source,
    data: bytes,
    digest: str,
    meta: dict[str, Value],
    title: str,
    shown: str,
    describe: Callable[[bytes], str] | None,
) -> Document:
    from lapilli.inputs.images import open_image

    if describe is None:
        raise InputError(f"{shown}: a picture is added by a model that describes it, and there is none here")
    width, height = open_image(data).size
    text = clean(describe(data)).strip()
    if not text:
        raise InputError(f"{shown}: the model said nothing about this picture")
    meta |= {"width": width, "height": height}
    return Document(source.name, "picture", title, text, digest, meta, ((0, "picture"),), data)


def _in_child(function: str, asked: Any, data: bytes, limits: ReadLimits, shown: str) -> dict[str, Any]:
    """What a reader found. Raises InputError where it refused, or was ended."""
    try:
        found: dict[str, Any] = call_in_child(
            f"{_READERS}:{function}",
            asked,
            data=data,
            seconds=limits.seconds,
            memory_mb=limits.memory_mb,
            max_output_bytes=8 * limits.characters + (16 << 20),
        )
    except ChildError as error:
        problem = {
            "time": f"reading it takes more than {limits.seconds:g} s: divide it into several",
            "memory": f"reading it takes more than {limits.memory_mb} MB of memory: divide it into several",
            "output": f"more than {limits.characters} characters came out of it: divide it into several",
        }.get(error.reason, "it is damaged: open it in the program it was made with, and save it anew")
        raise InputError(f"{shown}: {problem}") from None
    if "refused" in found:
        raise InputError(f"{shown}: {found['refused']}")
    return found


def _name(name: str) -> str:
    """A name as it is shown: short, on one line."""
    name = name if len(name) <= 200 else f"{name[:199]}…"
    return name if name and name.isprintable() else ascii(name)
