# `make` alone says what there is.

PYTHON ?= python3
ENV ?= .env
SOURCE ?= ./media
ARGS ?=
WORKERS ?= auto
ENGINE ?= docker

BIN := .venv/bin
PROGRAM = $(BIN)/media-orchestrator --env-file $(ENV) --source $(SOURCE)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help venv demo doctor plan migrate image test prove lint bench scale clean

help:
	@echo "Move a Django site's media to the storage that its .env names:"
	@echo
	@echo "  make demo       see it work on made-up photos and a store on this machine"
	@echo "  make doctor     is everything ready? Tries the store with one small object"
	@echo "  make plan       what would be copied; writes nothing to the store"
	@echo "  make migrate    copy, check, read back, report; run it again to go on"
	@echo
	@echo "  They read ENV=$(ENV) and SOURCE=$(SOURCE); ARGS= adds options of the command:"
	@echo "      make plan ENV=/srv/site/.env SOURCE=/srv/site/media ARGS='...'"
	@echo "  make image      the one-off container (ENGINE=$(ENGINE)), see compose.yaml"
	@echo
	@echo "Work on media-orchestrator itself:"
	@echo
	@echo "  make venv       the virtual environment .venv, as locked (PYTHON=$(PYTHON))"
	@echo "  make test       all tests on all test servers found (ARGS='-k proxy --servers moto')"
	@echo "  make prove      the harnesses of tests/proof at full size (ARGS='--seed 7')"
	@echo "  make lint       ruff and mypy"
	@echo "  make bench      migrate against bare rclone and other tools, on slow links (ARGS=--quick)"
	@echo "  make scale      what a million files cost in time and memory (ARGS='--files 100000')"
	@echo "  make clean      remove .venv and the caches"

venv: .venv/installed

.venv/locked: requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed. TIP: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --require-hashes --requirement requirements-dev.lock
	@touch $@

.venv/installed: .venv/locked pyproject.toml
	$(BIN)/pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

demo: venv
	$(BIN)/python scripts/demo.py $(ARGS)

doctor plan migrate: venv
	$(PROGRAM) $@ $(ARGS)

image:
	$(ENGINE) build --tag media-orchestrator:latest .

test: venv
	$(BIN)/pytest --numprocesses $(WORKERS) $(ARGS)

prove: venv
	$(BIN)/pytest tests/proof --proof full --numprocesses $(WORKERS) $(ARGS)

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: venv
	$(BIN)/python -m scripts.bench $(ARGS)

scale: venv
	$(BIN)/python -m scripts.scale $(ARGS)

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
