"""A folder that holds an adapter alone, opened over the model that it names."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable

from lapilli.checkpoints.objects import read_object
from lapilli.errors import InputError, ModelNotFoundError, StoreError
from lapilli.store.package import Package

ADAPTER_CONFIG = "adapter_config.json"


def over_its_base(package: Package, find: Callable[[str], Package]) -> Package:
    """The model as it lies there; an adapter's folder as its base model, by `find`, with that adapter.

    `base_model_name_or_path` is a name, the hub's `owner/name` of a model that was fetched, or a path, seen from here
    or from the adapter's folder. Raises StoreError where that is no model that is here, or another adapter.
    """
    folder = package.model
    if not (folder / ADAPTER_CONFIG).is_file() or (folder / "config.json").is_file():
        return package
    named = read_object(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise StoreError(f"{folder}: this adapter names no base model: give that model, and this folder as --adapter")
    for text in (named, f"hf:{named}", str(folder / named)):
        with contextlib.suppress(ModelNotFoundError, InputError):
            base = find(text)
            if (base.model / ADAPTER_CONFIG).is_file() and not (base.model / "config.json").is_file():
                raise StoreError(f"{folder}: it is an adapter over {named[:200]!r}, which is one itself")
            return dataclasses.replace(
                base,
                name=package.name,
                digest=hashlib.sha256(f"{base.digest} {package.digest}".encode()).hexdigest(),
                size=base.size + package.size,
                modified=max(base.modified, package.modified),
                adapters=(*base.adapters, folder),
            )
    raise StoreError(
        f"{folder}: it is an adapter over {named[:200]!r}, which is not here: pull it, or give a base model and this "
        "folder as --adapter"
    )
