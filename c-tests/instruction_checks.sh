# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2154 # the variables are those of `run`
#
# The hot paths take no more instructions than instruction_counts.ARCHITECTURE says. Sourced by `run`.
#
# callgrind counts what the library's own code executes, whatever else the machine does; what the libc executes for it is
# the libc's, and is not counted. A tenth more is granted to another compiler than the one in the file, and to the path that
# reads what the kernel says of a process, in numbers of more digits or fewer.
# LOCK_MANAGER_WRITE_COUNTS=1 writes the file anew.

# library_compiler: what built the library.
library_compiler() {
	readelf -p .comment "$shared" | grep -o 'rustc version [^ ]*' | head -n 1
}

# own_instructions FILE...: of each dump of callgrind's its name and the library's own instructions a call.
own_instructions() {
	awk '
		function told() { if (name != "") printf "%s\t%d\n", name, own / 1000 + 0.5; name = ""; own = 0 }
		FNR == 1 { told() }
		/^desc: Trigger: Client Request: / { name = substr($0, 32) }
		/^ob=/ { inside = /\/liblock_manager\.so/ }
		# The line below it is the cost of what was called, which stands where that is told of.
		/^calls=/ { getline; next }
		/^[0-9+*-]/ { if (inside) own += $2 }
		END { told() }
	' "$@"
}

# count_instructions: the paths and their counts, as the file has them.
count_instructions() {
	local dumps=$build/callgrind
	mkdir -p "$dumps"
	timeout -k 5 "$program_seconds" valgrind -q --tool=callgrind --compress-strings=no --callgrind-out-file="$dumps/counts" \
		"$build/instruction_counts" "$build/counted-files" || return
	local -a parts
	mapfile -t parts < <(find "$dumps" -name 'counts.*' | sort -V)
	own_instructions "${parts[@]}"
}

# granted PATH COUNT: how many more it may take.
granted() {
	if [ "$1" != "native: try of a held lock, of another holder" ] && [ "$(library_compiler)" = "$recorded_compiler" ]; then
		echo 0
	else
		echo $(($2 / 10))
	fi
}

check_instructions() {
	local sentence="the hot paths take no more instructions than before" why counts path before now more fewer=""
	local file=$here/instruction_counts.$(uname -m)
	local again="LOCK_MANAGER_WRITE_COUNTS=1 make test writes ${file##*/} anew"
	group "instruction counts"
	if ! why=$(valgrind -q "$(type -P true)" 2>&1); then
		skip "$sentence" "valgrind does not run here: $(tail -n 1 <<<"$why")"
		return
	fi
	if ! printf '#include <valgrind/callgrind.h>\n' | "$cc" -E -x c - >/dev/null 2>&1; then
		skip "$sentence" "valgrind's headers are not here"
		return
	fi
	if ! [ -e "$file" ] && [ -z "${LOCK_MANAGER_WRITE_COUNTS:-}" ]; then
		skip "$sentence" "nobody has counted on $(uname -m) yet: $again"
		return
	fi
	build_c instruction_counts instruction_counts.c "${libs[@]}" || return
	if ! counts=$(count_instructions) || [ "$(wc -l <<<"$counts")" -lt 2 ]; then
		fail "$sentence" "callgrind counted nothing: $counts"
		return
	fi
	if [ -n "${LOCK_MANAGER_WRITE_COUNTS:-}" ]; then
		{
			echo "# Instructions a call of the library's own code, counted by callgrind; see instruction_checks.sh."
			echo "# $(library_compiler)"
			echo "$counts"
		} >"$file"
		echo "    written $file"
		return
	fi
	recorded_compiler=$(sed -n 's/^# \(rustc version .*\)/\1/p' "$file")
	while IFS=$'\t' read -r path before; do
		now=$(awk -F '\t' -v path="$path" '$1 == path { print $2 }' <<<"$counts")
		more=$(granted "$path" "$before")
		if [ -z "$now" ]; then
			fail "$path is counted" "instruction_counts.c has no such path; $again"
		elif [ "$now" -gt $((before + more)) ]; then
			fail "$path: at most $((before + more)) instructions" "it takes $now, $before before. If that is worth it, $again"
		else
			ok "$path: at most $((before + more)) instructions"
			[ "$now" -ge $((before - more)) ] || fewer="$fewer, $path $now"
		fi
	done < <(grep -v '^#' "$file")
	check_same "each path that is counted has its line in ${file##*/}" "$(cut -f 1 <<<"$counts")" \
		"$(grep -v '^#' "$file" | cut -f 1)"
	[ -z "$fewer" ] || echo "    note    fewer instructions than before${fewer/#,/:}; $again"
}
