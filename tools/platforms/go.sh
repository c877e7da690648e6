# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# Sourced by tools/test-platforms: the tests of the Go module. Natively in a program of musl, with the library linked into it
# and with the shared library that neighbours.sh has built, and for 32 bits; for an emulated machine with its shared library.

# Where it is installed by hand.
PATH=$PATH:/usr/local/go/bin

# Go's name for the processor of a target.
go_architecture() {
	case $1 in
	aarch64) echo arm64 ;;
	armv7) echo arm ;;
	i386) echo 386 ;;
	musl) echo amd64 ;;
	*) echo "$1" ;;
	esac
}

# has_go TARGET: it is there and young enough, or the skipping is reported.
has_go() {
	local why
	why=$("$here/go/toolchain" check) && return
	report "$1" Go "skipped: $why"
	return 1
}

# compile_go TARGET DIRECTORY COMPILER LIBRARY...: the tests' program is DIRECTORY/go.test; GO_LINKER has flags for the linker
# that Go calls. pkg-config tells Go of the library there.
compile_go() {
	local directory=$2 sum
	mkdir -p "$directory/pkgconfig"
	printf 'Name: lock_manager\nDescription: of this target\nVersion: 0\nLibs: %s\nCflags: -I%s\n' "${*:4}" "$here/include" \
		> "$directory/pkgconfig/lock_manager.pc"
	# Go's build cache looks neither at what pkg-config answers, nor into a foreign header or library: a flag names all.
	sum=$(cat "$directory/pkgconfig/lock_manager.pc" "$here/include/lock_manager.h" "$work/build/$rust"/debug/liblock_manager.* |
		sha256sum | cut -c 1-12)
	(cd "$here/go" && GOARCH=$(go_architecture "$1") CC=$3 CGO_ENABLED=1 CGO_LDFLAGS="-O2 -g" \
		CGO_CFLAGS="-O2 -g -DLOCK_MANAGER_SUM=0x$sum" \
		PKG_CONFIG_PATH="$directory/pkgconfig" PKG_CONFIG_LIBDIR='' \
		go test -c -o "$directory/go.test" -ldflags "${GO_LINKER:-}" . 9>&-)
}

# build_go TARGET: for an emulated machine.
build_go() {
	local log=$work/logs/$1.go
	has_go "$1" || return
	compile_go "$1" "$work/go-$1" "$linker" "-L$work/build/$rust/debug -llock_manager" > "$log" 2>&1 && return
	report "$1" Go "failed: see $log"
	return 1
}

# go_tests TARGET WHAT DIRECTORY COMPILER LIBRARY...: compiles them, and runs them here.
go_tests() {
	local target=$1 what=$2 directory=$3 log=$work/logs/$1.${3##*/}
	if ! compile_go "$target" "${@:3}" > "$log" 2>&1; then
		report "$target" "$what" "failed: see $log"
		return
	fi
	run_suite go "$log" "$platforms/go_suite" "$here/go" "$directory/go.test"
	report_suite "$target" "$what" "$log" go
}

# run_go TARGET: natively.
run_go() {
	local static=$work/go-static shared=$work/go-$1 built=$work/build/$rust/debug
	has_go "$1" || return 0
	if [ "$1" = i386 ]; then
		go_tests "$1" Go "$shared" "${narrow[*]}" \
			"-L$built -llock_manager -Wl,-rpath,$built"
		return
	fi
	GO_LINKER="-linkmode external -extldflags -static" go_tests "$1" "Go, a static program" "$static" musl-gcc \
		"-L$built -l:liblock_manager.a $(unwinder)"
	mkdir -p "$shared"
	ln -sf "$work/build/shared/$rust/debug/liblock_manager.so" "$shared/liblock_manager.so"
	ln -sf liblock_manager.so "$shared/liblock_manager.so.0"
	GO_LINKER="-linkmode external" go_tests "$1" "Go with the shared library" "$shared" musl-gcc \
		"-L$shared -llock_manager -Wl,-rpath,$shared"
}
