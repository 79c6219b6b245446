"""T01 to T14 from outside, over HTTP: names, digests, archives and registries that mean harm."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from asked import ALL, assert_shape
from faulty_registry import FaultyRegistry

pytestmark = pytest.mark.usefixtures("oracles")
HEX = hashlib.sha256(b"x").hexdigest()
DIGESTS: tuple[Any, ...] = (
    "sha256:../../x",
    f"sha256:{HEX[:-1]}",
    f"sha256:{HEX}0",
    f"sha256:{HEX.upper()}",
    "sha256-",
    f"sha512:{HEX}",
    f"sha256:{HEX[:-1]}\0",
    f"sha256:{HEX[:-1]}٣",
    "",
    None,
    5,
)


def posted(live: Any, data: bytes) -> str:
    """The digest of a blob that was sent."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert live.http.post(f"/api/blobs/{digest}", content=data).status_code in (200, 201)
    return digest


@pytest.mark.parametrize("digests", [DIGESTS[:6], DIGESTS[6:]], ids=["texts", "odd"])
def test_t01_t02_a_registry_s_digest_is_no_path(
    live: Any, registry: FaultyRegistry, tmp_path: Path, digests: tuple[Any, ...]
) -> None:
    """Refused whole and streamed, before a blob is asked for; nothing is removed in cleaning up."""
    registry.add("library/evil:latest", b"x" * 100)
    manifest = json.loads(registry.manifests["library/evil:latest"])
    victim = live.home / "victim"
    victim.write_text("alive")
    reached = f"sha256:../../../{victim.name}"
    asked = len(registry.blob_requests())
    for place in (manifest["layers"][0], manifest["config"]):
        for value in (*digests, reached):
            kept, place["digest"] = place["digest"], value
            registry.manifests["library/evil:latest"] = json.dumps(manifest).encode()
            place["digest"] = kept
            body = {"model": f"{registry.host}/library/evil", "insecure": True}
            response = live.post("/api/pull", {**body, "stream": False})
            assert response.status_code == 400
            assert "invalid digest" in assert_shape("/api/pull", response)
            last = json.loads(live.post("/api/pull", body).text.splitlines()[-1])
            assert list(last) == ["error"]
    assert len(registry.blob_requests()) == asked
    assert victim.read_text() == "alive"
    victim.unlink()
    del registry.manifests["library/evil:latest"]


def test_t01_digests_of_strangers_in_paths_and_bodies(live: Any) -> None:
    for digest in (
        "sha256:..%2f..%2fx",
        f"sha256:{HEX.upper()}",
        "sha256-",
        f"sha512:{HEX}",
        f"sha256:{HEX}%00",
        "..",
        "x",
    ):
        path = f"/api/blobs/{digest}"
        assert live.http.head(path).status_code in (400, 404)
        response = live.http.post(path, content=b"x")
        assert response.status_code in (400, 404)
        assert_shape(path, response)
    for digest in (
        "sha256:../../x",
        f"sha256:{HEX.upper()}",
        "",
        None,
        5,
        [],
        "/etc/passwd",
        "sha256:" + "a" * 1_000_000,
    ):
        for field in ("files", "adapters"):
            response = live.post("/api/create", {"model": "x", field: {"a.gguf": digest}, "stream": False})
            assert response.status_code == 400, digest
            assert len(assert_shape("/api/create", response)) < 300


NAMES = (
    "../../etc/passwd",
    "a/../../b",
    "a/..",
    "..",
    ".",
    "C:\\x",
    "a:..",
    "a//b",
    "/a",
    "a/",
    "%2e%2e/x",
    "a\0b",
    "a\u202eb",
    "a" * 10_000,
    "a:b:c",
    "a b",
    "a\nb",
    "http://a/b",
    "file:///etc/passwd",
    "~",
    "~/x",
    "$HOME",
    "a;b",
    "-rf",
    "٣",
    "a\\..\\b",
    "hf:../x",
    "hf:a",
    "hf:a/b/c",
    "hf:a/b@../../x",
    "hf:a/..",
    "hf:/etc/passwd",
)


@pytest.mark.parametrize("dialect", ALL, ids=str)
def test_t04_names_that_are_paths_in_every_dialect(live: Any, dialect: Any) -> None:
    for name in NAMES:
        response = live.post(dialect.path, dialect.body() | {"model": name})
        assert response.status_code in (400, 404), name
        told = assert_shape(dialect.path, response)
        assert response.status_code == 400 or "not found" in told, (name, told)
        assert len(told) < 400
    for name in set(NAMES[:12]) - {".", ".."}:  # a client takes those out of a path itself
        assert live.get(f"/v1/models/{quote(name, safe='')}").status_code in (400, 404)


def archives() -> dict[str, bytes]:
    found = {}
    evil = ("../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "model.safetensors", "MODEL.safetensors", "config.json")
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", compression) as archive:
            for name in evil:
                archive.writestr(name, b"\0" * (1 << 20))
        found[f"zip {compression}"] = data.getvalue()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
        for name in evil:
            member = tarfile.TarInfo(name)
            member.size = 1 << 20
            archive.addfile(member, io.BytesIO(bytes(1 << 20)))
        device = tarfile.TarInfo("device")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    found["tar"] = data.getvalue()
    return found


def test_t07_t08_archives_are_never_unpacked(live: Any) -> None:
    before = set(live.home.rglob("*"))
    for name, data in archives().items():
        digest = posted(live, data)
        for file in ("model.zip", "model.gguf", "model.safetensors", "../x.gguf", "a/../../x.gguf", "/x.gguf", "x.tar"):
            response = live.post("/api/create", {"model": "unpacked", "files": {file: digest}, "stream": False})
            assert response.status_code == 400, (name, file)
            assert_shape("/api/create", response)
    names = {path.name for path in set(live.home.rglob("*")) - before}
    assert not {"evil", "link", "device", "x.gguf", "config.json", "..\\evil"} & names


HOSTS = (
    "127.0.0.1:1",
    "169.254.169.254",
    "localhost:1",
    "[::1]:1",
    "2130706433",
    "0x7f.1",
    "10.0.0.1",
    "192.168.0.1",
    "0.0.0.0:1",
    "localhost.evil",
    "metadata.google.internal",
)


@pytest.mark.parametrize("path", ["/api/pull", "/api/push"])
def test_t12_no_other_host_is_spoken_to(live: Any, path: str) -> None:
    for host in HOSTS:
        for insecure in (False, True):
            body = {"model": f"{host}/x/y", "insecure": insecure, "stream": False}
            response = live.post(path, body)
            assert response.status_code in (400, 403, 404), (host, response.text)
            assert_shape(path, response)


def test_t14_a_file_that_promises_more_than_it_holds_is_never_pushed(
    live: Any, gguf: bytes, registry: FaultyRegistry
) -> None:
    name = f"{registry.host}/library/bleeding"
    for data in (gguf[:-64], gguf[: len(gguf) // 2], gguf[:40]):
        digest = posted(live, data)
        response = live.post("/api/create", {"model": name, "files": {"a.gguf": digest}, "stream": False})
        assert response.status_code == 400
        assert_shape("/api/create", response)
    response = live.post("/api/push", {"model": name, "insecure": True, "stream": False})
    assert response.status_code == 404
    assert not registry.uploads
    assert "library/bleeding:latest" not in registry.manifests
