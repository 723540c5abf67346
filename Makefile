# make demo    a real three-member etcd behind a scratch node: backup, verify, disaster, restore, rollback
# make test    everything except the long runs: on two cores 27 minutes once built, 40 from nothing
# make test-node   restore on a real kubelet and container runtime: root, about 8 minutes
# make test-browser   the pages of diff and list in a real browser: chromium, half a minute
# make test-stores   the suite of stores on Ceph's gateway too, with versions and locks: root, 600 MB, a few minutes
# make fuzz    every fuzz target under libFuzzer for an hour
# make soak    fuzzers, crash campaigns and the restore matrix in full: hours
# make bench   compare with etcdctl, etcdutl, sha256sum, tar and rclone on this machine
# make bench-parsers   measure each parser by itself
# make docs    regenerate man/ and completions/
# make build   an optimised binary for this machine: target/release/etcd-dr
# make release the portable binary, tarball, .deb, .rpm and SBOM, checked: target/dist (docs/release.md)
# make reproducible   build what make release made again, elsewhere, and compare
# make deny    check licences, bans and sources of every dependency with cargo-deny; part of make test

SHELL := /bin/bash
CARGO ?= cargo
FEATURES := --features faults

.PHONY: all demo test test-node test-browser test-stores lint unit suites fetched fuzz fuzz-smoke soak bench bench-parsers docs deps etcd node build release reproducible deny screenshots clean

all: build

deps:
	@scripts/deps.sh

etcd:
	@scripts/fetch-etcd.sh

# Builds a kubelet once, from Debian's source package.
node:
	@scripts/fetch-node.sh

build: deps
	$(CARGO) build --release --locked

release: deps
	@scripts/deps.sh --release
	scripts/release.sh target/dist
	scripts/check-portable.sh "$$(scripts/portable-build.sh)"
	scripts/check-packages.sh target/dist

reproducible:
	scripts/check-reproducible.sh target/dist

deny: deps
	@nice scripts/deny.sh

demo: deps etcd
	$(CARGO) build --locked --bin etcd-dr --example demo_cluster
	@ETCD_DR=$${ETCD_DR:-target/debug/etcd-dr} scripts/demo.sh

# What is downloaded comes while the compiler works.
test: deps
	$(MAKE) -j2 fetched lint deny
	$(MAKE) unit suites fuzz-smoke

# What the suites need and Cargo does not bring: real servers and validators.
fetched: deps etcd
	-@scripts/deps.sh --tests
	@scripts/fetch-schemas.sh
	@nice scripts/fetch-servers.sh

lint: deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets $(FEATURES) -- -D warnings

unit: deps
	$(CARGO) test --locked $(FEATURES) --lib --bins
	$(CARGO) test --locked $(FEATURES) --doc

# Tests wait for servers, disks and kubelets most of the time: run four at once on two cores.
suites: fetched
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-4} $(CARGO) test --locked $(FEATURES) --test '*' --no-fail-fast

# One node after another: each is a kubelet, a container runtime and 17 containers.
test-node: deps etcd node
	ETCD_DR_REAL_NODE=1 $(CARGO) test --locked $(FEATURES) --test real_node --test inside -- --nocapture --test-threads=1

# Debian's package chromium, which is large.
test-browser: deps
	ETCD_DR_BROWSER=1 $(CARGO) test --locked $(FEATURES) --test inside browser:: -- --nocapture

test-stores: deps
	-@scripts/deps.sh --tests
	@scripts/fetch-servers.sh --more
	ETCD_DR_STORES=1 ETCD_DR_EVERY=1 $(CARGO) test --locked $(FEATURES) --test store -- --nocapture --test-threads=1

# Runs every fuzz target for a few seconds on the stable compiler; FUZZ_SECONDS=600 for longer.
fuzz-smoke: deps
	FUZZ_SECONDS=$${FUZZ_SECONDS:-2} $(CARGO) test --locked --manifest-path fuzz/Cargo.toml --target-dir target -- --nocapture

# Under libFuzzer, guided by coverage, FUZZ_SECONDS each (an hour): FUZZ="yaml journal" selects some.
fuzz: deps
	scripts/fuzz.sh $(FUZZ)

# In full, not in samples: hours. FUZZ_SECONDS, SOAK_ROUNDS; SOAK="fuzz power" selects some of it.
soak: deps etcd
	nice scripts/soak.py $(SOAK)

# Measures each parser by itself (criterion).
bench-parsers: deps
	$(CARGO) bench --locked --bench parsers

# BENCH="--write": the tables of docs/performance.md and docs/performance-tables.md are rewritten.
bench: deps etcd build
	$(CARGO) build --release --locked --example make_store
	@scripts/bench.sh $(BENCH)

docs: deps
	@scripts/generate-docs.sh

# Draws docs/images from what a real terminal shows.
screenshots: deps etcd
	@scripts/deps.sh --tests
	$(CARGO) build --locked --bin etcd-dr --example demo_cluster
	@scripts/screenshots.py

clean:
	$(CARGO) clean
