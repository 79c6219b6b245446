# Each target uses the environment in $(VENV); `make install` makes it.
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install fix check test reference bench

install:
	python3 -m venv $(VENV)
	$(BIN)/pip install -e '.[dev]'

fix:
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

check:
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports

test:
	$(BIN)/python -m pytest

# Needs llama.cpp: pip install llama-cpp-python
reference:
	$(BIN)/python -m pytest -m reference

bench:
	for script in bench/*_bench.py; do $(BIN)/python $$script --write || exit 1; done
