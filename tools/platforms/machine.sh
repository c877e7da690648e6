# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# Sourced by tools/test-platforms: an emulated machine with Debian's kernel, the suites' programs, and nothing else.

# A thousand threads, fifty processes, half a GiB to dump: an emulated machine does not get them going in time.
readonly BEYOND_A_MACHINE="--skip dying_slowly --skip a_thousand_blocked --skip of_fifty_processes --skip waiters_for_many_locks"

# The archive and the suite that this machine itself installs from.
own_archive() {
	apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1
}

# foreign_package PACKAGE: unpacks a package of $debian into $root, in a state directory of its own, so that the machine's
# own list of architectures stays as it is.
foreign_package() {
	local apt=$work/apt/$debian options name=$1
	mkdir -p "$apt"/{lists/partial,archives/partial,debs} "$root"
	: > "$apt/status"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(own_archive) main" \
		> "$apt/sources.list"
	options=(-o APT::Architecture="$debian" -o APT::Architectures="$debian" -o Dir::State="$apt" -o Dir::State::lists="$apt/lists"
		-o Dir::State::status="$apt/status" -o Dir::Cache="$apt" -o Dir::Etc::sourceparts=- -o Dir::Etc::sourcelist="$apt/sources.list"
		-o APT::Sandbox::User=root)
	[ -e "$apt/updated" ] || { apt-get "${options[@]}" update -qq && touch "$apt/updated"; } || return
	case $name in
	linux-image-*) name=$(apt-cache "${options[@]}" depends "$name" | sed -n 's/.*Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1) ;;
	esac
	[ -n "$name" ] && (cd "$apt/debs" && apt-get "${options[@]}" download -qq "$name") || return
	# Of a kernel, itself and what the suites need of its modules.
	for package in "$apt/debs/$name"_*.deb; do
		case $name in
		linux-image-*)
			dpkg-deb --fsys-tarfile "$package" | tar -x -C "$root" --wildcards './boot/vmlinu*' '*/overlay.ko'
			;;
		*) dpkg-deb -x "$package" "$root" ;;
		esac
		rm "$package"
	done
}

# fetch: the kernel and the shell of the machine, once.
fetch() {
	root=$work/apt/$debian/root
	compgen -G "$root/boot/vmlinu*" > /dev/null && [ -e "$root/bin/busybox" ] && return
	foreign_package "$kernel" && foreign_package busybox-static
}

# run_in_machine TARGET
run_in_machine() {
	local entries=() name program library log=$work/logs/$1.run
	if ! fetch > "$work/logs/$1.fetch" 2>&1; then
		report "$1" boot "skipped: $kernel cannot be had from Debian: $(tail -n 1 "$work/logs/$1.fetch")"
		return
	fi
	entries+=("init=$platforms/init" "bin/busybox=$root/bin/busybox")
	for name in sh mount mkdir ln insmod timeout poweroff true sleep cat; do
		entries+=("bin/$name->busybox")
	done
	# A static program brings its own.
	[ -z "$libraries" ] || entries+=("$loader=$libraries/${loader##*/}")
	for library in ${libraries:+libc.so.6 libm.so.6 libgcc_s.so.1}; do
		entries+=("lib/$library=$libraries/$library")
	done
	for name in "$root"/lib/modules/*/kernel/fs/overlayfs/overlay.ko; do
		entries+=("modules/overlay.ko=$name")
	done
	: > "$work/$1.suites"
	while read -r name program; do
		entries+=("tests/$name=$program")
		echo "$name --test-threads=2 $BEYOND_A_MACHINE" >> "$work/$1.suites"
	done < "$work/$1.programs"
	printf 'export SECONDS_FOR_EACH=%s LOCK_MANAGER_STORM_SECONDS=30\n' "$SUITE_SECONDS" > "$work/$1.environment"
	entries+=("suites=$work/$1.suites" "environment=$work/$1.environment" proc/ sys/ etc/)
	"$platforms/initramfs" "$work/$1.initramfs" "${entries[@]}"
	# shellcheck disable=SC2086 # words of a command line
	timeout -s KILL "$MACHINE_SECONDS" $machine -kernel "$root"/boot/vmlinu* -initrd "$work/$1.initramfs" -smp 2 -m 3072 \
		-nographic -no-reboot -net none -append "console=$console panic=-1 quiet" > "$log" 2>&1 < /dev/null || true
	rm -f "$work/$1.initramfs"
	# A serial console ends its lines with both.
	sed -i 's/\r//g' "$log"
	summarise "$1" "$log"
}
