# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# Sourced by tools/test-platforms: an emulated machine with Debian's kernel, the programs of the tests, and nothing else.

# A thousand threads, fifty processes, waits for a hundred locks, half a GiB to dump: an emulated machine does not get them
# going in time.
readonly BEYOND_A_MACHINE="--skip dying_slowly --skip a_thousand_blocked --skip of_fifty_processes --skip waiters_for_many_locks \
	--skip waits_for_a_hundred_locks"

# The archive that this machine itself installs from, and the suite: $release, or this machine's own.
own_archive() {
	local archive codename
	read -r archive codename < <(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' \
		'Origin: Debian' 'Label: Debian' | head -n 1) && echo "$archive ${release:-$codename}"
}

# foreign_package PACKAGE: unpacks a package of $debian into $root, in a state directory of its own, so that the machine's
# own list of architectures stays as it is. $fetched says whether it could be had, where it fails.
foreign_package() {
	fetched=no
	local apt=$work/apt/$debian options name=$1 archive
	mkdir -p "$apt"/{lists/partial,archives/partial,debs} "$root"
	: > "$apt/status"
	if ! archive=$(own_archive); then
		echo "apt-get knows no archive of Debian"
		return 1
	fi
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive main" > "$apt/sources.list"
	options=("${APT_OPTIONS[@]}" -o APT::Architecture="$debian" -o APT::Architectures="$debian" -o Dir::State="$apt"
		-o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt" -o Dir::Etc::sourceparts=-
		-o Dir::Etc::sourcelist="$apt/sources.list" -o APT::Sandbox::User=root)
	[ -e "$apt/updated" ] || { fetching apt-get "${options[@]}" update -qq --error-on=any && touch "$apt/updated"; } || return
	case $name in
	linux-image-*) name=$(apt-cache "${options[@]}" depends "$name" | sed -n 's/.*Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1) ;;
	esac
	if [ -z "$name" ]; then
		echo "$archive has no $1 for $debian"
		return 1
	fi
	if ! fetching env -C "$apt/debs" apt-get "${options[@]}" download -qq "$name"; then
		# The lists may be older than what the archive has now.
		rm -f "$apt/updated"
		return 1
	fi
	fetched=yes
	for package in "$apt/debs/$name"_*.deb; do
		case $name in
		linux-image-*) unpack_kernel "$package" ;;
		*) dpkg-deb -x "$package" "$root" ;;
		esac || return
		rm "$package"
	done
}

# unpack_kernel PACKAGE: the kernel, and what the suites need of its modules.
unpack_kernel() {
	(
		set -o pipefail
		dpkg-deb --fsys-tarfile "$1" | tar -x -C "$root" --wildcards './boot/vmlinu*' '*/overlay.ko*'
	) && find "$root" -name '*.ko.xz' -exec xz -d {} +
}

# Where Debian's package has it: /usr/bin since Debian 13.
busybox() { find "$root" -path '*/bin/busybox'; }

# fetch: the kernel and the shell of the machine, once.
fetch() {
	root=$work/apt/$debian/root
	[ ! -e "$root/complete" ] || return 0
	# What a run that was ended has left may be half of it.
	rm -rf "$root" "$work/apt/$debian/debs"
	foreign_package "$kernel" && foreign_package busybox-static && [ -e "$(busybox)" ] && touch "$root/complete"
}

# boot TARGET
boot() {
	# shellcheck disable=SC2086 # a list of packages
	if ! install $emulator; then
		report "$1" machine "skipped: $why"
	elif ! fetch > "$work/logs/$1.fetch" 2>&1; then
		case $fetched in
		yes) report "$1" machine "failed: it cannot be unpacked; see $work/logs/$1.fetch" ;;
		no) report "$1" machine "skipped: $kernel cannot be had from Debian: $(last_line "$work/logs/$1.fetch")" ;;
		esac
	else
		run_in_machine "$1"
	fi
}

# into_machine FILE: at its own path there.
into_machine() { entries+=("${1#/}=$1"); }

