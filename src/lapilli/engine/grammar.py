"""Answers that cannot but have the shape that was asked for: which tokens may come next, and which must.

    compiler = GrammarCompiler(tokenizer, vocab_rows)
    matcher = compiler.matcher(Constraint.json_schema({"type": "object", ...}))
    scores_V = matcher.apply(scores_V)      # what cannot follow is -inf
    matcher.accept(token)

The grammars and their masks are llguidance's (https://github.com/guidance-ai/llguidance); JSON is compact, so that no
answer wanders in blanks.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import llguidance
import numpy as np

from lapilli.engine.schema import check_pattern, parse_schema, slashed
from lapilli.errors import InputError
from lapilli.inputs.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

_MAX_TEXT = 256 << 10
_MAX_CHOICES = 5_000
_JSON_DEPTH = 16
_KEPT = 32
_GUARD = "\x02"
# One way to write each character, so that no name of a property comes twice in two spellings.
_ESCAPES = 'nrbtf\\"'


@dataclass(frozen=True)
class Constraint:
    """What an answer must look like; equal constraints share one compiled grammar.

    Constraint.json_schema({"type": "object", "properties": {"name": {"type": "string", "maxLength": 40}}})
    Constraint.json()                        # any JSON object
    Constraint.regex(r"\\d{4}-\\d{2}-\\d{2}")   # the whole answer matches
    Constraint.choice(["yes", "no"])
    """

    kind: Literal["json", "regex", "lark"]
    text: str

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | str | bool) -> Constraint:
        """JSON that satisfies a schema; raises InputError that names a keyword which cannot be enforced, and where."""
        return cls("json", json.dumps(parse_schema(schema), ensure_ascii=False, separators=(",", ":")))

    @classmethod
    def json(cls) -> Constraint:
        """Any JSON object, nested at most 16 deep."""
        kinds: list[dict[str, Any]] = [{"type": ["null", "boolean", "number", "string"]}]
        levels: dict[str, Any] = {"0": kinds[0]}
        for level in range(1, _JSON_DEPTH):
            below = {"$ref": f"#/$defs/{level - 1}"}
            nested = [{"type": "array", "items": below}, {"type": "object", "additionalProperties": below}]
            levels[str(level)] = {"anyOf": kinds + nested}
        top = {"$ref": f"#/$defs/{_JSON_DEPTH - 1}"}
        return cls.json_schema({"$defs": levels, "type": "object", "additionalProperties": top})

    @classmethod
    def regex(cls, pattern: str) -> Constraint:
        """Text that matches a pattern as a whole: no looking around, no references back. Raises InputError."""
        return cls("regex", check_pattern(pattern, "'regex'")[0])

    @classmethod
    def choice(cls, options: Sequence[str]) -> Constraint:
        """One of these texts; raises InputError for none at all, too many, or half a character."""
        if isinstance(options, str) or not options or not all(isinstance(option, str) for option in options):
            raise InputError("'choice' is a list of at least one text")
        _check_text("".join(options), "'choice'")
        if len(options) > _MAX_CHOICES:
            raise InputError(f"'choice' has {len(options)} texts; {_MAX_CHOICES} are the most")
        return cls("regex", "|".join(f"(?:{_literal(option)})" for option in dict.fromkeys(options)))

    @classmethod
    def lark(cls, grammar: str) -> Constraint:
        """Text of a grammar in llguidance's dialect of Lark; raises InputError for one that is too long."""
        _check_text(grammar, "the grammar")
        return cls("lark", grammar)


