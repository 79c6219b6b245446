"""Programs in Go's text/template, random ones: ours against Go's own, where Go is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from goprograms import DATA, Programs, run_in_go

from lapilli.errors import TemplateError
from lapilli.inputs.go.parser import parse
from lapilli.inputs.go.run import Budget, run

pytestmark = pytest.mark.reference


@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
@pytest.mark.parametrize("seed", range(3))
def test_random_programs_do_what_they_do_in_go(seed: int, tmp_path: Path) -> None:
    made = Programs(seed)
    programs = [made.next() for _ in range(5000)]
    differing = []
    for program, expected in zip(programs, run_in_go(programs, tmp_path), strict=True):
        try:
            read = parse(program)
            found = {"text": run(read.main, read.defined, DATA, Budget())}
        except TemplateError as error:
            # A format that does not fit is refused here, and written out as %! in Go.
            if "printf" in str(error):
                continue
            found = {"error": str(error)}
        if expected.get("text") != found.get("text"):
            differing.append((program, expected, found))
    assert not differing, f"{len(differing)}, the first: {differing[0]}"
