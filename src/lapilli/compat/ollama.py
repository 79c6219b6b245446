"""The one function of Ollama's Python client that the article calls: `from lapilli.compat import ollama`.

The real client works too, against our server or Ollama's; this one needs neither to be installed or up.
"""

from __future__ import annotations

from typing import Any

from lapilli.apps.backend.call import Call
from lapilli.compat.models import opened

_MOST = 2048


def generate(model: str = "", prompt: str = "", system: str = "", **options: Any) -> dict[str, Any]:
    """The answer to a prompt: `generate(model="mini", prompt="…", system="…")["response"]`.

    Asked at the server that OLLAMA_HOST names; where none is up that has the model, it is opened here. `options` are
    the client's: those of `options={…}` named temperature, top_p, seed and num_predict count.
    Raises LapilliError: ModelNotFoundError, PromptError.
    """
    wanted = options.get("options") or {}
    known = {name: wanted[name] for name in ("temperature", "top_p", "seed") if wanted.get(name) is not None}
    call = Call.of(prompt, system=system, max_tokens=int(wanted.get("num_predict") or _MOST), **known)
    with opened(model) as backend:
        reply = backend.ask(call)
    return {
        "model": model,
        "response": reply.text,
        "done": True,
        "done_reason": reply.finish,
        "prompt_eval_count": reply.prompt_tokens,
        "eval_count": reply.tokens,
    }
