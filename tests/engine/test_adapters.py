"""Adapters by request: one batch, one cache, and nothing of one in the answers of another."""

from __future__ import annotations

import copy
import dataclasses
import random
from pathlib import Path

import pytest
import torch
from adapters import write_adapter

import lapilli
from lapilli.checkpoints.load import Checkpoint
from lapilli.engine.adapters import Adapters, Loaded
from lapilli.engine.answer import Answer
from lapilli.engine.engine import Engine, EngineOptions
from lapilli.engine.local import LocalModel
from lapilli.engine.sampler import SamplingOptions
from lapilli.errors import CheckpointError
from lapilli.inputs.prompt import Prompt

SMALL = EngineOptions(running=4, rows=6, chunk=16, block=8)
Case = tuple[Prompt, SamplingOptions, Path | None]


def answer(engine: Engine, prompt: Prompt, options: SamplingOptions, folder: Path | None) -> Answer:
    loaded = None if folder is None else engine.adapters.get(folder)
    job = engine.submit(prompt, options, adapter=loaded)
    return next(chunk.answer for chunk in engine.stream(job) if chunk.answer)


def essence(answer: Answer) -> tuple[object, ...]:
    return answer.token_ids, answer.text, answer.finish_reason, answer.logprobs


@pytest.fixture(scope="module")
def folders(tiny: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    home = tmp_path_factory.mktemp("adapters")
    return [write_adapter(tiny.config.text, home / str(seed), seed) for seed in (1, 2)]


def cases(model: LocalModel, folders: list[Path], count: int, most: int) -> list[Case]:
    """Prompts that begin alike, with an adapter or without, to be answered greedily or drawn."""
    rng, made, begin = random.Random(4), [], "a cat and a dog and what is this picture of " * (most // 9)
    for number in range(count):
        words = " ".join(rng.choice(("a", "cat", "dog", "what", "is", "this")) for _ in range(rng.randrange(3, most)))
        options = SamplingOptions(max_tokens=rng.randrange(2, 10), logprobs=1, seed=number, temperature=number % 2)
        made.append((model.prompts.raw(f"USER: {begin}{words} ASSISTANT:"), options, rng.choice([None, *folders])))
    return made


def in_company(engine: Engine, asked: list[Case], rng: random.Random) -> list[Answer | None]:
    """All of them, some of them aborted, up to six at a time; None for those."""
    waiting, running, answers = list(enumerate(asked)), {}, [None] * len(asked)
    while waiting or running:
        while waiting and len(running) < 6:
            number, (prompt, options, folder) = waiting.pop()
            loaded = None if folder is None else engine.adapters.get(folder)
            running[number] = engine.submit(prompt, options, adapter=loaded)
        engine.step()
        for number, job in list(running.items()):
            if rng.random() < 0.01:
                engine.abort(job)
                del running[number]
            elif job.over:
                assert job.error is None
                answers[number] = next(chunk.answer for chunk in job.news if chunk.answer)
                del running[number]
    return answers


@pytest.mark.parametrize("places", [2000, 160], ids=["room for all", "some give way"])
def test_alone_is_in_company_whatever_the_neighbours_use(tiny: LocalModel, folders: list[Path], places: int) -> None:
    text = tiny.config.text
    room = places * 2 * text.num_layers * text.num_kv_heads * text.head_dim * 4
    engine = Engine(tiny.checkpoint, dataclasses.replace(SMALL, cache_bytes=room))
    asked = cases(tiny, folders, 40, 9)
    answers = in_company(engine, asked, random.Random(places))
    for case, found in zip(asked, answers, strict=True):
        if found is not None:
            assert essence(found) == essence(answer(Engine(tiny.checkpoint, SMALL), *case))
    assert sum(found is not None for found in answers) > 25
    assert sum(found.cached_tokens for found in answers if found) > 0
    assert engine.scheduler.pool.free == engine.scheduler.pool.count


def test_alone_is_in_company_over_quantized_weights(tmp_path: Path) -> None:
    """Where a row is computed with as many beside it as there happen to be, and a chunk begins at any block."""
    mini = lapilli.load("mini", quantize="int8", device="cpu")
    folders = [write_adapter(mini.config.text, tmp_path / str(seed), seed, strength=0.2) for seed in (1, 2)]
    asked = cases(mini, folders, 16, 60)
    answers = in_company(mini.engine, asked, random.Random(1))
    assert sum(found.cached_tokens for found in answers if found) > 0
    for case, found in zip(asked, answers, strict=True):
        if found is not None:
            assert essence(found) == essence(answer(Engine(mini.checkpoint), *case))


def merged(tiny: LocalModel, loaded: Loaded) -> LocalModel:
    """The model with the adapter's products added to its matrices."""
    model = copy.deepcopy(tiny.model)
    for name, factors in loaded.adapter.layers.items():
        layer = model.language.get_submodule(name)
        with torch.no_grad():
            layer.weight += factors.up_NR @ factors.down_RK
    checkpoint = tiny.checkpoint
    return LocalModel(Checkpoint(checkpoint.config, model, checkpoint.prompts, checkpoint.generation), SMALL)


def test_it_answers_as_the_merged_model_does(tiny: LocalModel, folders: list[Path]) -> None:
    engine = Engine(tiny.checkpoint, SMALL)
    options = SamplingOptions(max_tokens=16, logprobs=0)
    for folder in folders:
        one = merged(tiny, engine.adapters.get(folder))
        for words in ("what is this", "a cat and a dog and a cat", "this"):
            prompt = tiny.prompts.raw(f"USER: {words} ASSISTANT:")
            (expected,) = one.complete([prompt], options)
            found = answer(engine, prompt, options, folder)
            assert found.token_ids == expected.token_ids
            pairs = zip(found.logprobs, expected.logprobs, strict=True)
            assert all(abs(a.logprob - b.logprob) < 1e-3 for a, b in pairs)
            assert found.token_ids != answer(engine, prompt, options, None).token_ids


def test_what_one_adapter_left_in_the_cache_is_not_found_by_another(tiny: LocalModel, folders: list[Path]) -> None:
    engine, options = Engine(tiny.checkpoint, SMALL), SamplingOptions(max_tokens=2)
    prompt = tiny.prompts.raw("USER: what is this, a cat or a dog or a cat and a dog ASSISTANT:")
    for folder in (None, *folders):
        assert answer(engine, prompt, options, folder).cached_tokens == 0
    for folder in (None, *folders):
        assert answer(engine, prompt, options, folder).cached_tokens > 0


def test_those_used_last_are_kept_and_changed_ones_are_others(tiny: LocalModel, tmp_path: Path) -> None:
    text, adapters = tiny.config.text, Adapters(tiny.config, torch.device("cpu"), kept=2)
    first, second, third = (write_adapter(text, tmp_path / str(seed), seed) for seed in range(3))
    one, two = adapters.get(first), adapters.get(second)
    assert adapters.get(first) is one
    adapters.get(third)
    assert len(adapters) == 2
    assert adapters.get(first) is one, "the one used longest ago went"
    again = adapters.get(second)
    assert again is not two
    assert again.number == two.number, "the same files leave the same in the cache"
    write_adapter(text, first, 9, modules=["self_attn.q_proj"])
    changed = adapters.get(first)
    assert changed.number not in {one.number, two.number}
    assert changed.adapter.layers.keys() != one.adapter.layers.keys()
    with pytest.raises(CheckpointError, match=r"holds no adapter_config.json"):
        adapters.get(tmp_path / "nothing")
