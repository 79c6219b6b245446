"""The article's trial block: word for word in an example, its loader and functions the same, its list always JSON."""

from __future__ import annotations

import json
import os
import re
import runpy
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from made_register import ictrp_xml, made_record
from parrot_backend import ParrotBackend

from lapilli.apps.backend.call import Call
from lapilli.compat import ollama
from lapilli.compat.trials import SYS_PROMPT, ElementTree, TrialXMLLoader, extractDrugs, trials2DrugsList
from lapilli.errors import InputError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
OURS = (
    ("from lapilli.compat import ollama\n", "import ollama\n"),
    ("from lapilli.compat.trials import ElementTree as ET\n", "import xml.etree.ElementTree as ET\n"),
    ("from lapilli.compat.trials import trials2DrugsList\n", ""),
    ("model='mini'", "model='phi3:medium'"),
)
LISTS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "type": {"type": "string"},
            "is_new_drug": {"enum": ["Yes", "No"]},
            "conditions": {"type": "array", "items": {"type": "string"}},
            "dosage_administration": {
                "type": "object",
                "properties": {"dosage": {"type": "string"}, "administration": {"type": "string"}},
                "required": ["dosage", "administration"],
                "additionalProperties": False,
            },
        },
        "required": ["name", "type", "is_new_drug", "conditions", "dosage_administration"],
        "additionalProperties": False,
    },
}


class TheirLoader:
    """The article's loader as it has it, to compare with."""

    def __init__(self, file_path: Path) -> None:
        self.file_path = file_path

    def load(self) -> list[str]:
        dict = self._parse_element(ET.parse(self.file_path).getroot())
        return [
            ",".join([
                f"""(tag: {x.get('tag','').strip()}, text: {x.get('text','').strip()})"""
                for x in elem.get("children", [])
                if x.get("text", "") and x.get("tag", "") in self.kept
            ])
            for elem in dict.get("children", [])
        ]  # fmt: skip

    kept = ("Internal_Number", "TrialID", "Public_title", "Scientific_title", "Condition", "Intervention")

    def _parse_element(self, element: ET.Element) -> dict[str, Any]:
        return {
            "tag": element.tag,
            "text": element.text.strip() if element.text else None,
            "attributes": element.attrib,
            "children": [self._parse_element(child) for child in element],
        }


def article(shared: Path) -> str:
    text = (shared.parent / "reference" / "llava-article.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return "".join(block for block in blocks if block.startswith(("import ollama", "import xml")))


def parroted(monkeypatch: pytest.MonkeyPatch, backend: ParrotBackend) -> None:
    @contextmanager
    def opened(model: Any) -> Iterator[Any]:
        yield backend if isinstance(model, str) else model

    monkeypatch.setattr("lapilli.compat.trials.opened", opened)
    monkeypatch.setattr("lapilli.compat.ollama.opened", opened)


def test_the_example_is_the_article_s_block(shared_data: Path) -> None:
    ours = (EXAMPLES / "extract_trials.py").read_text(encoding="utf-8")
    for here, theirs in OURS:
        assert ours.count(here) == 1
        ours = ours.replace(here, theirs)
    lines = [line for line in article(shared_data).splitlines() if line.strip()]
    written = [line for line in ours.splitlines() if line.strip()]
    assert written[-len(lines) :] == lines


def test_the_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    parroted(monkeypatch, ParrotBackend(lambda call: '{"interventions":[]}'))
    monkeypatch.chdir(EXAMPLES)
    names = runpy.run_path("extract_trials.py")
    assert len(names["documents"]) == 12
    assert len(names["drugs_list"]) == 10
    shown = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["type"]) for one in shown] == [
        ("Walking lessons by telephone", "Behavioral"), ("Usual care", "Other"),
    ]  # fmt: skip


