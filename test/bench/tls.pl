# What TLS costs, and what it costs PostgreSQL: commits a second of pgbench that wait for
# a quorum on three nodes, with TLS, without it (quantadb.development_plaintext), and on
# stock servers with ANY 1 (*) and SSL between them.  The three clusters live side by side
# and are measured in turns; ratios are medians over the rounds.  Then the CPU time of
# the senders.
#
# QUANTADB_BENCH_RUNS rounds (default 5), QUANTADB_BENCH_SECONDS each (default 5).
use strict;
use warnings;
use QuantaBench qw(median stock_cluster pgbench sender_cpu wal_bytes);
use QuantaCluster;
use Test::More;

my $rounds = $ENV{QUANTADB_BENCH_RUNS} || 5;
my $seconds = $ENV{QUANTADB_BENCH_SECONDS} || 5;

my %cluster = (
	tls => QuantaCluster->new_cluster(n => 3, quick => 1),
	clear => QuantaCluster->new_cluster(n => 3, quick => 1, conf => 'quantadb.development_plaintext = on'),
	stock => stock_cluster(ssl => 1));
my %primary = map { $_ => $_ eq 'stock' ? 1 : $cluster{$_}->primary } keys %cluster;
pgbench($cluster{$_}, $primary{$_}, '-i', '-q', '-s', 10) for sort keys %cluster;

for my $clients (split / /, $ENV{QUANTADB_BENCH_CLIENTS} || '1 4 16')
{
	my (%tps, %cpu);
	for my $round (1 .. $rounds)
	{
		my @order = qw(tls clear stock);
		push @order, shift @order for 1 .. $round % 3;
		for my $which (@order)
		{
			my ($c, $p) = ($cluster{$which}, $primary{$which});
			$c->sql($p, 'CHECKPOINT');
			my ($cpu, $wal) = (sender_cpu($c, $p), wal_bytes($c, $p));
			push @{$tps{$which}}, pgbench($c, $p, '-c', $clients, '-j', 2, '-T', $seconds, '-N');
			push @{$cpu{$which}}, 1e9 * (sender_cpu($c, $p) - $cpu) / (wal_bytes($c, $p) - $wal);
		}
	}
	for my $other (qw(clear stock))
	{
		my @ratios = map { $tps{tls}[$_] / $tps{$other}[$_] } 0 .. $rounds - 1;
		printf "commits/s with TLS, %d clients: %.0f, %s %.0f, ratio %.3f (median of %d rounds: %s)\n",
		  $clients, median(@{$tps{tls}}), $other eq 'clear' ? 'in the clear' : 'stock with SSL',
		  median(@{$tps{$other}}), median(@ratios), $rounds, join(' ', map { sprintf '%.2f', $_ } @ratios);
	}
	printf "CPU of the senders, %d clients, s per GB of WAL: TLS %.1f, in the clear %.1f, stock with SSL %.1f\n",
	  $clients, map { median(@{$cpu{$_}}) } qw(tls clear stock);
}
ok(1, 'measured');
done_testing();
