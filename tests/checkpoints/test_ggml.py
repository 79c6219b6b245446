"""Tensor types: bit for bit what ggml's reference makes of them; our K types lose no more than llama.cpp's."""

import ctypes
import sysconfig
import tracemalloc

import gguf.quants
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st

from lapilli.checkpoints.ggml import TensorType, dequantize, quantize
from lapilli.errors import CheckpointError

QUANTIZED = [type for type in TensorType if type not in ("F32", "F16", "BF16")]
K_TYPES = [type for type in TensorType if type.endswith("_K")]
# Root mean square error over the weights' spread, for a normal distribution: what each type's bits can do.
ERROR = {"Q8_0": 0.006, "Q4_0": 0.09, "Q4_1": 0.082, "Q5_0": 0.045, "Q5_1": 0.04, "Q4_K": 0.073, "Q5_K": 0.037,
         "Q6_K": 0.0185}  # fmt: skip


def drawn_weights(rng):
    """Rows as models have them, and rows that tempt an implementation: constant, zero, one-sided, tiny, one outlier."""
    rows = rng.standard_normal((64, 512)).astype(np.float32) * 0.02
    rows[1] = 0
    rows[2] = 0.5
    rows[3] = -0.5
    rows[4] = np.abs(rows[4])
    rows[5] = -np.abs(rows[5])
    rows[6, 7] = 100
    rows[7] *= 1e-9
    rows[8] *= 1e4
    rows[9] = np.round(rows[9] * 100) / 2  # halves: which way they round
    rows[10] = np.linspace(-1, 1, 512, dtype=np.float32)
    rows[11] = -0.0
    rows[12] = (np.arange(512, dtype=np.uint32) << 16 | 0x3F808000).view(np.float32)  # halfway between two of BF16
    return rows


@pytest.mark.parametrize("type", TensorType)
def test_the_table_of_types_is_ggmls(type):
    reference = GGMLQuantizationType[type]
    assert type.code == reference
    assert (type.block_weights, type.block_bytes) == GGML_QUANT_SIZES[reference]


@pytest.mark.parametrize("type", [type for type in TensorType if type not in K_TYPES])
def test_quantized_bits_equal_the_reference(type):
    weights = drawn_weights(np.random.default_rng(0))
    expected = gguf.quants.quantize(weights, GGMLQuantizationType[type]).view(np.uint8).reshape(-1)
    np.testing.assert_array_equal(quantize(weights, type), expected)


@pytest.mark.parametrize("type", TensorType)
def test_dequantized_bits_equal_the_reference_for_any_bytes(type):
    rng = np.random.default_rng(1)
    raw = rng.integers(0, 256, type.nbytes((300, 512)), dtype=np.uint8)
    raw = np.concatenate([raw, quantize(drawn_weights(rng), type)])
    shape = (364, 512)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(raw.reshape(364, -1), GGMLQuantizationType[type])
    found = dequantize(raw, type, shape)
    assert found.dtype == np.float32
    assert found.shape == shape
    finite = np.isfinite(expected)
    assert finite.mean() > 0.9
    np.testing.assert_array_equal(found.view(np.uint32)[finite], expected.view(np.uint32)[finite])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))


@pytest.mark.parametrize("type", QUANTIZED)
def test_a_round_trip_loses_no_more_than_the_bits_must(type):
    weights = np.random.default_rng(2).standard_normal((64, 1024)).astype(np.float32)
    for scale, middle in ((0.02, 0), (1, 2), (3000, 0)):
        given = (weights + np.float32(middle)) * np.float32(scale)
        found = dequantize(quantize(given, type), type, given.shape)
        error = np.sqrt(np.mean((found - given) ** 2)) / given.std()
        assert error < ERROR[type] * (1 if middle == 0 else 1.8)


@pytest.mark.parametrize("type", K_TYPES)
def test_k_types_keep_the_odd_rows(type):
    weights = drawn_weights(np.random.default_rng(3))
    found = dequantize(quantize(weights, type), type, weights.shape)
    assert np.isfinite(found).all()
    largest = np.abs(weights.reshape(-1, 256)).max(axis=-1, keepdims=True)
    allowed = largest / {"Q4_K": 11, "Q5_K": 18, "Q6_K": 26}[type] + 6e-8  # the smallest half-precision scale
    assert (np.abs((found - weights).reshape(-1, 256)) <= allowed).all()
    assert (found[[1, 11]] == 0).all()


