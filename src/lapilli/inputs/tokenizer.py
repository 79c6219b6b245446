"""Text to token ids and back, for every vocabulary a checkpoint comes with.

    tokenizer = Tokenizer.from_folder("llava-1.5-7b-hf")
    ids = tokenizer.encode("What is this?")

The `tokenizers` library merges; what surrounds it is ours, because a prompt holds text that may speak as the model
(a template) and text that may not (what people wrote). Ways in which this differs from the library:

- Markers are found by us, and only in text that is trusted; the library never sees them. Words that were added to a
  vocabulary without being markers (runs of blanks, a word of one's own) are found everywhere, as in the library.
- A token's bytes are joined before they are read as UTF-8, so a stream and a whole give the same text. Bytes that are
  no UTF-8 become U+FFFD as in Python; the library's byte fallback writes one U+FFFD for each byte instead.
- Spaces before punctuation are never removed (`clean_up_tokenization_spaces`), nothing is truncated or padded.
- Only what is known to be exact and quick is accepted: BPE, listed expressions, bounded sizes.
"""

from __future__ import annotations

import codecs
import dataclasses
import functools
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models

from lapilli.errors import InputError, TokenizerError
from lapilli.inputs.documents import (
    BLANK,
    AddedToken,
    Roles,
    added_token,
    all_added,
    alphabet,
    bos_template,
    byte_values,
    check_alphabet,
    check_document,
    is_byte_level,
    merge_pairs,
    parse_object,
    prepends,
    prepends_first,
    roles_of,
    template_begins,
    without_first_blank,
)
from lapilli.inputs.pretokenizers import flatten
from lapilli.inputs.sentencepiece import document_from_sentencepiece
from lapilli.inputs.vocabularies import document_from_gguf, gguf_from_document

_MAX_FILE = 64 << 20
_MAX_CONFIG = 16 << 20