class GrammarCompiler:
    """Makes matchers for one model's vocabulary, and keeps the grammars it compiled last. Safe from several threads."""

    def __init__(self, tokenizer: Tokenizer, vocab_rows: int) -> None:
        """`vocab_rows` are the rows of the scores; those past the tokenizer, and special tokens, are never allowed."""
        self._ends = frozenset(end for end in tokenizer.eos_ids if end < vocab_rows)
        self._rows = vocab_rows
        self._strips_blank = tokenizer.strips_blank
        self._vocabulary = llguidance.LLTokenizer(
            _Vocabulary(tokenizer, vocab_rows, self._ends),  # type: ignore[arg-type]
            eos_token=sorted(self._ends) or [vocab_rows],
        )
        # A schema's author sees where a number is too large, not our parser's innards.
        self._limits = llguidance.LLParserLimits(verbose_errors=False)
        self._kept: OrderedDict[Constraint, llguidance.LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def matcher(self, constraint: Constraint) -> Matcher:
        """A matcher at the beginning of an answer; raises InputError for what cannot be enforced or never be met."""
        with self._lock:
            grammar = self._kept.get(constraint)
            if grammar is not None:
                self._kept.move_to_end(constraint)
        if grammar is None:
            grammar = self._compile(constraint)
            with self._lock:
                self._kept[constraint] = grammar
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return Matcher(grammar.deep_copy(), self._rows, self._ends)

    def _compile(self, constraint: Constraint) -> llguidance.LLMatcher:
        try:
            text = _grammar_text(constraint, self._strips_blank)
            grammar = llguidance.LLMatcher(self._vocabulary, text, log_level=0, limits=self._limits)
        except ValueError as error:
            raise InputError(_complaint(constraint, str(error))) from None
        if grammar.is_error():
            raise InputError(_complaint(constraint, grammar.get_error()))
        trial = grammar.deep_copy()  # what is too large for a first token is refused before an answer begins
        trial.compute_bitmask()
        if trial.is_error():
            raise InputError(_complaint(constraint, trial.get_error()))
        return grammar


class Matcher:
    """Where one answer stands in its grammar. It may move between threads, but one at a time may use it.

    Any method raises InputError when the grammar turns out to need more work for one token than we grant.
    """

    def __init__(self, grammar: llguidance.LLMatcher, rows: int, ends: frozenset[int], *, ended: int = 0) -> None:
        self._grammar = grammar
        self._rows = rows
        self._ends = ends
        self._ended = ended  # end tokens accepted: the grammar never sees them

    @property
    def finished(self) -> bool:
        """Whether nothing can follow but the end."""
        return self._ended > 0 or self._grammar.is_stopped()

    def mask(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which tokens may come next, (V,) of booleans; other Python threads run while it is computed."""
        bias_V = np.frombuffer(self._grammar.compute_logit_bias(), np.uint8, self._rows)
        self._check()
        mask_V: np.ndarray[tuple[int], np.dtype[np.bool_]] = bias_V != 0
        return mask_V

    def apply(self, scores_V: Tensor) -> Tensor:
        """The scores, with -inf for tokens that cannot come next."""
        import torch

        mask_V = torch.from_numpy(self.mask()).to(scores_V.device)
        return scores_V.masked_fill(~mask_V, -torch.inf)

    def accept(self, token: int) -> None:
        """Go on by one token; raises InputError for one that cannot come next."""
        if token in self._ends and (self._ended or self._grammar.is_accepting()):
            self._ended += 1
        elif self._ended or not 0 <= token < self._rows or self._grammar.try_consume_tokens([token]) != 1:
            self._check()
            raise InputError(f"token {token} cannot come next in this answer")

    def forced(self) -> list[int]:
        """The tokens that must follow whatever the model says, cut as the tokenizer cuts their text; often none."""
        tokens = [] if self._ended else self._grammar.compute_ff_tokens()
        self._check()
        return tokens

    def allows(self, tokens: Sequence[int]) -> int:
        """How many of these tokens in a row could be accepted, the end among them; nothing changes."""
        if self._ended:
            return 0
        inside = list(itertools.takewhile(lambda token: 0 <= token < self._rows and token not in self._ends, tokens))
        count = self._grammar.try_consume_tokens(inside)
        self._check()
        ends = count == len(inside) < len(tokens) and tokens[count] in self._ends and self._grammar.is_accepting()
        if count:
            self._grammar.rollback(count)
        return count + ends

    def rollback(self, count: int) -> None:
        """Take back the last `count` tokens accepted; raises InputError for more than there are."""
        taken = min(count, self._ended)
        self._ended -= taken
        if count > taken and not self._grammar.rollback(count - taken):
            raise InputError(f"cannot take back {count} tokens: {_first_line(self._grammar.get_error())}")

    def copy(self) -> Matcher:
        """A matcher that stands at the same place and goes its own way."""
        return Matcher(self._grammar.deep_copy(), self._rows, self._ends, ended=self._ended)

    def _check(self) -> None:
        if self._grammar.is_error():
            raise InputError(f"this answer's grammar is too costly to follow: {_first_line(self._grammar.get_error())}")


class _Vocabulary:
    """Our tokens as llguidance reads them: bytes, which of them are no text, and a way to cut text into tokens."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, rows: int, ends: frozenset[int]) -> None:
        markers = tokenizer.marker_ids | ends
        known = min(rows, tokenizer.vocab_size)
        self.tokens = [b"" if index in markers else tokenizer.token_bytes(index) for index in range(known)]
        self.tokens += [b""] * (rows - known)
        if not ends:  # the library wants an end, so it is given one that no score belongs to
            self.tokens.append(b"")
        self.special_token_ids = [index for index, token in enumerate(self.tokens) if not token]
        self.eos_token_id = min(ends, default=rows)
        self._tokenizer = tokenizer
        self._ids = {token: index for index, token in enumerate(self.tokens) if token}
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, text: str) -> list[int]:
        """The ids of text within an answer, whose bytes are the text's own whatever the tokenizer does to it."""
        wanted = text.encode()
        # Some tokenizers put a blank before any text: it falls before the guard.
        ids = self._tokenizer.encode_segments([(_GUARD + text, False)], at_start=False)
        begin, size = len(ids), 0
        while begin and size < len(wanted):
            begin -= 1
            size += len(self.tokens[ids[begin]]) if ids[begin] < len(self.tokens) else 0
        if b"".join(self.tokens[index] for index in ids[begin:] if index < len(self.tokens)) == wanted:
            return ids[begin:]
        return self._longest_first(wanted)

    def _longest_first(self, text: bytes) -> list[int]:
        ids: list[int] = []
        begin = 0
        while begin < len(text):
            ends = range(min(begin + self._longest, len(text)), begin, -1)
            end = next((end for end in ends if text[begin:end] in self._ids), None)
            if end is None:
                break
            ids.append(self._ids[text[begin:end]])
            begin = end
        return ids


def _grammar_text(constraint: Constraint, strips_blank: bool) -> str:
    """llguidance's text of a grammar; with `strips_blank`, a blank may stand first that decoding then drops."""
    text = constraint.text
    if constraint.kind == "lark":
        return llguidance.LLMatcher.grammar_from_lark(text)
    if not strips_blank:
        if constraint.kind == "regex":
            return llguidance.LLMatcher.grammar_from_regex(text)
        return llguidance.LLMatcher.grammar_from_json_schema(
            text, overrides={"whitespace_flexible": False, "json_allowed_escapes": _ESCAPES}
        )
    if constraint.kind == "regex":
        # An answer that begins with a blank of its own needs two.
        return f'start: ANSWER\nANSWER: " " BARE | (BARE & ~/(?s: .*)/)\nBARE: /{slashed(text)}/'
    schema = {"x-guidance": {"whitespace_flexible": False, "json_allowed_escapes": _ESCAPES}, **json.loads(text)}
    return f'start: " "? answer\nanswer: %json {json.dumps(schema)}'


def _literal(text: str) -> str:
    """The pattern that matches this text alone."""
    return "".join("\\" + letter if letter in r"\.+*?()|[]{}^$#&-~/" else letter for letter in text)


def _check_text(text: str, what: str) -> None:
    if len(text) > _MAX_TEXT:
        raise InputError(f"{what} has {len(text)} characters; {_MAX_TEXT} are the most we read")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{what} holds half a character (U+{ord(text[error.start]):04X})") from None


def _complaint(constraint: Constraint, error: str) -> str:
    what = {"json": "the JSON Schema", "regex": "the pattern", "lark": "the grammar"}[constraint.kind]
    if "oneOf constraints" in error:
        return "JSON Schema keyword 'oneOf' cannot be enforced where more than one branch may match: use 'anyOf'"
    if "NoExtension" in error:
        return f"{what} cannot be enforced: nothing satisfies it"
    return f"{what} cannot be enforced: {_first_line(error)}"


def _first_line(error: str) -> str:
    return " ".join(error.partition("<")[0].split())[:200]
