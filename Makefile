# The commands of this project. Each does its own set-up: a fresh clone and Python 3.11 are enough.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo lab test check soak format bench clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

help:  ## Say what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1 \t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/.with-demo  ## Run the quickstart notebook here and now, on the engine of this machine
	@$(BIN)/python notebooks/run.py notebooks/quickstart.ipynb
	@echo && echo "Open it yourself: make lab"

lab: $(VENV)/.with-lab  ## Open the quickstart notebook in JupyterLab
	@root=$$( [ $$(id -u) != 0 ] || echo --allow-root ); \
	exec $(BIN)/jupyter lab $$root notebooks/quickstart.ipynb

test: $(VENV)/.with-test  ## Run every check and every test that this machine can run
	@$(BIN)/python tests/setup

check: $(VENV)/.with-test  ## Only ruff and mypy
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

soak: $(VENV)/.with-test  ## Random operations and faults for MINUTES (10), with counts; nothing may grow
	@JUPYTER_SANDBOX_SOAK_MINUTES=$${MINUTES:-10} $(BIN)/python -m pytest -q -s -m soak tests

format: $(VENV)/.with-test  ## Let ruff format and mend what it can
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: $(VENV)/.with-test  ## Measure ours beside theirs, as ratios
	@$(BIN)/python -m benchmarks.core

clean:  ## Remove what make has made
	rm -rf $(VENV) .test-state .mypy_cache .pytest_cache .ruff_cache .hypothesis

# --- set-up ----------------------------------------------------------------------------------------

$(VENV)/.with-demo: EXTRAS := demo
$(VENV)/.with-lab: EXTRAS := data,lab
$(VENV)/.with-test: EXTRAS := test

# Editable, so that a `git pull` is enough to be up to date; the agent travels into a sandbox as a zipapp
# and needs no path of the clone, wherever that is.
$(VENV)/.with-%: $(VENV)/.made pyproject.toml
	@echo "Installing jupyter-sandbox[$(EXTRAS)] into $(VENV) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or newer is needed; name one: make PYTHON=/usr/bin/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
	    if [ $$(id -u) = 0 ] && command -v apt-get >/dev/null; then \
	        echo "Installing $$package ..."; \
	        apt-get install -qq -y --no-install-recommends $$package </dev/null >/dev/null \
	            || { apt-get update -qq && apt-get install -qq -y --no-install-recommends $$package </dev/null >/dev/null; }; \
	    else \
	        echo "$(PYTHON) cannot make virtual environments here: sudo apt-get install $$package" >&2; exit 1; \
	    fi; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@
