# make offline runs the demo job, make test runs the tests; each sets up .venv first, once per change of the dependencies.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The newest Python that really runs; another one: make setup PYTHON=/path/to/python3
PYTHON = $(shell for name in python3.14 python3.13 python3.12 python3.11 python3; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$name" && break; done)

.PHONY: help setup offline serve test check bench

help:
	@echo 'make setup     make $(VENV) and install everything, at the versions of constraints.txt'
	@echo 'make offline   run the demo job: jobs/configs/demo.yaml'
	@echo 'make serve     serve the demo model: jobs/configs/serve-demo.yaml'
	@echo 'make test      all tests but those that need a GPU'
	@echo 'make check     lint, format, types, import rules, code limits'
	@echo 'make bench     the engine against transformers.generate'

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@python='$(PYTHON)'; \
	test -n "$$python" || { echo 'No Python 3.11 or newer found. Install one, or name one: make setup PYTHON=/path/to/python3' >&2; exit 1; }; \
	"$$python" -c 'import ensurepip, venv' || { echo "$$python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	test -x $(BIN)/pip || "$$python" -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[test,dev]'
	@touch $@

offline: setup
	$(BIN)/python jobs/offline.py --config jobs/configs/demo.yaml

serve: setup
	$(BIN)/python jobs/serve.py --config jobs/configs/serve-demo.yaml

# The quick tests go first: what they find, the slow ones need not wait for. Compiled code does not check its
# indices, so what uses it runs a second time with checks.
test: setup
	$(BIN)/python -m pytest
	NUMBA_BOUNDSCHECK=1 $(BIN)/python -m pytest -q tests/drafting tests/engine tests/rows
	$(BIN)/python -m pytest -m '(ray or slow or browser) and not gpu' --durations=10

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py
	$(BIN)/python -m checks.code_limits

bench: setup
	for workload in ragged equal single; do $(BIN)/python -m benchmarks.bench_engine --workload $$workload || exit 1; done
