"""A server with made-up models and answers, in the shapes of the real one, for the page to talk to."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

WEB = Path(__file__).parents[2] / "src" / "lapilli" / "faces" / "web"
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'"
)
MODELS = (
    ("mini:latest", 17_400_000, "8.7M", "F16", ["completion", "vision"]),
    ("llava:latest", 4_733_363_377, "7B", "Q4_0", ["completion", "vision"]),
    ("phi3:medium", 7_900_000_000, "14B", "Q4_0", ["completion"]),
)
NANO = 1_000_000_000

CODE = """The picture is **384 pixels** on each side. To count the reds yourself:

```python
from PIL import Image

# A pixel is red when red is all it has.
picture = Image.open("shapes.png").convert("RGB")
reds = sum(r > 180 and g < 80 and b < 80 for r, g, b in picture.getdata())
print(f"{reds / (picture.width * picture.height):.1%} of it is red")
```

| shape | colour | where |
|---|---|---|
| circle | red | left |
| square | blue | right |

1. Open the picture, as above.
2. Ask for `getdata()`, a run of *tuples*.
3. Compare: see [Pillow](https://pillow.readthedocs.io/).
"""
PLAIN = "There is a red circle on the left and a blue square on the right, before a pale, warm background."
HOSTILE = (
    '<img src=x onerror="window.hurt=1"> [click](javascript:window.hurt=1) ![p](http://127.0.0.1:9/p.png) '
    "<script>1</script>"
)


class Fake:
    """What the server was asked, and how it is to behave."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answer = PLAIN
        self.pace = 0.004
        self.lag = 0.0
        self.key: str | None = None
        self.problem: tuple[int, str] | None = None
        self.away = False
        self.cut_after: int | None = None
        self.gone = 0

    def answer_for(self, body: dict[str, Any]) -> str:
        """The words: by what was asked, so that tests can read what they ask for."""
        question = body["messages"][-1]["content"].lower()
        if "code" in question:
            return CODE
        if "hostile" in question:
            return HOSTILE
        if "long" in question:
            return "\n\n".join(f"Paragraph {number}. {PLAIN}" for number in range(40))
        return self.answer

    def app(self) -> Starlette:
        """The server."""
        return Starlette(
            routes=[
                Route("/", self.root),
                Route("/api/version", self.json({"version": "0.33.0", "lapilli": "0.1.0"})),
                Route("/api/tags", self.json({"models": [entry(*model) for model in MODELS]})),
                Route("/api/ps", self.json({"models": [entry(*MODELS[0])]})),
                Route("/api/chat", self.chat, methods=["POST"]),
                Mount("/static", StaticFiles(directory=WEB)),
            ]
        )

    async def root(self, request: Request) -> Response:
        return FileResponse(WEB / "index.html", headers={"content-security-policy": POLICY})

    def refusal(self, request: Request) -> Response | None:
        if self.away:
            return Response(status_code=502)
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": "unauthorized"}, 401)
        return None

    def json(self, value: object) -> Any:
        async def reply(request: Request) -> Response:
            await asyncio.sleep(self.lag)
            return self.refusal(request) or JSONResponse(value)

        return reply

    async def chat(self, request: Request) -> Response:
        if refused := self.refusal(request):
            return refused
        body = await request.json()
        self.asked.append(body)
        if body["model"] not in [name for name, *_ in MODELS]:
            return JSONResponse({"error": f"model '{body['model']}' not found"}, 404)
        if self.problem:
            status, words = self.problem
            return JSONResponse({"error": words}, status)
        return StreamingResponse(self.said(body), media_type="application/x-ndjson")

    async def said(self, body: dict[str, Any]) -> AsyncIterator[str]:
        pictures = [picture for message in body["messages"] for picture in message.get("images", [])]
        words, count = self.answer_for(body), 0
        try:
            for count, word in enumerate(split(words), 1):
                if count == self.cut_after:
                    return
                yield line(model=body["model"], message={"role": "assistant", "content": word}, done=False)
                await asyncio.sleep(self.pace)
        except asyncio.CancelledError:
            self.gone += 1
            raise
        last: dict[str, Any] = {
            "total_duration": NANO, "eval_count": count, "eval_duration": NANO * count // 48,
            "prompt_eval_count": 31 + 144 * len(pictures), "image_tokens": 144 * len(pictures),
        }  # fmt: skip
        if len(body["messages"]) > 2:
            last["cached_tokens"] = last["prompt_eval_count"] - 12
        if body.get("heatmap") and pictures:
            last["heatmap"] = heat(pictures)
        message = {"role": "assistant", "content": ""}
        yield line(model=body["model"], message=message, done=True, done_reason="stop", **last)


def entry(name: str, size: int, parameters: str, bits: str, capabilities: list[str]) -> dict[str, Any]:
    """A model as `/api/tags` lists it."""
    details = {"format": "gguf", "family": "llama", "parameter_size": parameters, "quantization_level": bits}
    return {"name": name, "model": name, "size": size, "details": details, "capabilities": capabilities}


def split(text: str) -> Iterator[str]:
    """Pieces of a few letters, as tokens are."""
    for start in range(0, len(text), 5):
        yield text[start : start + 5]


def line(**fields: Any) -> str:
    return json.dumps({"created_at": "2026-01-01T00:00:00Z", **fields}) + "\n"


def heat(pictures: list[str]) -> str:
    """Heat maps as the engine draws them, hottest in the middle of each picture."""
    import numpy as np

    from lapilli.engine.heatmap import draw
    from lapilli.engine.relevance import Relevance

    opened = [Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB") for picture in pictures]
    y, x = np.mgrid[0:12, 0:12]
    grid = np.exp(-((x - 3.2) ** 2 + (y - 5.5) ** 2) / 5) + 0.6 * np.exp(-((x - 8.6) ** 2 + (y - 5.8) ** 2) / 4)
    seen = [Relevance(grid_RC=grid / grid.max(), frame=(0, 0, each.width, each.height)) for each in opened]
    file = io.BytesIO()
    draw(opened, seen, "whole answer").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
