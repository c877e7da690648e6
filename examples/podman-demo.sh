#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# A running Podman and this library share one segment. The script runs in a mount namespace and a PID namespace of its own,
# with its own /dev/shm and storage, which end with it, so it touches no container, volume or lock of the host. For an
# ordinary user it also makes a user namespace, in which the user is root.
#
#     examples/podman-demo.sh PATH-OF-THE-PROGRAM-SEGMENT PATH-OF-LOCKCTL
set -eu

MOST_SECONDS=60

skip() {
    cat <<END
skipped: $1
With a real Podman you would see this. Three volumes and a pod take locks of Podman's segment. Another process holds one of
them, and lockctl names the Podman that waits for it. The holder is killed, and Podman gets the lock and continues.
To see it: $2
END
    exit 0
}

say() {
    printf '\n%s\n' "$*"
}

until_true() {
    tries=500
    until "$@"; do
        tries=$((tries - 1))
        if [ "$tries" -eq 0 ]; then
            echo "podman-demo: waited in vain for: $*" >&2
            exit 1
        fi
        sleep 0.02
    done
}

# Only looks at what the host has. Then the script starts again inside the namespaces.
outside() {
    usage="usage: podman-demo.sh PATH-OF-THE-PROGRAM-SEGMENT PATH-OF-LOCKCTL"
    segment=$(realpath -e -- "${1:?$usage}")
    lockctl=$(realpath -e -- "${2:?$usage}")
    if [ -r /dev/shm/libpod_lock ]; then
        echo "The segment of this host's Podman, opened read only:"
        "$segment" /libpod_lock || echo "(not readable by this library)"
        echo
    fi
    command -v podman >/dev/null ||
        skip "podman is not installed" "as root, \`make demo\` installs it; or \`apt-get install podman\`"
    own_world=$(dirname -- "$(realpath -e -- "$0")")/../tools/own-world
    why=$("$own_world" --pids true 2>&1) ||
        skip "$why" "run it as root, or as a user who may create user namespaces, outside of a chroot or container that forbids them"
    exec env -i PATH="$PATH" LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}" \
        timeout "$MOST_SECONDS" "$own_world" --pids sh "$(realpath -e -- "$0")" --inside "$segment" "$lockctl"
}

# Whether a thread of process $1 sleeps in futex(2) on an address in the first page of the segment, which has locks 0 to 96.
sleeps_in_segment() {
    page=$(sed -n 's/^\([0-9a-f]*\)000-.*libpod_lock$/\1/p' "/proc/$1/maps")
    [ -n "$page" ] && grep -q " 0x${page}[0-9a-f]\{3\} " "/proc/$1"/task/*/syscall 2>/dev/null
}

is_held() {
    "$segment" /libpod_lock | grep -q 'is held by pid'
}

inside() {
    segment=$1
    lockctl=$2
    home=/dev/shm/podman
    mkdir "$home"
    printf '[engine]\nevents_logger = "none"\n[network]\nnetwork_config_dir = "%s/networks"\n' "$home" \
        >"$home/containers.conf"
    printf '[storage]\ndriver = "vfs"\ngraphroot = "%s/root"\nrunroot = "%s/run"\n' "$home" "$home" >"$home/storage.conf"
    export HOME="$home" TMPDIR="$home"
    export CONTAINERS_CONF="$home/containers.conf" CONTAINERS_STORAGE_CONF="$home/storage.conf"
    podman="podman --root $home/root --runroot $home/run --tmpdir $home/tmp"

    echo "Podman creates three volumes and a pod. Each takes a lock of Podman's segment:"
    for volume in web data logs; do
        $podman volume create "$volume" >/dev/null
    done
    $podman pod create --infra=false shop >/dev/null
    "$segment" /libpod_lock

    say "Another process holds lock 1, the lock of the volume data, and Podman tries to remove that volume:"
    "$segment" /libpod_lock hold 1 sleep 1000 &
    holder=$!
    until_true is_held
    $podman volume rm data >/dev/null &
    remover=$!
    until_true sleeps_in_segment "$remover"
    "$segment" /libpod_lock

    say "lockctl names both. It finds Podman's thread by the futex call in which that thread sleeps:"
    "$lockctl" graph /libpod_lock 2>/dev/null
    say "The same as a table:"
    "$lockctl" list -o id,state,pid,waiters,waiting-pids /libpod_lock 2>/dev/null

    say "SIGKILL ends the holder, pid $holder. Podman gets the lock and continues:"
    kill -KILL "$holder"
    wait "$remover"
    "$segment" /libpod_lock
    echo "  volumes left: $($podman volume ls --quiet | sort | tr '\n' ' ')"

    say "Another process is killed while it holds lock 2, the lock of the volume logs, and nobody waits:"
    "$segment" /libpod_lock hold 2 sh -c 'kill -KILL $PPID' 2>/dev/null || true
    "$segment" /libpod_lock
    $podman volume rm logs >/dev/null
    echo "Podman removes that volume even so:"
    "$segment" /libpod_lock
}

if [ "${1:-}" = --inside ]; then
    inside "$2" "$3"
else
    outside "$@"
fi
