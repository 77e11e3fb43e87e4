# Two commands do all set-up: `make demo` and `make test`. Needs Python >= 3.11 and the package index.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
TESTS = tests --ignore=tests/e2e
WORKERS ?= auto
WHEELS ?= wheels
ARCH ?= $(shell uname -m)

.PHONY: install-units help demo test fast fmt lint types deflate e2e bench check pythons wheels codec dist man

help:
	@echo "make demo     sets up, then shows the whole road on images made here"
	@echo "make test     sets up, then runs the tests"
	@echo "make wheels   all that an offline host needs to install this, in $(WHEELS)/ (docs/install.md)"
	@echo "make codec    the codec for gzip layers as a wheel in $(WHEELS)/, for ARCH=aarch64 too (transfer kit --wheels)"
	@echo "make fast     the contracts and the modules, in seconds; make test T=tests/unit/test_sums.py one file"
	@echo "make dist     source and wheel, tried; make man: man pages; make fmt: format"
	@echo "make check    what CI runs: lint types deflate test e2e demo; make pythons: the tests on every other Python here"
	@echo "make deflate  the codec for gzip layers: its tests (needs cargo)"

$(BIN)/transfer: pyproject.toml
	@echo "setting up $(VENV): about a minute, 60 MB ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e .
	touch $@

