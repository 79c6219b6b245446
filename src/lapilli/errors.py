"""What can go wrong, as one tree.

LapilliError
├── InputError             something a person gave cannot be used
│   ├── ImageError         bytes that are no picture, or one past the limits
│   └── PromptError        an empty prompt, pictures and placeholders that do not match
├── ModelNotFoundError     no model of that name
├── CheckpointError        files that are no model, damaged, hostile or incomplete
│   └── TokenizerError     a tokenizer we cannot reproduce exactly
├── TemplateError          a chat template that fails, runs too long or says too much
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


class FetchError(LapilliError):
    """A URL that may not be fetched, or could not be."""


class TrainingError(LapilliError):
    """A training run that cannot start, or must not go on."""
