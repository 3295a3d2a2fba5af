# The time from kill -9 of every process of the primary under load to the first
# acknowledged write, QUANTADB_BENCH_RUNS times (default 5), each on a new cluster.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $runs = $ENV{QUANTADB_BENCH_RUNS} || 5;
my @ms;
for my $run (1 .. $runs)
{
	my $c = QuantaCluster->new_cluster(n => 3);
	my $old = $c->primary;
	$c->sql($old, 'CREATE TABLE w (x bigint PRIMARY KEY)');
	$c->start_writers(2, 'w');
	$c->wait_for(sub { scalar($c->acknowledged) >= 50 }, 60, '50 acknowledged rows');
	my $at = $c->kill_all($old);
	$c->wait_for(sub { defined $c->outage_ms($at) }, 60, 'a write after the crash');
	$c->stop_writers;
	push @ms, $c->outage_ms($at);
	is(scalar($c->missing_numbers($c->primary, 'w')), 0, "run $run: $ms[-1] ms, nothing lost");
	$c->teardown;
}
@ms = sort { $a <=> $b } @ms;
printf "failover after kill -9 of everything, %d runs: min %d ms, p50 %d ms, max %d ms\n",
  $runs, $ms[0], $ms[$#ms / 2], $ms[-1];
done_testing();
