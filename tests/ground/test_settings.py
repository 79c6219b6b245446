"""Settings: who wins, what is refused and in which words, and the page that lists them."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest

from lapilli.errors import InputError
from lapilli.ground.settings import Settings, data_folder, variables

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No variables, an empty home; the place of config.toml."""
    for name in list(os.environ):
        if name.startswith(("LAPILLI_", "OLLAMA_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".config" / "lapilli"
    folder.mkdir(parents=True)
    return folder / "config.toml"


def test_ours_wins_over_ollamas_over_the_file_over_the_default(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    assert Settings().max_queue == 512
    config.write_text("max_queue = 3\nnum_parallel = 2\n")
    assert (Settings().max_queue, Settings().num_parallel) == (3, 2)
    monkeypatch.setenv("OLLAMA_MAX_QUEUE", "4")
    assert Settings().max_queue == 4
    monkeypatch.setenv("LAPILLI_MAX_QUEUE", " '5' ")
    assert Settings().max_queue == 5
    monkeypatch.setenv("LAPILLI_MAX_QUEUE", "")
    assert Settings().max_queue == 4
    assert Settings(max_queue=6).max_queue == 6


# Ollama's own table of forms, with one difference: a port alone listens everywhere, and is spelt so.
@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("", "127.0.0.1", 11434),
        ("1.2.3.4", "1.2.3.4", 11434),
        (":1234", "0.0.0.0", 1234),
        ("1.2.3.4:1234", "1.2.3.4", 1234),
        ("example.com", "example.com", 11434),
        ("example.com:1234", "example.com", 1234),
        ("http://1.2.3.4", "1.2.3.4", 80),
        ("https://1.2.3.4", "1.2.3.4", 443),
        ("https://1.2.3.4:4321", "1.2.3.4", 4321),
        ("http://example.com/path/", "example.com", 80),
        ("[0001:002:003:0004::1]", "1:2:3:4::1", 11434),
        ("[::1]:1337", "::1", 1337),
        ("::1", "::1", 11434),
        ("localhost", "localhost", 11434),
        ("localhost:0", "localhost", 0),
        (' "1.2.3.4" ', "1.2.3.4", 11434),
    ],
)
def test_forms_of_the_host(monkeypatch: pytest.MonkeyPatch, text: str, host: str, port: int) -> None:
    monkeypatch.setenv("OLLAMA_HOST", text)
    assert Settings().address == (host, port)


def test_what_is_loopback() -> None:
    def near(host: str) -> bool:
        return Settings(host=host).is_loopback

    assert all(map(near, ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "http://localhost:1"]))
    assert not any(map(near, ["0.0.0.0:1", "[::]:1", "192.168.0.1:1", "localhost.example.com:1", "127.example.com:1"]))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("keep_alive", "1h30m", 5400.0),
        ("keep_alive", "90", 90.0),
        ("keep_alive", "-1", -1.0),
        ("keep_alive", "-5m", -1.0),
        ("keep_alive", "0", 0.0),
        ("max_memory", "1.5GiB", 3 << 29),
        ("max_memory", "2GB", 2_000_000_000),
        ("max_memory", "4096", 4096),
        ("origins", "https://a.example, https://*.b.example", ("https://a.example", "https://*.b.example")),
        ("allowed_hosts", "a.example,*.ngrok-free.app", ("a.example", "*.ngrok-free.app")),
        ("offline", "yes", True),
        ("offline", "0", False),
        ("quantize", "none", None),
        ("quantize", "int4", "int4"),
        ("debug", "2", True),
        ("models", "~/here", None),
    ],
)
def test_values_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, text: str, value: object) -> None:
    monkeypatch.setenv(f"LAPILLI_{name.upper()}", text)
    assert getattr(Settings(), name) == (tmp_path / "here" if name == "models" else value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("LAPILLI_HOST", "ftp://here"),
        ("LAPILLI_HOST", "a b"),
        ("LAPILLI_HOST", "localhost:99999"),
        ("LAPILLI_HOST", "me@localhost"),
        ("LAPILLI_NUM_PARALLEL", "0"),
        ("LAPILLI_NUM_PARALLEL", "1e3"),
        ("LAPILLI_MAX_QUEUE", "-1"),
        ("OLLAMA_KEEP_ALIVE", "soon"),
        ("LAPILLI_LOAD_TIMEOUT", "0"),
        ("LAPILLI_MAX_BODY", "many"),
        ("LAPILLI_OFFLINE", "perhaps"),
        ("LAPILLI_QUANTIZE", "int3"),
        ("LAPILLI_CONTEXT_LENGTH", "3"),
        ("LAPILLI_ALLOWED_HOSTS", "a/b"),
    ],
)
def test_a_wrong_value_is_named_with_its_variable_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(InputError) as caught:
        Settings()
    said = str(caught.value)
    assert said.startswith(f"{name} is ")
    assert repr(text) in said
    assert dict(variables())[name.partition("_")[2].lower()].allowed in said
    assert "\n" not in said


