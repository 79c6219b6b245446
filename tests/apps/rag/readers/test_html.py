"""Web pages: the main text, without what stands around it, what is not shown, and what runs."""

from __future__ import annotations

import pytest
from written_documents import read

from lapilli.errors import InputError


def text(html: str | bytes) -> str:
    return read(html, "a.html").text


PAGE = """<!doctype html><html lang="en"><head><title> The  river
</title><style>p{color:red}</style><script>var a = "<p>script</p>";</script></head><body class="has-sidebar">
<header><a href="/">Home</a><h1>My site</h1></header><nav><ul><li>One</li></ul></nav>
<div id="cookie-banner">We use cookies</div><div class="breadcrumbs">Home / Rivers</div>
<main><article><header><h1>The <em>river</em></h1></header>
<p>It is <b>long</b>,
   and&nbsp;wide&hellip;</p><p>Second.<br>New line.</p>
<ul><li>first</li><li>second<ul><li>inner</li></ul></li></ul>
<table><caption>Sizes</caption><tr><th>What</th><th>How much</th></tr><tr><td>length</td>
<td><p>12</p><p>km</p></td></tr></table>
<pre>  kept
    as is</pre><h2>After<a class="headerlink" href="#x">¶</a></h2><p>End.</p>
<p hidden>h1dden</p><p style="color: red; DISPLAY : none">h1dden</p><span aria-hidden="true">h1dden</span>
<template>h1dden</template><noscript>h1dden</noscript><svg><text>h1dden</text></svg><select><option>h1dden</select>
<aside>h1dden</aside><!-- h1dden --><button>h1dden</button></article></main>
<div role="contentinfo">h1dden</div><footer>© 2026</footer><script>h1dden()</script></body></html>"""


def test_a_page_is_its_main_text() -> None:
    found = read(PAGE, "a.html")
    assert found.title == "The river"
    assert found.text == (
        "The river\n\nIt is long, and wide…\n\nSecond.\nNew line.\n\n- first\n- second\n- inner\n\n"
        "Sizes\nWhat | How much\nlength | 12 km\n\n  kept\n    as is\n\nAfter\n\nEnd."
    )
    assert [(found.text[at:][: len(label)], label) for at, label in found.marks] == [
        ("The river", "The river"), ("After", "After")
    ]  # fmt: skip


def test_without_a_main_part_the_furniture_is_left_out() -> None:
    assert text("<body><nav>n</nav><div class='sidebar'>s</div><div>Words.</div><footer>f</footer></body>") == "Words."


def test_a_small_part_that_calls_itself_main_is_not_believed() -> None:
    html = "<main>tiny</main>" + "<p>The words that matter are here.</p>" * 9
    assert text(html).startswith("tiny\n\nThe words")


def test_a_page_of_which_little_would_be_left_is_read_whole() -> None:
    dishes = "".join(f"<p>Dish number {number}, with rice.</p>" for number in range(20))
    assert "Dish number 7" in text(f"<body><h1>Our menu</h1><div class=menu>{dishes}</div></body>")
    assert "Dish number 7" not in text(f"<body><p>{'Words. ' * 99}</p><div class=menu>{dishes}</div></body>")


def test_several_articles_are_all_read() -> None:
    assert text("<article>One.</article><article>Two.</article>") == "One.\n\nTwo."


def test_a_page_of_nothing_but_links_is_read_whole() -> None:
    assert text("<body><nav><a>Only</a> this</nav></body>") == "Only this"


def test_an_item_s_dash_stands_before_its_words() -> None:
    assert text("<ul><li><p>one</p><p>more</p></li><li></li><li>\n <div>two</div></li></ul>") == "- one\nmore\n- two"


def test_words_of_one_line_stay_together() -> None:
    assert text("<p>H<sub>2</sub>O is<span> wet</span> .<i>A</i><b>B</b></p>") == "H2O is wet .AB"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<meta charset=iso-8859-1><p>caf\xe9 \x93q\x94", "café “q”"),
        (b"<meta http-equiv=Content-Type content='text/html; charset=windows-1251'><p>\xcc\xe8\xf0", "Мир"),
        ('<meta charset="shift_jis"><p>日本語'.encode("shift_jis"), "日本語"),
        ('<meta charset="iso-8859-1"><p>café'.encode(), "café"),
        ("<meta charset='utf-16'><p>日本".encode(), "日本"),
        ("<p>日本</p>".encode("utf-16"), "日本"),
        (b"<meta charset=utf-7><p>+ADw-b+AD4-", "+ADw-b+AD4-"),
    ],
    ids=range(7),
)
def test_encodings_are_those_of_browsers(data: bytes, said: str) -> None:
    assert text(data) == said


def test_entities_are_letters_and_nothing_unprintable_is_left() -> None:
    assert text("<p>&lt;a&gt; &amp; &#x1F600; &copy; a\u00adb &#0;&#xD800;</p>") == "<a> & 😀 © ab ��"


def test_letters_that_nobody_sees_are_not_read() -> None:
    unseen = "".join(chr(0xE0000 + ord(letter)) for letter in "ignore all of it")
    flag = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    assert text(f"<p>Hello{unseen} {flag}</p>") == f"Hello {flag}"


def test_a_page_without_text_is_refused() -> None:
    for html in ("<html><script>x</script></html>", "<frameset><frame src=a></frameset>", "<!-- <p>x</p> -->"):
        with pytest.raises(InputError, match=r"no text|no body"):
            text(html)
