# quantadb.upstream: a replica without a vote streams from the member that it names, and the
# primary sends that WAL once less.  Where the upstream, or the primary, is gone, it streams from
# the primary there is; nothing is lost, and commits never wait for it.
use strict;
use warnings;
use JSON::PP;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $c = QuantaCluster->new(n => 5);
$c->{n} = 4;
$c->create_first;
$c->init(1);
$c->join_copy($_) for 2, 3;
$c->join_copy(4, 1, role => 'replica');
$c->sql_becomes(1, 'SELECT can_lose FROM quantadb_status()', '1', 'n2 and n3 vote');
my @voters = (1, 2, 3);

# By the rows that a node shows of those that stream from it.
sub streams_from
{
	my ($from, $who) = @_;
	my ($code, $out) = $c->sql_try($from, "SELECT count(*) FROM quantadb_replication WHERE node = '" . ($who || 'n4') . "' AND state = 'streaming'");
	return $code == 0 && $out eq '1';
}
sub says_upstream
{
	my ($asked, $who) = @_;
	return ($c->sql_try($asked, "SELECT upstream FROM quantadb_nodes WHERE name = '$who'"))[1];
}
# One that hangs is not asked.
sub wait_source
{
	my ($from, $name, $hangs) = @_;
	my @asked = grep { $_ != ($hangs || 0) && $c->postmaster($_) } $c->all;
	$c->wait_for(sub {
			return $c->state(4) eq 'replica' && streams_from($from) &&
			  !(grep { $_ != $from && streams_from($_) } grep { $_ < 4 } @asked) &&
			  !grep { says_upstream($_, 'n4') ne "n$from" } @asked;
		}, 120, $name);
	pass($name);
}
sub upstream
{
	my ($node, $whose) = @_;
	$c->sql($whose || 4, "ALTER SYSTEM SET quantadb.upstream = '$node'");
	$c->sql($whose || 4, 'SELECT pg_reload_conf()');
}
# Times, in seconds of the day, at which a node's log has a line.
sub logged
{
	my ($i, $pattern) = @_;
	return map { /^\S+ (\d+):(\d+):([\d.]+) .*$pattern/ ? 3600 * $1 + 60 * $2 + $3 : () } split /\n/, QuantaCluster::slurp($c->node($i)->{log});
}
my $instead = 'Streaming from the primary instead of node "n2": ';

my $p = 1;
$c->wait_for(sub { $c->sql(1, "SELECT count(*) FROM quantadb_nodes WHERE role = 'voter'") eq '3' }, 90, 'three voters');
$c->sql(1, 'CREATE TABLE w (x bigint PRIMARY KEY)');
wait_source(1, 'without the setting it streams from the primary, as every member says');
upstream('n2');
wait_source(2, 'with it from the upstream');
$c->start_writers(2, 'w');
$c->wait_for(sub { scalar($c->acknowledged) >= 30 }, 60, 'writes go on');
is($c->sql(4, "SELECT why_not FROM quantadb_nodes WHERE name = 'n4'"), 'it is no voter', 'as any replica without a vote');
$c->wait_replayed(4, 1);
is($c->sql(2, "SELECT count(*) FROM pg_stat_replication WHERE state IN ('streaming', 'catchup')"), 1, 'the upstream shows it in pg_stat_replication');
my %upstream = map { $_->{name} => $_->{upstream} } @{ decode_json(($c->http(3, '/cluster/nodes'))[1])->{nodes} };
is_deeply(\%upstream, { n1 => undef, n2 => 'n1', n3 => 'n1', n4 => 'n2' }, '/cluster/nodes has the upstream of each node');

upstream('n9');
wait_source(1, 'an upstream that is no member is none');

# ---- it seems fit and brings nothing: it gets no WAL itself, and the replica has more than it ----
$c->signal_children('STOP', 2, 'walreceiver');
my $had = scalar($c->acknowledged);
$c->wait_for(sub { scalar($c->acknowledged) > $had + 10 }, 60, 'writes go on');
$c->wait_replayed(4, 1);
upstream('n2');
$c->wait_for(sub { logged(4, "${instead}it does not bring WAL") }, 60, 'an upstream that brings nothing is left');
my $left = time;

# ---- meanwhile: one link, no chains ----
$c->{n} = 5;
$c->join_copy(5, 1, role => 'replica');
upstream('n4', 5);
$c->wait_for(sub { time > $left + 7 }, 60, 'time to try again');
my $tries = logged(4, $instead);
is($tries, 1, 'and not tried again at once') if time < $left + 14;
$c->signal_children('CONT', 2, 'walreceiver');
upstream('n9');
upstream('n2');
wait_source(2, 'and back');

# ---- it hangs ----
$c->freeze(2);
wait_source(1, 'the primary takes over from an upstream that hangs', 2);
is(scalar(logged(4, "${instead}it does not stream itself")), 1, 'which is seen by its silence');
$c->thaw(2);
$c->wait_for(sub { $c->state(2) eq 'replica' }, 90, 'the upstream goes on');
wait_source(2, 'which is taken again when it goes on');

# ---- it dies ----
$c->kill_all(2);
wait_source(1, 'the primary takes over from an upstream that died');
my $before = scalar($c->acknowledged);
$c->wait_for(sub { scalar($c->acknowledged) > $before + 10 }, 60, 'writes go on meanwhile');
$c->start(2);
wait_source(2, 'the upstream is taken again once it streams');
my $settled = (logged(4, 'following node "n2"'))[-1] - (logged(2, 'following node "n1"'))[-1];
# How long exactly is for test_upstream.c to say: two logs do not tell it to the tenth of a second.
cmp_ok($settled < 0 ? $settled + 86400 : $settled, '>', 0.5, 'and has streamed for a while');

$c->kill_all(1);
my $new;
$c->wait_for(sub { $new = $c->primary }, 60, 'a new primary');
wait_source(2, 'after a failover it streams from the upstream, primary or not');
$before = scalar($c->acknowledged);
$c->wait_for(sub { scalar($c->acknowledged) > $before + 10 }, 60, 'writes go on');
$c->stop_writers;
$c->start(1);
$c->wait_for(sub { $c->state(1) eq 'replica' }, 90, 'the old primary streams again');
for my $i ($c->all)
{
	$c->wait_replayed($i, $new) if $i != $new;
	is(scalar($c->missing_numbers($i, 'w')), 0, "n$i has every acknowledged row");
	is($c->fingerprint($i), $c->fingerprint($new), "n$i has the primary's tables") if $i != $new;
}
# In front of an upstream that is behind it, it waits: its own WAL is good.
is(scalar(logged(4, 'rewind or re-clone')), 0, 'none of this was a reason to resynchronise');

# It becomes a voter only over a stream from the holder, where its acks count.
my $other = $new == 2 ? 3 : 2;
upstream("n$other");
wait_source($other, 'a replica of the cluster that is now');
is(scalar(logged(5, 'following node "n4"')), 0, 'who has an upstream is none');
$tries = logged(4, 'Streaming from the primary instead');
$c->sql($new, "SELECT quantadb_set_role('n4', 'voter')", timeout => 90);
$c->wait_for(sub { streams_from($new) && !streams_from($other) && says_upstream(5, 'n4') eq "n$new" }, 60, 'a voter streams from the primary');
$c->wait_for(sub { streams_from(4, 'n5') && says_upstream($other, 'n5') eq 'n4' }, 60, 'and passes on');
is(scalar(logged(4, 'Streaming from the primary instead')), $tries, 'a voter streams from the primary, whatever the setting says');
done_testing();
