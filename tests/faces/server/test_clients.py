"""Clients that people already use, unmodified, and the article's own function word for word."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dialects import HELLO

# What these packages warn of is their own affair.
pytestmark = pytest.mark.filterwarnings("ignore")
FEW = {"temperature": 0, "num_predict": 5}
QUESTION = "What is in this picture?"


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Sockets that a client leaves open are closed with it, where that may be warned of."""
    yield
    gc.collect()


@pytest.fixture
def said(live: Any) -> str:
    """What the server says to HELLO."""
    return str(live.whole("/api/chat", messages=HELLO, options=FEW)["message"]["content"])


@pytest.fixture
def seen(live: Any, picture64: str) -> str:
    """What the server says to QUESTION about the picture."""
    asked = [{"role": "user", "content": QUESTION, "images": [picture64]}]
    return str(live.whole("/api/chat", messages=asked, options=FEW)["message"]["content"])


def test_the_articles_function(live: Any, shared_data: Path, tmp_path: Path) -> None:
    article = (shared_data.parent / "reference" / "llava-article.md").read_text()
    found = re.search(r"```python\n(import ollama\n\ndef extractDrugs\(.*?)```", article, re.DOTALL)
    assert found is not None
    trial = "A randomised trial of aspirin 100 mg daily against placebo in adults with headache."
    script = tmp_path / "article.py"
    script.write_text(f"{found[1]}\nanswer = extractDrugs({trial!r}, model='mini')\nassert isinstance(answer, str)\n")
    ran = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "OLLAMA_HOST": live.url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


# --- LangChain ---


@pytest.mark.clients
def test_langchain_ollama(live: Any, said: str, seen: str, picture64: str) -> None:
    found = pytest.importorskip("langchain_ollama")
    model = found.ChatOllama(model="mini", base_url=live.url, temperature=0, num_predict=5)
    answer = model.invoke("Hello, who are you?")
    assert answer.content == said
    assert answer.usage_metadata["output_tokens"] == 5
    assert answer.response_metadata["done_reason"] == "length"
    assert "".join(piece.content for piece in model.stream("Hello, who are you?")) == said
    assert asyncio.run(model.ainvoke("Hello, who are you?")).content == said
    parts = [
        {"type": "text", "text": QUESTION},
        {"type": "image_url", "image_url": f"data:image/png;base64,{picture64}"},
    ]
    assert model.invoke([{"role": "user", "content": parts}]).content == seen
    plain = found.OllamaLLM(model="mini", base_url=live.url, temperature=0, num_predict=5)
    assert plain.invoke("Hello") == live.whole("/api/generate", prompt="Hello", options=FEW)["response"]
    vectors = found.OllamaEmbeddings(model="mini", base_url=live.url).embed_documents(["Hello", "the sky"])
    assert vectors == live.post("/api/embed", {"model": "mini", "input": ["Hello", "the sky"]}).json()["embeddings"]


