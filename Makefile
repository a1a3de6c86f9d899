SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.headwater-installed

.DEFAULT_GOAL := help
.PHONY: help setup demo setup-services test lint type bench main-job experiments docs clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "%-16s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv with everything installed

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "headwater: needs Python 3.11 or newer with venv (Debian: apt install python3-venv python3-dev); set PYTHON=…" >&2; exit 1; }
	@command -v c++ >/dev/null || command -v g++ >/dev/null \
	  || { echo "headwater: needs a C++ compiler, since hnswlib is compiled at installation (Debian: apt install g++)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[streams,serving,training,embedded,dev]'
	@touch $@

demo: setup ## Run the whole loop on embedded services (ONCE=1 exits after the summary)
	$(BIN)/headwater demo $(if $(ONCE),--once)

setup-services: ## Install real Kafka and redis-server for tests and benchmarks (with apt as root where missing)
	bash deploy/setup-services.sh

test: setup setup-services ## Run all tests against real Kafka and Redis (installs them with apt as root where missing)
	$(BIN)/python -m pytest

lint: setup ## Check style, imports and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell headwater streams serving training tests benchmarks deploy README.md CONTRIBUTING.md CHANGELOG.md

type: setup ## Check types
	$(BIN)/mypy

bench: setup setup-services ## Run the short benchmarks and the libraries they compare with
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[peers]'
	$(BIN)/python -m benchmarks

main-job: setup setup-services ## Replay 300,000 news clicks through real Kafka and Redis and account for each
	$(BIN)/python -m benchmarks.main_job

experiments: setup ## Measure retrieval quality on real data (hours)
	$(BIN)/python -m benchmarks.quality

docs: setup ## Regenerate JSON Schema and AsyncAPI
	$(BIN)/python -m headwater.schemas

clean: ## Delete the environment and all local state
	rm -rf .venv .venv-quix var build *.egg-info
