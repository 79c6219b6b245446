"""A vocabulary in which running text is words, and a word in quotes is letters.

Byte-level BPE (the layout of GPT-2) whose merges are of one shape: a word grows from the blank before it, a
letter at a time. " cat" is one token, by way of " c" and " ca"; `"cat"` has no blank before its letters, so it
is spelt. A small decoder can then read a printed word exactly, letter by letter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from lapilli.errors import TrainingError

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<image>")
"""Ids 0 to 3, in every vocabulary."""
PAD_ID, BOS_ID, EOS_ID, IMAGE_ID = range(4)

_BLANK = "Ġ"
# What may follow a blank in one piece of GPT-2's split: letters, digits, or signs; plain ASCII only.
_WORD = re.compile(r" ([A-Za-z]+|[0-9]+|[!-/:-@\[-`{-~]+)")


def build_vocabulary(texts: Iterable[str], size: int, *, whole: Iterable[str] = ()) -> bytes:
    """The `tokenizer.json` of a vocabulary of at most `size` tokens.

    Every word of `whole` becomes one token; what room is left goes to the beginnings of words that save most
    tokens over `texts`. Raises TrainingError where `size` does not hold the words of `whole`.
    """
    beginnings = _beginnings(Counter(word for text in whole for word in _WORD.findall(f" {text}")))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    room = size - len(SPECIAL_TOKENS) - len(alphabet)
    if len(beginnings) > room:
        raise TrainingError(
            f"a vocabulary of {size} tokens has room for {max(0, room)} word beginnings, the words that must be whole "
            f"need {len(beginnings)}: give more room or fewer words"
        )
    chosen = set(beginnings)
    seen = _beginnings(Counter(word for text in texts for word in _WORD.findall(text)))
    # A beginning is at least as frequent as what goes on from it, so the best are closed under shortening.
    best = sorted((prefix for prefix in seen if prefix not in chosen), key=lambda p: (-seen[p], len(p), p))
    chosen.update(best[: room - len(chosen)])
    return _tokenizer(alphabet, sorted(chosen, key=lambda prefix: (len(prefix), prefix))).to_str().encode()


def _beginnings(words: Counter[str]) -> Counter[str]:
    """How many words begin so, for each beginning."""
    counts: Counter[str] = Counter()
    for word, times in words.items():
        for end in range(1, len(word) + 1):
            counts[word[:end]] += times
    return counts


def _tokenizer(alphabet: list[str], beginnings: list[str]) -> Tokenizer:
    names = [*SPECIAL_TOKENS, *alphabet, *(_BLANK + beginning for beginning in beginnings)]
    vocabulary = {name: number for number, name in enumerate(names)}
    merges = [(_BLANK + beginning[:-1], beginning[-1]) for beginning in beginnings]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    bos = SPECIAL_TOKENS[BOS_ID]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, BOS_ID)]
    )
    return tokenizer
