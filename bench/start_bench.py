"""How long until it is there: importing the package, and from a process's start to the first word of `mini`."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from numbers_page import Section, publish

PICTURE = Path(__file__).resolve().parent.parent / "examples" / "shapes.png"
IMPORT = "import time; began = time.perf_counter(); import lapilli; print(time.perf_counter() - began)"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time importing lapilli, and mini's first word.")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--write", action="store_true")
    repeats = parser.parse_args().repeats
    section = Section("The start")
    section.add(f"New processes, medians of {repeats}; files are in the system's memory from an earlier one.")
    run = [sys.executable, "-m", "lapilli", "run", "mini", "What is in this picture?", str(PICTURE)]
    rows = [
        ["import lapilli", *told([imported() for _ in range(repeats + 1)]), "50 ms"],
        [
            "`lapilli run mini` with a picture, to the first word",
            *told([spoken(run) for _ in range(repeats + 1)]),
            "3 s",
        ],
    ]
    section.table(["", "median, ms", "slowest, ms", "bar"], rows)
    publish(section)


def imported() -> float:
    return float(subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, check=True).stdout)


def spoken(command: list[str]) -> float:
    """Seconds from the start of a process to the first letter that it prints."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        seconds = time.perf_counter() - began
        process.stdout.read()
    return seconds


def told(seconds: list[float]) -> tuple[str, str]:
    """Of all but the first, which warms up."""
    return f"{1000 * statistics.median(seconds[1:]):.0f}", f"{1000 * max(seconds[1:]):.0f}"


if __name__ == "__main__":
    main()
