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
# sudo passes nothing on by itself; programs with sanitizers need their options.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo ${ASAN_OPTIONS:+env "ASAN_OPTIONS=$ASAN_OPTIONS" "UBSAN_OPTIONS=$UBSAN_OPTIONS"} "$@"
	fi
}

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
	local stage=$place/stage
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

# A server that does what it must not, once for each sanitizer: it dies and says where.  So a
# run without findings means something.  (ASan writes to its own file, UBSan to the server's log,
# which the tests search: gcc's libasan and libubsan have one name for the path, and libasan has it.)
sanitizers_speak() {
	local dir bug as=()
	dir=$(mktemp -d "${TMPDIR:-/tmp}/quantadb-speak-XXXXXX") || return 1
	cat >"$dir/bug.c" <<-'END'
		#include "postgres.h"
		#include "fmgr.h"
		PG_MODULE_MAGIC;
		void _PG_init(void);
		static volatile int n = 40;
		#ifdef OVERRUN
		void _PG_init(void) { char *p = malloc(n); p[n] = 1; n = p[n]; }
		#else
		void _PG_init(void) { n = 1 << n; }
		#endif
	END
	if [ "$(id -u)" = 0 ]; then
		as=(runuser -u postgres --)
		chown postgres: "$dir"
	fi
	(cd "$dir" && "${as[@]}" "$prefix/bin/initdb" -D "$dir/data" -A trust -N >"$dir/initdb.log" 2>&1) ||
		{ tail -n 20 "$dir/initdb.log" >&2; head -n 40 "$found"/* >&2; return 1; }
	for bug in OVERRUN SHIFT; do
		gcc $flags -w -fPIC -shared -D$bug -I"$("$PG_CONFIG" --includedir-server)" -o "$dir/bug.so" "$dir/bug.c" || return 1
		{ (cd "$dir" && "${as[@]}" "$prefix/bin/postgres" -D "$dir/data" -C shared_memory_size \
			-c shared_preload_libraries="$dir/bug.so") >"$dir/$bug.log" 2>&1; } 2>/dev/null &&
			{ echo "# a server with the bug $bug lived on" >&2; return 1; }
		grep -qs _PG_init "$dir/$bug.log" "$found"/* || { echo "# no report of the bug $bug" >&2; return 1; }
		rm -f "$found"/*
	done
	rm -rf "$dir"
}

step() {
	echo "# $1"
	shift
	"$@" || failed=1
}

bash test/scripts/deps.sh test && bash test/scripts/deps.sh server || exit 1
mkdir -p "$place"
if [[ ! -x $prefix/bin/pg_config || " $steps " == *" regress "* ]]; then
	source=$(bash test/scripts/source.sh) || die "no source tree of PostgreSQL 15"
fi
[ -x "$prefix/bin/pg_config" ] || build_server
export PG_CONFIG=$prefix/bin/pg_config
[ "$("$PG_CONFIG" --pkglibdir)" = "$prefix/lib/postgresql" ] || die "\"$prefix\" has a server that was not built here"
copy_tree
cd "$place/tree" || exit 1
[ "$kind" = assert ] || sanitizers_speak || die "the sanitizers of this server do not speak"
make -s all && as_root make -s install PG_CONFIG="$PG_CONFIG" || die "QuantaDB did not build for this server"

for s in $steps; do
	case $s in
	server) ;;
	regress) step "PostgreSQL's suites on quantadb tables" env STANDBY=1 "SOURCE=$source" bash test/scripts/regress_am.sh ;;
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
