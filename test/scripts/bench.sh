#!/usr/bin/env bash
#
# bench.sh
#	Builds, installs and runs test/bench/*.pl as user postgres.
#
set -euo pipefail
cd "$(dirname "$0")/../.."
test/scripts/deps.sh test
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
as_postgres() { (cd "$work" && as_root runuser -u postgres -- "$@"); }

${MAKE:-make} -s all
as_root "${MAKE:-make}" -s install >/dev/null
work=$(mktemp -d "${TMPDIR:-/tmp}/quantadb-bench-XXXXXX")
trap 'as_root rm -rf "$work"' EXIT
cp -r test/lib test/bench "$work/"
as_root chown -R postgres: "$work"
for script in test/bench/*.pl; do
	as_postgres env HOME="$work" TMPDIR="$work" LC_ALL=C QUANTADB_BENCH_RUNS="${QUANTADB_BENCH_RUNS:-5}" \
		perl -I"$work/lib" "$work/bench/$(basename "$script")"
done
