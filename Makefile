# SPDX-License-Identifier: MIT OR Apache-2.0
# `make demo` shows the library at work, `make test` proves it; both do their own set-up. `make help` lists the rest.

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
DESTDIR ?=
SUITES ?= trixie sid
STORM_SECONDS ?= 300
ETCD_ROUNDS ?= 1000
ETCD_RELEASES ?= 3.5 3.6 3.7
CARGO ?= cargo
CC ?= cc
# cargo finds its cache without it, Go does not.
HOME ?= $(shell getent passwd $$(id -u) | cut -d : -f 6)
export HOME

BINDIR := $(PREFIX)/bin
MANDIR := $(PREFIX)/share/man/man1
MAN3DIR := $(PREFIX)/share/man/man3
BASH_COMPLETIONS := $(PREFIX)/share/bash-completion/completions
ZSH_COMPLETIONS := $(PREFIX)/share/zsh/site-functions
FISH_COMPLETIONS := $(PREFIX)/share/fish/vendor_completions.d
DOCDIR := $(PREFIX)/share/doc/lock_manager
DATADIR := $(PREFIX)/share/lock_manager
BUILT := $(or $(CARGO_TARGET_DIR),target)/release
# Where the tests and the demo install to: under the build directory, never into the system.
STAGE := $(abspath $(or $(CARGO_TARGET_DIR),target))/stage
# Man pages and completions: lockctl's own, made by itself from the definitions of its command line, and the header's.
PAGES := $(BUILT)/lockctl-pages
MAN_PAGES := lockctl.1 $(patsubst %,lockctl-%.1,list graph watch check run repair create allocate free free-all grow \
	remove reconcile)
HEADERS := include/lock_manager.h etcd/include/lock_manager_etcd.h
# Those of the C interface: one for each name that the headers declare, and the libraries' own.
MAN3_PAGES := $(patsubst %,%.3,$(sort lock_manager lock_manager_etcd $(shell \
	sed -n 's/^typedef struct [a-z_]* //; /^[a-z}].*lock_manager_/p' $(HEADERS) | grep -o 'lock_manager_[a-z_]*')))
STAGED_PC := PKG_CONFIG_PATH=$(STAGE)/lib/pkgconfig
BENCH := $(BUILT)/lock-manager-bench
BENCH_QUICK := $(dir $(STAGE))bench-quick
SONAME := liblock_manager.so.0
ETCD_SONAME := liblock_manager_etcd.so.0
# The locks in etcd call the core in its shared library, so they are built without its crate.
BUILD_ETCD = $(CARGO) rustc --release --locked -p lock-manager-etcd --no-default-features --crate-type cdylib -- \
	-C link-arg=-Wl,-soname,$(ETCD_SONAME) -C link-arg=-Wl,-z,nodelete -L $(BUILT) -l dylib=lock_manager
# NAME: the pkg-config file of that name, made of its template.
PC_OF = sed -e "s,@VERSION@,$(VERSION),; s,@PREFIX_FROM_PC@,$$(realpath -m --relative-to="$(LIBDIR)/pkgconfig" "$(PREFIX)"),"
EXAMPLE_FLAGS := -std=c11 -O2 -Wall -Wextra -Wpedantic -Werror

.DELETE_ON_ERROR:
.PHONY: all help test test-etcd test-etcd-releases test-platforms test-platforms-ci test-podman test-fresh test-storm demo \
	demo-etcd bench bench-quick bench-etcd models models-all check-libpod header lint install uninstall clean stage \
	setup-test setup-demo setup-etcd setup-bench setup-build setup-fresh setup-models

all: ## build the shared and the static libraries, lockctl with its completions, and the man pages
	$(CARGO) build --release --locked
	$(BUILD_ETCD)
	@$(MAKE) --no-print-directory $(PAGES)/made

# For `sudo make install` after `make`: root may have no cargo, and what is built needs none.
$(BUILT)/liblock_manager.so $(BUILT)/liblock_manager.a $(BUILT)/lockctl $(BUILT)/lock-manager-man:
	$(CARGO) build --release --locked

