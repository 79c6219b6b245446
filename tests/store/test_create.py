"""Making models: what is reused, what is new, what is refused before anything is written, and what never is read."""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_gguf
from safetensors.numpy import save_file

from lapilli.checkpoints.gguf import read_gguf
from lapilli.checkpoints.mixture import MIXTURES
from lapilli.errors import CheckpointError, InputError, LapilliError, ModelNotFoundError, StoreError, TemplateError
from lapilli.store.create import create
from lapilli.store.library import Library
from lapilli.store.manifests import ADAPTER, MODEL, PROJECTOR
from lapilli.store.modelfile import Modelfile
from lapilli.store.progress import Progress
from lapilli.store.request import QUANTIZED, CreateRequest

GO = "{{ if .System }}{{ .System }} {{ end }}{{ .Prompt }}"


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "ours")


@pytest.fixture
def pair(library: Library, tmp_path: Path) -> dict[str, str]:
    """A model and its projector, sent as blobs: names and digests."""
    files = (small_gguf.decoder(tmp_path / "m.gguf"), small_gguf.tower(tmp_path / "mmproj.gguf"))
    return {path.name: library.blobs.add_file(path).digest for path in files}


def make(library: Library, name: str, **body: Any) -> list[Progress]:
    """Create as over HTTP; what was said on the way."""
    said: list[Progress] = []
    create(library, name, CreateRequest.from_dict(body), progress=said.append)
    return said


def statuses(said: list[Progress]) -> list[str]:
    return [progress.status for progress in said]


def stored(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"lock"}


# Of files


def test_a_pair_of_files_becomes_a_model_that_sees(library: Library, pair: dict[str, str]) -> None:
    said = make(library, "llava", files=pair, template=GO, parameters={"stop": ["[INST]"], "num_ctx": 64})
    package = library.find("llava")
    assert package.model == library.blobs.path(pair["m.gguf"])
    assert package.projector == library.blobs.path(pair["mmproj.gguf"])
    assert package.details == {
        "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama", "clip"],
        "parameter_size": "12K", "quantization_level": "F32",
    }  # fmt: skip
    assert package.capabilities == ("completion", "vision")
    assert package.parameters == {"stop": ["[INST]"], "num_ctx": 64}
    told = statuses(said)
    assert told[0] == "parsing GGUF"
    assert f"using existing layer {pair['m.gguf']}" in told
    assert sum(status.startswith("creating new layer sha256:") for status in told) == 2
    assert told[-2:] == ["writing manifest", "success"]
    config = json.loads(library.blobs.path(library.manifest("llava").config.digest).read_bytes())
    assert (config["model_format"], config["model_family"], config["model_type"]) == ("gguf", "llama", "12K")
    assert config["rootfs"]["diff_ids"] == [layer.digest for layer in library.manifest("llava").layers]


def test_a_projector_is_one_by_its_header_whatever_its_name(library: Library, pair: dict[str, str]) -> None:
    make(library, "m", files={"a.gguf": pair["mmproj.gguf"], "b.gguf": pair["m.gguf"]})
    assert library.find("m").model == library.blobs.path(pair["m.gguf"])
    assert library.find("m").projector == library.blobs.path(pair["mmproj.gguf"])


def test_eyes_can_be_given_to_a_model_that_is_here(library: Library, pair: dict[str, str]) -> None:
    make(library, "blind", files={"m.gguf": pair["m.gguf"]}, system="Say.")
    assert library.find("blind").capabilities == ("completion",)
    make(library, "seeing", **{"from": "blind"}, files={"p.gguf": pair["mmproj.gguf"]})
    assert library.find("seeing").capabilities == ("completion", "vision")
    assert library.find("seeing").details["families"] == ["llama", "clip"]
    assert library.find("seeing").system == "Say."


# Of a model that is here


