"""The web page in a browser: asking, stopping, branching, pictures, and what can go wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_ollama import PLAIN, Fake
from page import ask, encoded, give, last

pytestmark = pytest.mark.browser

FULL = "() => { IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); }; }"


def until(what: Callable[[], object], seconds: float = 5) -> None:
    """Waits until `what` holds."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_a_pasted_picture_is_asked_about_and_the_answer_streams(page: Any, fake: Fake, shapes: Path) -> None:
    fake.pace = 0.03
    give(page, shapes, "paste")
    ask(page, "What is there?", wait=False)
    until(lambda: last(page).inner_text())
    early = last(page).inner_text()
    assert 0 < len(early) < len(PLAIN)
    page.locator(".answer .figures").wait_for()
    assert last(page).inner_text() == PLAIN
    (body,) = fake.asked
    assert body["model"] == "mini:latest"
    assert body["messages"] == [{"role": "user", "content": "What is there?", "images": [encoded(shapes)]}]
    assert "heatmap" not in body
    assert page.locator(".asked .pictures img").count() == 1


def test_figures_say_what_an_answer_took(page: Any, shapes: Path) -> None:
    give(page, shapes, "paste")
    ask(page, "What is there?")
    ask(page, "And the colours?")
    assert page.locator(".answer").first.locator(".figures li").all_inner_texts() == [
        "48 tokens/s",
        "20 tokens",
        "144 image tokens",
    ]
    assert "163 of 175 cached" in page.locator(".answer").last.locator(".figures").inner_text()


def test_esc_stops_the_server_too_and_keeps_the_words(page: Any, fake: Fake) -> None:
    fake.pace = 0.05
    ask(page, "long", wait=False)
    page.locator(".answer", has_text="Paragraph 0").wait_for()
    page.keyboard.press("Escape")
    page.get_by_text("stopped", exact=True).wait_for()
    until(lambda: fake.gone == 1)
    assert last(page).inner_text().startswith("Paragraph 0")
    assert page.get_by_role("button", name="Send", exact=True).is_visible()
    ask(page, "again")
    assert fake.asked[-1]["messages"][1]["content"].startswith("Paragraph 0")


def test_the_stop_button_stops(page: Any, fake: Fake) -> None:
    fake.pace = 0.05
    ask(page, "long", wait=False)
    page.locator(".answer", has_text="Paragraph").wait_for()
    page.get_by_role("button", name="Stop the answer").click()
    until(lambda: fake.gone == 1)


def test_editing_grows_a_branch_and_both_can_be_seen(page: Any, fake: Fake, shapes: Path) -> None:
    give(page, shapes, "paste")
    ask(page, "first words")
    ask(page, "code, please")
    fake.answer = "Another answer."
    page.locator(".asked").first.hover()
    page.get_by_role("button", name="Edit this message").first.click()
    editor = page.get_by_role("textbox", name="Edit your message")
    editor.fill("other words")
    editor.press("Enter")
    page.locator("#thread").get_by_text("Another answer.").wait_for()
    assert fake.asked[-1]["messages"] == [{"role": "user", "content": "other words", "images": [encoded(shapes)]}]
    assert page.locator(".asked .words").all_inner_texts() == ["other words"]
    page.get_by_role("button", name="Earlier version").click()
    assert page.locator(".asked .words").all_inner_texts() == ["first words", "code, please"]
    assert page.locator(".asked .count").inner_text() == "1 / 2"


def test_asking_again_keeps_both_answers_and_the_rest_follows_its_own(page: Any, fake: Fake) -> None:
    ask(page, "one")
    fake.answer = "Second answer."
    page.get_by_role("button", name="Ask again").click()
    page.locator("#thread").get_by_text("Second answer.").wait_for()
    page.locator(".answer .figures").wait_for()
    assert fake.asked[0] == fake.asked[1]
    ask(page, "two")
    assert [each["content"] for each in fake.asked[2]["messages"]] == ["one", "Second answer.", "two"]
    page.get_by_role("button", name="Earlier version").click()
    assert page.locator(".turn").count() == 2
    assert last(page).inner_text() == PLAIN


def test_arrow_up_edits_the_last_message_and_esc_leaves_it(page: Any) -> None:
    ask(page, "mistaken")
    page.locator("#words").press("ArrowUp")
    editor = page.get_by_role("textbox", name="Edit your message")
    assert editor.input_value() == "mistaken"
    editor.press("Escape")
    assert editor.count() == 0


def test_shift_enter_is_a_new_line(page: Any, fake: Fake) -> None:
    page.locator("#words").fill("one")
    page.locator("#words").press("Shift+Enter")
    page.locator("#words").press_sequentially("two")
    page.locator("#words").press("Enter")
    page.locator(".figures").wait_for()
    assert fake.asked[0]["messages"][0]["content"] == "one\ntwo"


