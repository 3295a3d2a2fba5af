# durability = async: commits wait for nobody, a failover stays within
# max_lag_on_failover and says in numbers what may be lost; back to quorum, nothing is.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
my @others = grep { $_ != $p } $c->all;
my $setting = "SELECT value FROM quantadb_settings WHERE name = '%s'";
is($c->sql($p, sprintf($setting, 'durability')), 'quorum', 'quorum is the default');
my ($code, $out, $err) = $c->sql_try($p, "SELECT quantadb_set('durability', 'perhaps')");
isnt($code, 0, 'an unknown durability is refused');
$c->sql($p, 'CREATE TABLE t (x int)');
$c->wait_replayed($_, $p) for @others;

# With replay paused and walreceivers stopped no quorum can be had.
sub receivers { return map { $c->sql($_, 'SELECT pid FROM pg_stat_wal_receiver') } @others }
my @stopped = receivers();
kill 'STOP', @stopped;
($code) = $c->sql_try($p, "SET statement_timeout = '1s'; INSERT INTO t VALUES (1)", timeout => 3);
isnt($code, 0, 'under quorum a commit waits for replicas');
kill 'CONT', @stopped;
$c->wait_for(sub { $c->sql($p, 'SELECT count(*) FROM t') eq '1' }, 30, 'and goes on with them');

$c->sql($p, "SELECT quantadb_set('durability', 'async')");
$c->wait_for(sub { $c->sql($p, sprintf($setting, 'durability')) eq 'async' }, 10, 'async');
$c->wait_for(sub { $c->sql($p, q{SELECT count(*) FROM quantadb_journal WHERE event = 'membership_close'}) ge '1' }, 10, 'closed');
$c->sql_becomes($p, "SELECT count(*) FROM quantadb_journal WHERE reason LIKE '%durability = async%'", '1', 'the journal tells of the switch');
@stopped = receivers();
kill 'STOP', @stopped;
($code, $out, $err) = $c->sql_try($p, 'INSERT INTO t VALUES (2)');
is($code, 0, 'under async it does not wait');
($code, $out, $err) = $c->sql_try($p, "SET quantadb.read_consistency = strict; SET quantadb.read_timeout = '500ms'; SELECT count(*) FROM t");
isnt($code, 0, 'a strict read shows nothing that a failover could take back');

# Back: the change is not closed before everything acknowledged is on a quorum.
$c->sql($p, "SELECT quantadb_set('durability', 'quorum')");
my $closes = "SELECT count(*) FROM quantadb_journal WHERE event = 'membership_close'";
my $before = $c->sql($p, $closes);
($code, $out, $err) = $c->sql_try($p, "SELECT quantadb_set('durability', 'async')");
isnt($code, 0, 'the switch is open while replicas lag');
kill 'CONT', @stopped;
$c->wait_for(sub { $c->sql($p, $closes) > $before }, 30, 'it is closed once they have it all');
$c->sql($p, "SELECT quantadb_set('durability', 'async')");
$c->sql($p, "SELECT quantadb_set('max_lag_on_failover', '64kB')");

# The primary dies far ahead: no failover until it is back.
@stopped = receivers();
kill 'STOP', @stopped;
$c->sql($p, 'INSERT INTO t SELECT g FROM generate_series(10, 20000) g');
my $at = $c->sql($p, 'SELECT pg_current_wal_flush_lsn()');
my ($o) = @others;
$c->wait_for(sub { $c->sql($o, "SELECT wal_end >= '$at' FROM quantadb_nodes WHERE name = 'n$p'") eq 't' }, 10, 'its end is known');
$c->kill_all($p);
# They end without having read what waits in their sockets.
kill 'TERM', @stopped;
kill 'CONT', @stopped;
$c->wait_for(sub { $c->sql($o, "SELECT count(*) FROM quantadb_journal WHERE event = 'held_back' AND reason ~ 'no failover: \\d+ bytes'") ge '1' },
	30, 'the journal says why there is no failover');
is($c->primary, 0, 'there is no primary');
$c->start($p);
$c->wait_for(sub { $c->primary != 0 }, 60, 'a primary once it is back');
is($c->sql($c->await_primary, 'SELECT count(*) FROM t WHERE x >= 10'), '19991', 'with all that it had acknowledged');

# Within the limit it fails over, and says what may be lost.
$c->sql($c->await_primary, "SELECT quantadb_set('max_lag_on_failover', '64MB')");
$c->wait_complete;
$p = $c->primary;
$c->kill_all($p);
$c->wait_for(sub { my $n = $c->primary; $n && $n != $p }, 60, 'a failover within the limit');
like($c->sql($c->await_primary, "SELECT reason FROM quantadb_journal WHERE event = 'seat' ORDER BY number DESC LIMIT 1"),
	qr/durability is async: \d+ bytes/, 'the journal says in numbers what may be lost');
done_testing();