def test_a_key_is_never_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPILLI_API_KEYS", "hush hush hush")
    with pytest.raises(InputError) as caught:
        Settings()
    assert "hush" not in str(caught.value)
    monkeypatch.setenv("LAPILLI_API_KEYS", "hush-hush-hush,another-one")
    settings = Settings()
    assert settings.api_keys == ("hush-hush-hush", "another-one")
    assert settings.client_key == "hush-hush-hush"
    assert "hush" not in repr(settings)
    monkeypatch.setenv("OLLAMA_API_KEY", "for-clients")
    assert Settings().client_key == "for-clients"


def test_what_ollama_cannot_read_counts_as_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_NOPRUNE", "whatever")
    assert Settings().noprune is True
    monkeypatch.setenv("OLLAMA_NOPRUNE", "false")
    assert Settings().noprune is False


def test_the_file_knows_its_keys(config: Path) -> None:
    config.write_text('keep_alve = "1h"')
    with pytest.raises(InputError, match=r"no setting is called 'keep_alve': did you mean 'keep_alive'\?"):
        Settings()
    config.write_text("keep_alive = true")
    with pytest.raises(InputError, match=r"config\.toml: keep_alive is True, allowed is: a duration"):
        Settings()
    config.write_text("keep_alive = ")
    with pytest.raises(InputError, match="no TOML"):
        Settings()
    config.write_text('host = "h:1"\norigins = ["https://a"]\noffline = true\nkeep_alive = 60\nmax_memory = 1000')
    settings = Settings()
    assert (settings.host, settings.origins, settings.offline) == ("h:1", ("https://a",), True)
    assert (settings.keep_alive, settings.max_memory) == (60.0, 1000)


def test_another_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAPILLI_CONFIG", str(tmp_path / "other.toml"))
    with pytest.raises(InputError, match=r"LAPILLI_CONFIG names .*no such file"):
        Settings()
    (tmp_path / "other.toml").write_text("max_queue = 7")
    assert Settings().max_queue == 7


def test_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Settings().models == tmp_path / ".local/share/lapilli/models"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert data_folder() == tmp_path / "data" / "lapilli"
    (tmp_path / ".ollama/models/manifests").mkdir(parents=True)
    assert Settings().ollama_models == tmp_path / ".ollama/models"
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "theirs"))
    assert Settings().ollama_models == tmp_path / "theirs"
    monkeypatch.setenv("LAPILLI_OLLAMA_MODELS", "none")
    assert Settings().ollama_models is None
    assert Settings().models == tmp_path / "data/lapilli/models", "Ollama's folder is never ours"


def test_settings_are_frozen_and_unknown_ones_refused() -> None:
    with pytest.raises(InputError, match="nonsense"):
        Settings(nonsense=1)
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.max_queue = 1  # type: ignore[misc]


def test_the_page_lists_every_variable() -> None:
    spec = importlib.util.spec_from_file_location("write_settings", ROOT / "docs" / "write_settings.py")
    assert spec is not None
    assert spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == writer.page(), "python docs/write_settings.py writes it anew"
    named = {
        name
        for path in (ROOT / "src").rglob("*.py")
        for name in re.findall(r"LAPILLI_[A-Z_]*[A-Z]", path.read_text(encoding="utf-8"))
    }
    assert not {name for name in named if f"`{name}`" not in page}