def test_what_is_not_said_stays_and_what_is_said_counts(library: Library, pair: dict[str, str]) -> None:
    make(
        library, "base", files=pair, template=GO, system="Old.", license=["A", "B"],
        parameters={"stop": ["x"], "temperature": 0.5}, messages=[{"role": "user", "content": "Hi."}],
    )  # fmt: skip
    make(
        library, "derived", **{"from": "BASE"}, system="New.", license="C", parameters={"temperature": 1, "seed": 3},
        messages=[{"role": "User", "content": "A?"}, {"role": "assistant", "content": "B."}],
    )  # fmt: skip
    derived, base = library.find("derived"), library.find("base")
    assert (derived.model, derived.projector) == (base.model, base.projector)
    assert derived.template == base.template
    assert derived.system == "New."
    assert derived.license == ("A", "B", "C")
    assert derived.parameters == {"stop": ["x"], "temperature": 1.0, "seed": 3}
    assert derived.messages == ({"role": "user", "content": "A?"}, {"role": "assistant", "content": "B."})
    make(library, "plain", **{"from": "derived"}, system="", template="")
    assert (library.find("plain").system, library.find("plain").template) == ("", None)
    make(library, "same", **{"from": "derived"})
    assert library.manifest("same").layers == library.manifest("derived").layers
    assert library.find("base").system == "Old."


def test_who_can_run_it_is_kept_and_shown(library: Library, pair: dict[str, str]) -> None:
    make(library, "base", files=pair, renderer="r", requires="0.14")
    make(library, "derived", **{"from": "base"}, parser="p", requires="0.15")
    shown = library.find("derived").show()
    assert (shown["renderer"], shown["parser"], shown["requires"]) == ("r", "p", "0.15")
    assert Modelfile.parse(shown["modelfile"]).requires == "0.15"
    assert "parser" not in library.find("base").show()


def test_mini_can_be_built_upon_and_its_name_not_taken(library: Library) -> None:
    make(library, "counting", **{"from": "mini"}, system="You count.")
    package = library.find("counting")
    assert package.system == "You count."
    assert (package.model / "model.safetensors").stat().st_size > 1_000_000
    assert package.details == library.find("mini").details
    with pytest.raises(InputError, match="mini is built in"):
        make(library, "mini", **{"from": "counting"})


def test_a_modelfile_of_a_model_makes_it_again(library: Library, pair: dict[str, str]) -> None:
    make(library, "base", files=pair, template=GO, system='Say "no".\nAlways.', parameters={"stop": ["x", "y"]})
    shown = Modelfile.parse(library.find("base").modelfile())
    create(library, "again", CreateRequest.from_modelfile(shown, Path("/")))
    again, base = library.find("again"), library.find("base")
    assert (again.template, again.system, again.parameters) == (base.template, base.system, base.parameters)


def test_a_source_that_is_not_here_is_pulled_where_that_is_possible(library: Library, pair: dict[str, str]) -> None:
    with pytest.raises(ModelNotFoundError, match="model 'far' not found"):
        make(library, "near", **{"from": "far"})
    pulled: list[str] = []

    def pull(name: str) -> None:
        pulled.append(name)
        make(library, name, files=pair)

    create(library, "near", CreateRequest(source="far"), pull=pull)
    assert pulled == ["far"]
    assert library.find("near").model == library.find("far").model


