"""LLaVA on your own machine, in small pieces: train, quantize, run, serve and apply vision-language models.

    import lapilli
    model = lapilli.load("mini")
    model.chat("What is in this picture?", images=["photo.png"]).text

Importing this costs next to nothing: what needs torch is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lapilli.errors import (
    BusyError,
    CheckpointError,
    EngineGoneError,
    FetchError,
    ImageError,
    InputError,
    LapilliError,
    ModelNotFoundError,
    NoMemoryError,
    NoRoomError,
    PromptError,
    RegistryError,
    StoreError,
    TemplateError,
    TokenizerError,
    TrainingError,
)

if TYPE_CHECKING:
    from lapilli.apps.rag.app import App as App
    from lapilli.engine.local import load as load
    from lapilli.engine.pipeline import pipeline as pipeline

__version__ = "0.1.0"

__all__ = [
    "App",
    "BusyError",
    "CheckpointError",
    "EngineGoneError",
    "FetchError",
    "ImageError",
    "InputError",
    "LapilliError",
    "ModelNotFoundError",
    "NoMemoryError",
    "NoRoomError",
    "PromptError",
    "RegistryError",
    "StoreError",
    "TemplateError",
    "TokenizerError",
    "TrainingError",
    "load",
    "pipeline",
]

_LAZY = {
    "App": "lapilli.apps.rag.app",
    "load": "lapilli.engine.local",
    "pipeline": "lapilli.engine.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'lapilli' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
