"""How byte-level BPE cuts text into words before it merges: the published rules, by the names GGUF gives them.

A rule is written as the `normalizer` and `pre_tokenizer` parts of a `tokenizer.json`. Regular expressions come from
the models' own `tokenizer.json`; one that is not listed here is refused, for two reasons: a wrong cut gives wrong ids
without a word, and a stranger's expression may take for ever (`(a+)+$`). Every one listed is linear in the text.
GGUF names: `tokenizer.ggml.pre` as llama.cpp writes it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lapilli.errors import TokenizerError

Part = dict[str, Any]

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_TAIL}"
QWEN2 = rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_TAIL}"
QWEN35 = (
    rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SLASH_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}|{_SLASH_TAIL}"
GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDINGS}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDINGS}?"
    rf"|\p{{N}}{{1,3}}|{_SLASH_TAIL}"
)
DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KANA = "[一-龥\u3040-ゟ゠-ヿ]+"
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_PUNCTUATION = r"[\p{P}\$\+<=>\^~\|]+"
_THREE_DIGITS = "[0-9][0-9][0-9]"

KNOWN_EXPRESSIONS = frozenset(
    {GPT2, LLAMA3, QWEN2, QWEN35, CL100K, TEKKEN, GPT4O, DEEPSEEK3, KANA, BLOOM, _PUNCTUATION, _THREE_DIGITS}
    | {r"\p{N}", r"\p{N}+", r"\p{N}{1,3}", r"\s?\p{L}+", r"\s?\p{P}+", r"[\r\n]", "[一-龥ࠀ-一가-퟿]+"}
)


def _split(expression: str) -> Part:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def _digits(*, individual: bool) -> Part:
    return {"type": "Digits", "individual_digits": individual}


def _bytes(*, use_regex: bool) -> Part:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


_NFC: Part = {"type": "NFC"}


@dataclass(frozen=True)
class Rule:
    """One way of cutting: the steps in order, what comes before them, and whether a whole word skips the merges."""

    steps: tuple[Part, ...]
    normalizer: Part | None = None
    ignore_merges: bool = False
    adds_bos: bool = False

    @property
    def pre_tokenizer(self) -> Part:
        """The `pre_tokenizer` part of a tokenizer.json."""
        return self.steps[0] if len(self.steps) == 1 else {"type": "Sequence", "pretokenizers": list(self.steps)}


_gpt2 = Rule((_bytes(use_regex=True),))
_gpt2_nfc = Rule((_bytes(use_regex=True),), normalizer=_NFC)
_single_digits = Rule((_digits(individual=True), _bytes(use_regex=True)))
_llama3 = Rule((_split(LLAMA3), _bytes(use_regex=False)), ignore_merges=True, adds_bos=True)
_dbrx = Rule((_split(LLAMA3), _bytes(use_regex=False)))
_qwen2 = Rule((_split(QWEN2), _bytes(use_regex=False)))
_gpt4o = Rule((_split(GPT4O), _bytes(use_regex=False)))
_bloom = Rule((_split(BLOOM), _bytes(use_regex=False)))

# The first name of several with the same rule is the one that is written.
RULES: dict[str, Rule] = {
    "gpt-2": _gpt2,
    "phi-2": _gpt2,
    "roberta-bpe": _gpt2,
    "exaone4": _gpt2,
    "granite-docling": _gpt2,
    "mpt": _gpt2_nfc,
    "olmo": _gpt2_nfc,
    "smollm": _single_digits,
    "starcoder": _single_digits,
    "refact": _single_digits,
    "codeshell": _single_digits,
    "exaone": _single_digits,
    "minerva-7b": _single_digits,
    "command-r": Rule(_single_digits.steps, normalizer=_NFC),
    "llama-bpe": _llama3,
    "llama3": _llama3,
    "llama-v3": _llama3,
    "falcon3": _llama3,
    "pixtral": _llama3,
    "dbrx": _dbrx,
    "smaug-bpe": _dbrx,
    "chatglm-bpe": _dbrx,
    "glm4": _dbrx,
    "qwen2": Rule(_qwen2.steps, normalizer=_NFC),
    "megrez": Rule(_qwen2.steps, normalizer=_NFC),
    "deepseek-r1-qwen": _qwen2,
    "stablelm2": _qwen2,
    "qwen35": Rule((_split(QWEN35), _bytes(use_regex=False)), normalizer=_NFC),
    "tekken": Rule((_split(TEKKEN), _bytes(use_regex=False)), ignore_merges=True, adds_bos=True),
    "gpt-4o": _gpt4o,
    "llama4": _gpt4o,
    "bloom": _bloom,
    "gpt3-finnish": _bloom,
    "poro-chat": _bloom,
    "viking": Rule((_split(BLOOM), _digits(individual=True), _bytes(use_regex=False))),
    "deepseek-coder": Rule(
        (
            _split(r"[\r\n]"),
            _split(r"\s?\p{L}+"),
            _split(r"\s?\p{P}+"),
            _split("[一-龥ࠀ-一가-퟿]+"),
            _digits(individual=True),
            _bytes(use_regex=False),
        )
    ),
    "deepseek-v3": Rule((_split(r"\p{N}{1,3}"), _split(KANA), _split(DEEPSEEK3), _bytes(use_regex=False))),
    "falcon": Rule(
        (
            {"type": "Punctuation", "behavior": "Contiguous"},
            _bytes(use_regex=True),
            _digits(individual=False),
            _split(_THREE_DIGITS),
        )
    ),
    "default": Rule(
        (
            _split(_PUNCTUATION),
            _split(GPT2),
            _split(r"\p{N}+"),
            _split(_THREE_DIGITS),
            _bytes(use_regex=False),
        )
    ),
}


def rule(name: str) -> Rule:
    """The rule that GGUF calls `name`; a name we do not know is a TokenizerError, never a guess."""
    if name not in RULES:
        raise TokenizerError(f"pre-tokenizer {name[:80]!r} is not one we know: {', '.join(sorted(RULES))}")
    return RULES[name]


def rule_name(normalizer: Part | None, pre_tokenizer: Part | None, *, ignore_merges: bool) -> str:
    """The GGUF name of a tokenizer.json's rule, or a TokenizerError where GGUF has none."""
    wanted = (_canonical_steps(normalizer), _canonical_steps(pre_tokenizer), ignore_merges)
    for name, known in RULES.items():
        if wanted == (_canonical_steps(known.normalizer), _canonical_steps(known.pre_tokenizer), known.ignore_merges):
            return name
    raise TokenizerError(
        "this tokenizer's normalizer and pre-tokenizer have no name in GGUF; keep it as tokenizer.json"
    )


