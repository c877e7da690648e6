# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# The shared library as a file: what it exports, needs and asks of the dynamic linker. Sourced by `run`.

exported_symbols() {
	nm -D --defined-only "$shared" | sed 's/.* //; s/@.*//' | sort -u
}

# dynamic_entries TAG: the values of that tag in the dynamic section.
dynamic_entries() {
	LC_ALL=C readelf -dW "$shared" | sed -n "s/.*($1) *//p"
}

stack_flags() {
	LC_ALL=C readelf -lW "$shared" | awk '$1 == "GNU_STACK" { print $(NF - 1) }'
}

# Segments that are both writable and executable.
writable_code() {
	LC_ALL=C readelf -lW "$shared" | awk '$1 == "LOAD" && /RWE/'
}

# Functions of the fast and the mid path by what their symbols contain. Those that are inlined everywhere have none.
readonly LOCK_FUNCTIONS=(
	'lock_manager_((try_|timed_|cancellable_)?lock(_shared)?|unlock(_shared)?|downgrade_lock|allocate_lock|free_lock|available_locks)$'
	'.*3ffi7locking'
	'.*3ffi8boundary(7acquire|7release)17'
	'.*6native7sharing'
	'.*6native10converting'
	'.*6native4view4View(8back_out|10refuse_mid)17'
	'.*6libpod4fast(12undo_refused17|[0-9]+_)'
)

# The functions of lock and unlock, either way, of allocate, free and counting, by their names and addresses, that have a
# table of what is to be undone when they are unwound (an LSDA). A signal handler that ends its thread in such a function, at
# an instruction that can itself not unwind, ends the process.
lock_functions_with_cleanup() {
	local symbols pattern
	symbols=$(nm "$shared")
	for pattern in "${LOCK_FUNCTIONS[@]}"; do
		grep -qE " $pattern" <<<"$symbols" || echo "no function is called $pattern"
	done
	LC_ALL=C readelf -wf "$shared" | awk '
		/ CIE$/ { cie = $1 }
		/^ +Augmentation:/ { augmentation[cie] = $2 }
		/ FDE / { split($5, from, "="); split($6, pc, /[=.]+/); print pc[2], augmentation[from[2]] }' |
		awk 'NR == FNR { if ($2 ~ /L/) has_cleanup[$1] = 1; next } ($1 in has_cleanup) { print $3 }' - \
			<(grep -E " ($(IFS='|'; echo "${LOCK_FUNCTIONS[*]}"))" <<<"$symbols")
}

check_shared_object() {
	group "the shared library"
	check_same "it exports exactly the functions of the header" "$(exported_symbols)" "$(header_functions)"
	check_same "its soname is that of all 0.x" \
		"$(dynamic_entries SONAME)" "Library soname: [liblock_manager.so.0]"
	check_same "it is found under its soname and under the name that linkers look for" \
		"$(readlink -f "$libdir/liblock_manager.so")" "$(readlink -f "$libdir/liblock_manager.so.0")"
	check_that "it stays mapped after dlclose" grep -qw NODELETE <<<"$(dynamic_entries FLAGS_1)"
	check_same "its code is not relocated" "$(dynamic_entries TEXTREL)$(dynamic_entries FLAGS | grep -w TEXTREL)" ""
	check_same "it asks for no executable stack" "$(stack_flags)" "RW"
	check_same "no memory of it is writable and executable" "$(writable_code)" ""
	check_same "a signal handler may end its thread anywhere in lock, unlock, allocate and free" "$(lock_functions_with_cleanup)" ""
	check_same "it looks for no library in a path of its own" "$(dynamic_entries RPATH)$(dynamic_entries RUNPATH)" ""
	check_same "it needs nothing but the compiler's and the C library" \
		"$(dynamic_entries NEEDED | grep -vE '\[(libc|libm|libpthread|libdl|librt|libutil|libgcc_s|ld-linux.*)\.so')" ""
}