# What is refused


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "neither 'from' or 'files' was specified"),
        ({"from": 3}, "from must be a string"),
        ({"files": []}, "neither"),
        ({"files": ["a"]}, "files must be an object"),
        ({"files": {"a.gguf": ""}}, "invalid digest format"),
        ({"files": {"a.gguf": "sha256:../../x"}}, "invalid digest format"),
        ({"files": {"a.gguf": None}}, "must be a string"),
        ({"files": {"a.gguf": "sha256:" + "0" * 64}}, "not found: send it first"),
        ({"files": {"../a.gguf": "sha256:" + "0" * 64}}, "no plain name"),
        ({"files": {"/a.gguf": "sha256:" + "0" * 64}}, "no plain name"),
        ({"files": {"a\\b.gguf": "sha256:" + "0" * 64}}, "no plain name"),
        ({"from": "mini", "template": "{{ if"}, "template"),
        ({"from": "mini", "template": "{{ .Prompt"}, "template"),
        ({"from": "mini", "template": "{% for m in messages %}{{ m }"}, "template"),
        ({"from": "mini", "template": 3}, "template must be a string"),
        ({"from": "mini", "quantize": "Q3_X"}, "unsupported quantization type Q3_X - supported types are F32, F16"),
        ({"from": "mini", "license": 3}, "license must be"),
        ({"from": "mini", "messages": {}}, ""),
        ({"from": "mini", "messages": "x"}, "messages must be a list"),
        ({"from": "mini", "messages": [{"role": "tool", "content": ""}]}, "message role must be one of"),
        ({"from": "mini", "messages": [{"role": "user", "content": 3}]}, "must have a role and a content"),
        ({"from": "mini", "parameters": {"nope": 1}}, "unknown parameter 'nope'"),
        ({"from": "mini", "parameters": {"temperature": "hot"}}, 'option "temperature" must be of type float32'),
        ({"from": "mini", "parameters": {"top_k": 1.5}}, 'option "top_k" must be of type integer'),
        ({"from": "mini", "parameters": {"top_k": True}}, 'option "top_k" must be of type integer'),
        ({"from": "mini", "parameters": {"stop": [1]}}, 'option "stop" must be of type array'),
        ({"from": "mini", "parameters": []}, ""),
        ({"from": "mini", "adapters": {"a.gguf": "sha256:" + "0" * 64}}, "PEFT's layout"),
        ({"from": "mini", "draft_files": {"a": "b"}}, "draft models are not supported"),
        ({"from": "a/../b"}, "invalid model name"),
    ],
)
def test_a_bad_request_is_refused_and_nothing_is_made(library: Library, body: dict[str, Any], error: str) -> None:
    if not error:  # empty, in the wrong brackets: as good as nothing
        make(library, "x", **body)
        return
    with pytest.raises((InputError, TemplateError)) as caught:
        make(library, "x", **body)
    assert error in str(caught.value)
    assert [name.short for name in library.names()] == ["mini:latest"]
    assert not any((library.root / "making").iterdir()) if (library.root / "making").exists() else True


@pytest.mark.parametrize("place", ["from", "files", "adapters"])
def test_a_request_over_http_never_looks_at_the_servers_paths(library: Library, place: str) -> None:
    answers = set()
    for path in ("/etc/passwd", "/nope/nope", "/dev/zero", "/", "~root", "../x"):
        body: dict[str, Any] = {"from": "mini", place: path if place == "from" else {"a.gguf": path}}
        with pytest.raises(InputError) as caught:
            make(library, "x", **body)
        answers.add(str(caught.value))
    assert len(answers) == 1


@pytest.mark.parametrize("what", ["/dev/zero", "/dev/random", "/proc/self/mem", "fifo", "loop", "folder", "socket"])
def test_what_is_no_file_is_refused_at_once(library: Library, tmp_path: Path, what: str) -> None:
    path = Path(what) if what.startswith("/") else tmp_path / what
    if what == "fifo":
        os.mkfifo(path)
    elif what == "loop":
        path.symlink_to(path)
    elif what == "folder":
        path.mkdir()
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    start = time.monotonic()
    with pytest.raises((InputError, CheckpointError)):
        create(library, "x", CreateRequest.from_modelfile(Modelfile.parse(f"FROM {path}"), tmp_path))
    assert time.monotonic() - start < 1
    assert stored(library.root) == set()


@pytest.mark.parametrize(
    "head", [b"PK\x03\x04", b"\x1f\x8b\x08", b"ustar", b"lmgg", b"FUGG", b"\x80\x04", b"", b"GGUF"]
)
def test_archives_and_other_bytes_are_no_models(library: Library, head: bytes) -> None:
    digest = library.blobs.add(head + bytes(300)).digest
    before = stored(library.root)
    for name in ("x.gguf", "x.zip", "x"):
        with pytest.raises(CheckpointError, match=r"^x"):
            make(library, "y", files={name: digest})
    assert stored(library.root) == before


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a.pt", "a.ckpt", "a.npy", "A.PTH"])
def test_pickles_are_named_as_what_they_are(library: Library, tmp_path: Path, name: str) -> None:
    digest = library.blobs.add(b"\x80\x04cposix\nsystem\n(S'touch marker'\ntR.").digest
    with pytest.raises(InputError, match="only safetensors and GGUF are read"):
        make(library, "y", files={name: digest, "config.json": digest})
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / name.lower()).write_bytes(b"x")
    if name != "a.npy" and name != "A.PTH":
        with pytest.raises(InputError, match=r"may be pickle.*convert it to safetensors"):
            CreateRequest.from_modelfile(Modelfile.parse("FROM ./repo"), tmp_path)


