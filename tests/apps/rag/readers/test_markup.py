"""Markdown, XML and JSON."""

from __future__ import annotations

from pathlib import Path

import pytest
from written_documents import read

from lapilli.errors import InputError

MARKDOWN = """---
title: "My notes"
tags: !!python/object/apply:os.system ["touch MARKER"]
---
# One *two* #

Text with `code`.

```python
# not a heading
```

Under
-----

| a | b |
|---|---|

~~~
```
# nor this
~~~
## Three ##
"""


def test_markdown_is_read_as_it_is_written() -> None:
    found = read(MARKDOWN, "a.md")
    assert found.text == MARKDOWN.rstrip()
    assert found.title == "My notes"
    assert [label for _, label in found.marks] == ["One *two", "Under", "Three"]
    assert [found.text[at:].split("\n")[0] for at, _ in found.marks] == ["# One *two* #", "Under", "## Three ##"]


def test_t84_front_matter_is_data(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    aliases = "a: &a [x]\n" + "\n".join(f"b{n}: &b{n} [*a,*a,*a,*a,*a,*a,*a]" for n in range(40))
    front = f"---\nx: !!python/object/apply:os.system ['touch {marker}']\n{aliases}\n---\nwords"
    assert read(front, "a.md").text == front
    assert not marker.exists()


def test_markdown_without_headings_is_named_by_its_file() -> None:
    found = read("just words\n---\nmore", "letters/to-ada.md")
    assert (found.title, found.marks) == ("just words", ((0, "just words"),))
    assert read("no heading", "letters/to-ada.md").title == "to-ada.md"


TRIALS = """<?xml version="1.0" encoding="UTF-8"?>
<?xml-stylesheet href="http://127.0.0.1/x.xsl" type="text/xsl"?>
<Trials_downloaded_from_ICTRP xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="x">
  <Trial><TrialID> NCT1 </TrialID><Condition>a &lt; 3 &amp; b</Condition><Empty/><dose unit="mg">5</dose></Trial>
  <Trial><TrialID>NCT2</TrialID><arm><name>A</name><kind>Drug</kind></arm></Trial>
</Trials_downloaded_from_ICTRP>"""


def test_records_are_lines_of_names_and_values() -> None:
    found = read(TRIALS, "a.xml")
    assert found.text == (
        "TrialID: NCT1\nCondition: a < 3 & b\ndose: 5 (unit: mg)\n\nTrialID: NCT2\nname: A\nkind: Drug"
    )
    assert found.marks == ((0, "Trial 1"), (55, "Trial 2"))


def test_prose_in_xml_stays_prose() -> None:
    xml = "<doc><title>T</title><p>It is <b>very</b> good,<br/> <i><b>really</b></i>.</p><p>Yes.</p></doc>"
    found = read(xml, "a.xml")
    assert found.text == "title: T\nIt is very good, really.\np: Yes."
    assert found.title == "T"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ('<?xml version="1.0" encoding="iso-8859-1"?><d><a>né</a></d>'.encode("latin-1"), "né"),
        ('<?xml version="1.0" encoding="GB2312"?><d><a>中文</a></d>'.encode("gb2312"), "中文"),
        ("<?xml version='1.0' encoding='UTF-16'?><d><a>中文</a></d>".encode("utf-16"), "中文"),
        ("\ufeff<d><a>né</a></d>".encode(), "né"),
        ("\n <d><a>né</a></d>".encode(), "né"),
    ],
    ids=range(5),
)
def test_xml_says_its_encoding(data: bytes, said: str) -> None:
    assert read(data, "a.xml").text == f"a: {said}"


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        ("<a><b>x</a>", "damaged at line 1: mismatched tag"),
        ("<a>&nbsp;</a>", "undefined entity"),
        ('<?xml version="1.0" encoding="UTF-7"?><a>x</a>', "encoding 'UTF-7'"),
        ('<?xml version="1.0" encoding="rot13"?><a>x</a>', "encoding 'rot13'"),
        ("<a/>", "no text"),
    ],
)
def test_xml_that_is_none_is_refused(xml: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(xml, "a.xml")


def test_json_is_lines_of_paths_and_values() -> None:
    found = read(
        '{"title":"T","n":{"x":1.50,"big":12345678901234567890},"tags":["a","b"],"no":null,"e":"","a b":true}', "a.json"
    )
    assert found.text == 'title: T\nn.x: 1.50\nn.big: 12345678901234567890\ntags: a, b\n"a b": true'
    assert found.title == "T"
    assert [label for _, label in found.marks] == ["title", "n", "tags", '"a b"']


def test_records_of_json_stand_apart() -> None:
    for name, data, marks in (
        ("a.json", '[{"a":1,"b":{"c":[{"d":"x"}]}},{"a":2}]', ["[0]", "[1]"]),
        ("a.jsonl", '{"a":1,"b":{"c":[{"d":"x"}]}}\n\n{"a":2}\n', ["line 1", "line 3"]),
    ):
        found = read(data, name)
        assert found.text == "a: 1\nb.c[0].d: x\n\na: 2"
        assert [(found.text[at:][:4], label) for at, label in found.marks] == [("a: 1", marks[0]), ("a: 2", marks[1])]
    assert read('{"rows":[{"a":1},{"a":2}]}', "a.json").marks == ((0, "rows[0]"), (13, "rows[1]"))


def test_json_keeps_what_others_lose() -> None:
    assert (
        read('{"a":1,"a":2,"b":NaN,"c":1e999,"d":"\\ud800\\u0000x"}', "a.json").text
        == "a: 1\na: 2\nb: NaN\nc: 1e999\nd: �x"
    )
    assert read('{"a":"é"}'.encode("utf-16-le"), "a.json").text == "a: é"
    assert read("[" + "9" * 10_000 + "]", "a.json").text == "[0]: " + "9" * 10_000


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ('{"a":1,}', "no JSON: .*line 1, character 8"),
        ('{"a":1}\n{"a":\n{"a":3}', "line 2 of it is no JSON, the 1 before it are"),
        ("{}", "no text"),
    ],
)
def test_json_that_is_none_is_refused_where_it_is_not(data: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(data, "a.json")
