# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# Sourced by tools/test-platforms: programs of another libc or width and of this machine's own on one native segment, and
# libpod's own locks beside this library on one of libpod's.

# The version of podman whose locks are taken.
readonly PODMAN=github.com/containers/podman/v5@v5.4.2

# The compiler for 32 bits. The kernel's headers of this machine do for them, too.
narrow=(cc -m32 -idirafter "/usr/include/$(cc -print-multiarch)")
readonly narrow

# compile_neighbour OUTPUT COMPILER ARGUMENT...
compile_neighbour() {
	local output=$1
	shift
	"$1" -std=c11 -O2 -Wall -Wextra -I"$here/include" "$here/c-tests/neighbours.c" -o "$output" "${@:2}"
}

# own_cargo DIRECTORY ARGUMENT...: for this machine.
own_cargo() {
	env -C "$1" CARGO_TARGET_DIR="$work/build" CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=0 cargo "${@:2}" --offline 9>&-
}

# own_library: the library for this machine, in $own.
own_library() {
	own=$work/build/debug
	rm -f "$work/neighbour"
	own_cargo "$work/tree" build --lib &&
		ln -sf liblock_manager.so "$own/liblock_manager.so.0" &&
		compile_neighbour "$work/neighbour" cc -L"$own" -llock_manager -Wl,-rpath,"$own"
}

share() { limited "$SUITE_SECONDS" "$platforms/share" "$@"; }

# told TARGET WHAT COMMAND...: reports how it ended.
told() {
	local target=$1 what=$2
	shift 2
	if "$@" >> "$work/logs/$target.neighbours" 2>&1; then report "$target" "$what" ok; else
		report "$target" "$what" "failed: see $work/logs/$target.neighbours"
	fi
}

run_neighbours() {
	local built=$work/build/$rust/debug program=$work/neighbour-$1 segment=$segments-neighbours
	# Not those of an earlier run.
	rm -f "$program" "$work/build/shared/$rust/debug/liblock_manager.so"
	told "$1" "this machine's own library" own_library
	case $1 in
	i386)
		ln -sf liblock_manager.so "$built/liblock_manager.so.0"
		told "$1" "a program of 32 bits" compile_neighbour "$program" "${narrow[@]}" \
			-L"$built" -llock_manager -Wl,-rpath,"$built"
		told "$1" "32 and 64 bits on one segment" share "$segment" "$work/neighbour" "$program"
		has_libpod "$1" "${narrow[@]}" || true
		run_together "$1"
		;;
	musl)
		told "$1" "a static program of musl" compile_neighbour "$program" musl-gcc -static "$built/liblock_manager.a" \
			"$(unwinder)"
		told "$1" "musl and glibc on one segment" share "$segment" "$work/neighbour" "$program"
		told "$1" "a segment of glibc's mutexes is refused" refuses "$segment" "$work/neighbour" "$program" glibc
		[ "$ci" = yes ] || told "$1" "and by musl's lockctl" \
			lockctl_refuses "$segment" glibc "$rust" "$work/neighbour" libpod
		told "$1" "a segment of musl's mutexes is refused" refuses "$segment" "$program" "$work/neighbour" musl
		if has_libpod "$1" musl-gcc; then
			told "$1" "a segment of musl's libpod is refused by glibc's library" \
				refuses "$segment" "$work/libpod-$1" "$work/neighbour" musl
			# Its crates would be half of what CI compiles.
			[ "$ci" = yes ] || told "$1" "and by glibc's lockctl" lockctl_refuses "$segment" musl "" "$work/libpod-$1"
		fi
		run_together "$1"
		told "$1" "a program of musl loads the library" loads "$segment"
		;;
	esac
}

# refuses SEGMENT MAKER OTHER LIBC: what the one makes in the libpod layout, with the mutexes of LIBC, the other refuses.
refuses() {
	local segment=$1 maker=$2 other=$3
	rm -f "$segment"
	"$maker" "$segment" create libpod && "$other" "$segment" refused "$4" && "$maker" "$segment" remove
}

# libpod_source: the directory of libpod's C locks, in $libpod, looked for once. Else why says why it cannot be had.
libpod_source() {
	local source=${PODMAN_SOURCE:-} log=$work/logs/podman
	if [ -z "${libpod+known}" ]; then
		if [ -z "$source" ]; then
			fetching env -C / go mod download -json "$PODMAN" > "$log" 2>&1 || true
			source=$(sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p' "$log")
		fi
		libpod=$source/libpod/lock/shm
	fi
	[ -e "$libpod/shm_lock.c" ] && return
	why="neither PODMAN_SOURCE nor go mod download $PODMAN has it: $(last_line "$log" 2> /dev/null)"
	return 1
}

# compile_libpod OUTPUT COMPILER...: libpod's locks as a program. Warnings about its code are its own.
compile_libpod() {
	local output=$1
	shift
	"$@" -O2 -w -D_GNU_SOURCE -c "$libpod/shm_lock.c" -o "$output.o" &&
		"$@" -std=c11 -O2 -Wall -Wextra -isystem "$libpod" "$here/c-tests/libpod_neighbour.c" "$output.o" -static -o "$output"
}

# has_libpod TARGET COMPILER...: $work/libpod-TARGET is a program of libpod's own locks.
has_libpod() {
	local target=$1
	shift
	rm -f "$work/libpod-$target"
	if ! libpod_source; then
		report "$target" "libpod's own locks" "skipped: $why"
		return 1
	fi
	told "$target" "libpod's own locks" compile_libpod "$work/libpod-$target" "$@"
	[ -e "$work/libpod-$target" ]
}

# run_together TARGET: what an emulated machine runs, natively.
run_together() {
	local directory=$work/together-$1 log=$work/logs/$1.together
	rm -rf "$directory"
	mkdir "$directory"
	ln -s "$platforms/together" "$platforms/share" "$directory"
	ln -s "$work/neighbour-$1" "$directory/neighbour"
	[ ! -e "$work/libpod-$1" ] || ln -s "$work/libpod-$1" "$directory/libpod"
	: > "$log"
	run_suite together "$log" "$directory/together" "$segments-together"
	report_suite "$1" together "$log" together
}

# lockctl_refuses SEGMENT LIBC TARGET MAKER...: lockctl, built for this machine or for TARGET unless that is empty, refuses what
# MAKER makes in the libpod layout, with the mutexes of LIBC, and names LIBC.
lockctl_refuses() {
	local segment=$1 libc=$2 target=$3 maker=$4 said refused=yes
	shift 4
	if [ -n "$target" ]; then
		cargo_for "$runs" "$here" build --locked -p lockctl || return
	else
		own_cargo "$here" build --locked -p lockctl || return
	fi
	rm -f "$segment"
	"$maker" "$segment" create "$@" || return
	if said=$("$work/build/${target:+$target/}debug/lockctl" list "$segment" 2>&1); then refused=no; fi
	"$maker" "$segment" remove && echo "refused: $refused: $said" && [ "$refused" = yes ] &&
		case $said in *"mutexes of $libc"*) ;; *) return 1 ;; esac
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
		cargo build --offline --lib --target "$rust" 9>&-) || return
	musl-gcc -std=c11 -O1 -Wall -Wextra -I"$here/include" "$here/c-tests/loading.c" -o "$shared/loading" &&
		"$shared/loading" "$work/build/shared/$rust/debug/liblock_manager.so" "$1"
}
