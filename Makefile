# One list of developer commands. `make help` prints it.
# Everything runs in .venv, made on demand; PYTHON chooses the interpreter it is made from (3.11 or newer).

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$p; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help matrix test test-all bench lint format types check docs wheel clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.run: pyproject.toml
	@test -n "$(PYTHON)" || { echo "hvbench needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  command -v virtualenv >/dev/null 2>&1 && virtualenv -q -p $(PYTHON) $(VENV); } || { rm -rf $(VENV); \
	  echo "a virtual environment could not be made: on Debian, apt-get install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

matrix: $(VENV)/.run ## set up, then: hvbench matrix on the bundled workloads (MATRIX="..." adds arguments)
	$(BIN)/hvbench matrix $(MATRIX)

test: $(VENV)/.test ## set up, then the tests that CI runs (TEST="..." adds arguments)
	$(BIN)/python -m pytest $(TEST)

test-all: $(VENV)/.test ## every test: the slow ones too
	$(BIN)/python -m pytest -m "" $(TEST)

bench: $(VENV)/.test ## how fast hvbench itself is, as ratios to yardsticks
	$(BIN)/python -m pytest tests/bench -m bench --benchmark-only $(TEST)
	$(BIN)/python -m tests.bench.report

lint: $(VENV)/.dev ## ruff: style and formatting
	$(BIN)/ruff check .

types: $(VENV)/.dev ## mypy
	$(BIN)/mypy

format: $(VENV)/.dev ## let ruff mend what it can
	$(BIN)/ruff check --fix .

check: lint types test ## all that a change must pass

docs: $(VENV)/.run ## write the pages that come from the sources
	$(BIN)/hvbench hooks --markdown > docs/.hooks.part && mv docs/.hooks.part docs/hooks.md

wheel: $(VENV)/.dev ## build the wheel into dist/
	$(BIN)/python -m build --wheel --outdir dist .

clean: ## remove the environment and what was built
	rm -rf $(VENV) build dist *.egg-info
