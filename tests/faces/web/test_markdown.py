"""Markdown becomes nodes: what is known is drawn, what is not stays text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.browser

SHOW = """async (texts) => {
  const { show } = await import("/static/markdown.js");
  const box = document.createElement("div");
  for (const text of texts) show(box, text);
  return box.innerHTML;
}"""

PLAIN_CODE = (
    '<figure class="code"><figcaption><span>{name}</span>…</figcaption>'
    '<pre tabindex="0" role="region" aria-label="Code, {name}"><code>{code}</code></pre></figure>'
)
LINK = 'target="_blank" rel="noopener noreferrer nofollow"'

TABLE = (
    '<div class="table" tabindex="0" role="region" aria-label="Table"><table>'
    '<thead><tr><th>a</th><th class="right">b</th></tr></thead>'
    '<tbody><tr><td>1</td><td class="right">2</td></tr></tbody></table></div>'
)

CASES = [
    ("a *b* **c** ***d*** ~~e~~", "<p>a <em>b</em> <strong>c</strong> <strong><em>d</em></strong> <del>e</del></p>"),
    ("snake_case_name and _this_", "<p>snake_case_name and <em>this</em></p>"),
    ("2 * 3 * 4", "<p>2 * 3 * 4</p>"),
    ("`a*b*` and ``c`d``", "<p><code>a*b*</code> and <code>c`d</code></p>"),
    (r"\*not\*", "<p>*not*</p>"),
    ("one\ntwo\n\nthree", "<p>one<br>two</p><p>three</p>"),
    ("# One\n### Three", "<h3>One</h3><h5>Three</h5>"),
    ("---", "<hr>"),
    ("> a\n> b", "<blockquote><p>a<br>b</p></blockquote>"),
    ("- a\n- b\n  - c", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>"),
    ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
    ("- a\n\n- b", "<ul><li>a</li><li>b</li></ul>"),
    ("text\n- a", "<p>text</p><ul><li>a</li></ul>"),
    ("[x](https://e.org/a_b)", f'<p><a href="https://e.org/a_b" {LINK}>x</a></p>'),
    ("see https://e.org/a.", f'<p>see <a href="https://e.org/a" {LINK}>https://e.org/a</a>.</p>'),
    ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"),
    ("[x](data:text/html,1)", "<p>[x](data:text/html,1)</p>"),
    ("![x](https://e.org/p.png)", f'<p><a href="https://e.org/p.png" {LINK}>x</a></p>'),
    ("<b>bold</b> & <script>", "<p>&lt;b&gt;bold&lt;/b&gt; &amp; &lt;script&gt;</p>"),
    ("| a | b |\n|---|--:|\n| 1 | 2 |", TABLE),
    ("```text\n<i> *a*\n```", PLAIN_CODE.format(name="text", code="&lt;i&gt; *a*")),
    ("~~~txt\na\n\n```\n~~~\nb", PLAIN_CODE.format(name="txt", code="a\n\n```") + "<p>b</p>"),
    ("```text\nopen", PLAIN_CODE.format(name="text", code="open")),
]  # fmt: skip


@pytest.fixture(scope="module")
def draw(browser: Any, served: tuple[Any, str]) -> Iterator[Callable[..., str]]:
    page = browser.new_page()
    page.goto(served[1])
    yield lambda *texts: page.evaluate(SHOW, list(texts))
    page.close()


def bare(html: str) -> str:
    """Without the copy button."""
    while "<button" in html:
        start, end = html.index("<button"), html.index("</button>") + len("</button>")
        html = html[:start] + "…" + html[end:]
    return html


@pytest.mark.parametrize(("text", "html"), CASES)
def test_drawn(draw: Callable[..., str], text: str, html: str) -> None:
    assert bare(draw(text)) == html


def test_growing_letter_by_letter_ends_as_all_at_once(draw: Callable[..., str]) -> None:
    text = "\n\n".join(case for case, _ in CASES)
    assert draw(*(text[:end] for end in range(1, len(text) + 1))) == draw(text)


def test_what_stands_already_is_not_drawn_again(browser: Any, served: tuple[Any, str]) -> None:
    page = browser.new_page()
    page.goto(served[1])
    kept = """async () => {
      const { show } = await import("/static/markdown.js");
      const box = document.createElement("div");
      show(box, "one\\n\\ntw");
      const first = box.firstChild;
      show(box, "one\\n\\ntwo\\n\\nthree");
      return box.firstChild === first && box.children.length === 3;
    }"""
    assert page.evaluate(kept)
    page.close()


@pytest.mark.parametrize(
    "piece", ["**a ", "*a ", "`", "[a](", "_a", "~~a", "> ", "- ", "| ", "#", "```\n", "1. ", "\\", "https://"]
)
def test_no_text_is_slow_to_draw(draw: Callable[..., str], piece: str) -> None:
    start = time.monotonic()
    draw(piece * 4000)
    assert time.monotonic() - start < 5
