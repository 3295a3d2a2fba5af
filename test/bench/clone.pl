# How long a fresh server needs to get its data by a clone, and until it streams, against a
# pg_basebackup of the same server in the same run; and whether quantadb.clone_rate is kept.
#	QUANTADB_BENCH_SCALE	of pgbench, 15 MB each (default 20)
use strict;
use warnings;
use File::Path qw(remove_tree);
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $scale = $ENV{QUANTADB_BENCH_SCALE} || 20;
my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';
my $c = QuantaCluster->new(n => 3, quick => 1, conf => "shared_buffers = 128MB\nmax_wal_size = 4GB\n");
$c->create_first(1);
$c->init(1);
QuantaCluster::run_long("$bindir/pgbench", '-h', '127.0.0.1', '-p', $c->node(1)->{sql}, '-U', 'postgres',
	'-i', '-q', '-s', $scale, 'postgres');
$c->sql(1, 'CHECKPOINT', timeout => 300);
my $megabytes = $c->sql(1, 'SELECT sum(pg_database_size(oid)) / 1048576 FROM pg_database');

# From the call to the restart with the data, and to the stream.
sub clone
{
	my ($i, $rate) = @_;
	$c->create_first($i);
	$c->sql($i, 'CREATE EXTENSION quantadb');
	$c->sql($i, "ALTER SYSTEM SET quantadb.clone_rate = '$rate'") if $rate;
	$c->sql($i, 'SELECT pg_reload_conf()');
	my $begin = time;
	$c->ask_join($i, 1);
	my $there;
	$c->wait_for(sub {
			$there = time if !$there && QuantaCluster::slurp($c->node($i)->{log}) =~ /The clone is complete/;
			return $c->state($i) eq 'replica';
		}, 600, "n$i streams");
	return ($there - $begin, time - $begin);
}
my ($there, $streams) = clone(2);
my $begin = time;
QuantaCluster::run_long("$bindir/pg_basebackup", '-h', '127.0.0.1', '-p', $c->node(1)->{sql}, '-U', 'postgres',
	'-D', "$c->{dir}/copy", '-X', 'stream', '-c', 'fast');
my $copy = time - $begin;
remove_tree("$c->{dir}/copy");
my $rate = 50;
my ($slow) = clone(3, "${rate}MB");
printf "clone: database of %d MB: data there and durable after %.1f s, streams after %.1f s; pg_basebackup %.1f s (%.2f times as long as the clone)\n",
  $megabytes, $there, $streams, $copy, $copy / $there;
printf "clone: with quantadb.clone_rate = %d MB: %.1f s, %.1f MB/s\n", $rate, $slow, $megabytes / $slow;
cmp_ok($megabytes / $slow, '<=', $rate * 1.1, 'quantadb.clone_rate is kept');
is($c->fingerprint($_), $c->fingerprint(1), "n$_ has the primary's tables") for 2, 3;
done_testing();