KEYS = [key for key in small_gguf.DECODER if key.startswith(("llama", "tokenizer.ggml", "general.arch"))]
TOWER_KEYS = [key for key in small_gguf.TOWER if key.startswith(("clip.vision", "general"))]
MAY_BE_MISSING = {"llama.attention.head_count_kv"}


def refused(library: Library, tmp_path: Path, keys: dict[str, Any], tensors: dict[str, Any]) -> str:
    path = small_gguf.write(tmp_path / "h.gguf", keys, tensors)
    with pytest.raises(CheckpointError) as caught:
        make(library, "y", files={"h.gguf": library.blobs.add_file(path).digest})
    assert [name.short for name in library.names()] == ["mini:latest"]
    return str(caught.value)


@pytest.mark.parametrize("key", [key for key in [*KEYS, *TOWER_KEYS] if key not in MAY_BE_MISSING])
def test_each_needed_key_is_named_where_it_is_missing(library: Library, tmp_path: Path, key: str) -> None:
    keys = small_gguf.DECODER if key in KEYS and key != "general.architecture" else small_gguf.TOWER
    tensors = small_gguf.DECODER_TENSORS if keys is small_gguf.DECODER else small_gguf.TOWER_TENSORS
    left = {name: value for name, value in keys.items() if name != key}
    assert key in refused(library, tmp_path, left, dict(tensors))


# A projector of one layer has no second.
NEEDED = [name for name in (*small_gguf.DECODER_TENSORS, *small_gguf.TOWER_TENSORS) if name != "mm.2.weight"]


@pytest.mark.parametrize("tensor", NEEDED)
def test_each_needed_tensor_is_named_where_it_is_missing(library: Library, tmp_path: Path, tensor: str) -> None:
    keys = small_gguf.DECODER if tensor in small_gguf.DECODER_TENSORS else small_gguf.TOWER
    tensors = {**small_gguf.DECODER_TENSORS} if keys is small_gguf.DECODER else {**small_gguf.TOWER_TENSORS}
    del tensors[tensor]
    assert tensor in refused(library, tmp_path, dict(keys), tensors)


@pytest.mark.parametrize("value", [0, -1, 1 << 31])
@pytest.mark.parametrize(
    "key",
    [key for key in [*KEYS, *TOWER_KEYS] if isinstance({**small_gguf.DECODER, **small_gguf.TOWER}[key], int)],
)
def test_sizes_that_nothing_has_are_named(library: Library, tmp_path: Path, key: str, value: int) -> None:
    keys = small_gguf.DECODER if key in KEYS else small_gguf.TOWER
    tensors = small_gguf.DECODER_TENSORS if keys is small_gguf.DECODER else small_gguf.TOWER_TENSORS
    assert key in refused(library, tmp_path, {**keys, key: value}, dict(tensors))


def test_a_file_cut_anywhere_is_refused(library: Library, tmp_path: Path) -> None:
    whole = small_gguf.decoder(tmp_path / "m.gguf").read_bytes()
    points = [*range(64), *np.random.default_rng(0).integers(64, len(whole) - 1, 60).tolist(), len(whole) - 1]
    path = tmp_path / "cut.gguf"
    for point in points:
        path.write_bytes(whole[:point])
        with pytest.raises(CheckpointError, match=r"^cut\.gguf: "):
            create(library, "y", CreateRequest(files={"cut.gguf": path}))
    assert stored(library.root) == set()


def test_counts_that_overflow_are_refused(library: Library) -> None:
    for count in (1 << 63, (1 << 64) - 1, (1 << 32) + 1):
        for head in (struct.pack("<4sIQQ", b"GGUF", 3, count, 1), struct.pack("<4sIQQ", b"GGUF", 3, 1, count)):
            digest = library.blobs.add(head + bytes(64)).digest
            with pytest.raises(CheckpointError, match="claims"):
                make(library, "y", files={"a.gguf": digest})


