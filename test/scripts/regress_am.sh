#!/usr/bin/env bash
#
# regress_am.sh
#	PostgreSQL's own regression and isolation suites on quantadb tables, compared
#	with the same suites on heap tables of the same server.
#
# The test files are those of the installed server's Debian source package; where
# that cannot be had, of the newest 15 that the archive has.  SOURCE=dir takes an
# unpacked source tree instead.  Both runs use a fresh server with the extension
# loaded; only default_table_access_method differs.  Expected files play no part:
# the outputs of the two runs are compared, so what the minor version or the build
# changes does not matter.
#
# Every test file whose output differs must be listed in test/regress-differences.md
# with the reason; one that is not listed fails.  Where test/regress-differences/ has
# SUITE-TEST.diff, the difference must also be exactly that one.
#
#	SUBJECT=quantadb   the access method under test ("heap" tests this harness)
#	SUITES='regress isolation'
#	STANDBY=1          the subject's server has a streaming standby and checks the WAL
#	                   with wal_consistency_checking; primary and standby must agree
#	KEEP=dir           copies outputs, differences and logs there
#
# Prints TAP-like lines and closes with how many files differ.
#
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
top=$PWD
subject=${SUBJECT:-quantadb}
suites=${SUITES:-regress isolation}
pg_config=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
bindir=$("$pg_config" --bindir)
libdir=$("$pg_config" --pkglibdir)
pgxs_dir=$(dirname "$("$pg_config" --pgxs)")/../..
failed=0
export LC_ALL=C
unset PGHOST PGPORT PGUSER PGDATABASE PGDATA PGOPTIONS PGSERVICE PGPASSWORD

ok() { echo "ok - $*"; }
not_ok() { echo "not ok - $*"; failed=$((failed + 1)); }
check() {	# name, command...: ok when the command succeeds
	local name=$1
	shift
	if "$@"; then ok "$name"; else not_ok "$name"; fi
}
die() { not_ok "regress_am: $*"; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/quantadb-regress-am-XXXXXX") || exit 1
started=()
finish() {
	local data
	for data in ${started[@]+"${started[@]}"}; do
		as_owner "$bindir/pg_ctl" -s -D "$data" -m immediate stop
	done
	if [ -n "${KEEP:-}" ]; then
		mkdir -p "$KEEP"
		cp -r "$work"/run-* "$work"/diffs "$KEEP/" 2>/dev/null
		cp "$work"/*.log "$KEEP/" 2>/dev/null
	fi
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

# PostgreSQL does not run as root.
as_owner() {
	if [ "$(id -u)" = 0 ]; then
		(cd "$work" && runuser -u postgres -- "$@")
	else
		(cd "$work" && "$@")
	fi
}

# ---- the test files ----

find_source() {
	source_tree=$(bash test/scripts/source.sh) || die "no source tree of PostgreSQL 15"
	echo "# test files of PostgreSQL $(sed -n "s/^PACKAGE_VERSION='\(.*\)'/\1/p" "$source_tree/configure")," \
		"server $("$bindir/postgres" --version | sed 's/[^0-9]*//')"
}

prepare() {
	mkdir "$work/lib" "$work/diffs"
	cp -r "$source_tree/src/test/regress" "$source_tree/src/test/isolation" "$work/"
	# The suites' own C functions, and those of contrib/spi that they use.
	gcc -O1 -fPIC -shared -w -I"$("$pg_config" --includedir-server)" -o "$work/lib/regress.so" \
		"$work/regress/regress.c" || die "regress.c does not compile"
	cp "$libdir/autoinc.so" "$libdir/refint.so" "$work/lib/" || die "contrib/spi is missing"
	[ "$(id -u)" = 0 ] && chown -R postgres: "$work"
	chmod 755 "$work"
}

# ---- servers ----

free_port() {
	perl -MIO::Socket::INET -e 'for (1 .. 1000) { my $p = 10000 + int rand 20000;
		IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $p, Listen => 1) or next; print $p; exit }'
}

settings() {	# access method, port
	cat <<-END
		shared_preload_libraries = 'quantadb'
		quantadb.node_name = 'regress'
		quantadb.http_port = $(free_port)
		default_table_access_method = $1
		port = $2
		listen_addresses = ''
		unix_socket_directories = '$work'
		fsync = off
		max_prepared_transactions = 10
		max_connections = 60
		synchronize_seqscans = off
		log_line_prefix = '%m [%p] %b %e %q%a '
		log_autovacuum_min_duration = -1
		max_standby_streaming_delay = 600s
	END
	if [ "$1" = quantadb ] && [ -n "${STANDBY:-}" ]; then
		echo "wal_consistency_checking = 'quantadb'"
	fi
}

