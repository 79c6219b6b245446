"""The hub: data and nothing else, checked against its hashes, whole or not there; no network when told so."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lapilli.errors import InputError, ModelNotFoundError, NoRoomError, RegistryError
from lapilli.store.hub import find_hub, pull_hub
from lapilli.store.library import Library
from lapilli.store.progress import Progress

WEIGHTS = bytes(range(256)) * 400
REPOSITORY = {
    "config.json": b'{"model_type": "llava"}',
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ x }}",
    "merges.txt": b"a b",
    "tokenizer.model": b"spm",
    "consolidated.safetensors": WEIGHTS,
    "README.md": b"# read me",
    "pytorch_model.bin": b"a pickle",
    "modeling_evil.py": b"import os",
    ".gitattributes": b"*",
    "onnx/model.onnx": b"onnx",
    "sub/config.json": b"{}",
    "../../escape.json": b"{}",
    "/absolute.json": b"{}",
}


class Hub:
    """As much of the hub's API as is asked for."""

    def __init__(self) -> None:
        self.files = dict(REPOSITORY)
        self.commit = "1" * 40
        self.status = 200
        self.listed: dict[str, dict[str, object]] = {}
        self.sends: dict[str, list[bytes]] = {}
        self.asked: list[tuple[str, str]] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                hub.asked.append((self.command, self.path))
                path = self.path.partition("?")[0]
                if path == "/api/models/me/model/revision/main":
                    return self.say(hub.status, json.dumps(hub.info()).encode() if hub.status == 200 else b"{}")
                match = re.fullmatch(r"/me/model/resolve/([0-9a-f]{40})/(.+)", path)
                if match is None or match[1] != hub.commit or match[2] not in hub.files:
                    return self.say(404, b"", **{"X-Error-Code": "RepoNotFound"})
                body = hub.files[match[2]]
                etag = hub.lfs(body) if match[2].endswith((".safetensors", ".gguf")) else hub.git(body)
                if self.command == "GET" and hub.sends.get(match[2]):
                    body = hub.sends[match[2]].pop(0)
                self.say(200, body, **{"ETag": f'"{etag}"', "X-Repo-Commit": hub.commit})

            def say(self, status: int, body: bytes, **headers: str) -> None:
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def info(self) -> dict[str, object]:
        siblings = []
        for name, body in self.files.items():
            entry: dict[str, object] = {"rfilename": name, "size": len(body), "blobId": self.git(body)}
            if name.endswith((".safetensors", ".gguf")):
                entry["lfs"] = {"sha256": self.lfs(body), "size": len(body), "pointerSize": 100}
            siblings.append(entry | self.listed.get(name, {}))
        return {"id": "me/model", "modelId": "me/model", "sha": self.commit, "siblings": siblings}

    @staticmethod
    def git(body: bytes) -> str:
        return hashlib.sha1(f"blob {len(body)}\0".encode() + body).hexdigest()

    @staticmethod
    def lfs(body: bytes) -> str:
        return hashlib.sha256(body).hexdigest()

    def fetched(self) -> list[str]:
        return [path.rpartition("/")[2] for method, path in self.asked if method == "GET" and "/resolve/" in path]


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return Library(tmp_path / "models")


def take(hub: Hub, library: Library, **more: object) -> tuple[Path, list[Progress]]:
    said: list[Progress] = []
    folder = pull_hub(library, "me/model", progress=said.append, endpoint=hub.endpoint, **more)  # type: ignore[arg-type]
    return folder, said


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


WANTED = ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "merges.txt", "tokenizer.model")


