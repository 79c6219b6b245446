"""What crosses the pipe to a model's own process, and comes back: plain values, no tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lapilli.inputs.templates import TemplateText


@dataclass(frozen=True, kw_only=True)
class LoadOrder:
    """Which files a model's process opens, and how: see `lapilli.load` for the words, `EngineOptions` for the numbers.

    `path` is a checkpoint folder or a GGUF file, whatever it is called. `context` bounds what one request may use, None
    is the model's own. `template` is used where an ask names none.
    """

    path: Path
    projector: Path | None = None
    quantize: str | None = None
    device: str = "auto"
    dtype: str | None = None
    context: int | None = None
    template: TemplateText | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a loaded model is: read once, when its process is ready."""

    context_length: int
    embedding_length: int
    vocabulary: int
    parameters: int
    weight_bytes: int
    bytes_a_token: int
    cache_tokens: int
    sees: bool
    uses_tools: bool
    thinks: bool
    inserts: bool
    device: str


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request for words.

    Either `messages` (mappings: role, content, pictures = numbers of `pictures`, tool_calls [{name, arguments, id}],
    tool_name, tool_call_id, thinking) or a raw `prompt`, in which special tokens count and `<image>` stands for a
    picture. `before` are token ids that come first. `sampling` are the fields of SamplingOptions: without `max_tokens`
    an answer is limited as the checkpoint recommends, with None by the context alone. `constraint` is the kind and text
    of a Constraint as its makers give it. A prompt that leaves no room within `context` is refused with both
    counts, or with `truncate` loses what is oldest of `before` and its oldest turns, never the system's nor the last.
    `adapter` is a LoRA folder to answer with. `heatmap` asks where in its pictures the answer was seen, a PNG.
    `begun` is text that the assistant's turn begins with already; its markers count. `keep` are special tokens that the
    answer's text shows, which it does not otherwise. After `seconds` an answer ends as if it had reached its limit.
    """

    messages: tuple[Mapping[str, Any], ...] = ()
    prompt: str | None = None
    suffix: str = ""
    before: tuple[int, ...] = ()
    pictures: tuple[bytes, ...] = ()
    template: TemplateText | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    think: bool | str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    constraint: tuple[str, str] | None = None
    context: int | None = None
    truncate: bool = False
    adapter: Path | None = None
    begun: str = ""
    keep: tuple[str, ...] = ()
    seconds: float | None = None
    heatmap: bool = False
    render_only: bool = False


@dataclass(frozen=True, kw_only=True)
class TokenNews:
    """One token said: its bytes, its log-probability, and the likeliest at its place as (bytes, log-probability)."""

    data: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How an answer ended and what it took; durations in seconds. `ids` are the tokens of prompt and answer."""

    reason: Literal["stop", "length"]
    stopped_by: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    image_tokens: int = 0
    truncated: int = 0
    queue_seconds: float = 0.0
    image_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    ids: tuple[int, ...] = ()
    rendered: str = ""
    heatmap: bytes = b""


@dataclass(frozen=True, kw_only=True)
class News:
    """A piece of an answer as it is made; the last one says how it ended."""

    text: str = ""
    tokens: tuple[TokenNews, ...] = ()
    finished: Finished | None = None


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Vectors of length 1, one a text, and how many tokens were read."""

    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int
    truncated: int = 0
