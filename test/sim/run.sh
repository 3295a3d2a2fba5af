#!/usr/bin/env bash
#
# run.sh
#	Builds the simulator and runs SEEDS schedules from seed FIRST on, or the one
#	of SEED with its trace.
#
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${RAFT_CFLAGS:=$(sed -n 's/^RAFT_CFLAGS = //p' build/deps.mk)}"
: "${RAFT_LIBS:=$(sed -n 's/^RAFT_LIBS = //p' build/deps.mk)}"
export RAFT_CFLAGS RAFT_LIBS
make=${MAKE:-make}
unset MAKEFLAGS MFLAGS MAKELEVEL
$make -s -j2 -f test/sim/Makefile
if [ -n "${SEED:-}" ]; then
	exec build/sim/sim build/sim/image.so "seed=$SEED" ${RULE:+"rule=$RULE"}
fi

# Two processes, since a schedule uses one core.
seeds=${SEEDS:-10000}
first=${FIRST:-1}
half=$((seeds / 2))
status=0
build/sim/sim build/sim/image.so "first=$first" "$half" &
build/sim/sim build/sim/image.so "first=$((first + half))" "$((seeds - half))" || status=1
wait $! || status=1
exit $status
