"""The pictures that a request shows: as data: URLs, in base64, or by address where that is switched on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lapilli.errors import InputError
from lapilli.wire import fields
from lapilli.wire.question import MOST_PICTURES

NOT_BY_URL = "image URLs are not currently supported, please use base64 encoded data instead"
KINDS = ("image/jpeg", "image/jpg", "image/png", "image/webp")
LONGEST_URL = 8192


class Shown:
    """Pictures in the order in which a request shows them.

    With `by_url`, those that are named by an http(s) address stand in `urls` by their number, to be fetched; without,
    they are refused.
    """

    def __init__(self, *, by_url: bool = False) -> None:
        self.by_url = by_url
        self.data: list[bytes] = []
        self.urls: dict[int, str] = {}

    def add_url(self, url: Any, name: str) -> int:
        """A picture by a data: URL, or by its address; returns its number. Raises InputError."""
        if not isinstance(url, str):
            raise InputError(f"{name} must be a string, not {fields.kind_of(url)}")
        if url[:8].lower().startswith(("http://", "https://")):
            if not self.by_url:
                raise InputError(NOT_BY_URL)
            if len(url) > LONGEST_URL:
                raise InputError(f"{name} has {len(url)} characters: at most {LONGEST_URL} are taken")
            self.urls[len(self.data)] = url
            return self._add(b"")
        head, comma, body = url.partition(",")
        if not comma or head.lower() not in ("data:;base64", *(f"data:{kind};base64" for kind in KINDS)):
            raise InputError(f"invalid image input: {name} must begin with data:image/<jpeg, png or webp>;base64,")
        return self._add(fields.from_base64(body, name))

    def add_base64(self, data: Any, name: str) -> int:
        """A picture in plain base64; returns its number. Raises InputError."""
        return self._add(fields.from_base64(data, name))

    def pictures(self, fetched: Mapping[int, bytes]) -> tuple[bytes, ...]:
        """All of them, with those that were fetched in their places."""
        return tuple(fetched.get(number, data) for number, data in enumerate(self.data))

    def _add(self, data: bytes) -> int:
        if len(self.data) == MOST_PICTURES:
            raise InputError(f"more than {MOST_PICTURES} images in one request: at most that many are taken")
        self.data.append(data)
        return len(self.data) - 1
