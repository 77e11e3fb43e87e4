# Two commands do all set-up: `make demo` and `make test`. Needs Python >= 3.11 and the package index.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
TESTS = tests --ignore=tests/e2e

.PHONY: demo test lint types e2e bench check

$(BIN)/transfer: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(BIN)/transfer
	$(BIN)/transfer demo

test: $(BIN)/transfer
	$(BIN)/python -m pytest $(TESTS)

lint: $(BIN)/transfer
	$(BIN)/ruff format --check transfer tests benchmarks
	$(BIN)/ruff check transfer tests benchmarks
	$(BIN)/lint-imports

types: $(BIN)/transfer
	$(BIN)/mypy transfer tests benchmarks

e2e: $(BIN)/transfer
	$(BIN)/python -m pytest tests/e2e

# Figures, never a gate. Without CORPUS (docs/architecture.md) a small corpus is made here.
bench: $(BIN)/transfer
	$(BIN)/python -m benchmarks.run $(BENCH)

check: lint types test e2e demo
