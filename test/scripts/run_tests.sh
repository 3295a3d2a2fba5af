#!/usr/bin/env bash
#
# run_tests.sh [long]
#	Builds, installs and runs every test; closes with "N passed, N failed".
#
# PostgreSQL does not run as root: everything that starts a server runs as user postgres,
# and what builds networks as root, called by root or by a user with sudo.  postgres
# may not be able to read the checkout, so the files that such tests need are
# copied into a temporary folder, which also takes all their data and is removed at
# the end, or kept and named when something failed.
#
# QUANTADB_TESTS='020 021' runs the TAP tests whose names match, and nothing else.
#
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
top=$PWD
make=${MAKE:-make}
unset MAKEFLAGS MFLAGS MAKELEVEL
passed=0
failed=0
model=

"$top/test/scripts/deps.sh" "$([ "${1:-}" = long ] && echo long || echo test)" || exit 1
RAFT_CFLAGS=$(sed -n 's/^RAFT_CFLAGS = //p' build/deps.mk)
RAFT_LIBS=$(sed -n 's/^RAFT_LIBS = //p' build/deps.mk)
export RAFT_CFLAGS RAFT_LIBS
pg_config=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
bindir=$("$pg_config" --bindir)
pgxs_dir=$(dirname "$("$pg_config" --pgxs)")/../..

work=$(mktemp -d "${TMPDIR:-/tmp}/quantadb-test-XXXXXX") || exit 1
mkdir "$work/log" "$work/data"
chmod 755 "$work"

# sudo passes nothing on by itself; these say which server, and how one with sanitizers behaves.
kept=(env)
for v in PG_CONFIG ASAN_OPTIONS UBSAN_OPTIONS; do
	[ -n "${!v:-}" ] && kept+=("$v=${!v}")
done
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "${kept[@]}" "$@"; fi; }

clean_env=(env -u PGHOST -u PGPORT -u PGUSER -u PGDATABASE -u PGDATA -u PGOPTIONS -u PGSERVICE -u PGPASSWORD LC_ALL=C
	HOME="$work/data" TMPDIR="$work/data" PG_BINDIR="$bindir")
as_postgres() { (cd "$work" && as_root runuser -u postgres -- "${clean_env[@]}" "$@"); }

note() { printf '\n== %s\n' "$*"; }

# Counts the TAP lines of a finished step; a step that died without saying so is one failure.
tally() {	# name, log, exit code
	local ok not_ok
	ok=$(grep -cE '^ok\b' "$2")
	not_ok=$(grep -cE '^not ok\b' "$2")
	if [ "$not_ok" = 0 ] && { [ "$3" != 0 ] || [ "$ok" = 0 ]; }; then
		echo "not ok - $1 ended with code $3 after $ok checks"
		not_ok=1
	fi
	passed=$((passed + ok))
	failed=$((failed + not_ok))
}

step() {	# name, command...
	local name=$1 log=$work/log/$1.log began=$SECONDS code
	shift
	note "$name"
	"$@" 2>&1 | tee "$log"
	code=${PIPESTATUS[0]}
	echo "# $name: $((SECONDS - began)) s"
	tally "$name" "$log" "$code"
}

# pg_regress prints "test basic ... ok"; as TAP lines these count like the rest.
regress() {
	as_postgres "$pgxs_dir/src/test/regress/pg_regress" --inputdir=test --outputdir=data \
		--bindir="$bindir" --temp-instance="$work/data/tmp_regress" \
		--temp-config="$work/test/quantadb.conf" --dbname=contrib_regression basic |
		sed -E 's/^test +([a-z_0-9]+) +\.\.\. ok.*/ok - regress \1/; s/^test +([a-z_0-9]+) +\.\.\. FAILED.*/not ok - regress \1/'
	local code=${PIPESTATUS[0]}
	[ "$code" = 0 ] || cat "$work/data/regression.diffs" 2>/dev/null
	return "$code"
}

finish() {
	local code=1
	[ -n "$model" ] && kill "$model" 2>/dev/null
	if [ "$failed" = 0 ] && [ "$passed" -gt 0 ]; then
		as_root rm -rf "$work"
		code=0
	else
		echo "Logs and data are in $work."
	fi
	echo "$passed passed, $failed failed"
	exit $code
}

trap finish EXIT
trap 'exit 1' INT TERM

note build
if ! $make -s all || ! as_root $make -s install; then
	failed=1
	exit 1
fi

cp -r "$top/test" "$top/sql" "$top/docs" "$top/quantadb.control" "$work/"
cp -r "$top/expected" "$work/test/"
as_root chown -R postgres: "$work/data" "$work/test"
as_root chmod -R a+rX "$work"

# Begun beside other steps; these run in shells of their own, whose child it is not.
finish_model() {
	tail --pid="$model" -f /dev/null
	cat "$work/model"
	return "$(cat "$work/model.code" 2>/dev/null || echo 1)"
}

if [ -z "${QUANTADB_TESTS:-}" ]; then
	# Spin uses one core, and these the other.
	(sh test/scripts/model.sh "$([ "${1:-}" = long ] && echo full || echo quick)" >"$work/model" 2>&1
	echo $? >"$work/model.code") &
	model=$!
	step unit bash test/unit/run.sh
	step unit_raft bash test/unit/run_raft.sh
	step fuzz_corpus bash test/fuzz/run.sh replay
	step chaos_check perl -Itest/chaos test/chaos/check.t
	step chaos_shim perl test/chaos/shim.t
	step layers bash test/scripts/check_layers.sh
	step regress regress
	step model finish_model
	model=
	step sim bash test/sim/run.sh test
fi

# PostgreSQL's own suites on our tables; also by the name regress_am.
if [ "${1:-}" = long ] && grep -qE "$(echo "${QUANTADB_TESTS:-.}" | tr ' ' '|')" <<<regress_am; then
	step regress_am env STANDBY=1 bash test/scripts/regress_am.sh
fi

tests=$(cd test/t && ls ./*.pl)
[ "${1:-}" = long ] && [ -d test/t/long ] && tests="$tests $(cd test/t && ls long/*.pl)"
for t in $tests; do
	name=$(basename "$t" .pl)
	limit=1200
	[[ $t == long/* ]] && limit=7200
	if [ -n "${QUANTADB_TESTS:-}" ] && ! grep -qE "$(echo $QUANTADB_TESTS | tr ' ' '|')" <<<"$name"; then
		continue
	fi
	# What builds networks needs root; its servers run as postgres all the same.
	if grep -q '^use QuantaNet' "$work/test/t/$t"; then
		step "$name" as_root "${clean_env[@]}" timeout -k 30 "$limit" perl -I"$work/test/lib" "$work/test/t/$t"
		continue
	fi
	step "$name" as_postgres timeout -k 30 "$limit" perl -I"$work/test/lib" "$work/test/t/$t"
done
