"""Modelfiles: Ollama's language, errors that name the line, and what is written is read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapilli.errors import InputError
from lapilli.store.modelfile import DEPRECATED, PARAMETERS, ROLES, Modelfile, parameters_text

WHOLE = '''
# how llava came to be
FROM ./model.gguf
  from ./mmproj.gguf
ADAPTER "./lo ra"
TEMPLATE """{{ if .System }}{{ .System }}
{{ end }}[INST] {{ .Prompt }} [/INST]"""
SYSTEM """
You say "no".
"""
PARAMETER stop [INST]
PARAMETER stop "[/INST] "
PARAMETER temperature 0.5
parameter num_ctx 4096
PARAMETER use_mmap true
MESSAGE user Is it?
MESSAGE assistant """No,
not at all."""
LICENSE MIT
LICENSE """Apache
2"""
'''


def test_all_of_the_language_is_read() -> None:
    found = Modelfile.parse(WHOLE)
    assert found.sources == ("./model.gguf", "./mmproj.gguf")
    assert found.adapters == ("./lo ra",)
    assert found.template == "{{ if .System }}{{ .System }}\n{{ end }}[INST] {{ .Prompt }} [/INST]"
    assert found.system == '\nYou say "no".\n'
    assert found.parameters == {
        "stop": ["[INST]", "[/INST] "], "temperature": 0.5, "num_ctx": 4096, "use_mmap": True,
    }  # fmt: skip
    assert found.messages == (("user", "Is it?"), ("assistant", "No,\nnot at all."))
    assert found.licenses == ("MIT", "Apache\n2")
    assert found.warnings == ()
    assert Modelfile.parse(found.render()) == found


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_text_may_come_as_bytes(encoding: str) -> None:
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    assert Modelfile.parse(mark + "FROM a\nSYSTEM é".encode(encoding)).system == "é"


def test_lines_may_end_as_on_windows() -> None:
    found = Modelfile.parse('FROM a\r\nSYSTEM """b\r\nc"""\r\n\r\nLICENSE d')
    assert (found.sources, found.system, found.licenses) == (("a",), "b\r\nc", ("d",))


@pytest.mark.parametrize("name", sorted(DEPRECATED))
def test_parameters_of_old_are_warned_of(name: str) -> None:
    found = Modelfile.parse(f"FROM a\nPARAMETER {name} 1")
    assert found.parameters == {}
    assert found.warnings == (f"parameter {name} is deprecated and has no effect",)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no FROM line"),
        ("# FROM a", "no FROM line"),
        ("SYSTEM x", "no FROM line"),
        ("FROM a\nFRM b", '(line 2): command must be one of "from", "license"'),
        ("FROM a\n\n\nBAD x", "(line 4): command must be one of"),
        ("FROM", "(line 1): FROM needs a value"),
        ("FROM a\nSYSTEM", "(line 2): SYSTEM needs a value"),
        ('FROM a\nSYSTEM """b\nc', "(line 2): SYSTEM has a quote that is never closed"),
        ('FROM a\nSYSTEM "b', "(line 2): SYSTEM has a quote that is never closed"),
        ("FROM a\nMESSAGE tool x", '(line 2): message role must be one of "system", "user", or "assistant"'),
        ("FROM a\nMESSAGE user", "(line 2): MESSAGE needs a value"),
        ("FROM a\nPARAMETER nope 1", "(line 2): unknown parameter 'nope'"),
        ("FROM a\nPARAMETER top_k", "(line 2): PARAMETER top_k needs a value"),
        ("FROM a\nPARAMETER top_k 1.5", "(line 2): invalid int value [1.5]"),
        ("FROM a\nPARAMETER top_k " + "9" * 30, "(line 2): invalid int value [9"),
        ("FROM a\nPARAMETER temperature warm", "(line 2): invalid float value [warm]"),
        ("FROM a\nPARAMETER temperature nan", "(line 2): invalid float value [nan]"),
        ("FROM a\nPARAMETER use_mmap maybe", "(line 2): invalid bool value [maybe]"),
        (b"FROM \xff", "no UTF-8"),
        ("FROM a\nSYSTEM " + "x" * (5 << 20), "at most"),
    ],
)
def test_an_error_names_the_line(text: str | bytes, error: str) -> None:
    with pytest.raises(InputError) as caught:
        Modelfile.parse(text)
    assert error in str(caught.value)
    assert len(str(caught.value)) < 400


def test_parameters_are_shown_in_columns() -> None:
    shown = parameters_text({"stop": ["[INST]", 'a"b\n'], "temperature": 0.5, "num_ctx": 4096, "seed": 1.0})
    assert shown.splitlines() == [
        "num_ctx                        4096",
        "seed                           1",
        'stop                           "[INST]"',
        'stop                           "a\\"b\\n"',
        "temperature                    0.5",
    ]


def test_a_text_that_the_language_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match="three quotes"):
        Modelfile(sources=("a",), system='b"""\nc').render()


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40) | st.text('" \n\r\tab#', max_size=12)
holdable = texts.filter(lambda text: '"""' not in text)
values = {
    int: st.integers(-(10**18) + 1, 10**18 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    list: st.lists(holdable, min_size=1, max_size=3),
}
parameters = st.fixed_dictionaries({}, optional={name: values[kind] for name, kind in PARAMETERS.items()})


@given(
    st.builds(
        Modelfile,
        sources=st.lists(holdable, min_size=1, max_size=3).map(tuple),
        adapters=st.lists(holdable, max_size=2).map(tuple),
        template=st.none() | holdable,
        system=st.none() | holdable,
        parameters=parameters,
        messages=st.lists(st.tuples(st.sampled_from(ROLES), holdable), max_size=3).map(tuple),
        licenses=st.lists(holdable, max_size=2).map(tuple),
        renderer=st.none() | holdable,
        parser=st.none() | holdable,
        requires=st.none() | holdable,
    )
)
def test_what_is_written_is_read_back(modelfile: Modelfile) -> None:
    assert Modelfile.parse(modelfile.render()) == modelfile


@given(st.text(max_size=200) | st.text('FROM PARAMETERSYSTM"\n #', max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = Modelfile.parse(text)
    except InputError:
        return
    assert found.sources
