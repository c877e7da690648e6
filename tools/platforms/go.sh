# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# Sourced by tools/test-platforms: the tests of the Go module in a program of musl, with the library linked into it and with
# the shared library that neighbours.sh has built.

# go_package DIRECTORY LIBRARY...: what pkg-config tells Go of the library in that directory.
go_package() {
	local directory=$1
	shift
	mkdir -p "$directory/pkgconfig"
	printf 'Name: lock_manager\nDescription: for musl\nVersion: 0\nLibs: %s\nCflags: -I%s\n' "$*" "$here/include" \
		> "$directory/pkgconfig/lock_manager.pc"
}

# go_tests TARGET WHAT DIRECTORY FLAG...: builds the tests with FLAG for the external linker, runs them, and reports.
go_tests() {
	local target=$1 what=$2 directory=$3 log=$work/logs/$1.go.${3##*/} counts
	shift 3
	if ! (cd "$here/go" && CC=musl-gcc CGO_ENABLED=1 CGO_LDFLAGS="-O2 -g" PKG_CONFIG_PATH="$directory/pkgconfig" \
		go test -c -o "$directory/go.test" -ldflags "-linkmode external $*" .) > "$log" 2>&1; then
		report "$target" "$what" "failed: see $log"
		return
	fi
	(cd "$here/go" && timeout -s KILL "$SUITE_SECONDS" "$directory/go.test" -test.v) >> "$log" 2>&1 < /dev/null || true
	counts="$(grep -c '^--- PASS' "$log") passed, $(grep -c '^--- FAIL' "$log") failed, $(grep -c '^--- SKIP' "$log") skipped"
	case $(tail -n 1 "$log") in
	PASS) report "$target" "$what" "$counts" ;;
	*) report "$target" "$what" "failed: $counts; see $log" ;;
	esac
}

# run_go TARGET
run_go() {
	local why static=$work/go-static shared=$work/go-shared built=$work/build/$rust/debug
	local PATH=$PATH:/usr/local/go/bin
	if ! why=$("$here/go/toolchain" check); then
		report "$1" Go "skipped: $why"
		return
	fi
	go_package "$static" "-L$built -l:liblock_manager.a $(unwinder)"
	go_tests "$1" "Go, a static program" "$static" "-extldflags -static"
	go_package "$shared" "-L$shared -llock_manager -Wl,-rpath,$shared"
	ln -sf "$work/build/shared/$rust/debug/liblock_manager.so" "$shared/liblock_manager.so"
	ln -sf liblock_manager.so "$shared/liblock_manager.so.0"
	go_tests "$1" "Go with the shared library" "$shared"
}
