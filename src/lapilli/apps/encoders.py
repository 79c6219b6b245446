"""An embedder in this process: a text encoder of BERT's kind, many texts at once."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lapilli.checkpoints.encoder import EncoderCheckpoint
from lapilli.model.encoder import encode

_ROWS = 8  # texts of one step: a whole number of eights has the same bits in every row
_STEP = 16  # tokens: texts are computed as long as the next multiple of this


class EncoderEmbedder:
    """Vectors of a checkpoint; a text has the same bits whatever is embedded beside it.

    Of a text past the model's limit the beginning counts. Safe from several threads.
    """

    def __init__(self, checkpoint: EncoderCheckpoint, name: str, digest: str) -> None:
        """`digest` is that of the files; how they are used goes into ours."""
        self.checkpoint, self.name = checkpoint, name
        self.size = checkpoint.config.hidden_size
        use = (digest, checkpoint.pooling, checkpoint.query_prefix, checkpoint.text_prefix, str(checkpoint.max_tokens))
        self.digest = hashlib.sha256("\0".join(use).encode()).hexdigest()
        self._turn = threading.Lock()

    def embed(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """Vectors (N, size) of length 1. Raises InputError for text that holds half a character."""
        checkpoint = self.checkpoint
        prefix = checkpoint.query_prefix if query else checkpoint.text_prefix
        ids = [checkpoint.tokenizer.encode(prefix + text, most=checkpoint.max_tokens) for text in texts]
        vectors_ND = np.zeros((len(texts), self.size), np.float32)
        for width, places in _together(ids, checkpoint.config.max_positions):
            with self._turn:
                vectors_ND[places] = encode(
                    checkpoint.model,
                    [ids[place] for place in places],
                    width=width,
                    rows=_ROWS,
                    pad=checkpoint.tokenizer.pad_id,
                    first=checkpoint.pooling == "cls",
                ).numpy()
        return vectors_ND


def _together(ids: Sequence[Sequence[int]], longest: int) -> Iterator[tuple[int, list[int]]]:
    """The numbers of the texts that go together, with the width at which they do."""
    by_width: defaultdict[int, list[int]] = defaultdict(list)
    for place, text in enumerate(ids):
        by_width[min(-(-len(text) // _STEP) * _STEP, longest)].append(place)
    for width, places in sorted(by_width.items()):
        for start in range(0, len(places), _ROWS):
            yield width, places[start : start + _ROWS]
