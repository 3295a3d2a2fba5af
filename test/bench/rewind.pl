# How long a killed primary with commits of its own needs until it streams again, from its
# start on, against a pg_basebackup of the new primary right after it.
#	QUANTADB_BENCH_SCALE	of pgbench, 15 MB each (default 20; 140 makes 2 GB)
#	QUANTADB_BENCH_DIVERGED	MB of WAL that only the old primary has (default 10)
#	QUANTADB_BENCH_AHEAD	MB of WAL that the new primary has written by then (default 10)
#	QUANTADB_BENCH_RUNS		on one cluster, the last primary is the next victim (default 3)
use strict;
use warnings;
use File::Path qw(remove_tree);
use QuantaBench qw(percentile);
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $scale = $ENV{QUANTADB_BENCH_SCALE} || 20;
my $diverged = $ENV{QUANTADB_BENCH_DIVERGED} || 10;
my $ahead = $ENV{QUANTADB_BENCH_AHEAD} || 10;
my $runs = $ENV{QUANTADB_BENCH_RUNS} || 3;
my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';

# Changes one row in each of so many pages: each goes into WAL as a whole, and so does the page of
# the index where the new version gets its entry.  Each of them has pages of its own.
sub update
{
	my ($megabytes, $number) = @_;
	my $every = int($scale * 100_000 / ($megabytes * 64)) || 1;
	return "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid % $every = " . int($every * $number / (2 * $runs));
}

sub run
{
	my ($c, $run) = @_;
	my $old = $c->primary;
	$c->wait_replayed($_, $old, 600) for $c->all_but($old);
	$c->sql($_, 'CHECKPOINT', timeout => 300) for $old, $c->all_but($old);
	my $new = $c->diverge($old, update($diverged, 2 * $run));
	$c->sql($new, update($ahead, 2 * $run + 1), timeout => 300);

	my $begin = time;
	$c->pg_ctl($old, '-W', '-l', $c->node($old)->{log}, 'start');
	$c->wait_for(sub { $c->state($old) eq 'replica' }, 300, "n$old streams");
	my $rewind = time - $begin;
	$c->wait_replayed($old, $new);
	is($c->fingerprint($old), $c->fingerprint($new), 'its tables are the primary\'s');
	my $epoch = $c->sql($new, 'SELECT epoch FROM quantadb_status()');
	my $events = $c->sql($new, "SELECT string_agg(event, ' ') FROM quantadb_journal
		WHERE node = 'n$old' AND epoch = $epoch AND event ~ 'clone|rewind'");
	is($events, 'rewind_due rewind_done', 'by one rewind');
	my ($lost) = $c->sql($old, 'SELECT (end_lsn - start_lsn) / 1000000 FROM quantadb_lost_writes ORDER BY number DESC LIMIT 1');

	$begin = time;
	QuantaCluster::run_long("$bindir/pg_basebackup", '-h', '127.0.0.1', '-p', $c->node($new)->{sql}, '-U', 'postgres',
		'-D', "$c->{dir}/copy", '-X', 'stream', '-c', 'fast');
	my $copy = time - $begin;
	remove_tree("$c->{dir}/copy");
	printf "rewind: %.1f MB of WAL diverged: streams again %.1f s after its start; pg_basebackup %.1f s, %.1f times as long\n",
	  $lost, $rewind, $copy, $copy / $rewind;
	return [ $rewind, $copy, $copy / $rewind ];
}

my $c = QuantaCluster->new_cluster(n => 3, quick => 1, conf => "shared_buffers = 256MB\nmax_wal_size = 4GB\n");
QuantaCluster::run_long("$bindir/pgbench", '-h', '127.0.0.1', '-p', $c->node($c->primary)->{sql}, '-U', 'postgres',
	'-i', '-q', '-s', $scale, 'postgres');
$c->sql($c->primary, 'CREATE EXTENSION amcheck');
my $megabytes = $c->sql($c->primary, "SELECT pg_database_size('postgres') / 1000000");
my @results = map { run($c, $_) } 0 .. $runs - 1;
my ($rewind, $copy, $times) = map { my $column = $_; percentile(50, map { $_->[$column] } @results) } 0 .. 2;
printf "rewind: database of %d MB, %d runs: median %.1f s, of pg_basebackup %.1f s, of the ratios %.1f\n",
  $megabytes, $runs, $rewind, $copy, $times;
done_testing();