start_server() {	# data folder, log
	as_owner "$bindir/pg_ctl" -s -w -t 120 -D "$1" -l "$2" start || { tail -n 20 "$2"; die "the server did not start"; }
	started+=("$1")
}

sql() {	# port, database, statement
	as_owner "$bindir/psql" -X -A -t -q -v ON_ERROR_STOP=1 -h "$work" -p "$1" -U postgres -d "$2" -c "$3"
}

# ---- one run ----

run_suite() {	# suite, run's name, port
	local program=pg_regress extra=(--schedule="$work/regress/parallel_schedule" --dbname=regression)
	if [ "$1" = isolation ]; then
		program=pg_isolation_regress
		extra=(--schedule="$work/isolation/isolation_schedule" --dbname=isolation_regression)
	fi
	# Both runs see the same paths, for they appear in outputs.
	rm -rf "$work/out"
	as_owner mkdir -p "$work/out"
	as_owner "$pgxs_dir/src/test/$1/$program" --inputdir="$work/$1" --outputdir="$work/out" --bindir="$bindir" \
		--dlpath="$work/lib" --host="$work" --port="$3" --user=postgres --max-concurrent-tests=20 \
		--load-extension=quantadb "${extra[@]}" >"$work/run-$2/$1.log" 2>&1
	tail -n 20 "$work/run-$2/$1.log" | grep -E 'tests (passed|failed)|All .* passed' | sed 's/^ */# '"$2 $1 against expected\/: "'/'
	mv "$work/out" "$work/run-$2/$1"
}

# Nothing crashed, and no internal error that the baseline does not have.
internal_errors() {	# log
	grep -E '(XX000|XX001|XX002) .*(ERROR|FATAL|PANIC):' "$1" | sed -E 's/.*(ERROR|FATAL|PANIC): +//; s/[0-9]+/N/g' | sort -u
}

check_indexes() {	# port, database: every btree agrees with its table
	sql "$1" "$2" "CREATE EXTENSION IF NOT EXISTS amcheck" &&
	sql "$1" "$2" "SET client_min_messages = warning;
		SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am a ON a.oid = c.relam JOIN pg_index i ON i.indexrelid = c.oid
		WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence <> 't' AND i.indisvalid AND i.indisready" >/dev/null
}

