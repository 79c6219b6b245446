"""The library: names in any case, nothing half there, others' stores untouched, nothing lost and nothing left."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import small_gguf

from lapilli.errors import InputError, ModelNotFoundError, StoreError
from lapilli.ground.owner import Owner
from lapilli.store.library import Library
from lapilli.store.manifests import (
    ADAPTER,
    CONFIG,
    JSON,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMETERS,
    PROJECTOR,
    SYSTEM,
    TEMPLATE,
    TENSOR,
    Layer,
    Manifest,
)
from lapilli.store.naming import ModelName
from lapilli.store.reference import resolve

LLAVA_CONFIG = {
    "model_format": "gguf", "model_family": "llama", "model_families": ["llama", "clip"], "model_type": "7B",
    "file_type": "Q4_0", "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []},
}  # fmt: skip
LLAVA_TEMPLATE = "[INST] {{ if .System }}{{ .System }} {{ end }}{{ .Prompt }} [/INST]"


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "ours")


def fill(library: Library, name: str, tmp_path: Path, *, seed: int = 0, **texts: str) -> Manifest:
    """A model in the layers of Ollama's llava, under that name."""
    parts = {
        MODEL: small_gguf.decoder(tmp_path / f"model-{seed}.gguf", seed=seed).read_bytes(),
        PROJECTOR: small_gguf.tower(tmp_path / "mmproj.gguf").read_bytes(),
        LICENSE: b"Apache License\n",
        TEMPLATE: LLAVA_TEMPLATE.encode(),
        PARAMETERS: b'{"stop":["[INST]","[/INST]"]}\n',
        **{{"system": SYSTEM, "messages": MESSAGES}[kind]: text.encode() for kind, text in texts.items()},
    }
    layers = []
    for kind, content in parts.items():
        blob = library.blobs.add(content)
        layers.append(Layer(kind, blob.digest, blob.size))
    config = library.blobs.add(json.dumps(LLAVA_CONFIG).encode())
    manifest = Manifest(Layer(CONFIG, config.digest, config.size), tuple(layers))
    library.publish(name, manifest)
    return manifest


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        state = path.stat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (state.st_mtime_ns, state.st_mode, hashlib.sha256(content).digest())
    return found


def age(folder: Path, seconds: float = 7200) -> None:
    then = time.time() - seconds
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (then, then))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"lock"}


# What a model is


def test_a_model_lies_as_ollama_has_it_and_is_found_again(library: Library, tmp_path: Path) -> None:
    manifest = fill(library, "llava:7b", tmp_path, system="Be brief.", messages='[{"role":"user","content":"Hi."}]')
    path = library.root / "manifests" / "registry.ollama.ai" / "library" / "llava" / "7b"
    assert path.read_bytes() == manifest.to_bytes()
    model = manifest.of(MODEL)[0]
    assert (library.root / "blobs" / model.digest.replace(":", "-")).stat().st_size == model.size
    package = library.find("llava:7b")
    assert package.name == "llava:7b"
    assert package.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert package.size == manifest.size
    assert abs(package.modified.timestamp() - path.stat().st_mtime) < 1e-3
    assert package.model == library.blobs.path(model.digest)
    assert package.projector == library.blobs.path(manifest.of(PROJECTOR)[0].digest)
    assert package.template is not None
    assert (package.template.language, package.template.text) == ("go", LLAVA_TEMPLATE)
    assert package.system == "Be brief."
    assert package.parameters == {"stop": ["[INST]", "[/INST]"]}
    assert package.messages == ({"role": "user", "content": "Hi."},)
    assert package.license == ("Apache License\n",)
    assert package.capabilities == ("completion", "vision")
    assert package.details == {
        "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama", "clip"], "parameter_size": "7B",
        "quantization_level": "Q4_0",
    }  # fmt: skip


