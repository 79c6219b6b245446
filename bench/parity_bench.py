"""How far lapilli's logits are from those of transformers, part by part, and at LLaVA-1.5-7B's own widths.

python bench/parity_bench.py            # takes about 6 GB of memory and 3 GB of disk, for the full widths
python bench/parity_bench.py --tiny     # without them
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from numbers_page import Section, publish

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
import parity


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare logits with those of transformers.")
    parser.add_argument("--tiny", action="store_true", help="leave LLaVA-1.5-7B's own widths out")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    section = Section("Logits beside transformers")
    section.add(
        f"Max abs difference of any logit from transformers {importlib.metadata.version('transformers')}, in float32, "
        "with the same random weights from the same files; with and without a cache, in one piece and in several. "
        "Logits have a deviation of 0.5 at least."
    )
    rows = [(f"decoder: {name}", measured(parity.decoder_difference, name)) for name in parity.DECODERS]
    rows += [(f"tower: {name}", measured(parity.tower_difference, name)) for name in parity.TOWERS]
    rows += [
        (f"LLaVA-NeXT on {family}, {len(parity.SIZES)} sizes", measured(parity.any_resolution_difference, family))
        for family in ("clip", "siglip")
    ]
    if not options.tiny:
        rows.append(("LLaVA-1.5-7B's widths, 2 layers each", measured(parity.full_width_difference)))
    section.table(["part", "max abs difference"], [(name, f"{far:.1e}") for name, far in rows])
    publish(section)
    if max(far for _, far in rows) > parity.TOLERANCE:
        raise SystemExit(f"a difference is above {parity.TOLERANCE:.0e}")


def measured(difference: Callable[..., float], *name: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return difference(*name, Path(folder))


if __name__ == "__main__":
    main()
