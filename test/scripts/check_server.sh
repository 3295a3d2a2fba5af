#!/usr/bin/env bash
#
# check_server.sh assert|sanitize
#	Runs suites on a server that checks itself: built from Debian's source package of
#	PostgreSQL 15 with assertions, and for "sanitize" with ASan and UBSan, too; QuantaDB
#	is built for it in the same way.
#
#	PREFIX   where that server is or will be; /opt/postgresql-assert or
#	         /opt/postgresql-sanitize.  User postgres must be able to read it.
#	SOURCE   an unpacked source tree; else source.sh fetches it
#	TESTS    TAP tests by name; STEPS='server regress tap': what is done
#
# The server is built once, in build/check; remove its PREFIX to have it built again.
#
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
kind=${1:-}
[[ $kind =~ ^(assert|sanitize)$ ]] || { echo "usage: check_server.sh assert|sanitize" >&2; exit 1; }
prefix=${PREFIX:-/opt/postgresql-$kind}
place=$PWD/build/check/$kind
tests=${TESTS:-'^011 ^020 ^032 ^060 ^08'}
steps=${STEPS:-server regress tap}
unset MAKEFLAGS MFLAGS MAKELEVEL
failed=0
# What a sanitizer finds is written here by whoever runs the server.
found=$(mktemp -d "${TMPDIR:-/tmp}/quantadb-found-XXXXXX") || exit 1
chmod 777 "$found"
trap 'rmdir "$found" 2>/dev/null' EXIT

die() { echo "check_server: $*" >&2; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

flags='-O1 -g -fno-omit-frame-pointer'
link=
if [ "$kind" = sanitize ]; then
	link='-fsanitize=address,undefined -fno-sanitize-recover=all'
	flags="$flags $link"
	# PostgreSQL frees little before it ends, and has its own check of the stack's depth,
	# which frames on the heap would confuse.  Some tests load a shim before ASan.
	export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=1:disable_coredump=0:verify_asan_link_order=0:log_path=$found/asan
	export UBSAN_OPTIONS=print_stacktrace=1:abort_on_error=1:disable_coredump=0:log_path=$found/ubsan
fi

# The package's patches make a library folder that does not name PostgreSQL the one of
# the system's server.  So it is named in full, and what is installed is looked at first.
build_server() {
	local source stage=$place/stage
	source=$(bash test/scripts/source.sh) || die "no source tree of PostgreSQL 15"
	rm -rf "$place/server" "$stage"
	mkdir -p "$place/server"
	echo "# building PostgreSQL $("$source/configure" --version | sed -n '1s/[^0-9]*//p') for $prefix"
	(
		cd "$place/server" || exit 1
		"$source/configure" --prefix="$prefix" --libdir="$prefix/lib/postgresql" --enable-cassert --enable-debug \
			--without-readline --with-openssl --with-lz4 --with-zstd --with-icu --with-system-tzdata=/usr/share/zoneinfo \
			CFLAGS="$flags" LDFLAGS="$link" &&
			make -s -j"${JOBS:-2}" world-bin &&
			make -s DESTDIR="$stage" install-world-bin
	) >"$place/build.log" 2>&1 || { tail -n 20 "$place/build.log" >&2; die "the server did not build, see $place/build.log"; }
	find "$stage" ! -type d ! -path "$stage$prefix/*" | grep -q . && die "the build would install outside of $prefix, see $stage"
	as_root mkdir -p "$prefix"
	as_root cp -a "$stage$prefix/." "$prefix/"
	rm -rf "$stage"
}

# Objects are the server's own, so they need a tree of their own.
copy_tree() {
	rm -rf "$place/tree"
	mkdir -p "$place/tree/build"
	tar -cf - --exclude=./build --exclude=./.git --exclude='*.o' --exclude='*.so' . | tar -xf - -C "$place/tree"
	cp -r build/deps build/deps.mk "$place/tree/build/" 2>/dev/null
}

step() {
	echo "# $1"
	shift
	"$@" || failed=1
}

bash test/scripts/deps.sh test && bash test/scripts/deps.sh server || exit 1
mkdir -p "$place"
[ -x "$prefix/bin/pg_config" ] || build_server
export PG_CONFIG=$prefix/bin/pg_config
[ "$("$PG_CONFIG" --pkglibdir)" = "$prefix/lib/postgresql" ] || die "\"$prefix\" has a server that was not built here"
copy_tree
cd "$place/tree" || exit 1
make -s all && as_root make -s install || die "QuantaDB did not build for this server"

for s in $steps; do
	case $s in
	server) ;;
	regress) step "PostgreSQL's suites on quantadb tables" env STANDBY=1 ${SOURCE:+"SOURCE=$SOURCE"} bash test/scripts/regress_am.sh ;;
	tap) step "TAP tests $tests" env QUANTADB_TESTS="$tests" make test ;;
	*) die "unknown step \"$s\"" ;;
	esac
done
if [ -n "$(ls -A "$found")" ]; then
	echo "not ok - the sanitizers found something, see $found"
	head -n 40 "$found"/*
	failed=1
fi
exit $failed
