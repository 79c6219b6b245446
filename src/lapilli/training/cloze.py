"""Questions made of real prose: a span of a sentence is hidden, what is left of the sentence asks for it.

The idea is cloze translation (arXiv 1906.04980): nobody has to write questions, and every text can ask about itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lapilli.training.corpus import Dialogue

NOT_THERE = "not in the passage"

LONGEST_PASSAGE = 900

_SENTENCE = re.compile(r"(?<=[.!?;])\s+(?=[A-Z\"'(])")
_NAME = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+(?: (?:of |the )?[A-Z][a-z]+)*")
_NUMBER = re.compile(r"\b\d[\d,.]*\d\b|\b\d+\b")
_PHRASE = re.compile(
    r"\b(?:the|a|an|his|her|their|our|my|of|in|with|for|to|by|from) ((?:[a-z]+ ){0,2}[a-z]{4,})\b(?=[ ,.;:])"
)
_FORMS = (
    "Passage: {passage}\nQuestion: {question}",
    "{passage}\n\n{question}",
    "{passage}\n{question}",
    "Context: {passage}\nQuestion: {question}",
    "Answer from the passage.\n{passage}\nQuestion: {question}",
    "{question}\n{passage}",
)
_FORM_SHARES = (0.5, 0.1, 0.1, 0.12, 0.12, 0.06)


def asked(passage: str, question: str, rng: np.random.Generator | None = None) -> str:
    """What a person writes who has a passage and a question; without `rng` the usual form."""
    form = _FORMS[0] if rng is None else _FORMS[int(rng.choice(len(_FORMS), p=_FORM_SHARES))]
    return form.format(passage=passage, question=question)


def sentences(text: str) -> list[str]:
    """The sentences of a text with one paragraph a line, those too short or too long to ask about left out."""
    parts = (part for line in text.splitlines() for part in _SENTENCE.split(line))
    return [part.strip() for part in parts if 25 <= len(part.strip()) <= 320]


@dataclass(frozen=True)
class ClozeQuestions:
    """Passages of some texts, each with a question about it; `texts` are lists of sentences in their order."""

    texts: Sequence[Sequence[str]]
    absent: float = 0.1

    def __call__(self, rng: np.random.Generator) -> Dialogue:
        """One passage with a question; the share `absent` asks what is not there."""
        passage, question, answer = self._asked(rng)
        if rng.random() < self.absent:
            _, other, wanted = self._asked(rng)
            if wanted.lower() not in passage.lower():
                question, answer = other, NOT_THERE
        return Dialogue(((asked(passage, question, rng), answer),), pictured=False)

    def _asked(self, rng: np.random.Generator) -> tuple[str, str, str]:
        while True:
            text = self.texts[int(rng.integers(len(self.texts)))]
            count = int(rng.integers(1, 6))
            start = int(rng.integers(max(1, len(text) - count)))
            chosen = text[start : start + count]
            passage = " ".join(chosen)
            sentence = chosen[int(rng.integers(len(chosen)))]
            found = _span(sentence, rng)
            if found is None or len(passage) > LONGEST_PASSAGE:
                continue
            begin, end, kind = found
            question = _question(sentence[:begin].strip(), sentence[end:].strip(), kind, rng)
            if question is not None:
                return passage, question, sentence[begin:end]


def _span(sentence: str, rng: np.random.Generator) -> tuple[int, int, str] | None:
    """What to hide of a sentence: begin, end, and which kind of thing it is."""
    found = [(hit.start(), hit.end(), "number") for hit in _NUMBER.finditer(sentence)]
    found += [(hit.start(), hit.end(), "name") for hit in _NAME.finditer(sentence)]
    if not found or rng.random() < 0.4:
        found += [(hit.start(1), hit.end(1), "thing") for hit in _PHRASE.finditer(sentence)]
    return found[int(rng.integers(len(found)))] if found else None


_ASKING = {
    "number": ("how many", "how much", "when", "in what year", "what number"),
    "name": ("who", "what", "where", "which", "whom"),
    "thing": ("what", "what", "which", "whom"),
}


def _question(before: str, after: str, kind: str, rng: np.random.Generator) -> str | None:
    """The rest of a sentence as a question, cut to some words about the gap."""
    left, right = before.split()[-int(rng.integers(2, 10)) :], after.split()[: int(rng.integers(1, 10))]
    if len(left) + len(right) < 3:
        return None
    word = _ASKING[kind][int(rng.integers(len(_ASKING[kind])))]
    chance = rng.random()
    if chance < 0.15:
        return f"Fill the gap: {' '.join(left)} ___ {' '.join(right)}".strip()
    if chance < 0.25 and len(left) >= 2:
        return f'What comes after "{" ".join(left)}"?'
    kept = [each for each in (*left, word, *right) if rng.random() > 0.12 or each == word]
    if chance < 0.55:
        kept.remove(word)
        kept = [*word.split(), *kept]
    text = " ".join(kept).strip(" ,.;:!?\"'").replace(word, word)
    return f"{text[:1].upper()}{text[1:]}?"