def test_what_show_tells(library: Library, tmp_path: Path) -> None:
    fill(library, "llava", tmp_path, system="Be brief.")
    shown = library.find("llava").show()
    assert shown["license"] == "Apache License\n"
    assert shown["parameters"].splitlines() == [f'{"stop":<30} "[INST]"', f'{"stop":<30} "[/INST]"']
    assert (shown["template"], shown["system"]) == (LLAVA_TEMPLATE, "Be brief.")
    assert "messages" not in shown
    assert shown["model_info"]["general.architecture"] == "llama"
    assert shown["model_info"]["llama.block_count"] == 1
    assert shown["model_info"]["general.parameter_count"] == sum(
        math.prod(shape) for shape in small_gguf.DECODER_TENSORS.values()
    )
    assert shown["model_info"]["tokenizer.ggml.tokens"] == []
    assert not shown["model_info"].keys() & {"general.name", "tokenizer.chat_template"}
    assert shown["projector_info"]["clip.vision.patch_size"] == 14
    assert shown["projector_info"]["clip.vision.image_mean"] == [0.5, 0.5, 0.5]
    assert {"name": "blk.0.ffn_up.weight", "type": "F32", "shape": [32, 64]} in shown["tensors"]
    assert shown["capabilities"] == ["completion", "vision"]
    assert "FROM llava:latest" in shown["modelfile"]
    assert str(tmp_path) not in json.dumps(shown)
    verbose = library.find("llava").show(verbose=True)
    assert verbose["model_info"]["tokenizer.ggml.tokens"] == small_gguf.DECODER["tokenizer.ggml.tokens"]


@pytest.mark.parametrize(
    ("template", "language", "capabilities"),
    [
        ("{{ .Prompt }}", "go", ()),
        ("{{- if .Tools }}{{ json .Tools }}{{ end }}{{ .Prompt }}", "go", ("tools",)),
        ("{{ .Prompt }}{{ .Suffix }}", "go", ("insert",)),
        ("{{ range .Messages }}{{ .Thinking }}{{ end }}{{ .Prompt }}", "go", ("thinking",)),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "jinja", ()),
        ("{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}", "jinja",
         ("tools",)),
        ("{{ messages[0]['content'] }}", "jinja", ()),
        ("no action at all", "go", ()),
    ],
)  # fmt: skip
def test_what_a_template_can_do_tells_what_a_model_can(
    library: Library, tmp_path: Path, template: str, language: str, capabilities: tuple[str, ...]
) -> None:
    manifest = fill(library, "llava", tmp_path)
    blob = library.blobs.add(template.encode())
    layers = [layer for layer in manifest.layers if layer.media_type != TEMPLATE]
    library.publish("t", Manifest(manifest.config, (*layers, Layer(TEMPLATE, blob.digest, blob.size))))
    package = library.find("t")
    assert package.template is not None
    assert package.template.language == language
    assert package.capabilities == ("completion", "vision", *capabilities)


def test_details_come_from_the_header_where_nobody_told_them(library: Library, tmp_path: Path) -> None:
    manifest = fill(library, "llava", tmp_path)
    config = library.blobs.add(b"{}")
    library.publish("bare", Manifest(Layer(CONFIG, config.digest, config.size), manifest.layers))
    details = library.find("bare").details
    assert (details["family"], details["families"]) == ("llama", ["llama", "clip"])
    assert (details["parameter_size"], details["quantization_level"]) == ("12K", "F32")


# Names


