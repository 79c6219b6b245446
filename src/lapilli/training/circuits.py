"""A decoder that copies before it has learnt anything: induction heads are set, not found.

Two layers that look back are what copying needs (Olsson et al. 2022, "In-context learning and induction heads"):
heads that note which tokens came one and two before, and heads that look for a place where those were the tokens of
now, and say what came there. A small decoder spends most of its training on finding them. Rotary positions (arXiv
2104.09864) make the first kind: a constant in every embedding, turned by one position. The second kind compares
contents on those pairs of dimensions that hardly turn.

The residual stream is cut into parts: what the token is, what came before it (one, two, a window), what is to be said,
and one constant. All weights learn from there on like any others.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from lapilli.errors import TrainingError
from lapilli.model.attention import CausalAttention
from lapilli.model.language import Decoder, DecoderBlock
from lapilli.model.rope import frequencies

# Where the parts of the residual stream lie; how rare a token is and a constant are its last two dimensions.
CONTENT, BEFORE, EARLIER, WINDOW, SAID = slice(0, 96), slice(96, 136), slice(136, 160), slice(160, 191), slice(191, 254)
RARITY, CONSTANT = 254, 255
_CONSTANT = 0.5  # of an embedding whose content has length 1
# How long a content of length 1 is in a normalised stream: of embeddings, and after the first layer has added to it.
_LENGTH = 16 / math.sqrt(1 + _CONSTANT**2)
_UNIT = 16 / math.sqrt(1 + _CONSTANT**2 + 0.7**2 + 0.6**2 * 0.6 + 0.3)


def set_circuits(decoder: Decoder, contents_VC: Tensor, shares_V: Tensor, seed: int) -> None:
    """Overwrite embeddings, output matrix and some heads of the first three layers; the rest keeps what it has.

    `contents_VC` is what each token is, rows of any length; `shares_V` how frequent it is. Raises TrainingError for a
    decoder that has no room.
    """
    config = decoder.config
    if config.hidden_size != CONSTANT + 1 or config.num_layers < 3 or decoder.head is None:
        raise TrainingError("copying heads need a width of 256, three layers, and an output matrix of its own")
    bases = _Bases(seed)
    contents_VC = torch.nn.functional.normalize(contents_VC, dim=1)
    before, said = bases(40, 96), bases(63, 96)
    turns = frequencies(config, 0)
    first, second, third = (cast(DecoderBlock, decoder.blocks[layer]).attention for layer in range(3))
    with torch.no_grad():
        decoder.embed.weight.normal_(0, 0.004, generator=bases.generator)
        decoder.embed.weight[:, CONTENT] = contents_VC
        decoder.embed.weight[:, RARITY] = _CONSTANT * ((-shares_V.log() - 5) / 5).clamp(0, 1)
        decoder.embed.weight[:, CONSTANT] = _CONSTANT
        decoder.head.weight.normal_(0, 0.004, generator=bases.generator)
        decoder.head.weight[:, SAID] = 0.7 * torch.nn.functional.normalize(contents_VC @ said.T, dim=1)
        _note(first, before, turns, config.head_dim)
        # Pairs of dimensions that hardly turn over a prompt: there contents can be compared.
        slow = [pair for pair in range(config.head_dim // 2) if turns[pair] < 0.002]
        places = torch.tensor([place + half for place in slow for half in (0, config.head_dim // 2)])
        _induce(second, before, said, places, bases, config.head_dim)
        _lead(third, said, places, bases, config.head_dim)


class _Bases:
    """Draws rows at right angles, which keep lengths as well as so few can."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, rows: int, columns: int) -> Tensor:
        square = torch.randn(max(rows, columns), max(rows, columns), generator=self.generator)
        turned: Tensor = torch.linalg.qr(square)[0]
        return turned[:rows, :columns] * math.sqrt(max(1.0, columns / rows))


def _note(first: CausalAttention, before: Tensor, turns_F: Tensor, size: int) -> None:
    """Three heads that note the token before, the one before that, and what rare ones were in a window."""
    constant = _CONSTANT * _LENGTH
    sharp = torch.tensor([0.2, 0.2, 0.16, 0.14, 0.1, 0.08, 0.07, 0.05])
    wide = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.2, 0.3, 0.3, 0.2])
    for head, (shares, gain, back) in enumerate(((sharp, 90.0, 1), (sharp, 90.0, 2), (wide, 12.0, 6))):
        _look_back(first, head, shares, gain, back, turns_F, constant, size)
    # The window is of rare tokens: "?" and "the" tell nothing. The pair that hardly turns adds to the score.
    strength = math.sqrt(6.0 * math.sqrt(size)) / constant
    first.q.weight[3 * size - 1, CONSTANT] = first.k.weight[3 * size - 1, RARITY] = strength
    parts = ((BEFORE, before, 0.7), (EARLIER, before[:24], 0.6), (WINDOW, before[:31], 0.8))
    for head, (part, matrix, strength) in enumerate(parts):
        _carry(first, head, matrix / _LENGTH, CONTENT, part, strength, size)


