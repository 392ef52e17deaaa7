# The two commands a clone needs: `make demo` and `make test`. Both need root and Rust, and install
# what else is missing with apt-get.

# `su` leaves these out on Debian, and nft is there.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.PHONY: build demo test test-vm test-package bench package-files deb rpm deb-kubernetes rpm-kubernetes

build:
	scripts/install-tools.sh build
	cargo build --release --locked

demo: build
	scripts/install-tools.sh demo
	scripts/demo.sh

# What packages are made of: the program, units, manual pages, completions, schema.
package-files:
	scripts/install-tools.sh build
	packaging/build.sh files

deb:
	scripts/install-tools.sh deb
	packaging/build.sh deb

rpm:
	scripts/install-tools.sh rpm
	packaging/build.sh rpm

# The Kubernetes adapter's.
deb-kubernetes rpm-kubernetes: %-kubernetes:
	scripts/install-tools.sh $*
	packaging/build.sh kubernetes-$*

# make test-package [SUITE=trixie]
test-package:
	scripts/install-tools.sh test
	$(if $(SUITE),SUITE='$(SUITE)' )tests/package/run.sh

test:
	scripts/install-tools.sh test
	scripts/test.sh

# make test-vm [KERNEL=6.12] [FULL=1 | TEST=text in the name of a test]
test-vm:
	scripts/install-tools.sh test
	tests/vm/run.sh $(if $(KERNEL),--kernel '$(KERNEL)') $(if $(FULL),--full) $(if $(TEST),--test '$(TEST)')

bench:
	scripts/install-tools.sh test
	cargo bench --locked --bench service
	scripts/package-size.sh
	cargo bench --locked --bench control_plane
	cargo bench --locked --bench programs
	cargo bench --locked --bench events
	cargo bench --locked --bench datapath
	scripts/bench-wireguard.sh
	cargo build --release --locked
	cargo bench --locked --package ciliate-kubernetes --bench adapter
