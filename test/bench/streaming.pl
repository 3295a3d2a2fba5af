# Streaming against PostgreSQL's own, in pairs of runs on this machine:
#	commits per second that wait for a quorum, against ANY 1 (*) with two standbys,
#	bytes on the wire per byte of WAL for each codec, pgbench after a checkpoint,
#	private memory of the streamer.
# QUANTADB_BENCH_RUNS pairs (default 3), medians.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $runs = $ENV{QUANTADB_BENCH_RUNS} || 3;
my $seconds = $ENV{QUANTADB_BENCH_SECONDS} || 10;
my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';

sub median { my @s = sort { $a <=> $b } @_; return $s[$#s / 2] }

sub pgbench
{
	my ($c, $i, @args) = @_;
	my $out = QuantaCluster::run_ok("$bindir/pgbench", '-h', '127.0.0.1', '-p', $c->node($i)->{sql},
		'-U', 'postgres', '-n', @args, 'postgres');
	my ($tps) = $out =~ /tps = ([\d.]+)/;
	return $tps;
}

# The same three servers without us: one primary, two stock standbys.
sub stock_cluster
{
	my $c = QuantaCluster->new(n => 3, conf => "max_wal_senders = 32\nwal_keep_size = 1GB\nwal_log_hints = on\n");
	$c->create_first(1, no_preload => 1);
	for my $i (2, 3)
	{
		QuantaCluster::run_ok("$bindir/pg_basebackup", '-h', '127.0.0.1', '-p', $c->node(1)->{sql},
			'-U', 'postgres', '-D', $c->node($i)->{data}, '-X', 'stream', '-c', 'fast', '-R');
		$c->write_settings($i, no_preload => 1);
		$c->start($i);
	}
	$c->sql(1, "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'");
	$c->sql(1, 'SELECT pg_reload_conf()');
	$c->wait_for(sub { $c->sql(1, 'SELECT count(*) FROM pg_stat_replication WHERE state = \'streaming\'') eq '2' },
		60, 'two stock standbys');
	return $c;
}

my $ours = QuantaCluster->new_cluster(n => 3, quick => 1);
my $p = $ours->primary;
pgbench($ours, $p, '-i', '-q', '-s', 10);
my $stock = stock_cluster();
pgbench($stock, 1, '-i', '-q', '-s', 10);

for my $clients (1, 4, 16)
{
	my (%tps, %ratio);
	for my $run (1 .. $runs)
	{
		for my $which ($run % 2 ? qw(ours stock) : qw(stock ours))
		{
			my ($c, $i) = $which eq 'ours' ? ($ours, $p) : ($stock, 1);
			$c->sql($i, 'CHECKPOINT');
			push @{$tps{$which}}, pgbench($c, $i, '-c', $clients, '-j', 2, '-T', $seconds, '-N');
		}
		push @{$ratio{all}}, $tps{ours}[-1] / $tps{stock}[-1];
	}
	printf "quorum commits/s, %d clients: ours %.0f, stock ANY 1 (*) %.0f, ratio %.3f (median of %d pairs: %s)\n",
	  $clients, median(@{$tps{ours}}), median(@{$tps{stock}}), median(@{$ratio{all}}), $runs,
	  join(' ', map { sprintf '%.3f', $_ } @{$ratio{all}});
}

sub streamer { return $ours->sql($p, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'quantadb streamer'") }
sub cpu_ms
{
	my ($pid) = @_;
	my ($rest) = QuantaCluster::slurp("/proc/$pid/stat") =~ /\) (.*)/s;
	my @f = split / /, $rest;
	return 10 * ($f[11] + $f[12]);
}

sub private_kb
{
	my ($pid) = @_;
	my $kb = 0;
	my $rollup = QuantaCluster::slurp("/proc/$pid/smaps_rollup");
	$kb += $1 while $rollup =~ /^Private_\w+:\s+(\d+) kB/mg;
	return $kb;
}

for my $codec (qw(off lz4 zstd))
{
	$ours->sql($p, "ALTER SYSTEM SET quantadb.replication_compression = $codec");
	$ours->sql($p, 'SELECT pg_reload_conf()');
	$ours->wait_for(sub { $ours->sql($p, 'SHOW quantadb.replication_compression') eq $codec }, 10, $codec);
	for my $clients (1, 4)
	{
		$ours->sql($p, 'CHECKPOINT');
		my $sum = 'SELECT sum(bytes_raw), sum(bytes_wire) FROM quantadb_replication';
		my @before = split /\|/, $ours->sql($p, $sum);
		my $cpu = cpu_ms(streamer());
		my $tps = pgbench($ours, $p, '-c', $clients, '-j', 2, '-T', $seconds);
		$ours->wait_replayed($_, $p) for grep { $_ != $p } $ours->all;
		$ours->sql($p, 'SELECT pg_sleep(0.1)');
		my @after = split /\|/, $ours->sql($p, $sum);
		printf "compression %s, %d clients: %.0f tps, %.1f MB of WAL a replica, %.3f bytes on the wire per byte, streamer CPU %.2f s/GB\n",
		  $codec, $clients, $tps, ($after[0] - $before[0]) / 2e6, ($after[1] - $before[1]) / ($after[0] - $before[0]),
		  (cpu_ms(streamer()) - $cpu) / 1000 / (($after[0] - $before[0]) / 2e9);
	}
}
printf "private memory of the streamer: %d kB (buffer %s)\n", private_kb(streamer()),
  $ours->sql($p, 'SHOW quantadb.replication_buffer');
ok(1, 'measured');
done_testing();
