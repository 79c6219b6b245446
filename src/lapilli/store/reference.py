"""Which model a name means, for `lapilli.load`: built in, stored, a folder, a GGUF file, or the hub's."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from lapilli.errors import InputError, ModelNotFoundError
from lapilli.inputs.templates import TemplateText
from lapilli.store.library import Library
from lapilli.store.naming import ModelName as ModelName
from lapilli.store.sources import BUILT_IN


@dataclass(frozen=True)
class Reference:
    """Where a named model lies: a folder, or a GGUF file with its projector, and what the store keeps beside it."""

    name: str
    path: Path
    projector: Path | None = None
    adapters: tuple[Path, ...] = ()
    template: TemplateText | None = None


def resolve(name: str | Path, library: Library | None = None) -> Reference:
    """Find a model by name: a built-in one, a stored one, a checkpoint folder, a GGUF file, or `hf:owner/name`.

    A path comes first where it says it is one (`./mini`), else after the names. The library is the one that the
    settings name, unless one is given. Raises ModelNotFoundError with the nearest name, StoreError for a damaged one.
    """
    text = str(name)
    library = library or default_library()
    try:
        package = library.find(text, paths=True)
    except (ModelNotFoundError, InputError):
        known = [*BUILT_IN, *(found.short.removesuffix(":latest") for found in library.names())]
        near = difflib.get_close_matches(text, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"here are {', '.join(dict.fromkeys(known))}."
        told = f"no model {text[:200]!r}: {hint} Or give a checkpoint folder or a .gguf file"
        raise ModelNotFoundError(told) from None
    return Reference(text, package.model, package.projector, package.adapters, package.template)


def default_library() -> Library:
    """The library that the settings name."""
    from lapilli.ground.settings import Settings

    settings = Settings()
    return Library(settings.models, settings.other_models)