# suite NAME PROGRAM ARGUMENT...: a line for the machine's first process.
suite() {
	entries+=("tests/$1=$2")
	echo "$1 ${*:3}" >> "$suites_of_machine"
}

# add_programs TARGET: what else runs there than the library's suites in Rust, once the library is there as a shared one.
add_programs() {
	local built=$work/build/$rust/debug program
	entries+=("lib/liblock_manager.so.0=$built/liblock_manager.so")
	if wants together; then
		rm -f "$work/neighbour-$1"
		told "$1" "a program in C" compile_neighbour "$work/neighbour-$1" "$linker" -L"$built" -llock_manager
		if [ -e "$work/neighbour-$1" ]; then
			entries+=("tests/neighbour=$work/neighbour-$1" "tests/share=$platforms/share")
			! has_libpod "$1" "$linker" || entries+=("tests/libpod=$work/libpod-$1")
			suite together "$platforms/together"
		fi
	fi
	if wants go && build_go "$1"; then
		entries+=("tests/go.test=$work/go-$1/go.test" "lock_manager/include/lock_manager.h=$here/include/lock_manager.h"
			"lock_manager/src/error/sentence.rs=$here/src/error/sentence.rs" lock_manager/go/)
		suite go "$platforms/go_suite" /lock_manager/go /tests/go.test
	fi
	if wants lockctl && build_lockctl "$1"; then
		into_machine "$built/lockctl"
		read -r _ program < "$work/$1.lockctl"
		suite lockctl "$program" --test-threads=2
	fi
}

# run_in_machine TARGET
run_in_machine() {
	local entries=() suites_of_machine=$work/$1.suites name program library start log=$work/logs/$1.run
	: > "$suites_of_machine"
	entries+=("init=$platforms/init" "bin/busybox=$(busybox)")
	for name in sh mount mkdir ln insmod timeout poweroff true sleep cat cp switch_root rm mktemp tee tail grep \
		kill env ls chmod echo install; do
		entries+=("bin/$name->busybox")
	done
	entries+=("bin/unshare=$platforms/unshare")
	while read -r name; do
		entries+=("modules/overlay.ko=$name")
	done < <(find "$root" -name overlay.ko)
	while read -r name program; do
		# shellcheck disable=SC2086 # words
		suite "$name" "$program" --test-threads=2 $WITHOUT_ETCD $BEYOND_A_MACHINE
	done < "$work/$1.programs"
	# Which a suite compares with what there is.
	into_machine "$work/tree/docs/segment-format.md"
	# A static program brings its libc, and nothing for it can be compiled in C.
	if [ -n "$libraries" ]; then
		entries+=("$loader=$libraries/${loader##*/}")
		for library in libc.so.6 libm.so.6 libgcc_s.so.1; do
			entries+=("lib/$library=$libraries/$library")
		done
		add_programs "$1"
	fi
	printf 'export SECONDS_FOR_EACH=%s LOCK_MANAGER_STORM_SECONDS=30 LOCK_MANAGER_TEST_TIME_FACTOR=%s\n' "$SUITE_SECONDS" \
		"$EMULATED_FACTOR" > "$work/$1.environment"
	entries+=("suites=$suites_of_machine" "environment=$work/$1.environment" proc/ sys/ etc/)
	"$platforms/initramfs" "$work/$1.initramfs" "${entries[@]}"
	start=$SECONDS
	# shellcheck disable=SC2086 # words of a command line
	limited "$MACHINE_SECONDS" $machine -kernel "$root"/boot/vmlinu* -initrd "$work/$1.initramfs" -smp 2 -m 3072 \
		-nographic -no-reboot -net none -append "console=$console panic=-1 quiet" > "$log" 2>&1 || true
	rm -f "$work/$1.initramfs"
	# A serial console ends its lines with both.
	sed -i 's/\r//g' "$log"
	report "$1" machine "off after $((SECONDS - start)) s"
	summarise "$1" "$log" "$suites_of_machine"
}
