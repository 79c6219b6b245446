"""The providers that embedchain names, and what stands for each of them here."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lapilli.errors import InputError

Dialect = Literal["ollama", "openai"]

# How a provider's model is reached: in this process, by Ollama's API, by OpenAI's.
MODELS: Mapping[str, str] = {
    "lapilli": "here", "huggingface": "here", "ollama": "ollama", "openai": "openai", "vllm": "openai",
    "together": "openai", "groq": "openai", "nvidia": "openai", "mistralai": "openai",
}  # fmt: skip
EMBEDDERS: Mapping[str, str] = {
    "lapilli": "here", "huggingface": "here", "none": "none", "ollama": "ollama", "openai": "openai",
    "nvidia": "openai", "mistralai": "openai",
}  # fmt: skip
STORES: Mapping[str, str] = {"lancedb": "lance", "sqlite": "sqlite", "chroma": ""}


NAMED = "server"  # the one that LAPILLI_HOST or OLLAMA_HOST names, as `open_backend` takes it


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a model is opened: by name in this process, or at a server.

    `or_here`: nobody said where the server is; where none is up, a model of that name is opened in this process.
    """

    model: str
    url: str | None = None
    dialect: Dialect | None = None
    key: str | None = None
    quantize: str | None = None
    device: str = "auto"
    or_here: bool = False


def check_provider(known: Mapping[str, str], what: str, provider: str, url: str | None) -> None:
    """Raise InputError for a provider that is not there, or for a server of OpenAI's kind without its address."""
    if provider not in known:
        near = difflib.get_close_matches(provider, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        server = "; any server that speaks OpenAI's API is 'openai' with its base_url" if what != "vectordb" else ""
        raise InputError(f"no {what} provider is called {provider[:60]!r} here: {hint}{server}")
    if known[provider] == "openai" and not (url or os.environ.get("OPENAI_BASE_URL")):
        raise InputError(
            f"the provider {provider!r} needs base_url, the address of a server that speaks OpenAI's API: "
            "nothing is sent anywhere that was not named"
        )


def opening(
    provider: str, model: str | None, url: str | None, key: str | None, quantize: str | None, device: str
) -> Opening:
    """How the model of a provider is opened; `mini` where nobody said which."""
    way = MODELS[provider]
    name = model or "mini"
    if way == "here" and url is None:
        return Opening(model=name, quantize=quantize, device=device)
    if way == "ollama":
        return Opening(
            model=name, url=url or NAMED, dialect="ollama", key=key, quantize=quantize, device=device,
            or_here=url is None,
        )  # fmt: skip
    if provider == "lapilli":
        return Opening(model=name, url=url, key=key)
    key = key or (os.environ.get("OPENAI_API_KEY") if provider == "openai" else None)
    return Opening(model=name, url=url or os.environ.get("OPENAI_BASE_URL"), dialect="openai", key=key)
