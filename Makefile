# Each target is the only command that a fresh machine needs: it makes .venv and installs what it uses.
# Needed beforehand: Python 3.11 or newer, make, and Go 1.26 or newer unless a kube-apiserver and etcd are found elsewhere.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST_ARGS ?=
KILLS ?= 1000
SEED ?= 7

.DEFAULT_GOAL := help
.PHONY: help install run test check bench mutants chaos lock

help: ## Say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED) ## Make .venv with everything that is locked in requirements.lock
	@echo "installed: $(BIN)/calctl"

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; $(PYTHON) is " + sys.version.split()[0])'
	@echo "installing into $(VENV): a few minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: $(INSTALLED) ## Start the whole system here and take the tour: calctl up --tour
	$(BIN)/calctl up --tour

test: $(INSTALLED) ## Run all tests (the first run builds the control plane, about 13 minutes on two cores)
	$(BIN)/python -P -m cal_cli.controlplane
	$(BIN)/python -P -m pytest --durations=25 $(PYTEST_ARGS)

check: $(INSTALLED) ## Lint, types, layers, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -P -m cal_crds --check

bench: $(INSTALLED) ## Run the benchmarks: a table, and build/bench.json
	$(BIN)/python -P -m cal_cli.controlplane
	$(BIN)/python -P .ci/bench.py

mutants: $(INSTALLED) ## Take each safety rule out in turn and see the tests go red
	$(BIN)/python -P -m cal_cli.controlplane
	$(BIN)/python -P .ci/mutants.py

chaos: $(INSTALLED) ## Kill, pause and cut off everything while users deploy (KILLS=1000 SEED=7); exit 1 if anything leaks
	$(BIN)/python -P -m cal_cli.controlplane
	$(BIN)/python -P tests/chaos/run.py --kills $(KILLS) --seed $(SEED)

lock: $(INSTALLED) ## Write requirements.lock anew from pyproject.toml
	$(BIN)/pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-trusted-host \
	  --no-emit-find-links --extra test --extra kind --output-file requirements.lock pyproject.toml
