"""Pulls from a registry on loopback where 5 to 30 % of answers fail: cuts, stalls, wrong ranges, flipped bits, lies.

python bench/pull_bench.py             # 300 pulls, about two minutes
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from faulty_pulls import fault_rate, pull_once
from numbers_page import Section, publish


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pulls", type=int, default=300)
    parser.add_argument("--size", type=int, default=2 << 20, help="bytes of the big layer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="put the section into docs/numbers.md")
    args = parser.parse_args()
    endings: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    wanted = received = 0
    for seed in range(args.seed, args.seed + args.pulls):
        rate = fault_rate(seed)
        ending, size, got, met = pull_once(seed, rate, args.size)
        endings[ending.partition(":")[0]] += 1
        if ending != "right":
            print(f"seed {seed}, {rate:.0%} faults: {ending}", file=sys.stderr)
        faults.update(met)
        wanted, received = wanted + size, received + got
    section = Section("Pulls from a faulty registry")
    section.add(
        f"{args.pulls} pulls of a model of {args.size} bytes in 16 parts from a registry on loopback; 5 to 30 % of its "
        f"answers fail (seeds {args.seed} to {args.seed + args.pulls - 1}). Faults met: {faults.total()}: "
        + ", ".join(f"{kind} {count}" for kind, count in faults.most_common())
        + "."
    )
    header = ["pulls", "right", "clear error", "wrong hash", "bytes received for a byte of the model"]
    counts = [endings[kind] for kind in ("right", "error", "WRONG")]
    section.table(header, [[args.pulls, *counts, f"{received / wanted:.3f}"]])
    publish(section)
    raise SystemExit(1 if endings["WRONG"] else 0)


if __name__ == "__main__":
    main()
