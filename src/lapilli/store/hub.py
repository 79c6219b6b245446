"""Models from the Hugging Face hub: `hf:owner/name[@revision]` into a folder of the library.

pull_hub(library, "llava-hf/llava-1.5-7b-hf", progress=print)

Only files that are data are fetched: weights in safetensors or GGUF, configurations, tokenizers, templates. Each is
checked against the hash that the hub gives, and the folder is there when all of it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapilli.errors import InputError, LapilliError, ModelNotFoundError, RegistryError
from lapilli.ground.claim import Claim
from lapilli.ground.files import open_regular, publish
from lapilli.store import progress as words
from lapilli.store.blobs import disk_error
from lapilli.store.library import Library
from lapilli.store.progress import Progress, Report, say_nothing

# In folders lie programs and weights for other libraries, but also how sentence-transformers pools: `1_Pooling`.
_NAME = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}\.(safetensors|gguf|json|jinja|txt|model)|[0-9]{1,2}_Pooling/config\.json",
    re.ASCII,
)
_PROJECTOR = re.compile(r"mmproj", re.IGNORECASE)
_MARKS = ".lapilli.json"
_MOST_FILES = 1000
_WAIT = 0.2


@dataclass(frozen=True)
class HubFile:
    """A file of a repository: `digest` is `sha256:<hex>`, or `git:<hex>` (the hash of a small file as git has it)."""

    name: str
    size: int
    digest: str


def pull_hub(
    library: Library,
    repository: str,
    revision: str = "main",
    progress: Report | None = None,
    *,
    cancel: threading.Event | None = None,
    offline: bool = False,
    endpoint: str | None = None,
) -> Path:
    """Fetch a repository `owner/name` of the hub into the library; returns its folder.

    What an earlier revision has already is not fetched again. With `offline` only what is here is looked for.
    `endpoint` stands for https://huggingface.co (or `HF_ENDPOINT`).
    Raises InputError for a name that is none, ModelNotFoundError, RegistryError, NoRoomError, StoreError.
    """
    report = progress or say_nothing
    stop = cancel or threading.Event()
    owner, _, name = repository.partition("/")
    folder = library.hub_folder(owner, name, revision)
    if offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        if folder.is_dir():
            return folder
        raise ModelNotFoundError(f"hf:{repository} is not here, and lapilli is offline: nothing is fetched")
    report(Progress(words.PULLING_MANIFEST))
    with _told(repository):
        commit, files = _list(repository, revision, endpoint)
        files = _chosen(files, repository)
    if _marks(folder) == {"commit": commit, "files": _told_of(files)} and _is_whole(folder, files):
        report(Progress(words.SUCCESS))
        return folder
    try:
        hold = _wait_for(folder.with_name(f".{folder.name}.partial"), stop)
    except OSError as error:
        raise disk_error(error) from error
    try:
        fresh = hold.folder / "files"
        fresh.mkdir(exist_ok=True)
        _reuse(folder, fresh, files)
        library.blobs.need_room(sum(file.size for file in files if not (fresh / file.name).exists()))
        with _told(repository):
            for file in files:
                _pull_file(repository, commit, file, fresh, report, stop, hold, endpoint)
        report(Progress(words.VERIFYING))
        _drop_others(fresh, files)
        report(Progress(words.WRITING_MANIFEST))
        (fresh / _MARKS).write_text(json.dumps({"commit": commit, "files": _told_of(files)}), encoding="ascii")
        with publish(folder, replace_folder=True) as place:
            os.rename(fresh, place)
        hold.discard()
    except OSError as error:
        raise disk_error(error) from error
    finally:
        hold.release()
    report(Progress(words.SUCCESS))
    return folder


def find_hub(library: Library, repository: str, revision: str = "main") -> Path | None:
    """The folder of a repository that is here: in the library, or in the cache of the hub's own library; else None."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    owner, _, name = repository.partition("/")
    folder = library.hub_folder(owner, name, revision)
    if folder.is_dir():
        return folder
    try:
        cached = try_to_load_from_cache(repository, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(cached).parent if isinstance(cached, str) else None


@contextlib.contextmanager
def _told(repository: str) -> Iterator[None]:
    """The hub's errors in our words."""
    import huggingface_hub.errors as hub

    try:
        yield
    except _Interrupted:
        raise RegistryError(f"the pull of hf:{repository} was cancelled", 499) from None
    except LapilliError:
        raise
    except hub.GatedRepoError:
        raise RegistryError(
            f"hf:{repository}: its owner asks to be asked: accept the terms on its page, and set HF_TOKEN", 403
        ) from None
    except hub.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 404):
            raise ModelNotFoundError(f"hf:{repository}: the hub has no such model, or wants HF_TOKEN") from None
        raise RegistryError(f"hf:{repository}: the hub answered with status {status}") from None
    except OSError as error:
        if error.errno is not None:
            raise disk_error(error) from error
        raise RegistryError(f"hf:{repository}: {_line(error)}") from None
    except Exception as error:
        # Its HTTP client, its transfer library: neither promises a class.
        raise RegistryError(f"hf:{repository}: {type(error).__name__}: {_line(error)}") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _list(repository: str, revision: str, endpoint: str | None) -> tuple[str, list[HubFile]]:
    """The commit that a revision means, and the files of it that may be fetched."""
    from huggingface_hub import HfApi

    info = HfApi(endpoint=endpoint).model_info(repository, revision=revision, files_metadata=True, timeout=30)
    commit = str(info.sha)
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise RegistryError(f"hf:{repository}: the hub names no commit")
    files = []
    for entry in info.siblings or []:
        if not _NAME.fullmatch(entry.rfilename):
            continue  # in a folder, or no data: pickles and programs stay where they are
        digest = f"sha256:{entry.lfs.sha256}" if entry.lfs is not None else f"git:{entry.blob_id}"
        size = entry.lfs.size if entry.lfs is not None else entry.size
        if not isinstance(size, int) or size < 0 or not re.fullmatch(r"(sha256|git):[0-9a-f]{40,64}", digest):
            raise RegistryError(f"hf:{repository}: the hub gives no size and hash of {entry.rfilename}")
        files.append(HubFile(entry.rfilename, size, digest))
    if len(files) > _MOST_FILES:
        raise RegistryError(f"hf:{repository} has {len(files)} files, at most {_MOST_FILES} are fetched")
    return commit, files


