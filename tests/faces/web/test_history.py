"""The web page in a browser: conversations are found, renamed, deleted, taken out and taken in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_ollama import PLAIN
from page import ask, encoded, give

pytestmark = pytest.mark.browser

VERSION_2 = '{"format": "lapilli conversations", "version": 2, "conversations": []}'


def titles(page: Any) -> list[str]:
    return page.locator("#list .open").all_inner_texts()


def new(page: Any) -> None:
    page.get_by_role("button", name="New conversation").click()


def choose(page: Any, title: str, entry: str) -> None:
    page.locator("#list li", has_text=title).hover()
    page.get_by_role("button", name=f"More for {title}").click()
    page.get_by_role("menuitem", name=entry).click()


def test_conversations_are_listed_and_opened(page: Any) -> None:
    ask(page, "about the circle")
    new(page)
    assert page.get_by_role("heading", name="Ask about a picture").is_visible()
    ask(page, "about the square")
    assert titles(page) == ["about the square", "about the circle"]
    page.get_by_role("button", name="about the circle", exact=True).click()
    page.locator(".asked .words", has_text="about the circle").wait_for()
    assert page.title() == "about the circle · lapilli"
    page.reload()
    page.locator(".asked .words", has_text="about the circle").wait_for()


def test_search_looks_into_what_was_said(page: Any) -> None:
    ask(page, "first")
    new(page)
    ask(page, "show the code")
    page.keyboard.press("Control+k")
    page.keyboard.type("getdata TUPLES")
    page.locator("#list li").nth(1).wait_for(state="detached")
    assert titles(page) == ["show the code"]
    page.keyboard.type(" nowhere")
    page.get_by_text("Nothing found.").wait_for()


def test_a_name_given_stays(page: Any) -> None:
    ask(page, "first")
    choose(page, "first", "Rename")
    page.get_by_label("New title").fill("Shapes")
    page.keyboard.press("Enter")
    page.locator("#list .open", has_text="Shapes").wait_for()
    ask(page, "second")
    page.reload()
    page.locator("#list .open", has_text="Shapes").wait_for()
    assert titles(page) == ["Shapes"]


def test_what_is_deleted_can_be_brought_back_at_once(page: Any) -> None:
    ask(page, "first")
    choose(page, "first", "Delete")
    page.locator("#list .open").wait_for(state="detached")
    assert page.locator(".turn").count() == 0
    page.get_by_role("button", name="Undo").click()
    page.locator("#list .open", has_text="first").click()
    page.locator(".answer", has_text=PLAIN).wait_for()


def test_out_and_in_again_elsewhere(open_page: Callable[..., Any], shapes: Path, tmp_path: Path) -> None:
    here = open_page()
    here.get_by_role("button", name="Where it looks").click()
    give(here, shapes, "paste")
    ask(here, "What is there?")
    here.get_by_role("button", name="Ask again").click()
    here.locator(".answer .count").wait_for()
    with here.expect_download() as caught:
        here.get_by_role("button", name="Export all").click()
    caught.value.save_as(tmp_path / "out.json")
    assert caught.value.suggested_filename.startswith("lapilli-conversations-")
    there = open_page()
    there.locator("#import-file").set_input_files(tmp_path / "out.json")
    there.locator("#list .open", has_text="What is there?").click()
    there.locator(".stack canvas").wait_for()
    assert there.locator(".answer .count").inner_text() == "2 / 2"
    assert there.locator(".asked .pictures img").evaluate("each => each.naturalWidth") == 384


def test_a_file_of_a_stranger_is_taken_apart_carefully(page: Any, shapes: Path, tmp_path: Path) -> None:
    turn = {"id": "a" * 24, "parent": "", "role": "user", "content": "<b>hi</b>", "pictures": ["b" * 24, "../x"]}
    loop = {**turn, "id": "c" * 24, "parent": "c" * 24}
    turns = {"a" * 24: turn, "c" * 24: loop, "__proto__": turn}
    picture = {"id": "b" * 24, "conversation": "d" * 24, "name": "p", "width": 1, "height": 1, "data": encoded(shapes)}
    file = {
        "format": "lapilli conversations",
        "version": 1,
        "conversations": [
            {"id": "d" * 24, "title": 7, "turns": turns, "chosen": {"": "a" * 24}},
            "nonsense",
            {"id": "e" * 24, "turns": None},
        ],
        "pictures": [{**picture, "type": "text/html"}],
    }
    (tmp_path / "in.json").write_text(json.dumps(file))
    page.locator("#import-file").set_input_files(tmp_path / "in.json")
    page.get_by_text("1 conversation taken in.").wait_for()
    page.locator("#list .open", has_text="Untitled").click()
    page.locator(".asked .words").wait_for()
    assert page.locator(".asked .words").all_inner_texts() == ["<b>hi</b>"]
    page.get_by_text("This picture is gone").wait_for()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "This file is not JSON."),
        ("[]", "This file holds no conversations of lapilli."),
        (VERSION_2, "of version 2; this page reads version 1"),
    ],
)
def test_other_files_are_refused(page: Any, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "in.json").write_text(text)
    page.locator("#import-file").set_input_files(tmp_path / "in.json")
    page.get_by_text(words).wait_for()
