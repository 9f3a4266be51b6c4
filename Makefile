# Every target sets up what it needs: a virtual environment in .venv, made once a change of setup.py.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_QUIETLY := -qq --disable-pip-version-check --no-warn-script-location
READY := $(VENV)/.ready
# How many tests at a time: one for each core. WORKERS=0 runs them in one process.
WORKERS ?= $(shell nproc)
AT_ONCE = -n $(WORKERS) --dist worksteal

.PHONY: demo test test-long interop lint format bench bench-levers sim man setup venv clean

setup: $(READY)

$(READY): setup.py pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(MAKE) --no-print-directory venv
	@$(BIN)/python -m pip install $(PIP_QUIETLY) --upgrade pip setuptools
	@$(BIN)/python -m pip install $(PIP_QUIETLY) -e '.[test,bench]'
	@touch $(READY)

# Some distributions ship Python without ensurepip: virtualenv serves as well, and pip can bring it.
venv:
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m virtualenv -q $(VENV) 2>/dev/null || { \
	  rm -rf $(VENV) && \
	  $(PYTHON) -m pip install $(PIP_QUIETLY) --target $(VENV).bootstrap virtualenv && \
	  PYTHONPATH=$(VENV).bootstrap $(PYTHON) -m virtualenv -q $(VENV) && \
	  rm -rf $(VENV).bootstrap; }

demo: $(READY)
	@$(BIN)/python -m bench.demo

test: $(READY)
	@$(BIN)/python -m pytest $(AT_ONCE) -m 'not slow'

test-long: $(READY)
	@$(BIN)/python -m pytest -m slow --timeout 900 --ignore tests/interop

# Other people's clients; prints who can do what. What is not installed is skipped (CI=true: fails).
interop: $(READY)
	@$(BIN)/python -m pytest tests/interop

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY)
	@$(BIN)/python -m bench

# What each optimisation is worth, with it and without it in turns. About ten minutes.
bench-levers: $(READY)
	@$(BIN)/python -m bench --write levers

# Manual pages for man(1), in build/man.
man: $(READY)
	@$(BIN)/python packaging/man.py build/man

# Swarms of real cores under a virtual clock, each with three seeds: docs/SIMULATION.md with its pictures.
sim: $(READY)
	@$(BIN)/python -m bench.sim --seeds 3 --write

# Ten thousand of them: a quarter of an hour and some gigabytes. The rest of the page stays as it is.
sim-large: $(READY)
	@$(BIN)/python -m bench.sim --write distribute-10000

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