def _induce(second: CausalAttention, before: Tensor, said: Tensor, places: Tensor, bases: _Bases, size: int) -> None:
    """Two heads that say what came after the token of now: one looks for the last two tokens, one for the last."""
    for head, (plain, pairs) in enumerate(((22, len(places) - 22), (len(places), 0))):
        mix, match = bases(plain, 40), bases(pairs, 24) if pairs else torch.zeros(0, 24)
        rows = places + head * size
        q, k = second.q.weight, second.k.weight
        for weight in (q, k):
            weight[head * size : (head + 1) * size] = 0
        gain = math.sqrt((22.0 if pairs else 26.0) * math.sqrt(size))
        q[rows[:plain], CONTENT] = gain * mix @ before / _UNIT
        k[rows[:plain], BEFORE] = gain * mix / (0.7 * _UNIT)
        if pairs:
            gain = math.sqrt(14.0 * math.sqrt(size))
            q[rows[plain:], BEFORE.start : BEFORE.start + 24] = gain * match / (0.7 * _UNIT)
            k[rows[plain:], EARLIER] = gain * match / (0.6 * _UNIT)
        _carry(second, head, said / _UNIT, CONTENT, SAID, 1.2, size)


def _lead(third: CausalAttention, said: Tensor, places: Tensor, bases: _Bases, size: int) -> None:
    """A head that says what stood where words like the last ones were: a question's words lead to its answer."""
    mix = bases(len(places), len(places))[:, :31]
    q, k = third.q.weight, third.k.weight
    q[:size], k[:size] = 0, 0
    q[places, WINDOW] = k[places, WINDOW] = math.sqrt(150.0 * math.sqrt(size)) / (0.5 * _UNIT) * mix
    # Not the question's own words: what is near is taken from the score, by many pairs that agree there alone.
    strength = math.sqrt(80.0 * math.sqrt(size) / 7) / (_CONSTANT * _UNIT)
    q[3:10, CONSTANT], k[3:10, CONSTANT] = -strength, strength
    _carry(third, 0, said / _UNIT, CONTENT, SAID, 3.0, size)


def _look_back(
    attention: CausalAttention,
    head: int,
    shares_F: Tensor,
    gain: float,
    back: int,
    turns_F: Tensor,
    constant: float,
    size: int,
) -> None:
    """A head whose score is `gain` at the token `back` places ago, and falls with the distance from there."""
    q, k = attention.q.weight, attention.k.weight
    rows = slice(head * size, (head + 1) * size)
    q[rows], k[rows] = 0, 0
    for pair, share in enumerate(shares_F.tolist()):
        length = math.sqrt(gain * share * math.sqrt(size)) / constant
        angle = float(turns_F[pair]) * back
        at = head * size + pair
        k[at, CONSTANT] = length
        q[at, CONSTANT] = length * math.cos(angle)
        q[at + size // 2, CONSTANT] = -length * math.sin(angle)


def _carry(
    attention: CausalAttention, head: int, matrix: Tensor, source: slice, target: slice, strength: float, size: int
) -> None:
    """What a head brings: `matrix` of a part of what it sees, into another part."""
    rows = slice(head * size, (head + 1) * size)
    attention.v.weight[rows], attention.out.weight[:, rows] = 0, 0
    attention.v.weight[head * size : head * size + len(matrix), source] = matrix
    for row in range(len(matrix)):
        attention.out.weight[target.start + row, head * size + row] = strength


def shares_of(ids_N: Tensor, size: int) -> Tensor:
    """How frequent each of `size` tokens is."""
    return (torch.bincount(ids_N, minlength=size).float() + 0.5) / (len(ids_N) + 0.5 * size)


def set_habits(decoder: Decoder, ids_N: Tensor, *, rate: float = 0.4) -> None:
    """Let the output matrix say how frequent tokens are, and what tends to follow each, as `ids_N` has it.

    The constant carries the frequencies, the content of the token of now what follows it: least squares on its
    pointwise information, as far as its dimensions can tell tokens apart. `rate` is how much of that is believed.
    """
    assert decoder.head is not None
    size = decoder.config.vocab_size
    now_M, next_M = ids_N[:-1], ids_N[1:]
    pairs_VV = torch.bincount(now_M * size + next_M, minlength=size * size).view(size, size).float()
    often_V = pairs_VV.sum(1)
    shares_V = shares_of(next_M, size)
    told_VV = ((pairs_VV + 4 * shares_V) / (often_V[:, None] + 4) / shares_V).log()
    contents_VC = decoder.embed.weight.detach()[:, CONTENT]
    weighted_VC = contents_VC * often_V[:, None]
    gram_CC = weighted_VC.T @ contents_VC
    gram_CC += 0.01 * gram_CC.diagonal().mean() * torch.eye(len(gram_CC))
    follow_CV = torch.linalg.solve(gram_CC, weighted_VC.T @ told_VV)
    # A stream that is normalised at the end holds its parts at about this length.
    length = 16 / 2.3
    with torch.no_grad():
        decoder.head.weight[:, CONTENT] += rate * follow_CV.T / length
        decoder.head.weight[:, CONSTANT] += (shares_V.log() + math.log(size)) / (_CONSTANT * length)
