"""WordPiece: the tokenizers of BERT's kind, for encoders of texts (arXiv 1810.04805).

    tokenizer = WordPiece.from_folder("bge-small-en-v1.5")
    ids = tokenizer.encode("What is this?", most=512)

The `tokenizers` library cuts; it is given a vocabulary that was looked at first, and nothing else of a stranger's file.
Text that looks like `[SEP]` stays text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from lapilli.errors import InputError, TokenizerError
from lapilli.ground.files import open_regular
from lapilli.inputs.documents import MAX_TOKENS, parse_object

_MAX_FILE = 64 << 20
_MAX_PIECE = 1000  # characters of a token, and of a word that is cut at all
_PREFIX = "##"
_MAX_TEXT = 1 << 17


class WordPiece:
    """Text to token ids, with the tokens that begin and end a text. Safe from several threads."""

    def __init__(self, vocab: Mapping[str, int], *, lowercase: bool, accents: bool | None, chinese: bool) -> None:
        """`accents`: whether they are stripped, None where that goes with lower case. Raises TokenizerError."""
        _check(vocab)
        self.vocab_size = max(vocab.values()) + 1
        self.begin_id, self.end_id, self.pad_id, _ = (
            _required(vocab, token) for token in ("[CLS]", "[SEP]", "[PAD]", "[UNK]")
        )
        try:
            engine = tokenizers.Tokenizer(
                models.WordPiece(vocab=dict(vocab), unk_token="[UNK]", max_input_chars_per_word=100)
            )
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of the library is no Exception
            raise TokenizerError(f"the tokenizers library refuses this vocabulary: {str(error)[:200]}") from None
        engine.normalizer = normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=chinese, strip_accents=accents, lowercase=lowercase
        )
        engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._engine = engine

    @classmethod
    def from_folder(cls, folder: str | Path) -> WordPiece:
        """Read `tokenizer.json`, else `vocab.txt` with `tokenizer_config.json`.

        Raises TokenizerError where neither is there, or it is no WordPiece as BERT has it.
        """
        folder = Path(folder)
        raw = _read(folder / "tokenizer.json")
        if raw is not None:
            return cls._from_document(parse_object(raw, "tokenizer.json"))
        raw = _read(folder / "vocab.txt")
        if raw is None:
            raise TokenizerError("the folder holds neither tokenizer.json nor vocab.txt")
        try:
            lines = raw.decode().removesuffix("\n").split("\n")
        except UnicodeDecodeError:
            raise TokenizerError("vocab.txt is not UTF-8") from None
        vocab = {line.rstrip("\r"): number for number, line in enumerate(lines)}
        if len(vocab) != len(lines):
            raise TokenizerError(f"vocab.txt has {len(lines)} lines and {len(vocab)} different tokens")
        config = parse_object(_read(folder / "tokenizer_config.json") or b"{}", "tokenizer_config.json")
        return cls(
            vocab,
            lowercase=_flag(config, "do_lower_case", True),
            accents=_flag(config, "strip_accents", None),
            chinese=_flag(config, "tokenize_chinese_chars", True),
        )

    @classmethod
    def _from_document(cls, document: Mapping[str, Any]) -> WordPiece:
        model, normal = document.get("model"), document.get("normalizer")
        if not isinstance(model, dict) or model.get("type") != "WordPiece":
            kind = model.get("type") if isinstance(model, dict) else None
            raise TokenizerError(f"tokenizer.json is of the kind {str(kind)[:40]!r}; encoders are read with WordPiece")
        vocab = model.get("vocab")
        if not isinstance(vocab, dict):
            raise TokenizerError("tokenizer.json has no vocabulary")
        for key, usual in (("continuing_subword_prefix", _PREFIX), ("max_input_chars_per_word", 100)):
            if model.get(key, usual) != usual:
                raise TokenizerError(f"tokenizer.json has {key} {str(model[key])[:40]!r}, BERT has {usual!r}")
        if not isinstance(normal, dict) or normal.get("type") != "BertNormalizer":
            raise TokenizerError("tokenizer.json has another normalizer than BERT's")
        cutter = document.get("pre_tokenizer")
        if not isinstance(cutter, dict) or cutter.get("type") != "BertPreTokenizer":
            raise TokenizerError("tokenizer.json cuts words otherwise than BERT does")
        return cls(
            vocab,
            lowercase=_flag(normal, "lowercase", True),
            accents=_flag(normal, "strip_accents", None),
            chinese=_flag(normal, "handle_chinese_chars", True),
        )

    def encode(self, text: str, *, most: int) -> list[int]:
        """The ids of a text between the tokens that begin and end one; what goes beyond `most` of them is cut off.

        Raises InputError for text that holds half a character.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"the text holds half a character at position {error.start}") from None
        # Five hundred tokens end long before this many characters do.
        ids = self._engine.encode(text[:_MAX_TEXT], add_special_tokens=False).ids
        return [self.begin_id, *ids[: most - 2], self.end_id]


def _check(vocab: Mapping[str, int]) -> None:
    if not 1 <= len(vocab) <= MAX_TOKENS:
        raise TokenizerError(f"the vocabulary has {len(vocab)} tokens, read are 1 to {MAX_TOKENS}")
    for token, index in vocab.items():
        if not isinstance(token, str) or len(token) > _MAX_PIECE:
            raise TokenizerError(f"token {str(token)[:80]!r} is no text of at most {_MAX_PIECE} characters")
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < MAX_TOKENS:
            raise TokenizerError(f"token {token[:80]!r} has the number {str(index)[:40]!r}")
    if len(set(vocab.values())) != len(vocab):
        raise TokenizerError("the vocabulary gives two tokens the same number")


def _required(vocab: Mapping[str, int], token: str) -> int:
    if token not in vocab:
        raise TokenizerError(f"the vocabulary has no {token}, which BERT needs")
    return vocab[token]


def _flag(values: Mapping[str, Any], key: str, usual: Any) -> Any:
    value = values.get(key, usual)
    if value is not None and not isinstance(value, bool):
        raise TokenizerError(f"the tokenizer has {key} {json.dumps(value, default=str)[:40]}, it must be true or false")
    return usual if value is None else value


def _read(path: Path) -> bytes | None:
    """The bytes of a file, None where there is none. Raises TokenizerError for one that is too large."""
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_FILE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TokenizerError(f"{path.name} cannot be read: {(error.strerror or 'unknown error').lower()}") from None
    if len(data) > _MAX_FILE:
        raise TokenizerError(f"{path.name} has more than {_MAX_FILE} bytes")
    return data