@pytest.mark.clients
def test_langchain_ollama_has_forms(live: Any) -> None:
    found = pytest.importorskip("langchain_ollama")
    schema = {
        "title": "number",
        "type": "object",
        "properties": {"n": {"type": "boolean"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    model = found.ChatOllama(model="mini", base_url=live.url, temperature=0)
    answer = model.with_structured_output(schema, method="json_schema").invoke("Hello")
    assert set(answer) == {"n"}
    assert isinstance(answer["n"], bool)


@pytest.mark.clients
def test_langchain_community(live: Any, said: str, seen: str, picture64: str) -> None:
    found = pytest.importorskip("langchain_community.chat_models")
    if not hasattr(found, "ChatOllama"):
        pytest.skip("langchain-community has no ChatOllama from 0.4 on: pip install 'langchain-community<0.4'")
    model = found.ChatOllama(model="mini", base_url=live.url, temperature=0, num_predict=5)
    assert model.invoke("Hello, who are you?").content == said
    assert "".join(piece.content for piece in model.stream("Hello, who are you?")) == said
    parts = [
        {"type": "text", "text": QUESTION},
        {"type": "image_url", "image_url": f"data:image/png;base64,{picture64}"},
    ]
    assert model.invoke([("user", parts)]).content == seen


# --- LiteLLM ---


@pytest.mark.clients
@pytest.mark.parametrize(
    ("model", "path"),
    [("ollama_chat/mini", ""), ("openai/mini", "/v1"), ("anthropic/mini", "")],
)
def test_litellm(live: Any, said: str, monkeypatch: Any, model: str, path: str) -> None:
    # Its table of prices comes over the network otherwise.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm = pytest.importorskip("litellm")
    asked = {"model": model, "messages": HELLO, "api_base": live.url + path, "api_key": "any"}
    few = {"temperature": 0, "max_tokens": 5}
    answer = litellm.completion(**asked, **few)
    assert answer.choices[0].message.content == said
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5
    pieces = litellm.completion(**asked, **few, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == said
    with pytest.raises(Exception, match="not found"):
        litellm.completion(**{**asked, "model": model.replace("mini", "nothing")}, **few)


@pytest.mark.clients
def test_litellm_with_the_rest(live: Any, seen: str, picture64: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm = pytest.importorskip("litellm")
    plain = litellm.completion(model="ollama/mini", messages=HELLO, api_base=live.url, temperature=0, max_tokens=5)
    assert plain.choices[0].message.content
    url = {"url": f"data:image/png;base64,{picture64}"}
    parts = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": url}]
    for model, path in (("openai/mini", "/v1"), ("ollama_chat/mini", "")):
        answer = litellm.completion(
            model=model, messages=[{"role": "user", "content": parts}], api_base=live.url + path, api_key="any",
            temperature=0, max_tokens=5,
        )  # fmt: skip
        assert answer.choices[0].message.content == seen
    vectors = litellm.embedding(model="ollama/mini", input=["Hello"], api_base=live.url)
    assert vectors.data[0]["embedding"]


# --- LlamaIndex ---


@pytest.mark.clients
def test_llama_index(live: Any, said: str, seen: str, picture: bytes) -> None:
    found = pytest.importorskip("llama_index.llms.ollama")
    core = pytest.importorskip("llama_index.core.llms")
    model = found.Ollama(model="mini", base_url=live.url, request_timeout=60, additional_kwargs=FEW)
    hello = [core.ChatMessage(role="user", content="Hello, who are you?")]
    assert model.chat(hello).message.content == said
    assert "".join(piece.delta or "" for piece in model.stream_chat(hello)) == said
    assert model.complete("Hello").text == live.whole("/api/generate", prompt="Hello", options=FEW)["response"]
    blocks = [core.TextBlock(text=QUESTION), core.ImageBlock(image=picture)]
    assert model.chat([core.ChatMessage(role="user", blocks=blocks)]).message.content == seen


# --- JavaScript ---

SCRIPT = """
const { Ollama } = require('ollama')
const client = new Ollama({ host: process.env.OLLAMA_HOST })
const few = { temperature: 0, num_predict: 5 }
const hello = [{ role: 'user', content: 'Hello, who are you?' }]
async function main() {
  const told = {}
  told.chat = (await client.chat({ model: 'mini', messages: hello, options: few })).message.content
  told.pieces = ''
  for await (const piece of await client.chat({ model: 'mini', messages: hello, options: few, stream: true })) {
    told.pieces += piece.message.content
  }
  const shown = [{ role: 'user', content: process.env.QUESTION, images: [process.env.PICTURE] }]
  told.seen = (await client.chat({ model: 'mini', messages: shown, options: few })).message.content
  told.generate = (await client.generate({ model: 'mini', prompt: 'Hello', options: few })).response
  told.vectors = (await client.embed({ model: 'mini', input: ['Hello'] })).embeddings.length
  told.models = (await client.list()).models.map((model) => model.name)
  told.running = (await client.ps()).models.map((model) => model.name)
  told.family = (await client.show({ model: 'mini' })).details.family
  told.copied = (await client.copy({ source: 'mini', destination: 'copied-by-js' })).status
  told.deleted = (await client.delete({ model: 'copied-by-js' })).status
  told.error = await client.chat({ model: 'nothing', messages: hello }).catch((error) => error.message)
  const long = await client.generate({ model: 'mini', prompt: 'Hello', options: few, stream: true })
  long.abort()
  told.aborted = await (async () => { for await (const _ of long) { } })().catch((error) => error.name)
  console.log(JSON.stringify(told))
}
main()
"""


@pytest.mark.clients
def test_ollama_for_javascript(live: Any, said: str, seen: str, picture64: str, tmp_path: Path) -> None:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("node and npm are not here")
    made = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "ollama@0.6"], cwd=tmp_path, capture_output=True, timeout=120,
        check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("npm does not reach the package ollama")
    (tmp_path / "script.cjs").write_text(SCRIPT)
    ran = subprocess.run(
        [node, "script.cjs"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "OLLAMA_HOST": live.url, "QUESTION": QUESTION, "PICTURE": picture64},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["chat"] == told["pieces"] == said
    assert told["seen"] == seen
    assert told["generate"] == live.whole("/api/generate", prompt="Hello", options=FEW)["response"]
    assert told["vectors"] == 1
    assert "mini:latest" in told["models"]
    assert "mini:latest" in told["running"]
    assert told["family"] == "llama"
    assert told["copied"] == told["deleted"] == "success"
    assert told["error"] == "model 'nothing' not found"
    assert told["aborted"] in ("AbortError", None)
