# Every recipe is a command a person could type. A virtual environment of the project's own, .venv,
# holds what requirements/*.txt lock; the stamps in it say what is installed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes
CRATES := --workspace --exclude insitu-pybridge
RUST := $(shell git ls-files --cached --others --exclude-standard '*.rs' '*Cargo.toml' Cargo.lock)

.PHONY: demo test test-rust test-loom test-deaths test-python torture fuzz bench lint format docs clean

demo: $(VENV)/demo $(VENV)/package          ## the main job on real data
	$(BIN)/python examples/flights.py

test: test-rust test-loom test-deaths test-python ## all tests, Rust and Python

test-rust:
	cargo test --locked $(CRATES)

test-loom:                                  ## the region's protocols, in every interleaving
	RUSTFLAGS="--cfg loom" CARGO_PROFILE_DEV_OPT_LEVEL=2 CARGO_PROFILE_DEV_DEBUG=0 cargo test --locked --package insitu-region --lib --target-dir target/loom loom_

test-deaths:                                ## processes killed at every point of every protocol, and at random
	cargo test --locked --package insitu-region --package insitu --features insitu/kill-points --test points --test torture

torture:                                    ## the same for long: KILLS=10000
	KILLS=$(or $(KILLS),10000) cargo test --locked --release --package insitu --features kill-points --test torture -- --nocapture

fuzz:                                       ## many damaged regions: IMAGES=20000 SEED=1
	IMAGES=$(or $(IMAGES),20000) cargo test --locked --release --package insitu --test fuzz -- --nocapture

test-python: $(VENV)/test $(VENV)/package
	$(BIN)/pytest tests

bench: $(VENV)/bench $(VENV)/package        ## against peers, then our own loops
	$(BIN)/python -m benches.versus
	cargo bench --locked --package insitu-benches

lint: $(VENV)/test $(VENV)/package          ## formatting and lints, as CI runs them
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --locked $(CRATES) --no-deps --quiet
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	cd pybridge && ../$(BIN)/python -m mypy.stubtest insitu

format:
	cargo fmt --all
	$(BIN)/ruff format .

docs:                                       ## the Rust reference, in target/doc
	cargo doc --locked $(CRATES) --no-deps

clean:
	rm -rf $(VENV) target

# The extension module, built with optimisation and installed into the environment.
$(VENV)/package: $(VENV)/build $(RUST) $(wildcard pybridge/pyproject.toml)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --quiet --release --locked --manifest-path pybridge/Cargo.toml
	touch $@

$(VENV)/%: requirements/%.txt | $(VENV)/python
	$(PIP) --requirement $<
	touch $@

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "insitu needs Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@
