"""Opening what a configuration names: the model that answers, and the one that makes vectors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapilli.apps.rag.config import EmbedderPart
from lapilli.apps.rag.providers import EMBEDDERS, NAMED, Dialect, Opening
from lapilli.errors import InputError, LapilliError, ModelNotFoundError
from lapilli.ground.files import publish

if TYPE_CHECKING:
    from lapilli.apps.backend.call import Backend
    from lapilli.apps.embedders import Embedder


def open_model(opening: Opening) -> Backend:
    """The model that answers.

    Where nobody said which server has it, and none is up or has it, a model of that name is opened in this process.
    Raises ModelNotFoundError or another LapilliError.
    """
    from lapilli.apps.backend.opening import open_backend

    if opening.url is not None:
        try:
            return open_backend(
                opening.model, url=opening.url, dialect=opening.dialect, key=opening.key,
                quantize=None if opening.or_here else opening.quantize,
            )  # fmt: skip
        except LapilliError as away:
            if not opening.or_here:
                raise
            told = str(away)
    try:
        return open_backend(opening.model, quantize=opening.quantize, device=opening.device)
    except ModelNotFoundError as error:
        if opening.url is None:
            raise
        raise ModelNotFoundError(f"{told}; nor is the model here: {error}") from None


def open_vectors(part: EmbedderPart | None) -> Embedder | None:
    """What makes vectors: what was said, else the best that is here; None is full text alone.

    Raises InputError where its vectors have another size than was said, LapilliError where it cannot be opened.
    """
    way = "here" if part is None else EMBEDDERS[part.provider]
    if way == "none":
        return None
    from lapilli.apps.embedders import open_embedder

    if part is None:
        return open_embedder(None)
    if way == "here" and part.url is None:
        embedder = open_embedder(part.model)
    else:
        url = part.url or (NAMED if way == "ollama" else os.environ.get("OPENAI_BASE_URL"))
        dialect: Dialect | None = "ollama" if way == "ollama" else "openai" if way == "openai" else None
        embedder = open_embedder(part.model, url=url, dialect=dialect, key=part.config.api_key)
    wanted = part.config.vector_dimension
    if embedder is not None and wanted is not None and embedder.size != wanted:
        raise InputError(
            f"embedder.config.vector_dimension is {wanted}, the vectors of {embedder.name} have {embedder.size}: "
            "leave it out, the model says it"
        )
    return embedder


def remember(folder: Path, collection: str, part: EmbedderPart) -> None:
    """Keep which embedder a collection was begun with, its key left out, for whoever opens it without saying."""
    told = part.model_dump(exclude_unset=True)
    told.get("config", {}).pop("api_key", None)
    kept = _kept(folder)
    if kept.get(collection) == told:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with publish(folder / _NAME) as fresh:
        fresh.write_text(json.dumps(kept | {collection: told}, indent=1, sort_keys=True), encoding="utf-8")


def remembered(folder: Path, collection: str) -> EmbedderPart | None:
    """The embedder that a collection was begun with, None where nobody said."""
    told = _kept(folder).get(collection)
    try:
        return None if told is None else EmbedderPart.model_validate(told)
    except ValueError:
        raise InputError(f"{folder / _NAME}: what it says of {collection!r} is no embedder: remove the file") from None


_NAME = "_embedders.json"  # no collection's name begins so


def _kept(folder: Path) -> dict[str, Any]:
    try:
        kept = json.loads((folder / _NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{folder / _NAME}: cannot be read ({error}): remove the file") from None
    return kept if isinstance(kept, dict) else {}
