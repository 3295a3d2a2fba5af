#!/usr/bin/env bash
#
# deps.sh [build|test|long|server]
#	Installs the Debian packages that are missing and makes libraft available.
#
# "build" (the default) brings what compiles and runs QuantaDB, "test" also what
# only the tests use, "long" what only the long ones do, "server" what builds PostgreSQL itself
# (check_server.sh).  apt-get runs only when a package is missing, as root or through sudo.
#
# libraft has to be 0.22 or newer: older ones lack the interface that our I/O
# is written for.  Where the system's own is older, the source package of a
# newer Debian release is fetched from the mirror that this system already uses,
# with a private apt configuration below build/raft, verified with Debian's archive
# keyring, and linked statically.  The system's apt configuration stays as it is.
#
# Result: build/deps.mk with RAFT_CFLAGS and RAFT_LIBS, relative to the top.
#
set -euo pipefail
cd "$(dirname "$0")/../.."
level=${1:-build}
raft_suite=${RAFT_SUITE:-trixie}
raft_min=2200

say() { printf '%s\n' "deps: $*"; }
die() { printf '%s\n' "deps: $*" >&2; exit 1; }

build_packages=(gcc make pkg-config dpkg-dev autoconf automake libtool ca-certificates
	postgresql-15 postgresql-server-dev-15 libmicrohttpd-dev libgnutls28-dev libkrb5-dev libcurl4-openssl-dev libssl-dev
	liblz4-dev libzstd-dev
	curl jq perl procps util-linux)
test_packages=(libipc-run-perl libdbd-pg-perl haproxy prometheus chromium chromium-driver pgbouncer iproute2 iptables spin pg-bsd-indent openssl clang-14 libclang-rt-14-dev)
long_packages=(valgrind)
server_packages=(libicu-dev zlib1g-dev tar)

missing_packages() {
	local p
	for p in "$@"; do
		[ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || echo "$p"
	done
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "root is needed to run: $*"
	fi
}

install_packages() {
	command -v dpkg-query >/dev/null || die "this needs Debian 12; elsewhere install the packages in $0 by hand"
	mapfile -t missing < <(missing_packages "$@")
	[ ${#missing[@]} -eq 0 ] && return 0
	say "installing ${missing[*]}"
	as_root apt-get -q update
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${missing[@]}"
}

# The archives that this system gets Debian itself from, one URI a line.
debian_archives() {
	{
		cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
			sed -nE 's/^[[:space:]]*deb(-src)?[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+).*/\3/p'
		cat /etc/apt/sources.list.d/*.sources 2>/dev/null |
			sed -nE 's/^URIs:[[:space:]]*//p' | tr -s ' \t' '\n'
	} | grep -E '/debian/?$|^mirror' | awk '!seen[$0]++' || true
}

debian_keyring() {
	local k
	for k in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
		[ -r "$k" ] && { echo "$k"; return; }
	done
	die "Debian's archive keyring is missing: install debian-archive-keyring"
}

version_of_header() {	# raft.h -> 2201
	awk '/#define RAFT_VERSION_(MAJOR|MINOR|RELEASE) /{v = v * 100 + $3} END {print v + 0}' "$1"
}

fetch_raft_source() {	# into the current folder
	local keyring uri apt
	keyring=$(debian_keyring)
	mkdir -p apt/lists/partial apt/cache/archives/partial
	apt=(-q -o "Dir::Etc::sourcelist=$PWD/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
		-o "Dir::State::lists=$PWD/apt/lists" -o "Dir::Cache=$PWD/apt/cache"
		-o APT::Get::List-Cleanup=0 -o APT::Update::Error-Mode=any)
	[ "$(id -u)" = 0 ] && apt+=(-o APT::Sandbox::User=root)
	for uri in $(debian_archives); do
		echo "deb-src [signed-by=$keyring] $uri $raft_suite main" >apt/sources.list
		if apt-get "${apt[@]}" update && apt-get "${apt[@]}" source --only-source raft; then
			return 0
		fi
		say "no source package of raft under $uri"
	done
	return 1
}

build_raft() {
	local source version
	say "building libraft from Debian $raft_suite's source package"
	rm -rf build/raft
	mkdir -p build/raft
	(cd build/raft && fetch_raft_source) || die "could not fetch libraft's source package (Debian $raft_suite)"
	source=$(find build/raft -mindepth 1 -maxdepth 1 -type d -name 'raft-*' | head -n 1)
	[ -n "$source" ] || die "the source package of raft did not unpack"
	(
		cd "$source"
		exec >../build.log 2>&1
		autoreconf -i
		./configure --disable-uv --enable-static --disable-shared CFLAGS="-O2 -g -fPIC"
		make libraft.la
	) || { tail -n 20 build/raft/build.log >&2; die "libraft did not build, see build/raft/build.log"; }
	version=$(version_of_header "$source/include/raft.h")
	[ "$version" -ge $raft_min ] || die "libraft $version is too old, $raft_min (0.22) is needed"
	rm -rf build/deps
	mkdir -p build/deps/lib
	cp -r "$source/include" build/deps/include
	cp "$source/.libs/libraft.a" build/deps/lib/
	rm -rf build/raft/apt
}

write_deps_mk() {
	mkdir -p build
	printf '# Written by test/scripts/deps.sh.\nRAFT_CFLAGS = %s\nRAFT_LIBS = %s\n' "$1" "$2" >build/deps.mk
}

use_raft() {
	if pkg-config --atleast-version=0.22 raft 2>/dev/null; then
		write_deps_mk "$(pkg-config --cflags raft)" "$(pkg-config --libs raft)"
		say "using the system's libraft $(pkg-config --modversion raft)"
		return
	fi
	if [ ! -f build/deps/lib/libraft.a ] || [ ! -f build/deps/include/raft.h ] ||
		[ "$(version_of_header build/deps/include/raft.h)" -lt $raft_min ]; then
		build_raft
	fi
	# The archive's symbols stay private to our library.
	write_deps_mk "-Ibuild/deps/include" "build/deps/lib/libraft.a -Wl,--exclude-libs,libraft.a"
	say "libraft $(version_of_header build/deps/include/raft.h) in build/deps"
}

case $level in
build) install_packages "${build_packages[@]}" ;;
test) install_packages "${build_packages[@]}" "${test_packages[@]}" ;;
long) install_packages "${build_packages[@]}" "${test_packages[@]}" "${long_packages[@]}" ;;
server) install_packages "${build_packages[@]}" "${server_packages[@]}" ;;
*) die "usage: deps.sh [build|test|long|server]" ;;
esac
use_raft
