"""Safetensors files and folders, checked before the library that reads the weights sees them.

Follows https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lapilli.checkpoints.quoting import file_name, quoted
from lapilli.errors import CheckpointError
from lapilli.ground.files import open_regular

# The format allows headers of 100 MB; no real one comes near these limits, and parsing costs several times its size.
MAX_HEADER = 1 << 25
MAX_TENSORS = 1 << 16
MAX_ENTRY = 1 << 10
MAX_NAME = 1 << 10
MAX_METADATA = 1 << 24
MAX_INDEX = 1 << 23
MAX_RANK = 8

BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
HUB_BLOB = re.compile(r"(?:\.\./){2,3}blobs/[0-9a-f]{40,64}")


@dataclass(frozen=True)
class TensorHeader:
    """What a safetensors header says about a tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def check_header(path: str | Path) -> dict[str, TensorHeader]:
    """Read a safetensors header, trusting none of it: tensor name -> what the header says.

    Checked: the header's length, that it is the JSON the format asks for and nothing else, no name twice, known types,
    sizes that fit shapes, tensors one after another to the end of the file with no hole and no overlap.
    Raises CheckpointError that names the tensor and says both numbers.
    """
    name = file_name(path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 10 or not 2 <= length <= size - 8:
                _refuse(name, f"is no safetensors file: a header of {length} bytes in a file of {size}")
            if length > MAX_HEADER:
                _refuse(name, f"has a header of {length} bytes, at most {MAX_HEADER} are read")
            raw = file.read(length)
    except OSError as error:
        raise _unreadable(name, error) from None
    except ValueError as error:
        raise CheckpointError(f"{name}: cannot be opened: {error}") from None
    if len(raw) != length or not raw.startswith(b"{"):
        _refuse(name, f"is no safetensors file: its header begins with {raw[:1]!r}, not b'{{'")
    if (claimed := raw.count(b'"data_offsets"')) > MAX_TENSORS:
        _refuse(name, f"has {claimed} tensors, at most {MAX_TENSORS} are read")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        _refuse(name, "has a header that is not UTF-8")
    tensors = _Header(name, text).read()
    _check_places(name, tensors, size - 8 - length)
    return tensors


def read_index(folder: str | Path, stem: str = "model") -> dict[str, Path]:
    """Which file of the folder holds each tensor, from `<stem>.safetensors` or `<stem>.safetensors.index.json`.

    Every header is checked on the way. Shards are plain names of files in the folder itself (or the Hugging Face
    cache's links to its blobs).
    Raises CheckpointError for a folder without safetensors, with pickle files only, with a missing or foreign shard.
    """
    folder = Path(folder)
    whole, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if os.path.lexists(whole):
        return dict.fromkeys(check_header(_inside(folder, whole.name)), whole)
    if os.path.lexists(index):
        return _read_shards(folder, _inside(folder, index.name))
    raise _nothing_to_read(folder, whole.name)


def _read_shards(folder: Path, index: Path) -> dict[str, Path]:
    shard_of = _read_weight_map(index)
    held: dict[str, dict[str, TensorHeader]] = {}
    for shard in sorted(set(shard_of.values())):
        if not shard.endswith(".safetensors") or shard != os.path.basename(shard) or "\\" in shard or "\0" in shard:
            _refuse(index.name, f"{quoted(shard)} is no plain name of a safetensors file in the folder")
        if not os.path.lexists(folder / shard):
            _refuse(index.name, f"shard {quoted(shard)} is missing from the folder; fetch the model again")
        held[shard] = check_header(_inside(folder, shard))
    for tensor, shard in shard_of.items():
        if tensor not in held[shard]:
            _refuse(index.name, f"tensor {quoted(tensor)} should be in {quoted(shard)}, which does not hold it")
    found = {tensor: folder / shard for shard, tensors in held.items() for tensor in tensors}
    return found | {tensor: folder / shard for tensor, shard in shard_of.items()}


def _read_weight_map(index: Path) -> dict[str, str]:
    try:
        with open_regular(index) as file:
            raw = file.read(MAX_INDEX + 1)
        if len(raw) > MAX_INDEX:
            _refuse(index.name, f"has more than {MAX_INDEX} bytes")
        content = json.loads(raw, object_pairs_hook=_once)
    except OSError as error:
        raise _unreadable(index.name, error) from None
    except (ValueError, RecursionError) as error:
        _refuse(index.name, f"is no valid JSON: {_line(error)}")
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        _refuse(index.name, "has no weight_map from tensor names to files")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str):
            _refuse(index.name, f"tensor {quoted(tensor)} is in {quoted(shard)}, must be the name of a file")
    return weight_map


def _inside(folder: Path, name: str) -> Path:
    """The file of that name, once it is neither a link out of the folder nor a chain of links."""
    path = folder / name
    if not path.is_symlink():
        return path
    target = os.readlink(path)
    if HUB_BLOB.fullmatch(target) and not (folder / target).is_symlink():
        return path
    real = os.path.realpath(path)
    if os.path.dirname(real) != os.path.realpath(folder):
        _refuse(name, "is a link out of its folder")
    return path