$(BUILT)/liblock_manager_etcd.so: $(BUILT)/liblock_manager.so
	$(BUILD_ETCD)

$(PAGES)/made: $(BUILT)/lockctl $(BUILT)/lock-manager-man $(HEADERS)
	@rm -rf "$(PAGES)"
	@"$(BUILT)/lockctl" generate man "$(PAGES)/man"
	@"$(BUILT)/lock-manager-man" $(HEADERS) "$(PAGES)/man3"
	@"$(BUILT)/lockctl" generate completions "$(PAGES)/completions"
	@touch "$@"

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 27

test: setup-test lint stage ## every test: lints, Rust, C, Go, the command line, a real Podman, a real etcd
	$(CARGO) test --locked --workspace --no-fail-fast
	tools/test-etcd-releases trixie
	c-tests/run $(STAGE)
	lockctl/run-tests $(STAGE)
	tools/code-blocks $(STAGE)
	$(CARGO) build --locked --example counter
	LOCK_MANAGER_RUST_COUNTER=$(abspath $(or $(CARGO_TARGET_DIR),target))/debug/examples/counter go/run-tests $(STAGE)

test-platforms: ## other processors, libcs and widths: cross builds, emulated machines, neighbours; more than an hour
	tools/test-platforms

test-platforms-ci: ## the part of it that CI runs, in at most ten minutes: every build, and aarch64 with three suites
	tools/test-platforms --ci

test-podman: setup-test ## the tests beside real Podmans: the machine's own, and those of the Debian SUITES (trixie sid)
	@for suite in $(SUITES); do tools/debian-root $$suite || exit 1; done
	$(CARGO) test --locked --no-fail-fast -p lock-manager -p lockctl --test podman

test-fresh: setup-fresh ## make demo, demo-etcd and test in a bare Debian, as root and as an ordinary user; half an hour
	tools/test-fresh

test-storm: setup-test ## storms of STORM_SECONDS (300), and a death at every instruction; more than half an hour
	LOCK_MANAGER_STORM_SECONDS=$(STORM_SECONDS) LOCK_MANAGER_TEST_EVERY_INSTRUCTION=1 $(CARGO) test --locked --release \
		-p lock-manager --test native -- --nocapture --test-threads=1 storm dying every_instruction

demo: setup-demo stage ## the main job in one screen
	@$(STAGED_PC) tools/compile-example $(STAGE) counting "$(CC)" "$(EXAMPLE_FLAGS)"
	@$(STAGED_PC) tools/compile-example $(STAGE) segment "$(CC)" "$(EXAMPLE_FLAGS)"
	@$(STAGE)/examples/counting
	@examples/podman-demo.sh $(STAGE)/examples/segment $(STAGE)/bin/lockctl

demo-etcd: setup-etcd stage ## locks across machines: three members of etcd, a holder killed, a holder paused and fenced off
	@$(STAGED_PC) tools/compile-example $(STAGE) etcd "$(CC)" "$(EXAMPLE_FLAGS)" lock_manager_etcd
	@examples/etcd-demo.sh $(STAGE)/examples/etcd

test-etcd: setup-etcd ## faults of etcd's members, of clients and of the network, ETCD_ROUNDS (1000) of each; two hours
	LOCK_MANAGER_ETCD_ROUNDS=$(ETCD_ROUNDS) $(CARGO) test --locked --release -p lock-manager-etcd --test faults -- --nocapture \
		--test-threads=1

test-etcd-releases: setup-etcd ## the tests of etcd with the latest of its releases ETCD_RELEASES (3.5 3.6 3.7), which Go builds; some minutes
	tools/test-etcd-releases --faults $(ETCD_RELEASES)

bench-etcd: setup-etcd ## figures of the locks in etcd, beside etcd's own lock
	$(CARGO) bench --locked -p lock-manager-etcd --bench etcd

