"""Ollama's options: which there are, of what kind and how large, and what the engine calls them.

asked = read_options(question.defaults, package.parameters, question.sampling)
asked.sampling, asked.context       # fields of SamplingOptions, num_ctx

https://github.com/ollama/ollama/blob/main/docs/modelfile.md#valid-parameters-and-values
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lapilli.errors import InputError

log = logging.getLogger("lapilli.options")

DEFAULTS: Mapping[str, Any] = {
    "temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.0, "repeat_penalty": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0, "seed": -1, "stop": (),
}  # fmt: skip
MOST_STOPS = 64
LONGEST_STOP = 1000
_MOST = (1 << 31) - 1
_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an answer is drawn by (fields of SamplingOptions), and how long its context may be, if that was said."""

    sampling: Mapping[str, Any]
    context: int | None = None


def read_options(*layers: Mapping[str, Any]) -> Options:
    """Options out of layers, each of which wins over those before it; Ollama's defaults lie under them all.

    The last layer is a request's own. An option that is none is logged and ignored, null is as if it was not there, and
    what sets up a runner (num_thread, num_batch, …) is checked and has no effect. Raises InputError that names the
    option.
    """
    values = dict(DEFAULTS)
    for layer in layers:
        unknown = sorted(name for name in layer if name not in _READERS and name not in _GONE)
        if unknown:
            log.warning("options that are none: %s", ", ".join(ascii(name[:40]) for name in unknown[:_SHOWN]))
        for name, value in layer.items():
            reader = _READERS.get(name)
            if reader is not None and value is not None:
                values[name] = reader(name, value)
    sampling = {name: values[name] for name in _DRAWN}
    sampling["seed"] = None if values["seed"] == -1 else values["seed"]
    # Nothing at all is the likeliest alone, which is what a hair's breadth is too.
    sampling["top_p"] = max(values["top_p"], 1e-9)
    if "num_predict" in values:
        sampling["max_tokens"] = None if values["num_predict"] < 0 else values["num_predict"]
    return Options(sampling=sampling, context=values.get("num_ctx"))


_DRAWN = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty", "stop")


def _integer(low: int, high: int = _MOST) -> Callable[[str, Any], int]:
    def read(name: str, value: Any) -> int:
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole:
            raise InputError(f'option "{name}" must be of type integer')
        if not low <= value <= high:
            raise InputError(f'option "{name}" is {_brief(value)}: it must be from {low} to {high}')
        return int(value)

    return read


def _number(low: float, high: float, *, above: bool = False) -> Callable[[str, Any], float]:
    def read(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f'option "{name}" must be of type float32')
        if not low <= value <= high or (above and value == low) or not math.isfinite(value):
            raise InputError(
                f'option "{name}" is {_brief(value)}: it must be {"above" if above else "from"} {low:g} '
                f"{'and at most' if above else 'to'} {high:g}"
            )
        return float(value)

    return read


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError(f'option "{name}" must be of type boolean')
    return value


def _stops(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, list | tuple):
        raise InputError(f'option "{name}" must be of type array')
    if not all(isinstance(text, str) for text in value):
        raise InputError(f'option "{name}" must be of an array of strings')
    if len(value) > MOST_STOPS:
        raise InputError(f'option "{name}" has {len(value)} texts: at most {MOST_STOPS} are taken')
    if any(len(text) > LONGEST_STOP for text in value):
        raise InputError(f'option "{name}" has a text of more than {LONGEST_STOP} characters')
    return tuple(dict.fromkeys(text for text in value if text))


_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "temperature": _number(0, 100),
    "top_k": _integer(0),
    "top_p": _number(0, 1),
    "min_p": _number(0, 1),
    "typical_p": _number(0, 1),
    "repeat_penalty": _number(0, 100, above=True),
    "presence_penalty": _number(-100, 100),
    "frequency_penalty": _number(-100, 100),
    "repeat_last_n": _integer(-1),
    "seed": _integer(-_MOST - 1, (1 << 63) - 1),
    "num_predict": _integer(-2),
    "num_ctx": _integer(1),
    "num_keep": _integer(-1),
    "num_batch": _integer(1),
    "num_gpu": _integer(-1),
    "main_gpu": _integer(0),
    "num_thread": _integer(0),
    "draft_num_predict": _integer(0),
    "use_mmap": _flag,
    "stop": _stops,
}
# What Ollama's runners once knew; clients still send these, whatever their values.
_GONE = frozenset(
    (
        *("mirostat", "mirostat_tau", "mirostat_eta", "tfs_z", "penalize_newline", "numa", "low_vram", "f16_kv"),
        *("logits_all", "vocab_only", "use_mlock", "embedding_only", "num_gqa"),
        *("rope_frequency_base", "rope_frequency_scale"),
    )
)


def _brief(value: float) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
