# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# Sourced by tools/test-platforms: an emulated machine with Debian's kernel, the suites' programs, and nothing else.

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
# own list of architectures stays as it is.
foreign_package() {
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
	# Of a kernel, itself and what the suites need of its modules.
	for package in "$apt/debs/$name"_*.deb; do
		case $name in
		linux-image-*)
			dpkg-deb --fsys-tarfile "$package" | tar -x -C "$root" --wildcards './boot/vmlinu*' '*/overlay.ko*'
			find "$root/lib/modules" "$root/usr/lib/modules" -name '*.ko.xz' -exec xz -d {} + 2> /dev/null || true
			;;
		*) dpkg-deb -x "$package" "$root" ;;
		esac || return
		rm "$package"
	done
}

# Where Debian's package has it: /usr/bin since Debian 13.
busybox() { find "$root" -path '*/bin/busybox'; }

# fetch: the kernel and the shell of the machine, once.
fetch() {
	root=$work/apt/$debian/root
	compgen -G "$root/boot/vmlinu*" > /dev/null && [ -e "$(busybox)" ] && return
	foreign_package "$kernel" && foreign_package busybox-static
}

# boot TARGET
boot() {
	# shellcheck disable=SC2086 # a list of packages
	if ! install $emulator; then
		report "$1" machine "skipped: $why"
	elif ! fetch > "$work/logs/$1.fetch" 2>&1; then
		report "$1" machine "skipped: $kernel cannot be had from Debian: $(last_line "$work/logs/$1.fetch")"
	else
		run_in_machine "$1"
	fi
}

# run_in_machine TARGET
run_in_machine() {
	local entries=() name program library start log=$work/logs/$1.run
	entries+=("init=$platforms/init" "bin/busybox=$(busybox)")
	for name in sh mount mkdir ln insmod timeout poweroff true sleep cat cp switch_root; do
		entries+=("bin/$name->busybox")
	done
	entries+=("bin/unshare=$platforms/unshare")
	# A static program brings its own.
	[ -z "$libraries" ] || entries+=("$loader=$libraries/${loader##*/}")
	for library in ${libraries:+libc.so.6 libm.so.6 libgcc_s.so.1}; do
		entries+=("lib/$library=$libraries/$library")
	done
	while read -r name; do
		entries+=("modules/overlay.ko=$name")
	done < <(find "$root" -name overlay.ko)
	: > "$work/$1.suites"
	while read -r name program; do
		entries+=("tests/$name=$program")
		echo "$name --test-threads=2 $WITHOUT_ETCD $BEYOND_A_MACHINE" >> "$work/$1.suites"
	done < "$work/$1.programs"
	printf 'export SECONDS_FOR_EACH=%s LOCK_MANAGER_STORM_SECONDS=30\n' "$SUITE_SECONDS" > "$work/$1.environment"
	entries+=("suites=$work/$1.suites" "environment=$work/$1.environment" proc/ sys/ etc/)
	"$platforms/initramfs" "$work/$1.initramfs" "${entries[@]}"
	start=$SECONDS
	# shellcheck disable=SC2086 # words of a command line
	limited "$MACHINE_SECONDS" $machine -kernel "$root"/boot/vmlinu* -initrd "$work/$1.initramfs" -smp 2 -m 3072 \
		-nographic -no-reboot -net none -append "console=$console panic=-1 quiet" > "$log" 2>&1 || true
	rm -f "$work/$1.initramfs"
	# A serial console ends its lines with both.
	sed -i 's/\r//g' "$log"
	report "$1" machine "off after $((SECONDS - start)) s"
	summarise "$1" "$log"
}
