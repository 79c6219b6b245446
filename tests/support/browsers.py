"""A browser, and what looks for things in a page that not everybody can use: for every test in a browser."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no chromium on the path: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, out of the npm registry; skips where that is out of reach."""
    folder = tmp_path_factory.mktemp("axe")
    if shutil.which("npm") is None:
        pytest.skip("no npm here to fetch axe-core with")
    try:
        subprocess.run(["npm", "pack", "axe-core@4"], cwd=folder, check=True, timeout=60, capture_output=True)
    except (subprocess.SubprocessError, OSError):
        pytest.skip("axe-core could not be fetched from the npm registry")
    shutil.unpack_archive(next(folder.glob("*.tgz")), folder, filter="data")
    return (folder / "package" / "axe.min.js").read_text()
