#!/usr/bin/env bash
#
# bench.sh
#	Builds, installs and runs test/bench/*.pl as a user that may run PostgreSQL.
#
set -euo pipefail
cd "$(dirname "$0")/../.."
test/scripts/deps.sh test
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
as_owner() { if [ "$(id -u)" = 0 ]; then (cd "$work" && runuser -u postgres -- "$@"); else (cd "$work" && "$@"); fi; }

${MAKE:-make} -s all
as_root "${MAKE:-make}" -s install >/dev/null
work=$(mktemp -d "${TMPDIR:-/tmp}/quantadb-bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
cp -r test/lib test/bench "$work/"
[ "$(id -u)" = 0 ] && chown -R postgres: "$work"
for script in test/bench/*.pl; do
	as_owner env HOME="$work" TMPDIR="$work" LC_ALL=C QUANTADB_BENCH_RUNS="${QUANTADB_BENCH_RUNS:-5}" \
		perl -I"$work/lib" "$work/bench/$(basename "$script")"
done
