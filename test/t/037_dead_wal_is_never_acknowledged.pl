# In three steps to a full loss: a node holds WAL of a dead branch that it has not replayed,
# restarts and replays it, streams the new timeline, and its acknowledgement counts; once the
# others are gone it is the primary and has not one of the rows.  Here it has them all.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

# n4 is a replica at first: what a voter has is on a quorum, and never dead.
my $c = QuantaCluster->new(n => 4);
$c->create_first;
$c->init(1);
$c->join_copy($_) for 2, 3;
$c->join_copy(4, 1, role => 'replica');
$c->sql_becomes(1, 'SELECT can_lose FROM quantadb_status()', '1', 'n2 and n3 vote');
$c->sql(1, 'CREATE EXTENSION amcheck');
$c->sql(1, 'CREATE TABLE t (id int PRIMARY KEY, v text)');
$c->sql(1, "INSERT INTO t SELECT g, 'kept' FROM generate_series(1, 1000) g");
$c->wait_replayed($_, 1) for 2 .. 4;

$c->signal_children('STOP', $_, 'walreceiver') for 2, 3;
$c->signal_children('STOP', 4, 'startup');
$c->sql(1, "SET synchronous_commit = local; INSERT INTO t SELECT g, 'lost' FROM generate_series(2000, 4000) g");
$c->sql(1, "SET synchronous_commit = local; UPDATE t SET v = 'lost' WHERE id % 2 = 0");
my $end = $c->sql(1, 'SELECT pg_current_wal_flush_lsn()');
$c->wait_for(sub { $c->sql(4, "SELECT pg_last_wal_receive_lsn() >= '$end'") eq 't' }, 30, 'n4 has received the dead branch');
# Before anybody can tell it to forget that.
$c->kill_all(4);
$c->kill_all(1);
for my $signal (qw(TERM CONT))
{
	$c->signal_children($signal, $_, 'walreceiver') for 2, 3;
}
my $new;
$c->wait_for(sub { $new = $c->primary; $new && $new != 1 }, 60, 'a new primary');
my ($third) = grep { $_ != $new } 2, 3;
$c->wait_for(sub { $c->write_ok($new) }, 30, "n$new takes writes");
$c->sql($new, "UPDATE t SET v = 'new' WHERE id <= 10");

# It restarts, reads what it has, and becomes a voter in place of the dead one.
$c->start(4);
$c->wait_for(sub { $c->state(4) eq 'replica' }, 90, 'n4 streams');
$c->sql($new, "SELECT quantadb_remove('n1')", timeout => 60);
$c->sql($new, "SELECT quantadb_set_role('n4', 'voter')", timeout => 60);
$c->wait_for(sub { $c->sql($new, 'SELECT can_lose FROM quantadb_status()') eq '1' }, 60, 'n4 votes');

# It alone acknowledges, and it alone remains.
$c->kill_all($third);
$c->sql($new, "INSERT INTO t SELECT g, 'acknowledged' FROM generate_series(10000, 11500) g");
$c->kill_all($new);
$c->start($third);
$c->wait_for(sub { $c->state(4) eq 'primary' && $c->write_ok(4) }, 90, 'n4 is primary');
is($c->sql(4, "SELECT count(*) FROM t WHERE v = 'acknowledged'"), '1501', 'with every acknowledged row');
is($c->sql(4, "SELECT count(*) FROM t WHERE v = 'lost'"), '0', 'and none of the dead branch');
is($c->sql(4, "SELECT count(*) FROM t WHERE v = 'new'"), '10', 'and what came between');
is($c->amcheck(4), '', 'amcheck finds nothing');
$c->wait_for(sub { $c->state($third) eq 'replica' }, 60, "n$third streams");
$c->wait_replayed($third, 4);
is($c->fingerprint($third), $c->fingerprint(4), "n$third has the same tables");
done_testing();
