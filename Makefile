# The two commands that a fresh Debian 12 machine with a Rust toolchain needs, as root:
#
#   make demo    what Deputy is for, as a short story with a closing table
#   make test    every test
#
# Both install what they need from Debian's packages, and say so (tests/packages.sh).

CARGO ?= cargo

.PHONY: help demo test lint bench soak build packages introspection

help:
	@echo 'make demo    what Deputy is for: two laboratories, one portal, in a sandbox'
	@echo 'make test    every test: lints, unit tests, and the whole inside the sandbox'
	@echo 'make bench   speed, as ratios against references of the same run'
	@echo 'make soak    the storms of `make test` at full length'
	@echo 'make lint    formatting, clippy, house rules'

packages:
	@tests/packages.sh

build: packages
	$(CARGO) build --locked --workspace

demo: packages
	@$(CARGO) build --locked --quiet -p deputyd -p deputyctl -p deputy-launcher -p deputy-sandbox
	@demo/run.sh

test: packages
	@tests/all.sh

lint: packages
	@tests/lint.sh

bench: packages
	@benches/run.sh

soak: packages
	@DEPUTY_SOAK=1 tests/all.sh
