# Every target does its own set-up. `make` alone lists them.

SHELL := /bin/bash
PORT ?= 8000
HOST ?= 127.0.0.1
ARGS ?=

# The default torch for Linux brings gigabytes of CUDA; the index of its CPU builds goes here.
TORCH_INDEX ?=

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup serve test chaos mutations load check fix leak audit bench bench-gpu clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

setup: $(READY) ## Make .venv with everything pinned in constraints.txt (TORCH_INDEX=URL: see README)

serve: $(READY) ## Serve on http://127.0.0.1:8000 with its own Redis and the demo checkpoint (PORT=…, ARGS=…)
	@exec $(BIN)/darkroom serve --host $(HOST) --port $(PORT) $(ARGS)

test: $(READY) ## Run every test that needs no GPU (ARGS="-k engine")
	@$(BIN)/pytest -m "not gpu and not slow" -n 2 --dist loadgroup $(ARGS)

chaos: $(READY) ## Kill everything for minutes while 500 generations are drawn, and count (CHAOS_SEED=…)
	@$(BIN)/python -m tests.chaos --out benchmarks/results/chaos.json $(ARGS)

mutations: $(READY) ## Take out what holds the queue together, part by part, and see that a test notices
	@$(BIN)/python -m tests.mutations

load: $(READY) ## Send clients of all kinds to a private server for two minutes, and hold it to thresholds (ARGS=…)
	@$(BIN)/python -m tests.load $(ARGS)

check: $(READY) ## Check format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(READY) ## Format, and repair what the linter can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

leak: $(READY) ## Draw 2,000 pictures, with adapters and cancels, and see that memory stays flat
	@$(BIN)/pytest -m slow -q -s tests/models/test_leaks.py $(ARGS)

bench: $(READY) ## Measure, and print ratios (ARGS=…)
	@$(BIN)/python -m benchmarks $(ARGS)

bench-gpu: $(READY) ## Measure checkpoints of real size on a GPU; ends with an error where there is none (ARGS=…)
	@$(BIN)/python -m benchmarks.gpu $(ARGS)

audit: $(READY) ## Look for known holes in what is pinned, and list all licences (needs pypi.org)
	@[ -x .audit/bin/pip-audit ] || { $(PYTHON) -m venv .audit && \
		.audit/bin/pip install --disable-pip-version-check --quiet pip-audit==2.10.1 pip-licenses==5.5.5; }
	.audit/bin/pip-licenses --python=$(BIN)/python --summary --partial-match --fail-on="GPL;AGPL;SSPL"
	.audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

clean: ## Remove .venv and caches; data/ stays
	rm -rf .venv .audit .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist

$(READY): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "Darkroom needs Python 3.11 or newer; none was found. Install one, or say make PYTHON=/path/to/python"; exit 1; fi
	@echo "Setting up .venv with $$($(PYTHON) --version); the first time takes a few minutes"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv || { \
		echo "Python cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt \
		$(addprefix --extra-index-url=,$(TORCH_INDEX)) --editable '.[worker,embedded,dev,load,peers]'
	@touch $@
