# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# Sourced by tools/test-platforms: programs of another libc or width and of this machine's own on one native segment, and
# libpod's own locks beside this library on one of libpod's.

# The version of podman whose locks are taken.
readonly PODMAN=github.com/containers/podman/v5@v5.4.2

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

# share SEGMENT PROGRAM OTHER [libpod]: what both count at once is exact, and each is told of the other's death.
share() {
	local segment=$1 one=$2 other=$3 turns=${NEIGHBOUR_TURNS:-20000} first second
	"$one" "$segment" create ${4:+"$4"} || return
	"$one" "$segment" count "$turns" & first=$!
	"$other" "$segment" count "$turns" & second=$!
	wait "$first" && wait "$second" &&
		"$one" "$segment" check $((2 * turns)) &&
		"$one" "$segment" die 5 && "$other" "$segment" inherit 5 &&
		"$other" "$segment" die 6 && "$one" "$segment" inherit 6 &&
		"$one" "$segment" allocate 10 && "$other" "$segment" allocate 7 &&
		"$one" "$segment" free 47 && "$other" "$segment" free 47 &&
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
		told "$1" "two programs of musl on a segment of the libpod layout" share "$segment" "$program" "$program" libpod
		told "$1" "a segment of glibc's mutexes is refused" refuses "$segment" "$work/neighbour" "$program" glibc
		[ "$ci" = yes ] || told "$1" "and by musl's lockctl" \
			lockctl_refuses "$segment" glibc "$rust" "$work/neighbour" libpod
		told "$1" "a segment of musl's mutexes is refused" refuses "$segment" "$program" "$work/neighbour" musl
		run_beside_libpod "$1" "$segment" "$program"
		told "$1" "a program of musl loads the library" loads "$segment"
		;;
	esac
	rm -f "$segment" "$segment.count"
}

# refuses SEGMENT MAKER OTHER LIBC: what the one makes in the libpod layout, with the mutexes of LIBC, the other refuses.
refuses() {
	local segment=$1 maker=$2 other=$3
	"$maker" "$segment" create libpod && "$other" "$segment" refused "$4" && "$maker" "$segment" remove
}

# libpod_source: the directory of libpod's C locks, in $libpod, or why it cannot be had.
libpod_source() {
	local source=${PODMAN_SOURCE:-}
	if [ -z "$source" ]; then
		source=$(cd / && PATH=$PATH:/usr/local/go/bin timeout 300 go mod download -json "$PODMAN" 2> "$work/logs/podman" |
			sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')
	fi
	libpod=$source/libpod/lock/shm
	[ -e "$libpod/shm_lock.c" ] && return
	echo "no libpod: neither PODMAN_SOURCE nor go mod download $PODMAN has it: $(tail -n 1 "$work/logs/podman" 2> /dev/null)"
	return 1
}

# compile_libpod OUTPUT COMPILER: libpod's locks as a program. Warnings about its code are its own.
compile_libpod() {
	"$2" -O2 -w -D_GNU_SOURCE -c "$libpod/shm_lock.c" -o "$1.o" &&
		"$2" -std=c11 -O2 -Wall -Wextra -isystem "$libpod" "$here/c-tests/libpod_neighbour.c" "$1.o" -static -o "$1"
}

# run_beside_libpod TARGET SEGMENT PROGRAM: musl's libpod and this library, on a segment of either.
run_beside_libpod() {
	local theirs=$work/libpod-$1
	if ! libpod_source > "$work/logs/$1.libpod"; then
		report "$1" "libpod's own locks" "skipped: $(cat "$work/logs/$1.libpod")"
		return
	fi
	told "$1" "libpod's own locks, for musl" compile_libpod "$theirs" musl-gcc
	told "$1" "libpod and the library on a segment of libpod" share "$2" "$theirs" "$3"
	told "$1" "libpod and the library on a segment of the library" share "$2" "$3" "$theirs" libpod
	told "$1" "a segment of musl's libpod is refused by glibc's library" refuses "$2" "$theirs" "$work/neighbour" musl
	# Its crates would be half of what CI compiles.
	[ "$ci" = yes ] || told "$1" "and by glibc's lockctl" lockctl_refuses "$2" musl "" "$theirs"
}

# lockctl_refuses SEGMENT LIBC TARGET MAKER...: lockctl, built for this machine or for TARGET unless that is empty, refuses what
# MAKER makes in the libpod layout, with the mutexes of LIBC, and names LIBC.
lockctl_refuses() {
	local segment=$1 libc=$2 target=$3 maker=$4 said
	shift 4
	(
		cd "$here"
		export CARGO_TARGET_DIR=$work/build CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=0
		export CC_x86_64_unknown_linux_musl=musl-gcc
		cargo build --offline --locked -p lockctl ${target:+--target "$target"}
	) && "$maker" "$segment" create "$@" || return
	if said=$("$work/build/${target:+$target/}debug/lockctl" list "$segment" 2>&1); then said="not refused: $said"; fi
	"$maker" "$segment" remove && echo "$said" && case $said in *"mutexes of $libc"*) ;; *) return 1 ;; esac
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