class Tokenizer:
    """Text to token ids and back; made by `from_folder`, `from_json` or `from_gguf`.

    Safe to use from several threads at once.
    """

    def __init__(self, document: Mapping[str, Any], roles: Roles) -> None:
        """Build from a parsed `tokenizer.json`; raises TokenizerError for one that cannot be reproduced exactly."""
        check_document(document)
        self._added = {token.id: token for token in map(added_token, document.get("added_tokens") or [])}
        self._ids = {token.content: token.id for token in self._added.values()}
        self._parts = {key: value for key, value in document.items() if key not in ("model", "added_tokens")}
        self._markers = [token for token in self._added.values() if token.is_marker]
        self._marker_ids = {token.content: token for token in self._markers}
        by_length = sorted(self._marker_ids, key=len, reverse=True)
        self._marker_pattern = re.compile("|".join(map(re.escape, by_length))) if by_length else None
        decoders = flatten(document.get("decoder"))
        self._byte_level = is_byte_level(document)
        # Whether `decode` drops the blank that begins the text, because encoding put one there.
        self.strips_blank = any(
            step["type"] == "Strip" or (step["type"] == "Metaspace" and prepends(step)) for step in decoders
        )
        vocab = dict(document["model"]["vocab"])
        # A token outside the base vocabulary still has its number; a marker in it must not be spelt out by text.
        kept = {text: index for text, index in vocab.items() if text not in self._marker_ids}
        kept |= {token.content: token.id for token in self._added.values() if not token.is_marker}
        self._hidden = {text: index for text, index in vocab.items() if text not in kept}
        self._beside = kept.keys() - vocab.keys()
        self._engine = self._build(document, kept)
        self._engine_inside = self._build(document, kept, inside=True) if prepends_first(document) else self._engine
        self.vocab_size: int = max([*vocab.values(), *self._added], default=-1) + 1
        for role, index in (("bos", roles.bos), ("eos", roles.eos), *(("end", index) for index in roles.ends)):
            if index is not None and not 0 <= index < self.vocab_size:
                raise TokenizerError(f"the {role} token is {index}, but there are {self.vocab_size} tokens")
        self._roles = roles
        self._bytes = functools.lru_cache(maxsize=1 << 16)(self._token_bytes)

    # Where tokenizers come from

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Read a checkpoint folder: `tokenizer.json`, or sentencepiece's `tokenizer.model`, and what stands beside it.

        Raises TokenizerError where neither is there, or one cannot be reproduced exactly.
        """
        folder = Path(folder)
        config = _read_object(folder / "tokenizer_config.json")
        for key, value in _read_object(folder / "special_tokens_map.json").items():
            config.setdefault(key, value)
        added = _read_object(folder / "added_tokens.json")
        generation = _read_object(folder / "generation_config.json")
        if (folder / "tokenizer.json").exists():
            document = parse_object(_read(folder / "tokenizer.json", _MAX_FILE), "tokenizer.json")
            return cls._from_parts(document, Roles(), config, added, generation)
        if (folder / "tokenizer.model").exists():
            document, roles = document_from_sentencepiece(_read(folder / "tokenizer.model", _MAX_FILE))
            return cls._from_parts(document, roles, config, added, generation)
        raise TokenizerError(
            "the folder holds neither tokenizer.json nor tokenizer.model; save the model with its fast tokenizer"
        )

    @classmethod
    def from_json(
        cls,
        text: str | bytes,
        *,
        config: Mapping[str, Any] | None = None,
        generation: Mapping[str, Any] | None = None,
    ) -> Tokenizer:
        """Read the text of a `tokenizer.json`, with `tokenizer_config.json` and `generation_config.json` if there.

        Raises TokenizerError for text that is damaged or cannot be reproduced exactly.
        """
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        if len(data) > _MAX_FILE:
            raise TokenizerError(f"tokenizer.json has {len(data)} bytes; {_MAX_FILE} is the most we read")
        return cls._from_parts(parse_object(data, "tokenizer.json"), Roles(), config or {}, {}, generation or {})

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, object]) -> Tokenizer:
        """Read GGUF's `tokenizer.ggml.*`: models `llama` and `gpt2`, the latter with a pre-tokenizer that we know."""
        return cls(*document_from_gguf(metadata))

    @classmethod
    def _from_parts(
        cls,
        document: dict[str, Any],
        roles: Roles,
        config: Mapping[str, Any],
        added: Mapping[str, Any],
        generation: Mapping[str, Any],
    ) -> Tokenizer:
        check_document(document)
        document["added_tokens"] = all_added(document, config, added)
        return cls(document, roles_of(document, roles, config, generation))

    # What it knows

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text, if there is one."""
        return self._roles.bos

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text, if there is one."""
        return self._roles.eos

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every token that ends an answer."""
        return self._roles.ends

    @property
    def pad_id(self) -> int | None:
        """The token that fills a batch, if one is named."""
        return self._roles.pad

    @property
    def adds_bos(self) -> bool:
        """Whether this model's prompts begin with `bos_id`; `encode` never adds it."""
        return self._roles.adds_bos

    @property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens and their ids."""
        return {token.content: token.id for token in self._added.values() if token.special}

    @property
    def marker_ids(self) -> frozenset[int]:
        """Every token that may play a part in a template or stand for a picture: text never becomes one."""
        return frozenset(token.id for token in self._markers)

    def token_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, or None."""
        if token in self._ids:
            return self._ids[token]
        return self._hidden.get(token, self._engine.token_to_id(token))

    def token_bytes(self, token_id: int, *, skip_special: bool = True) -> bytes:
        """The bytes a token adds to the text: maybe part of a character, none if special or out of the vocabulary."""
        added = self._added.get(token_id)
        if added is not None:
            return b"" if added.special and skip_special else added.content.encode()
        return self._bytes(token_id)

    # Text to ids

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The ids of `text`, without a beginning token.

        With `special`, markers such as `<image>` or `<|im_end|>` become their tokens; without, they stay text.
        Raises InputError for text that holds half a character.
        """
        return self.encode_segments([(text, special)])

    def encode_segments(self, segments: Iterable[tuple[str, bool]], *, at_start: bool = True) -> list[int]:
        """The ids of (text, trusted) segments as one text; a marker counts only in text that is trusted.

        Equal to encoding the joined text, so that words merge across the joints as they did when the model was
        trained. `at_start` is False for text that follows a token: some vocabularies then put no blank before it.
        Raises InputError for text that holds half a character.
        """
        segments = list(segments)
        text = "".join(part for part, _ in segments)
        _check_unicode(text)
        ids: list[int] = []
        end = 0
        for begin, marker, after in self._find_markers(text, segments):
            ids += self._encode_run(text[end:begin], at_start=at_start and end == 0)
            ids.append(marker.id)
            end = after
        return ids + self._encode_run(text[end:], at_start=at_start and end == 0)

    def _encode_run(self, text: str, *, at_start: bool) -> list[int]:
        if not text:
            return []
        engine = self._engine if at_start else self._engine_inside
        return engine.encode(text, add_special_tokens=False).ids

    def _find_markers(self, text: str, segments: Iterable[tuple[str, bool]]) -> Iterator[tuple[int, AddedToken, int]]:
        if self._marker_pattern is None:
            return
        end = 0
        for start, stop in _trusted_spans(segments):
            at = max(start, end)
            while match := self._marker_pattern.search(text, at, stop):
                marker = self._marker_ids[match[0]]
                if marker.single_word and _within_word(text, match.start(), match.end()):
                    at = match.start() + 1
                    continue
                begin, after = match.span()
                while marker.lstrip and begin > end and text[begin - 1].isspace():
                    begin -= 1
                while marker.rstrip and after < len(text) and text[after].isspace():
                    after += 1
                yield begin, marker, after
                at = end = after

    # Ids to text

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """The text of `ids`; ids out of the vocabulary add nothing."""
        data = b"".join(self.token_bytes(index, skip_special=skip_special) for index in ids)
        text = data.decode("utf-8", "replace")
        return text[1:] if self.strips_blank and text.startswith(" ") else text

    def _token_bytes(self, token_id: int) -> bytes:
        token = self._engine.id_to_token(token_id) if 0 <= token_id < self.vocab_size else None
        if token is None:
            return b""
        if self._byte_level:
            letters = alphabet()
            return bytes(map(letters.__getitem__, token)) if letters.keys() >= set(token) else token.encode()
        if token in byte_values():
            return bytes([byte_values()[token]])
        return token.replace(BLANK, " ").encode()

    # Where tokenizers go

    def to_gguf(self, rows: int | None = None) -> dict[str, object]:
        """GGUF's `tokenizer.ggml.*`, with one token for each of the model's `rows` of embeddings.

        Raises TokenizerError where GGUF has no words for this tokenizer.
        """
        return gguf_from_document(self._document(), self._roles, rows=self.vocab_size if rows is None else rows)

    def save(self, folder: str | Path, *, image_token: str | None = None) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which transformers opens with the same ids."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 10**30,
            "padding_side": "left",  # answers go on from the right end of each prompt of a batch
        }
        names = {"bos": self._roles.bos, "eos": self._roles.eos, "pad": self._roles.pad, "unk": self._roles.unk}
        for name, index in names.items():
            token = None if index is None else self._token(index)
            if token is not None:
                config[f"{name}_token"] = token
        if image_token is not None:
            if self.token_id(image_token) is None:
                raise TokenizerError(f"the image token {image_token!r} is not in the vocabulary")
            config |= {"extra_special_tokens": {"image_token": image_token}, "image_token": image_token}
        _write_json(folder / "tokenizer.json", self._document())
        _write_json(folder / "tokenizer_config.json", config)

    def _token(self, token_id: int) -> str | None:
        added = self._added.get(token_id)
        return self._engine.id_to_token(token_id) if added is None else added.content

    def _document(self) -> dict[str, Any]:
        model = json.loads(self._engine.to_str())["model"]
        vocab = model["vocab"] | self._hidden
        model["vocab"] = {text: vocab[text] for text in sorted(vocab.keys() - self._beside, key=vocab.__getitem__)}
        added = [dataclasses.asdict(token) for token in sorted(self._added.values(), key=lambda token: token.id)]
        parts = dict(self._parts, version="1.0", truncation=None, padding=None)
        bos_id = self.bos_id if self.adds_bos else None
        bos = None if bos_id is None else self._token(bos_id)
        if template_begins(parts.get("post_processor")) != bos:
            parts["post_processor"] = None if bos_id is None or bos is None else bos_template(bos, bos_id)
        return {**parts, "added_tokens": added, "model": model}

    def _build(
        self, document: Mapping[str, Any], vocab: dict[str, int], *, inside: bool = False
    ) -> tokenizers.Tokenizer:
        """The library's tokenizer without the markers; `inside` is for text that does not begin the prompt."""
        model = document["model"]
        parts = {key: document.get(key) for key in ("normalizer", "pre_tokenizer")}
        if inside:
            parts["pre_tokenizer"] = without_first_blank(parts["pre_tokenizer"])
        empty = {"type": "BPE", "vocab": {}, "merges": []}
        unknown = model.get("unk_token") if model.get("unk_token") in model["vocab"] else None
        if unknown is not None:
            vocab = vocab | {unknown: model["vocab"][unknown]}
        check_alphabet(vocab, unknown, byte_level=self._byte_level)
        merges = list(merge_pairs(model, vocab, self._marker_ids))
        frame: dict[str, Any] = {"version": "1.0", "added_tokens": [], "model": empty, **parts}
        try:
            engine = tokenizers.Tokenizer.from_str(json.dumps(frame))
            engine.model = models.BPE(
                vocab=vocab,
                merges=merges,
                unk_token=unknown,
                fuse_unk=bool(model.get("fuse_unk")),
                byte_fallback=bool(model.get("byte_fallback")),
                ignore_merges=bool(model.get("ignore_merges")),
            )
            engine.add_tokens([_library_token(token) for token in self._added.values() if not token.is_marker])
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of the library is no Exception
            raise TokenizerError(f"the tokenizers library refuses this tokenizer: {str(error)[:200]}") from None
        return engine


