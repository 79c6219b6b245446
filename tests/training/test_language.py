import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lapilli.config import TextConfig
from lapilli.inputs.tokenizer import Tokenizer
from lapilli.model.language import Decoder
from lapilli.training.corpus import Blocks, Dialogue, prose_ids
from lapilli.training.initialise import initialise
from lapilli.training.language import LanguageObjective, LanguageOptions
from lapilli.training.loop import run
from lapilli.training.recipe import LoopOptions
from lapilli.training.vocabulary import build_vocabulary

TEXT = "A cat sat on a mat. A dog sat on a log. "


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_json(build_vocabulary([], 400, whole=[TEXT, "USER ASSISTANT: What is it? It is red. blue."]))


def objective(tokenizer: Tokenizer, *, workers: int = 0, prose_share: float = 0.5) -> LanguageObjective:
    config = TextConfig(
        family="llama", vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=64, num_layers=2,
        num_heads=2, num_kv_heads=2, head_dim=16, norm_eps=1e-5, max_positions=64, tie_embeddings=True,
    )  # fmt: skip
    decoder = Decoder(config)
    initialise(decoder, 0, layers=2)
    blocks = Blocks(tokenizer, prose_ids(tokenizer, [TEXT * 20]), _colour, 24, prose_share, seed=3)
    return LanguageObjective(decoder, blocks, LanguageOptions(batch=8, workers=workers))


def _colour(rng: np.random.Generator) -> Dialogue:
    return Dialogue((("What is it?", f"It is {('red', 'blue')[rng.integers(2)]}."),))


def test_the_loss_is_the_cross_entropy_of_the_next_token(tokenizer: Tokenizer) -> None:
    goal = objective(tokenizer)
    ids_BT = next(goal.batches(0))
    losses = goal.loss(ids_BT)

    decoder = goal.decoder
    rows = []
    for row in ids_BT:
        hidden = decoder(decoder.embed(row[None, :-1]), torch.arange(24)[None])
        rows.append(F.cross_entropy(decoder.logits(hidden)[0], row[1:]))
    assert torch.allclose(losses["loss"], torch.stack(rows).mean(), atol=1e-5)
    assert torch.allclose(losses["prose"], torch.stack(rows[:4]).mean(), atol=1e-5)
    assert torch.allclose(losses["dialogue"], torch.stack(rows[4:]).mean(), atol=1e-5)


def test_without_prose_there_is_no_part_for_it(tokenizer: Tokenizer) -> None:
    goal = objective(tokenizer, prose_share=0.0)

    assert goal.loss(next(goal.batches(0))).keys() == {"loss", "dialogue"}


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_go_on_where_a_run_was_cut(tokenizer: Tokenizer, workers: int) -> None:
    whole = list(islice(objective(tokenizer).batches(0), 5))
    resumed = list(islice(objective(tokenizer, workers=workers).batches(3), 2))

    assert all(torch.equal(a, b) for a, b in zip(whole[3:], resumed, strict=True))
    assert not torch.equal(whole[3], whole[4])


def test_it_learns_and_a_run_in_two_pieces_is_the_run_in_one(tokenizer: Tokenizer, tmp_path: Path) -> None:
    options = LoopOptions(steps=30, rate=1e-2, warmup=3, log_every=10, bf16=False)
    one = objective(tokenizer)
    run(one, options, tmp_path / "one")

    class Cut(LanguageObjective):
        def batches(self, first_step):
            return islice(super().batches(first_step), 12)

    first = objective(tokenizer)
    run(Cut(first.decoder, first.blocks, first.options), options, tmp_path / "two", minutes=0)
    second = objective(tokenizer)
    reached = run(second, options, tmp_path / "two")

    assert reached == 30
    for (name, a), (_, b) in zip(one.decoder.named_parameters(), second.decoder.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    lines = [json.loads(line) for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
