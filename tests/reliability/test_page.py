"""docs/reliability.md names every row, and only tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"
ROWS = [*range(1, 94), 96]


def rows() -> dict[int, str]:
    """What the page says of each row: the last cell of its line."""
    lines = re.findall(r"^\| T(\d\d) \| [^|]+ \| ([^|]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) == len({row for row, _ in lines}), "a row is there twice"
    return {int(row): told for row, told in lines}


def test_every_row_is_on_the_page() -> None:
    assert sorted(rows()) == ROWS


@pytest.mark.parametrize("row", ROWS)
def test_what_a_row_names_is_there(row: int) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", rows()[row])
    assert named
    for file, name in named:
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in functions, f"{file} has no {name}"


def test_no_test_of_a_row_is_left_out() -> None:
    """Each test here that names rows stands beside those rows on the page."""
    for path in Path(__file__).parent.glob("test_rows_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                numbers = re.findall(r"_t(\d\d)(?=_)", node.name)
                assert numbers, node.name
                for number in numbers:
                    assert node.name in rows()[int(number)], f"T{number}: {node.name}"
