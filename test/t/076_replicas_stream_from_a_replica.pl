# quantadb.upstream: a replica without a vote streams from the member that it names, and the
# primary sends that WAL once less.  Where the upstream, or the primary, is gone, it streams from
# the primary there is; nothing is lost, and commits never wait for it.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 4);
$c->create_first;
$c->init(1);
$c->join_copy($_) for 2, 3;
$c->join_copy(4, 1, role => 'replica');
$c->sql_becomes(1, 'SELECT can_lose FROM quantadb_status()', '1', 'n2 and n3 vote');
my @voters = (1, 2, 3);

# By the rows that a node shows of those that stream from it.
sub streams_from
{
	my ($from) = @_;
	my ($code, $out) = $c->sql_try($from, "SELECT count(*) FROM quantadb_replication WHERE node = 'n4' AND state = 'streaming'");
	return $code == 0 && $out eq '1';
}
# One that hangs is not asked.
sub wait_source
{
	my ($from, $name, $hangs) = @_;
	$c->wait_for(sub {
			my @others = grep { $_ != $from && $_ != ($hangs || 0) && $c->postmaster($_) } @voters;
			return $c->state(4) eq 'replica' && streams_from($from) && !grep { streams_from($_) } @others;
		}, 120, $name);
	pass($name);
}
sub upstream
{
	my ($node) = @_;
	$c->sql(4, "ALTER SYSTEM SET quantadb.upstream = '$node'");
	$c->sql(4, 'SELECT pg_reload_conf()');
}

my $p = 1;
$c->wait_for(sub { $c->sql(1, "SELECT count(*) FROM quantadb_nodes WHERE role = 'voter'") eq '3' }, 90, 'three voters');
$c->sql(1, 'CREATE TABLE w (x bigint PRIMARY KEY)');
wait_source(1, 'without the setting it streams from the primary');
upstream('n2');
wait_source(2, 'with it from the upstream');
$c->start_writers(2, 'w');
$c->wait_for(sub { scalar($c->acknowledged) >= 30 }, 60, 'writes go on');
is($c->sql(4, "SELECT why_not FROM quantadb_nodes WHERE name = 'n4'"), 'it is no voter', 'as any replica without a vote');
$c->wait_replayed(4, 1);
is($c->sql(2, "SELECT count(*) FROM pg_stat_replication WHERE state IN ('streaming', 'catchup')"), 1, 'the upstream shows it in pg_stat_replication');

upstream('n9');
wait_source(1, 'an upstream that is no member is none');
upstream('n2');
wait_source(2, 'and back');

$c->freeze(2);
wait_source(1, 'the primary takes over from an upstream that hangs', 2);
$c->thaw(2);
$c->wait_for(sub { $c->state(2) eq 'replica' }, 90, 'the upstream goes on');
wait_source(2, 'which is taken again when it goes on');

$c->kill_all(2);
wait_source(1, 'the primary takes over from an upstream that died');
my $before = scalar($c->acknowledged);
$c->wait_for(sub { scalar($c->acknowledged) > $before + 10 }, 60, 'writes go on meanwhile');
$c->start(2);
$c->wait_for(sub { $c->state(2) eq 'replica' }, 90, 'the upstream streams again');
wait_source(2, 'the upstream is taken again once it streams');

$c->kill_all(1);
my $new;
$c->wait_for(sub { $new = $c->primary }, 60, 'a new primary');
wait_source(2, 'after a failover it streams from the upstream, primary or not');
$before = scalar($c->acknowledged);
$c->wait_for(sub { scalar($c->acknowledged) > $before + 10 }, 60, 'writes go on');
$c->stop_writers;
$c->start(1);
$c->wait_for(sub { $c->state(1) eq 'replica' }, 90, 'the old primary streams again');
for my $i (1, 2, 3, 4)
{
	$c->wait_replayed($i, $new) if $i != $new;
	is(scalar($c->missing_numbers($i, 'w')), 0, "n$i has every acknowledged row");
	is($c->fingerprint($i), $c->fingerprint($new), "n$i has the primary's tables") if $i != $new;
}

# It becomes a voter only over a stream from the holder, where its acks count.
my $other = $new == 2 ? 3 : 2;
upstream("n$other");
wait_source($other, 'a replica of the cluster that is now');
$c->sql($new, "SELECT quantadb_set_role('n4', 'voter')", timeout => 90);
$c->wait_for(sub { streams_from($new) && !streams_from($other) }, 60, 'a voter streams from the primary');
pass('a voter streams from the primary, whatever the setting says');
done_testing();