def test_two_models_or_a_projector_alone_make_none(library: Library, pair: dict[str, str], tmp_path: Path) -> None:
    other = library.blobs.add_file(small_gguf.decoder(tmp_path / "other.gguf", seed=1)).digest
    with pytest.raises(InputError, match="two files are a model"):
        make(library, "y", files={"a.gguf": pair["m.gguf"], "b.gguf": other})
    with pytest.raises(InputError, match="a projector alone is no model"):
        make(library, "y", files={"a.gguf": pair["mmproj.gguf"]})
    with pytest.raises(InputError, match="goes with a GGUF model"):
        make(library, "y", **{"from": "mini"}, files={"a.gguf": pair["mmproj.gguf"]})
    with pytest.raises(InputError, match="FROM names 2 models"):
        CreateRequest.from_modelfile(Modelfile.parse("FROM a\nFROM b"), tmp_path)


def test_a_quantized_model_is_not_quantized_again(library: Library, tmp_path: Path) -> None:
    path = small_gguf.decoder(tmp_path / "q.gguf", type="Q8_0")
    keys = {**small_gguf.DECODER, "general.file_type": 7}
    small_gguf.write(path, keys, small_gguf.DECODER_TENSORS, type="Q8_0")
    create(library, "q", CreateRequest(files={"q.gguf": path}))
    with pytest.raises(InputError, match="only supported for F16, BF16 and F32 models, not Q8_0"):
        make(library, "y", **{"from": "q"}, quantize="Q4_0")


def test_a_model_that_nobody_wants_any_more_is_not_made(library: Library, pair: dict[str, str]) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(StoreError, match="cancelled"):
        create(library, "y", CreateRequest(files=pair), cancel=cancel)
    with pytest.raises(ModelNotFoundError):
        library.find("y")


# Adapters


