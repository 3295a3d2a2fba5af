#!/usr/bin/env bash
#
# bench.sh
#	Builds, installs and runs test/bench/*.pl; QUANTADB_BENCH='health reads' runs those only.
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
chmod 755 "$work"
cp -r test/lib test/bench test/chaos "$work/"
as_root chown -R postgres: "$work"
clean_env=(env HOME="$work" TMPDIR="$work" LC_ALL=C PG_BINDIR="${PG_BINDIR:-/usr/lib/postgresql/15/bin}")
for script in test/bench/*.pl; do
	name=$(basename "$script" .pl)
	if [ -n "${QUANTADB_BENCH:-}" ] && ! grep -qw "$name" <<<"$QUANTADB_BENCH"; then
		continue
	fi
	# What builds networks needs root; its servers run as postgres all the same.
	if grep -q '^use QuantaNet' "$script"; then
		as_root "${clean_env[@]}" perl -I"$work/lib" "$work/bench/$name.pl"
	else
		as_postgres "${clean_env[@]}" perl -I"$work/lib" "$work/bench/$name.pl"
	fi
done
