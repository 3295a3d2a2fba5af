#!/usr/bin/env bash
#
# run.sh [test]
#	Builds the simulator and runs SEEDS schedules from seed FIRST on, or the one
#	of SEED with its trace (RULE=n: with that rule taken out); RULES=n: each rule
#	taken out alone, for at most n schedules.
#	test: what make test runs, with a limit of time; a share of it under the sanitizers.
#
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${RAFT_CFLAGS:=$(sed -n 's/^RAFT_CFLAGS = //p' build/deps.mk)}"
: "${RAFT_LIBS:=$(sed -n 's/^RAFT_LIBS = //p' build/deps.mk)}"
export RAFT_CFLAGS RAFT_LIBS
make=${MAKE:-make}
unset MAKEFLAGS MFLAGS MAKELEVEL
status=0

build() { $make -s -j2 -f test/sim/Makefile OUT="$1" FLAGS="$2"; }

# A schedule uses one core: two processes share the seeds.
both() {	# folder, first, seeds, more arguments
	local dir=$1 first=$2 half=$(($3 / 2)) rest=$(($3 - $3 / 2)) other
	shift 3
	"$dir/sim" "$dir/image.so" "first=$first" "$half" "$@" &
	other=$!
	"$dir/sim" "$dir/image.so" "first=$((first + half))" "$rest" "$@" || status=1
	wait $other || status=1
}

rules() {	# schedules, "quick" or nothing
	local other
	build/sim/sim build/sim/image.so rules "$1" ${2:-} part=0 parts=2 &
	other=$!
	build/sim/sim build/sim/image.so rules "$1" ${2:-} part=1 parts=2 || status=1
	wait $other || status=1
}

build build/sim -O2
if [ -n "${SEED:-}" ]; then
	exec build/sim/sim build/sim/image.so "seed=$SEED" ${RULE:+"rule=$RULE"}
elif [ "${1:-}" = test ]; then
	both build/sim 1 50000 seconds=60
	rules 3000 quick
	build build/sim/asan "-O1 -fsanitize=address,undefined -fno-sanitize-recover=all"
	ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 both build/sim/asan 1000001 200 seconds=20
elif [ -n "${RULES:-}" ]; then
	rules "$RULES"
else
	both build/sim "${FIRST:-1}" "${SEEDS:-10000}"
fi
exit $status
