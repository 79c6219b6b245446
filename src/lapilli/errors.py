"""What can go wrong, as one tree.

LapilliError
├── InputError             something a person gave cannot be used
│   ├── ImageError         bytes that are no picture, or one past the limits
│   └── PromptError        an empty prompt, pictures and placeholders that do not match
├── ModelNotFoundError     no model of that name
├── CheckpointError        files that are no model, damaged, hostile or incomplete
│   └── TokenizerError     a tokenizer we cannot reproduce exactly
├── TemplateError          a chat template that fails, runs too long or says too much
├── StoreError             the store of models is damaged, or cannot be written to
│   └── NoRoomError        its disk is full, or would be
├── RegistryError          a pull or a push that failed
├── NoMemoryError          a model that needs more memory than there is
├── BusyError              too many wait already; later there may be room
├── EngineGoneError        the process of a model ended, or answers no more
├── FetchError             a URL that may not be, or could not be, fetched
└── TrainingError          a run that cannot start or must not go on
"""

from __future__ import annotations


class LapilliError(Exception):
    """Any error that lapilli raises on purpose; its text is one line, fit to be shown to a person."""


class InputError(LapilliError, ValueError):
    """Something a person gave cannot be used."""


class ImageError(InputError):
    """Bytes that are no picture of an accepted format, or a picture past the limits."""


class PromptError(InputError):
    """A prompt that cannot be asked: empty, or its placeholders and pictures do not match."""


class ModelNotFoundError(LapilliError, LookupError):
    """No model of that name is here."""


class CheckpointError(LapilliError):
    """Files that are no model, or a damaged, hostile or incomplete one."""


class TokenizerError(CheckpointError):
    """A tokenizer that cannot be reproduced exactly, so it is refused by name."""


class TemplateError(LapilliError):
    """A chat template that fails, runs too long or says too much."""


class StoreError(LapilliError):
    """The store of models is damaged, or cannot be written to."""


class NoRoomError(StoreError):
    """The store's disk is full, or would be."""


class RegistryError(LapilliError):
    """A pull or a push that failed; `status` is the HTTP status that fits it."""

    def __init__(self, message: str, status: int = 502) -> None:
        super().__init__(message)
        self.status = status


class NoMemoryError(LapilliError):
    """A model needs more memory than there is, whatever else gives way; `status` is HTTP's word for that."""

    status = 507


class BusyError(LapilliError):
    """Too many requests wait already: ask again later."""


class EngineGoneError(LapilliError):
    """The process that a model runs in has ended, or answers no more."""


class FetchError(LapilliError):
    """A URL that may not be fetched, or could not be; `status` is the HTTP status that fits it."""

    def __init__(self, message: str, status: int = 502) -> None:
        super().__init__(message)
        self.status = status


class TrainingError(LapilliError):
    """A training run that cannot start, or must not go on."""
