#!/bin/sh
# Checks docs/protocol.pml with spin: the protocol itself must have no
# violation, each mutation must have one.  Usage: model.sh [quick|full]
# quick leaves out the runs that take minutes.
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
mode=${1:-full}
failed=0

# run NAME EXPECTED FLAGS: EXPECTED is "holds" or "violated"
run()
{
	cd "$work" || exit 1
	# shellcheck disable=SC2086
	spin -a $3 "$top/docs/protocol.pml" >spin.out 2>&1 &&
		gcc -w -O2 -DSAFETY -DCOLLAPSE -DMEMLIM=8000 -DVECTORSZ=2048 -o pan pan.c ||
		{ cat spin.out; echo "not ok - model $1: cannot be built"; failed=1; return; }
	./pan -m300000 >pan.out 2>&1
	got=unknown
	grep -q 'errors: 0$' pan.out && ! grep -qE 'max search depth|out of memory|memory limit' pan.out && got=holds
	grep -q 'assertion violated' pan.out && got=violated
	states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.out)
	if [ "$got" = "$2" ]; then
		echo "ok - model $1: $got ($states states)"
	else
		echo "not ok - model $1: expected $2, got $got ($states states)"
		failed=1
	fi
}

run "joining_without_crashes" holds "-DL=3 -DJOINING -DCRASHES=0"
run "without_log_matching" violated "-DL=3 -DNO_MATCH"
run "with_old_acks" violated "-DL=3 -DOLD_ACKS"
run "without_closing_a_change" violated "-DL=3 -DJOINING -DNO_CLOSE -DCRASHES=0"
if [ "$mode" = full ]; then
	run "leases" holds "-DL=2 -DE=2 -DCRASHES=0 -DLEASES"
	run "with_short_leases" violated "-DL=2 -DE=2 -DCRASHES=0 -DLEASES -DSHORT_LEASES"
	run "with_a_volatile_promise" violated "-DL=3 -DVOLATILE_PROMISE"
	run "sending_unflushed_wal" violated "-DL=3 -DSEND_UNFLUSHED"
	run "reports_by_lsn_alone" violated "-DL=4 -DCRASHES=0 -DLSN_ONLY"
	run "protocol" holds "-DL=3"
fi
exit $failed