def spelling(expression: str) -> str:
    """One spelling for expressions that hold line ends as characters or as escapes."""
    return expression.replace("\r", r"\r").replace("\n", r"\n")


def flatten(part: Part | None) -> list[Part]:
    """The steps of a normalizer, pre-tokenizer or decoder, without the sequences around them."""
    if part is None:
        return []
    for key in ("normalizers", "pretokenizers", "decoders", "processors"):
        if part.get("type") == "Sequence" and key in part:
            return [step for inner in part[key] for step in flatten(inner)]
    return [part]


def _canonical_steps(part: Part | None) -> list[str]:
    steps: list[str] = []
    for step in flatten(part):
        kept = {key: value for key, value in step.items() if key != "trim_offsets"}
        if step.get("type") == "Split" and "Regex" in step.get("pattern", {}):
            expression = spelling(step["pattern"]["Regex"])
            if (step.get("behavior"), step.get("invert")) == ("Removed", True):
                # what lies between two matches is removed, and these expressions leave nothing between
                kept |= {"behavior": "Isolated", "invert": False}
            if expression == r"\p{N}":
                kept = _digits(individual=True)
            else:
                kept["pattern"] = {"Regex": expression}
        steps.append(json.dumps(kept, sort_keys=True))
    if steps[-1:] == [_USES_NO_REGEX] and steps[-2:-1] == [_IS_GPT2]:
        steps[-2:] = [_USES_REGEX]
    return steps


_USES_REGEX, _USES_NO_REGEX, _IS_GPT2 = (
    json.dumps({key: value for key, value in step.items() if key != "trim_offsets"}, sort_keys=True)
    for step in (_bytes(use_regex=True), _bytes(use_regex=False), _split(GPT2))
)
