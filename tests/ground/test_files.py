"""Files are whole or not there, and only regular files are opened."""

import os

import pytest

from lapilli.errors import InputError
from lapilli.ground.files import open_regular, publish


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "weights.gguf"
    with publish(path) as fresh:
        fresh.write_bytes(b"whole")
        assert not path.exists()
        assert fresh.parent == path.parent  # the same file system, so that the rename is atomic
    assert path.read_bytes() == b"whole"
    assert os.listdir(path.parent) == ["weights.gguf"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), publish(path) as fresh:  # noqa: PT012
        fresh.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["weights.gguf"]


def test_nothing_written_publishes_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), publish(tmp_path / "weights.gguf"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_folder_appears_whole(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    with publish(path) as fresh:
        (fresh / "deep").mkdir(parents=True)
        (fresh / "deep" / "config.json").write_text("{}")
        assert os.listdir(path) == []
    assert (path / "deep" / "config.json").read_text() == "{}"
    assert os.listdir(tmp_path) == ["model"]


def test_a_full_folder_is_replaced_only_when_told(tmp_path):
    path = tmp_path / "home"
    path.mkdir()
    (path / "letter").write_text("dear")
    with pytest.raises(InputError, match="already holds files"), publish(path) as fresh:
        fresh.mkdir()
    assert (path / "letter").read_text() == "dear"
    with publish(path, replace_folder=True) as fresh:
        fresh.mkdir()
        (fresh / "model").write_text("new")
    assert os.listdir(path) == ["model"]
    assert os.listdir(tmp_path) == ["home"]


@pytest.mark.parametrize("old_is_folder", [True, False])
def test_a_file_and_a_folder_do_not_replace_each_other(tmp_path, old_is_folder):
    path = tmp_path / "model"
    path.mkdir() if old_is_folder else path.write_text("old")
    with pytest.raises(InputError, match="cannot take the place"), publish(path) as fresh:
        fresh.write_text("new") if old_is_folder else fresh.mkdir()
    assert path.is_dir() == old_is_folder
    assert os.listdir(tmp_path) == ["model"]


def test_only_regular_files_are_opened(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (fifo, tmp_path, loop, tmp_path / "none", "/dev/zero"):
        with pytest.raises(OSError):  # noqa: PT011
            open_regular(path)
    (tmp_path / "file").write_bytes(b"here")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"here"