def test_names_are_matched_whatever_their_case(library: Library, tmp_path: Path) -> None:
    fill(library, "LLaVA:Q4", tmp_path)
    assert library.find("llava:q4").name == "LLaVA:Q4"
    assert library.find("Library/LLAVA:q4").name == "LLaVA:Q4"
    fill(library, "llava:q4", tmp_path, seed=1)
    assert [name.short for name in library.names()] == ["mini:latest", "LLaVA:Q4"]
    library.copy("LLAVA:Q4", "Other")
    library.remove("llava:Q4")
    assert [name.short for name in library.names()] == ["mini:latest", "Other:latest"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/../../b", "a:..", "a//b", "%2e%2e/", "a\0", "a" * 10_000])
def test_hostile_names_are_refused_alike_and_touch_nothing(library: Library, tmp_path: Path, name: str) -> None:
    manifest = fill(library, "llava", tmp_path)
    before = snapshot(tmp_path)
    doors: list[Callable[[], object]] = [
        lambda: library.find(name),
        lambda: library.manifest(name),
        lambda: library.publish(name, manifest),
        lambda: library.copy(name, "x"),
        lambda: library.copy("llava", name),
        lambda: library.remove(name),
    ]
    for door in doors:
        with pytest.raises(InputError) as error:
            door()
        assert str(error.value) == "invalid model name"
    assert snapshot(tmp_path) == before


def test_an_unknown_name_is_said_so(library: Library) -> None:
    for door in (library.find, library.manifest, library.remove):
        with pytest.raises(ModelNotFoundError, match=r"^model 'nope(:latest)?' not found$"):
            door("nope")
    with pytest.raises(ModelNotFoundError):
        library.copy("nope", "x")
    assert not library.root.exists() or files(library.root) == set()


def test_strange_files_among_manifests_are_no_models(library: Library, tmp_path: Path) -> None:
    fill(library, "llava", tmp_path)
    top = library.root / "manifests"
    (top / ".DS_Store").write_text("x")
    (top / "registry.ollama.ai" / "library" / "llava" / ".latest.abcd.part").write_text("x")
    (top / "registry.ollama.ai" / "library" / "llava" / "sp ace").write_text("x")
    (top / "registry.ollama.ai" / "stray").write_text("x")
    assert [name.short for name in library.names()] == ["mini:latest", "llava:latest"]


# What is built in


def test_mini_is_always_there_and_cannot_be_removed(library: Library) -> None:
    assert [name.short for name in library.names()] == ["mini:latest"]
    package = library.find("MINI")
    assert package.name == "mini:latest"
    assert package.capabilities == ("completion", "vision")
    assert package.details["parameter_size"] == "9.08M"
    assert package.details["quantization_level"] == "BF16"
    assert len(package.digest) == 64
    assert package.show()["model_info"]["llama.context_length"] == 2048
    assert package.show()["projector_info"]["clip.vision.image_size"] == 128
    assert not library.root.exists()
    for doing in (lambda: library.remove("mini"), lambda: library.copy("mini", "Mini:latest")):
        with pytest.raises(InputError, match="mini is built in"):
            doing()


def test_a_copy_of_mini_is_a_folder_of_the_same_files(library: Library) -> None:
    library.copy("mini", "mine")
    listed = next(package for package in library.packages() if package.name == "mine:latest")
    assert listed.capabilities == ("completion", "vision")
    package, own = library.find("mine"), library.find("mini")
    assert package.details == own.details
    assert package.license == own.license
    for path in package.model.iterdir():
        assert path.read_bytes() == (own.model / path.name).read_bytes()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in package.model.iterdir()}
    assert library.check() == []
    library.remove("mine")
    assert files(library.root) == set()


# Other stores


@pytest.fixture
def ollamas(tmp_path: Path) -> Path:
    other = Library(tmp_path / "ollama")
    fill(other, "llava", tmp_path)
    (other.root / "lock").unlink()
    age(other.root)
    return other.root


def test_ollamas_folder_is_read_where_it_lies_and_never_written(tmp_path: Path, ollamas: Path) -> None:
    before = snapshot(ollamas)
    library = Library(tmp_path / "ours", [ollamas])
    assert {package.name for package in library.packages()} == {"mini:latest", "llava:latest"}
    assert library.find("llava").model.is_relative_to(ollamas)
    library.copy("llava", "mine")
    assert library.find("mine").model.is_relative_to(ollamas)
    with pytest.raises(InputError, match="only read here"):
        library.remove("llava")
    library.prune(0)
    assert library.check() == []
    library.remove("mine")
    fill(library, "llava", tmp_path, seed=1)
    assert library.find("llava").model.is_relative_to(library.root)
    library.remove("llava")
    library.prune(0)
    assert library.find("llava").model.is_relative_to(ollamas)
    assert snapshot(ollamas) == before


