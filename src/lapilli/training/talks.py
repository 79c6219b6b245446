"""What people have to train on: conversations about pictures, read where they lie, a record at a time.

talks = open_talks(Path("my.json"), images=Path("pictures"))
talks[17]   # turns and pictures of one record, or TrainingError that names file, record and reason

LLaVA's JSON and JSON lines, folders of pictures with captions, WebDataset's tar shards, Science QA's folder.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from lapilli.errors import LapilliError, TrainingError
from lapilli.ground.files import open_regular
from lapilli.inputs.chat import ImagePart, Message, Part, TextPart

Speaker = Literal["system", "user", "assistant"]

CAPTION_REQUEST = "Describe this picture."
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
_SPEAKERS: Mapping[str, Speaker] = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system",
}  # fmt: skip
_PLACEHOLDER = "<image>"
_MAX_PICTURE = 64 << 20
_MAX_TEXT = 1 << 20


class PictureFile(Protocol):
    """A picture that is read when it is needed; `key` names its content for as long as nobody changes it."""

    @property
    def key(self) -> str: ...

    def read(self) -> bytes: ...


@dataclass(frozen=True)
class Loose:
    """A picture in a file of its own."""

    path: Path

    @property
    def key(self) -> str:
        state = self.path.stat()
        return f"{self.path.resolve()} {state.st_size} {state.st_mtime_ns}"

    def read(self) -> bytes:
        with open_regular(self.path) as file:
            return _whole(file.read(_MAX_PICTURE + 1), self.path.name)


@dataclass(frozen=True)
class Archived:
    """A picture inside a tar shard: its bytes lie in one run."""

    shard: Path
    offset: int
    size: int

    @property
    def key(self) -> str:
        state = self.shard.stat()
        return f"{self.shard.resolve()} {self.offset} {self.size} {state.st_mtime_ns}"

    def read(self) -> bytes:
        with open_regular(self.shard) as file:
            file.seek(self.offset)
            return _whole(file.read(min(self.size, _MAX_PICTURE + 1)), self.shard.name)


def _whole(data: bytes, name: str) -> bytes:
    if len(data) > _MAX_PICTURE:
        raise TrainingError(f"{name}: a picture of more than {_MAX_PICTURE} bytes")
    return data


@dataclass(frozen=True)
class Talk:
    """One record: who says what, `<image>` in a user's words where the next of `pictures` stands.

    `answers` are what people said to its last question, where several did.
    """

    turns: tuple[tuple[Speaker, str], ...]
    pictures: tuple[PictureFile, ...] = ()
    answers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        asked = sum(text.count(_PLACEHOLDER) for speaker, text in self.turns if speaker == "user")
        if asked != len(self.pictures):
            raise TrainingError(f"it has {asked} places {_PLACEHOLDER} for {len(self.pictures)} pictures")
        if not any(speaker == "assistant" and text.strip() for speaker, text in self.turns):
            raise TrainingError("the assistant says nothing in it: there is nothing to learn")

    @property
    def length(self) -> int:
        """About how long it is, for putting like to like: characters of words, a picture as much as a page."""
        return sum(len(text) for _, text in self.turns) + 2000 * len(self.pictures)

    def messages(self, open_picture: Callable[[PictureFile], ImagePart]) -> list[Message]:
        """The conversation, pictures opened. Raises ImageError for what is no picture."""
        pictures = (open_picture(file) for file in self.pictures)
        return [Message(speaker, tuple(_parts(text, speaker, pictures))) for speaker, text in self.turns]


def _parts(text: str, speaker: Speaker, pictures: Iterator[ImagePart]) -> Iterator[Part]:
    """A user's words cut at the places of pictures; the line break beside such a place is the format's own."""
    if speaker != "user":
        yield TextPart(text)
        return
    first, *rest = text.split(_PLACEHOLDER)
    if first.strip():
        yield TextPart(first.removesuffix("\n"))
    for piece in rest:
        yield next(pictures)
        if piece.strip():
            yield TextPart(piece.strip("\n"))


class Talks(Protocol):
    """All records of a dataset, by number; a record is read when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Talk: ...

    def where(self, number: int) -> str:
        """What a person calls that record: its file and its place there."""


