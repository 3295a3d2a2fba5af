#!/usr/bin/env bash
#
# demo.sh start|stop
#	Three nodes on loopback, the primary killed under load, and the proof that no
#	acknowledged write is gone.
#
# Data is below ./demo/.  PostgreSQL does not run as root: then user postgres owns
# it, and where that user cannot reach the checkout ./demo is a link to a folder
# below /var/tmp.  The part that runs the servers ("run") is a copy of this script in
# that folder, so that it can be read by its owner.
#
# QUANTADB_DEMO_PORT=5500: node i takes SQL at this + i, and replication, Raft and HTTP
# 1000, 2000 and 3000 above.
#
set -euo pipefail

base=${QUANTADB_DEMO_PORT:-5500}
scale=${QUANTADB_DEMO_SCALE:-5}
unset PGHOST PGPORT PGUSER PGDATABASE PGDATA PGOPTIONS PGSERVICE PGPASSWORD
export LC_ALL=C
bindir=$("${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}" --bindir 2>/dev/null || echo /usr/lib/postgresql/15/bin)
hosts=127.0.0.1,127.0.0.1,127.0.0.1
ports=$((base + 1)),$((base + 2)),$((base + 3))
rw="host=$hosts port=$ports user=postgres dbname=postgres target_session_attrs=read-write connect_timeout=2"

