"""Amounts as people write and read them. Durations are tested where they are read, in tests/wire and test_settings."""

from __future__ import annotations

import pytest

from lapilli.ground.amounts import count_text, memory_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (999, "999"),
        (12_345, "12K"),
        (9_134_592, "9.13M"),
        (494_000_000, "494M"),
        (311_890_000, "311.89M"),
        (7_241_732_096, "7.2B"),
        (7_000_000_000, "7B"),
        (1_250_000_000_000, "1.2T"),
    ],
)
def test_weights_are_counted_as_ollama_counts_them(count: int, text: str) -> None:
    assert count_text(count) == text


def test_memory_is_said_in_steps_of_1024() -> None:
    assert [memory_text(size) for size in (1023, 1536, 5 << 20, 6_764_573_491)] == [
        "1023 bytes",
        "1.5 KiB",
        "5.0 MiB",
        "6.3 GiB",
    ]
