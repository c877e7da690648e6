#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Three members of etcd on loopback, and what becomes of a holder that is killed and of one that is paused. All that it
# starts ends with it, by its id.
# usage: etcd-demo.sh ETCD_EXAMPLE
set -eu

readonly program=$1
scratch=$(mktemp -d)
started=()
before=$(ls -d /dev/shm/lock_manager-etcd-"$(id -u)"-* 2> /dev/null || true)

# Whether some process has mapped a file.
is_used() { cat /proc/[0-9]*/maps 2> /dev/null | grep -qF "$1"; }

# Every child of this script is waited for.
end() {
    local pid
    for pid in "${started[@]}"; do
        kill -KILL "$pid" 2> /dev/null || true
    done
    wait 2> /dev/null
    rm -rf "$scratch"
    # The native locks of the hosts that this was: what came since, except what others use by now.
    local file
    for file in /dev/shm/lock_manager-etcd-"$(id -u)"-*; do
        grep -qxF "$file" <<< "$before" || is_used "$file" || rm -f "$file"
    done
}
trap end EXIT

say() { printf '\n%s\n' "$1"; }

# Nobody listens there.
is_free() { ! (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null; }

# until_said FILE WORDS
until_said() {
    local rounds=0
    until grep -q "$2" "$1" 2> /dev/null; do
        sleep 0.05
        rounds=$((rounds + 1))
        [ $rounds -lt 600 ] || { echo "nothing came of it: $2" >&2; cat "$1" >&2; exit 1; }
    done
}

base=23700
# For clients, and for the other members.
all_are_free() {
    local i
    for i in 0 1 2; do
        is_free $((base + i)) && is_free $((base + 100 + i)) || return
    done
}
until all_are_free; do
    base=$((base + 200))
done
url() { echo "http://127.0.0.1:$1"; }
cluster=$(for i in 0 1 2; do printf 'm%d=%s,' $i "$(url $((base + 100 + i)))"; done)

echo "Three members of etcd start."
for i in 0 1 2; do
    etcd --name m$i --data-dir "$scratch/m$i" --initial-cluster "${cluster%,}" \
        --listen-client-urls "$(url $((base + i)))" --advertise-client-urls "$(url $((base + i)))" \
        --listen-peer-urls "$(url $((base + 100 + i)))" --initial-advertise-peer-urls "$(url $((base + 100 + i)))" \
        > "$scratch/m$i.log" 2>&1 &
    started+=($!)
done
address=etcd://127.0.0.1:$base,127.0.0.1:$((base + 1)),127.0.0.1:$((base + 2))/demo

say "Two hosts add 1 to a register, one after the other:"
"$program" "$address" host-a "$scratch/register"
"$program" "$address" host-b "$scratch/register"

say "host-a is killed while it holds the lock. Its lease is 2 seconds, and then the next is told:"
"$program" "$address" host-a "$scratch/register" hold > "$scratch/killed" &
victim=$!
started+=($victim)
until_said "$scratch/killed" "holds lock"
cat "$scratch/killed"
kill -KILL $victim
{ wait $victim; } 2> /dev/null || true
"$program" "$address" host-b "$scratch/register"

say "host-c reads the register and is paused for longer than its lease. host-a gets the lock meanwhile:"
"$program" "$address" host-c "$scratch/register" pause > "$scratch/paused" &
victim=$!
started+=($victim)
until_said "$scratch/paused" "is paused"
cat "$scratch/paused"
"$program" "$address" host-a "$scratch/register"

say "host-c is continued, and believes that it holds the lock. The register checks its token:"
kill -CONT $victim
wait $victim || true
tail -n +3 "$scratch/paused"

say "Nothing was lost: the register has counted every write that it took."
