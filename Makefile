# `make` lists what there is. Set-up happens by itself, in .venv, and once.

TORCH ?= torch==2.13.0
PYTHON ?= python3

VENV := .venv
PYTHON_VENV := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
HEALTHY := sample_models/digits_cnn.py:build
FAILING := sample_models/nan_sqrt.py:build
SICK := sample_models/deep_sigmoid_mlp.py:build

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format bench bench-dist compare calibration zoo docs clean FORCE

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Profile a healthy and a sick sample model, trace a NaN
	@echo '$$ gradcheck profile $(HEALTHY)'
	@$(VENV)/bin/gradcheck profile $(HEALTHY)
	@echo; echo '$$ gradcheck profile $(SICK)'
	@$(VENV)/bin/gradcheck profile $(SICK); code=$$?; echo; \
	echo "exit code $$code, expected 1: this model is sick"; test $$code -eq 1
	@echo; echo '$$ gradcheck nan-trace $(FAILING)'
	@$(VENV)/bin/gradcheck nan-trace $(FAILING); code=$$?; echo; \
	echo "exit code $$code, expected 1: a gradient turned NaN"; test $$code -eq 1

test: $(INSTALLED) ## Run the whole test suite
	$(PYTHON_VENV) -m pytest

lint: $(INSTALLED) ## Check style and types
	$(PYTHON_VENV) -m ruff check .
	$(PYTHON_VENV) -m ruff format --check .
	$(PYTHON_VENV) -m mypy

format: $(INSTALLED) ## Mend style as far as a tool can
	$(PYTHON_VENV) -m ruff check --fix .
	$(PYTHON_VENV) -m ruff format .

bench: $(INSTALLED) ## Measure what gradcheck costs (some minutes)
	$(PYTHON_VENV) -m benchmarks

bench-dist: $(INSTALLED) ## Measure what it costs on several ranks, and what grows with their number (a quarter of an hour)
	$(PYTHON_VENV) -m benchmarks.distributed

compare: $(INSTALLED) ## Set nan-trace beside detect_anomaly on the corpus of failing steps
	$(PYTHON_VENV) -m tests.nan_corpus.comparison

calibration: $(INSTALLED) ## Judge the clip rates that recommend-clip promises on kept training runs, and write the table
	$(PYTHON_VENV) -m benchmarks.calibration

zoo: $(INSTALLED) ## Profile all healthy and broken models of tests/zoo, and write the table (some minutes)
	$(PYTHON_VENV) -m pip install --quiet -e '.[zoo]'
	$(PYTHON_VENV) -m tests.zoo

docs: $(INSTALLED) ## Make docs/rules.md from the rules' own documentation
	$(PYTHON_VENV) docs/build_rules.py

clean: ## Delete .venv and every cache
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Torch comes first and by its own name, so that `make TORCH=...` decides on the build and pip keeps it afterwards.
$(INSTALLED): pyproject.toml hatch_build.py $(wildcard gradcheck_cli/observe/native/*.[ch])
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("gradcheck needs Python 3.10 or newer: make PYTHON=python3.12")'
	$(PYTHON_VENV) -m pip show --quiet pip 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(PYTHON_VENV) -m pip install --quiet '$(TORCH)'
	$(PYTHON_VENV) -m pip install --quiet -e '.[dev]'
	@echo '$(TORCH)' > $@

ifneq ($(TORCH),$(shell cat $(INSTALLED) 2>/dev/null))
$(INSTALLED): FORCE
endif
FORCE:
