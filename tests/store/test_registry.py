"""Pull and push: right or a clear error, whatever the other side does; nothing fetched twice; nobody else spoken to."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpcore2
import pytest
from faulty_pulls import fault_rate, pull_once
from faulty_registry import CONFIG, MODEL, WEIGHTS, Asked, FaultyRegistry

from lapilli.errors import InputError, ModelNotFoundError, NoRoomError, RegistryError
from lapilli.ground import door
from lapilli.ground.door import Network
from lapilli.store.library import Library
from lapilli.store.manifests import Layer, Manifest
from lapilli.store.naming import ModelName
from lapilli.store.progress import Progress
from lapilli.store.registry import pull, push
from lapilli.store.transfer import TransferSettings

SEGMENT = 1 << 14
DATA = random.Random(0).randbytes(16 * SEGMENT + 100)
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    with FaultyRegistry(stall=0.5) as registry:
        yield registry


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "models")


def quick(*allowed: FaultyRegistry, **more: object) -> TransferSettings:
    hosts = frozenset(registry.host for registry in allowed)
    plain = TransferSettings(
        least_part=4 * SEGMENT,
        segment=SEGMENT,
        stall=5,
        attempts=4,
        backoff=0.005,
        tick=0.01,
    )
    return replace(plain, **{"allowed_registries": hosts, **more})  # type: ignore[arg-type]


def take(registry: FaultyRegistry, library: Library, model: str = "library/m", **more: object) -> list[Progress]:
    said: list[Progress] = []
    settings = more.pop("settings", None) or quick(registry)
    pull(library, f"{registry.host}/{model}", insecure=True, progress=said.append, settings=settings, **more)  # type: ignore[arg-type]
    return said


def failed(registry: FaultyRegistry, library: Library, model: str = "library/m", **more: object) -> RegistryError:
    with pytest.raises(RegistryError) as caught:
        take(registry, library, model, **more)
    assert "\n" not in str(caught.value)
    return caught.value


def kept(library: Library) -> dict[str, bytes]:
    return {digest: library.blobs.path(digest).read_bytes() for digest in library.blobs}


# The usual course


def test_a_pull_says_how_far_it_is_and_ends_with_the_model(registry: FaultyRegistry, library: Library) -> None:
    blobs = registry.add("library/m:latest", DATA, b"a license", b"")
    said = take(registry, library)
    assert kept(library) == blobs
    assert library.manifest(f"{registry.host}/library/m").to_bytes() == registry.manifests["library/m:latest"]
    states = list(dict.fromkeys(progress.status for progress in said))
    assert states[0] == "pulling manifest"
    assert states[1] == f"pulling {DIGEST[7:19]}"
    assert states[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    big = [progress for progress in said if progress.digest == DIGEST]
    assert {progress.total for progress in big} == {len(DATA)}
    assert [progress.completed for progress in big] == sorted(progress.completed for progress in big)
    assert big[-1].completed == len(DATA)
    assert {"status", "digest", "total", "completed"} == big[-1].to_dict().keys()
    assert said[-1].to_dict() == {"status": "success"}
    assert {path.name for path in (library.root / "blobs").iterdir()} == {d.replace(":", "-") for d in blobs}


def test_parts_come_by_ranges_over_several_connections(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    take(registry, library)
    ranges = sorted(asked.range for asked in registry.blob_requests() if asked.range)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == len(DATA)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(ranges))
    assert len(ranges) == 5
    assert {asked.headers["accept-encoding"] for asked in registry.asked} == {"identity"}


def test_what_is_here_is_not_fetched_again(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA, b"a license")
    registry.add("library/m:other", DATA, b"another license")
    take(registry, library)
    before = len(registry.blob_requests())
    said = take(registry, library)
    assert len(registry.blob_requests()) == before
    assert [p.completed for p in said if p.digest == DIGEST] == [len(DATA)]
    take(registry, library, "library/m:other")
    assert len(registry.blob_requests()) == before + 1


def test_what_another_store_has_is_not_fetched(registry: FaultyRegistry, library: Library, tmp_path: Path) -> None:
    registry.add("library/m:latest", DATA)
    take(registry, library)
    second = Library(tmp_path / "second", others=[library.root])
    before = len(registry.blob_requests())
    take(registry, second)
    assert len(registry.blob_requests()) == before


def test_an_unknown_model_is_told_in_ollamas_words(registry: FaultyRegistry, library: Library) -> None:
    assert str(failed(registry, library, "library/none")) == "pull model manifest: file does not exist"
    with pytest.raises(InputError, match="invalid model name"):
        take(registry, library, "../../etc/passwd")
    with pytest.raises(InputError, match="built in"):
        pull(library, "mini")
    assert not library.root.exists() or list(library.blobs) == []


def test_a_layer_that_the_registry_lacks_is_an_error(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    del registry.blobs[DIGEST]
    assert "file does not exist" in str(failed(registry, library))


# Resuming


def test_a_pull_that_was_cut_off_goes_on_where_it_was(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)

    def half(asked: Asked) -> str | None:
        return "status" if asked.range and asked.range[0] >= len(DATA) // 2 else None

    registry.script = half
    assert "given up after 4 attempts" in str(failed(registry, library))
    assert list(library.blobs) == []
    registry.script, had = None, registry.sent
    assert had >= len(DATA) // 3
    said = take(registry, library)
    assert kept(library)[DIGEST] == DATA
    assert registry.sent <= len(DATA) + 200
    assert next(p for p in said if p.digest == DIGEST).completed == had


def test_what_a_crash_spoilt_is_fetched_again_and_no_more(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    registry.script = lambda asked: "status" if asked.range and asked.range[1] == len(DATA) else None
    failed(registry, library)
    registry.script = None
    folder = library.blobs.partial(DIGEST)
    with open(folder / "data", "r+b") as data:
        data.seek(2 * SEGMENT)
        data.write(bytes(100))
    with open(folder / "journal", "ab") as journal:
        journal.write(b'{"n": 3, "sha')
    before = registry.sent
    take(registry, library)
    assert kept(library)[DIGEST] == DATA
    assert registry.sent - before <= SEGMENT + 100 + 200


def test_a_model_half_pulled_can_be_removed(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    registry.script = lambda asked: "status" if asked.range and asked.range[1] == len(DATA) else None
    failed(registry, library)
    with pytest.raises(ModelNotFoundError):
        library.remove(f"{registry.host}/library/other")
    assert os.listdir(library.blobs.root) == [f"sha256-{DIGEST[7:]}.partial"]
    library.remove(f"{registry.host}/Library/M")
    assert os.listdir(library.blobs.root) == []
    with pytest.raises(ModelNotFoundError):
        library.remove(f"{registry.host}/library/m")


SIZES = ["0", "-5", "true", "1e9", '"x"', str(1 << 70)]
JUNK = [b"", b"\xff\xfe", b"[]\n", b"null\n" * 9, None]
JUNK += [f'{{"size": {len(DATA)}, "segment_bytes": {size}}}\n{{"n": 0, "sha256": "x"}}\n'.encode() for size in SIZES]


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_a_journal_that_makes_no_sense_is_begun_anew(
    registry: FaultyRegistry, library: Library, junk: bytes | None
) -> None:
    registry.add("library/m:latest", DATA)
    folder = library.blobs.partial(DIGEST)
    folder.mkdir(parents=True)
    (folder / "free").touch()
    (folder / "data").write_bytes(b"x" * 3 * len(DATA))
    if junk is not None:
        (folder / "journal").write_bytes(junk)
    take(registry, library)
    assert kept(library)[DIGEST] == DATA


# Lies and faults: T18, T19

FATAL = ["cut", "reset", "status", "stall", "wrong range", "length", "total", "packed", "other file", "flip"]


@pytest.mark.parametrize("kind", WEIGHTS)
def test_a_fault_that_passes_is_got_over(kind: str, registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    left = ["manifest", "blob", "blob", "blob"]

    def script(asked: Asked) -> str | None:
        what = "blob" if asked.range else "manifest" if "manifests" in asked.path else None
        if what in left:
            left.remove(what)
            return kind
        return None

    registry.script = script
    take(registry, library, settings=quick(registry, stall=0.25 if kind == "stall" else 5))
    assert not left
    assert kept(library)[DIGEST] == DATA
    if kind not in ("flip", "other bytes", "other file"):  # what shows only in the end
        assert len(registry.blob_requests()) <= 5 + 3 + 1


@pytest.mark.parametrize("kind", FATAL)
def test_a_fault_that_stays_is_an_error_and_the_next_pull_is_right(
    kind: str, registry: FaultyRegistry, library: Library
) -> None:
    registry.add("library/m:latest", DATA)
    registry.script = lambda asked: kind if asked.range and asked.range[0] <= 5 * SEGMENT < asked.range[1] else None
    settings = quick(registry, stall=0.25 if kind == "stall" else 5)
    if kind not in ("cut", "stall", "flip"):  # each of these brings something that is right
        failed(registry, library, settings=settings)
        assert DIGEST not in kept(library)
        registry.script = None
    take(registry, library, settings=settings)
    assert kept(library)[DIGEST] == DATA


def test_a_flipped_bit_costs_less_than_the_whole_again(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    left = [8 * SEGMENT]
    registry.script = lambda asked: "flip" if asked.range and asked.range[0] in left and not left.clear() else None
    take(registry, library)
    assert kept(library)[DIGEST] == DATA
    assert registry.faults == ["flip"]
    # Fetched again up to the wrong part, and the wrong segment a third time.
    assert registry.sent <= 1.85 * len(DATA)


def test_a_bit_flipped_while_looking_for_another_does_no_harm(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    faults = {8 * SEGMENT: [None, "flip"], 0: ["flip", None]}  # the first answers last

    def script(asked: Asked) -> str | None:
        return faults[asked.range[0]].pop() if asked.range and faults.get(asked.range[0]) else None

    registry.script = script
    take(registry, library)
    assert registry.faults == ["flip", "flip"]
    assert kept(library)[DIGEST] == DATA
    assert registry.sent <= 2 * len(DATA)


def test_parts_of_another_file_are_the_first_that_are_fetched_again(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    left = [8 * SEGMENT]
    registry.script = lambda asked: (
        "other file" if asked.range and asked.range[0] in left and not left.clear() else None
    )
    take(registry, library)
    assert kept(library)[DIGEST] == DATA
    assert registry.sent <= 1.6 * len(DATA)


def test_a_registry_that_serves_something_else_never_gets_it_in(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    registry.blobs[DIGEST] = DATA[:-1] + b"?"
    assert "digest mismatch" in str(failed(registry, library))
    assert DIGEST not in kept(library)
    assert registry.sent <= 2.1 * len(DATA)
    registry.blobs[DIGEST] = DATA
    take(registry, library)
    assert kept(library)[DIGEST] == DATA


@pytest.mark.parametrize("change", [-1, 1, 1000])
def test_a_size_that_is_not_the_manifests_is_refused(change: int, registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    text = registry.manifests["library/m:latest"].decode()
    registry.manifests["library/m:latest"] = text.replace(str(len(DATA)), str(len(DATA) + change)).encode()
    assert failed(registry, library).status == 502
    assert DIGEST not in kept(library)
    registry.manifests["library/m:latest"] = text.encode()
    take(registry, library)
    assert kept(library)[DIGEST] == DATA


@pytest.mark.parametrize("others", [(), ("cut",), ("flip",)])
def test_a_server_that_knows_no_ranges_will_do(
    others: tuple[str, ...], registry: FaultyRegistry, library: Library
) -> None:
    registry.add("library/m:latest", DATA)
    faults = list(others)

    def script(asked: Asked) -> str | None:
        if "/blobs/" not in asked.path:
            return None
        return "whole" if asked.range else faults.pop() if faults else None

    registry.script = script
    take(registry, library)
    assert kept(library)[DIGEST] == DATA


def test_a_trickle_is_asked_for_again(
    registry: FaultyRegistry, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add("library/m:latest", DATA)
    registry.pace = 0.1
    monkeypatch.setattr("lapilli.store.transfer._SLOWEST", 1 << 30)
    take(registry, library, settings=quick(registry, stall=0.15, attempts=1))
    assert len(registry.blob_requests()) > 8


@pytest.mark.parametrize("seed", range(20))
def test_twenty_pulls_through_faults_are_right(seed: int) -> None:
    ending, size, received, _ = pull_once(seed, fault_rate(seed), 1 << 19)
    assert ending == "right"
    assert received < 3 * size


# What a manifest may do: T01, T02, T09, T10

HEX = DIGEST[7:]
STRANGE_DIGESTS = [
    "sha256:../../x",
    "sha256:../../../../canary",
    f"sha256:{HEX[:-1]}",
    f"sha256:{HEX}0",
    f"sha256:{HEX.upper()}",
    "sha256-",
    f"sha512:{HEX}",
    f"sha256:{HEX[:-1]}\0",
    f"sha256:{HEX[:-1]}٣",
    "",
    "sha256:" + "a" * 3_000_000,
    5,
    None,
]


@pytest.mark.parametrize("digest", STRANGE_DIGESTS, ids=range(len(STRANGE_DIGESTS)))
@pytest.mark.parametrize("place", ["layer", "config"])
def test_a_strange_digest_is_refused_before_a_blob_is_asked_for(
    digest: object, place: str, registry: FaultyRegistry, library: Library, tmp_path: Path
) -> None:
    (tmp_path / "canary").write_text("alive")
    registry.add("library/m:latest", DATA)
    manifest = json.loads(registry.manifests["library/m:latest"])
    (manifest["layers"][0] if place == "layer" else manifest["config"])["digest"] = digest
    registry.manifests["library/m:latest"] = json.dumps(manifest).encode()
    error = failed(registry, library)
    assert error.status == 400
    assert "invalid digest" in str(error)
    assert registry.blob_requests() == []
    assert (tmp_path / "canary").read_text() == "alive"
    assert not any((tmp_path / "models").rglob("*"))


LAYER = {"mediaType": MODEL, "digest": DIGEST, "size": 1}
CONFIGURATION = {"mediaType": CONFIG, "digest": DIGEST, "size": 1}
MANIFESTS: list[object] = [
    {},
    None,
    [],
    "text",
    {"config": CONFIGURATION, "layers": []},
    {"config": CONFIGURATION, "layers": None},
    {"config": CONFIGURATION, "layers": {"0": LAYER}},
    {"config": CONFIGURATION, "layers": [[LAYER]]},
    {"layers": [LAYER]},
    {"config": None, "layers": [LAYER]},
    {"config": CONFIGURATION, "layers": [LAYER | {"size": -1}]},
    {"config": CONFIGURATION, "layers": [LAYER | {"size": 2**63}]},
    {"config": CONFIGURATION, "layers": [LAYER | {"size": 1.5}]},
    {"config": CONFIGURATION, "layers": [LAYER | {"size": True}]},
    {"config": CONFIGURATION, "layers": [LAYER | {"mediaType": 1}]},
    {"config": CONFIGURATION, "layers": [LAYER, LAYER | {"size": 2}]},
    {"config": CONFIGURATION, "layers": [LAYER] * 10_000},
    b'{"layers":' + b"[" * 50_000,
    b'{"config": ',
    b"\xff\xfe",
    b"",
    b" " * (5 << 20),
]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=range(len(MANIFESTS)))
def test_a_malformed_manifest_is_a_clear_error(manifest: object, registry: FaultyRegistry, library: Library) -> None:
    registry.manifests["library/m:latest"] = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    error = failed(registry, library)
    assert error.status == 400
    assert len(str(error)) < 300
    assert registry.blob_requests() == []


@pytest.mark.parametrize("where", ["manifests", "/token"])
def test_a_packed_manifest_or_token_is_refused(where: str, registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    registry.token = "secret"
    registry.script = lambda asked: "bomb" if where in asked.path else None
    assert "packed as 'gzip'" in str(failed(registry, library))
    registry.script = lambda asked: "endless" if where in asked.path else None
    assert "bytes" in str(failed(registry, library))


# Whom a registry may send us to: T11, T12, T13


def test_a_token_is_asked_for_and_used(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    registry.token = "secret"
    take(registry, library)
    assert kept(library)[DIGEST] == DATA
    tokens = [asked for asked in registry.asked if asked.path.startswith("/token")]
    assert [asked.path for asked in tokens] == ["/token?service=registry&scope=repository%3Alibrary%2Fm%3Apull"]


@pytest.mark.parametrize(
    "realm", ["http://{other}/token", "//{other}/token", "http://169.254.169.254/", "file:///x", ""]
)
def test_no_other_host_is_asked_for_a_token(realm: str, registry: FaultyRegistry, library: Library) -> None:
    with FaultyRegistry() as other:
        registry.add("library/m:latest", DATA)
        registry.token, registry.realm = "secret", realm.replace("{other}", other.host) or f"http://u@{registry.host}/"
        failed(registry, library)
        assert other.asked == []
        if "{other}" in realm:
            other.token = "secret"
            take(registry, library, settings=quick(registry, other))  # the one who runs this allowed it
            assert [asked.path.partition("?")[0] for asked in other.asked] == ["/token"]


def test_no_public_host_is_asked_for_a_token_either(registry: FaultyRegistry, library: Library) -> None:
    connected: list[str] = []

    def connect(address: str, port: int, seconds: float) -> httpcore2.NetworkStream:
        connected.append(address)
        return door.connect("127.0.0.1", registry.port, seconds)

    registry.add("library/m:latest", DATA)
    registry.token, registry.realm = "secret", "http://public.example/token"
    network = Network(lambda host, port, seconds: ["93.184.215.14"], connect)
    assert failed(registry, library, settings=quick(registry, network=network)).status == 403
    assert set(connected) == {"127.0.0.1"}


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "localhost.evil:{port}", "10.0.0.1:{port}",
                                  "169.254.169.254", "0x7f000001:{port}", "2130706433:{port}"])  # fmt: skip
def test_private_registries_are_not_spoken_to(host: str, library: Library) -> None:
    connected: list[str] = []

    def connect(address: str, port: int, seconds: float) -> None:
        connected.append(address)
        raise OSError("no")

    network = Network(lambda host, port, seconds: ["127.0.0.1"], connect)  # type: ignore[arg-type]
    for insecure in (False, True):
        with pytest.raises(RegistryError) as caught:
            pull(library, f"{host}/x/y".replace("{port}", "4711"), insecure=insecure, settings=quick(network=network))
        assert caught.value.status == 403
    assert connected == []


def test_the_command_line_may_speak_to_this_machine_when_told_twice(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    trusting = quick(trust_loopback=True)
    with pytest.raises(RegistryError) as caught:
        pull(library, f"{registry.host}/library/m", settings=trusting)
    assert caught.value.status == 403
    take(registry, library, settings=trusting)
    with FaultyRegistry() as other:
        other.add("library/n:latest", DATA[:100])
        registry.add("library/n:latest", DATA[:100])
        registry.script = lambda asked: (
            f"redirect http://{other.host}/elsewhere{asked.path}" if "blobs" in asked.path else None
        )
        assert failed(registry, library, "library/n", settings=trusting).status == 403
        assert other.asked == []


def test_http_is_spoken_only_when_told(library: Library) -> None:
    with pytest.raises(RegistryError, match="insecure protocol http") as caught:
        pull(library, "http://example.org/library/m")
    assert caught.value.status == 400


def test_a_redirect_is_followed_without_the_token(registry: FaultyRegistry, library: Library) -> None:
    with FaultyRegistry() as store:
        registry.add("library/m:latest", DATA)
        store.blobs = registry.blobs
        registry.token = "secret"
        registry.script = lambda asked: (
            f"redirect http://{store.host}/elsewhere/x/blobs/{DIGEST}" if DIGEST in asked.path else None
        )
        take(registry, library, settings=quick(registry, store))
        assert kept(library)[DIGEST] == DATA
        assert len(store.asked) == 5
        assert all("authorization" not in asked.headers for asked in store.asked)
        # Where it leads to is asked once, as long as it is good.
        assert len([asked for asked in registry.asked if DIGEST in asked.path]) <= 4


def test_an_expired_redirect_is_asked_for_again(registry: FaultyRegistry, library: Library) -> None:
    with FaultyRegistry() as store:
        registry.add("library/m:latest", DATA)
        store.blobs = registry.blobs
        registry.script = lambda asked: (
            f"redirect http://{store.host}/elsewhere/{len(registry.asked)}/blobs/{DIGEST}"
            if DIGEST in asked.path
            else None
        )
        seen: set[str] = set()

        def once(asked: Asked) -> str | None:
            if asked.path in seen:
                return "gone"
            seen.add(asked.path)
            return None

        store.script = once
        take(registry, library, settings=quick(registry, store, streams=1))
        assert kept(library)[DIGEST] == DATA


@pytest.mark.parametrize("location", ["http://{other}/x", "//{other}/x", "http://127.0.0.2:9/x", "http://[::1]:9/x",
                                      "http://169.254.169.254/x", "file:///etc/x", "http://u:p@{self}/x"])  # fmt: skip
@pytest.mark.parametrize("what", ["blobs", "manifests"])
def test_redirects_to_private_hosts_are_not_followed(
    location: str, what: str, registry: FaultyRegistry, library: Library
) -> None:
    with FaultyRegistry() as other:
        registry.add("library/m:latest", DATA)
        there = location.replace("{other}", other.host).replace("{self}", registry.host)
        registry.script = lambda asked: f"redirect {there}" if what in asked.path else None
        assert failed(registry, library).status in (400, 403)
        assert other.asked == []


def test_redirects_end(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    registry.script = lambda asked: f"redirect {asked.path}"
    assert "more than 5 redirects" in str(failed(registry, library))
    assert len(registry.asked) == 6


# Several at once, killed, cancelled, without room: T20, T21, T22

PULL = """
import sys, threading
from pathlib import Path
from lapilli.store.library import Library
from lapilli.store.registry import pull
from lapilli.store.transfer import TransferSettings
root, host, threads, segment = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
settings = TransferSettings(least_part=4 * segment, segment=segment, stall=20, backoff=0.01,
                            allowed_registries=frozenset({host}))
