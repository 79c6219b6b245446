"""Compile the kernels, where a C++ compiler is there; `python -m lapilli.kernels.build` does so in place.

The build hook loads this file by its path, before the package and torch are installed: it needs the standard library
alone.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LIBRARY = "_cpu.so"
UNITS = {  # each instruction set is a unit of its own: nothing of it can leak into code that runs everywhere
    "cpu.cpp": [],
    "avx2.cpp": ["-mavx2", "-mfma", "-mf16c"],
    "avx512.cpp": ["-mavx2", "-mfma", "-mf16c", *(f"-mavx512{part}" for part in ("f", "bw", "vl", "dq", "vnni"))],
}
# No contraction: a product and a sum are fused where the source says so, and nowhere else.
FLAGS = ["-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno"]


def build(target: Path) -> str | None:
    """Compile into `target`; None when it is done, otherwise why it is not. An older file there is gone in any case."""
    target.unlink(missing_ok=True)
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"the kernels are for x86-64 under Linux, this is {platform.machine()} under {sys.platform}"
    compiler = find_compiler()
    if compiler is None:
        return "there is no C++ compiler (g++ or clang++; the environment variable CXX names another)"
    with tempfile.TemporaryDirectory() as folder:
        objects = [str(Path(folder, unit).with_suffix(".o")) for unit in UNITS]
        commands = [
            [*compiler, *FLAGS, *flags, "-c", str(FOLDER / unit), "-o", made]
            for (unit, flags), made in zip(UNITS.items(), objects, strict=True)
        ]
        made = str(Path(folder, LIBRARY))
        failed = _run(commands) or _run([[*compiler, "-shared", *objects, "-o", made]])
        if failed is None:
            part = target.with_name(f"{target.name}.{os.getpid()}.part")
            shutil.copy(made, part)
            part.replace(target)
        return failed


def find_compiler() -> list[str] | None:
    """The command of a C++ compiler: what CXX says, else g++, else clang++."""
    named = shlex.split(os.environ.get("CXX", ""))
    for command in [named] if named else [["g++"], ["clang++"]]:
        if shutil.which(command[0]):
            return command
    return None


def _run(commands: list[list[str]]) -> str | None:
    """Run all at once; None, or the first complaint."""
    running = [subprocess.Popen(one, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for one in commands]
    said = [(one.communicate()[1], one.returncode) for one in running]
    return next((f"{commands[0][0]}: {text.strip()[-2000:]}" for text, code in said if code), None)


if __name__ == "__main__":
    problem = build(FOLDER / LIBRARY)
    if problem is not None:
        raise SystemExit(problem)
    print(FOLDER / LIBRARY)
