# Copies join with a token, become voters, stream; a commit waits for a quorum.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
is($p, 1, 'n1 is primary');
# What the others do is known from their last heartbeat.
$c->wait_for(sub { $c->sql($p, q{SELECT string_agg(name || ' ' || role || ' ' || state, ', ' ORDER BY name) FROM quantadb_nodes})
	eq 'n1 voter primary, n2 voter replica, n3 voter replica' }, 30, 'three voters');
pass('three voters');
$c->sql_becomes($p, 'SELECT can_lose FROM quantadb_status()', '1', 'one may be lost');

$c->sql($p, 'CREATE TABLE t AS SELECT generate_series(1, 10000) AS x');
for my $i (2, 3)
{
	$c->wait_replayed($i, $p);
	is($c->sql($i, 'SELECT count(*) FROM t'), '10000', "n$i has the rows");
	is($c->sql($i, 'SHOW default_transaction_read_only'), 'on', "n$i tells libpq that it is read-only");
}
$c->sql_becomes($p, 'SELECT count(*) FROM quantadb_replication', '2', 'two streams');

# with one replica gone the other makes the quorum
$c->kill_all(3);
my ($code) = $c->psql_rw('INSERT INTO t VALUES (-1)');
is($code, 0, 'two of three still commit');
$c->wait_replayed(2, $p);
is($c->sql(2, 'SELECT count(*) FROM t WHERE x = -1'), '1', 'on both');

$c->start(3);
$c->wait_complete;
$c->wait_replayed(3, $p);
is($c->sql(3, 'SELECT count(*) FROM t WHERE x = -1'), '1', 'a returning replica catches up');

# An idle stream is no dead one, also where wal_sender_timeout is as short as a keepalive was.
sub given_up { return scalar(() = QuantaCluster::slurp($c->node($p)->{log}) =~ /no reply in time/g) }
$c->sql($p, $_) for "ALTER SYSTEM SET wal_sender_timeout = '1s'", 'SELECT pg_reload_conf()';
$c->sql_becomes($p, 'SHOW wal_sender_timeout', '1s', 'a reload is done');
my ($before, $from) = (given_up(), time);
$c->wait_for(sub { time > $from + 6 }, 30, 'some seconds');
cmp_ok(given_up() - $before, '<', 4, 'idle streams stay');

done_testing();