failed = []
def run():
    try:
        pull(Library(Path(root)), f"{host}/library/m", insecure=True, settings=settings)
    except Exception as error:
        failed.append(error)
everybody = [threading.Thread(target=run) for _ in range(threads)]
if threads == 1:
    run()
else:
    for one in everybody: one.start()
    for one in everybody: one.join()
for error in failed: print(repr(error))
sys.exit(1 if failed else 0)
"""


def start(library: Library, host: str, threads: int = 1, wrapper: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*wrapper, sys.executable, "-c", PULL, str(library.root), host, str(threads), str(SEGMENT)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_twenty_pulls_in_four_processes_share_one_download(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA, b"a license")
    registry.pace = 0.02
    runs = [start(library, registry.host, 5) for _ in range(4)]
    for run in runs:
        said, _ = run.communicate(timeout=60)
        assert run.returncode == 0, said
    assert kept(library)[DIGEST] == DATA
    assert registry.sent <= 1.1 * len(DATA)
    assert not list(library.blobs.root.glob("*.p*"))


def test_the_death_of_who_fetches_costs_the_others_little(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA * 4)
    registry.pace = 0.02
    runs = [start(library, registry.host, 2) for _ in range(3)]
    for mark in (2, 3):
        until = time.monotonic() + 30
        while registry.sent < mark * len(DATA) and time.monotonic() < until:
            time.sleep(0.01)
        owner = next(
            name for path in library.blobs.root.glob("*.partial") for name in os.listdir(path) if "owner" in name
        )
        killed = next(run for run in runs if f"-{run.pid}-" in owner)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        runs.remove(killed)
    said, _ = runs[0].communicate(timeout=60)
    assert runs[0].returncode == 0, said
    assert sum(map(len, kept(library).values())) > 4 * len(DATA)
    # Each death loses the segments under way, one a stream, and what lay in its sockets.
    assert registry.sent <= 5.5 * len(DATA)


def test_a_pull_is_cancelled_at_once_and_can_go_on(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    registry.script, registry.stall = (lambda asked: "stall" if asked.range else None), 30
    cancel = threading.Event()
    threading.Timer(0.2, cancel.set).start()
    begun = time.monotonic()
    error = failed(registry, library, cancel=cancel, settings=quick(registry, stall=20))
    assert time.monotonic() - begun < 1.5
    assert error.status == 499
    assert "cancelled" in str(error)
    registry.script = None
    take(registry, library)
    assert kept(library)[DIGEST] == DATA


def test_cancelling_and_pulling_in_a_loop_leaves_no_trouble(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    registry.pace = 0.0005
    before = set(threading.enumerate())
    luck, endings = random.Random(0), set()
    for _ in range(200):
        cancel = threading.Event()
        timer = threading.Timer(luck.random() * 0.03, cancel.set)
        timer.start()
        try:
            take(registry, library, cancel=cancel)
        except RegistryError as error:
            endings.add(error.status)
        timer.cancel()
        if luck.random() < 0.3:
            library.blobs.remove(DIGEST)
    take(registry, library)
    assert kept(library)[DIGEST] == DATA
    assert endings == {499}
    assert len(set(threading.enumerate()) - before) < 30


def test_a_disk_too_small_is_known_before_a_byte_is_fetched(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    text = registry.manifests["library/m:latest"].decode()
    registry.manifests["library/m:latest"] = text.replace(str(len(DATA)), str(1 << 49)).encode()
    with pytest.raises(NoRoomError, match="no space left"):
        take(registry, library)
    assert registry.blob_requests() == []


FULL = """
import os, sys, time
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from faulty_registry import FaultyRegistry
from lapilli.errors import NoRoomError
from lapilli.store.library import Library
from lapilli.store.registry import pull
from lapilli.store.transfer import TransferSettings
root = Path(sys.argv[1])
data = os.urandom(12 << 20)
with FaultyRegistry() as registry:
    registry.add("library/m:latest", data)
    allowed = frozenset({registry.host})
    settings = TransferSettings(least_part=1 << 20, segment=1 << 18, stall=2, allowed_registries=allowed)
    library = Library(root / "models")
    def attempt():
        begun = time.monotonic()
        try:
            pull(library, f"{registry.host}/library/m", insecure=True, settings=settings)
            return "right"
        except NoRoomError as error:
            assert "no space left" in str(error)
            return "full" if time.monotonic() - begun < 2 else "slow"
    filler = root / "filler"
    filler.write_bytes(bytes(8 << 20))
    print(attempt(), registry.sent == 0)          # 8 of 16 MiB are free
    filler.unlink()
    room = os.statvfs
    library.blobs.need_room = lambda size: None   # the room is taken while it pulls
    filler.write_bytes(bytes(8 << 20))
    print(attempt(), len(registry.asked) < 30)
    held = [path.name for path in library.blobs.root.iterdir()]
    print(len(held), library.blobs.abandon("sha256:" + __import__("hashlib").sha256(data).hexdigest()))
    print(attempt())
    filler.unlink()
    print(attempt())
    print(sum(map(library.blobs.size, library.blobs)) > len(data))
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root")
def test_a_full_disk_is_an_error_and_no_more(tmp_path: Path) -> None:
    support = str(Path(__file__).parents[1] / "support")
    line = 'mount -t tmpfs -o size=16m none "$1" && exec "$2" -c "$3" "$1" "$4"'
    command = ["unshare", "-m", "sh", "-c", line, "sh", str(tmp_path), sys.executable, FULL, support]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "mount" in run.stderr and "denied" in run.stderr:
        pytest.skip("no right to mount here")
    assert run.stdout.splitlines() == ["full True", "full True", "1 True", "full", "right", "True"], (
        run.stdout + run.stderr
    )


