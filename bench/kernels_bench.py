"""How fast quantized matrices are read and multiplied, beside what the memory of this machine gives.

python bench/kernels_bench.py           # about a minute, 1 GB of memory
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from numbers_page import Section, publish

from lapilli.kernels.packing import LAYOUTS
from lapilli.kernels.quantized import QuantizedWeight, implementation, linear

# (N, K) of the matrices of a Llama of 1.1 B weights.
SHAPES = {
    "q, k, v": (2560, 2048),
    "out": (2048, 2048),
    "gate, up": (11264, 2048),
    "down": (2048, 5632),
    "head": (32000, 2048),
}
TYPES = ("Q4_0", "Q4_1", "Q4_K", "Q6_K", "Q8_0")
TURNED = 100e6  # bytes of weights taken in turn, so that none is still in a cache
ROUNDS = 7
MANY = 600


def main() -> None:
    section = Section("Kernels: quantized matrices")
    section.add(
        f"The matrices of a Llama of 1.1 B weights, activations in bfloat16, `{implementation()}`, "
        f"{torch.get_num_threads()} threads. Medians of {ROUNDS}. Bandwidth is what a float32 sum over 1 GB reads, "
        "measured before and after each matrix; `read` is the packed weight's bytes over the time of one row of "
        "activations, beside its share of that; `8 rows` is the tokens a second of eight rows over those of one."
    )
    plain = torch.ones(1 << 28)
    rows = []
    for type in TYPES:
        for name, (N, K) in SHAPES.items():
            if type == "Q4_K" or name == "gate, up":
                rows.append(measured(type, name, N, K, plain))
    header = ["type", "matrix", "bandwidth", "1 row", "read", "share", "8 rows", f"{MANY} rows", "rate"]
    section.table(header, rows)
    publish(section)


def measured(type: str, name: str, N: int, K: int, plain: torch.Tensor) -> list[str]:
    weights = [random_weight(type, N, K)]
    copies = max(2, int(TURNED // weights[0].nbytes))
    weights += [QuantizedWeight(type, (N, K), weights[0].data.clone()) for _ in range(copies - 1)]
    one, eight, many = (torch.randn(M, K, dtype=torch.bfloat16) for M in (1, 8, MANY))
    before = median(plain.sum)
    single = median(lambda: [linear(one, weight) for weight in weights]) / copies
    eighth = median(lambda: [linear(eight, weight) for weight in weights]) / copies
    after = median(plain.sum)
    whole = median(lambda: linear(many, weights[0]))
    bandwidth = plain.nbytes * (1 / before + 1 / after) / 2
    read = weights[0].nbytes / single
    return [
        type,
        f"{name}: {N} × {K}",
        f"{bandwidth / 1e9:.1f} GB/s",
        f"{single * 1e6:.0f} µs",
        f"{read / 1e9:.1f} GB/s",
        f"{read / bandwidth:.0%}",
        f"{8 * single / eighth:.1f}×",
        f"{whole * 1e3:.1f} ms",
        f"{2 * MANY * N * K / whole / 1e9:.0f} GOP/s",
    ]


def random_weight(type: str, N: int, K: int) -> QuantizedWeight:
    """Any levels, under scales that are no denormals."""
    layout = LAYOUTS[type]
    raw = torch.randint(0, 256, (N * K // layout.weights, layout.nbytes), dtype=torch.uint8)
    for part in layout.parts:
        if part.unit == 2:
            raw[:, part.start : part.stop] = torch.tensor([0, 0x10], dtype=torch.uint8)
    return QuantizedWeight.from_ggml(raw.flatten(), type, (N, K))


def median(work: Callable[[], object]) -> float:
    """Seconds, the median of several, after one that does not count."""
    work()
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