def test_how_sentence_transformers_pool_is_fetched_with_the_rest(hub: Hub, library: Library) -> None:
    hub.files |= {"1_Pooling/config.json": b'{"pooling_mode_cls_token": true}', "2_Dense/model.safetensors": WEIGHTS}
    folder, _ = take(hub, library)
    assert (folder / "1_Pooling/config.json").read_bytes() == hub.files["1_Pooling/config.json"]
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"1_Pooling"}
    hub.commit, hub.files["config.json"] = "2" * 40, b'{"model_type": "bert"}'
    asked = len(hub.fetched())
    take(hub, library)
    assert hub.fetched()[asked:] == ["config.json"]
    assert (folder / "1_Pooling/config.json").is_file()


def test_what_is_here_is_found_in_the_library_and_in_the_hubs_own_cache(
    hub: Hub, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert find_hub(library, "me/model") is None
    kept = tmp_path / "cache/models--me--model"
    (kept / "snapshots" / ("3" * 40)).mkdir(parents=True)
    (kept / "snapshots" / ("3" * 40) / "config.json").write_text("{}")
    (kept / "refs").mkdir()
    (kept / "refs/main").write_text("3" * 40)
    assert find_hub(library, "me/model") == kept / "snapshots" / ("3" * 40)
    assert find_hub(library, "me/model", "other") is None
    folder, _ = take(hub, library)
    assert find_hub(library, "me/model") == folder
    assert len(hub.asked) > 0
    with pytest.raises(InputError):
        find_hub(library, "me/../model")


def test_data_is_fetched_and_nothing_else(hub: Hub, library: Library, tmp_path: Path) -> None:
    folder, said = take(hub, library)
    assert held(folder) == {name: REPOSITORY[name] for name in WANTED}
    assert folder == library.hub_folder("me", "model", "main")
    assert sorted(hub.fetched()) == sorted(WANTED)
    assert not list(tmp_path.rglob("*escape*"))
    assert os.listdir(folder.parent) == ["main"]
    assert library.find("hf:me/model").model == folder
    states = [progress.status for progress in said]
    assert states[0] == "pulling manifest"
    assert states[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    weights = [progress for progress in said if progress.total == len(WEIGHTS)]
    assert weights[-1].completed == len(WEIGHTS)
    assert weights[-1].digest == f"sha256:{hashlib.sha256(WEIGHTS).hexdigest()}"


def test_what_is_here_is_not_fetched_again(hub: Hub, library: Library) -> None:
    take(hub, library)
    hub.asked.clear()
    take(hub, library)
    assert hub.fetched() == []
    hub.commit = "2" * 40
    hub.files["config.json"] = b'{"model_type": "new"}'
    del hub.files["merges.txt"]
    folder, _ = take(hub, library)
    assert hub.fetched() == ["config.json"]
    assert held(folder).keys() == set(WANTED) - {"merges.txt"}
    assert held(folder)["config.json"] == b'{"model_type": "new"}'


def test_wrong_bytes_are_fetched_again_and_never_kept(hub: Hub, library: Library) -> None:
    wrong = b"?" + WEIGHTS[1:]
    hub.sends = {"model.safetensors": [wrong], "config.json": [b"?" * len(REPOSITORY["config.json"])]}
    folder, _ = take(hub, library)
    assert held(folder)["model.safetensors"] == WEIGHTS
    hub.commit, hub.files["model.safetensors"] = "2" * 40, WEIGHTS[::-1]
    hub.sends = {"model.safetensors": [wrong, wrong]}
    with pytest.raises(RegistryError, match="digest mismatch"):
        take(hub, library)
    assert held(folder)["model.safetensors"] == WEIGHTS  # as it was
    take(hub, library)
    assert held(folder)["model.safetensors"] == WEIGHTS[::-1]


def test_an_unfinished_pull_is_no_model_and_goes_on(hub: Hub, library: Library) -> None:
    del hub.files["tokenizer.json"]
    hub.listed = {"config.json": {"blobId": "0" * 40}}
    order = list(hub.files)
    hub.files = {name: hub.files[name] for name in sorted(order, key=lambda name: name == "config.json")}
    with pytest.raises(RegistryError, match="digest mismatch"):
        take(hub, library)
    with pytest.raises(ModelNotFoundError):
        library.find("hf:me/model")
    assert hub.fetched().count("model.safetensors") == 1
    hub.listed = {}
    take(hub, library)
    assert hub.fetched().count("model.safetensors") == 1


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a.Q4_K_M.gguf", "a.Q8_0.gguf", "mmproj-f16.gguf", "mmproj-Q8_0.gguf"], {"a.Q4_K_M.gguf", "mmproj-f16.gguf"}),
        (["only.IQ3.gguf", "mmproj-model.gguf"], {"only.IQ3.gguf", "mmproj-model.gguf"}),
        (["model-1.safetensors", "model-2.safetensors", "a.gguf"], {"model-1.safetensors", "model-2.safetensors"}),
        (["adapter_model.safetensors"], {"adapter_model.safetensors"}),
    ],
)
def test_one_set_of_weights_is_chosen(names: list[str], chosen: set[str], hub: Hub, library: Library) -> None:
    hub.files = {name: name.encode() for name in names} | {"config.json": b"{}"}
    folder, _ = take(hub, library)
    assert set(held(folder)) == chosen | {"config.json"}


