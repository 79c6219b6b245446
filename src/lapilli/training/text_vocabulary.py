"""A vocabulary for text that is copied: byte-level BPE, and embeddings that begin alike for one word's spellings.

A name stands in a text as ` adalimumab`, in a JSON answer as `"Adalimumab"`: other tokens. Where their embeddings begin
as one vector plus one for the blank and one for the capital, a copying head finds all spellings at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor

from lapilli.training.vocabulary import BOS_ID

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>")
"""Ids 0 to 2, as in the vocabulary of pictures."""


def build_text_vocabulary(texts: Iterable[str], size: int) -> bytes:
    """The `tokenizer.json` of a byte-level BPE of at most `size` tokens over `texts`, in GPT-2's layout."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        max_token_length=16,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    bos = SPECIAL_TOKENS[BOS_ID]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, BOS_ID)]
    )
    return tokenizer.to_str().encode()


def alike_embeddings(spelt: Sequence[bytes], width: int, seed: int, *, own: float = 0.35) -> Tensor:
    """Embeddings (V, D) of length 1: a word's spellings share most of their vector, `own` is each token's alone."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(width, generator=generator)

    bases: dict[bytes, Tensor] = {}
    blank, capital, capitals = draw(), draw(), draw()
    rows = []
    for token in spelt:
        word = token.removeprefix(b" ") or token
        row = bases.setdefault(word.lower(), draw()).clone()
        if token != word:
            row += 0.5 * blank
        if len(word) > 1 and word.isupper():
            row += 0.5 * capitals
        elif word[:1].isupper():
            row += 0.5 * capital
        row += own * draw()
        rows.append(row / row.norm())
    return torch.stack(rows)