def open_talks(path: Path, images: Path | None = None) -> Talks:
    """Open a dataset by its shape: `.json`, `.jsonl`, `.tar` (or a folder of them), Science QA's folder, or pictures
    with captions (`a.jpg` beside `a.txt`). `images` is where the pictures named in records lie.

    Raises TrainingError where nothing is found.
    """
    if path.is_dir():
        if shards := sorted(path.glob("*.tar")):
            return Shards(shards)
        if (path / "problems.json").is_file():
            return ScienceQa(path)
        return Captions(path)
    if not path.is_file():
        raise TrainingError(f"{path}: there is no such file or folder of training data")
    if path.suffix == ".tar":
        return Shards([path])
    return Conversations(path, images or path.parent)


class Conversations:
    """LLaVA's records, in one JSON array or a line each: `conversations` (or `messages`), `image` or `images`."""

    def __init__(self, path: Path, images: Path) -> None:
        self.path, self.images = path, images
        self._lines = list(_line_places(path)) if path.suffix == ".jsonl" else None
        self._records: Sequence[Any] = () if self._lines is not None else _array(path)

    def __len__(self) -> int:
        return len(self._records if self._lines is None else self._lines)

    def where(self, number: int) -> str:
        return f"{self.path.name}: {'record' if self._lines is None else 'line'} {number + 1}"

    def __getitem__(self, number: int) -> Talk:
        with _named(self.where(number)):
            record = self._records[number] if self._lines is None else self._line(*self._lines[number])
            return _talk(record, self.images)

    def _line(self, offset: int, size: int) -> Any:
        with open_regular(self.path) as file:
            file.seek(offset)
            return json.loads(file.read(size))


class Captions:
    """Pictures, each with its caption in a text file of the same name; folders within are looked through."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
        if not self._pictures:
            raise TrainingError(f"{folder}: holds no picture, no .tar shard and no problems.json")

    def __len__(self) -> int:
        return len(self._pictures)

    def where(self, number: int) -> str:
        return str(self._pictures[number].relative_to(self.folder))

    def __getitem__(self, number: int) -> Talk:
        with _named(self.where(number)):
            path = self._pictures[number].with_suffix(".txt")
            if not path.is_file():
                raise TrainingError(f"there is no caption {path.name} beside it")
            with open_regular(path) as file:
                return _captioned(_decoded(file.read(_MAX_TEXT + 1)), Loose(self._pictures[number]))


class Shards:
    """WebDataset's tar files: members of one name belong together, a picture with `.txt` (caption) or `.json`."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self._samples: list[tuple[Path, str, dict[str, tuple[int, int]]]] = []
        for shard in shards:
            self._samples += _members(shard)
        if not self._samples:
            raise TrainingError(f"{shards[0]}: the shards hold no samples")

    def __len__(self) -> int:
        return len(self._samples)

    def where(self, number: int) -> str:
        shard, name, _ = self._samples[number]
        return f"{shard.name}: {name}"

    def __getitem__(self, number: int) -> Talk:
        shard, _, parts = self._samples[number]
        with _named(self.where(number)):
            pictures = [Archived(shard, *place) for suffix, place in parts.items() if suffix in PICTURES]
            if ".json" in parts:
                record = json.loads(Archived(shard, *parts[".json"]).read())
                return _conversation(record, pictures)
            if ".txt" not in parts or len(pictures) != 1:
                raise TrainingError("a sample is one picture with a .txt, or has a .json")
            return _captioned(_decoded(Archived(shard, *parts[".txt"]).read()), pictures[0])


class ScienceQa:
    """Science QA's training problems by LLaVA's protocol: question and options, then lecture, reason and answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        problems = json.loads((folder / "problems.json").read_bytes())
        self._problems = [(str(name), value) for name, value in problems.items() if value.get("split") == "train"]
        if not self._problems:
            raise TrainingError(f"{folder}: problems.json has no problem of the split train")

    def __len__(self) -> int:
        return len(self._problems)

    def where(self, number: int) -> str:
        return f"problems.json: problem {self._problems[number][0]}"

    def __getitem__(self, number: int) -> Talk:
        name, value = self._problems[number]
        with _named(self.where(number)):
            letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
            options = " ".join(f"({a}) {b}" for a, b in zip(letters, value["choices"], strict=False))
            asked = f"Context: {value.get('hint') or 'N/A'}\nQuestion: {value['question']}\nOptions: {options}"
            lecture, reason = value.get("lecture"), value.get("solution")
            said = [f"LECTURE: {lecture}"] if lecture else []
            said += [f"SOLUTION: {reason}"] if reason else []
            said.append(f"The answer is {letters[value['answer']]}.")
            picture = self.folder / "images" / "train" / name / "image.png"
            pictures = (Loose(picture),) if name.isdigit() and value.get("image") and picture.is_file() else ()
            place = f"{_PLACEHOLDER}\n" * len(pictures)
            return Talk((("user", place + asked), ("assistant", "\n".join(said))), pictures)


class _named:
    """Whatever is wrong with a record is said with its place."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyError):
            raise TrainingError(f"{self.where}: {error} is missing") from None
        if isinstance(
            error, LapilliError | OSError | ValueError | TypeError | IndexError | AttributeError | RecursionError
        ):
            raise TrainingError(f"{self.where}: {str(error)[:200]}") from None


