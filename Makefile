# Every recipe is a command a person could type. A virtual environment of the project's own, .venv,
# holds what requirements/*.txt lock; the stamps in it say what is installed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes
CRATES := --workspace --exclude insitu-pybridge
RUST := $(shell git ls-files --cached --others --exclude-standard '*.rs' '*Cargo.toml' Cargo.lock)

# The C face's library, and the names that programs link and run with it by.
CAPI := target/release/libinsitu_capi.so
ABI = $(shell sed -n 's/^pub const INSITU_ABI_VERSION: u32 = \(.*\);/\1/p' engine/capi/src/library.rs)
VERSION = $(shell sed -n '/^.workspace.package/,/^$$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
PREFIX ?= /usr/local

# The host, as rustc names it: with --target, build scripts and macros are not instrumented.
HOST = $(shell rustc --version --verbose | sed -n 's/^host: //p')

.PHONY: demo test test-rust test-loom test-deaths test-python torture fuzz miri asan asan-python tsan bench lint format docs install-capi clean

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

# What no test sees by its answers. These need the nightly toolchain:
# rustup toolchain install nightly --component miri,rust-src

# The pool's helpers outlive its tests; weak memory is not emulated for accesses of several widths.
miri:                                       ## undefined behaviour, where no shared memory is needed
	MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-strict-provenance" cargo +nightly miri test --locked --target-dir target/miri --package insitu-kernels --lib
	MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-strict-provenance -Zmiri-ignore-leaks" cargo +nightly miri test --locked --target-dir target/miri --package insitu-query --lib -- pool::tests::a_job pool::tests::every pool::tests::two
	MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-disable-weak-memory-emulation" cargo +nightly miri test --locked --target-dir target/miri --package insitu-region --lib -- access:: layout:: state:: roots:: nearest:: site:: masks_cut entries_are
	MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-strict-provenance -Zmiri-ignore-leaks" cargo +nightly miri test --locked --target-dir target/miri --package insitu-capi --lib -- slab:: args:: status::

# Left out: two tests that limit the address space, of which a sanitizer takes terabytes, one that
# limits memory, of which it takes several times as much, and programs that are linked with the C face,
# whose sanitizer they would have to load first.
asan:                                       ## accesses outside, and after the end, of what was allocated
	RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=0 cargo +nightly test --locked --target $(HOST) --target-dir target/asan $(CRATES) --lib --tests -- --skip a_limit_of_address_space --skip damaged_regions_do_no_harm --skip a_control_group_is_filled --skip a_program_in_c --skip the_header_stands --skip the_library_exports

# The interpreter is not instrumented: the sanitizer is loaded before it, and its memory comes from
# malloc, which is watched. Tests die of signals on purpose. Left out: the stubs, which are read beside
# the package, and a test that measures memory, of which the sanitizer takes its own.
asan-python: $(VENV)/test $(VENV)/package   ## the same under Python's tests
	RUSTFLAGS=-Zsanitizer=address cargo +nightly build --locked --target $(HOST) --target-dir target/asan --config profile.dev.package.insitu-kernels.opt-level=0 --package insitu-pybridge
	rm -rf target/asan/python && mkdir target/asan/python && cp -R pybridge/python/insitu target/asan/python
	cp target/asan/$(HOST)/debug/lib_native.so target/asan/python/insitu/_native.abi3.so
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:handle_segv=0:handle_sigbus=0 PYTHONPATH=$(CURDIR)/target/asan/python $(BIN)/pytest tests --deselect tests/test_stubs.py --deselect tests/test_update_memory.py

# Of system calls made without libc the sanitizer knows nothing.
tsan:                                       ## races between the threads of a process
	RUSTFLAGS="-Zsanitizer=thread --cfg rustix_use_libc" TSAN_OPTIONS=die_after_fork=0 cargo +nightly test --locked -Zbuild-std --target $(HOST) --target-dir target/tsan --package insitu-region --package insitu-query --package insitu --package insitu-capi --lib --tests -- --skip a_limit_of_address_space --skip damaged_regions_do_no_harm --skip a_control_group_is_filled --skip a_program_in_c --skip the_header_stands --skip the_library_exports

test-python: $(VENV)/test $(VENV)/package $(CAPI)
	$(BIN)/pytest tests --numprocesses auto --maxprocesses 4

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

install-capi: $(CAPI)                       ## the C face: header, shared library, pkg-config; PREFIX=/usr/local DESTDIR=
	install -d $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/lib/pkgconfig
	install -m 644 include/insitu.h $(DESTDIR)$(PREFIX)/include
	install -m 755 $(CAPI) $(DESTDIR)$(PREFIX)/lib/libinsitu.so.$(ABI)
	ln -sf libinsitu.so.$(ABI) $(DESTDIR)$(PREFIX)/lib/libinsitu.so
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' engine/capi/insitu.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/insitu.pc

$(CAPI): $(RUST)
	cargo build --locked --release --package insitu-capi --target-dir target
	test -s $@ && touch $@

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