def test_a_store_is_not_another_to_itself(tmp_path: Path, ollamas: Path) -> None:
    library = Library(ollamas, [ollamas])
    library.blobs.remove(library.manifest("llava").of(PROJECTOR)[0].digest)
    assert len(library.check()) == 1
    library.remove("llava")
    assert [name.short for name in library.names()] == ["mini:latest"]


# Putting in and taking out


def test_nothing_is_published_before_all_of_it_is_here(library: Library, tmp_path: Path) -> None:
    manifest = fill(library, "llava", tmp_path)
    library.blobs.remove(manifest.of(PROJECTOR)[0].digest)
    with pytest.raises(StoreError, match="is missing"):
        library.publish("other", manifest)
    with pytest.raises(ModelNotFoundError):
        library.find("other")


def test_removing_takes_what_no_other_model_needs(library: Library, tmp_path: Path) -> None:
    first, second = fill(library, "a", tmp_path), fill(library, "b", tmp_path, seed=1)
    library.remove("a")
    assert not library.blobs.has(first.of(MODEL)[0].digest)
    assert all(library.blobs.has(layer.digest) for layer in second)
    assert library.check() == []
    library.remove("b")
    assert files(library.root) == set()
    assert not (library.root / "manifests" / "registry.ollama.ai").exists()


def test_removing_leaves_what_a_live_writer_has_just_found(library: Library, tmp_path: Path) -> None:
    manifest = fill(library, "a", tmp_path)
    with library.workshop():
        time.sleep(0.02)
        library.blobs.add(library.find("a").model.read_bytes())
        library.remove("a")
        assert library.blobs.has(manifest.of(MODEL)[0].digest)
        assert not library.blobs.has(manifest.of(PROJECTOR)[0].digest)


def test_a_damaged_manifest_is_named_hides_nothing_else_and_can_be_removed(library: Library, tmp_path: Path) -> None:
    fill(library, "good", tmp_path)
    manifest = fill(library, "bad", tmp_path, seed=1)
    path = library.root.joinpath("manifests", *ModelName.parse("bad").path_parts)
    path.write_bytes(manifest.to_bytes()[:-10])
    assert [package.name for package in library.packages()] == ["good:latest", "mini:latest"]
    assert library.check() == ["bad:latest: the manifest is no valid JSON: pull or create it again"]
    with pytest.raises(StoreError, match="no valid JSON"):
        library.find("bad")
    age(library.root)
    library.prune()
    assert library.blobs.has(manifest.of(MODEL)[0].digest), "a damaged manifest still tells what it needs"
    library.remove("bad")
    assert library.check() == []
    assert not library.blobs.has(manifest.of(MODEL)[0].digest)


def test_the_check_names_what_is_missing_or_cut_short(library: Library, tmp_path: Path) -> None:
    manifest = fill(library, "llava", tmp_path)
    model, projector = manifest.of(MODEL)[0], manifest.of(PROJECTOR)[0]
    library.blobs.remove(projector.digest)
    with open(library.blobs.path(model.digest), "r+b") as file:
        file.truncate(10)
    told = library.check()
    assert sorted(told) == sorted(
        [
            f"llava:latest: {projector.digest} is missing: pull or create it again",
            f"llava:latest: {model.digest} has 10 bytes, must have {model.size}: pull or create it again",
        ]
    )


def test_pruning_takes_what_is_old_and_needed_by_nobody(library: Library, tmp_path: Path) -> None:
    manifest = fill(library, "llava", tmp_path)
    stray = library.blobs.add(b"nobody's")
    age(library.root)
    young = library.blobs.add(b"just sent")
    (library.root / "manifests" / "registry.ollama.ai" / "library" / "x").mkdir()
    (library.root / "manifests" / "registry.ollama.ai" / "library" / "x" / ".latest.ab12.part").write_bytes(b"x")
    machine = str(Owner.current()).partition("-")[0]
    dead = library.root / "making" / f"{machine}-999999999-1-00000000"
    dead.mkdir(parents=True)
    with library.workshop() as shop:
        removed = library.prune()
        assert shop.is_dir()
    assert stray.digest in removed
    assert not library.blobs.has(stray.digest)
    assert library.blobs.has(young.digest)
    assert all(library.blobs.has(layer.digest) for layer in manifest)
    assert not dead.exists()
    assert files(library.root / "manifests") == {"registry.ollama.ai/library/llava/latest"}
    assert not (library.root / "manifests" / "registry.ollama.ai" / "library" / "x").exists()


