# Every target sets up what it needs in .venv and works alone, twice in a row, and in any order.
# PYTHON=python3.12 chooses the interpreter that .venv is made from.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
DEMO := $(VENV)/share/minitrain-demo
SOURCES := pyproject.toml constraints.txt requirements-demo.txt

.DEFAULT_GOAL := help
.PHONY: help setup train test faults lint benchmark clean

help:  ## list the targets
	@awk -F ':.*##' '/^[a-z]+:.*##/ { printf "make %-11s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.ready  ## make .venv with minitrain and the embedded demo data

train: $(VENV)/.ready  ## fine-tune the embedded model on the embedded movie reviews, into runs/demo
	$(BIN)/python scripts/train.py --model demo --dataset demo --num_train_epochs 2 \
		--output_dir runs/demo --overwrite_output_dir

test: $(VENV)/.ready-test  ## run the tests, which compare with transformers and scikit-learn
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --cov --cov-report=term:skip-covered

# KILLS=200 kills the training run that often, each time at another moment.
KILLS ?= 15
# MUTATIONS=4000 spoils that many files of each of five kinds.
MUTATIONS ?= 300

faults: $(VENV)/.ready-test  ## kill, damage, fill up and cut off what can be, and look what is lost
	MINITRAIN_KILLS=$(KILLS) MINITRAIN_MUTATIONS=$(MUTATIONS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m fault

lint: $(VENV)/.ready-test  ## run ruff and the type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# DATASET="--dataset nyu-mll/glue --subset mrpc" measures on other data than the embedded reviews.
DATASET ?= --dataset demo
MACHINE := $(shell uname -m)-$(shell $(PYTHON) -c 'import os; print(os.cpu_count())')cores

benchmark: $(VENV)/.ready-test  ## measure speed beside transformers, alone on the machine, into benchmarks/
	$(BIN)/python scripts/benchmark.py --model demo $(DATASET) --json benchmarks/$(MACHINE).json

clean:  ## remove .venv and what tools left behind; runs/ stays
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

# A stamp is touched last: an installation that was interrupted is done again.
$(VENV)/.ready: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "minitrain needs Python 3.10 or later: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	rm -rf $(DEMO)
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes --target $(DEMO) --requirement requirements-demo.txt
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	@$(BIN)/python -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "the tests compare with transformers 5.23, which needs Python 3.11: make clean, then make PYTHON=python3.12 test")'
	$(PIP) --editable '.[test]'
	touch $@
