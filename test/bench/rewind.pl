# How long a killed primary with commits of its own needs until it streams again, from its
# start on, against a pg_basebackup of the new primary in the same run.
#	QUANTADB_BENCH_SCALE	of pgbench, 15 MB each (default 20; 140 makes 2 GB)
#	QUANTADB_BENCH_DIVERGED	MB of WAL that only the old primary has (default 10)
use strict;
use warnings;
use File::Path qw(remove_tree);
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $scale = $ENV{QUANTADB_BENCH_SCALE} || 20;
my $diverged = $ENV{QUANTADB_BENCH_DIVERGED} || 10;
my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';
my $pages = $diverged * 64;	# each goes into WAL as a whole, and so does the page of its new version
my $every = int($scale * 100_000 / $pages) || 1;

my $c = QuantaCluster->new_cluster(n => 3, quick => 1, conf => "shared_buffers = 256MB\nmax_wal_size = 4GB\n");
my $old = $c->primary;
QuantaCluster::run_long("$bindir/pgbench", '-h', '127.0.0.1', '-p', $c->node($old)->{sql}, '-U', 'postgres',
	'-i', '-q', '-s', $scale, 'postgres');
$c->sql($old, 'CREATE EXTENSION amcheck');
$c->wait_replayed($_, $old, 600) for $c->all_but($old);
$c->sql($_, 'CHECKPOINT', timeout => 300) for $old, $c->all_but($old);
my $megabytes = $c->sql($old, "SELECT pg_database_size('postgres') / 1000000");

my $new = $c->diverge($old, "UPDATE pgbench_accounts SET abalance = -1 WHERE aid % $every = 0");
$c->sql($new, "UPDATE pgbench_accounts SET abalance = 1 WHERE aid % 1000 = 7");

my $begin = time;
$c->pg_ctl($old, '-W', '-l', $c->node($old)->{log}, 'start');
$c->wait_for(sub { $c->state($old) eq 'replica' }, 300, "n$old streams");
my $rewind = time - $begin;
$c->wait_replayed($old, $new);
is($c->fingerprint($old), $c->fingerprint($new), 'its tables are the primary\'s');
my $events = $c->sql($new, "SELECT string_agg(event, ' ') FROM quantadb_journal WHERE node = 'n$old' AND event ~ 'clone|rewind_failed'");
is($events, '', 'by a rewind');
my ($lost) = $c->sql($old, 'SELECT (end_lsn - start_lsn) / 1000000 FROM quantadb_lost_writes');

$begin = time;
QuantaCluster::run_long("$bindir/pg_basebackup", '-h', '127.0.0.1', '-p', $c->node($new)->{sql}, '-U', 'postgres',
	'-D', "$c->{dir}/copy", '-X', 'stream', '-c', 'fast');
my $copy = time - $begin;
remove_tree("$c->{dir}/copy");

printf "rewind: database of %d MB, %.1f MB of WAL diverged: streams again %.1f s after its start; pg_basebackup %.1f s, %.1f times as long\n",
  $megabytes, $lost, $rewind, $copy, $copy / $rewind;
done_testing();
