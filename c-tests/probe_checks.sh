# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# The static probes: the files have those of the documentation, and a debugger finds each one in the situation that it
# is for. Sourced by `run`.

# probes_of FILE: the names of the probes in a file, each as often as it is there.
probes_of() {
	LC_ALL=C readelf -n "$1" 2>/dev/null | awk '/Provider: / { ours = $2 == "lock_manager" } /Name: / && ours { print $2 }' | sort
}

# The first column of the table in docs/diagnosing.md, and how many arguments each row names.
documented_probes() {
	sed -n '/^| probe | arguments |/,/^$/s/^| `\([a-z_]*\)` | \([^|]*\) |.*/\1 \2/p' "$here/../docs/diagnosing.md" |
		awk '{ print $1, gsub(/`[a-z_]+`/, "") }' | sort
}

# probes_with_counts FILE: the same of a file.
probes_with_counts() {
	LC_ALL=C readelf -n "$1" 2>/dev/null |
		awk '/Provider: / { ours = $2 == "lock_manager" } /Name: / { name = $2 } /Arguments: / && ours { print name, NF - 1 }' |
		sort
}

# distance_in_file SECTION: how much further on than in the file a section of the shared library is in memory.
distance_in_file() {
	LC_ALL=C readelf -SW "$shared" | sed -n 's/^ *\[ *[0-9]*\] //p' |
		while read -r name _ address offset _; do
			if [ "$name" = "$1" ]; then
				echo $((0x$address - 0x$offset))
			fi
		done
}

check_notes() {
	check_same "the shared library has the documented probes, each in one place, and no other" \
		"$(probes_with_counts "$shared")" "$(documented_probes)"
	check_same "perf finds them: the base of the notes lies in the file as the code does" \
		"$(distance_in_file .stapsdt.base)" "$(distance_in_file .text)"
	local program
	for program in life-static life-fully-static; do
		if [ -e "$build/$program" ]; then
			check_same "a program has the same probes: $program" "$(probes_of "$build/$program")" "$(probes_of "$shared")"
		fi
	done
}

# debugger_script SITUATION: prints each probe as `hit NAME ARGUMENT...` and goes on. The library is there once main() has
# begun.
debugger_script() {
	local name count arguments
	printf '%s\n' 'set pagination off' 'set confirm off' 'handle SIGUSR1 nostop noprint pass' 'handle SIGALRM nostop noprint pass' \
		'tbreak main' "run $1 >'$build/probes.out'"
	while read -r name count; do
		arguments=$(seq -s ' ' -f ',$_probe_arg%.0f' 0 $((count - 1)) | tr -d ' ')
		printf '%s\n' "break -probe-stap lock_manager:$name" commands silent \
			"printf \"hit $name$(printf ' %%ld%.0s' $(seq "$count"))\\n\"$arguments" continue end
	done < <(probes_with_counts "$shared")
	if [ "$1" = a_claim_is_left ]; then
		printf '%s\n' 'break about_to_claim' commands silent end continue
		# Each time a signal comes one instruction earlier.
		seq -f 'stepi %.0f
signal SIGUSR1' 160 -1 1
	else
		echo continue
	fi
}

# check_situation LAYOUT SITUATION: runs a situation in the debugger, and compares what it expects with what was hit. Each
# pattern must match a hit, and no other probe may be hit.
check_situation() {
	local layout=$1 situation=$2 output told pattern line found missing="" expected allowed hit
	local sentence="the probes tell of: $situation, $layout layout"
	debugger_script "$situation" >"$build/probes.gdb"
	output=$(LOCK_MANAGER_TEST_LAYOUT=$layout DEBUGINFOD_URLS='' timeout -k 5 "$program_seconds" \
		gdb -nx -q -batch -x "$build/probes.gdb" "$build/probes" 2>&1)
	told=$(cat "$build/probes.out")
	if ! grep -q '^    ok  ' <<<"$told"; then
		fail "$sentence" "$told"$'\n'"$output"
		return
	fi
	hit=$(grep '^hit ' <<<"$output" | sort -u)
	shopt -s extglob
	while read -r _ pattern; do
		found=0
		while read -r _ line; do
			# shellcheck disable=SC2053 # a pattern
			if [[ $line == $pattern ]]; then
				found=1
			fi
		done <<<"$hit"
		[ "$found" = 1 ] || missing+="$pattern"$'\n'
	done < <(grep '^expect ' <<<"$told")
	expected=$(sed -n 's/^expect \([a-z_]*\) .*/\1/p' <<<"$told" | sort -u)
	if [ -n "$missing" ]; then
		fail "$sentence" "not hit: $missing"$'\n'"hit: $hit"
	else
		# Those that are allowed count as hit and as expected.
		allowed=$(sed -n 's/^allow //p' <<<"$told")
		check_same "$sentence" "$(printf '%s\n' "$(cut -d ' ' -f 2 <<<"$hit")" "$allowed" | sort -u)" \
			"$(printf '%s\n' "$expected" "$allowed" | sort -u)"
	fi
}

check_probes() {
	local sentence="a debugger finds each probe in the situation that it is for" why situation
	group "the static probes"
	check_notes
	build_c probes probes.c "${libs[@]}" || return
	if ! has gdb; then
		skip "$sentence" "there is no gdb"
		return
	fi
	if ! why=$(gdb -nx -q -batch -ex run --args "$(type -P true)" 2>&1) || ! grep -q 'exited normally' <<<"$why"; then
		skip "$sentence" "gdb may trace no process here: $(tail -n 1 <<<"$why")"
		return
	fi
	for situation in nobody_waits a_thread_holds a_reader_waits a_process_was_killed a_thread_vanished a_thread_is_exiting \
		two_threads_deadlock a_segment_grows a_writer_drains libpod_holds a_backend_is_waited_for a_wait_is_left a_claim_is_left; do
		check_situation native "$situation"
	done
	for situation in nobody_waits a_thread_holds; do
		check_situation libpod "$situation"
	done
}
