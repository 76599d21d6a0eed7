# Needs a Python of at least 3.11.4 and GNU Make 3.81 or newer; everything else goes into .venv
# (tools/venv.sh). Another Python: make PYTHON=python3.13 test. More arguments: make test ARGS=-x

.PHONY: help demo test lint types contracts check bench clean venv-demo venv-dev
.NOTPARALLEL:
.DEFAULT_GOAL := help

PYTHON ?=
ARGS ?=
export PYTHON
# Without byte code each child process of a test compiles all that it imports, and so does pytest.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE
python := .venv/bin/python

help:
	@echo "make demo       a log is killed, recovered, lost and found in its bucket; under a minute"
	@echo "                (faster: make demo ARGS=--fast)"
	@echo "make test       the tests, without those marked slow, s3, cluster or soak"
	@echo "make lint       ruff: rules and format"
	@echo "make types      mypy --strict over both packages and the public API"
	@echo "make contracts  who may import whom"
	@echo "make check      lint, types, contracts, test"
	@echo "make bench      latencies of the tiers, measured here and now"
	@echo "make clean      remove .venv and what the tools left behind"

demo: venv-demo
	@$(python) -m chronik_server demo $(ARGS)

test: venv-dev
	$(python) -m pytest -n 3 --dist worksteal -m "not slow and not s3 and not cluster and not soak" $(ARGS)

lint: venv-dev
	$(python) -m ruff check .
	$(python) -m ruff format --check .

types: venv-dev
	$(python) -m mypy

contracts: venv-dev
	$(python) .venv/bin/lint-imports --no-logo

check: lint types contracts test

bench: venv-demo
	@$(python) -m chronik_server bench $(ARGS)

venv-demo:
	@sh tools/venv.sh demo

venv-dev:
	@sh tools/venv.sh dev raft

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
