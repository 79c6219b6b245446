"""The article's names for reading trials: write `from lapilli.compat.trials import …` where it defined them itself.

    documents = TrialXMLLoader(file_path="./xml-1.xml").load()
    drugs_list = trials2DrugsList(documents[:10], model="mini")
    print(drugs_list[3])

The API that is typed and streams is `lapilli.apps.trials`: see docs/trials.md.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as _ElementTree

from lapilli.apps.backend.call import Backend
from lapilli.apps.trials.export import article
from lapilli.apps.trials.extract import Extractor
from lapilli.apps.trials.readers.ictrp import read_cells
from lapilli.apps.trials.readers.xml import read_elements, split_records, utf8_chunks
from lapilli.apps.trials.schema import Administration, Record
from lapilli.apps.trials.trial import Trial
from lapilli.compat import ollama
from lapilli.compat.models import opened
from lapilli.errors import InputError

if TYPE_CHECKING:
    from lxml.etree import _Element

_LOG = logging.getLogger(__name__)

TAGS_TO_KEEP = ["Internal_Number", "TrialID", "Public_title", "Scientific_title", "Condition", "Intervention"]

SYS_PROMPT = (
    "Your task is to extract medical intervention names (drugs or therapies) from the details of a clinical trial. "
    "Each trial can have multiple interventions."
    "Give a json list of intevention names with the following information for each: "
    "name, type, is_new, conditions, list of trial ids, dosage & administration"
    "Separate the dosage & administration, keep intervention names concise, "
    "only including identifying information about the drug or therapy."
    "The response should have the following format:"
    "["
    "   {"
    '       "name": Intervention name,'
    '       "type": Biologic,'
    '       "is_new_drug": Yes (if its a new drug),'
    '       "conditions": ["condition1", "condition2"],'
    '       "dosage_administration": {'
    '           "dosage": "0.02%",'
    '           "administration": "topical, 4 times a day for 12 weeks"'
    "       }"
    "   },"
    "   {"
    '       "name": Intervention name 2,'
    '       "type": Small molecule'
    '       "is_new_drug": No (if its a generic, biosimilar or not mentioned),'
    '       "conditions": ["condition1", "condition2"],'
    '       "dosage_administration": {'
    '           "dosage": "0.02%",'
    '           "administration": "topical, 4 times a day for 12 weeks"'
    "       }"
    "   },"
    "]"
)

_PART = re.compile(r"\(tag: ([A-Za-z_]{1,60}), text: ")


class TrialXMLLoader:
    """The article's loader: a trial as one text of its kept tags, `(tag: TrialID, text: …),(tag: …)`."""

    def __init__(self, file_path: str | Path) -> None:
        self.file_path = file_path

    def load(self) -> list[str]:
        """One text a trial, streamed; raises InputError for a DTD. What is damaged is kept, and logged."""
        trials = []
        with Path(self.file_path).open("rb") as stream:
            for element, told in read_elements(stream, str(self.file_path)):
                if told:
                    _LOG.warning("%s: %s", self.file_path, told)
                if element is not None:
                    trials.append(",".join(_kept(element)))
        return trials

    def _structuredXMLLoader(self) -> dict[str, Any]:
        return self._parse_element(ElementTree.parse(self.file_path).getroot())

    def _parse_element(self, element: _ElementTree.Element) -> dict[str, Any]:
        return {
            "tag": element.tag,
            "text": element.text.strip() if element.text else None,
            "attributes": element.attrib,
            "children": [self._parse_element(child) for child in element],
        }


class ElementTree:
    """`xml.etree.ElementTree` as far as the article uses it, for files that may hold no DTD."""

    @staticmethod
    def parse(source: str | Path) -> _ElementTree.ElementTree[_ElementTree.Element]:
        """The whole tree in memory. Raises InputError for a DTD, or for XML that is damaged."""
        with Path(source).open("rb") as stream:
            for _ in split_records(utf8_chunks(stream), str(source)):
                pass  # looks for a DTD wherever there may be one
        try:
            return _ElementTree.parse(source)
        except _ElementTree.ParseError as error:
            raise InputError(
                f"{source}: its XML is damaged ({error}): TrialXMLLoader.load reads what is left"
            ) from None


def extractDrugs(prompt: str, model: str = "mistral-openorca:latest") -> str:
    """The article's function: a free answer to its own instruction, printed and returned."""
    result = ollama.generate(model=model, prompt=prompt, system=SYS_PROMPT)
    print(result["response"])
    return str(result["response"])


def trials2DrugsList(documents: Iterable[str], model: str | Backend) -> list[str]:
    """One JSON text a document, in order: a list of interventions under the article's keys.

    What the trial states is read, a model is asked for the rest, under a grammar and many at once; `model` is a name or
    an open backend. Every text is JSON: `[]` where nothing is named, or where a trial could not be read out (logged).
    Raises ModelNotFoundError, and what the machine failed with.
    """
    texts = []
    with opened(model) as backend:
        for trial, records in Extractor(backend).each(map(as_trial, documents)):
            if (error := records[0].error) is not None:
                _LOG.warning("trial %s: %s", trial.id, error.message)
            named = [article(_found(record).to_json()) for record in records if record.name is not None]
            texts.append(json.dumps(named, ensure_ascii=False))
    return texts


def _found(record: Record) -> Record:
    """A record without the values that stand nowhere in the text: the article's keys have no place to say so."""
    lost = {each.value for each in record.evidence if each.alignment == "none"}
    how = record.administration
    if how is not None and lost & {"route", "form", "frequency", "duration", "timing"}:
        kept = {name: text for name, text in how.model_dump().items() if text and name not in (*lost, "text")}
        how = Administration(text=", ".join(kept.values()), **kept) if kept else None
    return record.model_copy(update={"administration": how, "dosage": None if "dosage" in lost else record.dosage})


def as_trial(document: str) -> Trial:
    """The trial of one of the loader's texts; any other text is a trial's summary."""
    marks = list(_PART.finditer(document))
    if not marks or marks[0].start() > 0:
        return read_cells([("summary", document)], file="", position=0)
    ends = [mark.start() - 2 for mark in marks[1:]] + [len(document.rstrip()) - 1]
    cells = [(mark[1], document[mark.end() : end]) for mark, end in zip(marks, ends, strict=True)]
    return read_cells(cells, file="", position=0)


def _kept(element: _Element) -> Iterable[str]:
    for child in element.iterchildren():
        text = (child.text or "").strip()
        if text and child.tag in TAGS_TO_KEEP:
            yield f"(tag: {child.tag.strip()}, text: {text})"