def test_pictures_are_picked_dropped_and_removed(page: Any, fake: Fake, shapes: Path, stars: Path) -> None:
    page.locator("input[type=file][accept='image/*']").set_input_files([shapes, stars])
    page.locator(".strip li:nth-child(2) img").wait_for()
    give(page, stars, "drop")
    page.get_by_role("button", name="Remove stars.png").first.click()
    assert page.locator(".strip li").count() == 2
    ask(page, "both?")
    assert fake.asked[0]["messages"][0]["images"] == [encoded(shapes), encoded(stars)]
    assert page.locator(".strip li").count() == 0


def test_what_is_no_picture_is_refused_kindly(page: Any, tmp_path: Path) -> None:
    (tmp_path / "sham.png").write_bytes(b"not a picture")
    page.locator("input[type=file][accept='image/*']").set_input_files(tmp_path / "sham.png")
    page.get_by_text("sham.png is not a picture that this browser can open.").wait_for()
    assert page.locator(".strip li").count() == 0


def test_a_model_that_cannot_see_is_not_sent_pictures_unasked(page: Any, fake: Fake, shapes: Path) -> None:
    page.locator("#model").click()
    page.get_by_role("option", name="phi3:medium").click()
    give(page, shapes, "paste")
    page.locator("#words").fill("What is there?")
    page.locator("#words").press("Enter")
    assert page.locator(".warning").get_by_text("phi3:medium cannot see pictures.").is_visible()
    assert fake.asked == []
    page.get_by_role("button", name="Send the words only").click()
    page.locator(".figures").wait_for()
    assert fake.asked[0]["model"] == "phi3:medium"
    assert fake.asked[0]["messages"] == [{"role": "user", "content": "What is there?"}]
    ask(page, "And now?")  # warned once is enough, and the picture still stays here
    assert all("images" not in each for each in fake.asked[1]["messages"])


def test_the_warning_offers_a_model_that_sees(page: Any, fake: Fake, shapes: Path) -> None:
    fake.lag = 0.3
    with page.expect_response("**/api/tags"):
        page.locator("#model").press("ArrowDown")
        page.locator("#model-list").press("End")
    page.wait_for_timeout(100)  # the list is drawn anew, the mark stays
    page.locator("#model-list").press("Enter")
    give(page, shapes, "paste")
    page.get_by_role("button", name="Ask mini instead").click()
    assert not page.locator(".warning").is_visible()
    ask(page, "What is there?")
    assert fake.asked[0]["model"] == "mini:latest"


def test_asking_a_blind_model_again_warns_too(page: Any, fake: Fake, shapes: Path) -> None:
    give(page, shapes, "paste")
    ask(page, "What is there?")
    page.locator("#model").click()
    page.get_by_role("option", name="phi3:medium").click()
    page.get_by_role("button", name="Ask again").click()
    page.locator(".toast", has_text="phi3:medium cannot see pictures.").wait_for()
    assert len(fake.asked) == 1
    page.locator(".toast").get_by_role("button", name="Ask mini instead").click()
    page.locator(".answer .count").wait_for()
    assert fake.asked[1] == fake.asked[0]


def test_a_browser_without_room_still_answers(page: Any) -> None:
    page.evaluate(FULL)
    ask(page, "hello")
    assert last(page).inner_text() == PLAIN
    page.locator(".toast", has_text="This browser has no room").wait_for()


def test_a_picture_that_cannot_be_kept_is_not_lost(page: Any, fake: Fake, shapes: Path) -> None:
    page.evaluate(FULL)
    give(page, shapes, "paste")
    page.locator("#words").fill("What is there?")
    page.locator("#words").press("Enter")
    page.locator(".toast", has_text="it was not sent").wait_for()
    assert page.locator("#words").input_value() == "What is there?"
    assert page.locator(".strip img").count() == 1
    assert fake.asked == []


def test_who_is_quicker_than_the_list_of_models_is_answered(open_page: Callable[..., Any], fake: Fake) -> None:
    fake.lag = 0.5
    page = open_page(ready=False)
    ask(page, "hello")
    assert fake.asked[0]["model"] == "mini:latest"


def test_who_is_quicker_than_the_list_is_warned_all_the_same(page: Any, fake: Fake, shapes: Path) -> None:
    page.locator("#model").click()
    page.get_by_role("option", name="phi3:medium").click()
    fake.lag = 1.0
    page.reload()
    give(page, shapes, "paste")
    page.locator("#words").fill("What is there?")
    page.locator("#words").press("Enter")
    page.locator(".warning", has_text="phi3:medium cannot see pictures.").wait_for()
    assert page.locator("#words").input_value() == "What is there?"
    assert fake.asked == []


