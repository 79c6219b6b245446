"""The report: the text is whole, the spans are lit, nothing in it runs but its own script."""

from __future__ import annotations

import html.parser
import json
from pathlib import Path
from typing import Any

import pytest
from made_trials import intervention, made_trials

from lapilli.apps.trials.report import Shown, light, write_report


class Scripts(html.parser.HTMLParser):
    """The elements of a page that run or hold data."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "action")]
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._open:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)


def written(tmp_path: Path, trials: list[Shown], **rest: Any) -> tuple[str, list[Any], dict[str, Any]]:
    path = tmp_path / "report.html"
    write_report(path, "Trials", lambda: trials, **rest)
    page = path.read_text(encoding="utf-8")
    parser = Scripts()
    parser.feed(page)
    data = {str(about["id"]): json.loads(text) for about, text in parser.scripts if about.get("id")}
    index = data.pop("index")
    return page, [trial for part in data.values() for trial in part], index


def test_pieces_put_together_are_the_text_and_the_shorter_span_is_seen() -> None:
    text = "Lapillin tablets 5 mg"
    pieces = light(text, [(0, 21, 0), (0, 8, 1)])
    assert pieces == [("Lapillin", 1), (" tablets 5 mg", 0)]
    assert light("", []) == []
    assert "".join(piece for piece, _ in light("a😀b", [(1, 2, 0)])) == "a😀b"


def test_every_trial_is_there_with_its_text_whole(tmp_path: Path) -> None:
    trials = list(made_trials(250))
    _, shown, index = written(tmp_path, trials)
    assert [trial["ids"] for trial in shown] == [" · ".join(trial.ids) for trial in trials]
    assert [head["s"] for head in index["trials"]] == [trial.status for trial in trials]
    for trial, view in zip(trials, shown, strict=True):
        texts = {name: "".join(piece for piece, _ in pieces) for name, pieces in view["lit"] + view["rest"]}
        texts["public title"] = "".join(piece for piece, _ in view["title"])
        assert texts == {name.replace("_", " "): text for name, text in trial.fields.items()}


def test_more_trials_than_are_shown_are_counted_and_said(tmp_path: Path) -> None:
    page, shown, _ = written(tmp_path, list(made_trials(30)), most=10)
    assert len(shown) == 10
    assert "30 trials" in page
    assert "the first 10 are shown" in page


@pytest.mark.parametrize(
    "words", ["</script><script>alert(1)</script>", "<!--<script>", "<img src=x onerror=alert(1)>"]
)
def test_words_of_strangers_stay_words(tmp_path: Path, words: str) -> None:
    trial = Shown((words,), words, "ok", [intervention(words, words)], {"public_title": words, words: words})
    _, (shown,), _ = written(tmp_path, [trial])
    parser = Scripts()
    parser.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert [about.get("id") for about, _ in parser.scripts] == ["part-0", "index", None]
    assert "img" not in parser.tags
    assert shown["ids"] == words
    assert shown["found"][0]["name"] == words


def test_half_a_surrogate_pair_does_not_stop_it(tmp_path: Path) -> None:
    _, (shown,), _ = written(tmp_path, [Shown(("X1",), "made", "ok", [], {"public_title": "a\ud800b"})])
    assert shown["title"] == [["a?b", -1]]


def test_it_asks_for_nothing_from_anywhere(tmp_path: Path) -> None:
    written(tmp_path, list(made_trials(3)))
    parser = Scripts()
    parser.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert all(link.startswith(("data:", "#")) for link in parser.links)


def test_no_trials_are_a_report_too(tmp_path: Path) -> None:
    page, shown, _ = written(tmp_path, [])
    assert shown == []
    assert "0 trials" in page