@pytest.mark.soak
def test_the_example_runs_on_mini(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LAPILLI_HOST", "127.0.0.1:1")
    monkeypatch.chdir(EXAMPLES)
    for text in runpy.run_path("extract_trials.py")["drugs_list"]:
        jsonschema.validate(json.loads(text), LISTS)


def test_the_loader_gives_the_article_s_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(b"".join(ictrp_xml(map(made_record, range(9)))))
    for file in (path, EXAMPLES / "xml-1.xml"):
        ours = TrialXMLLoader(file_path=str(file))
        assert ours.load() == TheirLoader(file).load()
        tree = ours._structuredXMLLoader()
        assert tree["tag"] == "Trials_downloaded_from_ICTRP"
        assert len(tree["children"]) == len(ours.load())
        assert ElementTree.parse(str(file)).getroot().tag == tree["tag"]


def test_the_loader_gives_the_article_s_texts_of_a_real_export(shared_data: Path) -> None:
    path = shared_data / "trials" / "ictrp_2020-03-18.xml"
    assert TrialXMLLoader(path).load() == TheirLoader(path).load()


def test_the_loader_salvages_what_the_article_s_cannot_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(b"".join(ictrp_xml(map(made_record, range(3))))[:-60])
    loader = TrialXMLLoader(str(path))
    assert len(loader.load()) == 3
    assert "ends" in caplog.text
    with pytest.raises(InputError, match=r"TrialXMLLoader\.load reads what is left"):
        loader._structuredXMLLoader()


@pytest.mark.parametrize("call", [lambda path: TrialXMLLoader(path).load(), ElementTree.parse])
def test_a_dtd_is_refused(tmp_path: Path, call: Any) -> None:
    path = tmp_path / "a.xml"
    path.write_text(
        '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x><Trial><TrialID>&e;</TrialID></Trial></x>'
    )
    with pytest.raises(InputError, match="DTD not allowed"):
        call(str(path))


SAID = {
    "a list": {"interventions": [{"name": "Lapillin", "type": "Drug", "role": "experimental", "dose": "5 mg"}]},
    "nothing": {"interventions": []},
    "what stands nowhere": {"interventions": [{"name": "Placebo", "type": "Drug", "role": "placebo", "dose": "9 kg"}]},
    "words": "I think that it is a drug.",
    "half": '{"interventions":[{"name":"Lapi',
    "hostile": '[{"name": "\\ud800", "type": "x"}]',
}


@pytest.mark.parametrize("said", SAID)
def test_every_document_has_a_json_text_whatever_is_answered(said: str, caplog: pytest.LogCaptureFixture) -> None:
    documents = [
        "(tag: TrialID, text: NCT1),(tag: Public_title, text: Lapillin 5 mg, or 9 kg of it)",
        "",
        "free words",
        "\ud800",
    ]
    documents += TrialXMLLoader(EXAMPLES / "xml-1.xml").load()
    answer: Any = SAID[said]
    backend = ParrotBackend(lambda call: answer)
    texts = trials2DrugsList(documents, model=backend)
    assert len(texts) == len(documents)
    for text in texts:
        jsonschema.validate(json.loads(text), LISTS)
    first = json.loads(texts[4])
    assert [one["name"] for one in first] == ["Rosuvastatin 20 mg", "Placebo"]
    assert "9 kg" not in texts[4]
    if said == "a list":
        (only,) = json.loads(texts[0])
        assert only["dosage_administration"]["dosage"] == "5 mg"
    assert not backend.closed  # it was ours to open, and is to close


def test_an_open_answer_is_printed_and_returned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Call] = []

    def answer(call: Call) -> str:
        asked.append(call)
        return "[]"

    parroted(monkeypatch, ParrotBackend(answer))
    assert extractDrugs("Lapillin in ash cough", model="anything") == "[]"
    assert capsys.readouterr().out == "[]\n"
    assert [message.role for message in asked[0].messages] == ["system", "user"]
    assert asked[0].messages[0].text == SYS_PROMPT
    assert ollama.generate(model="m", prompt="p", options={"num_predict": 5, "temperature": 0.5})["done"] is True
    assert (asked[1].max_tokens, asked[1].temperature) == (5, 0.5)


def test_the_instruction_is_the_article_s(shared_data: Path) -> None:
    names: dict[str, Any] = {}
    source = article(shared_data).partition("import xml")[0].replace("import ollama", "")
    source = source.replace("    result = ", "    return SYS_PROMPT\n    result = ")
    exec(compile(source, "article", "exec"), names)  # noqa: S102
    assert names["extractDrugs"]("", model="") == SYS_PROMPT
    assert os.linesep not in SYS_PROMPT
