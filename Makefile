# One virtual environment next to the code, filled by pip with the tested versions of constraints.txt;
# a second run installs nothing again.

VENV := .venv
BIN := $(VENV)/bin
RECENT := import sys; sys.exit(sys.version_info < (3, 11))
FOUND = $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c '$(RECENT)' 2>/dev/null && echo $$p && break; done)
PYTHON ?= $(or $(FOUND),python3)
GOT = $(or $(shell $(PYTHON) --version 2>&1 | tail -n 1),nothing)
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check
ALONE = OMP_NUM_THREADS=1 # one torch thread a process: busy processes of two threads starve each other

.PHONY: help demo test check docs test-slow test-newest

help:
	@echo "make demo         set up, then a complete example on real digits, offline, with a report"
	@echo "make test         set up, then all quick tests, on all cores"
	@echo "make check        set up, then lint, format, types, import arrows and words"
	@echo "make docs         set up, then the documentation as a site: site/index.html, offline"
	@echo "make test-slow    set up, then the tests that take minutes"
	@echo "make test-newest  the newest versions of all packages in $(VENV)-newest: check and test, for a report"
	@echo
	@echo "PYTHON=python3.12 names the Python to use (3.11 or newer)."
	@echo "Setting up is left to pip and its own settings: PIP_INDEX_URL picks another index,"
	@echo "for instance the one with the smaller CPU build of torch."

demo: $(VENV)/.core
	$(ALONE) $(BIN)/python -m examples.demo

test: $(VENV)/.test
	$(ALONE) $(BIN)/python -m pytest -m "not slow" -n auto

check: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyrefly check
	$(BIN)/lint-imports
	$(BIN)/python -m tools.house words

docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

test-slow: $(VENV)/.test $(VENV)-mlflow
	EFFACE_MLFLOW=$(abspath $(VENV)-mlflow) $(ALONE) $(BIN)/python -m pytest -m slow

# apart: what MLflow needs moves none of the tested versions
$(VENV)-mlflow: $(VENV)/.test
	$(PIP_INSTALL) --quiet --upgrade --target $@ "mlflow-skinny>=2.9"
	@touch $@

test-newest:
	$(MAKE) VENV=$(VENV)-newest CONSTRAINTS= $(VENV)-newest/.test
	$(VENV)-newest/bin/python -m pip install --upgrade --quiet -e '.[test,docs]'
	$(VENV)-newest/bin/python -m tools.house versions
	-$(MAKE) VENV=$(VENV)-newest CONSTRAINTS= check
	-$(MAKE) VENV=$(VENV)-newest CONSTRAINTS= test

CONSTRAINTS ?= -c constraints.txt

$(BIN)/python:
	$(if $(shell $(PYTHON) -c '$(RECENT)' 2>/dev/null && echo yes),,$(error \
		efface needs Python 3.11 or newer; $(PYTHON) gives: $(GOT). Name one with PYTHON=python3.12))
	$(PYTHON) -m venv $(VENV) || { rm -f $@; exit 1; }

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing efface and what it needs into $(VENV): about 6 GB on Linux with the CUDA"
	@echo "build of torch, about 1 GB elsewhere. What is there already is kept."
	$(PIP_INSTALL) $(CONSTRAINTS) -e .
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing efface and what its tests need into $(VENV): about 6 GB on Linux with the"
	@echo "CUDA build of torch, about 1 GB elsewhere; after make demo about 0.1 GB more."
	$(PIP_INSTALL) $(CONSTRAINTS) -e '.[test,docs]'
	@touch $@ $(VENV)/.core
