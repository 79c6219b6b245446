"""Draw docs/page-*.webp: the web page with `mini`'s answers, at two widths, in light and dark.

lapilli serve &
python docs/draw_page.py [http://127.0.0.1:11434]     # needs playwright, and chromium on the path
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
ASKED = (
    ("word", "What does it say?"),
    ("stars", "How many stars are there?"),
    ("shapes", "What colour is the circle?"),
)
SIZES = {"wide": (1280, 1040), "phone": (390, 844)}
PATIENCE = 120_000  # milliseconds


def ask(page: Any, name: str, question: str) -> None:
    """A conversation of its own about one picture, with its heat map."""
    page.keyboard.press("Control+Shift+O")
    page.locator("input[type=file][accept='image/*']").set_input_files(ROOT / "examples" / f"{name}.png")
    page.locator(".strip img").wait_for()
    page.locator("#words").fill(question)
    page.locator("#words").press("Enter")
    page.locator(".answer .figures").wait_for()
    page.locator(".stack canvas").wait_for()


def draw(browser: Any, address: str, width: str, scheme: str) -> None:
    """One picture of the page."""
    across, down = SIZES[width]
    page = browser.new_page(viewport={"width": across, "height": down}, color_scheme=scheme, reduced_motion="reduce")
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.locator("#model .icon").first.wait_for()
    page.get_by_role("button", name="Where it looks").click()
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Temperature").fill("0")
    page.keyboard.press("Escape")
    for name, question in ASKED:
        ask(page, name, question)
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(across / 2, 2)
    page.locator("#scroll").evaluate("(each, top) => { each.scrollTop = top; }", 0 if width == "wide" else 1e6)
    page.wait_for_timeout(300)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    shot.save(ROOT / "docs" / f"page-{width}-{scheme}.webp", quality=86, method=6)
    page.close()


if __name__ == "__main__":
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        for each_width in SIZES:
            for each_scheme in ("light", "dark"):
                draw(chromium, sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:11434", each_width, each_scheme)
        chromium.close()