say() { printf '%s\n' "$*"; }
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }
now_ms() { date +%s%3N; }
as_owner() { if [ "$(id -u)" = 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# ---- as the user who called ----

stop_demo() {	# folder of the checkout
	local link=$1/demo dir data
	[ -e "$link" ] || [ -L "$link" ] || { say "There is no demo."; return 0; }
	dir=$(readlink -f "$link")
	for data in "$dir"/n[0-9]; do
		[ -f "$data/postmaster.pid" ] || continue
		as_owner "$bindir/pg_ctl" -D "$data" -m immediate -w -s stop 2>/dev/null || true
	done
	[ -L "$link" ] && rm -rf "$dir"
	rm -rf "$link"
	say "Stopped and removed."
}

start_demo() {
	local dir
	cd "$(dirname "$0")/../.."
	say "== Building and installing"
	test/scripts/deps.sh build
	${MAKE:-make} -s all
	as_root "${MAKE:-make}" -s install >/dev/null
	if [ -e demo ] || [ -L demo ]; then
		say "== Stopping the demo that is here"
		stop_demo "$PWD"
	fi
	mkdir demo
	dir=$PWD/demo
	if [ "$(id -u)" = 0 ]; then
		chown postgres: demo
		if ! as_owner test -w "$dir" 2>/dev/null; then
			rmdir demo
			dir=$(as_owner mktemp -d /var/tmp/quantadb-demo-XXXXXX)
			ln -s "$dir" demo
		fi
	fi
	chmod 700 "$dir"
	cp "$0" "$dir/demo.sh"
	[ "$(id -u)" = 0 ] && chown postgres: "$dir/demo.sh"
	as_owner env QUANTADB_DEMO_PORT="$base" QUANTADB_DEMO_SCALE="$scale" HOME="$dir" \
		bash "$dir/demo.sh" run "$dir" || die "it did not get to its end; logs are in demo/*.log, make demo-stop cleans up"
}

# ---- as the owner of the servers, in their folder ----

sql() {	# node, query
	"$bindir/psql" -X -A -t -q -v ON_ERROR_STOP=1 \
		-d "host=127.0.0.1 port=$((base + $1)) user=postgres dbname=postgres connect_timeout=3" -c "$2"
}

sql_rw() { timeout 10 "$bindir/psql" -X -A -t -q -v ON_ERROR_STOP=1 -d "$rw" -c "$1"; }

state() { sql "$1" "SELECT state FROM quantadb_status()" 2>/dev/null || true; }

wait_for() {	# seconds, what, command...
	local until=$(($(date +%s) + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		[ "$(date +%s)" -lt "$until" ] || { say "Gave up waiting: $what"; return 1; }
		sleep 0.1
	done
}

is_state() { [ "$(state "$1")" = "$2" ]; }

find_primary() {
	local i
	for i in 1 2 3; do
		is_state $i primary && { echo $i; return 0; }
	done
	return 1
}

# What the primary says of it: that is heard with a heartbeat, later than the node knows it itself.
seen_as_replica() { [ "$(sql_rw "SELECT state FROM quantadb_nodes WHERE name = 'n$1'")" = replica ]; }

three_voters() {
	[ "$(sql_rw "SELECT count(*) FROM quantadb_nodes WHERE role = 'voter'")" = 3 ] &&
		[ "$(sql_rw "SELECT count(*) FROM quantadb_nodes WHERE state = 'replica'")" = 2 ]
}

settings() {	# node
	cat >"n$1/node.conf" <<CONF
shared_preload_libraries = 'quantadb'
quantadb.node_name = 'n$1'
quantadb.listen_addresses = '127.0.0.1'
quantadb.replication_port = $((base + 1000 + $1))
quantadb.raft_port = $((base + 2000 + $1))
quantadb.http_port = $((base + 3000 + $1))
port = $((base + $1))
listen_addresses = '127.0.0.1'
unix_socket_directories = '$PWD'
shared_buffers = 64MB
log_line_prefix = '%m [%p] %b '
CONF
}

start_node() { "$bindir/pg_ctl" -D "n$1" -l "n$1.log" -w -t 60 -s start >>pg_ctl.log 2>&1; }

new_server() {	# node
	"$bindir/initdb" -k -A trust -U postgres -E UTF8 --locale=C.UTF-8 -D "n$1" >>initdb.log
	echo "include = 'node.conf'" >>"n$1/postgresql.conf"
	settings "$1"
	start_node "$1"
	sql "$1" "CREATE EXTENSION quantadb"
}

create_nodes() {
	local i token peer=127.0.0.1:$((base + 3001))
	say "== Node n1: initdb, CREATE EXTENSION quantadb, SELECT quantadb_init('demo')"
	new_server 1
	sql 1 "SELECT quantadb_init('demo')" >/dev/null
	wait_for 30 "n1 is primary" is_state 1 primary
	for i in 2 3; do
		say "== Node n$i: initdb, CREATE EXTENSION quantadb, SELECT quantadb_join('$peer', TOKEN, discard_local_data => true)"
		new_server "$i"
		token=$(sql 1 "SELECT quantadb_join_token()")
		# The server restarts with the cluster's data under that session.
		sql "$i" "SELECT quantadb_join('$peer', '$token', discard_local_data => true)" >>join.log 2>&1 || true
		wait_for 60 "n$i streams" is_state "$i" replica || { cat join.log; return 1; }
	done
	wait_for 60 "three voters" three_voters
}

# One insert a session, each number once; a line only for what was acknowledged.
writer() {
	local n=0 begin
	while [ -e acked ] && [ ! -e stop ]; do
		n=$((n + 1))
		begin=$(now_ms)
		if sql_rw "INSERT INTO demo_writes VALUES ($n)" >/dev/null 2>&1; then
			echo "$n $begin $(now_ms)" >>acked
		else
			sleep 0.02
		fi
	done
}

load() {
	while [ -e acked ] && [ ! -e stop ]; do
		PGTARGETSESSIONATTRS=read-write PGCONNECT_TIMEOUT=2 timeout 10 "$bindir/pgbench" -n -c 2 -T 2 \
			-h "$hosts" -p "$ports" -U postgres postgres >>pgbench.log 2>&1 || sleep 0.1
	done
}

acked_at_least() { [ "$(wc -l <acked)" -ge "$1" ]; }
first_ack_after() { awk -v at="$1" '$2 > at {print $3; found = 1; exit} END {exit !found}' acked; }

kill_everything() {	# node: kill -9 of the postmaster and each of its children
	local pid children
	pid=$(head -n 1 "n$1/postmaster.pid")
	kill -STOP "$pid"
	children=$(ps -o pid= --ppid "$pid" | tr '\n' ' ')
	# shellcheck disable=SC2086
	kill -KILL "$pid" $children 2>/dev/null || true
}

# A dead postmaster whose parent has not noticed yet (containers) still counts as
# running for the next one.
forget_zombie() {	# node, pid
	wait_for 1 "its parent notices" test ! -e "/proc/$2" >/dev/null && return 0
	if [ "$(ps -o stat= -p "$2" | cut -c 1)" = Z ]; then
		rm -f "n$1/postmaster.pid" ".s.PGSQL.$((base + $1)).lock"
	fi
}

show_states() {
	sql_rw "SELECT format('   %s  %-8s %-9s %s', name, role, state, coalesce(why_not, '')) FROM quantadb_nodes ORDER BY name"
}

run_demo() {
	local old new at first pid writer_pid load_pid epoch total lost
	cd "$1"
	trap 'touch stop' EXIT
	create_nodes
	say "== pgbench -i -s $scale, then two kinds of load through libpq with all three hosts"
	PGTARGETSESSIONATTRS=read-write "$bindir/pgbench" -q -i -s "$scale" -h "$hosts" -p "$ports" -U postgres postgres >pgbench-init.log 2>&1
	sql_rw "CREATE TABLE demo_writes (n bigint PRIMARY KEY)"
	: >acked
	writer & writer_pid=$!
	load & load_pid=$!
	wait_for 300 "writes" acked_at_least 100
	old=$(find_primary)
	epoch=$(sql "$old" "SELECT epoch FROM quantadb_status()")
	show_states
	say "== kill -9 of every process of n$old, the primary"
	at=$(now_ms)
	pid=$(head -n 1 "n$old/postmaster.pid")
	kill_everything "$old"
	wait_for 60 "an acknowledged write" first_ack_after "$at"
	first=$(first_ack_after "$at")
	wait_for 300 "more writes" acked_at_least $(($(wc -l <acked) + 100))
	touch stop
	wait $writer_pid $load_pid || true
	new=$(find_primary)

	say "== What happened (quantadb_journal, UTC; killed at $(date -u -d "@$((at / 1000)).$(printf %03d $((at % 1000)))" +%H:%M:%S.%3N))"
	sql "$new" "SELECT format('   %s  epoch %s  %-10s %-4s %s', to_char(j.\"time\" AT TIME ZONE 'UTC', 'HH24:MI:SS.MS'),
		epoch, event, coalesce(node, ''), reason) FROM quantadb_journal j WHERE epoch > $epoch ORDER BY number"
	say "   outage: $((first - at)) ms from the kill to the first acknowledged write; n$new is primary"

	total=$(wc -l <acked)
	cut -d ' ' -f 1 acked >numbers
	lost=$("$bindir/psql" -X -A -t -q -v ON_ERROR_STOP=1 -d "$rw" <<SQL
CREATE TEMP TABLE acked (n bigint);
\copy acked FROM 'numbers'
SELECT count(*) FROM acked WHERE n NOT IN (SELECT n FROM demo_writes);
SQL
	)
	say "   acknowledged writes: $total, of these missing on n$new: $lost"
	[ "$lost" = 0 ] || die "acknowledged writes are gone"

	say "== n$old starts again"
	forget_zombie "$old" "$pid"
	start_node "$old"
	at=$(now_ms)
	wait_for 120 "n$old streams again" is_state "$old" replica || die "n$old did not come back"
	say "   n$old streams from n$new again, $(($(now_ms) - at)) ms after its start, without help"
	wait_for 30 "n$new hears that" seen_as_replica "$old" || die "n$new does not see n$old as a replica"
	show_states
	wait_for 30 "the same on all nodes" same_everywhere || die "the nodes differ"
	say "   rows in demo_writes on n1, n2, n3: $(rows 1), $(rows 2), $(rows 3)"
	say ""
	say "The cluster is running.  Reach it:"
	say "   $bindir/psql '$rw'"
	say "   http://127.0.0.1:$((base + 3000 + new))/      dashboard"
	say "   http://127.0.0.1:$((base + 3000 + new))/cluster/status"
	say "   make demo-stop"
}

rows() { sql "$1" "SELECT count(*) FROM demo_writes"; }

same_everywhere() { [ "$(rows 1)" = "$(rows 2)" ] && [ "$(rows 2)" = "$(rows 3)" ]; }

case ${1:-start} in
start) start_demo ;;
stop) stop_demo "$(cd "$(dirname "$0")/../.." && pwd)" ;;
run) run_demo "$2" ;;
*) die "usage: demo.sh start|stop" ;;
esac
