"""The commands where no server is up: a private one answers, out of the same store, and leaves nothing behind."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from lapilli.errors import InputError, ModelNotFoundError
from lapilli.faces.cli import main
from lapilli.faces.connection import alone, connect
from lapilli.ground.settings import Settings

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MINI = Path(__file__).resolve().parents[2] / "src" / "lapilli" / "models" / "mini"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No server is up, nothing is reached, the store is empty; gives the folder for temporary files."""
    monkeypatch.setattr("sys.stdin", None)
    monkeypatch.setenv("LAPILLI_HOST", "127.0.0.1:1")
    monkeypatch.setenv("LAPILLI_OFFLINE", "1")
    monkeypatch.setenv("LAPILLI_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("LAPILLI_OLLAMA_MODELS", "none")
    # Short, for a socket's path may have about a hundred bytes.
    folder = Path(tempfile.mkdtemp(dir="/tmp" if os.name == "posix" else None))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0, capsys.readouterr().err
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_a_stored_model_answers_and_nothing_is_left(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "cp", "mini", "second") == "copied 'mini' to 'second'\n"
    names = [line.split()[0] for line in printed(capsys, "list").splitlines()]
    assert sorted(names[1:]) == ["mini:latest", "second:latest"]
    asked = ("run", "second", "What is in this picture?", str(EXAMPLES / "shapes.png"))
    assert printed(capsys, *asked) == "A red circle and a blue square.\n"
    assert printed(capsys, "rm", "second") == "deleted 'second'\n"
    assert [*store.iterdir()] == []


def test_a_missing_model_cannot_be_pulled_offline(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nobody", "Hi"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "no model 'nobody' is here" in err


@pytest.mark.skipif(os.name == "nt", reason="sockets with a path")
def test_the_socket_is_its_owners_alone(store: Path) -> None:
    with connect(Settings()) as client:
        [folder] = store.iterdir()
        assert (client.private, folder.stat().st_mode & 0o777) == (True, 0o700)
        assert [socket.name for socket in folder.iterdir()] == ["socket"]


def test_where_a_socket_has_no_path_a_key_is_asked_for(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapilli.faces.private._LONGEST_SOCKET_PATH", 0)
    with connect(Settings()) as client:
        assert [model.name for model in client.tags()] == ["mini:latest"]
        assert [*next(store.iterdir()).iterdir()] == []


def test_a_path_is_a_model_only_where_it_was_given_a_name() -> None:
    with alone(Settings(), {"checkpoint": MINI}) as client:
        assert "vision" in client.show("checkpoint")["capabilities"]
        with pytest.raises(InputError, match="invalid model name"):
            client.show(str(MINI))
    with connect(Settings()) as client, pytest.raises(ModelNotFoundError):
        client.show("checkpoint")


def test_every_command_is_documented() -> None:
    from typer.main import get_command

    from lapilli.faces.cli import app

    page = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    command = get_command(app)
    shown = [name for name, found in command.commands.items() if not found.hidden]  # type: ignore[attr-defined]
    assert [name for name in shown if f"`{name}" not in page] == []
    options = {name for parameter in command.commands["run"].params for name in parameter.opts}  # type: ignore[attr-defined]
    assert [name for name in options if name.startswith("--") and name != "--help" and f"`{name}" not in page] == []
