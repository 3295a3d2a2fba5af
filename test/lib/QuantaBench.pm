# QuantaBench.pm
#	What the benchmarks share: pgbench, stock servers to compare with, CPU and memory of processes.
package QuantaBench;

use strict;
use warnings;
use Exporter qw(import);
use QuantaCluster;

our @EXPORT_OK = qw(median percentile pgbench stock_cluster sender_cpu cpu_seconds children_named wal_bytes private_kb);

my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';

sub median { return percentile(50, @_) }

# The smallest value that at least so many percent of all do not exceed.
sub percentile
{
	my ($percent, @values) = @_;
	my @s = sort { $a <=> $b } @values;
	my $k = int(@s * $percent / 100 + 0.999999) - 1;
	return $s[$k < 0 ? 0 : $k];
}

# Transactions a second; 0 for an initialisation.
sub pgbench
{
	my ($c, $i, @args) = @_;
	# What clients encrypt is not measured.
	my $conninfo = $c->conninfo($i) . ' sslmode=disable';
	my $out = QuantaCluster::run_ok("$bindir/pgbench", '-n', @args, $conninfo);
	my ($tps) = $out =~ /tps = ([\d.]+)/;
	return $tps || 0;
}

sub wal_bytes
{
	my ($c, $i) = @_;
	return $c->sql($i, "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn");
}

# Servers without the library: one primary with ANY 1 (*), the others stream from it.
sub stock_cluster
{
	my (%args) = @_;
	my $n = $args{n} || 3;
	my $c = QuantaCluster->new(n => $n, conf => "max_wal_senders = 32\nwal_keep_size = 1GB\nwal_log_hints = on\n");
	if ($args{ssl})
	{
		QuantaCluster::run_ok('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1',
			'-nodes', '-days', '2', '-subj', '/CN=localhost', '-keyout', "$c->{dir}/key.pem", '-out', "$c->{dir}/cert.pem");
		QuantaCluster::run_ok('chown', 'postgres:', "$c->{dir}/key.pem", "$c->{dir}/cert.pem") if $> == 0;
		$c->{conf} .= "ssl = on\nssl_cert_file = '$c->{dir}/cert.pem'\nssl_key_file = '$c->{dir}/key.pem'\n";
	}
	$c->create_first(1, no_preload => 1);
	for my $i (2 .. $n)
	{
		QuantaCluster::run_ok(@{$c->node($i)->{enter}}, "$bindir/pg_basebackup", '-d',
			'host=127.0.0.1 port=' . $c->node(1)->{sql} . ' user=postgres' . ($args{ssl} ? ' sslmode=require' : ''),
			'-D', $c->node($i)->{data}, '-X', 'stream', '-c', 'fast', '-R');
		$c->write_settings($i, no_preload => 1);
		$c->start($i);
	}
	$c->sql(1, "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'");
	$c->sql(1, 'SELECT pg_reload_conf()');
	$c->wait_for(sub { $c->sql(1, 'SELECT count(*) FROM pg_stat_replication WHERE state = \'streaming\'') eq $n - 1 },
		60, 'stock standbys');
	return $c;
}

# Seconds of CPU that a process has used.
sub cpu_seconds
{
	my ($pid) = @_;
	my ($rest) = QuantaCluster::slurp("/proc/$pid/stat") =~ /\) (.*)/s or return 0;
	my @f = split / /, $rest;
	return ($f[11] + $f[12]) / 100;
}

# Children of a node's postmaster whose title matches.
sub children_named
{
	my ($c, $i, $pattern) = @_;
	return grep { QuantaCluster::slurp("/proc/$_/cmdline") =~ $pattern } QuantaCluster::children_of($c->postmaster($i));
}

# Of the processes that send WAL: our streamer, or PostgreSQL's walsenders.
sub sender_cpu
{
	my ($c, $i) = @_;
	my $sum = 0;
	$sum += cpu_seconds($_) for children_named($c, $i, qr/quantadb streamer|walsender/);
	return $sum;
}

sub private_kb
{
	my ($pid) = @_;
	my $rollup = QuantaCluster::slurp("/proc/$pid/smaps_rollup");
	my $kb = 0;
	$kb += $1 while $rollup =~ /^Private_\w+:\s+(\d+) kB/mg;
	return $kb;
}

1;