check_tables() {	# port, database: quantadb_check finds nothing; a standby has no unlogged tables
	local found
	found=$(sql "$1" "$2" "SELECT c.oid::regclass, k.* FROM pg_class c JOIN pg_am a ON a.oid = c.relam, LATERAL quantadb_check(c.oid) k
		WHERE a.amname = 'quantadb' AND c.relkind IN ('r', 'm') AND (c.relpersistence = 'p' OR c.relpersistence = 'u' AND NOT pg_is_in_recovery())") || return 1
	[ -z "$found" ] && return 0
	echo "$found" | head -n 20 | sed 's/^/# /'
	return 1
}

# Primary and standby hold the same: dumps of everything, the standby never complained.
check_standby() {	# port, standby's port, standby's log
	local d
	sql "$1" regression "SELECT count(setval(seqrelid, nextval(seqrelid))) FROM pg_sequence" >/dev/null
	sql "$1" postgres "ALTER SYSTEM SET autovacuum = off"
	sql "$1" postgres "SELECT pg_reload_conf()" >/dev/null
	local target
	target=$(sql "$1" postgres "SELECT pg_current_wal_insert_lsn()")
	for _ in $(seq 600); do
		[ "$(sql "$2" postgres "SELECT pg_last_wal_replay_lsn() >= '$target'" 2>/dev/null)" = t ] && break
		sleep 0.5
	done
	check "$subject: the standby replayed everything" \
		[ "$(sql "$2" postgres "SELECT pg_last_wal_replay_lsn() >= '$target'")" = t ]
	as_owner "$bindir/pg_dumpall" --no-sync --no-unlogged-table-data -h "$work" -p "$1" -U postgres -f "$work/primary.dump"
	as_owner "$bindir/pg_dumpall" --no-sync -h "$work" -p "$2" -U postgres -f "$work/standby.dump"
	# Newer minor versions protect a dump with a random key.
	sed -i '/^\\\(un\)\?restrict /d' "$work/primary.dump" "$work/standby.dump"
	check "$subject: primary and standby dump the same" cmp "$work/primary.dump" "$work/standby.dump"
	check "$subject: the standby's log has no PANIC and no inconsistent page" \
		eval "! grep -E 'PANIC|FATAL.*(inconsistent|resource manager)|TRAP|terminated by signal|write past chunk end' '$3'"
	for d in regression isolation_regression; do
		[ "$(sql "$2" postgres "SELECT count(*) FROM pg_database WHERE datname = '$d'")" = 1 ] || continue
		[ "$subject" = quantadb ] && check "$subject: quantadb_check of $d on the standby" check_tables "$2" "$d"
	done
}

run_all() {	# access method, run's name
	local data=$work/run-$2-data port suite log=$work/run-$2/server.log standby_port=
	port=$(free_port)
	as_owner mkdir "$work/run-$2"
	as_owner "$bindir/initdb" -D "$data" -U postgres -A trust --no-sync >"$work/initdb.log" 2>&1 || die "initdb failed"
	settings "$1" "$port" | as_owner tee -a "$data/postgresql.conf" >/dev/null
	start_server "$data" "$log"
	if [ -n "${STANDBY:-}" ] && [ "$2" = subject ]; then
		standby_port=$(free_port)
		as_owner "$bindir/pg_basebackup" -D "$work/run-standby-data" -h "$work" -p "$port" -U postgres -R -C -S standby -X stream -c fast \
			--no-sync || die "pg_basebackup failed"
		printf 'port = %s\nquantadb.http_port = %s\n' "$standby_port" "$(free_port)" | as_owner tee -a "$work/run-standby-data/postgresql.conf" >/dev/null
		start_server "$work/run-standby-data" "$work/run-$2/standby.log"
	fi
	for suite in $suites; do
		run_suite "$suite" "$2" "$port"
	done
	check "$2 ($1): no server process crashed" eval "! grep -E 'PANIC|TRAP|was terminated by signal|write past chunk end' '$log'"
	for suite in $suites; do
		[ "$suite" = regress ] && d=regression || d=isolation_regression
		check "$2 ($1): btrees of $d agree with their tables" check_indexes "$port" "$d"
		[ "$1" = quantadb ] && check "$2 ($1): quantadb_check of $d" check_tables "$port" "$d"
	done
	[ -n "$standby_port" ] && check_standby "$port" "$standby_port" "$work/run-$2/standby.log"
	if [ -n "$standby_port" ]; then
		as_owner "$bindir/pg_ctl" -s -D "$work/run-standby-data" -m immediate stop
	fi
	as_owner "$bindir/pg_ctl" -s -D "$data" -m fast stop
	started=()
	internal_errors "$log" >"$work/$2.internal"
}

# ---- the comparison ----

listed() {	# suite, test
	grep -qE "^\| *$1 *\| *$2 *\|" "$top/test/regress-differences.md"
}

# What the difference says, without line numbers.
difference() {	# baseline's file, subject's file
	diff -U0 "$1" "$2" | sed -e '1,2d' -e 's/^@@.*/@@/'
}

compare_suite() {	# suite
	local file name known differing=0 total=0
	for file in "$work/run-baseline/$1"/results/*.out; do
		name=$(basename "$file" .out)
		total=$((total + 1))
		difference "$file" "$work/run-subject/$1/results/$name.out" >"$work/diffs/$1-$name.diff" 2>&1
		known=$top/test/regress-differences/$1-$name.diff
		if [ ! -s "$work/diffs/$1-$name.diff" ] && [ -f "$work/run-subject/$1/results/$name.out" ]; then
			rm "$work/diffs/$1-$name.diff"
			ok "$1 $name: $subject like heap"
			listed "$1" "$name" && echo "# $1 $name is listed but did not differ"
			continue
		fi
		differing=$((differing + 1))
		if ! listed "$1" "$name"; then
			not_ok "$1 $name: $subject differs from heap and is not listed"
			head -n 40 "$work/diffs/$1-$name.diff" | sed 's/^/#   /'
		elif [ -f "$known" ] && ! cmp -s "$known" "$work/diffs/$1-$name.diff"; then
			not_ok "$1 $name: $subject differs from heap in another way than listed"
			diff "$known" "$work/diffs/$1-$name.diff" | head -n 40 | sed 's/^/#   /'
		else
			ok "$1 $name: differs as listed"
		fi
	done
	[ "$total" -gt 0 ] || not_ok "$1: no test ran"
	echo "# $1: $differing of $total test files differ"
}

find_source
prepare
run_all heap baseline
run_all "$subject" subject
comm -13 "$work/baseline.internal" "$work/subject.internal" >"$work/new.internal"
check "$subject: no internal error that heap does not have" [ ! -s "$work/new.internal" ]
sed 's/^/#   /' "$work/new.internal"
for suite in $suites; do
	compare_suite "$suite"
done
[ "$failed" = 0 ]
