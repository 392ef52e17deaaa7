# The two commands a clone needs: `make demo` and `make test`. Both need root and Rust, and install
# what else is missing with apt-get.

# `su` leaves these out on Debian, and nft is there.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.PHONY: build demo test test-vm bench

build:
	scripts/install-tools.sh build
	cargo build --release --locked

demo: build
	scripts/install-tools.sh demo
	scripts/demo.sh

test:
	scripts/install-tools.sh test
	scripts/test.sh

# make test-vm [KERNEL=6.12] [FULL=1 | TEST=text in the name of a test]
test-vm:
	scripts/install-tools.sh test
	tests/vm/run.sh $(if $(KERNEL),--kernel '$(KERNEL)') $(if $(FULL),--full) $(if $(TEST),--test '$(TEST)')

bench:
	scripts/install-tools.sh test
	cargo bench --locked --bench control_plane
	cargo bench --locked --bench programs
	cargo bench --locked --bench events
	cargo bench --locked --bench datapath
