# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# The library of the locks in etcd, as installed beside the core. Sourced by `run`.

# The functions that its header adds to the core's.
etcd_functions() {
	comm -13 <(header_functions) <(header=$etcd_header header_functions)
}

check_etcd_header() {
	group "the header of the locks in etcd"
	local cflags=("${etcd_cflags[@]}") libs=("${etcd_libs[@]}") alone=etcd_header_alone.c
	header_compiles gcc c c99
	header_compiles gcc c c11
	header_compiles g++ c++ c++17
	header_compiles clang c c99
	header_compiles clang++ c++ c++17
}

check_etcd_shared_object() {
	local shared=$libdir/liblock_manager_etcd.so
	group "the shared library of the locks in etcd"
	check_same "it exports exactly the functions of its header" "$(exported_symbols)" "$(etcd_functions)"
	check_same "its soname is that of all 0.x" "$(dynamic_entries SONAME)" "Library soname: [liblock_manager_etcd.so.0]"
	check_same "it is found under its soname and under the name that linkers look for" \
		"$(readlink -f "$shared")" "$(readlink -f "$libdir/liblock_manager_etcd.so.0")"
	check_that "it stays mapped after dlclose" grep -qw NODELETE <<<"$(dynamic_entries FLAGS_1)"
	check_same "its code is not relocated" "$(dynamic_entries TEXTREL)$(dynamic_entries FLAGS | grep -w TEXTREL)" ""
	check_same "it asks for no executable stack" "$(stack_flags)" "RW"
	check_same "no memory of it is writable and executable" "$(writable_code)" ""
	check_same "it looks for no library in a path of its own" "$(dynamic_entries RPATH)$(dynamic_entries RUNPATH)" ""
	check_same "beside the compiler's and the C library it needs the core alone" \
		"$(dynamic_entries NEEDED | grep -vE '\[(libc|libm|libpthread|libdl|librt|libutil|libgcc_s|ld-linux.*)\.so')" \
		"Shared library: [liblock_manager.so.0]"
}

check_etcd_pkg_config() {
	group "lock_manager_etcd.pc"
	check_that "it is valid" pkg-config --validate lock_manager_etcd
	check_same "its version is the header's" "$(pkg-config --modversion lock_manager_etcd)" "$(header_version)"
	check_that "it brings the core along" grep -q -- -llock_manager\\b <<<"${etcd_libs[*]} "
}

# is_free HOST PORT: whether nobody listens there.
is_free() {
	! (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null
}

# A cluster of one member, which clean_up ends. It listens in a part of loopback that is this process's alone: another
# run may look for a port at the same time. A process id has 22 bits.
start_etcd() {
	local port=20000 host=127.$(($$ >> 14)).$(($$ >> 6 & 255)).$(($$ << 2 & 255))
	until is_free "$host" "$port" && is_free "$host" $((port + 1)); do
		port=$((port + 2))
	done
	local client=http://$host:$port peer=http://$host:$((port + 1))
	etcd --data-dir "$build/etcd-data" --listen-client-urls "$client" --advertise-client-urls "$client" \
		--listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
		--initial-cluster "default=$peer" >"$build/etcd.log" 2>&1 &
	etcd_pid=$!
	etcd_address=etcd://$host:$port/c-tests
}

end_etcd() {
	if [ -n "${etcd_pid:-}" ]; then
		kill -KILL "$etcd_pid"
		wait "$etcd_pid" 2>/dev/null
		etcd_pid=
	fi
}

check_etcd_programs() {
	local etcd_address
	check_that "etcd.c builds" "$cc" -std=c11 -O1 -g -D_GNU_SOURCE "${warnings[@]}" "${etcd_cflags[@]}" "$here/etcd.c" \
		-o "$build/etcd" "${etcd_libs[@]}" || return
	run_tests "locks in etcd, without a server" "$build/etcd"
	if ! has etcd; then
		skip "the life of a lock in etcd" "there is no etcd, which is in Debian's etcd-server"
		return
	fi
	start_etcd
	run_tests "the life of a lock in etcd" "$build/etcd" "$etcd_address"
	end_etcd
}

check_etcd() {
	local etcd_header=$prefix/include/lock_manager_etcd.h
	local -a etcd_cflags etcd_libs
	flags_of lock_manager_etcd etcd_cflags --cflags
	flags_of lock_manager_etcd etcd_libs --libs
	check_etcd_header
	check_etcd_shared_object
	check_etcd_pkg_config
	check_etcd_programs
}
