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

resync="-DL=2 -DE=2 -DCRASHES=0 -DRESYNC"
growing="-DL=2 -DE=2 -DCRASHES=0 -DGROWING"
leases="-DL=2 -DE=2 -DCRASHES=0 -DLEASES"
run "one_voter_grows_to_three" holds "-DL=2 -DJOINING -DCRASHES=0"
run "without_closing_a_change" violated "-DL=3 -DJOINING -DNO_CLOSE -DCRASHES=0"
run "three_voters_grow_to_five" holds "$growing"
run "five_without_closing_a_change" violated "$growing -DNO_CLOSE"
run "counting_by_a_later_epochs_number" violated "$growing -DLATE_NUMBER"
run "data_is_replaced" holds "$resync"
run "acks_kept_while_data_is_copied" violated "$resync -DKEPT_ACKS"
run "report_before_data_is_whole" violated "$resync -DEARLY_REPORT"
run "copy_of_an_older_epoch" violated "$resync -DOLD_PLAN"
run "lost_disk" holds "-DL=2 -DE=2 -DCRASHES=0 -DLOST=1"
run "lost_disk_keeps_its_identity" violated "-DL=2 -DE=2 -DCRASHES=0 -DLOST=1 -DOLD_IDENTITY"
run "leases" holds "$leases"
run "with_short_leases" violated "$leases -DSHORT_LEASES"
run "without_log_matching" violated "-DL=3 -DNO_MATCH"
run "with_old_acks" violated "-DL=3 -DOLD_ACKS"
run "with_a_volatile_promise" violated "-DL=2 -DE=2 -DVOLATILE_PROMISE"
run "sending_unflushed_wal" violated "-DL=2 -DE=2 -DSEND_UNFLUSHED"
if [ "$mode" = full ]; then
	run "reports_by_lsn_alone" violated "-DL=4 -DCRASHES=0 -DLSN_ONLY"
	run "one_voter_grows_to_three_more_entries" holds "-DL=3 -DJOINING -DCRASHES=0"
	run "protocol" holds "-DL=3"
fi
exit $failed
