"""The server as replicas behind Ray Serve: what it says and streams is what one server does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lapilli.errors import InputError
from lapilli.faces.replicas import build

PROGRAM = """
import json, sys
import httpx2, ray
from ray import serve
from lapilli.faces.replicas import build
ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False,
         logging_level="ERROR", configure_logging=False, _system_config={"enable_metrics_collection": False})
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
serve.run(build({"replicas": "2"}), name="lapilli", route_prefix="/")
said = {}
with httpx2.Client(base_url=f"http://127.0.0.1:{sys.argv[1]}", timeout=120) as client:
    said["version"] = client.get("/api/version").json()
    messages = [{"role": "user", "content": "What is a stone?"}]
    body = {"model": "mini", "messages": messages, "options": {"num_predict": 8}}
    said["answers"] = []
    for _ in range(6):
        with client.stream("POST", "/api/chat", json=body) as response:
            pieces = [json.loads(line) for line in response.iter_lines() if line.strip()]
        said["answers"].append("".join(piece["message"]["content"] for piece in pieces))
    said["pieces"] = len(pieces)
    said["unknown"] = client.post("/api/chat", json={**body, "model": "nobody"}).status_code
    said["strange host"] = client.get("/api/version", headers={"Host": "evil.example"}).status_code
print(json.dumps(said), flush=True)
serve.shutdown()
ray.shutdown()
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"replica": "2"}, "'replica' is not known: give replicas, cpus, gpus, requests"),
        ({"replicas": "many"}, "replicas is 'many': a number from 1 on is needed"),
        ({"replicas": 0}, "replicas is '0': a number from 1 on is needed"),
        ({"gpus": "-1"}, "gpus is '-1': a number from 0 on is needed"),
        ({"cpus": "nan"}, "cpus is 'nan': a number from 0 on is needed"),
    ],
)
def test_odd_arguments_are_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build(arguments)


@pytest.mark.soak
def test_two_replicas_answer_as_one_server(tmp_path: Path) -> None:
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(port)], capture_output=True, text=True, timeout=300,
        env={**os.environ, **quiet, "LAPILLI_MODELS": str(tmp_path / "models"), "OLLAMA_MODELS": "none"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert said["version"]["lapilli"]
    assert len(set(said["answers"])) == 1
    assert said["answers"][0]
    assert said["pieces"] > 2
    assert said["unknown"] == 404
    assert said["strange host"] == 403
