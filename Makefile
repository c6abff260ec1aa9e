# Every target sets up what it needs, on a machine with only Python >= 3.11, make and a C toolchain.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
ARGS ?=
NAME ?=
export PYTHON

VENV := .venv
BIN := $(VENV)/bin
BOOTSTRAP := scripts/bootstrap.sh
INSTALL := $(BOOTSTRAP) uv pip install --quiet --python $(BIN)/python
LOCK := ../$(BOOTSTRAP) uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links
LOCKED := uv test tools bench lnbits peers arq shootout getpaid $(basename $(notdir $(wildcard requirements/sdk-*.in)))
TYPED := $(wildcard src examples tests/typing)
PEERS := $(foreach name,peers arq bullmq shootout getpaid,$(VENV)/$(name)/.ready)
BENCHMARKS := $(or $(NAME),$(filter-out _%,$(basename $(notdir $(wildcard benchmarks/*.py)))))

.PHONY: help demo test chaos check format lint types layers bench results docs lock clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10

demo: $(VENV)/.test ## 200 consultations through a storm, on loopback; ARGS="--seed 7 --json"
	$(BOOTSTRAP) run $(BIN)/python -m examples.demo $(ARGS)

test: $(VENV)/.test ## all tests, with branch coverage; ARGS="-k breaker"
	@# Many tests use real sockets and servers: what fails beside others on a busy machine is run once more, alone.
	$(BOOTSTRAP) run $(BIN)/python -m pytest -n 2 --dist loadgroup --cov --cov-report= $(ARGS) \
		|| { test $$? -eq 1 && $(BOOTSTRAP) run $(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(ARGS); }
	@$(BIN)/python scripts/coverage_table.py

chaos: $(VENV)/.test ## kill, freeze, fill and repeat every store, under an oracle; ARGS="--seed 7 --engine sqlite"
	$(BOOTSTRAP) run $(BIN)/python -m chaos $(ARGS)

check: $(VENV)/.tools ## what a change must pass: format, lint, types, layers, tests
	$(BIN)/python -m ruff format --check .
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	@$(MAKE) --no-print-directory layers
	@$(MAKE) --no-print-directory test

format: $(VENV)/.tools ## rewrite the code as the formatter and the linter's safe fixes want it
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

lint: $(VENV)/.tools ## ruff
	$(BIN)/python -m ruff check .

types: $(VENV)/.tools ## mypy and pyright, both strict
	$(BIN)/python -m mypy --strict $(TYPED)
	$(BIN)/python -m pyright

layers: $(VENV)/.tools ## which module may import which
	$(BIN)/lint-imports

bench: $(VENV)/.bench $(PEERS) ## all benchmarks, or NAME=weight; ARGS=--json
	@set -e; for name in $(BENCHMARKS); do $(BOOTSTRAP) run $(BIN)/python -m benchmarks.$$name $(ARGS); done

results: $(VENV)/.bench $(PEERS) ## five runs in a row of all benchmarks, or NAME=guard, kept in benchmarks/results
	$(BOOTSTRAP) run $(BIN)/python -m benchmarks._runs $(BENCHMARKS) $(ARGS)

docs: $(VENV)/.test ## run the examples of README and docs
	$(BIN)/python -m pytest tests/docs $(ARGS)

# Always against the main index: an extra one may hold only some versions or files.
lock: export UV_INDEX :=
lock: export UV_FIND_LINKS :=
lock: ## lock the requirements again; ARGS=--upgrade for newer versions
	cd requirements && for name in $(LOCKED); do $(LOCK) $(ARGS) $$name.in --output-file $$name.txt || exit; done

clean: ## remove what make, the tools and the tests left
	rm -rf $(VENV) .cache .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist htmlcov
	find src tests examples benchmarks chaos scripts docs -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(VENV)/.python: $(BOOTSTRAP)
	$(BOOTSTRAP) venv $(VENV)
	@touch $@

$(VENV)/.test: $(VENV)/.python requirements/test.txt pyproject.toml
	$(INSTALL) --require-hashes --requirement requirements/test.txt
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.tools: $(VENV)/.test requirements/tools.txt
	$(INSTALL) --require-hashes --requirement requirements/tools.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.test requirements/bench.txt
	$(INSTALL) --require-hashes --requirement requirements/bench.txt
	@touch $@

$(VENV)/peers/.ready $(VENV)/arq/.ready $(VENV)/shootout/.ready: $(VENV)/%/.ready: requirements/%.txt $(VENV)/.python
	$(BOOTSTRAP) venv $(@D)
	$(BOOTSTRAP) uv pip install --quiet --python $(@D)/bin/python --require-hashes --requirement $<
	@touch $@

# The interpreter may be a newer one than the tree's own.
$(VENV)/getpaid/.ready: requirements/getpaid.txt $(VENV)/.python
	@mkdir -p $(@D)
	@for python in $(PYTHON) python3.12 python3.13; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then found=$$python; break; fi; done; \
	if test -n "$$found"; then PYTHON=$$found $(BOOTSTRAP) venv $(@D) && \
		$(BOOTSTRAP) uv pip install --quiet --python $(@D)/bin/python --require-hashes --requirement $<; \
	else echo "no Python 3.12 on PATH: the shoot-out leaves python-getpaid out" >&2; fi
	@touch $@

$(VENV)/bullmq/.ready: benchmarks/peers/package.json benchmarks/peers/package-lock.json
	@mkdir -p $(@D) && cp $^ $(@D)
	@if command -v npm >/dev/null; then cd $(@D) && npm install --silent --no-audit --no-fund --no-save --ignore-scripts; \
	else echo "no Node on PATH: benchmarks leave BullMQ out" >&2; fi
	@touch $@
