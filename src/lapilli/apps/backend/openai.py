"""A backend on a server that speaks OpenAI's API: `lapilli serve`, vLLM, llama.cpp, or OpenAI's own.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from lapilli.apps.backend.call import Call, Reply
from lapilli.apps.backend.connection import Connection, NoSuchPathError, parse
from lapilli.apps.backend.server import ServerBackend, chances_of, picture_base64
from lapilli.errors import ModelNotFoundError
from lapilli.inputs.chat import ImagePart, Message

_DATA, _DONE = "data:", "[DONE]"


class OpenAIBackend(ServerBackend):
    """A model on a server of OpenAI's kind. Such a server tells no digest: here it is made of the model's name.

    How long a context is and whether the model sees is not told either: what cannot be done is said when it is asked.
    """

    def __init__(self, connection: Connection, model: str) -> None:
        """Raises ModelNotFoundError with the names that are there."""
        name = _named(connection, model)
        digest = hashlib.sha256(f"openai\0{name}".encode()).hexdigest()
        super().__init__(connection, name, digest, context=None, sees=True)

    def _ask(self, call: Call) -> Reply:
        said = self.connection.post("/chat/completions", self._body(call))
        choice, usage = said["choices"][0], said.get("usage") or {}
        text = str(choice["message"].get("content") or "").lstrip()
        rows = (choice.get("logprobs") or {}).get("content")
        return Reply(
            text=text,
            finish="length" if choice.get("finish_reason") == "length" else "stop",
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            tokens=int(usage.get("completion_tokens") or 0),
            chances=chances_of(rows, text) if call.chances else None,
        )

    def _embed(self, texts: list[str]) -> list[Sequence[float]]:
        found = self.connection.post("/embeddings", {"model": self.name, "input": texts})["data"]
        return [row["embedding"] for row in sorted(found, key=lambda row: int(row["index"]))]

    def _stream(self, call: Call) -> Iterator[str]:
        for line in self.connection.lines("/chat/completions", {**self._body(call), "stream": True}):
            data = line.removeprefix(_DATA).strip()
            if not line.startswith(_DATA) or data == _DONE:
                continue
            for choice in parse(data).get("choices") or ():
                yield str((choice.get("delta") or {}).get("content") or "")

    def _body(self, call: Call) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [_message(message) for message in call.messages],
            "max_tokens": call.max_tokens,
            "temperature": call.temperature,
            "top_p": call.top_p,
        }
        if call.seed is not None:
            body["seed"] = call.seed
        if call.stop:
            body["stop"] = list(call.stop)
        if call.chances:
            body["logprobs"] = True
        if call.schema is not None:
            form = {"name": "answer", "schema": dict(call.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body


def _message(message: Message) -> dict[str, Any]:
    if not message.images:
        return {"role": message.role, "content": message.text}
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture_base64(part.image)}"}}
        if isinstance(part, ImagePart)
        else {"type": "text", "text": part.text}
        for part in message.parts
    ]
    return {"role": message.role, "content": parts}


def _named(connection: Connection, model: str) -> str:
    """The model's name as the server spells it; as it was given where the server lists none."""
    try:
        rows = connection.get("/models").get("data") or []
    except NoSuchPathError:
        return model
    names = [str(row.get("id")) for row in rows if isinstance(row, dict)]
    for spelt in (model, f"{model}:latest", model.removesuffix(":latest")):
        if spelt in names:
            return spelt
    there = f"there are {', '.join(sorted(names)[:10])}" if names else "it has none"
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    raise ModelNotFoundError(f"no model {model[:200]!r} at {connection.url}: {there}{more}")
