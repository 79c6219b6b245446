"""What people install by: the container and the service know our settings, Windows is refused."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lapilli.faces.cli import main
from lapilli.ground.settings import variables

ROOT = Path(__file__).resolve().parent.parent
FILES = (ROOT / "Dockerfile", ROOT / "packaging" / "lapilli.service", ROOT / "docs" / "install.md")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_only_settings_that_there_are(path: Path) -> None:
    known = {f"LAPILLI_{name.upper()}" for name, _ in variables()}
    named = set(re.findall(r"LAPILLI_[A-Z_]+", path.read_text(encoding="utf-8")))
    assert named
    assert named <= known


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not here")
    unit = tmp_path / "lapilli.service"
    text = (ROOT / "packaging" / "lapilli.service").read_text(encoding="utf-8")
    unit.write_text(text.replace("/opt/lapilli/bin/lapilli", sys.executable))
    run = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert "lapilli.service" not in run.stderr, run.stderr


def test_windows_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert main(["doctor"]) == 2
    assert "run it under WSL 2" in capsys.readouterr().err
    assert main(["--version"]) == 0
