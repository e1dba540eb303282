# Every target installs what it needs into .venv; run them in any order, any number of times.
# PYTHON=python3.12 chooses the interpreter of .venv.

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

setup: $(VENV)/.ready  ## install minitrain and the demo data into .venv

train: $(VENV)/.ready  ## fine-tune the demo model on movie reviews, into runs/demo
	$(BIN)/python scripts/train.py --model demo --dataset demo --num_train_epochs 2 \
		--output_dir runs/demo --overwrite_output_dir

test: $(VENV)/.ready-test  ## run the tests, which compare with transformers and scikit-learn
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term:skip-covered

# KILLS=200 kills the training run 200 times, at random moments.
KILLS ?= 15
# MUTATIONS=4000 corrupts that many files of each of five kinds.
MUTATIONS ?= 300

faults: $(VENV)/.ready-test  ## inject faults (kill, corrupt, fill the disk, disconnect) and check the outcome
	MINITRAIN_KILLS=$(KILLS) MINITRAIN_MUTATIONS=$(MUTATIONS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m fault

lint: $(VENV)/.ready-test  ## run ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# DATASET="--dataset nyu-mll/glue --subset mrpc" measures on MRPC.
DATASET ?= --dataset demo
MACHINE := $(shell uname -m)-$(shell $(PYTHON) -c 'import os; print(os.cpu_count())')cores

benchmark: $(VENV)/.ready-test  ## compare speed with transformers on an idle machine, into benchmarks/
	$(BIN)/python scripts/benchmark.py --model demo $(DATASET) --json benchmarks/$(MACHINE).json

clean:  ## remove .venv and tool caches; keep runs/
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

# Touch the stamp last, so that an interrupted installation is repeated.
$(VENV)/.ready: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "minitrain needs Python 3.10 or later: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[report]'
	rm -rf $(DEMO)
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes --target $(DEMO) --requirement requirements-demo.txt
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	@$(BIN)/python -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "the tests compare with transformers 5.23, which needs Python 3.11: make clean, then make PYTHON=python3.12 test")'
	$(PIP) --editable '.[test]'
	touch $@
