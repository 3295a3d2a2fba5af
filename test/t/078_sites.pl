# Sites with 80 ms and 1 % loss between them: commits wait for the line only where a majority
# needs it, nothing fails over without a fault, and kill -9 of the primary loses nothing.
use strict;
use warnings;
use QuantaNet;
use QuantaCluster;
use QuantaClient;
use Test::More;
use Time::HiRes qw(time);

my $net = QuantaNet->new(3);
my $c = QuantaCluster->new_cluster(n => 3, quick => 1, net => $net);
(my $source = $INC{'QuantaCluster.pm'}) =~ s/lib\/QuantaCluster\.pm$/chaos\/relay.c/;
my $relay = "$c->{dir}/relay";
QuantaCluster::run_ok('gcc', '-O2', '-o', $relay, $source);
my $epoch = 'SELECT epoch FROM quantadb_status()';
$c->sql(1, 'CREATE TABLE w (x bigint PRIMARY KEY)');
$c->sql(1, "SELECT quantadb_set('failover_timeout', '5s')");
$c->sql(1, "SELECT quantadb_set('lease_duration', '2s')");
# The lease is that of the grant.
for my $i (2, 1)
{
	$c->sql($c->await_primary, "SELECT quantadb_promote('n$i')", timeout => 60) if $c->await_primary != $i;
	$c->wait_complete;
}

# ms of the fastest of those that began after $from
sub fastest
{
	my ($from) = @_;
	my ($least) = sort { $a <=> $b } map { 1000 * ($_->[2] - $_->[1]) } grep { $_->[1] > $from } $c->acknowledged;
	return $least;
}
sub wait_commits
{
	my ($from, $count) = @_;
	$c->wait_for(sub { scalar(grep { $_->[1] > $from } $c->acknowledged) >= $count }, 120, "$count commits");
}

# ---- two sites: n1 and n2, n3 ----
my $heal = $net->relay($relay, seed => 1, delay => 40, loss => 1, sites => [ [ 1, 2 ], [3] ]);
my $before = $c->sql(1, $epoch);
my @load = QuantaClient::start($c, 2, 'w');
my $from = time;
wait_commits($from, 100);
$c->wait_for(sub { time > $from + 6 }, 60, 'some seconds');
cmp_ok(fastest($from), '<', 80, 'a commit does not wait for the other site while two voters are on this one');
is($c->sql(1, $epoch), $before, 'no failover without a fault');
$c->wait_replayed(3, 1);
pass('the other site follows');

my $at = $c->kill_all(1);
my $ms;
$c->wait_for(sub { defined($ms = $c->outage_ms($at)) }, 120, 'writes go on');
my $new = $c->await_primary;
note("kill -9 of the primary: n$new takes writes after $ms ms");
wait_commits($at, 20);
cmp_ok(fastest($at), '>=', 79, 'with one voter on each site every commit waits for the line');
QuantaClient::stop(@load);
is(scalar($c->missing_numbers($new, 'w')), 0, 'nothing acknowledged is lost');
$c->start(1);
$c->wait_complete(120);
$heal->();

# ---- three sites ----
$heal = $net->relay($relay, seed => 2, delay => 40, loss => 1);
$new = $c->await_primary;
$before = $c->sql($new, $epoch);
@load = QuantaClient::start($c, 1, 'w');
$from = time;
wait_commits($from, 20);
$c->wait_for(sub { time > $from + 5 }, 60, 'some seconds');
cmp_ok(fastest($from), '>=', 79, 'with a site for each voter every commit waits for the line');
is($c->sql($c->await_primary, $epoch), $before, 'no failover without a fault');
QuantaClient::stop(@load);
$heal->();
$new = $c->await_primary;
for my $i ($c->all)
{
	$c->wait_replayed($i, $new) if $i != $new;
	is(scalar($c->missing_numbers($i, 'w')), 0, "n$i has every row that was acknowledged");
}
done_testing();
