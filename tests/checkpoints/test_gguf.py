"""GGUF: what is written is read again, by us and by the reference, and what is asked for is checked."""

import os
import time

import gguf
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st

from lapilli.checkpoints.ggml import TensorType, quantize
from lapilli.checkpoints.gguf import TensorSource, read_gguf, write_gguf
from lapilli.errors import CheckpointError

METADATA = {
    "general.architecture": "llama",
    "general.name": "naïve 模型 🌋",
    "llama.block_count": 2,
    "llama.rope.freq_base": 10000.0,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.tokens": ["<s>", "", "é", "\u2581a"],
    "tokenizer.ggml.scores": [0.0, -1.5, -2.0, 3.25],
    "tokenizer.ggml.token_type": [3, 1, -1, 6],
    "some.flags": [True, False],
    "some.layers": [1, 2],
    "some.empty": [],
    "some.wide": 1 << 63,
    "some.negative": -5,
    "some.byte": np.uint8(200),
    "some.double": np.float64(0.1),
    "some.shorts": np.array([1, -2], dtype=np.int16),
}
PLAIN = METADATA | {"some.byte": 200, "some.double": 0.1, "some.shorts": [1, -2]}


def drawn_tensors():
    rng = np.random.default_rng(0)
    return [
        TensorSource.of(f"blk.{type}.weight", rng.standard_normal((3, 512)).astype(np.float32), type)
        for type in TensorType
    ] + [TensorSource.of("norm.weight", rng.standard_normal(5), "F32")]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, METADATA, drawn_tensors())
    return path


def test_what_was_written_is_read(path):
    with read_gguf(path) as file:
        assert dict(file.metadata) == PLAIN
        assert file.version == 3
        for source in drawn_tensors():
            tensor = file.tensors[source.name]
            assert (tensor.shape, tensor.type) == (source.shape, source.type)
            np.testing.assert_array_equal(tensor.data, quantize(source.values(), source.type))
            found = tensor.dequantize()
            assert found.shape == source.shape
            np.testing.assert_allclose(found, source.values(), atol=0.5)


def test_the_reference_reads_what_we_write(path):
    reference = gguf.GGUFReader(path)
    found = {key: field.contents() for key, field in reference.fields.items() if not key.startswith("GGUF.")}
    assert found.pop("some.empty") in ([], None)
    assert found == {key: value for key, value in PLAIN.items() if key != "some.empty"}
    kinds = {key: [kind.name for kind in field.types] for key, field in reference.fields.items()}
    assert kinds["llama.block_count"] == ["UINT32"]  # llama.cpp takes no other type for it
    assert kinds["llama.rope.freq_base"] == ["FLOAT32"]
    assert kinds["tokenizer.ggml.token_type"] == ["ARRAY", "INT32"]
    assert kinds["some.layers"] == ["ARRAY", "INT32"]
    assert kinds["some.byte"] == ["UINT8"]
    assert [tensor.name for tensor in reference.tensors] == [source.name for source in drawn_tensors()]
    for tensor, source in zip(reference.tensors, drawn_tensors(), strict=True):
        assert tensor.tensor_type == GGMLQuantizationType[source.type]
        assert tuple(int(n) for n in tensor.shape[::-1]) == source.shape
        assert tensor.data_offset % 32 == 0
        raw = np.ascontiguousarray(tensor.data).view(np.uint8).reshape(-1)
        np.testing.assert_array_equal(raw, quantize(source.values(), source.type))


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_we_read_what_the_reference_writes(tmp_path, alignment):
    path = tmp_path / "theirs.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(alignment)
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc"])
    writer.add_uint64("some.wide", 1 << 40)
    writer.add_int8("some.small", -3)
    weights = np.random.default_rng(1).standard_normal((4, 2, 64)).astype(np.float32)
    writer.add_tensor("a", weights)
    raw = gguf.quants.quantize(weights, GGMLQuantizationType.Q5_1)
    writer.add_tensor("b", raw, raw_dtype=GGMLQuantizationType.Q5_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with read_gguf(path) as file:
        assert file.text("general.architecture") == "llama"
        assert file.texts("tokenizer.ggml.tokens") == ["a", "bc"]
        assert (file.integer("some.wide"), file.integer("some.small")) == (1 << 40, -3)
        np.testing.assert_array_equal(file.tensors["a"].dequantize(), weights)
        expected = gguf.quants.dequantize(raw, GGMLQuantizationType.Q5_1)
        np.testing.assert_array_equal(file.tensors["b"].dequantize(), expected)


def test_version_2_is_read(path):
    raw = bytearray(path.read_bytes())
    raw[4] = 2
    path.write_bytes(raw)
    assert read_gguf(path).version == 2


numbers = st.integers(-(1 << 63), (1 << 63) - 1)
values = st.one_of(
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(width=32, allow_nan=False),
    st.text(),
    st.lists(st.text()),
    st.lists(st.booleans()),
    st.lists(numbers),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1),
)


