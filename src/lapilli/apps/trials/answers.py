"""What a model said, as interventions: whole answers, answers that ended in the middle, and answers that are none.

Nothing is guessed: an intervention counts when its object is complete. Its confidence is the geometric mean of the
probabilities of the tokens that wrote its values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lapilli.apps.backend.call import Reply

LIST = "interventions"
_LONGEST = 400


@dataclass(frozen=True)
class Said:
    """One intervention as a model wrote it: its values that are texts, and how likely they were to it."""

    values: Mapping[str, str]
    confidence: float | None = None


@dataclass(frozen=True)
class Answered:
    """What one reply holds; `whole` is False where it ended in the middle or is no answer of this kind."""

    said: tuple[Said, ...]
    whole: bool
    readable: bool = True


def read_answer(reply: Reply) -> Answered:
    """The interventions of a reply. Never raises: what is no answer is not readable."""
    text = reply.text
    start = _list_start(text)
    if start is None:
        return Answered((), whole=False, readable=False)
    decoder = json.JSONDecoder()
    said: list[Said] = []
    place = _skip(text, start)
    while place < len(text) and text[place] == "{":
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            return Answered(tuple(said), whole=False)
        if (values := _texts(value)) and values.get("name"):
            said.append(Said(values, _confidence(reply, place, end, values)))
        place = _skip(text, end)
        if place < len(text) and text[place] == ",":
            place = _skip(text, place + 1)
    return Answered(tuple(said), whole=text[place : place + 1] == "]")


def _list_start(text: str) -> int | None:
    """Where the first element of the list is; a list by itself is taken as well."""
    head = _skip(text, 0)
    if text[head : head + 1] == "[":
        return head + 1
    name = text.find(f'"{LIST}"', head)
    if text[head : head + 1] != "{" or name < 0:
        return None
    colon = _skip(text, name + len(LIST) + 2)
    begin = _skip(text, colon + 1)
    return begin + 1 if text[colon : colon + 1] == ":" and text[begin : begin + 1] == "[" else None


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {
        str(name): " ".join(given.split())
        for name, given in value.items()
        if isinstance(given, str) and given.strip() and len(given) <= _LONGEST and _is_text(given)
    }


def _is_text(given: str) -> bool:
    """Whether it can be written down: JSON may hold half a surrogate pair."""
    try:
        given.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in given


def _confidence(reply: Reply, start: int, end: int, values: Mapping[str, str]) -> float | None:
    """From the tokens that overlap the values of the object at `start`; what the form alone decides tells nothing."""
    if not reply.chances:
        return None
    places = _places(reply.text, start, end, values)
    # Texts of tokens put together are the answer with the blank before it, which the answer's text has not.
    offset = len(reply.text) - sum(len(text) for text, _ in reply.chances)
    found: list[float] = []
    for text, chance in reply.chances:
        begin, offset = offset, offset + len(text)
        if any(begin < stop and first < offset for first, stop in places):
            found.append(chance)
    if not found:
        return None
    return round(min(math.exp(math.fsum(found) / len(found)), 1.0), 4)


def _places(text: str, start: int, end: int, values: Mapping[str, str]) -> Sequence[tuple[int, int]]:
    places = []
    for name in ("name", "type"):
        written = json.dumps(values.get(name, ""), ensure_ascii=False)
        at = text.find(written, start, end)
        if name in values and at >= 0:
            places.append((at, at + len(written)))
    return places or [(start, end)]