bench: setup-bench stage ## speed beside the locks one could take instead: benches/results/, docs/benchmarks.md; ten minutes
	$(CARGO) build --release --locked -p lock-manager-benches
	$(BENCH) measure full $(STAGE) .

bench-quick: setup-bench stage ## the same in a minute, too coarse to quote: under the build directory, in bench-quick/
	$(CARGO) build --release --locked -p lock-manager-benches
	$(BENCH) measure quick $(STAGE) $(BENCH_QUICK)

models: setup-models ## the models of the protocol and, with a rule broken each, their mutants; twenty minutes, see models/README.md
	models/run

models-all: setup-models ## the same with the largest models: an hour and a half, 6 GiB
	models/run --all

check-libpod: setup-build stage ## build and vet the libpod of PODMAN_SOURCE with its imports switched to the Go module
	go/check-libpod $(STAGE)

header: ## write the headers anew from src/ffi.rs, src/ffi/ and etcd/src/ffi.rs
	LOCK_MANAGER_WRITE_HEADER=1 $(CARGO) test --locked -p lock-manager -p lock-manager-etcd --test header

lint: ## formatting, clippy, rustdoc: a warning is an error
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

install: $(BUILT)/liblock_manager.so $(BUILT)/liblock_manager.a $(BUILT)/liblock_manager_etcd.so $(PAGES)/made ## PREFIX (/usr/local), LIBDIR ($PREFIX/lib), DESTDIR
	install -d "$(DESTDIR)$(LIBDIR)/pkgconfig" "$(DESTDIR)$(PREFIX)/include" "$(DESTDIR)$(DOCDIR)"
	install -m 755 $(BUILT)/liblock_manager.so "$(DESTDIR)$(LIBDIR)/liblock_manager.so.$(VERSION)"
	ln -sf liblock_manager.so.$(VERSION) "$(DESTDIR)$(LIBDIR)/$(SONAME)"
	ln -sf $(SONAME) "$(DESTDIR)$(LIBDIR)/liblock_manager.so"
	install -m 644 $(BUILT)/liblock_manager.a "$(DESTDIR)$(LIBDIR)/"
	install -m 644 include/lock_manager.h "$(DESTDIR)$(PREFIX)/include/"
	$(PC_OF) lock_manager.pc.in > "$(DESTDIR)$(LIBDIR)/pkgconfig/lock_manager.pc"
	install -m 755 $(BUILT)/liblock_manager_etcd.so "$(DESTDIR)$(LIBDIR)/liblock_manager_etcd.so.$(VERSION)"
	ln -sf liblock_manager_etcd.so.$(VERSION) "$(DESTDIR)$(LIBDIR)/$(ETCD_SONAME)"
	ln -sf $(ETCD_SONAME) "$(DESTDIR)$(LIBDIR)/liblock_manager_etcd.so"
	install -m 644 etcd/include/lock_manager_etcd.h "$(DESTDIR)$(PREFIX)/include/"
	$(PC_OF) etcd/lock_manager_etcd.pc.in > "$(DESTDIR)$(LIBDIR)/pkgconfig/lock_manager_etcd.pc"
	chmod 644 "$(DESTDIR)$(LIBDIR)/pkgconfig/lock_manager_etcd.pc"
	chmod 644 "$(DESTDIR)$(LIBDIR)/pkgconfig/lock_manager.pc"
	install -d "$(DESTDIR)$(BINDIR)" "$(DESTDIR)$(MANDIR)" "$(DESTDIR)$(MAN3DIR)"
	install -m 755 $(BUILT)/lockctl "$(DESTDIR)$(BINDIR)/"
	install -m 644 $(MAN_PAGES:%=$(PAGES)/man/%) "$(DESTDIR)$(MANDIR)/"
	install -m 644 $(MAN3_PAGES:%=$(PAGES)/man3/%) "$(DESTDIR)$(MAN3DIR)/"
	install -D -m 644 $(PAGES)/completions/lockctl.bash "$(DESTDIR)$(BASH_COMPLETIONS)/lockctl"
	install -D -m 644 $(PAGES)/completions/_lockctl "$(DESTDIR)$(ZSH_COMPLETIONS)/_lockctl"
	install -D -m 644 $(PAGES)/completions/lockctl.fish "$(DESTDIR)$(FISH_COMPLETIONS)/lockctl.fish"
	install -d "$(DESTDIR)$(DOCDIR)/docs/benchmarks" "$(DESTDIR)$(DOCDIR)/examples"
	install -m 644 README.md CHANGELOG.md SECURITY.md LICENSE-MIT LICENSE-APACHE "$(DESTDIR)$(DOCDIR)/"
	install -m 644 docs/benchmarks.md docs/caveats.md docs/design.md docs/diagnosing.md docs/etcd.md docs/platforms.md \
		docs/promises.md docs/segment-format.md docs/shared-locks.md \
		"$(DESTDIR)$(DOCDIR)/docs/"
	install -m 644 docs/benchmarks/*.svg "$(DESTDIR)$(DOCDIR)/docs/benchmarks/"
	install -m 644 examples/counting.c examples/etcd.c examples/segment.c "$(DESTDIR)$(DOCDIR)/examples/"
	install -d "$(DESTDIR)$(DATADIR)"
	sed 's,/usr/local/lib/,$(LIBDIR)/,' tools/lock_manager.bt > "$(DESTDIR)$(DATADIR)/lock_manager.bt"
	chmod 644 "$(DESTDIR)$(DATADIR)/lock_manager.bt"

uninstall: ## what install put there, and nothing else
	rm -f "$(DESTDIR)$(LIBDIR)/liblock_manager.so.$(VERSION)" "$(DESTDIR)$(LIBDIR)/$(SONAME)" \
		"$(DESTDIR)$(LIBDIR)/liblock_manager.so" "$(DESTDIR)$(LIBDIR)/liblock_manager.a" \
		"$(DESTDIR)$(LIBDIR)/pkgconfig/lock_manager.pc" "$(DESTDIR)$(PREFIX)/include/lock_manager.h" \
		"$(DESTDIR)$(LIBDIR)/liblock_manager_etcd.so.$(VERSION)" "$(DESTDIR)$(LIBDIR)/$(ETCD_SONAME)" \
		"$(DESTDIR)$(LIBDIR)/liblock_manager_etcd.so" "$(DESTDIR)$(LIBDIR)/pkgconfig/lock_manager_etcd.pc" \
		"$(DESTDIR)$(PREFIX)/include/lock_manager_etcd.h" \
		"$(DESTDIR)$(BINDIR)/lockctl" $(MAN_PAGES:%="$(DESTDIR)$(MANDIR)/%") $(MAN3_PAGES:%="$(DESTDIR)$(MAN3DIR)/%") \
		"$(DESTDIR)$(BASH_COMPLETIONS)/lockctl" "$(DESTDIR)$(ZSH_COMPLETIONS)/_lockctl" \
		"$(DESTDIR)$(FISH_COMPLETIONS)/lockctl.fish"
	rm -rf "$(DESTDIR)$(DOCDIR)" "$(DESTDIR)$(DATADIR)"

clean: ## what building left
	$(CARGO) clean
	rm -rf "$(STAGE)"

stage: all
	@$(MAKE) --no-print-directory install DESTDIR= PREFIX="$(STAGE)" LIBDIR="$(STAGE)/lib" > /dev/null

setup-test:
	@tools/setup test
	@tools/debian-root trixie || echo "skipped: the tests beside the Podman and the etcd of Debian trixie" >&2

setup-demo:
	@tools/setup demo

setup-etcd:
	@tools/setup etcd
setup-bench:
	@tools/setup bench

setup-build:
	@tools/setup build

setup-fresh:
	@tools/setup fresh

setup-models:
	@tools/setup models
