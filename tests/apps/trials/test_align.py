"""Places of values: what is found slices back, words end where they do, and nothing takes long."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapilli.apps.trials.align import align, align_all


def quote(value: str, text: str, after: int = 0) -> tuple[str, str]:
    span = align(value, text, after=after)
    return text[span.start : span.end], span.how


@pytest.mark.parametrize(
    ("value", "text", "found", "how"),
    [
        ("Lapillin", "give Lapillin daily", "Lapillin", "exact"),
        ("chloroquine", "hydroxychloroquine, then chloroquine", "chloroquine", "exact"),
        ("chloroquine", "hydroxychloroquine alone", "", "none"),
        ("IL", "ILL", "", "none"),
        ("5 mg", "15 mg, 5 mg", "5 mg", "exact"),
        ("lapillin 5 mg", "Lapillin\n5 MG", "Lapillin\n5 MG", "normalised"),
        ("BI-2536", "with BI\u20112536", "BI\u20112536", "normalised"),
        ("Ａｂｃ (5)", "x ABC (5)", "ABC (5)", "normalised"),
        ("Menière", "Menie\u0300re’s", "Menie\u0300re", "normalised"),
        ("cafe", "cafe\u0301", "", "none"),
        ("Straße", "STRASSE", "STRASSE", "normalised"),
        ("Lapil", "Lapil® tablets", "Lapil", "exact"),
        ("Lapil tablets", "Lapil® tablets", "Lapil® tablets", "normalised"),
        ("莲花清瘟胶囊", "给予莲花清瘟胶囊治疗", "莲花清瘟胶囊", "exact"),
        ("莲花清瘟胶囊", "给予莲花清温胶囊治疗", "莲花清温胶囊", "fuzzy"),
        ("ｶﾌｾﾙ", "カフセル剤", "カフセル", "normalised"),
        ("hydroxychlorquin sulphate", "oral hydroxychloroquine sulfate x", "hydroxychloroquine sulfate", "fuzzy"),
        ("lopinavir and ritonavir tablets", "Tablets: lopinavir/ritonavir", "Tablets: lopinavir/ritonavir", "fuzzy"),
        ("aspirin 100 mg", "placebo of some kind", "", "none"),
        ("lapillin tablets twice daily", f"lapillin {'x ' * 20}tablets {'x ' * 20}twice {'x ' * 20}daily", "", "none"),
        ("...", "a ... b", "", "none"),
        ("", "text", "", "none"),
        ("text", "", "", "none"),
    ],
)  # fmt: skip
def test_how_values_are_found(value: str, text: str, found: str, how: str) -> None:
    assert quote(value, text) == (found, how)


def test_what_stands_there_several_times_is_found_in_order() -> None:
    text = "aspirin, Aspirin and aspirin"
    spans = align_all(["aspirin", "aspirin", "aspirin"], text)
    assert [(span.start, span.end) for span in spans] == [(0, 7), (21, 28), (0, 7)]
    spans = align_all(["5 mg", "placebo", "5 mg"], "5 mg or placebo or 5 mg")
    assert [span.start for span in spans] == [0, 8, 19]


WORDS = st.text("ab ①ﬁé\u0301ß-中文ｱ\u00a0\n.X1", max_size=60)


@given(WORDS, WORDS)
def test_what_is_found_is_what_was_looked_for(value: str, text: str) -> None:
    span = align(value, text)
    assert 0 <= span.start <= span.end <= len(text)
    assert (span.how == "none") == (span.start == span.end)
    if span.how == "exact":
        assert text[span.start : span.end] == value.strip()
    if span.how == "normalised":
        found = unicodedata.normalize("NFKC", text[span.start : span.end]).casefold()
        wanted = unicodedata.normalize("NFKC", value).casefold()
        assert _letters(wanted) in _letters(found)


@given(st.lists(st.sampled_from(["Lapillin", "5 mg", "中文", "daily", "e\u0301tude"]), min_size=1, max_size=9))
def test_a_piece_of_a_text_is_found_however_it_is_spelled(words: list[str]) -> None:
    text = f"x, {' '.join(words)}, y"
    for value in (" ".join(words), "  ".join(words).upper(), unicodedata.normalize("NFC", "\n".join(words))):
        found, how = quote(value, text)
        assert how in ("exact", "normalised")
        assert _letters(unicodedata.normalize("NFC", found).lower()) == _letters(
            unicodedata.normalize("NFC", value).lower()
        )


def _letters(text: str) -> str:
    return "".join(each for each in unicodedata.normalize("NFKC", text) if each.isalnum())


HARD = {
    # langextract's: 12,000 characters in 30 minutes, 355 in 17, and products of three lengths (its #197, #277, #386).
    "long text, long value": ("word " * 300, "word other " * 1200),
    "long words": ("x" * 300, "y" * 12_000),
    "one letter": ("a" * 1999, "a" * 400_000),
    "one letter, another at the end": ("a" * 1000 + "b", "a" * 400_000),
    "two letters": ("ab " * 600, "ab" * 200_000),
    "words nearly alike": (" ".join(f"wordab{n}" for n in range(190)), " ".join(f"wordcd{n}" for n in range(40_000))),
    "one word again and again": ("aa " * 190 + "zz", "aa " * 130_000),
    "inside words": ("ab", "xab" * 130_000),
    "marks": ("e" + "\u0301" * 1000, ("e" + "\u0301" * 1000) * 400),
    "marks alone": ("a", "\u0301" * 400_000),
    "Chinese": ("莲花清瘟胶囊" * 100, "莲花清温胶囊" * 60_000),
    "what grows": ("ﷺ", "ﷺ" * 100_000),
    "larger than is looked at": ("b" * 300, "a " * 2_000_000),
}  # fmt: skip


@pytest.mark.parametrize("case", HARD)
def test_nothing_takes_long(case: str) -> None:
    value, text = HARD[case]
    before = time.process_time()
    align(value, text)
    assert time.process_time() - before < 8  # the worst is two; what goes wrong here takes minutes