@pytest.mark.reference
@pytest.mark.parametrize("type", K_TYPES)
@pytest.mark.parametrize("kind", ["normal", "heavy", "flat"])
def test_k_types_lose_no_more_than_llama_cpp(type, kind):
    rng = np.random.default_rng(4)
    shape = (256, 4096)
    weights = {"normal": rng.standard_normal, "heavy": lambda s: rng.standard_t(3, s), "flat": rng.random}[kind](shape)
    weights = (weights * 0.02).astype(np.float32)
    theirs = np.empty(type.nbytes(shape), dtype=np.uint8)
    library = ctypes.CDLL(f"{sysconfig.get_paths()['purelib']}/llama_cpp/lib/libggml-base.so")
    integer = ctypes.c_int64
    library.ggml_quantize_chunk(
        ctypes.c_int(type.code), ctypes.c_void_p(weights.ctypes.data), ctypes.c_void_p(theirs.ctypes.data),
        integer(0), integer(shape[0]), integer(shape[1]), None,
    )  # fmt: skip

    def error(raw):
        return float(np.sqrt(np.mean((dequantize(raw, type, shape) - weights) ** 2)))

    ours = error(quantize(weights, type))
    print(f"{type} on {kind} weights: error {ours:.3e}, llama.cpp {error(theirs):.3e}")
    assert ours < error(theirs) * 1.02


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_finite_weights_survive(data):
    type = data.draw(st.sampled_from(list(TensorType)))
    width = type.block_weights * data.draw(st.integers(1, 3))
    values = st.floats(-60000, 60000, width=32)
    weights = np.array(data.draw(st.lists(values, min_size=width, max_size=width)), dtype=np.float32)[None]
    found = dequantize(quantize(weights, type), type, weights.shape)
    span = max(float(weights.max()), 0) - min(float(weights.min()), 0)
    steps = {"F32": np.inf, "F16": 2000, "BF16": 250, "Q8_0": 200, "Q5_0": 14, "Q5_1": 25, "Q5_K": 12, "Q6_K": 18}
    assert np.abs(found - weights).max() <= span / steps.get(type, 6) + 1e-7


def test_any_float_type_and_any_layout_is_taken():
    weights = np.random.default_rng(5).standard_normal((64, 96))
    expected = quantize(weights.astype(np.float32), "Q8_0")
    np.testing.assert_array_equal(quantize(weights, "q8_0"), expected)
    np.testing.assert_array_equal(quantize(np.asfortranarray(weights), "Q8_0"), expected)


def test_weights_the_type_cannot_hold_are_refused():
    with pytest.raises(CheckpointError, match=r"70000, too large for F16"):
        quantize(np.array([[1.0, 70000.0]]), "F16")
    with pytest.raises(CheckpointError, match="too large for Q4_0"):
        quantize(np.full((1, 32), 1e30, dtype=np.float32), "Q4_0")
    for bad in (np.nan, np.inf):
        with pytest.raises(CheckpointError, match="NaN or infinity"):
            quantize(np.full((1, 256), bad, dtype=np.float32), "Q4_K")
        np.testing.assert_array_equal(dequantize(quantize(np.array([bad]), "BF16"), "BF16", (1,)), np.float32([bad]))
    with pytest.raises(CheckpointError, match="rows of 48 weights are no multiple of Q8_0's block of 32"):
        quantize(np.zeros((2, 48)), "Q8_0")
    with pytest.raises(CheckpointError, match="is 68 bytes, not 67"):
        dequantize(bytes(67), "Q8_0", (2, 32))
    with pytest.raises(CheckpointError, match="no tensor type 'Q9'"):
        quantize(np.zeros(32), "Q9")


@pytest.mark.parametrize("type", ["Q8_0", "Q4_K", "BF16"])
def test_only_the_result_takes_memory(type):
    weights = np.ones((1024, 4096), dtype=np.float32)
    raw = quantize(weights, type)
    tracemalloc.start()
    try:
        quantize(weights, type)
        quantizing = tracemalloc.get_traced_memory()[1] - raw.nbytes
        tracemalloc.reset_peak()
        dequantize(raw, type, weights.shape)
        dequantizing = tracemalloc.get_traced_memory()[1] - weights.nbytes
    finally:
        tracemalloc.stop()
    assert max(quantizing, dequantizing) < 8 << 20
