"""Checkpoint files that lie: each is refused in one line, at once, and for next to no memory."""

import json
import os
import random
import re
import struct
import time
import tracemalloc

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from lapilli.checkpoints.gguf import TensorSource, read_gguf, write_gguf
from lapilli.checkpoints.safetensors import check_header, read_index
from lapilli.errors import CheckpointError

MIB = 1 << 20
U32, F32, BOOL, TEXT, ARRAY = 4, 6, 7, 8, 9


def refuse(read, message, *, seconds=0.1, memory=16 * MIB):
    """Refused in one line that says `message`, in so much of the processor's time (best of three) and memory."""
    taken = []
    for _ in range(3):
        started = time.thread_time()
        found = refusal(read)
        taken.append(time.thread_time() - started)
    assert found is not None
    assert re.search(message, found)
    assert found.isprintable()
    assert len(found) < 400
    assert min(taken) < seconds
    tracemalloc.start()
    try:
        refusal(read)
        assert tracemalloc.get_traced_memory()[1] < memory
    finally:
        tracemalloc.stop()


def refusal(read):
    """What the refusal says, or nothing when there was none; any other error is the test's failure."""
    try:
        read()
    except CheckpointError as error:
        return str(error)
    return None


# GGUF, built by hand.


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def key(name, kind, body):
    return text(name) + struct.pack("<I", kind) + body


def array(kind, count, body=b""):
    return struct.pack("<IQ", kind, count) + body


def tensor(name, dimensions, kind, offset):
    return text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)


def gguf_bytes(keys=(), tensors=(), data=b"", *, key_count=None, tensor_count=None, version=3):
    counts = (
        len(tensors) if tensor_count is None else tensor_count,
        len(keys) if key_count is None else key_count,
    )
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


HUGE = [1 << 63, (1 << 64) - 1, (1 << 32) + 1, 1 << 40]
ALIGNMENT = "general.alignment"
F32_ROW = tensor("w", [4], 0, 0)

