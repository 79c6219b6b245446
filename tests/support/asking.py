"""Calls of every kind, for backends that must agree about them."""

from __future__ import annotations

from lapilli.apps.backend.call import Call

SCHEMA = {
    "type": "object",
    "properties": {
        "shape": {"enum": ["circle", "square", "star"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["shape", "count"],
    "additionalProperties": False,
}


def calls(picture: bytes, count: int = 16) -> list[Call]:
    """Short ones and long ones, some with a picture, a schema, chances, a stop text, or drawn by a seed."""
    found = []
    for number in range(count):
        found.append(
            Call.of(
                f"What is number {number} of the things? {'Look, ' * (number % 5)}please.",
                [picture] if number % 5 == 0 else [],
                system="Be short." if number % 4 == 3 else "",
                max_tokens=40 if number % 4 == 1 else 3 + number % 6,
                schema=SCHEMA if number % 4 == 1 else None,
                chances=number % 3 != 2,
                stop=("a",) if number % 4 == 2 else (),
                temperature=0.8 if number % 7 == 6 else 0.0,
                top_p=0.9 if number % 7 == 6 else 1.0,
                seed=number if number % 7 == 6 else None,
            )
        )
    return found