def test_the_heat_map_lies_over_the_picture(page: Any, fake: Fake, shapes: Path, stars: Path) -> None:
    page.get_by_role("button", name="Where it looks").click()
    give(page, shapes, "paste")
    give(page, stars, "paste")
    ask(page, "What is there?")
    assert fake.asked[0]["heatmap"] is True
    page.locator(".stack canvas").nth(1).wait_for()
    for stack in page.locator(".stack").all():
        over, under = stack.locator("canvas").bounding_box(), stack.locator("img").bounding_box()
        assert all(abs(over[side] - under[side]) <= 1 for side in ("x", "y", "width", "height"))
    # The sheet is white below its pictures: none of that may have come along.
    corner = "canvas => [...canvas.getContext('2d').getImageData(0, canvas.height - 1, 1, 1).data]"
    assert all(sum(each.evaluate(corner)[:3]) < 500 for each in page.locator(".stack canvas").all())
    page.locator(".answer").get_by_role("button", name="Where it looked").click()
    assert not page.locator(".stack").first.is_visible()
    assert page.evaluate("document.activeElement.textContent") == "Where it looked"
    page.reload()
    page.locator(".stack canvas").nth(1).wait_for()


def test_a_half_streamed_answer_outlives_a_reload(page: Any, fake: Fake, shapes: Path) -> None:
    fake.pace = 0.05
    give(page, shapes, "paste")
    ask(page, "long", wait=False)
    page.locator(".answer", has_text="circle").wait_for()
    page.reload()
    page.locator("#thread").get_by_text("The page was closed before this answer was done.").wait_for()
    assert last(page).inner_text().startswith("Paragraph 0. There is a red circle")
    assert page.locator(".asked .pictures img").count() == 1
    fake.pace = 0.001
    page.get_by_role("button", name="Try again").click()
    page.locator(".answer .figures").wait_for()
    assert fake.asked[-1] == fake.asked[0]


def test_a_stream_that_ends_early_says_so(page: Any, fake: Fake) -> None:
    fake.cut_after = 5
    ask(page, "hello", wait=False)
    page.locator("#thread").get_by_text("The answer ended before it was done.").wait_for()
    assert last(page).inner_text() == PLAIN[:20].strip()


def test_the_servers_words_are_shown_when_it_refuses(page: Any, fake: Fake) -> None:
    fake.problem = (400, "5001 tokens asked, 4096 fit: ask for fewer")
    ask(page, "hello", wait=False)
    page.locator("#thread").get_by_text("5001 tokens asked, 4096 fit: ask for fewer").wait_for()
    fake.problem = None
    page.get_by_role("button", name="Try again").click()
    page.locator(".answer .figures").wait_for()
    assert last(page).inner_text() == PLAIN


def test_a_server_that_is_away_is_waited_for(page: Any, address: str) -> None:
    page.route("**/api/**", lambda route: route.abort())
    ask(page, "hello", wait=False)
    page.get_by_text("The server is away.").wait_for()
    page.unroute("**/api/**")
    page.get_by_text("The server is away.").wait_for(state="detached")  # by itself
    page.get_by_role("button", name="Try again").click()
    page.locator(".answer .figures").wait_for()


def test_a_key_is_asked_for_once_and_sent(open_page: Callable[..., Any], fake: Fake) -> None:
    fake.key = "right"
    page = open_page(ready=False)
    dialog = page.get_by_role("dialog", name="This server asks for a key")
    for key in ("wrong", "right"):
        dialog.get_by_label("API key").fill(key)
        dialog.get_by_role("button", name="Use this key").click()
    dialog.wait_for(state="detached")
    ask(page, "hello")
    assert page.evaluate("Object.keys(localStorage).includes('lapilli.key')") is False


def test_settings_and_the_system_prompt_go_along(page: Any, fake: Fake) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    given = {"Temperature": "0", "Top p": "0.5", "Seed": "7", "Most tokens": "64", "Context": "512"}
    for label, value in given.items():
        page.get_by_role("dialog").get_by_label(label).fill(value)
    page.get_by_label("Leave out the oldest turns").check()
    page.keyboard.press("Escape")
    ask(page, "hello")
    assert fake.asked[0]["options"] == {"temperature": 0, "top_p": 0.5, "seed": 7, "num_predict": 64, "num_ctx": 512}
    assert fake.asked[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert fake.asked[0]["truncate"] is True


def test_a_setting_out_of_its_range_is_named_and_not_sent(page: Any, fake: Fake) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Temperature").fill("3")
    page.get_by_text("From 0 to 2").wait_for()
    page.keyboard.press("Escape")
    ask(page, "hello")
    assert fake.asked[0]["options"] == {}


def test_words_of_a_model_never_become_markup(page: Any) -> None:
    ask(page, "hostile")
    assert last(page).locator("img, script, [href^=javascript], [onerror]").count() == 0
    assert '<img src=x onerror="window.hurt=1">' in last(page).inner_text()
    assert page.evaluate("window.hurt") is None


def test_code_is_copied(open_page: Callable[..., Any]) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    ask(page, "code")
    page.get_by_role("button", name="Copy code").click()
    until(lambda: page.evaluate("navigator.clipboard.readText()").startswith("from PIL import Image\n"))
