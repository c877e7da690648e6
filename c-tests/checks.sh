# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# What the parts of `run` count with. Sourced by it.

passed=0
failed=0
skipped=0

group() {
	echo "$1"
}

# ok SENTENCE
ok() {
	passed=$((passed + 1))
	echo "    ok      $1"
}

# fail SENTENCE [WHY]
fail() {
	failed=$((failed + 1))
	echo "    FAILED  $1"
	[ -z "${2:-}" ] || printf '%s\n' "$2" >&2
}

# skip SENTENCE REASON
skip() {
	skipped=$((skipped + 1))
	echo "    skipped $1"
	echo "skipped: $1: $2" >&2
}

# check_same SENTENCE ACTUAL EXPECTED
check_same() {
	if [ "$2" = "$3" ]; then
		ok "$1"
	else
		fail "$1" "$(diff <(printf '%s\n' "$3") <(printf '%s\n' "$2") | sed -n 's/^</expected:/p; s/^>/actual:  /p')"
	fi
}

# check_that SENTENCE COMMAND...: passes if the command does; what it prints is shown if it does not.
check_that() {
	local sentence=$1 output
	shift
	if output=$("$@" 2>&1); then
		ok "$sentence"
	else
		fail "$sentence" "$* failed:"$'\n'"$output"
		return 1
	fi
}

# has TOOL
has() {
	command -v "$1" >/dev/null 2>&1
}

# run_tests NAME COMMAND...: a test program. It prints a line for each test, and at its end how many there were; one
# that ends early is a failure besides those that it has told of.
run_tests() {
	local name=$1 output code failures
	shift
	group "$name"
	output=$(timeout -k 5 "$program_seconds" "$@")
	code=$?
	grep -v '^tests: ' <<<"$output"
	failures=$(grep -c '^    FAILED  ' <<<"$output")
	if grep -qx 'tests: 0' <<<"$output"; then
		fail "$name runs a test" "$name has none"
	fi
	passed=$((passed + $(grep -c '^    ok      ' <<<"$output")))
	skipped=$((skipped + $(grep -c '^    skipped ' <<<"$output")))
	failed=$((failed + failures))
	if ! grep -qx "tests: $(grep -cE '^    (ok|FAILED|skipped) ' <<<"$output")" <<<"$output"; then
		fail "$name runs to its end" "$name ended early, with exit status $code"
	elif [ "$failures" = 0 ] && [ "$code" != 0 ]; then
		fail "$name succeeds if its tests do" "$name ended with exit status $code"
	fi
	if compgen -G "/dev/shm/$LOCK_MANAGER_TEST_PREFIX-*" >/dev/null; then
		fail "$name leaves nothing in /dev/shm" "$(ls "/dev/shm/$LOCK_MANAGER_TEST_PREFIX"-*)"
		rm -rf "/dev/shm/$LOCK_MANAGER_TEST_PREFIX"-*
	fi
}

# flags ARRAY ARGUMENT...: what pkg-config says, as words. Without -r, because it puts a backslash before a blank.
flags() {
	flags_of lock_manager "$@"
}

# flags_of LIBRARY ARRAY ARGUMENT...
flags_of() {
	local library=$1
	local -n words=$2
	shift 2
	# shellcheck disable=SC2162
	read -a words <<<"$(pkg-config "$@" "$library")"
}
