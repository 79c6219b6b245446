"""Web pages: what a reader came for, without navigation, scripts and whatever is not shown.

Tables are lines, lists have dashes, headings are marks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lapilli.apps.rag.readers.encodings import charset_of, decode
from lapilli.apps.rag.readers.refusal import RefusedError, need
from lapilli.apps.rag.readers.text import Hints, Text

MAX_DEPTH = 10_000
_META = re.compile(rb"<meta[^>]{0,400}?charset\s*=\s*[\"']?([A-Za-z0-9._:-]{1,40})", re.IGNORECASE)
# Those that nest in themselves; the others are closed by the next one.
_TAG = re.compile(
    r"<(/?)(?:div|section|article|span|[uod]l|table|[abi]|font|em|strong|small|blockquote|form|details|main|header|footer|"
    r"aside|nav|center|pre|fieldset|figure|address|dialog|menu|hgroup|search|button|object|svg|math|g|h[1-6])\b",
    re.IGNORECASE,
)
_NEVER = frozenset({
    "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "embed", "canvas", "audio",
    "video", "map", "select", "option", "datalist", "button", "input", "textarea", "dialog", "head", "meter",
    "progress",
})  # fmt: skip
_AROUND = frozenset({"nav", "aside", "footer", "header"})
_ROLES = frozenset({
    "navigation", "banner", "contentinfo", "search", "complementary", "dialog", "alertdialog", "menu", "menubar",
    "toolbar",
})  # fmt: skip
_FURNITURE = re.compile(
    r"(?:nav|navbar|navigation|menu|sidebar|breadcrumbs?|cookies?|consent|banner-cookie|skip-?(?:link|to-content)|"
    r"share|sharing|social|masthead|headerlink|doc-anchor|permalink|sphinxsidebar|toctree|mw-editsection|noprint|pagination)"
    r"(?:[-_](?:bar|banner|links?|menu|notice|popup|list|container|wrapper|buttons?|icons?|box|nav|consent|modal|overlay))*",
    re.IGNORECASE,
)
_UNSEEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden")
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "center", "dd", "details", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hgroup", "hr", "html",
    "legend", "li", "main", "menu", "nav", "ol", "p", "pre", "section", "summary", "table", "tbody", "tfoot",
    "thead", "tr", "ul", "caption",
})  # fmt: skip
_SPACED = frozenset({
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "pre", "blockquote", "figure", "article",
    "section",
})  # fmt: skip
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
# In a table's cell these would break its line in two.
_SOFT = frozenset({"p", "div", "br", "center", "address", "li", "ul", "ol"})
_LEAST_MAIN = 0.25
_LITTLE = 200


def read(data: bytes, text: Text, hints: Hints) -> None:
    """Write the main text of the page."""
    meta = _META.search(data[:4096])
    declared = charset_of(hints.content_type) or (meta[1].decode("ascii") if meta else None)
    source, text.meta["encoding"] = decode(data, declared)
    _check_depth(source)
    tree = need("selectolax.lexbor").LexborHTMLParser(source.replace("\x00", ""))
    body = tree.body
    if body is None:
        raise RefusedError("this page has no body")
    text.title = _title(tree)
    root, sparing = _main(body)
    _Page(text, sparing=sparing).write(root)
    text.title = text.title or text.first_label


def _check_depth(source: str) -> None:
    """Refuse what is nested so deep that building its tree takes quadratic time."""
    depth = 0
    for tag in _TAG.finditer(source):
        depth = max(depth + (-1 if tag[1] else 1), 0)
        if depth > MAX_DEPTH:
            raise RefusedError(f"its elements are nested deeper than the {MAX_DEPTH} levels that are read")


def _title(tree: Any) -> str:
    for selector, attribute in (("meta[property='og:title']", "content"), ("title", None)):
        found = tree.css_first(selector)
        if found is not None:
            said = found.attributes.get(attribute) if attribute else found.text()
            if said and said.strip():
                return str(said)
    return ""


def _main(body: Any) -> tuple[Any, bool]:
    """Where the words are that a reader came for, and whether what stands around them is left out.

    It is the one element that says so, where it holds enough of the page's text; else the body. A page of which hardly
    anything would be left is read whole.
    """
    shown = _length(body, sparing=True)
    if shown < _LITTLE and _length(body, sparing=False) > 4 * shown:
        return body, False
    for selector in ("main", "[role='main']", "article"):
        found = body.css(selector)
        if len(found) == 1 and _length(found[0], sparing=True) >= _LEAST_MAIN * shown:
            return found[0], True
    return body, True


def _length(root: Any, *, sparing: bool) -> int:
    page = Text(1 << 62)
    _Page(page, sparing=sparing).write(root)
    return page.length


class _Page:
    """A walk through a tree, without recursion: pages nest as deep as they like."""

    def __init__(self, text: Text, *, sparing: bool) -> None:
        self.text = text
        self.sparing = sparing
        self.verbatim = 0
        self.cells = 0
        self.inside = 0  # of articles, where a header is part of what is read
        self.heading = 0
        self.lists = 0
        self.dash = False  # due before the next words of an item

    def write(self, root: Any) -> None:
        for node, opens in _walk(root, lambda node: self._is_left_out(node) and node != root):
            if node.tag == "-text":
                self._words(node.text_content or "")
            elif opens:
                self._begin(node.tag)
            else:
                self._end(node.tag)

    def _words(self, words: str) -> None:
        if self.dash and not words.isspace():
            self.dash = False
            self.text.flow("- ")
        if self.verbatim:
            self.text.write(words)
        else:
            self.text.flow(words)

    def _begin(self, tag: str) -> None:
        text = self.text
        if tag == "br":
            self._break()
        elif tag in ("td", "th"):
            if not text.fresh:
                text.flow(" | ")
            self.cells += 1
        elif tag in _BLOCKS:
            self._border(tag)
            if tag == "li" and not self.cells:
                self.dash = True
            elif tag == "pre":
                self.verbatim += 1
            elif tag in ("ul", "ol"):
                self.lists += 1
            elif tag in ("main", "article"):
                self.inside += 1
            elif tag in _HEADINGS and not self.cells:
                self.heading = text.place()

    def _end(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.cells -= 1
        elif tag in _BLOCKS:
            if tag == "li":
                self.dash = False
            elif tag == "pre":
                self.verbatim -= 1
            elif tag in ("ul", "ol"):
                self.lists -= 1
            elif tag in ("main", "article"):
                self.inside -= 1
            elif tag in _HEADINGS and not self.cells:
                self.text.mark(self.text.since(self.heading), self.heading)
            self._border(tag)

    def _break(self) -> None:
        if self.cells:
            self.text.flow(" ")
        else:
            self.text.end_line()

    def _border(self, tag: str) -> None:
        if self.cells and tag in _SOFT:
            self.text.flow(" ")
        elif tag in _SPACED and not self.cells and not self.lists:
            self.text.gap()
        else:
            self.text.end_line()

    def _is_left_out(self, node: Any) -> bool:
        tag = node.tag
        if tag in _NEVER or tag in ("-comment", "-doctype", "!--", "_comment"):
            return True
        if tag == "-text":
            return False
        attributes = node.attributes
        if "hidden" in attributes or (attributes.get("aria-hidden") or "").strip().lower() == "true":
            return True
        style = attributes.get("style")
        if style and _UNSEEN.search(style.lower()):
            return True
        if not self.sparing:
            return False
        if tag in _AROUND and not (tag == "header" and self.inside):
            return True
        if (attributes.get("role") or "").strip().lower() in _ROLES:
            return True
        if tag in ("body", "main", "article", "h1", "h2", "p"):
            return False
        names = f"{attributes.get('class') or ''} {attributes.get('id') or ''}".split()
        return any(_FURNITURE.fullmatch(name) for name in names)


def _walk(root: Any, leave_out: Any) -> Iterator[tuple[Any, bool]]:
    """Each node at its beginning (True) and, but for texts, at its end (False)."""
    todo: list[tuple[Any, bool]] = [(root, True)]
    while todo:
        node, opens = todo.pop()
        if opens and leave_out(node):
            continue
        yield node, opens
        if opens and node.tag != "-text":
            todo.append((node, False))
            children = []
            child = node.child
            while child is not None:
                children.append((child, True))
                child = child.next
            todo.extend(reversed(children))
