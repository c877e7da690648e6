# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# The installed man pages, section 3. Sourced by `run`.

# The names that have a page or refer to one: every function and every type of the headers, and the libraries themselves.
documented_names() {
	header_functions
	"$cc" -E -P "$header" | grep -oE '\block_manager(_[a-z]+)*_t\b' | sort -u
	printf '%s\n' lock_manager lock_manager_etcd
}

# Those that return a code, and so have errors.
failing_functions() {
	"$cc" -E -P "$header" | grep -oE '\bint32_t lock_manager_[a-z0-9_]+ *\(' | grep -oE 'lock_manager_[a-z0-9_]+' | sort -u
}

# pages: those that are no reference to another.
pages() {
	grep -L '^\.so ' "$manual"/man3/lock_manager*.3
}

# section NAME PAGE: its lines, as they stand in the file.
section() {
	awk -v title="$1" '/^\.SH / { inside = ($0 == ".SH " title); next } inside' "$2"
}

# page_of NAME: the file that a name leads to.
page_of() {
	local file=$manual/man3/$1.3 target
	target=$(sed -n 's/^\.so //p' "$file")
	echo "${target:+$manual/}${target:-$file}"
}

check_names_have_pages() {
	local name page without_errors="" unnamed=""
	check_same "each name of the headers has a man page, and no other name" \
		"$(cd "$manual/man3" && printf '%s\n' lock_manager*.3 | sed 's/\.3$//' | sort)" "$(documented_names | sort)"
	for name in $(header_functions); do
		page=$(page_of "$name")
		grep -qE "(^|[ *\"])$name\(" <(section SYNOPSIS "$page") && grep -qwF "$name" <(section NAME "$page") ||
			unnamed+="$name "
	done
	check_same "each function stands in its page's NAME and SYNOPSIS" "$unnamed" ""
	for name in $(failing_functions); do
		errors_of "$name" | grep -qE '^(\\fBE[A-Z]+\\fP|Fails as |Otherwise as )' || without_errors+="$name "
	done
	check_same "each function that can fail has its own errors under ERRORS" "$without_errors" ""
}

# errors_of FUNCTION: what ERRORS says of it, without what it says of every function.
errors_of() {
	local page
	page=$(page_of "$1")
	if grep -qxF ".SS $1()" <(section ERRORS "$page"); then
		section ERRORS "$page" | awk -v title=".SS $1()" '/^\.SS / { inside = ($0 == title); next } inside'
	else
		section ERRORS "$page" | sed '/^Every function/,$d'
	fi
}

# pages_please TOOL ARGUMENT...: that a reader of man pages, which prints warnings and nothing else, prints none. The
# pages have no date: they would be others after each build.
pages_please() {
	local tool=$1 sentence page warnings=""
	sentence="$tool warns of nothing in any man page"
	if ! has "$tool"; then
		skip "$sentence" "there is no $tool"
		return
	fi
	for page in $(pages); do
		warnings+=$("$@" "$page" 2>&1 | grep -v 'missing date, using ""')
	done
	check_same "$sentence" "$warnings" ""
}

check_man_finds_them() {
	local sentence="man finds and formats a page for each name of the headers" name text missing=""
	if ! has man; then
		skip "$sentence" "there is no man"
		return
	fi
	for name in $(documented_names); do
		text=$(MANWIDTH=80 LC_ALL=C man -M "$manual" -P cat 3 "$name" 2>&1) && grep -q '^SYNOPSIS' <<<"$text" ||
			missing+="$name: $text"$'\n'
	done
	check_same "$sentence" "$missing" ""
}

check_man_pages() {
	# This header brings the core's along.
	local manual=$prefix/share/man header=$prefix/include/lock_manager_etcd.h
	group "the man pages"
	check_names_have_pages
	pages_please groff -z -man -ww -Tutf8
	pages_please mandoc -T lint -W warning
	check_man_finds_them
}