def _nothing_to_read(folder: Path, wanted: str) -> CheckpointError:
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError as error:
        return _unreadable(file_name(folder), error)
    if pickles := [found for found in names if found.endswith(PICKLES)]:
        why = f"only safetensors and GGUF are read; pickle files can run code (found {quoted(pickles[0])})"
    elif ggufs := [found for found in names if found.endswith(".gguf")]:
        why = f"holds no {wanted}; give the GGUF file itself, such as {quoted(ggufs[0])}"
    else:
        why = f"holds no {wanted} and no {wanted}.index.json"
    return CheckpointError(f"{file_name(folder)}: {why}")


class _Header:
    """Reads the one kind of JSON that a header may be, piece by piece, so that no other JSON is ever built."""

    BLANK = re.compile(r"[ \t\n\r]*")
    STRING = re.compile(r'"(?:[^"\\\x00-\x1f]++|\\.)*+"')
    FLAT = re.compile(r"\{[^{}]*\}")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.at = 0

    def read(self) -> dict[str, TensorHeader]:
        tensors: dict[str, TensorHeader] = {}
        metadata_seen = False
        self.sign("{")
        while not self.next_is("}"):
            if tensors or metadata_seen:
                self.sign(",")
            name = self.string(MAX_NAME)
            self.sign(":")
            if name in tensors or (name == "__metadata__" and metadata_seen):
                _refuse(self.name, f"tensor {quoted(name)} is there twice")
            if name == "__metadata__":
                metadata_seen = True
                self.metadata()
            else:
                tensors[name] = self.tensor(name)
        self.sign("}")
        if self.text[self.at :].strip(" \t\n\r"):
            _refuse(self.name, f"has more after its header's JSON, at character {self.at}")
        return tensors

    def tensor(self, name: str) -> TensorHeader:
        piece = self.FLAT.match(self.text, self.at, self.at + MAX_ENTRY)
        if piece is None:
            _refuse(self.name, f"tensor {quoted(name)} is not described as the format asks")
        self.at = piece.end()
        try:
            entry = ENTRY.decode(piece[0])
        except (ValueError, RecursionError) as error:
            _refuse(self.name, f"tensor {quoted(name)} is not described as the format asks: {_line(error)}")
        if set(entry) != {"dtype", "shape", "data_offsets"}:
            _refuse(self.name, f"tensor {quoted(name)} has {quoted(list(entry))}; must have dtype, shape, data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in BYTES:
            _refuse(self.name, f"tensor {quoted(name)} has the unknown type {quoted(dtype)}")
        if not _counts(shape) or len(shape) > MAX_RANK:
            _refuse(self.name, f"tensor {quoted(name)} has shape {quoted(shape)}, must be up to {MAX_RANK} counts")
        if not _counts(offsets) or len(offsets) != 2:
            _refuse(self.name, f"tensor {quoted(name)} lies at {quoted(offsets)}, must be two offsets")
        start, end = offsets
        if end - start != math.prod(shape) * BYTES[dtype]:
            wanted = math.prod(shape) * BYTES[dtype]
            _refuse(self.name, f"tensor {quoted(name)} has {end - start} bytes, its shape and type ask for {wanted}")
        return TensorHeader(name, dtype, tuple(shape), start, end)

    def metadata(self) -> None:
        """Free text about the file: a map from strings to strings, checked and left."""
        seen: set[str] = set()
        self.sign("{")
        while not self.next_is("}"):
            if seen:
                self.sign(",")
            key = self.string(MAX_METADATA)
            if key in seen:
                _refuse(self.name, f"__metadata__ has {quoted(key)} twice")
            seen.add(key)
            self.sign(":")
            self.string(MAX_METADATA)
        self.sign("}")

    def string(self, limit: int) -> str:
        self.skip_blank()
        piece = self.STRING.match(self.text, self.at, self.at + limit + 2)
        if piece is None:
            _refuse(self.name, f"must have a string of at most {limit} characters at character {self.at} of its header")
        self.at = piece.end()
        try:
            found: str = json.loads(piece[0])
            found.encode()
        except ValueError as error:
            _refuse(self.name, f"has a bad string in its header: {_line(error)}")
        return found

    def sign(self, wanted: str) -> None:
        if not self.next_is(wanted):
            found = self.text[self.at : self.at + 1] or "its end"
            _refuse(self.name, f"must have {wanted!r} at character {self.at} of its header, not {found!r}")
        self.at += 1
        self.skip_blank()

    def next_is(self, sign: str) -> bool:
        self.skip_blank()
        return self.text.startswith(sign, self.at)

    def skip_blank(self) -> None:
        blank = self.BLANK.match(self.text, self.at)
        self.at = blank.end() if blank else self.at


def _check_places(name: str, tensors: dict[str, TensorHeader], size: int) -> None:
    at = 0
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != at:
            _refuse(name, f"tensor {tensor.name[:80]!r} begins at {tensor.start}, the one before it ends at {at}")
        at = tensor.end
    if at != size:
        _refuse(name, f"has {size} bytes of weights, its header describes {at}")


def _counts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values)


def _whole(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is no whole number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"{quoted(counts.most_common(1)[0][0])} is there twice")
    return found


ENTRY = json.JSONDecoder(object_pairs_hook=_once, parse_float=_no_number, parse_constant=_no_number, parse_int=_whole)


def _line(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error)[:120].replace("\n", " ")


def _unreadable(name: str, error: OSError) -> CheckpointError:
    return CheckpointError(f"{name}: cannot be read: {(error.strerror or 'unknown error').lower()}")


def _refuse(name: str, why: str) -> NoReturn:
    raise CheckpointError(f"{name}: {why}")
