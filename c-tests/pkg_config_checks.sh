# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# lock_manager.pc: its numbers and paths, here and after the prefix was moved. Sourced by `run`.

header_version() {
	sed -n 's/^#define LOCK_MANAGER_VERSION "\(.*\)"$/\1/p' "$header"
}

# variable NAME [ARGUMENT...]: a directory that pkg-config says, without dots, links, and backslashes before blanks.
variable() {
	local name=$1
	shift
	readlink -m "$(pkg-config "$@" "--variable=$name" lock_manager | sed 's/\\\(.\)/\1/g')"
}

# A prefix that was moved: by itself the file says where it lies now, or else with --define-prefix.
check_moved_prefix() {
	local moved=$build/moved
	case $libdir in
	"$prefix"/*) ;;
	*)
		skip "a prefix can be moved" "the libraries are not within the prefix"
		return
		;;
	esac
	local moved_libdir=$moved${libdir#"$prefix"} PKG_CONFIG_PATH
	mkdir -p "$moved_libdir/pkgconfig" "$moved/include"
	cp -P "$libdir"/liblock_manager.* "$moved_libdir/"
	cp "$libdir/pkgconfig/lock_manager.pc" "$moved_libdir/pkgconfig/"
	cp "$header" "$moved/include/"
	export PKG_CONFIG_PATH=$moved_libdir/pkgconfig

	local -a options=()
	[ "$(variable libdir)" = "$(readlink -m "$moved_libdir")" ] || options=(--define-prefix)
	check_same "a moved prefix has its libraries where it lies now" \
		"$(variable libdir "${options[@]}")" "$(readlink -m "$moved_libdir")"
	check_same "a moved prefix has its header where it lies now" \
		"$(variable includedir "${options[@]}")" "$(readlink -m "$moved/include")"

	local -a moved_flags
	flags moved_flags "${options[@]}" --cflags --libs
	check_that "a program builds with a moved prefix" "$cc" -std=c11 "${warnings[@]}" "$here/header_alone.c" \
		-o "$build/with-moved-prefix" "${moved_flags[@]}"
	check_that "a program runs with a moved prefix" env "LD_LIBRARY_PATH=$moved_libdir" "$build/with-moved-prefix"
}

check_pkg_config() {
	group "lock_manager.pc"
	check_that "it is valid" pkg-config --validate lock_manager
	check_same "its version is the header's" "$(pkg-config --modversion lock_manager)" "$(header_version)"
	check_same "its libraries are where they were installed" "$(variable libdir)" "$(readlink -m "$libdir")"
	check_same "its header is where it was installed" "$(variable includedir)" "$(readlink -m "$prefix/include")"
	check_that "it says more for static linking than for shared linking" \
		[ "$(pkg-config --static --libs lock_manager)" != "$(pkg-config --libs lock_manager)" ]
	check_moved_prefix
}
