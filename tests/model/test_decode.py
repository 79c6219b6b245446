"""A decoder's step in one call: what the layers say one by one, and the same bits whatever is beside a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lapilli.checkpoints import ggml
from lapilli.config import RopeConfig, TextConfig
from lapilli.kernels import library
from lapilli.kernels.quantized import QuantizedWeight
from lapilli.model.decode import QuantizedStep
from lapilli.model.language import Decoder
from lapilli.model.paged import PagedCache, Rows
from lapilli.model.quantized import QuantizedLinear, fuse

CONFIG = TextConfig(
    family="llama", vocab_size=64, hidden_size=256, intermediate_size=768, num_layers=1, num_heads=8, num_kv_heads=2,
    head_dim=32, norm_eps=1e-5, max_positions=256, bos_id=1, eos_ids=(2,),
)  # fmt: skip
PAGE, PAGES = 16, 6

pytestmark = pytest.mark.skipif(library.kernels().decode is None, reason="the kernels are not compiled here")


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    def named(name: str) -> None:
        monkeypatch.setenv(library.VARIABLE, name)
        library.kernels.cache_clear()

    yield named
    monkeypatch.undo()
    library.kernels.cache_clear()


def quantized(config: TextConfig, types: tuple[str, ...], *, together: bool = True) -> Decoder:
    """A decoder of random weights, its matrices in these types by turns; `together` fuses what may be fused."""
    torch.manual_seed(3)
    decoder = Decoder(config).eval()
    for name, parameter in decoder.named_parameters():
        nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.05)
    number = 0
    for block in decoder.blocks:
        for owner in (block.attention, block.mlp):
            for name, layer in list(owner.named_children()):
                if isinstance(layer, nn.Linear):
                    type, shape = types[number % len(types)], tuple(layer.weight.shape)
                    raw = ggml.quantize(layer.weight.detach().numpy(), type)
                    setattr(owner, name, QuantizedLinear(QuantizedWeight.from_ggml(raw, type, shape), layer.bias))
                    number += 1
            if together:
                fuse(owner)
    return decoder


@dataclasses.dataclass
class Case:
    """Rows somewhere in their sequences, the pages full of what was said before."""

    decoder: Decoder
    cache: PagedCache
    x_BD: Tensor
    positions_B: Tensor
    rows: Rows

    @classmethod
    def of(cls, decoder: Decoder, count: int, dtype: torch.dtype = torch.float32, seed: int = 5) -> Case:
        draw = torch.Generator().manual_seed(seed)
        cache = PagedCache(decoder.config, count * PAGES + 1, PAGE, dtype=dtype)
        for pages in (cache.k_LPSKD, cache.v_LPSKD):
            pages.copy_(torch.randn(pages.shape, generator=draw))
        tables = torch.randperm(count * PAGES, generator=draw).view(count, PAGES).int()
        contexts = torch.randint(1, PAGE * PAGES + 1, (count,), generator=draw).int()
        last = contexts.long() - 1
        places = tables.long().gather(1, last[:, None] // PAGE)[:, 0] * PAGE + last % PAGE
        x_BD = torch.randn(count, decoder.config.hidden_size, generator=draw)
        return cls(decoder, cache, x_BD, last, Rows(cache, places, tables, contexts))

    @torch.inference_mode()
    def step(self, rows: list[int] | None = None) -> Tensor:
        rows = list(range(len(self.x_BD))) if rows is None else rows
        step = QuantizedStep.of(self.decoder, self.cache)
        assert step is not None
        return step(self.x_BD[rows], self.positions_B[rows], self.rows.of(rows))

    @torch.inference_mode()
    def layers(self) -> Tensor:
        return self.decoder(self.x_BD[:, None], self.positions_B[:, None], self.rows)[:, 0]


CASES = {
    "one type": (CONFIG, ("Q4_K",), True),
    "llama.cpp's mixture": (CONFIG, ("Q4_K", "Q4_K", "Q6_K"), True),
    "nothing together": (CONFIG, ("Q8_0",), False),
    "old types": (CONFIG, ("Q4_0", "Q4_1"), True),
    "biases": (dataclasses.replace(CONFIG, attention_bias=True, output_bias=True, mlp_bias=True), ("Q8_0",), True),
    "a window": (dataclasses.replace(CONFIG, sliding_window=20), ("Q4_0",), True),
    "a part of a head turns": (dataclasses.replace(CONFIG, rope=RopeConfig(partial=0.5)), ("Q4_0",), True),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_the_step_says_what_the_layers_say(name: str, dtype: torch.dtype) -> None:
    config, types, together = CASES[name]
    case = Case.of(quantized(config, types, together=together), 20, dtype)
    before = case.cache.k_LPSKD.clone(), case.cache.v_LPSKD.clone()
    expected = case.layers()
    kept = case.cache.k_LPSKD.clone(), case.cache.v_LPSKD.clone()
    for pages, old in zip((case.cache.k_LPSKD, case.cache.v_LPSKD), before, strict=True):
        pages.copy_(old)
    got = case.step()
    # A last bit may turn an activation's rounding to int8, which is then seen in that row: seldom, and little.
    off = (got - expected).abs().amax(dim=1) / expected.abs().amax(dim=1)
    assert off.median() < (1e-5 if dtype is torch.float32 else 1e-2)
    assert torch.nn.functional.cosine_similarity(got, expected).min() > 0.9995
    for pages, there in zip((case.cache.k_LPSKD, case.cache.v_LPSKD), kept, strict=True):
        assert torch.allclose(pages.float(), there.float(), rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize("name", ["llama.cpp's mixture", "biases"])
def test_a_row_has_the_same_bits_alone_in_company_and_on_one_thread(name: str, choose) -> None:
    config, types, together = CASES[name]
    case = Case.of(quantized(dataclasses.replace(config, num_layers=2), types, together=together), 20)
    together_BD = case.step()
    for row in (0, 7, 19):
        assert torch.equal(case.step([row])[0], together_BD[row])
    assert torch.equal(case.step([19, 3, 4])[1], together_BD[3])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(case.step(), together_BD)
    finally:
        torch.set_num_threads(threads)
    for name in library.LEVELS:
        if library.open_library().lapilli_has(library.LEVELS[name]):
            choose(name)  # the linear layers have the same bits, attention sums by other lanes
            there = case.step()
            assert torch.equal(case.step([4])[0], there[4])
            assert torch.nn.functional.cosine_similarity(there, together_BD).min() > 0.9995


def test_rows_of_one_sequence_see_each_other() -> None:
    """As guesses do: three places that follow one another, said at once or one after another."""
    decoder = quantized(CONFIG, ("Q4_0",))
    case = Case.of(decoder, 3)
    table = case.rows.tables_BP[:1].expand(3, -1).contiguous()
    contexts = torch.tensor([31, 32, 33], dtype=torch.int32)
    last = contexts.long() - 1
    places = table[0].long()[last // PAGE] * PAGE + last % PAGE
    case.positions_B, case.rows = last, Rows(case.cache, places, table, contexts)
    at_once = case.step()
    case.cache.k_LPSKD.flatten(1, 2)[0, places] = 0
    case.cache.v_LPSKD.flatten(1, 2)[0, places] = 0
    assert torch.equal(torch.cat([case.step([row]) for row in range(3)]), at_once)


def test_what_no_kernel_takes_is_left_to_the_layers() -> None:
    floats = Decoder(CONFIG).eval()
    cache = PagedCache(CONFIG, 2, PAGE)
    assert QuantizedStep.of(floats, cache) is None
    for other in (dataclasses.replace(CONFIG, activation="gelu"), dataclasses.replace(CONFIG, head_dim=24)):
        assert QuantizedStep.of(quantized(other, ("Q4_0",)), PagedCache(other, 2, PAGE)) is None
    half = quantized(CONFIG, ("Q4_0",))
    half.blocks[0].mlp.down = nn.Linear(768, 256, bias=False)
    assert QuantizedStep.of(half, cache) is None


def test_a_sum_that_is_not_finite_stays_in_its_row() -> None:
    case = Case.of(quantized(CONFIG, ("Q4_0",)), 3)
    fine = case.step()
    case.x_BD[1, 5] = float(np.inf)
    got = case.step()
    assert not got[1].isfinite().all()
    assert torch.equal(got[[0, 2]], fine[[0, 2]])
