# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# A program linked in each way that pkg-config knows. Sourced by `run`.

# build_life OUTPUT LINKER-ARGUMENT...
build_life() {
	local output=$1
	shift
	"$cc" -std=c11 -O1 -g "${warnings[@]}" "${cflags[@]}" "$here/life_of_a_lock.c" -o "$output" -pthread "$@"
}

needs_the_shared_library() {
	LC_ALL=C readelf -dW "$1" | grep -q 'NEEDED.*\[liblock_manager\.so\.0\]'
}

needs_no_shared_library() {
	! LC_ALL=C readelf -dW "$1" | grep -q 'NEEDED.*liblock_manager'
}

resolves_to_the_installed_one() {
	local found
	found=$(ldd "$1" | sed -n 's/.*liblock_manager\.so\.0 => \(.*\) (0x.*/\1/p')
	[ "$(readlink -f "$found")" = "$(readlink -f "$shared")" ]
}

check_shared_linking() {
	group "linked with the shared library"
	local program="$build/life-shared"
	check_that "the program builds with pkg-config --libs" build_life "$program" "${libs[@]}" || return
	check_that "the program needs the library by its soname" needs_the_shared_library "$program"
	check_that "the program finds the installed library" resolves_to_the_installed_one "$program"
	run_tests "life_of_a_lock, shared" "$program"
}

check_static_linking() {
	group "linked with the static library"
	local program="$build/life-static"
	local -a static_libs
	flags static_libs --static --libs
	check_that "the program builds with pkg-config --static --libs and the archive" \
		build_life "$program" "${static_libs[@]/#-llock_manager/-l:liblock_manager.a}" || return
	check_that "the program does not need the shared library" needs_no_shared_library "$program"
	run_tests "life_of_a_lock, static" env -u LD_LIBRARY_PATH "$program"
}

# Where a distribution installs the archive alone, --static --libs must do as they are.
check_archive_alone() {
	group "linked where only the static library is"
	local program="$build/life-archive" alone="$build/archive-alone"
	local -a static_libs
	mkdir "$alone"
	cp "$libdir/liblock_manager.a" "$alone/"
	flags static_libs --static --libs
	check_that "the program builds with pkg-config --static --libs" \
		build_life "$program" "-L$alone" "${static_libs[@]/#-L*/-L$alone}" || return
	run_tests "life_of_a_lock, archive alone" env -u LD_LIBRARY_PATH "$program"
}

check_fully_static_linking() {
	group "linked with everything static"
	local program="$build/life-fully-static"
	local -a static_libs
	if ! printf 'int main(void) { return 0; }\n' | "$cc" -static -x c - -o "$build/nothing-static" 2>/dev/null; then
		skip "a program with no shared library at all works" "there is no static C library"
		return
	fi
	flags static_libs --static --libs
	if check_that "the program builds with -static and pkg-config --static --libs" \
		build_life "$program" -static "${static_libs[@]}"; then
		run_tests "life_of_a_lock, with no shared library at all" "$program"
	fi
}
