# One virtual environment beside the code, filled by pip; a second run installs nothing again.

VENV := .venv
BIN := $(VENV)/bin
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
FOUND = $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c '$(RECENT)' 2>/dev/null && echo $$p && break; done)
PYTHON ?= $(or $(FOUND),python3)
CAME = $(or $(shell $(PYTHON) --version 2>&1 | tail -n 1),nothing)

.PHONY: help demo check test test-slow

help:
	@echo "make demo       set up, then the whole story on real digits, offline, with a report"
	@echo "make test       set up, then the checks and every test that takes seconds"
	@echo "make test-slow  set up, then the tests that take minutes"
	@echo "make check      set up, then lint, format, types and import arrows only"
	@echo
	@echo "PYTHON=python3.12 names the Python to use (3.11 or newer)."
	@echo "Setting up is left to pip and its own settings: PIP_INDEX_URL picks another index,"
	@echo "for instance the one with the smaller CPU build of torch."

demo: $(VENV)/.core
	OMP_NUM_THREADS=1 $(BIN)/python -m examples.demo

check: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyrefly check
	$(BIN)/lint-imports

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

$(BIN)/python:
	$(if $(shell $(PYTHON) -c '$(RECENT)' 2>/dev/null && echo yes),,$(error \
		efface needs Python 3.11 or newer; $(PYTHON) gives: $(CAME). Name one with PYTHON=python3.12))
	$(PYTHON) -m venv $(VENV) || { rm -f $@; exit 1; }

$(VENV)/.core: pyproject.toml | $(BIN)/python
	@echo "Installing efface and what it needs into $(VENV): about 6 GB on Linux with the CUDA"
	@echo "build of torch, about 1 GB elsewhere. What is there already is kept."
	$(BIN)/python -m pip install --disable-pip-version-check -e .
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@echo "Installing efface and what its tests need into $(VENV): about 6 GB on Linux with the"
	@echo "CUDA build of torch, about 1 GB elsewhere; after make demo about 0.1 GB more."
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/.core
