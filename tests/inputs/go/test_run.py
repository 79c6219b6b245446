"""Programs in Go's text/template do what Go does with them, fail with the line, and never run long.

`recorded.json` holds programs, by hand and at random, with what Go 1.19 wrote; `tests/reference` makes more.
"""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path
from typing import Any

import pytest
from goprograms import DATA
from hypothesis import given, settings
from hypothesis import strategies as st

from lapilli.errors import TemplateError
from lapilli.inputs.go.parser import parse
from lapilli.inputs.go.run import Budget, run

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text())


def written(source: str, data: Any = DATA) -> str:
    program = parse(source)
    return run(program.main, program.defined, data, Budget())


def test_what_go_writes_is_written() -> None:
    assert len(RECORDED["right"]) > 250
    differing = [(program, text, written(program)) for program, text in RECORDED["right"] if written(program) != text]
    assert not differing


@pytest.mark.parametrize("program", RECORDED["wrong"])
def test_what_go_refuses_is_refused_with_its_line(program: str) -> None:
    with pytest.raises(TemplateError, match=r"^line [1-9][0-9]* of the template: ") as caught:
        written(program)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("a\nb\n{{ nope }}", "line 3 of the template: function 'nope' is not defined; known are and, contains,"),
        ("{{ if .S }}\n{{ .E", r"line 2 of the template: an action that does not end with }}"),
        ("{{ range .L }}\n{{ . }}", r"line 2 of the template: {{ range }} has no {{ end }}"),
        ("\n{{ $x }}", "line 2 of the template: variable '[$]x' is not defined"),
        ("\n\n{{ .S.X }}", "line 3 of the template: a string has no field 'X'"),
        ("{{ if\n true }}{{ len 3 }}{{ end }}", "line 2 of the template: a number has no length"),
        ("{{ eq 1 .S }}", r"line 1 of the template: a number \(int\) cannot be compared with a string"),
        ("{{ eq .S }}", "line 1 of the template: eq is given 1 values, it takes at least 2"),
        ("{{ not 1 2 }}", "not is given 2 values, it takes at most 1"),
        ("{{ index .L 3 }}", "place 3 is out of range, the last is 2"),
        ("{{ printf `%d` .S }}", "printf '%d' does not fit a string"),
        ("{{ printf `%s` }}", "printf has no value for '%s'"),
        ("{{ printf `%s` 1 2 }}", "needs a text"),
        ("{{ define `a` }}{{ end }}{{ define `a` }}{{ end }}", "template 'a' is defined twice"),
        ("{{ end }}", "end without a block to belong to"),
        ("{{ }}", "an action without a value"),
        ("{{ .S 1 }}", "no function is given arguments"),
        ("{{ $x = 1 }}", "is not defined"),
    ],
)
def test_an_error_says_where_and_what(program: str, error: str) -> None:
    with pytest.raises(TemplateError, match=error):
        written(program)


def test_newer_go_and_ollama_s_functions() -> None:
    assert written("{{ range 3 }}{{ . }}{{ end }}", {}) == "012"
    assert written("{{ with .E }}a{{ else with .S }}{{ . }}{{ end }}") == "hello"
    assert written('{{ contains .S "ell" }}{{ contains .S "x" }}') == "truefalse"
    today = datetime.datetime.now().strftime("%Y-%m-%d")
    assert today in (written("{{ currentDate }}", {}), written('{{ currentDate "x" }}', {}))
    assert written("{{ yesterdayDate }}", {}) < written("{{ currentDate }}", {})
    assert written("{{ toTypeScriptType .S }}") == "any"


def test_nothing_of_python_is_in_reach() -> None:
    for name in ("__class__", "__init__", "keys", "format", "_fields"):
        assert written(f"{{{{ .{name} }}}}") == "<no value>"
        with pytest.raises(TemplateError, match="has no field"):
            written(f"{{{{ .S.{name} }}}}")
        with pytest.raises(TemplateError, match="has no field"):
            written(f"{{{{ (.L).{name} }}}}")
    assert written("{{ printf `{0.__class__} %s` .S }}") == "{0.__class__} hello"


