# Private memory of the three workers on the primary of three nodes, after a load, status
# requests and a scrape of metrics: coordinator, streamer and http, with their targets.
use strict;
use warnings;
use QuantaBench qw(pgbench private_kb children_named);
use QuantaCluster;
use Test::More;

my %target = (coordinator => 10 * 1024, streamer => (1 + 2) * 1024, http => 2 * 1024);
my $c = QuantaCluster->new_cluster(n => 3, quick => 1);
my $p = $c->primary;
pgbench($c, $p, '-i', '-q', '-s', 5);
pgbench($c, $p, '-c', 4, '-j', 2, '-T', $ENV{QUANTADB_BENCH_SECONDS} || 5);
for my $path ('/cluster/status', '/cluster/journal', '/metrics', '/primary') { $c->http($p, $path) for 1 .. 50 }
for my $worker (sort keys %target)
{
	my ($pid) = children_named($c, $p, qr/quantadb $worker/);
	ok($pid, "the $worker runs");
	my $rollup = QuantaCluster::slurp("/proc/$pid/smaps_rollup");
	my ($anonymous) = $rollup =~ /^Anonymous:\s+(\d+)/m;
	printf "private memory of the %s: %d kB (anonymous %d), target %d\n", $worker, private_kb($pid), $anonymous, $target{$worker};
	if ($ENV{QUANTADB_BENCH_MAPS})
	{
		my %kb;
		my $name = '';
		for (split /\n/, QuantaCluster::slurp("/proc/$pid/smaps"))
		{
			$name = $1 || 'anonymous' if /^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)$/;
			$kb{$name} += $1 if /^Private_\w+:\s+(\d+) kB/;
		}
		printf "#   %6d %s\n", $kb{$_}, $_ for grep { $kb{$_} >= 40 } sort { $kb{$b} <=> $kb{$a} } keys %kb;
	}
}
done_testing();