# The codec for gzip layers is in Rust. Where it cannot be built everything else works, and gzip layers are held as they are.
$(VENV)/codec: $(BIN)/transfer $(wildcard deflate/*.toml deflate/*.lock deflate/*/*.toml deflate/*/src/*.rs deflate/*/src/*/*.rs)
	@if ! command -v cargo >/dev/null; then echo "no cargo here: gzip layers are held as they are, the rest works"; \
	elif echo "building the codec for gzip layers: about a minute ..." && \
		rm -f $(VENV)/wheels/*.whl && \
		$(BIN)/pip wheel -q --disable-pip-version-check --no-deps -w $(VENV)/wheels ./deflate/python 2>$(VENV)/codec.log && \
		$(BIN)/pip install -q --disable-pip-version-check --force-reinstall --no-deps $(VENV)/wheels/*.whl 2>>$(VENV)/codec.log; then :; \
	else echo "the codec for gzip layers cannot be built here ($(VENV)/codec.log): they are held as they are, the rest works"; fi
	@touch $@

$(VENV)/developer: $(BIN)/transfer
	@echo "setting up what the tests need: about a minute, 120 MB ..."
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(BIN)/transfer $(VENV)/codec
	$(BIN)/transfer demo

test: $(VENV)/developer $(VENV)/codec
	$(BIN)/python -m pytest -n $(WORKERS) --durations=10 $(if $(T),$(T),$(TESTS))

# A loop of seconds: the contracts and what needs no command.
fast: $(VENV)/developer $(VENV)/codec
	$(BIN)/python -m pytest -n $(WORKERS) tests/conformance tests/module

fmt: $(VENV)/developer
	$(BIN)/ruff check -q --fix transfer tests benchmarks tools
	$(BIN)/ruff format -q transfer tests benchmarks tools

lint: $(VENV)/developer
	$(BIN)/ruff format --check transfer tests benchmarks tools
	$(BIN)/ruff check transfer tests benchmarks tools
	$(BIN)/lint-imports

types: $(VENV)/developer
	$(BIN)/mypy transfer tests benchmarks tools

# The codec's own tests; its golden records also on arm64, under emulation, where qemu and the target are.
ARM = aarch64-unknown-linux-musl
deflate:
	@if ! command -v cargo >/dev/null; then echo "no cargo here: the codec is not tested"; else \
	cd deflate && cargo fmt --all --check && \
	cargo clippy -q -p deflate-recipe --all-targets -- -D warnings && \
	cargo test -q -p deflate-recipe && \
	if command -v qemu-aarch64 >/dev/null && rustup target list --installed | grep -q $(ARM); then \
		CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUNNER=qemu-aarch64 \
		cargo test -q -p deflate-recipe --target $(ARM) golden; \
	else echo "no qemu-aarch64 or no $(ARM) here: the golden records are tested on this processor alone"; fi; fi

e2e: $(VENV)/developer $(VENV)/codec
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --durations=10 tests/e2e

# Figures, never a gate. Without CORPUS (docs/architecture.md) a small corpus is made here.
bench: $(VENV)/developer
	$(BIN)/python -m benchmarks.run $(BENCH)

# Everything is tried here; `make test` alone takes a sample of what can go wrong at every step.
check: export TRANSFER_THOROUGH = 1
check: lint types deflate test e2e demo

# The tests that take no engine, on every other Python of this machine from 3.11 on.
pythons:
	sh tests/pythons.sh

# What is published: source and wheel; the wheel runs the demo in a bare environment.
dist: $(VENV)/developer
	rm -rf dist
	$(BIN)/python -m build -q --outdir dist .
	rm -rf $(VENV)-dist && $(PYTHON) -m venv $(VENV)-dist
	$(VENV)-dist/bin/pip install -q --disable-pip-version-check dist/*.whl
	cd dist && ../$(VENV)-dist/bin/transfer demo --quiet && ../$(VENV)-dist/bin/transfer --version
	rm -rf $(VENV)-dist
	@ls -l dist

# Man pages of all commands, made from their options: man/*.1
man: $(VENV)/developer
	$(BIN)/python tools/manpages.py man

# This program and all it needs, for each Python it runs on: what `pip install --no-index --find-links` takes on a host without a network.
wheels: $(VENV)/developer
	rm -f $(WHEELS)/*.whl
	$(BIN)/pip wheel -q --disable-pip-version-check --no-deps -w $(WHEELS) .
	if command -v cargo >/dev/null; then $(BIN)/pip wheel -q --disable-pip-version-check --no-deps -w $(WHEELS) ./deflate/python; \
	else echo "no cargo here: the wheels are without the codec for gzip layers"; fi
	$(BIN)/python tools/wheels.py $(WHEELS) $(ARCH) 3.11 3.12 3.13 3.14
	cp docs/install.md $(WHEELS)/INSTALL.md
	@echo "$(WHEELS): carry it to the offline host; INSTALL.md in it says what to type there"

# The codec as a wheel for another kind of machine. zig is its linker, and brings that machine's C library.
CODEC_TARGET = $(ARCH)-unknown-linux-gnu
codec: $(VENV)/developer
	$(BIN)/pip install -q --disable-pip-version-check 'maturin>=1.7,<2' ziglang
	rustup -q target add $(CODEC_TARGET)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/maturin build -q --release --zig --target $(CODEC_TARGET) --compatibility manylinux2014 \
		-m deflate/python/Cargo.toml -o $(WHEELS)

# systemd units, users, folders, the udev rule and sshd's drop-in: make install-units PREFIX=/usr DESTDIR=
PREFIX ?= /usr
DESTDIR ?=
UNITS = $(DESTDIR)$(PREFIX)/lib
install-units:
	install -d $(UNITS)/systemd/system $(UNITS)/sysusers.d $(UNITS)/tmpfiles.d $(UNITS)/udev/rules.d \
		$(DESTDIR)/etc/ssh/sshd_config.d $(DESTDIR)$(PREFIX)/share/doc/transfer/examples
	for unit in systemd/*.service systemd/*.timer systemd/*.path systemd/*.socket; do \
		sed 's|@PREFIX@|$(PREFIX)|g' $$unit > $(UNITS)/systemd/system/$$(basename $$unit) || exit 1; done
	install -m 644 systemd/sysusers.d/transfer.conf $(UNITS)/sysusers.d/
	install -m 644 systemd/tmpfiles.d/transfer.conf systemd/tmpfiles.d/transfer-store.conf $(UNITS)/tmpfiles.d/
	install -m 644 systemd/udev/90-transfer.rules $(UNITS)/udev/rules.d/
	sed 's|@PREFIX@|$(PREFIX)|g' systemd/sshd_config.d/transfer.conf > $(DESTDIR)/etc/ssh/sshd_config.d/transfer.conf
	install -m 644 systemd/examples/plant-7.toml $(DESTDIR)$(PREFIX)/share/doc/transfer/examples/
