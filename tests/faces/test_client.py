"""The commands' client: what it sends, what it makes of answers, and whose words its errors are."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from parrot_server import ParrotServer, serving

from lapilli.errors import BusyError, InputError, LapilliError, ModelNotFoundError
from lapilli.faces.client import Client
from lapilli.faces.connection import connect, reach, server_url


def settings_for(url: str, key: str = "") -> Any:
    return SimpleNamespace(host=url, client_key=key)


@pytest.fixture(scope="module")
def parrot() -> Iterator[ParrotServer]:
    with serving(ParrotServer()) as up:
        yield up


@pytest.fixture
def server(parrot: ParrotServer) -> ParrotServer:
    return parrot.reset()


@pytest.fixture
def client(server: ParrotServer) -> Iterator[Client]:
    with connect(settings_for(server.url)) as found:
        yield found


@pytest.mark.parametrize(
    ("host", "url", "here"),
    [
        ("127.0.0.1:11434", "http://127.0.0.1:11434", True),
        ("127.0.0.1", "http://127.0.0.1:11434", True),
        (":5000", "http://127.0.0.1:5000", True),
        ("0.0.0.0:5000", "http://127.0.0.1:5000", True),
        ("[::]:5000", "http://[::1]:5000", True),
        ("::1", "http://[::1]:11434", True),
        ("http://example.org", "http://example.org:80", False),
        ("https://example.org", "https://example.org:443", False),
        ("https://example.org:8443/models/", "https://example.org:8443/models", False),
        ("localhost", "http://localhost:11434", True),
        ("127.evil.example", "http://127.evil.example:11434", False),
    ],
)
def test_a_server_is_found_by_ollamas_rules(host: str, url: str, here: bool) -> None:
    assert server_url(host) == (url, here)


@pytest.mark.parametrize("host", ["ftp://example.org", "example.org:port", "example.org:99999", "[::1"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(InputError, match="LAPILLI_HOST"):
        server_url(host)


def test_an_answer_comes_in_pieces_and_the_last_has_the_account(client: Client, server: ParrotServer) -> None:
    replies = list(client.chat("parrot", [{"role": "user", "content": "one two"}], options={"seed": 1}, think=True))
    assert [reply.text for reply in replies if reply.text] == ["one ", "two "]
    assert replies[0].thinking == "hm hm"
    account = replies[-1].account
    assert account is not None
    assert (account["done_reason"], account["prompt_eval_count"]) == ("stop", 9)
    assert server.bodies("/api/chat") == [
        {"model": "parrot", "messages": [{"role": "user", "content": "one two"}], "options": {"seed": 1}, "think": True}
    ]


@pytest.mark.parametrize(("given", "sent"), [("5m", "5m"), ("90", 90), ("-1", -1), ("0", 0), ("1.5", 1.5)])
def test_a_number_of_seconds_is_sent_as_a_number(given: str, sent: Any, client: Client, server: ParrotServer) -> None:
    client.load("parrot", given)
    assert server.bodies("/api/generate") == [{"model": "parrot", "keep_alive": sent}]


def test_closing_an_answer_lets_the_server_go_at_once(client: Client, server: ParrotServer) -> None:
    with closing(client.chat("parrot", [{"role": "user", "content": "endless"}])) as replies:
        assert next(replies).text == "endless "
    deadline = time.monotonic() + 5
    while not server.gone and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.gone == 1


def test_errors_are_the_servers_own_words(client: Client) -> None:
    def said(text: str) -> list[Any]:
        return list(client.chat("parrot", [{"role": "user", "content": text}]))

    with pytest.raises(ModelNotFoundError, match=r"^model 'nobody' not found$"):
        client.show("nobody")
    with pytest.raises(BusyError, match="server busy"):
        said("busy")
    with pytest.raises(LapilliError, match="the model's process has ended"):
        said("break")
    with pytest.raises(LapilliError, match="before it was whole"):
        said("cut")


def test_models_are_listed_with_times_in_nanoseconds(client: Client, server: ParrotServer) -> None:
    [model] = client.tags()
    assert (model.name, model.size, len(model.digest)) == ("parrot:latest", 4_700_000_000, 64)
    assert model.modified is not None
    assert model.modified.isoformat() == "2020-01-01T00:00:00.123456+00:00"
    client.load("parrot:latest")
    [running] = client.ps()
    assert (running.name, running.context, running.vram) == ("parrot:latest", 4096, 0)
    client.stop("parrot:latest")
    assert client.ps() == []
    client.copy("parrot", "second")
    client.delete("second")
    assert [model.name for model in client.tags()] == ["parrot:latest"]


def test_a_file_is_sent_once(client: Client, server: ParrotServer) -> None:
    data = b"weights" * 400_000
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    went: list[int] = []
    assert not client.has_blob(digest)
    client.upload(digest, io.BytesIO(data), went.append)
    assert client.has_blob(digest)
    assert (server.blobs[digest], sum(went)) == (data, len(data))
    with pytest.raises(InputError, match="digest mismatch"):
        client.upload("sha256:" + "0" * 64, io.BytesIO(data))


def test_progress_that_never_says_success_is_an_error(client: Client, server: ParrotServer) -> None:
    server.pulls["bird"] = [{"status": "pulling ab", "digest": "sha256:ab", "total": 10, "completed": 5}]
    steps = list(client.pull("bird", insecure=True))
    assert [(step.status, step.total, step.completed) for step in steps] == [
        ("pulling manifest", 0, 0), ("pulling ab", 10, 5), ("success", 0, 0),
    ]  # fmt: skip
    assert server.bodies("/api/pull") == [{"model": "bird", "insecure": True}]
    with pytest.raises(LapilliError, match="file does not exist"):
        list(client.pull("unknown"))


def test_a_key_goes_along(server: ParrotServer) -> None:
    server.key = "secret"
    with connect(settings_for(server.url, "secret")) as client:
        assert [model.name for model in client.tags()] == ["parrot:latest"]


def test_nobody_there_is_none_and_something_else_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def mumble() -> None:
            connection, _ = listener.accept()
            connection.recv(1000)
            connection.sendall(b"220 mail.example.org ESMTP\r\n")
            connection.close()

        thread = threading.Thread(target=mumble)
        thread.start()
        with pytest.raises(LapilliError, match="does not speak HTTP"):
            reach(settings_for(f"127.0.0.1:{port}"))
        thread.join(5)
    assert reach(settings_for(f"127.0.0.1:{port}")) is None


def test_who_says_nothing_is_not_waited_for() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(LapilliError, match="says nothing within"),
    ):
        reach(settings_for(f"127.0.0.1:{listener.getsockname()[1]}"), timeout=0.05)


def test_a_host_elsewhere_is_not_replaced_by_a_server_here() -> None:
    with pytest.raises(LapilliError, match="start one there with `lapilli serve`"):
        connect(settings_for("http://lapilli.invalid"))
