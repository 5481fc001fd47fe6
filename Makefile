# One command for each thing that is done here. `make` alone lists them.
# Needs Rust, Python 3.10 or newer and make. All else is installed into .venv, once.

PYTHON ?= python3

VENV := .venv
STAMPS := $(VENV)/stamps
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PY := $(BIN)/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
CARGO := cargo
# Tests beside each other, those of a file in one process.
BESIDE := --numprocesses auto --maxprocesses 4 --dist loadfile

RUST := Cargo.toml $(wildcard Cargo.lock) $(shell find rust -name target -prune -o -name '*.rs' -print -o -name Cargo.toml -print)
PACKAGE := pyproject.toml $(shell find python -name '*.py' -o -name '*.pyi' -o -name py.typed -o -path '*/data/*' -type f)

# What the user has set for other work must not change what is built and tested here.
unexport PYTHONPATH PYTHONHOME PYTHONUNBUFFERED PYTHONWARNINGS PYTEST_ADDOPTS MOEFPS_SIMD MOEFPS_TRACEBACK NO_COLOR
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PYO3_PYTHON := $(CURDIR)/$(PY)
# Messages and files are read as UTF-8 in every locale.
export PYTHONUTF8 := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:
.PHONY: help setup build test lint fmt bench docs demo clean lock \
	lint-rust lint-python test-rust test-python test-wheel

help: ## list the commands
	@echo "usage: make COMMAND [PYTHON=python3.12]"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  %-10s%s\n' "$$name" "$$text"; done

demo: $(STAMPS)/extension ## build moefps and run it on captured data that come with it
	@$(BIN)/moefps demo

setup: $(STAMPS)/dev $(STAMPS)/extension ## install all that development needs into .venv, and build moefps there

build: $(STAMPS)/extension $(STAMPS)/wheel ## build the Rust module in place, and a wheel in dist/

test: lint test-rust test-python test-wheel ## every check: lints, types, Rust, Python, README, installed wheel

lint: lint-rust lint-python ## formatting, clippy, ruff, mypy, stubs, import layers

fmt: $(STAMPS)/test ## format Rust and Python
	$(CARGO) fmt --all
	$(BIN)/ruff check --quiet --select I --fix .
	$(BIN)/ruff format --quiet .

bench: $(STAMPS)/bench $(STAMPS)/extension ## time moefps against other libraries, into docs/benchmarks.md
	$(CARGO) bench --locked --package moefps-core
	$(PY) -m benches.python

docs: $(STAMPS)/docs $(STAMPS)/extension ## build the documentation into docs/_build/html
	$(PY) -m sphinx --fail-on-warning --keep-going --quiet -b html -d docs/_build/doctrees docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean: ## remove what the other commands have made
	rm -rf $(VENV) target dist docs/_build python/moefps/_core.*.so python/moefps/_core.*.pyd

lock: ## pin requirements/*.in anew (needs uv)
	requirements/lock.sh --upgrade

# Steps of `make test`, also good alone.

lint-rust: $(STAMPS)/venv
	$(CARGO) fmt --all --check
	$(CARGO) clippy --quiet --locked --workspace --all-targets -- --deny warnings

lint-python: $(STAMPS)/test $(STAMPS)/extension
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/stubtest moefps._core --mypy-config-file pyproject.toml --allowlist tests/stubtest.txt
	$(BIN)/lint-imports --no-cache --no-logo

test-rust:
	$(CARGO) test --quiet --locked --workspace

test-python: $(STAMPS)/test $(STAMPS)/tokenizers $(STAMPS)/extension
	$(BIN)/pytest $(BESIDE) -m "not alone"
	$(BIN)/pytest -m alone

test-wheel: $(STAMPS)/test $(STAMPS)/wheel
	$(PY) tests/installed.py "$$(cat $(STAMPS)/wheel)"

# What the commands need. A stamp is newer than all that it was made from.

$(STAMPS)/venv:
	@command -v $(CARGO) > /dev/null || \
		{ echo "error: cargo was not found: install Rust 1.95 or newer" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: $(PYTHON) is not Python 3.10 or newer: name one with make PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/build: requirements/build.txt requirements/run.txt | $(STAMPS)/venv
	$(PIP) -r requirements/build.txt -r requirements/run.txt
	@touch $@

$(STAMPS)/test $(STAMPS)/docs $(STAMPS)/bench $(STAMPS)/dev: $(STAMPS)/%: requirements/%.txt | $(STAMPS)/venv
	$(PIP) -r $<
	@touch $@

$(STAMPS)/tokenizers: requirements/tokenizers.txt | $(STAMPS)/venv
	$(PIP) --no-deps -r $<
	@touch $@

# The .py files are used where they are, so only the compiled part and the metadata are installed again.
$(STAMPS)/extension: $(RUST) pyproject.toml $(STAMPS)/build
	PIP_QUIET=1 $(BIN)/maturin develop --release
	@touch $@

$(STAMPS)/wheel: $(RUST) $(PACKAGE) README.md LICENSE $(STAMPS)/build
	@rm -rf dist/local
	$(BIN)/maturin build --release --out dist/local
	@ls dist/local/*.whl > $@