@settings(max_examples=50, deadline=None)
@given(
    metadata=st.dictionaries(st.text(min_size=1, max_size=20).filter(lambda key: key[0] not in "gs"), values),
    shapes=st.lists(st.lists(st.integers(1, 4), max_size=3), max_size=4),
    data=st.data(),
)
def test_anything_written_is_read(tmp_path_factory, metadata, shapes, data):
    path = tmp_path_factory.getbasetemp() / "any.gguf"
    tensors = []
    for index, shape in enumerate(shapes):
        type = data.draw(st.sampled_from(list(TensorType) if shape else ["F32", "F16"]))
        shape = [*shape[:-1], shape[-1] * TensorType(type).block_weights] if shape else []
        weights = np.random.default_rng(index).standard_normal(shape)
        tensors.append(TensorSource.of(f"tensor {index}", np.asarray(weights), type))
    write_gguf(path, metadata, tensors)
    with read_gguf(path) as file:
        assert file.metadata == metadata
        assert list(file.tensors) == [source.name for source in tensors]
        for source in tensors:
            assert file.tensors[source.name].shape == source.shape
            np.testing.assert_array_equal(file.tensors[source.name].data, quantize(source.values(), source.type))


def test_tensors_are_asked_for_in_turn_and_copied_as_they_are(path, tmp_path):
    asked = []

    def values(name):
        asked.append(name)
        return np.ones((2, 32), dtype=np.float16)

    lazy = [TensorSource(name, (2, 32), "Q8_0", lambda name=name: values(name)) for name in ("a", "b")]
    with read_gguf(path) as file:
        write_gguf(tmp_path / "copy.gguf", file.metadata, [*lazy, *file.tensors.values()])
        assert asked == ["a", "b"]
        with read_gguf(tmp_path / "copy.gguf") as copy:
            for name, tensor in file.tensors.items():
                assert copy.tensors[name].type == tensor.type
                np.testing.assert_array_equal(copy.tensors[name].data, tensor.data)


def test_a_failed_write_leaves_nothing(path, tmp_path):
    before = path.read_bytes()

    def fails():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_gguf(path, {}, [TensorSource.of("a", np.ones(4), "F32"), TensorSource("b", (4,), "F32", fails)])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("metadata", "tensors", "message"),
    [
        ({"a": object()}, [], "key 'a' cannot be written: GGUF has no type for object"),
        ({"a": [1, "b"]}, [], "key 'a' cannot be written: an array holds"),
        ({"a": [[1]]}, [], "key 'a' cannot be written: an array holds"),
        ({"a": 1 << 64}, [], "key 'a' cannot be written: no integer of 64 bits"),
        ({"a": 1e300}, [], "key 'a' cannot be written"),
        ({"a": "\ud800"}, [], "key 'a' cannot be written"),
        ({"": 1}, [], "a key has 1 to"),
        ({"a": np.float16(1)}, [], "no type for float16"),
        ({"general.alignment": 24}, [], "general.alignment is 24"),
        ({}, [("a", np.ones(4), "F32")] * 2, "tensor 'a' is there twice"),
        ({}, [("a" * 64, np.ones(4), "F32")], "names under 64 bytes"),
        ({}, [("a", np.ones((1, 1, 1, 1, 4)), "F32")], "has shape"),
        ({}, [("a", np.ones(33), "Q8_0")], "tensor a: rows of 33 weights are no multiple of Q8_0's block of 32"),
        ({}, [("a", np.full(32, np.nan), "Q8_0")], "tensor a: holds NaN"),
        ({}, [("a", np.ones(32, dtype=np.uint8), "Q8_0")], "tensor a: gives 32 bytes, must give 34"),
    ],
)
def test_what_gguf_cannot_hold_is_refused_by_name(tmp_path, metadata, tensors, message):
    with pytest.raises(CheckpointError, match=message):
        write_gguf(tmp_path / "x.gguf", metadata, [TensorSource.of(*tensor) for tensor in tensors])
    assert os.listdir(tmp_path) == []


