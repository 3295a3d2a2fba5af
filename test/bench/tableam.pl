# quantadb tables against heap tables on the same server: space, WAL and speed, medians
# of QUANTADB_BENCH_RUNS interleaved runs.  Ratios are quantadb's over heap's.
#
# Speed is that of the access method, not of the disk: synchronous_commit is off, and
# the tables fit into shared_buffers.  QUANTADB_BENCH_SCALE is pgbench's scale.
use strict;
use warnings;
use DBI;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $runs = $ENV{QUANTADB_BENCH_RUNS} || 3;
my $seconds = $ENV{QUANTADB_BENCH_SECONDS} || 10;
my $scale = $ENV{QUANTADB_BENCH_SCALE} || 10;
my $subject = $ENV{QUANTADB_BENCH_SUBJECT} || 'quantadb';
my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';
my @sides = qw(base subject);
my %am = (base => 'heap', subject => $subject);

my $c = QuantaCluster->new(n => 1, conf => "shared_buffers = 640MB\nmax_wal_size = 8GB\ncheckpoint_timeout = 1h\nautovacuum = off
synchronous_commit = off\nmax_parallel_workers_per_gather = 0\nmaintenance_work_mem = 128MB\nwork_mem = 64MB\njit = off\n");
$c->create_first(1);
my $port = $c->node(1)->{sql};
my (%dbh, %seen);

sub do_sql
{
	my ($side, @sql) = @_;
	$dbh{$side}->do($_, { pg_direct => 1 }) or die "$_: " . $dbh{$side}->errstr for @sql;
}
sub value { my ($side, $sql) = @_; return ($dbh{$side}->selectrow_array($sql))[0] }
sub pages { my ($side, $table) = @_; return value($side, "SELECT pg_relation_size('$table') / 8192") }
sub wal_at { return value('base', 'SELECT pg_current_wal_insert_lsn() - \'0/0\'') }

sub pgbench
{
	my ($side, @args) = @_;
	return QuantaCluster::run_ok("$bindir/pgbench", '-h', '127.0.0.1', '-p', $port, '-U', 'postgres', @args, $side);
}

# A measurement: code($side) returns a number.
sub measure
{
	my ($name, $run, $code) = @_;
	for my $side ($run % 2 ? @sides : reverse @sides) { push @{$seen{$name}{$side}}, $code->($side) }
}
sub seconds_of { my ($side, @sql) = @_; my $t = time; do_sql($side, @sql); return time - $t }

for my $side (@sides)
{
	$c->sql(1, "CREATE DATABASE $side");
	$dbh{$side} = DBI->connect("dbi:Pg:dbname=$side;host=127.0.0.1;port=$port", 'postgres', '', { PrintWarn => 0, PrintError => 0 });
	do_sql($side, 'CREATE EXTENSION quantadb', "ALTER DATABASE $side SET default_table_access_method = $am{$side}", "SET default_table_access_method = $am{$side}");
	pgbench($side, '-i', '-q', '-s', $scale);
	is(value($side, "SELECT amname FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE relname = 'pgbench_accounts'"), $am{$side}, "$side is $am{$side}");
	do_sql($side, 'CREATE TABLE history (LIKE pgbench_history)',
		"INSERT INTO history SELECT i % 100, i % 10, i, i % 5000, '2025-01-01' FROM generate_series(1, 300000) i",
		'CREATE TABLE ints AS SELECT i a, i b, i c FROM generate_series(1, 300000) i',
		'CREATE TABLE copied (LIKE pgbench_accounts)', 'VACUUM ANALYZE');
	my $file = $c->{dir} . "/$side.copy";
	do_sql($side, "COPY pgbench_accounts TO '$file'");
}
for my $table (qw(pgbench_accounts history ints))
{
	$seen{"pages of $table"}{$_} = [ pages($_, $table) ] for @sides;
}
my $rows = value('base', 'SELECT count(*) FROM pgbench_accounts');

for my $run (1 .. $runs)
{
	# WAL: the same transactions, with and without full page images
	for my $fpi (qw(off on))
	{
		$c->sql(1, "ALTER SYSTEM SET full_page_writes = $fpi");
		$c->sql(1, 'SELECT pg_reload_conf()');
		$c->wait_for(sub { $c->sql(1, 'SHOW full_page_writes') eq $fpi }, 10, "full_page_writes is $fpi");
		measure("WAL per TPC-B transaction, full pages $fpi", $run, sub {
			my ($side) = @_;
			$c->sql(1, 'CHECKPOINT');
			my $at = wal_at();
			pgbench($side, '-n', '-c', 4, '-j', 2, '-t', 2500, "--random-seed=$run");
			return (wal_at() - $at) / 10000;
		});
	}
	measure('read-write TPS', $run, sub { (pgbench($_[0], '-n', '-c', 4, '-j', 2, '-T', $seconds) =~ /tps = ([\d.]+)/)[0] });
	measure('read-only TPS', $run, sub { (pgbench($_[0], '-n', '-S', '-c', 4, '-j', 2, '-T', $seconds) =~ /tps = ([\d.]+)/)[0] });
	measure('COPY rows/s', $run, sub {
		do_sql($_[0], 'TRUNCATE copied');
		return $rows / seconds_of($_[0], "COPY copied FROM '$c->{dir}/$_[0].copy'");
	});
	measure('COPY WAL bytes/row', $run, sub {
		do_sql($_[0], 'TRUNCATE copied');
		my $at = wal_at();
		do_sql($_[0], "COPY copied FROM '$c->{dir}/$_[0].copy'");
		return (wal_at() - $at) / $rows;
	});
	do_sql($_, 'VACUUM copied') for @sides;
	measure('sequential scan, rows/s', $run, sub { $rows / seconds_of($_[0], 'SELECT count(*) FROM copied') });
	measure('aggregate, rows/s', $run, sub { $rows / seconds_of($_[0], 'SELECT bid, sum(abalance), max(aid), count(filler) FROM copied GROUP BY bid') });
	measure('sort of whole rows, rows/s', $run, sub { $rows / seconds_of($_[0], 'SELECT * FROM copied ORDER BY abalance, aid DESC OFFSET 100000000') });
	measure('index lookups/s', $run, sub {
		do_sql($_[0], 'SELECT setseed(0.5)', 'SET enable_hashjoin = off', 'SET enable_mergejoin = off', 'SET enable_seqscan = off', 'SET enable_bitmapscan = off');
		my $t = seconds_of($_[0], "SELECT sum(abalance) FROM (SELECT 1 + floor(random() * $rows)::int AS aid FROM generate_series(1, 200000)) x JOIN pgbench_accounts USING (aid)");
		do_sql($_[0], 'RESET enable_hashjoin', 'RESET enable_mergejoin', 'RESET enable_seqscan', 'RESET enable_bitmapscan');
		return 200000 / $t;
	});
	measure('bulk UPDATE, rows/s', $run, sub { $rows / 2 / seconds_of($_[0], 'UPDATE copied SET abalance = abalance + 1 WHERE aid % 2 = 0') });
	measure('VACUUM after it, s', $run, sub { seconds_of($_[0], 'VACUUM copied') });
	measure('VACUUM FREEZE after a checkpoint, WAL MB', $run, sub {
		do_sql($_[0], 'CHECKPOINT');
		my $at = wal_at();
		do_sql($_[0], 'VACUUM FREEZE copied');
		return (wal_at() - $at) / 1048576;
	});
}
$seen{'pages of pgbench_accounts after the runs'}{$_} = [ pages($_, 'pgbench_accounts') ] for @sides;

# name, target and whether less is better
my @wanted = (
	[ 'pages of pgbench_accounts', 0.80, 1 ], [ 'pages of history', 0.65, 1 ], [ 'pages of ints', 0.65, 1 ],
	[ 'pages of pgbench_accounts after the runs', undef, 1 ],
	[ 'WAL per TPC-B transaction, full pages off', 0.85, 1 ], [ 'WAL per TPC-B transaction, full pages on', 0.85, 1 ],
	(map { [ $_, 1.0, 0 ] } 'read-write TPS', 'read-only TPS', 'COPY rows/s', 'sequential scan, rows/s', 'aggregate, rows/s', 'index lookups/s'),
	(map { [ $_, undef, 0 ] } 'sort of whole rows, rows/s', 'bulk UPDATE, rows/s'),
	(map { [ $_, undef, 1 ] } 'COPY WAL bytes/row', 'VACUUM after it, s', 'VACUUM FREEZE after a checkpoint, WAL MB'));

sub median { my @s = sort { $a <=> $b } @_; return $s[$#s / 2] }
printf "%-45s %12s %12s %7s %s\n", "scale $scale, medians of $runs runs", 'heap', $subject, 'ratio', 'target';
for (@wanted)
{
	my ($name, $target, $less) = @$_;
	my ($h, $s) = map { median(@{$seen{$name}{$_}}) } @sides;
	my $ratio = $h > 0 ? $s / $h : 0;
	my $verdict = !defined $target ? '' : sprintf('%s %.2f %s', $less ? '<=' : '>=', $target, ($less ? $ratio <= $target : $ratio >= $target) ? 'reached' : 'MISSED');
	printf "%-45s %12s %12s %7.2f %s\n", $name, (map { $_ < 1000 ? sprintf('%.2f', $_) : sprintf('%.0f', $_) } $h, $s), $ratio, $verdict;
	ok($h > 0 && $s >= 0, "measured: $name");
}
done_testing();
