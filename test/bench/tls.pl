# What TLS costs: commits a second of pgbench on three nodes with TLS, over the same
# without it (quantadb.development_plaintext), and the CPU time of the primary's streamer.
use strict;
use warnings;
use IPC::Run;
use QuantaCluster;
use Test::More;

my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';
my $seconds = $ENV{QUANTADB_BENCH_SECONDS} || 10;

# Seconds of CPU that the streamer of a node has used.
sub streamer_cpu
{
	my ($c, $i) = @_;
	for my $pid (QuantaCluster::children_of($c->postmaster($i)))
	{
		next unless QuantaCluster::slurp("/proc/$pid/cmdline") =~ /quantadb streamer/;
		my @f = split ' ', (QuantaCluster::slurp("/proc/$pid/stat") =~ /\) (.*)/s)[0];
		return ($f[11] + $f[12]) / 100;
	}
	return 0;
}

sub run
{
	my ($plain) = @_;
	my $c = QuantaCluster->new_cluster(n => 3, conf => $plain ? 'quantadb.development_plaintext = on' : '');
	my $p = $c->primary;
	my $port = $c->node($p)->{sql};
	QuantaCluster::run_ok("$bindir/pgbench", '-i', '-q', '-s', '5', '-h', '127.0.0.1', '-p', $port, '-U', 'postgres', 'postgres');
	my $cpu = streamer_cpu($c, $p);
	my $lsn = $c->sql($p, 'SELECT pg_current_wal_lsn()');
	my $out = QuantaCluster::run_ok("$bindir/pgbench", '-n', '-c', '4', '-T', $seconds, '-h', '127.0.0.1', '-p', $port, '-U', 'postgres', 'postgres');
	my ($tps) = $out =~ /tps = ([\d.]+)/;
	$cpu = streamer_cpu($c, $p) - $cpu;
	my $mb = $c->sql($p, "SELECT (pg_current_wal_lsn() - '$lsn') / 1048576");
	$c->teardown;
	return ($tps, $cpu / ($mb || 1));
}

my (@with, @without);
for (1 .. $ENV{QUANTADB_BENCH_RUNS} || 3)
{
	push @with, [ run(0) ];
	push @without, [ run(1) ];
}
sub median { my ($k, @r) = @_; my @s = sort { $a <=> $b } map { $_->[$k] } @r; return $s[$#s / 2] }
printf "TLS: %.0f commits/s, in the clear %.0f: ratio %.2f\n", median(0, @with), median(0, @without),
  median(0, @with) / median(0, @without);
printf "TLS: streamer CPU per MB of WAL %.2f ms, in the clear %.2f: ratio %.2f\n", 1000 * median(1, @with), 1000 * median(1, @without),
  median(1, @without) > 0 ? median(1, @with) / median(1, @without) : 0;
ok(median(0, @with) > 0, 'measured');
done_testing();
