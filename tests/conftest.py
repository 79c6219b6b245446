"""What every test may ask for."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# Begun in the background, tests would hand down that Ctrl-C is to be ignored, to programs that they mean to stop by it.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ("live_server", "browsers")  # tests/support: the one live server of a run, the one browser


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that is not part of the repository; skips where it is absent."""
    shared = Path(os.environ.get("LAPILLI_SHARED", Path(__file__).parents[2] / "shared"))
    if not (shared / "data").is_dir():
        pytest.skip("no real data here: LAPILLI_SHARED names the folder that holds data/")
    return shared / "data"


@pytest.fixture(scope="session")
def many_texts() -> list[str]:
    """Texts in many scripts, with the blanks, digits, marks and line ends that cut words in odd places."""
    return [
        "The quick brown fox jumps over the lazy dog. The dog sleeps; the fox runs on and on.",
        "There are three red circles and two blue squares to the left of a small green star.",
        "I'm sure YOU'RE right, they'Ve said it can't be 'done', DON'T you think so? We'll see, I'd say.",
        "  leading, trailing  and   inner blanks\t\ttabs \n\n\n new lines \r\n\r\n end   ",
        "def area(width, height):\n    return width**2 + 3/4  # not so\n\n\nprint(area(1, 2) >= 0.5)",
        "Das Übergrößenträger-Café kostet 1234567 € für ½ Stück ²³, naïve façade, 3.14159 und 1,000,000.",
        "Съешь ещё этих мягких французских булок, да выпей чаю. Їжак і ґанок.",
        "我们今天去北京的图书馆看书，好吗？一二三四五六七八九十。",
        "こんにちは世界、カタカナとひらがな。",
        "안녕하세요 세계 123",
        "مرحبا بالعالم ١٢٣، كيف حالك؟",
        "नमस्ते दुनिया",
        "😀👍🏽 🇩🇪 family 👨‍👩‍👧 ok",
        "snake_case CamelCase XMLHttpRequest ALLCAPS x86_64 http://example.org/a?b=c&d=[1]{2}<3>|~`^$",
        "e\u0301tude, n\u0303 and nothing\u00a0breaking\u3000wide\u200bzero",
        "",
        " ",
        "\n",
        "a",
    ]