def test_the_digests_of_a_manifest_from_elsewhere_are_kept_however_they_are_spelt(
    library: Library, tmp_path: Path
) -> None:
    manifest = fill(library, "llava", tmp_path)
    spelt = manifest.to_bytes().replace(b"sha256:", b"sha256-", 1).replace(b"sha256:", b"\\u0073ha256:")
    library.publish("other", Manifest.parse(spelt))
    library.remove("llava")
    age(library.root)
    library.prune()
    assert library.check() == []
    assert library.find("other").digest == hashlib.sha256(spelt).hexdigest()


def test_many_at_once_leave_a_whole_store(library: Library, tmp_path: Path) -> None:
    fill(library, "base", tmp_path)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                library.copy("base", f"copy-{number}")
                if turn % 2:
                    library.remove(f"copy-{number}")
                assert library.find("base").size > 0
                library.packages()
                library.prune()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert library.check() == []
    assert [name.short for name in library.names()] == ["mini:latest", "base:latest"]


def test_writers_wait_for_each_other_across_processes(library: Library, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    fill(library, "base", tmp_path)
    doings: list[Callable[[], object]] = [
        lambda: library.copy("base", "copy"), lambda: library.remove("copy"), lambda: library.prune(0),
    ]  # fmt: skip
    for doing in doings:
        with open(library.root / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            thread = threading.Thread(target=doing)
            thread.start()
            thread.join(0.1)
            assert thread.is_alive()
        thread.join(10)
        assert not thread.is_alive()


# Folders of layers


def adapter_layers(library: Library, **names: str) -> tuple[Layer, ...]:
    found = []
    for name, content in {"adapter_config.json": "{}", "adapter_model.safetensors": "weights", **names}.items():
        blob = library.blobs.add(content.encode())
        found.append(Layer(ADAPTER, blob.digest, blob.size, name))
    return tuple(found)


def test_adapters_are_opened_as_folders(library: Library, tmp_path: Path) -> None:
    manifest = fill(library, "llava", tmp_path)
    layers = (*adapter_layers(library), *adapter_layers(library, **{"adapter_model.safetensors": "others"}))
    library.publish("tuned", Manifest(manifest.config, (*manifest.layers, *layers)))
    first, second = library.find("tuned").adapters
    assert (first / "adapter_model.safetensors").read_text() == "weights"
    assert (second / "adapter_model.safetensors").read_text() == "others"
    library.prune(0)
    assert first.is_dir()
    library.remove("tuned")
    assert not first.exists()
    assert not second.exists()


@pytest.mark.parametrize(
    "name", ["../x.json", "/etc/x.json", "a/b.json", "a\\b.json", ".x.json", "model.bin", "x.py", "", "a\0.json"]
)
def test_a_manifest_names_no_files_but_those_of_a_model(library: Library, tmp_path: Path, name: str) -> None:
    manifest = fill(library, "llava", tmp_path)
    blob = library.blobs.add(b"x")
    for kind in (JSON, TENSOR, ADAPTER):
        layers = [layer for layer in manifest.layers if kind == ADAPTER or layer.media_type != MODEL]
        library.publish("hostile", Manifest(manifest.config, (*layers, Layer(kind, blob.digest, blob.size, name))))
        with pytest.raises(StoreError, match="no model is read from"):
            library.find("hostile")
        assert "hostile:latest" not in [package.name for package in library.packages()]
    library.remove("hostile")


# Elsewhere: paths and the hub


def test_paths_are_models_only_where_they_are_asked_for(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    small_gguf.decoder(folder / "a.gguf")
    small_gguf.tower(folder / "mmproj-a.gguf")
    monkeypatch.chdir(folder)
    for text in ("a.gguf", "./a.gguf", str(folder / "a.gguf"), str(folder)):
        package = library.find(text, paths=True)
        assert package.model.name == "a.gguf"
        assert package.projector is not None
        assert package.details["families"] == ["llama", "clip"]
        with pytest.raises((InputError, ModelNotFoundError)):
            library.find(text)
    fill(library, "here", tmp_path)
    fill(library, "a.gguf", tmp_path)
    assert library.find("a.gguf", paths=True).model == Path("a.gguf")
    monkeypatch.chdir(tmp_path)
    assert library.find("here", paths=True).name == "here:latest"
    assert library.find("./here", paths=True).model.name == "a.gguf"


def test_resolve_knows_stored_names(library: Library, tmp_path: Path) -> None:
    fill(library, "llava", tmp_path)
    found = resolve("LLAVA", library)
    assert found.path == library.find("llava").model
    assert found.projector == library.find("llava").projector
    assert found.template is not None
    with pytest.raises(ModelNotFoundError, match="did you mean 'llava'"):
        resolve("lava", library)
    for text in ("", "a//b", "\0", "x" * 5000):
        with pytest.raises(ModelNotFoundError, match="no model"):
            resolve(text, library)


def test_repositories_of_the_hub_have_folders_of_ours(library: Library) -> None:
    folder = library.hub_folder("owner", "name")
    with pytest.raises(ModelNotFoundError):
        library.find("hf:owner/name")
    folder.mkdir(parents=True)
    small_gguf.decoder(folder / "a.gguf")
    other = library.hub_folder("owner", "name", "v1.0")
    other.mkdir()
    small_gguf.decoder(other / "a.gguf", seed=1)
    assert library.find("hf:owner/name").model == folder / "a.gguf"
    assert library.find("hf:owner/name@v1.0").digest != library.find("hf:owner/name").digest
    assert {"hf:owner/name", "hf:owner/name@v1.0"} <= {package.name for package in library.packages()}
    library.remove("hf:owner/name@v1.0")
    library.remove("hf:owner/name")
    assert not (library.root / "hub" / "owner").exists()
    with pytest.raises(ModelNotFoundError):
        library.remove("hf:owner/name")


def test_what_was_given_up_half_fetched_is_pruned(library: Library) -> None:
    folder = library.hub_folder("owner", "name")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    live, dead, part = (folder.with_name(name) for name in (".v1.partial", ".v2.partial", ".v3.ab12.part"))
    for path, owner in ((live, Owner.current()), (dead, f"{str(Owner.current())[:8]}-999999999-1"), (part, "")):
        path.mkdir()
        (path / f"owner.{owner}-00000000").touch()
    folder.with_name(".main.cd34.old").mkdir()
    library.prune()
    assert {path.name for path in folder.parent.iterdir()} == {"main", ".v1.partial", ".v2.partial", ".v3.ab12.part"}
    age(library.root)
    library.prune()
    assert {path.name for path in folder.parent.iterdir()} == {"main", ".v1.partial"}


@pytest.mark.parametrize("text", ["hf:", "hf:a", "hf:../b", "hf:a/..", "hf:a/b/c", "hf:a/b@../c", "hf:a/b@", "hf:a/.b"])
def test_names_of_the_hub_stay_in_their_folder(library: Library, text: str) -> None:
    with pytest.raises(InputError, match="invalid model name"):
        library.find(text)
    with pytest.raises(InputError):
        library.hub_folder("..", "b")


def test_a_model_that_is_never_to_draw_says_so_in_its_copies_too(tmp_path: Path) -> None:
    library = Library(tmp_path)
    assert library.find("mini").parameters == {"temperature": 0.0}
    library.copy("mini", "other")
    assert library.find("other").parameters == {"temperature": 0.0}
