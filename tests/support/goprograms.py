"""Random programs in Go's text/template, and how Go itself runs them (where Go is installed)."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("gotext")

DATA: dict[str, Any] = {
    "S": "hello", "E": "", "N": 3.0, "Z": 0.0, "T": True, "F": False, "L": ["a", "b", "c"], "EL": [],
    "M": {"b": "x", "a": "y", "n": {"k": "v"}},
    "LM": [{"r": "user", "c": "hi"}, {"r": "system", "c": "yo"}, {"r": "user", "c": '<&> "q" \n'}],
    "NL": None, "LL": [[1.5, 2.0], [1e21, 1e-7]],
}  # fmt: skip
_PATHS = ".S .E .T .F .L .EL .M .M.a .M.n.k .M.zz .LM .N .Z .Missing .r .c .LL . $ $.S $.LM $x $i $.M.n".split()  # noqa: SIM905
_LITERALS = ['"user"', '"a\\tb\\u00e9\\""', '`raw "x"`', "1", "0", "2", "true", "false", "-1", "1.5", '"%s-%v"']
_FUNCTIONS = "and or not eq ne lt gt le ge len index slice print printf json println contains".split()  # noqa: SIM905
_FORMATS = ['"%v|%v"', '"%v"', '"%q"', '"%5s|"', '"%-6v|"', '"%d"', '"x%%y %v"', '"%t"', '"%.2f"']
_OVER = [".L", ".LM", ".M", ".EL", "$.LM", "(slice $.L 1)", ".NL", ".LL"]


class Programs:
    """Programs from a seed: texts, actions, ifs, ranges, withs, templates, nested a few levels."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def next(self) -> str:
        return '{{define "t"}}[{{.}}{{if .}}y{{end}}]{{end}}{{$x := .S}}{{$i := 1}}' + self._block(0, False)

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _value(self, depth: int) -> str:
        if depth > 2 or self._chance(0.5):
            return self._random.choice(_PATHS)
        return self._random.choice(_LITERALS) if self._chance(0.4) else f"({self._pipe(depth + 1)})"

    def _command(self, depth: int) -> str:
        if self._chance(0.35):
            return self._value(depth)
        name = self._random.choice(_FUNCTIONS)
        count = 1 if name in ("not", "len", "json") else self._random.choice([1, 2, 2, 2, 3])
        values = [self._value(depth + 1) for _ in range(count)]
        if name == "printf":
            values[0] = self._random.choice(_FORMATS)
        return " ".join([name, *values])

    def _pipe(self, depth: int = 0) -> str:
        ends = ["len", "not", "json", "print", 'printf "%v!"', "eq 1", "index 0"]
        return self._command(depth) + (f" | {self._random.choice(ends)}" if self._chance(0.12) else "")

    def _action(self, text: str) -> str:
        before, after = (self._random.choice(["", " ", " ", "-"]) for _ in range(2))
        return "{{" + ("- " if before == "-" else before) + text + (" -" if after == "-" else after) + "}}"

    def _block(self, depth: int, loop: bool) -> str:
        return "".join(self._node(depth, loop) for _ in range(self._random.randint(1, 3)))

    def _else(self, depth: int, loop: bool) -> str:
        return self._action("else") + self._block(depth + 1, loop) if self._chance(0.4) else ""

    def _node(self, depth: int, loop: bool) -> str:
        kind = self._random.random()
        if depth > 3 or kind < 0.3:
            return self._random.choice(["text ", "\n", " a\n b ", "<|x|>", "  ", "}}", "{"])
        if kind < 0.55:
            return self._action(self._pipe())
        if kind < 0.65:
            return self._action(self._random.choice(["$x := ", "$x = "]) + self._pipe())
        if kind < 0.68:
            return self._random.choice(["{{/* c */}}", "{{- /* }} */ -}}"])
        if kind < 0.72 and loop:
            return self._action(self._random.choice(["break", "continue"]))
        if kind < 0.85:
            written = self._action("if " + self._pipe()) + self._block(depth + 1, loop)
            while self._chance(0.3):
                written += self._action("else if " + self._pipe()) + self._block(depth + 1, loop)
            return written + self._else(depth, loop) + self._action("end")
        if kind < 0.93:
            names = self._random.choice(["", "$i := ", "$i, $x := "])
            written = self._action(f"range {names}{self._random.choice(_OVER)}") + self._block(depth + 1, True)
            return written + self._else(depth, loop) + self._action("end")
        if kind < 0.97:
            names = self._random.choice(["", "$x := "])
            written = self._action(f"with {names}{self._pipe()}") + self._block(depth + 1, loop)
            return written + self._else(depth, loop) + self._action("end")
        return self._action('template "t" ' + self._random.choice(_PATHS))


def run_in_go(programs: Sequence[str], folder: Path) -> list[dict[str, str]]:
    """What Go makes of each program: its `text`, or an `error`, or that it does not `parse`."""
    subprocess.run(["go", "build", "-o", str(folder / "gotext"), "."], cwd=SOURCE, check=True)
    asked = "".join(json.dumps({"program": program, "data": DATA}) + "\n" for program in programs)
    done = subprocess.run([folder / "gotext"], input=asked, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]