HOSTILE_GGUF = {
    **{f"{n} keys": (gguf_bytes(key_count=n), f"claims {n} keys") for n in HUGE},
    **{f"{n} tensors": (gguf_bytes(tensor_count=n), f"claims {n} tensors") for n in HUGE},
    "more keys than bytes": (gguf_bytes(key_count=60000), "60000 keys, at least 780000 bytes, but 8 are left"),
    **{
        f"string of {n}": (gguf_bytes([key("k", TEXT, struct.pack("<Q", n))]), f"key 'k' has {n} bytes")
        for n in [*HUGE, 1 << 31]
    },
    **{
        f"key of {n}": (gguf_bytes([struct.pack("<Q", n) + bytes(5)]), f"name of key 0 has {n} bytes")
        for n in [*HUGE, 1 << 30]
    },
    **{
        f"array of {n} of type {kind}": (gguf_bytes([key("k", ARRAY, array(kind, n))]), f"claims {n} values in key 'k'")
        for n in [*HUGE, 1 << 61, 4_000_000]
        for kind in (U32, BOOL, TEXT, ARRAY)
    },
    "strings that end early": (
        gguf_bytes([key("k", ARRAY, array(TEXT, 2, text("abcdefgh") + bytes(1)))])[:72], "ends in string 1"
    ),
    "string in array of 2^62": (
        gguf_bytes([key("k", ARRAY, array(TEXT, 1, struct.pack("<Q", 1 << 62)))]),
        f"string 0 of key 'k' has {1 << 62} bytes",
    ),
    "arrays 10,000 deep": (gguf_bytes([key("k", ARRAY, array(ARRAY, 1) * 10_000)]), "more than 4 deep"),
    "key of no length": (gguf_bytes([key("", U32, bytes(4))]), "name of key 0 is empty"),
    "key twice": (gguf_bytes([key("k", U32, bytes(4))] * 2), "key 'k' is there twice"),
    "unknown value type": (gguf_bytes([key("k", 13, bytes(8))]), "key 'k' has value type 13"),
    "unknown array type": (gguf_bytes([key("k", ARRAY, array(99, 0))]), "key 'k' has value type 99"),
    "boolean of 2": (gguf_bytes([key("k", BOOL, b"\x02")]), "boolean of 2"),
    "key not UTF-8": (gguf_bytes([key(b"\xff", U32, bytes(4))]), "not UTF-8"),
    "string not UTF-8": (gguf_bytes([key("k", TEXT, text(b"\xc3\x28"))]), "key 'k' is not UTF-8"),
    "array not UTF-8": (gguf_bytes([key("k", ARRAY, array(TEXT, 1, text(b"\xff")))]), "string 0 of key 'k' is not"),
    "key over lines": (gguf_bytes([key("a\n\x1b[2J\u202e", 13, b"")]), "value type 13"),
    **{
        f"alignment {n}": (gguf_bytes([key(ALIGNMENT, U32, struct.pack("<I", n))]), f"alignment is {n}, must be")
        for n in (0, 1, 3, 33, 1 << 31, (1 << 32) - 1)
    },
    "alignment 2^63": (gguf_bytes([key(ALIGNMENT, 10, struct.pack("<Q", 1 << 63))]), f"is {1 << 63}, must be"),
    "alignment in words": (gguf_bytes([key(ALIGNMENT, TEXT, text("32"))]), "must be an integer"),
    "split model": (
        gguf_bytes([key("split.count", 2, b"\3\0"), key("split.no", 2, b"\1\0")]), "is part 2 of 3 of a split model"
    ),
    "2^31 dimensions": (
        gguf_bytes(tensors=[text("w") + struct.pack("<I", 1 << 31) + bytes(64)]), f"has {1 << 31} dimensions, at most 4"
    ),
    "5 dimensions": (gguf_bytes(tensors=[tensor("w", [1] * 5, 0, 0)], data=bytes(64)), "5 dimensions, at most 4"),
    "dimension 0": (gguf_bytes(tensors=[tensor("w", [4, 0], 0, 0)], data=bytes(64)), "dimension of 0"),
    "product past 2^64": (
        gguf_bytes(tensors=[tensor("w", [1 << 32, 1 << 31, 2, 8], 0, 0)], data=bytes(64)), f"has {1 << 69} bytes at 0"
    ),
    "product 2^64 + small": (
        gguf_bytes(tensors=[tensor("w", [(1 << 64) // 3 + 2, 3], 0, 0)], data=bytes(64)), "but 64 are left"
    ),
    "dimension 2^64 - 1": (gguf_bytes(tensors=[tensor("w", [(1 << 64) - 1], 0, 0)], data=bytes(64)), "64 are left"),
    "row not of whole blocks": (
        gguf_bytes(tensors=[tensor("w", [33], 8, 0)], data=bytes(64)), "'w': rows of 33 weights are no multiple of Q8_0"
    ),
    "type we do not read": (gguf_bytes(tensors=[tensor("w", [256], 23, 0)], data=bytes(256)), "tensor 'w' is IQ4_XS"),
    "unknown type": (gguf_bytes(tensors=[tensor("w", [4], 1 << 31, 0)], data=bytes(64)), f"unknown type {1 << 31}"),
    "tensor twice": (gguf_bytes(tensors=[F32_ROW] * 2, data=bytes(64)), "tensor 'w' is there twice"),
    "offset past the end": (gguf_bytes(tensors=[tensor("w", [4], 0, 64)], data=bytes(64)), "16 bytes at 64, but 64"),
    "one byte short": (gguf_bytes(tensors=[F32_ROW], data=bytes(15)), "16 bytes at 0, but 15 are left"),
    "no data at all": (gguf_bytes(tensors=[F32_ROW])[:-32], "claims 1 tensors, at least 24 bytes"),
    "offset 2^63": (gguf_bytes(tensors=[tensor("w", [4], 0, 1 << 63)], data=bytes(64)), f"16 bytes at {1 << 63}"),
    "offset -32": (gguf_bytes(tensors=[tensor("w", [4], 0, (1 << 64) - 32)], data=bytes(64)), "but 64 are left"),
    "not aligned": (gguf_bytes(tensors=[tensor("w", [4], 0, 63)], data=bytes(128)), "63, which is no multiple"),
    "overlapping": (
        gguf_bytes(tensors=[tensor("a", [16], 0, 0), tensor("b", [4], 0, 32)], data=bytes(64)),
        "tensor 'b' begins at 32, inside tensor 'a', which ends at 64",
    ),
    "the same place": (gguf_bytes(tensors=[F32_ROW, tensor("b", [4], 0, 0)], data=bytes(64)), "inside tensor"),
    "version 1": (gguf_bytes(version=1), "is GGUF version 1; versions 2 and 3 are read"),
    "version 4": (gguf_bytes(version=4), "is GGUF version 4"),
    "version 2^31": (gguf_bytes(version=(1 << 31) + 7), "version|big-endian"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "big-endian magic": (b"FUGG" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "old": (b"tjgg" + bytes(64), "is an old GGJT file"),
    "empty": (b"", "is no GGUF file"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(64), "is no GGUF file"),
    "a pickle": (b"\x80\x04\x95" + bytes(64), "is no GGUF file"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_GGUF)
def test_a_hostile_gguf_is_refused_cheaply(tmp_path, case):
    raw, message = HOSTILE_GGUF[case]
    path = tmp_path / "hostile.gguf"
    path.write_bytes(raw)
    refuse(lambda: read_gguf(path), message)


def test_200_bytes_that_claim_2_to_40_elements(tmp_path):
    path = tmp_path / "hostile.gguf"
    path.write_bytes(gguf_bytes([key("k", ARRAY, array(F32, 1 << 40))], data=bytes(140)))
    refuse(lambda: read_gguf(path), f"claims {1 << 40} values", memory=MIB)


def test_many_small_arrays_share_one_allowance(tmp_path, monkeypatch):
    path = tmp_path / "hostile.gguf"
    path.write_bytes(gguf_bytes([key(f"k{n}", ARRAY, array(0, 1 << 20, bytes(1 << 20))) for n in range(5)]))
    refuse(lambda: read_gguf(path), "claims 1048576 values in key 'k4'|at most", seconds=2, memory=80 * MIB)


@pytest.fixture(scope="module")
def valid_gguf(tmp_path_factory):
    path = tmp_path_factory.mktemp("valid") / "valid.gguf"
    rng = np.random.default_rng(0)
    metadata = {
        "general.architecture": "llama", "general.alignment": 32, "a.number": 1.5, "a.flag": True,
        "tokens": ["a", "bc", ""], "scores": [1.0, 2.0], "types": [1, 2, 3],
    }  # fmt: skip
    tensors = [
        TensorSource.of(name, rng.standard_normal(shape), type)
        for name, shape, type in [
            ("a", (2, 32), "Q8_0"),
            ("b", (3, 5), "F16"),
            ("c", (256,), "Q4_K"),
            ("d", (7,), "F32"),
        ]
    ]
    write_gguf(path, metadata, tensors)
    return path.read_bytes()


def test_a_gguf_cut_anywhere_is_refused(valid_gguf, tmp_path):
    path = tmp_path / "cut.gguf"
    data_start = len(valid_gguf) - 96 - 32 - 160 - 32  # a, b, c, d, each padded to 32
    last_weight = len(valid_gguf) - 4
    random.seed(0)
    cuts = [*range(data_start), *random.sample(range(data_start, last_weight), 200)]
    for cut in cuts:
        path.write_bytes(valid_gguf[:cut])
        with pytest.raises(CheckpointError) as caught:
            read_gguf(path)
        assert str(caught.value).isprintable()
    path.write_bytes(valid_gguf[:last_weight])
    assert read_gguf(path).tensors["d"].dequantize().shape == (7,)  # only padding is gone


def read_all(path):
    with read_gguf(path) as file:
        for tensor in file.tensors.values():
            assert tensor.dequantize().shape == tensor.shape


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_changed_gguf_is_read_or_refused(valid_gguf, tmp_path_factory, data):
    raw = bytearray(valid_gguf)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        patch = data.draw(
            st.sampled_from([b"\xff" * 8, bytes(8), b"\x80", b"\x01\x00\x00\x00"]) | st.binary(max_size=9)
        )
        if data.draw(st.booleans()):
            raw[at : at + len(patch)] = patch
        else:
            raw[at:at] = patch
    path = tmp_path_factory.getbasetemp() / "changed.gguf"
    path.write_bytes(raw)
    error = refusal(lambda: read_all(path))
    assert error is None or error.isprintable()


@pytest.mark.parametrize("read", [read_gguf, check_header])
def test_only_regular_files_are_opened(tmp_path, read):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, message in [
        (tmp_path / "fifo", "not a regular file"),
        (tmp_path / "loop", "symbolic links"),
        (tmp_path, "is a folder"),
        (tmp_path / "none.gguf", "none.gguf: cannot be read: no such file"),
        ("/dev/zero", "not a regular file"),
        ("/dev/random", "not a regular file"),
        ("/proc/self/mem", "cannot be read|is no"),
        ("a\0b", "cannot be opened"),
    ]:
        refuse(lambda path=path: read(path), message, memory=MIB)


# Safetensors.


def safetensors_bytes(header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(shape=(4,), start=0, end=16, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def one(text):
    """A header whose only entry is this text."""
    return safetensors_bytes(b'{"w":' + text.encode() + b"}", bytes(16))


GOOD = '{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'
HOSTILE_SAFETENSORS = {
    **{
        f"header of {n}": (safetensors_bytes({"w": entry()}, bytes(16), n), f"a header of {n} bytes")
        for n in (0, 1, 1 << 63, (1 << 64) - 1, 1 << 40, 100_000_001)
    },
    "header of 7": (safetensors_bytes({"w": entry()}, bytes(16), 7), "not described as the format asks"),
    "header past the end by one": (safetensors_bytes({"w": entry()}, b"", 63), "a header of 63 bytes in a file of 70"),
    "no brace": (safetensors_bytes(b"[1, 2]  "), "its header begins with b'\\['"),
    "blank first": (safetensors_bytes(b'  {"w":' + GOOD.encode() + b"}", bytes(16)), "begins with b' '"),
    "not UTF-8": (safetensors_bytes(b'{"\xff":' + GOOD.encode() + b"}", bytes(16)), "not UTF-8"),
    "tensor twice": (safetensors_bytes(f'{{"w":{GOOD},"w":{GOOD}}}'.encode(), bytes(16)), "'w' is there twice"),
    "escaped twice": (safetensors_bytes(f'{{"w":{GOOD},"\\u0077":{GOOD}}}'.encode(), bytes(16)), "'w' is there twice"),
    "field twice": (one(GOOD[:-1] + ',"shape":[4]}'), "'shape' is there twice"),
    "metadata twice": (safetensors_bytes(b'{"__metadata__":{},"__metadata__":{}}'), "there twice"),
    "metadata key twice": (safetensors_bytes(b'{"__metadata__":{"a":"1","a":"2"}}'), "'a' twice"),
    "metadata not text": (safetensors_bytes(b'{"__metadata__":{"a":1}}'), "must have a string"),
    "metadata a list": (safetensors_bytes(b'{"__metadata__":[]}'), "must have '{'"),
    "no field": (one('{"dtype":"F32","shape":[4]}'), "must have dtype, shape, data_offsets"),
    "a field more": (one(GOOD[:-1] + ',"x":1}'), "must have dtype, shape, data_offsets"),
    "unknown type": (one(GOOD.replace("F32", "F31")), "unknown type 'F31'"),
    "type no text": (one(GOOD.replace('"F32"', "[1]")), "unknown type"),
    "negative dimension": (one(GOOD.replace("[4]", "[-4]")), r"has shape \[-4\]"),
    "two negative": (one(GOOD.replace("[4]", "[-2,-2]")), r"has shape \[-2, -2\]"),
    "float dimension": (one(GOOD.replace("[4]", "[4.0]")), "4.0 is no whole number"),
    "1e400": (one(GOOD.replace("[4]", "[1e400]")), "1e400 is no whole number"),
    "NaN": (one(GOOD.replace("[4]", "[NaN]")), "NaN is no whole number"),
    "true dimension": (one(GOOD.replace("[4]", "[true,4]")), "has shape"),
    "nine dimensions": (one(GOOD.replace("[4]", str([1] * 8 + [4]))), "up to 8"),
    "5,000 digits": (one(GOOD.replace("[4]", f"[{'9' * 500}]")), "500 digits"),
    "product past 2^64": (
        one(GOOD.replace("[4]", f"[{1 << 62},4,4]").replace("16]", "0]")),
        f"has 0 bytes, its shape and type ask for {1 << 68}",
    ),
    "nested 5,000": (one("[" * 5000 + "]" * 5000), "not described as the format asks"),
    "nested in a shape": (one(GOOD.replace("[4]", "[" * 400 + "]" * 400)), "has shape"),
    "objects nested": (safetensors_bytes(b'{"w":' * 5000 + b"1" + b"}" * 5000), "not described as the format asks"),
    "negative offset": (one(GOOD.replace("[0,16]", "[-16,0]")), "must be two offsets"),
    "backwards": (one(GOOD.replace("[0,16]", "[16,0]")), "has -16 bytes"),
    "three offsets": (one(GOOD.replace("[0,16]", "[0,16,32]")), "must be two offsets"),
    "size and shape": (one(GOOD.replace("[0,16]", "[0,12]")), "has 12 bytes, its shape and type ask for 16"),
    "hole first": (safetensors_bytes({"w": entry(start=4, end=20)}, bytes(20)), "begins at 4, .* ends at 0"),
    "hole between": (
        safetensors_bytes({"a": entry(), "b": entry(start=20, end=36)}, bytes(36)), "'b' begins at 20, .* ends at 16"
    ),
    "overlap": (safetensors_bytes({"a": entry(), "b": entry(start=8, end=24)}, bytes(24)), "'b' begins at 8"),
    "empty inside another": (
        safetensors_bytes({"a": entry(), "b": entry([0], 8, 8)}, bytes(16)), "'b' begins at 8, .* ends at 16"
    ),
    "cut": (safetensors_bytes({"w": entry()}, bytes(15)), "has 15 bytes of weights, its header describes 16"),
    "more at the end": (safetensors_bytes({"w": entry()}, bytes(17)), "has 17 bytes of weights"),
    "more after the header": (safetensors_bytes(b"{} {}"), "has more after"),
    "comma at the end": (safetensors_bytes(b'{"__metadata__":{},}'), "must have a string"),
    "no comma": (safetensors_bytes(b'{"__metadata__":{}"w":' + GOOD.encode() + b"}"), "must have ','"),
    "half a surrogate": (safetensors_bytes(b'{"\\ud800":' + GOOD.encode() + b"}", bytes(16)), "bad string"),
    "empty": (b"", "is no safetensors file"),
    "a pickle": (b"\x80\x04\x95" + bytes(64), "is no safetensors file|a header of"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_SAFETENSORS)
def test_a_hostile_safetensors_is_refused_cheaply(tmp_path, case):
    raw, message = HOSTILE_SAFETENSORS[case]
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(raw)
    refuse(lambda: check_header(path), message)


def test_100_000_tensors_are_refused_before_they_are_parsed(tmp_path):
    header = {f"tensor.{n}.weight": entry([0], 0, 0) for n in range(100_000)}
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(safetensors_bytes(header))
    refuse(lambda: check_header(path), "has 100000 tensors", seconds=0.2, memory=128 * MIB)


@pytest.mark.parametrize(
    ("start", "filler"),
    [
        (b'{"w":[', b"[],"),
        (b'{"w":{"shape":[', b"[],"),
        (b'{"w":{"shape":[', b"1,"),
        (b'{"w":', b"{"),
        (b'{"w":', b" "),
    ],
)
def test_a_long_header_costs_little_more_than_its_length(tmp_path, start, filler):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(safetensors_bytes(start + filler * (20_000_000 // len(filler)) + b"]}}"))
    refuse(lambda: check_header(path), "not described as the format asks", seconds=0.2, memory=128 * MIB)


def test_real_safetensors_pass(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = {
        "é.\"quoted\"": np.ones((2, 3), dtype=np.float32), "scalar": np.array(2, dtype=np.float16),
        "empty": np.zeros((0, 4), dtype=np.int64), "flags": np.array([True, False, True]),
    }  # fmt: skip
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt", "note": 'a "quote" {and} \\ more\n'})
    found = check_header(path)
    assert {name: header.shape for name, header in found.items()} == {name: t.shape for name, t in tensors.items()}
    assert found["scalar"].dtype == "F16"


@pytest.fixture(scope="module")
def valid_safetensors():
    tensors = {name: np.ones(shape, dtype=np.float32) for name, shape in {"a": (2, 3), "b": (0,), "c.d": (5,)}.items()}
    return safetensors.numpy.save(tensors, metadata={"format": "pt"})


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_changed_safetensors_is_refused_or_one_that_the_library_reads(valid_safetensors, tmp_path_factory, data):
    raw = bytearray(valid_safetensors)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        patch = data.draw(
            st.sampled_from([b'"', b"{", b"}", b"[", b",", b"0", b"-", b"9" * 9, b"1e3", b" ", b"\xff" * 8])
            | st.binary(max_size=4)
        )
        raw[at : at + data.draw(st.integers(0, len(patch) + 1))] = patch
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(raw)
    error = refusal(lambda: check_header(path))
    assert error is None or error.isprintable()
    if error is None:
        shapes = {name: header.shape for name, header in check_header(path).items()}
        with safetensors.safe_open(path, "numpy") as file:
            assert {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()} == shapes


# Folders.


def write_shard(path, *names):
    safetensors.numpy.save_file({name: np.ones(2, dtype=np.float32) for name in names}, path)


def write_index(folder, weight_map):
    raw = weight_map if isinstance(weight_map, str) else json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(raw)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


def test_one_file_and_shards_are_found(folder):
    write_shard(folder / "one.safetensors", "a", "b", "unlisted")
    write_shard(folder / "two.safetensors", "c")
    write_index(folder, {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"})
    one, two = folder / "one.safetensors", folder / "two.safetensors"
    assert read_index(folder) == {"a": one, "b": one, "c": two, "unlisted": one}
    write_shard(folder / "model.safetensors", "all")
    assert read_index(folder) == {"all": folder / "model.safetensors"}
    write_shard(folder / "adapter_model.safetensors", "lora")
    assert read_index(folder, "adapter_model") == {"lora": folder / "adapter_model.safetensors"}


@pytest.mark.parametrize(
    "shard",
    ["../secret.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "", ".", "x\0.safetensors", "..\\x.safetensors",
     "C:\\x.safetensors", "model.bin", "model.safetensors.index.json", "../model/one.safetensors"],
)  # fmt: skip
def test_shards_are_plain_names(folder, shard):
    write_shard(folder.parent / "secret.safetensors", "a")
    write_shard(folder / "one.safetensors", "a")
    write_index(folder, {"a": shard})
    refuse(lambda: read_index(folder), "no plain name|missing from the folder")


def test_shards_that_are_missing_or_hold_something_else_are_named(folder):
    write_index(folder, {"a": "one.safetensors"})
    refuse(lambda: read_index(folder), "shard 'one.safetensors' is missing")
    write_shard(folder / "one.safetensors", "b")
    refuse(lambda: read_index(folder), "tensor 'a' should be in 'one.safetensors'")
    (folder / "one.safetensors").write_bytes(b"\x80\x04")
    refuse(lambda: read_index(folder), "one.safetensors: is no safetensors file")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("", "no valid JSON"), ("[" * 100_000, "nested too deep"), ("[]", "no weight_map"), ("{}", "no weight_map"),
        ('{"weight_map":{"a":1}}', "must be the name of a file"), ('{"weight_map":{"a":["x"]}}', "must be the name"),
        ('{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}', "'a' is there twice"),
        ('{"weight_map":{"a":"\\ud800.safetensors"}}', "missing from the folder"),
        (" " * (9 * MIB), "has more than 8388608 bytes"),
    ],
)  # fmt: skip
def test_a_bad_index_is_refused(folder, index, message):
    write_index(folder, index)
    refuse(lambda: read_index(folder), message, memory=32 * MIB)


def test_links_out_of_the_folder_are_refused(folder):
    write_shard(folder.parent / "secret.safetensors", "a")
    link = folder / "model.safetensors"
    link.symlink_to("../secret.safetensors")
    refuse(lambda: read_index(folder), "is a link out of its folder")
    link.unlink()
    (folder / "sub").mkdir()
    write_shard(folder / "here.safetensors", "a")
    link.symlink_to("here.safetensors")
    assert read_index(folder) == {"a": link}
    link.unlink()
    link.symlink_to(link)
    refuse(lambda: read_index(folder), "cannot be read|link out")


def test_the_hub_caches_links_are_followed_one_step(tmp_path):
    folder = tmp_path / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    digest = "0123456789abcdef" * 4
    blob = tmp_path / "blobs" / digest
    write_shard(blob, "a")
    (folder / "model.safetensors").symlink_to(f"../../blobs/{digest}")
    assert read_index(folder) == {"a": folder / "model.safetensors"}
    blob.unlink()
    write_shard(tmp_path / "secret", "a")
    blob.symlink_to("../secret")
    refuse(lambda: read_index(folder), "is a link out of its folder")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../secret")
    refuse(lambda: read_index(folder), "is a link out of its folder")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt", "consolidated.00.pth"])
def test_pickles_are_refused_unopened(folder, name):
    os.mkfifo(folder / name)  # reading it would wait for ever
    refuse(lambda: read_index(folder), "model: only safetensors and GGUF are read; pickle files can run code")


def test_a_folder_without_weights_says_what_it_holds(folder):
    refuse(lambda: read_index(folder), "holds no model.safetensors and no model.safetensors.index.json")
    (folder / "x.gguf").touch()
    refuse(lambda: read_index(folder), "give the GGUF file itself, such as 'x.gguf'")
    refuse(lambda: read_index(folder / "none"), "none: cannot be read: no such file")
