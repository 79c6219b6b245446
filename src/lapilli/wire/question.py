"""What every dialect asks and is told: each one's file translates to and from these, and to nothing else.

Ollama's, OpenAI's and Anthropic's bodies become a `Question`; what comes back is a run of `Said`, the last with its
`Account`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lapilli.errors import InputError

Level = Literal["low", "medium", "high", "max"]
LEVELS = get_args(Level)
Think = bool | Level

# The most of each that one request may have.
MOST_PICTURES = 32
MOST_TURNS = 10_000
MOST_TOOLS = 1_000
MOST_TEXTS = 10_000
MOST_TOP = 20
LEAST_LOGPROB = -9999.0
"""What stands for minus infinity, which JSON does not have."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message: who said it, the words, and which of the question's pictures they showed, by number.

    `tool_calls` are what an assistant's turn called; `tool_name` and `tool_call_id` say which call a tool's answers.
    """

    role: str
    content: str = ""
    pictures: tuple[int, ...] = ()
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A call of a tool: its name and its arguments, an object with its order kept."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request for words, free of any dialect.

    Either `turns` (a chat), or `prompt` (with `raw`, text in the model's own format; without, one user's turn that
    `system`, `template`, `suffix` and `context` may dress). `pictures` are bytes of picture files. `sampling` holds
    Ollama's option names that were given, and no others: what is missing comes from the model, then from `defaults`.
    `form` is None, "json", or a JSON Schema. `keep_alive` is in seconds, negative for ever, None the server's own.
    """

    model: str
    turns: tuple[Turn, ...] = ()
    prompt: str | None = None
    raw: bool = False
    system: str | None = None
    template: str | None = None
    suffix: str = ""
    context: tuple[int, ...] = ()
    pictures: tuple[bytes, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    form: str | Mapping[str, Any] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    think: Think | None = None
    think_leniently: bool = False
    keep_alive: float | None = None
    truncate: bool = False
    logprobs: bool = False
    top_logprobs: int = 0
    heatmap: bool = False
    render_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """A token, its log-probability, and the likeliest at its place, best first; `data` are the token's own bytes."""

    token: str
    logprob: float
    data: bytes
    top: tuple[Likelihood, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Account:
    """What an answer took: counts of tokens, durations in seconds, and why it ended.

    `prompt_tokens` counts cached ones too. `truncated` is how many tokens were left out of the prompt, 0 unless asked.
    `context` are the token ids of prompt and answer. `stopped_by` is the stop text that ended it. `rendered` is the
    prompt as text, for `render_only`. `heatmap` is a PNG.
    """

    reason: Literal["stop", "length", "load", "unload"]
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    image_tokens: int = 0
    truncated: int = 0
    total_seconds: float = 0.0
    load_seconds: float = 0.0
    queue_seconds: float = 0.0
    image_seconds: float = 0.0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    context: tuple[int, ...] = ()
    stopped_by: str = ""
    rendered: str = ""
    pictures: int = 0
    heatmap: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Said:
    """A piece of an answer: words, thoughts, calls of tools, what is known of its tokens; the last has the account."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[Likelihood, ...] = ()
    account: Account | None = None


def join(parts: Iterable[Said]) -> Said:
    """A whole answer out of its pieces."""
    told = list(parts)
    return Said(
        text="".join(part.text for part in told),
        thinking="".join(part.thinking for part in told),
        tool_calls=tuple(call for part in told for call in part.tool_calls),
        logprobs=tuple(token for part in told for token in part.logprobs),
        account=told[-1].account if told else None,
    )


@dataclass(frozen=True, kw_only=True)
class Texts:
    """A request for vectors; `truncate` is None where the request says nothing of it. Raises InputError."""

    model: str
    texts: tuple[str, ...]
    truncate: bool | None = None
    dimensions: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    keep_alive: float | None = None

    def __post_init__(self) -> None:
        if len(self.texts) > MOST_TEXTS:
            raise InputError(f"{len(self.texts)} texts in one request: at most {MOST_TEXTS} are taken")
