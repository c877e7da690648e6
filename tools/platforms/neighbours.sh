# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# Sourced by tools/test-platforms: programs of another libc or width and of this machine's own on one native segment.

# compile_neighbour OUTPUT COMPILER ARGUMENT...
compile_neighbour() {
	local output=$1 compiler=$2
	shift 2
	"$compiler" -std=c11 -O2 -Wall -Wextra -I"$here/include" "$here/c-tests/neighbours.c" -o "$output" "$@"
}

# own_library: the library for this machine, in $own.
own_library() {
	own=$work/build/debug
	[ ! -e "$own/made" ] || return 0
	(cd "$work/tree" && CARGO_TARGET_DIR=$work/build CARGO_PROFILE_DEV_OPT_LEVEL=1 cargo build --offline --lib) &&
		ln -sf liblock_manager.so "$own/liblock_manager.so.0" &&
		compile_neighbour "$work/neighbour" cc -L"$own" -llock_manager -Wl,-rpath,"$own" && touch "$own/made"
}

# share SEGMENT PROGRAM OTHER: what both count at once is exact, and each is told of the other's death.
share() {
	local segment=$1 one=$2 other=$3 turns=${NEIGHBOUR_TURNS:-20000} first second
	"$one" "$segment" create || return
	"$one" "$segment" count "$turns" & first=$!
	"$other" "$segment" count "$turns" & second=$!
	wait "$first" && wait "$second" &&
		"$one" "$segment" check $((2 * turns)) &&
		"$one" "$segment" die 5 && "$other" "$segment" inherit 5 &&
		"$other" "$segment" die 6 && "$one" "$segment" inherit 6 &&
		"$other" "$segment" remove && rm -f "$segment.count"
}

# told TARGET WHAT COMMAND...
told() {
	local target=$1 what=$2
	shift 2
	if "$@" >> "$work/logs/$target.neighbours" 2>&1; then report "$target" "$what" ok; else
		report "$target" "$what" "failed: see $work/logs/$target.neighbours"
	fi
}

run_neighbours() {
	local built=$work/build/$rust/debug program=$work/neighbour-$1 segment
	segment=/dev/shm/lm-test-neighbours-$$
	: > "$work/logs/$1.neighbours"
	told "$1" "this machine's own library" own_library
	case $1 in
	i386)
		ln -sf liblock_manager.so "$built/liblock_manager.so.0"
		told "$1" "a program of 32 bits" compile_neighbour "$program" cc -m32 -idirafter "/usr/include/$(cc -print-multiarch)" \
			-L"$built" -llock_manager -Wl,-rpath,"$built"
		told "$1" "32 and 64 bits on one segment" share "$segment" "$work/neighbour" "$program"
		;;
	musl)
		told "$1" "a static program of musl" compile_neighbour "$program" musl-gcc -static "$built/liblock_manager.a" \
			"$(unwinder)"
		told "$1" "musl and glibc on one segment" share "$segment" "$work/neighbour" "$program"
		told "$1" "the libpod layout is refused by name" refuses_libpod "$segment" "$program"
		told "$1" "a program of musl loads the library" loads "$segment"
		;;
	esac
	rm -f "$segment" "$segment.count"
}

refuses_libpod() {
	local said
	said=$("$2" "$1" layout) && echo "$said" && case $said in -95*glibc*) ;; *) return 1 ;; esac
}

# The unwinder that Rust brings for musl: the one of this machine's gcc is for glibc.
unwinder() { echo "$(rustc --print sysroot)/lib/rustlib/$rust/lib/self-contained/libunwind.a"; }

# loads SEGMENT: a shared library for musl, which a program loads by dlopen.
loads() {
	local shared=$work/musl-shared
	mkdir -p "$shared"
	# Rust asks for a shared libgcc, which musl-gcc does not have.
	echo "INPUT($(unwinder))" > "$shared/libgcc_s.so"
	(cd "$work/tree" && CARGO_TARGET_DIR=$work/build/shared CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=musl-gcc \
		CC_x86_64_unknown_linux_musl=musl-gcc CARGO_PROFILE_DEV_DEBUG=0 \
		CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS="-C target-feature=-crt-static -L native=$shared" \
		cargo build --offline --lib --target "$rust") || return
	musl-gcc -std=c11 -O1 -Wall -Wextra -I"$here/include" "$here/c-tests/loading.c" -o "$shared/loading" &&
		"$shared/loading" "$work/build/shared/$rust/debug/liblock_manager.so" "$1"
}
