# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# Sourced by tools/test-platforms: nothing hangs, and nothing outlives the script.

# The suites and the emulators are process groups of their own: timeout makes them so.
running=''
# The segments of this run, which programs that were killed leave behind, and the files of its machines.
readonly segments=/dev/shm/lm-test-platforms-$$
end_running() {
	[ -z "$running" ] || kill -KILL -- "-$running" 2> /dev/null || true
	rm -f "$segments"-* "$work"/*.initramfs
}
trap end_running EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# limited SECONDS COMMAND...: ends it after that time, and when this script ends, whatever ends it.
limited() {
	local seconds=$1 status=0
	shift
	setpriv --pdeathsig KILL timeout -s KILL "$seconds" setpriv --pdeathsig KILL "$@" < /dev/null 9>&- &
	running=$!
	wait "$running" || status=$?
	running=''
	return "$status"
}

# A server that does not answer is asked once more.
readonly APT_OPTIONS=(-o Acquire::http::Timeout=30 -o Acquire::https::Timeout=30 -o Acquire::Retries=1 -o DPkg::Lock::Timeout=120)

# fetching COMMAND...: within what is left of FETCH_SECONDS, which all that is fetched shares.
fetched_for=0
fetching() {
	local left=$((FETCH_SECONDS - fetched_for)) start=$SECONDS status=0
	if [ "$left" -le 0 ]; then
		echo "not fetched: fetching has taken $FETCH_SECONDS s already"
		return 1
	fi
	limited "$left" "$@" || status=$?
	fetched_for=$((fetched_for + SECONDS - start))
	[ "$fetched_for" -lt "$FETCH_SECONDS" ] || echo "fetching was ended after $FETCH_SECONDS s"
	return "$status"
}

last_line() { tail -n 1 "$1"; }
