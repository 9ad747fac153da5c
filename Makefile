# The two commands that a fresh Debian 12 machine with a Rust toolchain needs, as root:
#
#   make demo    what Deputy is for, as a short story with a closing table
#   make test    every test
#
# Both install what they need from Debian's packages, and say so (tests/packages.sh).

CARGO ?= cargo

.PHONY: help demo test lint bench soak build packages introspection deb test-container test-vm vm-shell container-shell

help:
	@echo 'make demo    what Deputy is for: two laboratories, one portal, in a sandbox'
	@echo 'make test    every test: lints, unit tests, and the whole inside the sandbox'
	@echo 'make bench   launches against references of the same run (also where systemd booted), memory,'
	@echo '             a million accounts, refusals, the name service, logins by PAM, files, submissions to Slurm'
	@echo '             (BENCH="launches memory" names sections)'
	@echo 'make soak    the storms of `make test` at full length'
	@echo 'make lint    formatting, clippy, house rules'
	@echo 'make deb     the Debian packages, in target/deb'
	@echo 'make test-container, make test-vm     the packages on whole machines (part of make test)'
	@echo 'make container-shell, make vm-shell   a shell in such a machine'

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
	@BENCH='$(BENCH)' benches/run.sh

soak: packages
	@DEPUTY_SOAK=1 tests/all.sh

# -d: the Rust toolchain is not one of Debian's packages. Everything else of Build-Depends is in tests/packages.sh.
deb: packages
	@mkdir -p target/deb
	@rm -f target/deb/*.deb
	dpkg-buildpackage --build=binary --no-sign -d \
	    --buildinfo-option=-utarget/deb --buildinfo-option=-Otarget/deb/deputy.buildinfo \
	    --changes-option=-utarget/deb --changes-option=-Otarget/deb/deputy.changes
	@touch target/deb/built

test-container: packages
	@tests/machine/container.sh

test-vm: packages
	@tests/machine/vm.sh

container-shell: packages
	@tests/machine/container.sh shell

vm-shell: packages
	@tests/machine/vm.sh shell
