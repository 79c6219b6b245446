"""Quantized weights: ggml's values, the reference's sums, and the same bits whatever is beside a row."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapilli.checkpoints import ggml
from lapilli.errors import InputError
from lapilli.kernels import library
from lapilli.kernels.quantized import SUPPORTED, QuantizedWeight, implementation, linear, linear_reference, supports

TYPES = sorted(SUPPORTED)
COMPILED = [
    name
    for name in ("avx512", "avx2")
    if library.open_library() and library.open_library().lapilli_has(library.LEVELS[name])
]
compiled = pytest.mark.skipif(not COMPILED, reason="no compiled kernels here")


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    def named(name: str) -> None:
        monkeypatch.setenv(library.VARIABLE, name)
        library.kernels.cache_clear()

    yield named
    monkeypatch.undo()
    library.kernels.cache_clear()


def random_weight(type: str, N: int, K: int, seed: int = 0) -> tuple[np.ndarray, QuantizedWeight]:
    weights = np.random.default_rng(seed).standard_normal((N, K), dtype=np.float32)
    raw = ggml.quantize(weights, type)
    return raw, QuantizedWeight.from_ggml(raw, type, (N, K))


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("shape", [(16, 256), (40, 512), (1, 768), (1100, 1024)])
def test_values_are_those_of_ggml(type: str, shape: tuple[int, int]) -> None:
    raw, weight = random_weight(type, *shape)
    assert np.array_equal(weight.dequantize().numpy(), ggml.dequantize(raw, type, shape))
    padded = -(-shape[0] // 16) * 16
    assert weight.nbytes == ggml.TensorType(type).nbytes((padded, shape[1]))
    again = QuantizedWeight.from_ggml(torch.from_numpy(raw), type, shape)
    assert torch.equal(again.data, weight.data)
    assert weight.data.data_ptr() % 64 == 0


@pytest.mark.parametrize("type", TYPES)
def test_any_bytes_are_those_of_ggml(type: str) -> None:
    raw = np.random.default_rng(1).integers(0, 256, ggml.TensorType(type).nbytes((32, 512)), dtype=np.uint8)
    weight = QuantizedWeight.from_ggml(raw, type, (32, 512))
    expected = ggml.dequantize(raw, type, (32, 512))
    assert np.array_equal(weight.dequantize().numpy(), expected, equal_nan=True)


@pytest.mark.parametrize("name", [*COMPILED, "torch"])
@given(
    st.sampled_from(TYPES),
    st.integers(1, 70),
    st.integers(1, 3),
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None)
def test_sums_are_those_of_the_reference(
    name: str, type: str, N: int, blocks: int, M: int, biased: bool, dtype: torch.dtype, seed: int
) -> None:
    K = blocks * 256
    _, weight = random_weight(type, N, K, seed)
    draw = torch.Generator().manual_seed(seed)
    x = (torch.randn(M, K, generator=draw) * torch.rand(M, 1, generator=draw) * 10).to(dtype)
    bias = torch.randn(N, generator=draw) if biased else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(library.VARIABLE, name)
        library.kernels.cache_clear()
        got = linear(x, weight, bias)
    library.kernels.cache_clear()
    assert got.dtype == dtype
    assert got.shape == (M, N)
    torch.testing.assert_close(
        got, linear_reference(x, weight, bias), rtol=1e-5 if dtype == torch.float32 else 8e-3, atol=1e-3
    )


@pytest.mark.parametrize("type", TYPES)
def test_the_reference_is_near_the_true_product(type: str) -> None:
    _, weight = random_weight(type, 64, 512)
    x = torch.randn(8, 512, generator=torch.Generator().manual_seed(0))
    true = x @ weight.dequantize().T
    assert torch.nn.functional.cosine_similarity(linear_reference(x, weight), true).min() > 0.9995


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("name", [*COMPILED, "torch"])
def test_a_row_has_the_same_bits_alone_and_in_company(type: str, name: str, choose) -> None:
    choose(name)
    _, weight = random_weight(type, 200, 512)
    x = torch.randn(90, 512, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = torch.cat([linear(row, weight) for row in x.split(1)])
        for count in (1, 2, 3) if name != "torch" else (2,):
            torch.set_num_threads(count)
            for M in [*range(1, 42), 90] if name != "torch" else [2, 7, 33, 90]:
                first = (M * 7) % (91 - M)
                assert torch.equal(linear(x[first : first + M], weight), alone[first : first + M]), (M, count)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.skipif(len(COMPILED) < 2, reason="one instruction set here")
@pytest.mark.parametrize("type", TYPES)
def test_both_instruction_sets_have_the_same_bits(type: str, choose) -> None:
    raw = np.random.default_rng(2).integers(0, 256, ggml.TensorType(type).nbytes((64, 768)), dtype=np.uint8)
    _, drawn = random_weight(type, 64, 768)
    for weight in (drawn, QuantizedWeight.from_ggml(raw, type, (64, 768))):
        x = torch.randn(50, 768, generator=torch.Generator().manual_seed(0))
        x[7:] = x[7:].sign() * 127  # all levels at their ends: what 16-bit sums must hold
        found = []
        for name in COMPILED:
            choose(name)
            found.append(torch.cat([linear(x[:3], weight), linear(x, weight)]))
        assert torch.equal(*(one.nan_to_num() for one in found))


def test_a_row_that_is_not_finite_stays_alone() -> None:
    for type in TYPES:
        _, weight = random_weight(type, 48, 512)
        x = torch.randn(20, 512, generator=torch.Generator().manual_seed(0))
        clean = linear(x, weight)
        x[3, 5], x[11, 300], x[17] = float("nan"), float("inf"), -float("inf")
        got = linear(x, weight)
        for row in range(20):
            if row in (3, 11, 17):
                assert got[row].isnan().all()
            else:
                assert torch.equal(got[row], clean[row])


def test_tiny_and_zero_activations() -> None:
    for type in TYPES:
        _, weight = random_weight(type, 16, 256)
        x = torch.stack(
            [torch.zeros(256), torch.full((256,), 1e-40), torch.full((256,), 1e-30), torch.full((256,), 1e34)]
        )
        torch.testing.assert_close(linear(x, weight), linear_reference(x, weight))
        assert not linear(x, weight)[:2].any()


def test_shapes_in_front_are_kept() -> None:
    _, weight = random_weight("Q4_K", 24, 256)
    x = torch.randn(2, 3, 256)
    assert torch.equal(linear(x, weight), linear(x.flatten(0, 1), weight).view(2, 3, 24))
    assert torch.equal(linear(x.transpose(0, 1), weight), linear(x, weight).transpose(0, 1))
    assert linear(x[0, 0], weight).shape == (24,)
    assert linear(x[:0], weight).shape == (0, 3, 24)
    assert linear_reference(x[:0], weight).shape == (0, 3, 24)


def test_stacked_rows_are_those_of_the_parts() -> None:
    parts = [random_weight("Q4_K", N, 512, N)[1] for N in (32, 16, 48)]
    whole = QuantizedWeight.stacked(parts)
    assert whole is not None
    x = torch.randn(3, 512)
    assert whole.shape == (96, 512)
    assert torch.equal(linear(x, whole), torch.cat([linear(x, part) for part in parts], dim=1))
    assert QuantizedWeight.stacked([parts[0], random_weight("Q6_K", 32, 512)[1]]) is None
    assert QuantizedWeight.stacked([random_weight("Q4_K", 20, 512)[1], parts[0]]) is None
    assert QuantizedWeight.stacked([random_weight("Q4_K", 16, 256)[1], parts[0]]) is None


def test_threads_of_python_may_call_at_once() -> None:
    _, weight = random_weight("Q4_K", 512, 512)
    x = torch.randn(40, 512)
    expected = linear(x, weight)
    wrong: list[int] = []

    def work() -> None:
        wrong.extend(i for i in range(30) if not torch.equal(linear(x, weight), expected))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_what_does_not_fit_is_refused() -> None:
    assert supports("Q4_K", (3, 256))
    assert not supports("Q4_K", (3, 128))
    assert not supports("F16", (3, 256))
    assert not supports("Q8_0", (3, 4, 32))
    raw, weight = random_weight("Q8_0", 16, 64)
    with pytest.raises(InputError, match="Q5_K"):
        QuantizedWeight.from_ggml(raw, "Q5_K", (16, 64))
    with pytest.raises(InputError, match="1088 bytes, not 1087"):
        QuantizedWeight.from_ggml(raw[:-1], "Q8_0", (16, 64))
    with pytest.raises(InputError, match="64 columns"):
        linear(torch.zeros(2, 32), weight)
    with pytest.raises(InputError, match="float16"):
        linear(torch.zeros(2, 64, dtype=torch.float16), weight)
    with pytest.raises(InputError, match="16 rows"):
        linear(torch.zeros(2, 64), weight, torch.zeros(15))
    with pytest.raises(InputError, match="gradient"):
        linear(torch.zeros(2, 64, requires_grad=True), weight)


def test_the_implementation_can_be_named(choose) -> None:
    for name in [*COMPILED, "torch"]:
        choose(name)
        assert implementation() == {"avx512": "avx512-vnni"}.get(name, name)
    choose("sse")
    with pytest.raises(InputError, match="'sse'; it may be avx512, avx2, torch"):
        implementation()


def test_a_foreign_library_is_not_used(tmp_path, choose, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "_cpu.so"
    damaged.write_bytes(b"no library")
    assert library.open_library(damaged) is None
    assert library.open_library(tmp_path / "absent.so") is None
    monkeypatch.setattr(library, "open_library", lambda: None)
    choose("avx2")
    with pytest.raises(InputError, match="not compiled; there is torch"):
        implementation()
    choose("")
    assert implementation() == "torch"


@compiled
def test_a_library_of_another_abi_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "ABI", library.ABI + 1)
    assert library.open_library.__wrapped__(library.FILE) is None


@compiled
def test_the_threads_are_those_of_torch() -> None:
    """No second OpenMP library, and no threads beyond those that torch has started."""
    script = """
import os, torch
from lapilli.kernels.quantized import QuantizedWeight, linear, implementation
torch.set_num_threads(2)
a = torch.randn(600, 600); a @ a
assert implementation() != "torch"
before = len(os.listdir("/proc/self/task"))
weight = QuantizedWeight.from_ggml(torch.zeros(512 * 512 // 32 * 34, dtype=torch.uint8), "Q8_0", (512, 512))
a.sum(), linear(torch.randn(600, 512), weight), torch.randn(2000, 2000).exp()
assert len(os.listdir("/proc/self/task")) <= max(before, 2) + 1, os.listdir("/proc/self/task")
found = {line.split()[-1] for line in open("/proc/self/maps") if "omp" in line.rpartition("/")[2]}
assert len(found) == 1, found
if os.fork() == 0:
    torch.set_num_threads(1)
    linear(torch.randn(600, 512), weight)
    os._exit(0)
assert os.wait()[1] == 0
"""
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, library.VARIABLE: ""},
    )
    assert run.returncode == 0, run.stderr
