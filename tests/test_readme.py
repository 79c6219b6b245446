"""README's promises: its Python runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import io
import re
import shlex
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from lapilli.faces.cli import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_python_of_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    snippets = blocks("python")
    assert len(snippets) >= 5
    names: dict[str, object] = {}
    said = io.StringIO()
    with redirect_stdout(said):
        for number, snippet in enumerate(snippets, 1):
            exec(compile(snippet, f"README.md, snippet {number}", "exec"), names)  # noqa: S102
    assert said.getvalue().strip()


def test_the_first_two_shell_blocks_are_one_command_each() -> None:
    setup, develop = blocks("sh")
    assert len(setup.splitlines()) == len(develop.splitlines()) == 1
    assert "lapilli run mini" in setup
    assert develop.rstrip().endswith("pytest")


def console_commands() -> list[list[str]]:
    lines = [line for block in [*blocks("console"), *blocks("sh")] for line in block.splitlines()]
    return [
        shlex.split(match[0], comments=True)
        for line in lines
        if (
            match := re.search(
                r"\blapilli (run|train|eval|doctor|quantize|pull|list|show|create|serve|rag|trials|batch|bench).*", line
            )
        )
    ]


@pytest.mark.parametrize("command", console_commands(), ids=" ".join)
def test_every_command_of_readme_exists_with_its_options(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    depth = 4 if command[1:3] == ["train", "mini"] else 3 if command[1] in ("train", "eval", "rag", "trials") else 2
    # `lapilli batch FILE` is `lapilli batch run FILE`.
    words = ["batch", "run"] if command[1] == "batch" else command[1:depth]
    assert main([*words, "--help"]) == 0
    known = capsys.readouterr().out
    for option in (word for word in command if word.startswith("--")):
        assert re.search(rf"{option}\b", known), f"{option} is not an option of {' '.join(command[:depth])}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/index.md", "docs/design.md", "bench/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    missing = [target for target in targets if target and not (ROOT / page).parent.joinpath(target).exists()]
    assert not missing
