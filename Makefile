# make run     start the platform on this machine and watch the demonstration (ARGS=--exit ends after the summary)
# make test    the whole test suite
# make check   format, lint, types, import contracts
# make bench   speed beside peers: NAME=features or serving, ARGS='--only sweep --times 1'; peers get environments of their
#              own. features: the first run makes 6 GB of data in .bench, and a run needs 10 GB of temporary files.
#              serving: needs two cores and of Debian: apt-get install wrk nginx-light python3-venv gcc libc6-dev
# make example the taxi example on real data (CSV=path/to/chicago_taxi.csv)
# Each sets itself up: it needs Python 3.11 or newer and a package index.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
CSV ?= ../shared/data/chicago_taxi.csv
ARGS ?=

NAME ?= features

.PHONY: run test check format bench example lock screenshot clean

run: $(VENV)/.run
	$(BIN)/flyball demo $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

example: $(VENV)/.run
	$(BIN)/python examples/taxi/run.py $(CSV) $(ARGS)

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(NAME) $(ARGS)

# Locks are made with uv; installing needs only pip.
lock:
	uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-emit-index-url pyproject.toml \
		--extra lightgbm -o requirements/run.txt
	uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-emit-index-url pyproject.toml \
		--all-extras --group dev -o requirements/dev.txt

$(VENV)/.made:
	$(PYTHON) scripts/preflight.py
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.run: requirements/run.txt pyproject.toml $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	$(BIN)/python -m flyball.features.warm
	$(BIN)/python -c 'from flyball.serving import trees; trees.warm()'
	touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml $(VENV)/.made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) .flyball .mypy_cache .ruff_cache .hypothesis .import_linter_cache .bench
