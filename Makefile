# `make` sets up .venv, checks the backends installed in it and builds the site; `make help` lists the rest.

# A shell's environment of Python or pip must not reach in here. The settings that name an index or a certificate do.
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV __PYVENV_LAUNCHER__
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_NO_DEPS PIP_DRY_RUN PIP_PYTHON PIP_REQUIRE_HASHES PIP_NO_BUILD_ISOLATION
export PIP_USER := 0
export PIP_REQUIRE_VIRTUALENV := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONNOUSERSITE := 1

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SITE := build/html
SPHINX = $(BIN)/python -m sphinx -n -W --keep-going --quiet -d build/doctrees docs $(SITE)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all check docs test lint examples peers bench clean help

all: check docs ## check the backends and build the site (the default)
	@echo $(SITE)/index.html

check: $(VENV)/site.stamp ## check every backend whose library is installed in .venv
	$(BIN)/python scripts/check_backends.py

docs: $(VENV)/site.stamp ## build the site; a warning is an error
	@rm -rf docs/generated
	$(SPHINX)

test: $(VENV)/test.stamp lint docs ## run every test: lint, types, unit, property, examples, site
	MLX_OPTIMIZERS_SITE=$(CURDIR)/$(SITE) $(BIN)/python -m pytest -n auto

lint: $(VENV)/test.stamp ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

examples: $(VENV)/test.stamp ## run the examples of docstrings, pages and README alone
	$(BIN)/python -m pytest mlx_optimizers docs README.md

peers: $(VENV)/peers.stamp ## install torch, optax and Keras as well, so that they are checked too

bench: $(VENV)/bench.stamp ## measure the optimizers beside those of torch, optax and MLX; takes some forty minutes
	$(BIN)/python scripts/bench.py -o build/bench.json

clean: ## remove what was built; .venv stays
	rm -rf build docs/generated .mypy_cache .pytest_cache .ruff_cache .hypothesis

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=…")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/site.stamp: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[docs,mlx,mpfr,rich]'
	@touch $@

$(VENV)/test.stamp: pyproject.toml | $(VENV)/site.stamp
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	@touch $@

$(VENV)/peers.stamp: pyproject.toml | $(VENV)/site.stamp
	$(BIN)/python -m pip install --quiet --editable '.[torch,optax,keras]'
	@touch $@

$(VENV)/bench.stamp: pyproject.toml | $(VENV)/peers.stamp
	$(BIN)/python -m pip install --quiet --editable '.[fast]'
	@touch $@