@pytest.mark.parametrize("names", [["a.IQ2.gguf", "a.IQ3.gguf"], ["pytorch_model.bin"], []])
def test_a_repository_that_leaves_no_choice_is_refused(names: list[str], hub: Hub, library: Library) -> None:
    hub.files = dict.fromkeys(names, b"x") | {"config.json": b"{}"}
    with pytest.raises(InputError, match="hf:me/model has"):
        take(hub, library)
    assert hub.fetched() == []


def test_offline_nothing_is_asked(hub: Hub, library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFoundError, match="offline"):
        take(hub, library, offline=True)
    folder, _ = take(hub, library)
    hub.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert take(hub, library)[0] == folder
    assert hub.asked == []


@pytest.mark.parametrize("listed", [{"size": -1}, {"size": None}, {"blobId": "../x"}, {"lfs": {"sha256": "x", "size": 1,
                                    "pointerSize": 1}}])  # fmt: skip
def test_a_listing_without_size_and_hash_is_refused(listed: dict[str, object], hub: Hub, library: Library) -> None:
    hub.listed = {"config.json": listed}
    with pytest.raises(RegistryError, match="gives no size and hash"):
        take(hub, library)
    hub.listed, hub.commit = {}, "../" * 13 + "x"
    with pytest.raises(RegistryError, match="names no commit"):
        take(hub, library)


def test_trouble_is_told_in_one_line(hub: Hub, library: Library) -> None:
    hub.status = 404
    with pytest.raises(ModelNotFoundError, match="no such model"):
        take(hub, library)
    hub.status = 403
    with pytest.raises(RegistryError, match="403"):
        take(hub, library)
    with pytest.raises(InputError, match="invalid model name"):
        pull_hub(library, "me/../model", endpoint=hub.endpoint)
    with pytest.raises(RegistryError) as caught:
        pull_hub(library, "me/model", endpoint="http://127.0.0.1:9")
    assert "\n" not in str(caught.value)


def test_room_is_asked_for_first(hub: Hub, library: Library) -> None:
    hub.listed = {"model.safetensors": {"lfs": {"sha256": "0" * 64, "size": 1 << 60, "pointerSize": 1}}}
    with pytest.raises(NoRoomError):
        take(hub, library)
    assert hub.fetched() == []


def test_a_cancelled_pull_ends(hub: Hub, library: Library) -> None:
    cancel = threading.Event()

    def report(progress: Progress) -> None:
        if progress.completed:
            cancel.set()

    with pytest.raises(RegistryError, match="cancelled") as caught:
        pull_hub(library, "me/model", progress=report, endpoint=hub.endpoint, cancel=cancel)
    assert caught.value.status == 499
    assert not library.hub_folder("me", "model").exists()