class TextStream:
    """The text of ids as they come, never half a character; all of it together equals `decode` of all the ids.

    stream = TextStream(tokenizer)
    for token_id in answer:
        print(stream.push(token_id), end="")
    print(stream.flush())
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True, keep: Collection[str] = frozenset()) -> None:
        """With `skip_special`, special tokens add nothing, less those that `keep` spells."""
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        special = tokenizer.special_tokens if keep else {}
        self._kept = frozenset(special[text] for text in keep if text in special)
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._drops_blank = tokenizer.strips_blank

    def push(self, token_id: int) -> str:
        """The text that this token completes, often all of it, sometimes none."""
        skips = self._skip_special and token_id not in self._kept
        return self._text(self._utf8.decode(self._tokenizer.token_bytes(token_id, skip_special=skips)))

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never became whole."""
        return self._text(self._utf8.decode(b"", final=True))

    def _text(self, text: str) -> str:
        if text and self._drops_blank:
            self._drops_blank = False
            return text.removeprefix(" ")
        return text


def _library_token(token: AddedToken) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(
        token.content,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=False,
    )


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text holds half a character (U+{ord(text[error.start]):04X}) at position {error.start}; "
            "decode it as UTF-8 or UTF-16 first"
        ) from None


def _trusted_spans(segments: Iterable[tuple[str, bool]]) -> Iterator[tuple[int, int]]:
    """The stretches of the joined text that are trusted, neighbours put together."""
    start = at = 0
    for part, trusted in segments:
        if not trusted:
            if at > start:
                yield start, at
            start = at + len(part)
        at += len(part)
    if at > start:
        yield start, at


def _within_word(text: str, begin: int, end: int) -> bool:
    around = text[begin - 1 : begin] if begin else "", text[end : end + 1]
    return any(character.isalnum() or character == "_" for character in around)


def _read(path: Path, limit: int) -> bytes:
    if not path.is_file():
        raise TokenizerError(f"{path.name} is not a file")
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise TokenizerError(f"{path.name} has more than {limit} bytes")
    return data


def _read_object(path: Path) -> dict[str, Any]:
    return parse_object(_read(path, _MAX_CONFIG), path.name) if path.exists() else {}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