def _talk(record: Any, images: Path) -> Talk:
    named = record.get("image") or record.get("images") or ()
    names = [named] if isinstance(named, str) else list(named)
    return _conversation(record, [Loose(_within(images, str(name))) for name in names])


def _within(folder: Path, name: str) -> Path:
    """A file below the folder, whatever the record's name for it says."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise TrainingError(f"picture {name[:80]!r} leads out of {folder}: name it from there")
    if not path.is_file():
        raise TrainingError(f"picture {name[:80]!r} is not in {folder}")
    return path


def _conversation(record: Any, pictures: Sequence[PictureFile]) -> Talk:
    turns = record.get("conversations") or record.get("messages")
    if not isinstance(turns, list) or not turns:
        raise TrainingError("it has no list `conversations`")
    read: list[tuple[Speaker, str]] = []
    for turn in turns:
        speaker, text = turn.get("from") or turn.get("role"), turn.get("value", turn.get("content"))
        if speaker not in _SPEAKERS:
            raise TrainingError(f"speaker {str(speaker)[:40]!r} is not one of {', '.join(_SPEAKERS)}")
        if not isinstance(text, str):
            raise TrainingError(f"what the {speaker} says is {type(text).__name__}, not text")
        read.append((_SPEAKERS[speaker], text))
    placed = sum(text.count(_PLACEHOLDER) for speaker, text in read if speaker == "user")
    first = next((number for number, (speaker, _) in enumerate(read) if speaker == "user"), None)
    if pictures and not placed and first is not None:
        # Pictures that nobody places come before the first question.
        read[first] = ("user", f"{_PLACEHOLDER}\n" * len(pictures) + read[first][1])
    answers = [given["answer"] if isinstance(given, dict) else given for given in record.get("answers") or ()]
    if not all(isinstance(answer, str) for answer in answers):
        raise TrainingError("its `answers` are texts, or objects with an `answer`")
    return Talk(tuple(read), tuple(pictures), tuple(answers))


def _captioned(caption: str, picture: PictureFile) -> Talk:
    return Talk((("user", f"{_PLACEHOLDER}\n{CAPTION_REQUEST}"), ("assistant", caption.strip())), (picture,))


def _decoded(data: bytes) -> str:
    if len(data) > _MAX_TEXT:
        raise TrainingError(f"a caption of more than {_MAX_TEXT} bytes")
    return data.decode()


def _array(path: Path) -> Sequence[Any]:
    with _named(path.name), open_regular(path) as file:
        records = json.loads(file.read())
        if not isinstance(records, list) or not records:
            raise TrainingError("a list of at least one record is needed")
        return records


def _line_places(path: Path) -> Iterator[tuple[int, int]]:
    """Where each line with something on it begins, and how long it is."""
    offset = 0
    with open_regular(path) as file:
        for line in file:
            if line.strip():
                yield offset, len(line)
            offset += len(line)
    if not offset:
        raise TrainingError(f"{path.name}: is empty")


def _members(shard: Path) -> list[tuple[Path, str, dict[str, tuple[int, int]]]]:
    """The samples of a tar file: name, and where the data of each part lies."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                match = re.fullmatch(r"(.*?)(\.[^./]+)", member.name)
                if member.isreg() and match:
                    samples.setdefault(match[1], {})[match[2].lower()] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise TrainingError(f"{shard.name}: {str(error)[:120]}") from None
    return [(shard, name, parts) for name, parts in samples.items()]
