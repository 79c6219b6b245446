"""What `import lapilli` offers, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import lapilli
from lapilli import errors


def test_public_names_are_sorted_and_all_there() -> None:
    assert lapilli.__all__ == sorted(set(lapilli.__all__))
    for name in lapilli.__all__:
        assert getattr(lapilli, name).__name__ == name


def test_every_error_is_public() -> None:
    tree = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert tree <= set(lapilli.__all__)
    assert all(issubclass(getattr(errors, name), lapilli.LapilliError) for name in tree)


def test_dir_lists_what_is_imported_late() -> None:
    assert set(lapilli.__all__) <= set(dir(lapilli))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        lapilli.no_such_name  # noqa: B018


def test_importing_costs_next_to_nothing() -> None:
    script = (
        "import sys, time; before = time.process_time(); import lapilli; spent = time.process_time() - before; "
        "heavy = {'torch', 'numpy', 'PIL', 'tokenizers', 'jinja2', 'typer'} & set(sys.modules); "
        "assert not heavy, heavy; print(spent)"
    )
    runs = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True) for _ in range(5)]
    assert all(run.returncode == 0 for run in runs), runs[0].stderr
    assert min(float(run.stdout) for run in runs) < 0.05
