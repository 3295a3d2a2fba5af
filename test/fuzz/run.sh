#!/usr/bin/env bash
#
# run.sh replay|fuzz|seeds
#	replay: the corpora through every decoder, with sanitizers (part of make test).
#	fuzz: libFuzzer, FUZZ_SECONDS (default 60) for each target, or until it has had
#	FUZZ_RUNS executions; prints how many, and in which time.  FUZZ_TARGETS names
#	those to run.  What it finds lands in build/fuzz/NAME.
#	seeds: writes the seeds anew after a change of a format.
#
set -euo pipefail
cd "$(dirname "$0")/../.."
targets='frames commands snapshots raft streams compressed transfers plans tokens join bodies
	peers heartbeats reads proposals handshakes settings names'
[ -f build/deps.mk ] && RAFT_CFLAGS=${RAFT_CFLAGS:-$(sed -n 's/^RAFT_CFLAGS = //p' build/deps.mk)}
[ -f build/deps.mk ] && RAFT_LIBS=${RAFT_LIBS:-$(sed -n 's/^RAFT_LIBS = //p' build/deps.mk)}
pg_config=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
sources="test/fuzz/fuzz.c test/fuzz/peers.c src/cluster/raft_wire.c src/wal/messages.c src/wal/compress.c build/fuzz/body.o"
flags="-std=gnu11 -g -O1 -Isrc -Itest/fuzz ${RAFT_CFLAGS:-}"
libraries="${RAFT_LIBS:--lraft} -llz4 -lzstd -L$("$pg_config" --pkglibdir) -lpgcommon -lpgport
	-Wl,--wrap=palloc,--wrap=palloc0,--wrap=pstrdup,--wrap=repalloc,--wrap=pfree"
mkdir -p build/fuzz

body() {	# compiler, flags: with PostgreSQL's headers, as a program that is no server
	# shellcheck disable=SC2086
	"$@" $flags -DFRONTEND -I"$("$pg_config" --includedir-server)" -fsanitize=address,undefined -fno-sanitize-recover=all \
		-c src/http/body.c -o build/fuzz/body.o
}

replay() {
	body "${CC:-gcc}"
	# shellcheck disable=SC2086
	${CC:-gcc} $flags -DREPLAY -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers \
		-fsanitize=address,undefined -fno-sanitize-recover=all $sources src/core/*.c \
		$libraries -o build/fuzz/replay
}

case ${1:-replay} in
replay)
	replay
	build/fuzz/replay test/fuzz/corpus/*/*
	;;
seeds)
	replay
	for t in $targets; do mkdir -p "test/fuzz/corpus/$t"; done
	build/fuzz/replay seeds test/fuzz/corpus
	;;
fuzz)
	until=("-max_total_time=${FUZZ_SECONDS:-60}")
	[ -n "${FUZZ_RUNS:-}" ] && until=("-runs=$FUZZ_RUNS")
	for t in ${FUZZ_TARGETS:-$targets}; do
		mkdir -p "build/fuzz/$t"
		body clang-14 -fsanitize=fuzzer-no-link -Wno-ignored-attributes
		# shellcheck disable=SC2086
		clang-14 $flags -DTARGET="$t" -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all $sources src/core/*.c \
			$libraries -o "build/fuzz/fuzz_$t"
		longest=65536
		[ "$t" = settings ] && longest=1025	# two values; what is longer is cut off, and only costs time
		began=$SECONDS
		"build/fuzz/fuzz_$t" "${until[@]}" "-max_len=$longest" -print_final_stats=1 \
			-artifact_prefix="build/fuzz/$t/crash-" "build/fuzz/$t" "test/fuzz/corpus/$t" >"build/fuzz/$t.log" 2>&1 ||
			{ tail -n 40 "build/fuzz/$t.log"; exit 1; }
		sed -nE "s/^stat::number_of_executed_units: *([0-9]+)/$t: \1 executions in $((SECONDS - began)) s/p" "build/fuzz/$t.log"
	done
	;;
*)
	echo "usage: run.sh replay|fuzz|seeds" >&2
	exit 1
	;;
esac
