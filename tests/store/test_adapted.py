"""A folder with an adapter alone is its base model with that adapter."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lapilli import StoreError
from lapilli.store.library import Library
from lapilli.store.reference import resolve
from lapilli.store.sources import built_in


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "store")


def adapter(folder: Path, base: str | None) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return folder


def model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_an_adapter_s_folder_opens_over_a_name(library: Library, tmp_path: Path) -> None:
    mine = adapter(tmp_path / "mine", "mini")
    found = resolve(mine, library)
    assert (found.path, found.adapters, found.name) == (built_in("mini"), (mine,), str(mine))
    package, base = library.find(str(mine), paths=True), library.find("mini")
    assert package.digest != base.digest
    assert package.size == base.size + sum(file.stat().st_size for file in mine.iterdir())


@pytest.mark.parametrize("base", ["absolute", "from here", "from the adapter"])
def test_or_over_a_folder(library: Library, tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    below = model(tmp_path / "models" / "base")
    monkeypatch.chdir(tmp_path)
    names = {"absolute": str(below), "from here": "models/base", "from the adapter": "../base"}
    mine = adapter(tmp_path / "models" / "mine", names[base])
    found = resolve(mine, library)
    assert os.path.samefile(found.path, below)
    assert found.adapters == (mine,)


@pytest.mark.parametrize(
    ("base", "told"),
    [
        (None, "names no base model"),
        ("nobody/knows", "over 'nobody/knows', which is not here: pull it, or give"),
        ("../first", "over '../first', which is one itself"),
        ("../circle", "over '../circle', which is one itself"),
    ],
)
def test_a_base_that_is_not_there_is_named(library: Library, tmp_path: Path, base: str | None, told: str) -> None:
    adapter(tmp_path / "first", "mini")
    with pytest.raises(StoreError, match=told):
        resolve(adapter(tmp_path / "circle", base), library)


def test_a_whole_model_is_itself_whatever_lies_beside(library: Library, tmp_path: Path) -> None:
    whole = adapter(tmp_path / "whole", "nobody")
    (whole / "config.json").write_text("{}")
    assert resolve(whole, library).adapters == ()
