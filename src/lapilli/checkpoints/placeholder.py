"""A word for pictures: transformers needs one in the vocabulary, which original LLaVA and many GGUF files lack."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from lapilli.checkpoints.load import Checkpoint
from lapilli.checkpoints.weights import Weight, weights_of
from lapilli.config import LlavaConfig
from lapilli.inputs.templates import IMAGE_TOKEN
from lapilli.inputs.tokenizer import Tokenizer

_ROWS = 64  # rows of embeddings come in multiples of this, as others pad them


@dataclasses.dataclass(frozen=True)
class Worded:
    """A model whose vocabulary writes pictures as `image_token`; a decoder alone has none."""

    config: LlavaConfig
    tokenizer: Tokenizer
    weights: dict[str, Weight]
    image_token: str | None


def with_placeholder(checkpoint: Checkpoint) -> Worded:
    """The model with a word for pictures: its own, or `<image>` added to its vocabulary, with rows for it."""
    config, tokenizer = checkpoint.config, checkpoint.prompts.tokenizer
    weights = weights_of(checkpoint.model)
    if config.vision is None:
        return Worded(config, tokenizer, weights, None)
    for text, number in tokenizer.special_tokens.items():
        if number == config.image_token_id < config.text.vocab_size:
            return Worded(config, tokenizer, weights, text)
    known = tokenizer.token_id(IMAGE_TOKEN)
    number = tokenizer.vocab_size if known is None else known
    rows = max(config.text.vocab_size, -(-(number + 1) // _ROWS) * _ROWS if number >= config.text.vocab_size else 0)
    text_config = dataclasses.replace(config.text, vocab_size=rows)
    for name in ("language.embed.weight", "language.head.weight"):
        if name in weights:
            weights[name] = _widened(weights[name], rows)
    config = dataclasses.replace(config, text=text_config, image_token_id=number)
    return Worded(config, _added(tokenizer, IMAGE_TOKEN, number), weights, IMAGE_TOKEN)


def _widened(weight: Weight, rows: int) -> Weight:
    """More rows, copies of the first token's: a greedy choice, which takes the first of equals, never falls on one."""

    def read() -> Tensor:
        whole = weight.read()
        return torch.cat((whole, whole[:1].expand(rows - len(whole), -1)))

    return Weight((rows, *weight.shape[1:]), weight.dtype, read)


def _added(tokenizer: Tokenizer, token: str, number: int) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        path = Path(folder, "tokenizer.json")
        document = json.loads(path.read_text(encoding="utf-8"))
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        document["added_tokens"].append({"id": number, "content": token, **plain, "special": True})
        path.write_text(json.dumps(document), encoding="utf-8")
        return Tokenizer.from_folder(folder)