# Killed anywhere

STRACE = shutil.which("strace")
CALLS = ("pwrite64", "write", "fsync", "rename", "unlink", "unlinkat", "mkdir", "rmdir", "ftruncate", "utimensat")
SMALL = DATA[: 3 * SEGMENT + 7]


def killing_points(registry: FaultyRegistry, library: Library) -> list[tuple[str, int]]:
    """Every call of a whole pull that changes something on disk, by name and number."""
    trace = library.root.with_name("trace")
    run = start(
        library, registry.host, 1, (str(STRACE), "-f", "-qq", "-o", str(trace), "-e", f"trace={','.join(CALLS)}")
    )
    said, _ = run.communicate(timeout=60)
    if "ptrace" in said.lower():
        pytest.skip("no right to trace here")
    assert run.returncode == 0, said
    counts = Counter(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))
    assert counts["rename"] >= 3
    assert counts["fsync"] >= 4
    return [(call, number + 1) for call in sorted(counts) for number in range(counts[call])]


def kill_at(call: str, number: int, registry: FaultyRegistry, library: Library) -> None:
    """Kill a pull there; the store must hold nothing wrong, and the next pull must need no hand."""
    shutil.rmtree(library.root, ignore_errors=True)
    inject = (str(STRACE), "-f", "-qq", "-o", os.devnull, "-e", f"inject={call}:signal=KILL:when={number}")
    start(library, registry.host, 1, inject).communicate(timeout=60)
    where = f"{call} {number}"
    assert library.check() == [], where
    assert all(hashlib.sha256(data).hexdigest() == digest[7:] for digest, data in kept(library).items()), where
    take(registry, library)
    assert kept(library)[f"sha256:{hashlib.sha256(SMALL).hexdigest()}"] == SMALL, where
    library.prune(older_than_seconds=-1)
    assert library.check() == [], where
    assert len(os.listdir(library.blobs.root)) == 3, (where, os.listdir(library.blobs.root))