def test_an_adapter_is_kept_beside_its_model(library: Library, pair: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    folder.mkdir()
    save_file({"base_model.model.x.lora_A.weight": np.zeros((2, 4), np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
    (folder / "README.md").write_text("not read")
    make(library, "base", files=pair)
    said: list[Progress] = []
    order = CreateRequest.from_modelfile(Modelfile.parse("FROM base\nADAPTER ./lora"), tmp_path)
    create(library, "tuned", order, progress=said.append)
    (found,) = library.find("tuned").adapters
    assert sorted(path.name for path in found.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert (found / "adapter_config.json").read_bytes() == (folder / "adapter_config.json").read_bytes()
    assert "converting adapter" in statuses(said)
    assert library.find("tuned").model == library.find("base").model
    digests = {layer.name: layer.digest for layer in library.manifest("tuned").of(ADAPTER)}
    make(library, "sent", **{"from": "base"}, adapters=digests)
    assert library.find("sent").adapters == library.find("tuned").adapters
    with pytest.raises(InputError, match=r"adapter_model\.safetensors is missing"):
        make(library, "y", **{"from": "base"}, adapters={"adapter_config.json": digests["adapter_config.json"]})
    with pytest.raises(CheckpointError, match="no safetensors file"):
        make(library, "y", **{"from": "base"}, adapters=dict.fromkeys(digests, digests["adapter_config.json"]))


# Conversions, in a process of their own


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Library, list[Progress]]:
    """A library in which mini's folder was made GGUF."""
    library, said = Library(tmp_path_factory.mktemp("converted")), []
    folder = library.find("mini").model
    create(
        library, "full", CreateRequest.from_modelfile(Modelfile.parse(f"FROM {folder}"), Path("/")),
        progress=said.append,
    )  # fmt: skip
    return library, said


def test_a_folder_becomes_gguf_that_sees(converted: tuple[Library, list[Progress]]) -> None:
    library, said = converted
    package = library.find("full")
    assert package.projector is not None
    assert package.details["families"] == ["llama", "clip"]
    assert (package.details["format"], package.details["quantization_level"]) == ("gguf", "BF16")
    assert "vision" in package.capabilities
    assert package.parameters == library.find("mini").parameters != {}
    told = statuses(said)
    assert told[0] == "converting model"
    assert told[-1] == "success"
    assert "verifying conversion" in told
    ticks = [progress for progress in said if progress.total]
    assert ticks[-1].completed == ticks[-1].total > 1_000_000
    assert ticks[-1].digest == "0000000000000000000"
    assert list((library.root / "making").iterdir()) == []
    assert library.check() == []


def test_quantizing_takes_the_decoder_alone(converted: tuple[Library, list[Progress]]) -> None:
    library, _ = converted
    said = make(library, "small", **{"from": "full"}, quantize="q4_k_m", system="Be brief.")
    full, small = library.manifest("full"), library.manifest("small")
    assert small.of(PROJECTOR) == full.of(PROJECTOR)
    assert small.of(MODEL)[0].size < full.of(MODEL)[0].size / 2
    assert library.find("small").details["quantization_level"] == "Q4_K_M"
    assert "quantizing BF16 model to Q4_K_M" in statuses(said)
    with read_gguf(library.find("small").model) as file:
        assert {str(tensor.type) for tensor in file.tensors.values() if math.prod(tensor.shape) > 4096} <= {
            "Q4_K", "Q6_K", "Q5_0", "Q8_0",
        }  # fmt: skip


def test_a_damaged_folder_is_refused_by_the_process_that_reads_it(library: Library, tmp_path: Path) -> None:
    own = library.find("mini").model
    files = {path.name: library.blobs.add_file(path).digest for path in own.iterdir() if path.suffix != ".md"}
    values = json.loads((own / "config.json").read_text())
    values["text_config"]["hidden_size"] = 128
    files["config.json"] = library.blobs.add(json.dumps(values).encode()).digest
    before = stored(library.root)
    with pytest.raises(CheckpointError, match="has shape"):
        make(library, "y", files={name: digest for name, digest in files.items() if name != "NOTICE"})
    assert stored(library.root) == before


def test_a_conversion_ends_when_it_is_cancelled(library: Library) -> None:
    cancel = threading.Event()
    timer = threading.Timer(0.3, cancel.set)
    timer.start()
    start = time.monotonic()
    folder = library.find("mini").model
    order = CreateRequest.from_modelfile(Modelfile.parse(f"FROM {folder}"), Path("/"))
    with pytest.raises(StoreError, match="cancelled"):
        create(library, "y", order, cancel=cancel)
    assert time.monotonic() - start < 10
    assert not any((library.root / "making").iterdir())


def test_the_types_are_those_that_can_be_written() -> None:
    assert set(QUANTIZED) == set(MIXTURES)


def test_errors_are_one_line_and_name_no_path_of_the_store(library: Library, tmp_path: Path) -> None:
    digest = library.blobs.add(b"GGUF" + bytes(100)).digest
    doors: list[Callable[[], object]] = [
        lambda: make(library, "y", files={"a.gguf": digest}),
        lambda: make(library, "y", files={"model.safetensors": digest, "config.json": digest}),
        lambda: make(library, "y", **{"from": "mini"}, adapters=dict.fromkeys(
            ("adapter_config.json", "adapter_model.safetensors"), digest)),
    ]  # fmt: skip
    for door in doors:
        with pytest.raises(LapilliError) as caught:
            door()
        assert str(tmp_path) not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "sha256-" not in str(caught.value)


def test_what_a_modelfile_asks_for_crosses_to_a_server_whole() -> None:
    text = (
        'FROM base\nTEMPLATE ""\nSYSTEM Be brief.\nPARAMETER stop a\nPARAMETER top_k 4\nMESSAGE user Hi\nLICENSE MIT\n'
    )
    asked = CreateRequest.from_modelfile(Modelfile.parse(text + "REQUIRES 0.1.0\n"), Path("/"), "Q8_0")
    assert CreateRequest.from_dict(asked.to_dict()) == asked
    assert asked.to_dict()["template"] == ""
    assert CreateRequest(source="base").to_dict() == {"from": "base"}
