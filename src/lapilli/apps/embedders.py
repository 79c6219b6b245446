"""Texts as vectors, for looking up what is near in meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Embedder(Protocol):
    """Turns texts into vectors of `size` numbers and length 1; `digest` names the weights that do it."""

    name: str
    digest: str
    size: int

    def embed(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """Vectors (N, size), one a text; a `query` may be read with other words before it than a passage."""
        ...
