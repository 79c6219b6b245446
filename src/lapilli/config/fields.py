"""Reading fields of a stranger's configuration: the right type, in range, named where it is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from lapilli.errors import CheckpointError

Json = Mapping[str, Any]

Activation = Literal["quick_gelu", "gelu", "gelu_tanh", "silu", "identity"]
_ACTIVATIONS: dict[str, Activation] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "linear": "identity",
}
ACTIVATION_NAMES: dict[Activation, str] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "silu": "silu",
    "identity": "linear",
}


def activation(values: Json, where: str, key: str = "hidden_act", default: str | None = None) -> Activation:
    name = values.get(key, default)
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise CheckpointError(f"{where}: {key} {shown(name)} is not one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def shown(value: object) -> str:
    """A stranger's value, short and on one line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


_MISSING = object()


def integer(values: Json, key: str, where: str, default: Any = _MISSING) -> int:
    value = values.get(key)
    if value is None:
        value = default
    if value is _MISSING:
        raise CheckpointError(f"{where}: {key} is missing")
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 63:
        raise CheckpointError(f"{where}: {key} must be a whole number, it is {shown(value)}")
    return value


def number(values: Json, key: str, where: str, default: Any = _MISSING) -> float:
    value = values.get(key)
    if value is None:
        value = default
    if value is _MISSING:
        raise CheckpointError(f"{where}: {key} is missing")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _LARGEST_NUMBER:
        raise CheckpointError(f"{where}: {key} must be a finite number, it is {shown(value)}")
    return float(value)


def integers(values: Json, key: str, where: str, default: int | None = None) -> tuple[int, ...]:
    """A list of whole numbers, or one of them alone."""
    found = values.get(key)
    if found is None:
        found = [] if default is None else default
    return tuple(integer({key: value}, key, where) for value in (found if isinstance(found, list | tuple) else [found]))


def numbers(values: Json, key: str, where: str) -> tuple[float, ...]:
    """A list of finite numbers, empty where there is none."""
    found = values.get(key)
    if found is None:
        return ()
    if not isinstance(found, list | tuple):
        raise CheckpointError(f"{where}: {key} must be a list of numbers, it is {shown(found)}")
    return tuple(number({key: value}, key, where) for value in found)


# Far above any real model, far below what would overflow a product of two sizes.
_LARGEST = 1 << 24
_LARGEST_NUMBER = 1e15


def require_positive(config: Any, where: str, skip: tuple[str, ...] = ()) -> None:
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if isinstance(value, bool) or not isinstance(value, int) or item.name in skip:
            continue
        if not 1 <= value <= _LARGEST:
            raise CheckpointError(f"{where}: {item.name} is {value}, it must be between 1 and {_LARGEST}")


def require_divisible(where: str, name: str, value: int, by_name: str, by: int) -> None:
    if value % by:
        raise CheckpointError(f"{where}: {name} {value} is not divisible by {by_name} {by}")
