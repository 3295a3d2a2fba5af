#!/usr/bin/env bash
#
# source.sh
#	Prints the path of an unpacked source tree of PostgreSQL 15: that of the installed
#	server's Debian source package; where that cannot be had, of the newest 15 that
#	the archive has.  SOURCE=dir: that one.  It is kept in build/postgresql.
#
# The archives are those of the system's own apt configuration, which stays as it is.
#
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
place=$PWD/build/postgresql

die() { echo "source: $*" >&2; exit 1; }

# The system's own package sources, as sources of source packages, in a private place.
apt_with_sources() {	# folder
	local f
	mkdir -p "$1/parts" "$1/lists/partial" "$1/cache/archives/partial"
	for f in /etc/apt/sources.list.d/*.sources; do
		[ -r "$f" ] && sed -E 's/^Types:.*/Types: deb-src/' "$f" >"$1/parts/$(basename "$f")"
	done
	cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
		sed -nE 's/^[[:space:]]*deb[[:space:]]+/deb-src /p' >"$1/parts/all.list"
	apt=(-q -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$1/parts"
		-o "Dir::State::lists=$1/lists" -o "Dir::Cache=$1/cache" -o APT::Get::List-Cleanup=0)
	[ "$(id -u)" = 0 ] && apt+=(-o APT::Sandbox::User=root)
}

fetch() {
	local version older
	version=$(dpkg-query -W -f '${source:Version}' postgresql-15 2>/dev/null)
	rm -rf "$place"
	mkdir -p "$place"
	apt_with_sources "$place/apt"
	cd "$place" || exit 1
	apt-get "${apt[@]}" update
	apt-get "${apt[@]}" source --only-source "postgresql-15=$version" && return
	echo "source: no source package of $version, trying older ones"
	for older in $(apt-cache "${apt[@]}" showsrc postgresql-15 2>/dev/null | sed -n 's/^Version: //p' | sort -Vru); do
		[ "$older" != "$version" ] &&
			apt-get "${apt[@]}" source --only-source "postgresql-15=$older" && return
	done
	return 1
}

find_tree() { find "$place" -mindepth 1 -maxdepth 1 -type d -name 'postgresql-15-*' 2>/dev/null | head -n 1; }

tree=${SOURCE:-$(find_tree)}
if [ -z "$tree" ]; then
	mkdir -p build
	(fetch) >build/source.log 2>&1 ||
		{ sed 's/^/# /' build/source.log >&2; die "no source package of PostgreSQL 15; set SOURCE=dir"; }
	rm -rf "$place/apt"
	tree=$(find_tree)
fi
[ -f "$tree/src/test/regress/parallel_schedule" ] || die "\"$tree\" is no PostgreSQL source tree"
echo "$tree"