def test_a_source_must_give_the_shape_it_promised(tmp_path):
    with pytest.raises(CheckpointError, match=r"tensor a: gives shape \(2, 2\), must give \(4,\)"):
        write_gguf(tmp_path / "x.gguf", {}, [TensorSource("a", (4,), "F32", lambda: np.ones((2, 2)))])


def test_arrays_outlive_the_file_and_never_change_it(path):
    before = path.read_bytes()
    with read_gguf(path) as file:
        weights = file.tensors["blk.F32.weight"].dequantize()
        expected = weights.copy()
    np.testing.assert_array_equal(weights, expected)
    weights[:] = 0
    assert path.read_bytes() == before
    assert not file.tensors


def test_getters_name_what_is_missing_and_what_is_wrong(path):
    with read_gguf(path) as file:
        assert file.text("general.architecture") == "llama"
        assert file.text("general.author", "nobody") == "nobody"
        assert file.integer("llama.block_count", minimum=1) == 2
        assert file.number("llama.block_count") == 2.0
        assert file.flag("tokenizer.ggml.add_bos_token") is True
        assert file.flag("no.flag", False) is False
        assert file.numbers("tokenizer.ggml.scores", 4) == [0.0, -1.5, -2.0, 3.25]
        assert file.integers("tokenizer.ggml.token_type") == [3, 1, -1, 6]
        assert file.tensor("norm.weight", (5,)).type == "F32"
        for ask, message in [
            (lambda: file.integer("llama.head_count"), "tiny.gguf: key llama.head_count is missing"),
            (lambda: file.integer("llama.rope.freq_base"), "llama.rope.freq_base is 10000.0, must be an integer"),
            (lambda: file.integer("tokenizer.ggml.add_bos_token"), "is True, must be an integer"),
            (lambda: file.integer("some.negative", minimum=1), "some.negative is -5, must be at least 1"),
            (lambda: file.integer("some.byte", maximum=9), "some.byte is 200, must be at most 9"),
            (lambda: file.text("llama.block_count"), "llama.block_count is 2, must be a string"),
            (lambda: file.flag("llama.block_count"), "must be a boolean"),
            (lambda: file.number("general.name"), "must be a finite number"),
            (lambda: file.texts("tokenizer.ggml.scores"), "is an array of 4 values, must be an array of strings"),
            (lambda: file.integers("some.flags"), "must be an array of integers"),
            (lambda: file.numbers("tokenizer.ggml.scores", 3), "has 4 values, must have 3"),
            (lambda: file.tensor("output.weight"), "tensor output.weight is missing"),
            (lambda: file.tensor("norm.weight", (6,)), r"norm.weight has shape \(5,\), must have \(6,\)"),
        ]:
            with pytest.raises(CheckpointError, match=message):
                ask()


def test_a_vocabulary_of_150_000_reads_fast(tmp_path):
    path = tmp_path / "large.gguf"
    words = [f"▁word{index}" for index in range(150_000)]
    write_gguf(path, {"tokens": words, "merges": words, "scores": [0.5] * 150_000, "types": [1] * 150_000}, [])
    start = time.thread_time()
    with read_gguf(path) as file:
        taken = time.thread_time() - start
        assert file.metadata["tokens"] == words
    print(f"two arrays of 150,000 strings and two of numbers: {taken:.3f} s")
    assert taken < 2  # 0.1 s on the machine it was written on


def test_real_vocabularies_read_as_the_reference_reads_them(shared_data):
    sizes = {}
    for path in (shared_data / "tokenizers").glob("*.gguf"):
        with read_gguf(path) as file:
            sizes[path.stem.removeprefix("ggml-vocab-")] = len(file.texts("tokenizer.ggml.tokens"))
            assert len(file.integers("tokenizer.ggml.token_type")) == len(file.texts("tokenizer.ggml.tokens"))
    assert sizes == {"falcon": 65024, "gpt-2": 50257, "llama-spm": 32000, "phi-3": 32064}
    small = shared_data / "tokenizers" / "ggml-vocab-llama-spm.gguf"
    fields = gguf.GGUFReader(small).fields
    expected = {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}
    assert read_gguf(small).metadata == expected
