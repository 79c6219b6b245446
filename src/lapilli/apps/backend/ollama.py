"""A backend on a server that speaks Ollama's API: Ollama, or `lapilli serve`.

The contract is https://github.com/ollama/ollama/blob/main/docs/api.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lapilli.apps.backend.call import Call, Reply
from lapilli.apps.backend.connection import Connection, NoSuchPathError, parse
from lapilli.apps.backend.server import ServerBackend, chances_of, picture_base64
from lapilli.errors import InputError, LapilliError, ModelNotFoundError
from lapilli.inputs.chat import Message
from lapilli.store.naming import ModelName

_CONTEXT = 8192
"""The most context that is asked for where a model's package says nothing: a server pays for it in memory."""


class OllamaBackend(ServerBackend):
    """A model on a server of Ollama's kind: `digest` is what the server says, `name` is `name:latest`.

    What does not fit into the context is refused, not cut; so the context is said with each request.
    """

    def __init__(self, connection: Connection, model: str, *, pull: bool = False) -> None:
        """Raises ModelNotFoundError with the names that are there; `pull` has the server fetch it first."""
        row = _find(connection, model)
        if row is None and pull:
            connection.post("/api/pull", {"model": model, "stream": False})
            row = _find(connection, model)
        if row is None:
            raise ModelNotFoundError(f"no model {model[:200]!r} at {connection.url}: {_there(connection)}")
        name = str(row.get("model") or row.get("name"))
        shown = connection.post("/api/show", {"model": name})
        self._abilities = frozenset(map(str, shown.get("capabilities") or ()))
        super().__init__(
            connection,
            name,
            str(row.get("digest") or name),
            context=_context(shown),
            # Servers from before 2025 list no capabilities: what they cannot do, they say when they are asked.
            sees="vision" in self._abilities or not self._abilities,
        )

    def _ask(self, call: Call) -> Reply:
        said = self.connection.post("/api/chat", {**self._body(call), "stream": False})
        text = str((said.get("message") or {}).get("content") or "").lstrip()
        return Reply(
            text=text,
            finish="length" if said.get("done_reason") == "length" else "stop",
            prompt_tokens=int(said.get("prompt_eval_count") or 0),
            tokens=int(said.get("eval_count") or 0),
            chances=chances_of(said.get("logprobs"), text) if call.chances else None,
        )

    def _embed(self, texts: list[str]) -> list[Sequence[float]]:
        body = {"model": self.name, "input": texts, "truncate": True}
        try:
            return list(self.connection.post("/api/embed", body)["embeddings"])
        except NoSuchPathError:  # a server from before July 2024
            return [
                self.connection.post("/api/embeddings", {"model": self.name, "prompt": text})["embedding"]
                for text in texts
            ]

    def _stream(self, call: Call) -> Iterator[str]:
        ended = False
        for line in self.connection.lines("/api/chat", {**self._body(call), "stream": True}):
            said = parse(line)
            ended = bool(said.get("done"))
            yield str((said.get("message") or {}).get("content") or "")
        if not ended:
            raise LapilliError(f"{self.connection.url} ended the answer before it was whole")

    def _body(self, call: Call) -> dict[str, Any]:
        options = {
            "temperature": call.temperature,
            "top_p": call.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "repeat_penalty": 1.0,
            "num_predict": call.max_tokens,
            "seed": call.seed,
            "stop": list(call.stop) or None,
            "num_ctx": self.context,
        }
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [_message(message) for message in call.messages],
            "options": {name: value for name, value in options.items() if value is not None},
            "truncate": False,
        }
        if call.schema is not None:
            body["format"] = dict(call.schema)
        if call.chances:
            body["logprobs"] = True
        if "thinking" in self._abilities:
            body["think"] = False
        return body


def _message(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.images:
        turn["images"] = [picture_base64(image) for image in message.images]
    if message.tool_calls:
        turn["tool_calls"] = [
            {"function": {"name": call.name, "arguments": dict(call.arguments)}} for call in message.tool_calls
        ]
    if message.tool_name:
        turn["tool_name"] = message.tool_name
    return turn


def _rows(connection: Connection) -> list[Mapping[str, Any]]:
    rows = connection.get("/api/tags").get("models") or []
    return [row for row in rows if isinstance(row, Mapping)]


def _find(connection: Connection, model: str) -> Mapping[str, Any] | None:
    wanted = _key(model)
    return next((row for row in _rows(connection) if _key(str(row.get("model") or row.get("name"))) == wanted), None)


def _there(connection: Connection) -> str:
    names = sorted(str(row.get("name") or row.get("model")) for row in _rows(connection))
    if not names:
        return "it has none; pull one there"
    return f"there are {', '.join(names[:10])}" + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _key(name: str) -> str:
    """What two spellings of one name have in common: `llava`, `llava:latest`, `library/LLaVA`."""
    try:
        return str(ModelName.parse(name).key)
    except InputError:
        return name


def _context(shown: Mapping[str, Any]) -> int | None:
    """The context that a model is asked with: its package's own, else the model's, as far as servers like it."""
    for line in str(shown.get("parameters") or "").splitlines():
        name, _, value = line.strip().partition(" ")
        if name == "num_ctx" and value.strip().isdigit():
            return int(value)
    facts = shown.get("model_info") or {}
    lengths = [value for name, value in facts.items() if name.endswith(".context_length") and isinstance(value, int)]
    return min(lengths[0], _CONTEXT) if lengths else None
