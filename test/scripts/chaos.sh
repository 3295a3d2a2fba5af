#!/usr/bin/env bash
#
# chaos.sh
#	Builds, installs and runs one scenario of test/chaos on real servers.
#
# SCENARIO=mix MINUTES=1 RUNS=1 NODES=3 SEED=n; SCENARIO=list names them all, SCENARIO=all runs
# one after the other.  Closes with the table of what was run; the folder of a run that
# found something is kept and named.  RESULTS=file collects the lines of many tables:
# test/chaos/table.pl adds them up.
#
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
scenario=${SCENARIO:-mix}
test/scripts/deps.sh test || exit 1
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

${MAKE:-make} -s all || exit 1
as_root "${MAKE:-make}" -s install >/dev/null || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/quantadb-chaos-XXXXXX")
mkdir "$work/data"
cp -r test/lib test/chaos "$work/"
as_root chown -R postgres: "$work/data" "$work/lib" "$work/chaos"
chmod 755 "$work"

# Each node may have a network of its own, which takes root; the servers run as postgres all the same.
run() {	# scenario
	(cd "$work" && as_root env HOME="$work/data" TMPDIR="$work/data" LC_ALL=C perl -I"$work/lib" -I"$work/chaos" "$work/chaos/chaos.pl" "$1" \
		"minutes=${MINUTES:-1}" "nodes=${NODES:-3}" ${SEED:+"seed=$SEED"} ${ISOLATION:+"isolation=$ISOLATION"})
}

if [ "$scenario" = list ]; then
	run list
	as_root rm -rf "$work"
	exit 0
fi
names=$scenario
[ "$scenario" = all ] && names=$(run list)
failed=0
for name in $names; do
	for ((n = 1; n <= ${RUNS:-1}; n++)); do
		echo "== $name"
		run "$name" 2>&1 | tee "$work/$name.$n.log"
		[ "${PIPESTATUS[0]}" = 0 ] || failed=$((failed + 1))
	done
done
echo
grep -h $'^# run\t' "$work"/*.log >"$work/runs"
[ -n "${RESULTS:-}" ] && cat "$work/runs" >>"$RESULTS"
test/chaos/table.pl "$work/runs"
if [ $failed = 0 ]; then
	as_root rm -rf "$work"
else
	echo "$failed runs found something; logs and data are in $work."
	exit 1
fi