def _chosen(files: list[HubFile], repository: str) -> list[HubFile]:
    """Of weights that are there more than once, one: safetensors before GGUF, of GGUF the type that Ollama takes."""
    weights = {file.name for file in files if file.name.endswith((".safetensors", ".gguf"))}
    tensors = {name for name in weights if name.endswith(".safetensors")}
    if any(name.startswith("model") for name in tensors):
        tensors = {name for name in tensors if not name.startswith("consolidated")}
    chosen = tensors
    if not tensors:
        ggufs = {name for name in weights if not _PROJECTOR.search(name)}
        chosen = _one(ggufs, ("q4_k_m", "q4_0", "q8_0"), repository)
        chosen |= _one(weights - ggufs, ("f16", "bf16", "q8_0"), repository)
    if not chosen:
        raise InputError(f"hf:{repository} has no weights in safetensors or GGUF, and nothing else is fetched")
    return [file for file in files if file.name in chosen or file.name not in weights]


def _one(names: set[str], types: tuple[str, ...], repository: str) -> set[str]:
    if len(names) < 2:
        return names
    for type in types:
        found = sorted(name for name in names if re.search(rf"(^|[-_.]){type}\.gguf$", name.lower()))
        if found:
            return {found[0]}
    raise InputError(
        f"hf:{repository} has {len(names)} GGUF files and none of {', '.join(types)}: "
        "fetch the one you want by hand, and create a model from it"
    )


def _wait_for(folder: Path, stop: threading.Event) -> Claim:
    while (hold := Claim.take(folder)) is None:
        if stop.wait(_WAIT):
            raise RegistryError("the pull was cancelled", 499)
    return hold


def _pull_file(
    repository: str,
    commit: str,
    file: HubFile,
    folder: Path,
    report: Report,
    stop: threading.Event,
    hold: Claim,
    endpoint: str | None,
) -> None:
    from huggingface_hub import hf_hub_download

    shown = f"sha256:{hashlib.sha256(file.digest.encode()).hexdigest()}" if file.digest[:4] == "git:" else file.digest
    path = folder / file.name

    def tell(completed: int) -> None:
        report(Progress.layer("pulling", shown, file.size, min(completed, file.size)))

    for again in (True, False):
        if not (path.is_file() and path.stat().st_size == file.size):
            path.unlink(missing_ok=True)
            bar = _bar(tell, stop, hold)
            hf_hub_download(repository, file.name, revision=commit, local_dir=folder, tqdm_class=bar, endpoint=endpoint)
        if stop.is_set():
            raise _Interrupted
        if _digest(path, file) == file.digest:
            tell(file.size)
            return
        path.unlink(missing_ok=True)
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        if not again:
            raise RegistryError(f"{file.name}: digest mismatch: what the hub sends is not what it lists")


class _Interrupted(Exception):
    """The pull was told to stop."""


def _bar(tell: Any, stop: threading.Event, hold: Claim) -> type[Any]:
    """What the hub's library takes for a progress bar: it tells us how far it is, and ends when we do."""

    class Bar:
        def __init__(self, *_: object, initial: int = 0, total: int | None = None, **__: object) -> None:
            self.n, self.total = initial or 0, total
            self._said = 0.0

        def update(self, count: float | None = 1) -> None:
            self.n += int(count or 0)
            if stop.is_set():
                raise _Interrupted
            if time.monotonic() - self._said > 0.06:
                self._said = time.monotonic()
                tell(self.n)
                hold.beat()

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __getattr__(self, _: str) -> Any:
            return lambda *_, **__: None

    return Bar


def _digest(path: Path, file: HubFile) -> str:
    kind = file.digest.partition(":")[0]
    hashed = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
    with open_regular(path) as opened:
        if kind == "git":
            hashed.update(f"blob {file.size}\0".encode())
        while chunk := opened.read(1 << 20):
            hashed.update(chunk)
    return f"{kind}:{hashed.hexdigest()}"


def _marks(folder: Path) -> dict[str, Any]:
    """What a folder says of its commit and its files."""
    try:
        values = json.loads((folder / _MARKS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _told_of(files: list[HubFile]) -> dict[str, str]:
    return {file.name: file.digest for file in files}


def _is_whole(folder: Path, files: list[HubFile]) -> bool:
    return all((folder / file.name).is_file() and (folder / file.name).stat().st_size == file.size for file in files)


def _reuse(old: Path, fresh: Path, files: list[HubFile]) -> None:
    """Take over what an earlier revision has of the same content; it is checked like the rest."""
    known = _marks(old).get("files")
    for file in files:
        if isinstance(known, dict) and known.get(file.name) == file.digest and not (fresh / file.name).exists():
            with contextlib.suppress(OSError):
                (fresh / file.name).parent.mkdir(exist_ok=True)
                os.link(old / file.name, fresh / file.name)


def _drop_others(folder: Path, files: list[HubFile]) -> None:
    names = {file.name for file in files}
    kept = names | {name.partition("/")[0] for name in names}
    for path in folder.iterdir():
        if path.name in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