@pytest.mark.skipif(STRACE is None, reason="needs strace")
def test_killed_at_some_calls_the_store_is_sound(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", SMALL, b"a license")
    points = [point for point in killing_points(registry, library) if point[0] in ("pwrite64", "rename", "fsync")]
    for call, number in random.Random(0).sample(points, 4):
        kill_at(call, number, registry, library)


@pytest.mark.soak
@pytest.mark.skipif(STRACE is None, reason="needs strace")
def test_killed_at_any_call_the_store_is_sound(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", SMALL, b"a license")
    points = killing_points(registry, library)
    for call, number in points:
        kill_at(call, number, registry, library)
    print(f"killed at {len(points)} points: {Counter(call for call, _ in points)}")


# Push


def test_what_is_pushed_can_be_pulled(registry: FaultyRegistry, library: Library, tmp_path: Path) -> None:
    blobs = registry.add("library/m:latest", DATA, b"a license")
    take(registry, library)
    with FaultyRegistry() as target:
        target.token = "secret"
        name = ModelName.parse(f"{target.host}/me/copy:1")
        library.copy(f"{registry.host}/library/m", name)
        said: list[Progress] = []
        push(library, name, insecure=True, progress=said.append, settings=quick(target))
        states = list(dict.fromkeys(progress.status for progress in said))
        assert states[0] == "retrieving manifest"
        assert states[1] == f"pushing {DIGEST[7:19]}"
        assert states[-2:] == ["pushing manifest", "success"]
        assert [p.completed for p in said if p.digest == DIGEST][-1] == len(DATA)
        assert target.blobs == blobs
        assert target.manifests["me/copy:1"] == registry.manifests["library/m:latest"]
        patches = len([asked for asked in target.asked if asked.method == "PATCH"])
        assert patches == 5 + 2
        push(library, name, insecure=True, settings=quick(target))
        assert len([asked for asked in target.asked if asked.method == "PATCH"]) == patches
        second = Library(tmp_path / "second")
        take(target, second, "me/copy:1")
        assert kept(second) == blobs


def test_a_push_that_is_cut_off_is_tried_again(registry: FaultyRegistry, library: Library) -> None:
    registry.add("library/m:latest", DATA)
    take(registry, library)
    with FaultyRegistry() as target:
        name = ModelName.parse(f"{target.host}/me/copy:1")
        library.copy(f"{registry.host}/library/m", name)
        left = ["PATCH", "PUT", "HEAD"]
        target.script = lambda asked: "reset" if asked.method in left and not left.remove(asked.method) else None  # type: ignore[func-returns-value]
        push(library, name, insecure=True, settings=quick(target))
        assert target.blobs[DIGEST] == DATA
        assert left == []


def test_pushing_is_refused_where_pulling_is(library: Library) -> None:
    with pytest.raises(ModelNotFoundError):
        push(library, "127.0.0.1:9/x/y", insecure=True)
    blob = library.blobs.add(b"x")
    library.publish(ModelName.parse("127.0.0.1:9/x/y"), _manifest(blob.digest))
    with pytest.raises(RegistryError) as caught:
        push(library, "127.0.0.1:9/x/y", insecure=True)
    assert caught.value.status == 403


def _manifest(digest: str) -> Manifest:
    return Manifest(Layer(CONFIG, digest, 1), (Layer(MODEL, digest, 1),))


@pytest.mark.skipif(not shutil.which("docker-registry"), reason="needs docker-registry")
def test_there_and_back_over_dockers_own_registry(registry: FaultyRegistry, library: Library, tmp_path: Path) -> None:
    blobs = registry.add("library/m:latest", DATA, b"a license")
    take(registry, library)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "config.yml").write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {tmp_path / 'docker'}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
    )
    command = ["docker-registry", "serve", str(tmp_path / "config.yml")]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 20
        while not _listens(port) and time.monotonic() < until:
            time.sleep(0.05)
        name = ModelName.parse(f"127.0.0.1:{port}/me/m:1")
        settings = quick(allowed_registries=frozenset({f"127.0.0.1:{port}"}))
        library.copy(f"{registry.host}/library/m", name)
        push(library, name, insecure=True, settings=settings)
        second = Library(tmp_path / "second")
        manifest = pull(second, name, insecure=True, settings=settings)
        assert kept(second) == blobs
        assert manifest.to_bytes() == registry.manifests["library/m:latest"]
    finally:
        server.terminate()
        server.wait()


def _listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


# One door: T03


def test_one_function_makes_a_path_of_a_digest() -> None:
    source = Path(__file__).resolve().parents[2] / "src" / "lapilli"
    making = re.compile(r"""sha256-["']?\s*[{+%]|replace\(\s*["']:["']""")
    elsewhere = [
        f"{path.relative_to(source)}: {line.strip()}"
        for path in source.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if making.search(line) and path.relative_to(source).as_posix() != "store/blobs.py"
    ]
    assert elsewhere == []
    assert making.search((source / "store" / "blobs.py").read_text(encoding="utf-8"))
