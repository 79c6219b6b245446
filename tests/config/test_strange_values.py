"""A configuration is a stranger's: whatever its values are, it is read or refused in one line."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import tiny

from lapilli.config import LlavaConfig
from lapilli.errors import CheckpointError

STRANGE: list[Any] = [
    None, True, "x", "", "x" * 10_000, -1, 0, 7, 1 << 24, 1 << 40, 10**400, 1e308, float("nan"), float("inf"), [], {},
    [[]], ["a"], [1], [[1]], [float("inf")], {"a": 1}, [None, None],
]  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": tiny.FACTORS, "long_factor": tiny.FACTORS,
    "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 1.0, "beta_fast": 32,
    "beta_slow": 1, "attention_factor": 1.0, "truncate": True, "original_max_position_embeddings": 32,
}  # fmt: skip
CONFIGS = {
    "LLaVA-NeXT": tiny.llava_config(tiny.vision_config("clip"), image_grid_pinpoints=[[28, 56], [56, 28]]),
    "LLaVA": tiny.llava_config(tiny.vision_config("siglip"), vision_feature_select_strategy="full"),
    "Llama": tiny.text_config("llama", rope_parameters=YARN),
    "Mistral": tiny.text_config("mistral", sliding_window=16),
    "Phi-3": tiny.text_config("phi3", rope_parameters=LONGROPE, original_max_position_embeddings=32),
    "Qwen2": tiny.text_config("qwen2", use_sliding_window=True, sliding_window=16, max_window_layers=1),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_strange_values_are_refused_in_one_line(name: str) -> None:
    values = CONFIGS[name].to_dict()
    LlavaConfig.from_dict(values)
    said = []
    for path in places(values):
        for value in STRANGE:
            try:
                LlavaConfig.from_dict(changed(values, path, value))
            except CheckpointError as error:
                said.append(str(error))
    assert len(said) > 100
    assert not any("\n" in text for text in said)
    assert max(map(len, said)) < 300


def places(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, Mapping):
            yield from places(value, (*above, key))


def changed(values: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    whole = copy.deepcopy(dict(values))
    part = whole
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return whole
