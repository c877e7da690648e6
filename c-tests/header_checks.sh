# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# The installed header by itself. Sourced by `run`.

# The functions that the header declares; what stands in comments does not count.
header_functions() {
	"$cc" -E -P "$header" | grep -oE '\block_manager_[a-z0-9_]+ *\(' | tr -d ' (' | sort -u
}

# header_compiles COMPILER LANGUAGE STANDARD: by the program that `alone` names, if there is another than the core's.
header_compiles() {
	local sentence="the header compiles and runs with $1 as $3" program="$build/${alone:-header}-$1-$3"
	if ! has "$1"; then
		skip "$sentence" "there is no $1"
	elif check_that "$sentence, built" \
		"$1" "-std=$3" "${warnings[@]}" "${cflags[@]}" -x "$2" "$here/${alone:-header_alone.c}" -x none -o "$program" "${libs[@]}"; then
		check_that "$sentence" "$program"
	fi
}

# Every function that takes anything must be called with NULL, so that who adds one thinks of it.
check_null_is_tested_for_every_function() {
	local missing
	missing=$(comm -23 \
		<(header_functions | grep -vxF "$(functions_without_arguments)") \
		<(grep -oE 'lock_manager_[a-z0-9_]+' "$here/null_arguments.c" | sort -u))
	check_same "null_arguments.c calls every function of the header" "$missing" ""
}

functions_without_arguments() {
	"$cc" -E -P "$header" | grep -oE '\block_manager_[a-z0-9_]+ *\( *void *\)' | grep -oE '^[a-z0-9_]+'
}

check_header() {
	group "the header"
	header_compiles gcc c c99
	header_compiles gcc c c11
	header_compiles g++ c++ c++17
	header_compiles clang c c99
	header_compiles clang c c11
	header_compiles clang++ c++ c++17
	check_null_is_tested_for_every_function
}
