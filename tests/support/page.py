"""What people do on the web page, a function each."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

GIVE = """([name, data, kind]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes], name, { type: "image/png" }));
  const init = { bubbles: true, cancelable: true };
  const words = document.getElementById("words");
  if (kind === "paste") words.dispatchEvent(new ClipboardEvent("paste", { ...init, clipboardData: given }));
  else for (const each of ["dragenter", "dragover", "drop"]) {
    words.dispatchEvent(new DragEvent(each, { ...init, dataTransfer: given }));
  }
}"""


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def give(page: Any, picture: Path, kind: str) -> None:
    """Pastes or drops a picture and waits until its thumbnail is there."""
    before = page.locator(".composer-place .strip li").count()
    page.evaluate(GIVE, [picture.name, encoded(picture), kind])
    page.locator(f".composer-place .strip li:nth-child({before + 1}) img").wait_for()


def ask(page: Any, words: str, *, wait: bool = True) -> None:
    """Sends words, and waits for the whole answer."""
    before = page.locator(".answer").count()
    page.locator("#words").fill(words)
    page.locator("#words").press("Enter")
    page.locator(".answer").nth(before).wait_for(state="attached")
    if wait:
        page.locator(".answer").nth(before).locator(".figures").wait_for()


def last(page: Any) -> Any:
    """The last answer's words."""
    return page.locator(".answer").last.locator(".markdown").last
