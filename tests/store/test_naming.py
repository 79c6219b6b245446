"""Names of models: Ollama's grammar and defaults, and one answer to every name that is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapilli.errors import InputError
from lapilli.store.naming import ModelName

HOSTILE = [
    "", " ", ".", "..", "/", "//", "../../etc/passwd", "a/../../b", "a/../b", "C:\\x", "a:..", "a:.", "a//b", "a/",
    "/a", "/a/b", ":a", "a:", "a:b:c", "a:b/c", "%2e%2e/", "%2e%2e/a", "a\0b", "a\0", "\u202ea", "llava\u202e:7b",
    "a" * 81, "a:" + "b" * 81, "a" * 10_000, "a/b/c/d", "ftp://a/b/c", "file:///etc/passwd", "http://", "https://",
    "a b", "a\n", "a\tb", "-a", ".a", "a/.b", "a/-b/c", "a/b.c/d", "a:b c", "a;b", "a|b", "a?b", "a*b", "a'b", 'a"b',
    "é", "ａ", "a:é", "٣", "\\\\host\\share", "hf:a/b", "~", "~/a", "a/~", "$HOME", "a@sha256:00", "{a}", None, 3,
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("llava", "registry.ollama.ai/library/llava:latest", "llava:latest"),
        ("llava:7b", "registry.ollama.ai/library/llava:7b", "llava:7b"),
        ("me/llava", "registry.ollama.ai/me/llava:latest", "me/llava:latest"),
        ("library/llava:7b-v1.6_x", "registry.ollama.ai/library/llava:7b-v1.6_x", "llava:7b-v1.6_x"),
        ("localhost:5000/me/llava:1", "localhost:5000/me/llava:1", "localhost:5000/me/llava:1"),
        ("http://127.0.0.1:5000/me/m", "127.0.0.1:5000/me/m:latest", "127.0.0.1:5000/me/m:latest"),
        ("https://hf.co/o-w/n.m:Q4_K_M", "hf.co/o-w/n.m:Q4_K_M", "hf.co/o-w/n.m:Q4_K_M"),
        ("REGISTRY.ollama.AI/Library/LLaVA", "REGISTRY.ollama.AI/Library/LLaVA:latest", "LLaVA:latest"),
        ("_a/_b.c", "registry.ollama.ai/_a/_b.c:latest", "_a/_b.c:latest"),
        ("a..b:c..d", "registry.ollama.ai/library/a..b:c..d", "a..b:c..d"),
        ("a" * 80 + ":" + "b" * 80, f"registry.ollama.ai/library/{'a' * 80}:{'b' * 80}", f"{'a' * 80}:{'b' * 80}"),
    ],
)
def test_a_name_is_filled_in_and_shown_short(text: str, full: str, short: str) -> None:
    name = ModelName.parse(text)
    host, namespace, model, tag = name.path_parts
    assert f"{host}/{namespace}/{model}:{tag}" == full
    assert name.short == str(name) == short
    assert ModelName.parse(short).key == name.key


def test_the_way_to_a_registry_is_no_part_of_the_name() -> None:
    assert ModelName.parse("http://h/n/m") == ModelName.parse("h/n/m")
    assert ModelName.parse("http://h/n/m").scheme == "http"
    assert ModelName.parse("h/n/m").scheme == "https"


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_name_is_refused_in_the_same_words(text: str) -> None:
    with pytest.raises(InputError) as error:
        ModelName.parse(text)
    assert str(error.value) == "invalid model name"


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("part", ["..", "", "a/b", "a\\b", "a\0", ".a", "a" * 351])
def test_parts_that_are_put_together_are_held_to_the_same(at: int, part: str) -> None:
    parts = ["host", "namespace", "model", "tag"]
    parts[at] = part
    with pytest.raises(InputError, match="invalid model name"):
        ModelName(*parts)


@given(st.text(max_size=60) | st.text("ab./:-_\\%~\0", max_size=30))
def test_whatever_is_taken_for_a_name_stays_where_it_belongs(text: str) -> None:
    try:
        name = ModelName.parse(text)
    except InputError:
        return
    for part in name.path_parts:
        assert part.isascii()
        assert part[0].isalnum() or part[0] == "_"
        assert not set(part) & set("/\\\0 ")
    assert ModelName.parse(name.short).key == name.key
