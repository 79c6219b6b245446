"""Sentencepiece's `tokenizer.model`, which old checkpoints carry alone, read as a `tokenizer.json` document.

Read by hand, every length checked against the bytes left: the format is three fields of one protobuf message
(https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping

from lapilli.errors import TokenizerError
from lapilli.inputs.documents import MAX_TOKEN_CHARACTERS, MAX_TOKENS, Roles
from lapilli.inputs.pretokenizers import Part
from lapilli.inputs.vocabularies import Piece, TokenType, document_from_pieces


def document_from_sentencepiece(data: bytes) -> tuple[Part, Roles]:
    """The document and roles of a sentencepiece `tokenizer.model`; raises TokenizerError.

    Read by hand from `sentencepiece_model.proto`: pieces (1), trainer (2), normalizer (3).
    """
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            if len(pieces) == MAX_TOKENS:
                raise TokenizerError(f"tokenizer.model has more than {MAX_TOKENS} pieces")
            pieces.append(_sentencepiece(value, len(pieces)))
        elif number in (2, 3) and isinstance(value, bytes):
            (trainer if number == 2 else normalizer).update(_fields(value))
    if not pieces:
        raise TokenizerError("tokenizer.model holds no pieces")
    if trainer.get(3, 1) != 2:
        raise TokenizerError("tokenizer.model is not of the BPE kind; save the model with its tokenizer.json")
    if normalizer.get(2, b"") != b"" or normalizer.get(4, 1) != 0 or normalizer.get(5, 1) != 1:
        raise TokenizerError("tokenizer.model normalises its text; save the model with its tokenizer.json")
    numbers = {name: _role_number(trainer, field, usual) for name, (field, usual) in _ROLES.items()}
    ids = {name: number for name, number in numbers.items() if 0 <= number < len(pieces)}
    bos, eos = ids.get("bos"), ids.get("eos")
    ends: frozenset[int] = frozenset() if eos is None else frozenset({eos})
    roles = Roles(bos, eos, ends, ids.get("unk"), ids.get("pad"), adds_bos=bos is not None)
    return document_from_pieces(pieces, roles, prefix_blank=normalizer.get(3, 1) != 0), roles


_ROLES = {"unk": (40, 0), "bos": (41, 1), "eos": (42, 2), "pad": (43, -1)}


def _role_number(trainer: Mapping[int, int | bytes], field: int, usual: int) -> int:
    value = trainer.get(field, usual)
    return value if isinstance(value, int) else -1


def _sentencepiece(data: bytes, index: int) -> Piece:
    text, score, kind = "", 0.0, 1
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            try:
                text = value.decode()
            except UnicodeDecodeError:
                raise TokenizerError(f"piece {index} of tokenizer.model is not valid UTF-8") from None
        elif number == 2 and isinstance(value, bytes) and len(value) == 4:
            (score,) = struct.unpack("<f", value)
        elif number == 3 and isinstance(value, int):
            kind = value
    if not text or len(text) > MAX_TOKEN_CHARACTERS or kind not in set(TokenType) or not math.isfinite(score):
        raise TokenizerError(f"piece {index} of tokenizer.model is damaged")
    return Piece(text, TokenType(kind), score)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of one protobuf message: varints as int, everything else as its bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if key & 7 == 2:
            size, at = _varint(data, at)
        elif key & 7 in (1, 5):
            size = 8 if key & 7 == 1 else 4
        else:
            raise TokenizerError(f"tokenizer.model has a field of kind {key & 7} at byte {at}")
        if size > len(data) - at:
            raise TokenizerError(f"tokenizer.model says {size} bytes where {len(data) - at} are left")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise TokenizerError("tokenizer.model ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, at
    raise TokenizerError(f"tokenizer.model has a number of more than 10 bytes at byte {at}")
