# The stream: every codec carries the same WAL, fewer bytes leave than there are, and
# the views show positions, lag and reconnects as they are.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
my ($r, $s) = grep { $_ != $p } $c->all;
is($c->sql($p, 'SHOW quantadb.replication_buffer'), '1MB', 'the buffer is 1 MB by default');
my $sum = 'SELECT sum(bytes_raw), sum(bytes_wire) FROM quantadb_replication';
my $md5 = "SELECT md5(string_agg(t::text, ',' ORDER BY x)) FROM t";
$c->sql($p, 'CREATE TABLE t (x int, filler char(200))');

for my $codec (qw(off lz4 zstd))
{
	for my $command ("ALTER SYSTEM SET quantadb.replication_compression = $codec",
		'SELECT pg_reload_conf()') { $c->sql($p, $command) }
	$c->wait_for(sub { $c->sql($p, 'SHOW quantadb.replication_compression') eq $codec }, 10, $codec);
	my @before = split /\|/, $c->sql($p, $sum);
	$c->sql($p, 'CHECKPOINT');
	$c->sql($p, "INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 20000) g; UPDATE t SET filler = 'x' WHERE x % 7 = 0");
	$c->wait_replayed($_, $p) for $r, $s;
	my $want = $c->sql($p, $md5);
	is($c->sql($_, $md5), $want, "$codec: n$_ has the same rows") for $r, $s;
	my @after;
	$c->wait_for(sub { @after = split /\|/, $c->sql($p, $sum); $after[0] - $before[0] > 8e6 }, 10, 'bytes are counted');
	my $ratio = ($after[1] - $before[1]) / ($after[0] - $before[0]);
	if ($codec eq 'off') { cmp_ok($ratio, '>=', 1.0, sprintf('off: %.3f bytes on the wire per byte', $ratio)) }
	else { cmp_ok($ratio, '<', 0.5, sprintf('%s: %.3f bytes on the wire per byte', $codec, $ratio)) }
}

# PostgreSQL's own view
$c->wait_for(
	sub {
		$c->sql($p, q{SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'quorum'
			AND sent_lsn = pg_current_wal_flush_lsn() AND write_lsn = sent_lsn AND flush_lsn = sent_lsn
			AND replay_lsn = sent_lsn AND flush_lag IS NOT NULL AND reply_time > now() - interval '1 min'}) eq '2'
	}, 30, 'pg_stat_replication shows both streams at the end');
$c->sql_becomes($p, 'SELECT count(*) FROM pg_stat_replication', '2', 'pg_stat_replication has a row a stream');

# Lag, in bytes and in time, while replay stands still.
$c->sql($s, 'SELECT pg_wal_replay_pause()');
$c->wait_for(sub { $c->sql($s, 'SELECT pg_get_wal_replay_pause_state()') eq 'paused' }, 10, 'replay is paused');
$c->sql($p, 'INSERT INTO t SELECT g FROM generate_series(1, 1000) g');
my $lag = "SELECT lag_bytes > 100000 AND lag_ms > %d FROM quantadb_replication WHERE node = 'n$s'";
$c->wait_for(sub { $c->sql($p, sprintf($lag, 0)) eq 't' }, 10, 'lag shows');
$c->wait_for(sub { $c->sql($p, sprintf($lag, 1000)) eq 't' }, 10, 'and grows with the clock');
$c->sql_becomes($p, "SELECT lag_bytes FROM quantadb_replication WHERE node = 'n$r'", '0', 'the other one has none');
$c->sql($s, 'SELECT pg_wal_replay_resume()');
$c->wait_for(sub { $c->sql($p, "SELECT lag_bytes = 0 AND lag_ms = 0 FROM quantadb_replication WHERE node = 'n$s'") eq 't' },
	10, 'lag goes away');

# A lost connection is made again, and counted; the byte counters go on.
my @before = split /\|/, $c->sql($p, "SELECT reconnects, bytes_raw FROM quantadb_replication WHERE node = 'n$r'");
kill 'TERM', $c->sql($r, 'SELECT pid FROM pg_stat_wal_receiver');
$c->wait_for(
	sub {
		$c->sql($p, "SELECT reconnects > $before[0] AND state = 'streaming' FROM quantadb_replication WHERE node = 'n$r'") eq 't'
	}, 30, 'a reconnect is counted');
$c->sql($p, 'INSERT INTO t VALUES (-5)');
$c->wait_replayed($r, $p);
cmp_ok($c->sql($p, "SELECT bytes_raw FROM quantadb_replication WHERE node = 'n$r'"), '>=', $before[1],
	'the counters go on');

# The stream follows a switch of timelines.
my $timeline = $c->sql($p, 'SELECT timeline FROM quantadb_status()');
$c->kill_all($p);
$c->wait_for(sub { my ($code) = $c->psql_rw('INSERT INTO t VALUES (-6)', timeout => 60); $code == 0 }, 60, 'a new primary');
my $new = $c->await_primary;
my ($other) = grep { $_ != $p && $_ != $new } $c->all;
$c->wait_for(sub { $c->state($other) eq 'replica' }, 30, "n$other follows");
$c->wait_replayed($other, $new);
cmp_ok($c->sql($other, 'SELECT timeline FROM quantadb_status()'), '>', $timeline, 'on a newer timeline');
is($c->sql($other, 'SELECT count(DISTINCT x) FROM t WHERE x = -6'), '1', 'with what was written there');

done_testing();