_LOOP = "{{ range 99999 }}{{ range 99999 }}CELL{{ end }}{{ end }}"
_LONG = "{{ $x := `" + "a" * 1000 + "` }}"
BOMBS = {
    "loops": _LOOP.replace("CELL", ""),
    "loops that write": _LOOP.replace("CELL", "a" * 1000),
    "a long range": "{{ range 1000000000 }}{{ end }}",
    "a text grown at run time": "{{ $x := `aa` }}{{ range 64 }}{{ $x = print $x $x }}{{ end }}",
    "a text compared": _LONG
    + "{{ range 12 }}{{ $x = print $x $x }}{{ end }}{{ range 9999999 }}{{ if eq $x $x }}{{ end }}{{ end }}",
    "padding": "{{ printf `%1000000000d` 1 }}",
    "more padding": "{{ printf `%.1000000000f` 1.5 }}",
    "much padding": "{{ range 999999 }}{{ $_ := printf `%999d%999d%999d` 1 2 3 }}{{ end }}",
    "a long format": "{{ printf `" + "%999d" * 20000 + "` " + "1 " * 20000 + "}}",
    "a template that calls itself": "{{ define `a` }}{{ template `a` }}{{ end }}{{ template `a` }}",
    "it calls itself twice": "{{ define `a` }}{{ template `a` }}{{ template `a` }}{{ end }}{{ template `a` }}",
    "json of everything": "{{ range 999999 }}{{ $_ := json $ }}{{ end }}",
    "a slice": "{{ range 999999 }}{{ $_ := slice .S 1 }}{{ end }}",
    "nested brackets": "{{ " + "(" * 6000 + "1" + ")" * 6000 + " }}",
    "nested ifs": "{{ if true }}" * 6000 + "{{ end }}" * 6000,
    "nested elses": "{{ with .E }}{{ else if true }}" * 6000 + "{{ end }}" * 6000,
    "nested ranges": "{{ range 9 }}" * 49 + "{{ end }}" * 49,
    "a long number": "{{ " + "9" * 5000 + " }}",
    "unclosed comments": "{{/*" * 200000,
    "unclosed texts": '{{ "' * 200000,
    "unclosed actions": "{{ " * 200000,
    "blanks": "{{" + " " * 900000 + "-",
    "many variables": "{{ $x := 1 }}" * 9000,
    "much text": "a" * (1 << 19),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_put_out_in_time(bomb: str) -> None:
    data = {**DATA, "big": ["x" * 100] * 1000}
    began = time.process_time()
    with pytest.raises(TemplateError) as caught:
        written(BOMBS[bomb], data)
    # Far above what it takes, far below what a bomb would.
    assert time.process_time() - began < 10
    assert len(str(caught.value)) < 400


def test_a_long_but_flat_program_is_no_bomb() -> None:
    assert written("{{ if eq .S `a` }}a" + "{{ else if eq .S `b` }}b" * 500 + "{{ else }}c{{ end }}") == "c"
    assert written("{{ .S }} " * 5000) == "hello " * 5000


_PIECES = """
{{ }} {{- -}} if else end range with .S . $ $x := = | ( ) " ` ' \\ 1 -1 1.5 template define block /* */ eq print , text
break continue nil true 日 0x 1e %
"""
pieces = st.lists(st.sampled_from([" ", "\n", *_PIECES.split()]), max_size=30)


@settings(max_examples=300, deadline=None)
@given(pieces)
def test_any_text_is_a_program_or_one_clear_error(parts: list[str]) -> None:
    refused = ""
    try:
        written("".join(parts))
    except TemplateError as error:
        refused = str(error)
    assert not refused or refused.startswith("line ")
    assert "\n" not in refused
