"""embedchain itself, with the configuration of the article that this project starts from, on a live server.

It wants versions of its own of nearly everything, so it runs in an environment that the test makes: minutes, 600 MB.
`LAPILLI_EMBEDCHAIN_PYTHON` names a Python that has it already.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from live_server import Live

PACKAGES = ["embedchain==0.1.128", "ollama", "langchain-ollama==0.2.3"]

# The article's lines; the model is the one at hand, and the embedder Ollama's, for its own is not to be had offline.
ASK = """
import sys
from embedchain import App
app = App.from_config(config={
    "llm": {
        "provider": "ollama",
        "config": {
            "model": "mini",
            "temperature": 0.5,
            "top_p": 1,
            "stream": True,
            "base_url": sys.argv[1]
        }
    },
    "embedder": {
        "provider": "ollama",
        "config": {
            "model": "mini",
            "base_url": sys.argv[1],
            "vector_dimension": 256
        }
    }
})
app.add("Lapilli are small stones that a volcano throws out.", data_type="text")
answer = app.query("who is elon musk?")
print()
print("ANSWER", answer)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if (given := os.environ.get("LAPILLI_EMBEDCHAIN_PYTHON")) is not None:
        return Path(given)
    folder = tmp_path_factory.mktemp("embedchain")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    made = subprocess.run(
        [folder / "bin" / "pip", "install", "--quiet", *PACKAGES], capture_output=True, text=True, timeout=1200
    )
    if made.returncode != 0:
        pytest.skip(f"embedchain cannot be installed here: {made.stderr.strip().splitlines()[-1][:200]}")
    return folder / "bin" / "python"


@pytest.mark.clients
def test_the_articles_embedchain_answers(python: Path, live: Live, tmp_path: Path) -> None:
    environment = {**os.environ, "EC_TELEMETRY": "false", "EMBEDCHAIN_CONFIG_DIR": str(tmp_path / "config")}
    run = subprocess.run(
        [python, "-c", ASK, live.url], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-2000:]
    answer = run.stdout.partition("ANSWER ")[2].strip()
    assert answer
    assert answer in run.stdout.partition("ANSWER ")[0]  # `stream` prints it as it is made
