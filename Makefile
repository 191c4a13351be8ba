# Every target sets itself up: a fresh machine needs python3 (3.11 or newer), git and make, nothing else.
# What is installed, in which version and with which digests, stands in constraints.txt; where it comes from is pip's own
# configuration.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
# The first interpreter on the PATH that is new enough; `make PYTHON=/path/to/python3.12 ...` picks another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && { command -v $$p; break; }; done)
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -qq --no-deps --require-hashes

JOBS ?= 2
SEEDS ?= 10000
SEED ?= 0
SOAK ?= 600
N ?= 20000
TESTS ?= tests

.PHONY: help demo test lint format sim soak bench docs setup clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | while IFS=$$'\t' read -r name what; do \
		printf '  make %-8s %s\n' "$$name" "$$what"; done

demo: $(VENV)/ready  ## run examples/prep_release.batch on an embedded cluster: a coordinator and two agents
	@$(BIN)/coordinator run examples/prep_release.batch

test: $(VENV)/ready-dev  ## lint, then every test even so (JOBS=2 at once; TESTS=tests/wire for a part)
	@lint=0; tests=0; \
	$(MAKE) lint || lint=$$?; \
	$(BIN)/python -m pytest -n $(JOBS) -rfEs $(TESTS) || tests=$$?; \
	[ $$lint -eq 0 ] || echo 'error: lint failed, see above the tests' >&2; \
	[ $$lint -eq 0 ] && exit $$tests || exit 1

lint: $(VENV)/ready-dev  ## ruff, mypy --strict and the directions of import, all of them before it fails
	@bad=0; \
	$(BIN)/ruff check --quiet . || bad=1; \
	$(BIN)/ruff format --check --quiet . || { echo 'these files are not formatted; `make format` does it' >&2; bad=1; }; \
	$(BIN)/mypy || bad=1; \
	$(BIN)/lint-imports --no-logo || bad=1; \
	exit $$bad

sim: $(VENV)/ready-dev  ## the simulator over SEEDS=10000 seeds, from SEED=0 on; a failing seed prints its story and how to replay it
	@$(BIN)/python -m tests.simulator --first $(SEED) --seeds $(SEEDS)

soak: $(VENV)/ready-dev  ## three agents and 200 jobs for SOAK=600 seconds while everything is killed at random
	@$(BIN)/python -m tests.e2e.soak --seconds $(SOAK)

bench: $(VENV)/ready-dev  ## what was promised about speed, as ratios to floors of the same run (N=20000 tasks; ONLY=events for one case)
	@$(BIN)/python -m bench --tasks $(N) $(if $(ONLY),--only $(ONLY))

format: $(VENV)/ready-dev  ## let ruff format the code and sort the imports
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .

docs: $(VENV)/ready-dev  ## write the tables, diagrams and walked-through commands of docs/ anew from the code
	@$(BIN)/python -m docs.generate
	@$(BIN)/python -m docs.day

setup: $(VENV)/ready-dev  ## only what the others need: .venv with the pinned dependencies

clean:  ## remove .venv and every cache
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build

# The stamps are touched last, so that an interrupted set-up starts again.
$(VENV)/ready: constraints.txt pyproject.toml
	@[ -n '$(PYTHON)' ] || { echo 'error: no python3 of version 3.11 or newer on the PATH; install one, or say which: make PYTHON=/path/to/python' >&2; exit 1; }
	@echo 'setting up $(VENV) with $(PYTHON)'
	@$(PYTHON) -m venv $(VENV) || { echo 'error: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu install python3-venv' >&2; exit 1; }
	@sed '/^# tests it/,$$d' constraints.txt > $(VENV)/run.txt
	@$(PIP) --requirement $(VENV)/run.txt
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready
	@echo 'adding the tools of the tests'
	@$(PIP) --requirement constraints.txt
	@touch $@
