"""OpenAI's older calls: `/v1/completions` and `/v1/embeddings`, and its list of models.

https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from lapilli.errors import InputError
from lapilli.wire import fields
from lapilli.wire.durations import keep_alive
from lapilli.wire.openai import common
from lapilli.wire.question import MOST_TOP, Account, Likelihood, Question, Said, Texts

# --- completions ---


def read_completion(body: Mapping[str, Any]) -> Question:
    """A question with a plain prompt; raises InputError."""
    model = common.named(body)
    common.refuse(body, empty=("echo", "logit_bias"), one=("n", "best_of"))
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise InputError("prompt must be one string: ask several in several requests")
    if not prompt:
        raise InputError("prompt is empty: ask something")
    top = fields.integer(body, "logprobs")
    if top is not None and not 0 <= top <= MOST_TOP:
        raise InputError(f"logprobs must be between 0 and {MOST_TOP}")
    return Question(
        model=model,
        prompt=prompt,
        suffix=fields.text(body, "suffix"),
        sampling=common.options(body, "max_tokens"),
        defaults=common.DEFAULTS,
        logprobs=top is not None,
        top_logprobs=top or 0,
        **common.ours(body),
    )


def completion_body(question: Question, said: Said) -> dict[str, Any]:
    """A completion's whole answer."""
    assert said.account is not None, "a whole answer has an account"
    stream = CompletionStream(question, usage=False)
    logprobs = stream.likelihoods(said.logprobs) if question.logprobs else None
    finish = common.finish(said.account, called=False)
    return {**stream.chunk(said.text, finish, logprobs), "usage": common.usage(said.account)}


class CompletionStream:
    """A completion as chunks; why it ended is told in the last one with a choice."""

    def __init__(self, question: Question, *, usage: bool) -> None:
        self.question, self.usage = question, usage
        self.id, self.created = common.new_id("cmpl-"), common.moment()
        self.offset = len(question.prompt or "")

    def chunks(self, said: Said) -> Iterator[dict[str, Any]]:
        """What a piece of the answer comes to."""
        if said.text or said.logprobs:
            yield self.chunk(said.text, None, self.likelihoods(said.logprobs) if said.logprobs else None)
        if said.account is not None:
            yield self.chunk("", common.finish(said.account, called=False), None)
            if self.usage:
                yield {**self._head(), "choices": [], "usage": common.usage(said.account)}

    def chunk(self, text: str, finish: str | None, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        """One chunk, or but for its figures the whole answer."""
        choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": logprobs}
        return {**self._head(), "choices": [choice]}

    def likelihoods(self, tokens: Sequence[Likelihood]) -> dict[str, Any]:
        """Tokens and their log-probabilities as completions tell them; offsets count prompt and answer."""
        offsets = []
        for token in tokens:
            offsets.append(self.offset)
            self.offset += len(token.token)
        return {
            "tokens": [token.token for token in tokens],
            "token_logprobs": [common.finite(token.logprob) for token in tokens],
            "top_logprobs": [{other.token: other.logprob for other in common.possible(token)} for token in tokens],
            "text_offset": offsets,
        }

    def _head(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.question.model,
            "system_fingerprint": common.FINGERPRINT,
        }


# --- vectors ---

Encoding = Literal["float", "base64"]


def read_embedding(body: Mapping[str, Any]) -> tuple[Texts, Encoding]:
    """Texts, and how their vectors are wanted; raises InputError."""
    given = body.get("input")
    if given is None or given == []:
        raise InputError("invalid input")
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise InputError("invalid input type: a string or an array of strings is taken")
    dimensions = fields.integer(body, "dimensions")
    if dimensions is not None and dimensions < 1:
        raise InputError(f"dimensions must be positive, not {dimensions}")
    encoding = fields.text(body, "encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise InputError(f"encoding_format {encoding[:40]!r} is not known: use float or base64")
    texts = Texts(
        model=common.named(body),
        texts=tuple(given),
        truncate=fields.flag(body, "truncate"),
        dimensions=dimensions,
        keep_alive=keep_alive(body.get("keep_alive")),
    )
    return texts, "base64" if encoding == "base64" else "float"


def embedding_body(
    model: str, vectors: Sequence[Sequence[float]], account: Account, encoding: Encoding
) -> dict[str, Any]:
    """Vectors as numbers, or as little-endian float32 in base64."""
    data = [
        {"object": "embedding", "embedding": _packed(vector) if encoding == "base64" else list(vector), "index": place}
        for place, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": account.prompt_tokens, "total_tokens": account.prompt_tokens}
    return {"object": "list", "data": data, "model": model, "usage": {**usage, **common.more_usage(account)}}


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


# --- models ---


def model_body(name: str, namespace: str, modified: datetime) -> dict[str, Any]:
    """A model as the list of models has it."""
    return {"id": name, "object": "model", "created": int(modified.timestamp()), "owned_by": namespace}
