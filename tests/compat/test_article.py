"""The article's block of embedchain, word for word but for the import, the model and the embedder, in an example."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ARTICLE = """from embedchain import App
app = App.from_config(config={
    "llm": {
        "provider": "ollama",
        "config": {
            "model": "llama3",
            "temperature": 0.5,
            "top_p": 1,
            "stream": True
        }
    },
    "embedder": {
        "provider": "huggingface",
        "config": {
            "model": "BAAI/bge-small-en-v1.5"
        }
    }
})
answer = app.query("who is elon musk?")
print(answer)
"""
OURS = (
    ("from embedchain import", "from lapilli.compat.embedchain import"),
    ('"model": "llama3"', '"model": "mini"'),
    ('"provider": "huggingface"', '"provider": "lapilli"'),
    ('"model": "BAAI/bge-small-en-v1.5"', '"model": None'),
)


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is up, and nothing of this user's is touched."""
    monkeypatch.setenv("LAPILLI_HOST", "127.0.0.1:1")
    monkeypatch.setenv("LAPILLI_DOCUMENTS", str(tmp_path / "documents"))


def test_the_example_is_the_article_s_block() -> None:
    wanted = ARTICLE
    for theirs, ours in OURS:
        assert wanted.count(theirs) == 1
        wanted = wanted.replace(theirs, ours)
    lines = (EXAMPLES / "embedchain_app.py").read_text().replace("})  # fmt: skip\n", "})\n").splitlines()
    shown = [line for line in lines if line and not line.startswith("#")]
    start = shown.index("from lapilli.compat.embedchain import App")
    assert shown[start : start + len(wanted.splitlines())] == wanted.splitlines()


def test_the_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "embedchain_app.py"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Not in your documents."
    assert lines[1] == "Mira Quill keeps the lighthouse on Crow Island. [1]"
    assert lines[2] == "She came there in 1998 from Sallow. [1]"
    assert lines[3].endswith("characters 48 to 83: She came there in 1998 from Sallow.")


def test_the_block_as_it_stands_is_taken_and_says_what_is_missing() -> None:
    """With the article's own model and embedder, which are not here, it is made all the same, and one line says so."""
    from lapilli.errors import LapilliError

    told = ARTICLE.replace(*OURS[0]).partition("answer =")[0]
    names: dict[str, object] = {}
    exec(compile(told, "article", "exec"), names)  # noqa: S102
    app: object = names["app"]
    with pytest.raises(LapilliError) as refused:
        app.query("who is elon musk?")  # type: ignore[attr-defined]
    assert "\n" not in str(refused.value)
