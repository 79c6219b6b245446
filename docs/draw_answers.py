"""Draw docs/answers.svg: three example pictures, and what `mini` says about them right now.

python docs/draw_answers.py
"""

from __future__ import annotations

import base64
from pathlib import Path
from xml.sax.saxutils import escape

import lapilli

ROOT = Path(__file__).resolve().parent.parent
ASKED = (
    ("shapes", "What is in this picture?"),
    ("stars", "How many stars are there?"),
    ("word", "What does it say?"),
)
WIDTH, ROW, SIDE, MARGIN = 880, 150, 118, 16


def row(number: int, name: str, question: str, answer: str) -> str:
    """One picture, the command that asks about it, and the answer."""
    top = 44 + number * ROW
    data = base64.b64encode((ROOT / "examples" / f"{name}.png").read_bytes()).decode()
    left = 2 * MARGIN + SIDE
    return (
        f'<image x="{MARGIN}" y="{top}" width="{SIDE}" height="{SIDE}" href="data:image/png;base64,{data}"/>'
        f'<text x="{left}" y="{top + 44}" class="typed"><tspan class="prompt">$</tspan> '
        f'lapilli run mini "{escape(question)}" examples/{name}.png</text>'
        f'<text x="{left}" y="{top + 78}" class="said">{escape(answer)}</text>'
    )


def drawing(answers: list[str]) -> str:
    height = 44 + len(ASKED) * ROW - MARGIN
    rows = "\n".join(row(i, *asked, answer) for i, (asked, answer) in enumerate(zip(ASKED, answers, strict=True)))
    lights = "".join(
        f'<circle cx="{20 + 20 * i}" cy="20" r="6" fill="{colour}"/>'
        for i, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">
<style>
text {{ font: 15px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre }}
.typed {{ fill: #d7dae0 }} .prompt {{ fill: #7fd88f }} .said {{ fill: #ffd479; font-size: 17px }}
</style>
<rect width="{WIDTH}" height="{height}" rx="10" fill="#1e2127"/>
{lights}
{rows}
</svg>
"""


def main() -> None:
    model = lapilli.load("mini")
    answers = [
        model.chat(question, images=[ROOT / "examples" / f"{name}.png"], max_tokens=64).text for name, question in ASKED
    ]
    (ROOT / "docs" / "answers.svg").write_text(drawing(answers), encoding="utf-8")
    print(*answers, sep="\n")


if __name__ == "__main__":
    main()
