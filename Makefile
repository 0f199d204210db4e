# You may begin with any target. The first target that you run makes .venv and installs the project into it.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: help setup study test test-slow test-nightly test-all lint types format docs bench chaos ui results clean

help:                       ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

study: $(VENV)/.installed   ## the whole study on digits; ARGS="--help" lists its options
	$(BIN)/python pipelines/full_study.py $(ARGS)

setup: $(VENV)/.installed   ## the environment in .venv, and nothing else

test: $(VENV)/.installed    ## unit tests, 5 to 9 minutes on two cores
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist worksteal $(ARGS)

test-slow: $(VENV)/.installed   ## real Ray clusters, kills, servers, a browser; two tests at a time, because they mostly wait
	$(BIN)/python -m pytest -m "slow and not nightly" -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-nightly: $(VENV)/.installed   ## tests that need the whole machine: Slurm, long chaos
	$(BIN)/python -m pytest -m nightly $(ARGS)

test-all: test test-slow test-nightly

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.installed
	$(BIN)/mypy uvb pipelines tune_spaces

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed    ## the documentation site into build/site; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.installed   ## speed, as ratios within one run, into results/speed/
	$(BIN)/python -m benchmarks.bench $(ARGS)

chaos: $(VENV)/.installed   ## kills, stops, full disks; the tables must equal those of an undisturbed study
	$(BIN)/python -m tests.end_to_end.chaos --record $(ARGS)

results: $(VENV)/.installed   ## copy a study without weights into results/, to commit it: make results STUDY=outputs/digits
	$(BIN)/python pipelines/keep.py $(STUDY)

ui: $(VENV)/.installed      ## MLflow at http://127.0.0.1:5000; another port: ARGS="--port 5001"
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --host 127.0.0.1 $(ARGS)

# Install torch first and alone. Then pip prefers a CPU build if the index offers one, and otherwise takes the CUDA build.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once; a few minutes)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@$(PYTHON) -m venv $(VENV)
	@echo "1 of 2: torch"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	@echo "2 of 2: Ray, MLflow and the rest"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[study,dev,docs]"
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
