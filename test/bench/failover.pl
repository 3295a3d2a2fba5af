# How long nobody can write, in five ways of losing the primary under pgbench: kill -9 of all
# its processes, the same while a long REPEATABLE READ query on each replica holds up replay
# and VACUUM runs, kill -9 of its postmaster, pg_ctl stop -m fast, and a planned switchover.
#
# QUANTADB_BENCH_RUNS runs of each (default 5, of the switchover 20), one after the other on one cluster of
# three nodes with default settings; each is printed.  After kill -9 of all it is counted from
# the kill to the first acknowledgement of a write that began after it; after the others it
# is the longest time in which no write was acknowledged.  Every acknowledged row is looked
# for afterwards, on all nodes.  QUANTADB_BENCH_WAYS names the ways, all by default.
use strict;
use warnings;
use QuantaBench qw(percentile);
use QuantaClient;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time sleep);

my $clients = 4;
my @ways = (
	[ kill_all => 'kill -9 of all processes', sub { my ($c, $p) = @_; return $c->kill_all($p) } ],
	[ queries => 'kill -9 of all processes, with long queries and VACUUM', sub { my ($c, $p) = @_; return $c->kill_all($p) } ],
	[ postmaster => 'kill -9 of the postmaster', sub { my ($c, $p) = @_; return $c->kill_postmaster($p) } ],
	[ shutdown => 'pg_ctl stop -m fast', sub { my ($c, $p) = @_; my $at = time; $c->stop($p, 'fast'); return $at } ],
	[ switchover => 'planned switchover', sub {
			my ($c, $p) = @_;
			my ($target) = grep { $_ != $p } $c->all;
			my $at = time;
			$c->sql($target, 'SELECT quantadb_promote()', timeout => 60);
			return $at;
		} ]);

# ms from the kill to the first acknowledgement of a write that began after it; or, where
# sessions may go on for a moment, the longest time without one.  undef: none yet.
sub outage
{
	my ($c, $way, $at) = @_;
	return $c->outage_ms($at) if $way eq 'kill_all' || $way eq 'queries';
	my @ends = map { $_->[2] } grep { $_->[2] > $at - 0.1 } $c->acknowledged;
	return undef if @ends < 2 || $ends[-1] < $at + 2;
	my $longest = 0;
	for my $i (1 .. $#ends)
	{
		my $gap = $ends[$i] - $ends[$i - 1];
		$longest = $gap if $gap > $longest;
	}
	return int(1000 * $longest);
}

sub background
{
	my ($do) = @_;
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	return $pid if $pid;
	$SIG{TERM} = 'DEFAULT';
	$do->();
	POSIX::_exit(0);
}

sub pgbench_load
{
	my ($c, $p) = @_;
	return background(sub {
		open(STDOUT, '>', "$c->{dir}/pgbench");
		open(STDERR, '>&', \*STDOUT);
		exec("$ENV{PG_BINDIR}/pgbench", '-n', '-c', $clients, '-T', 600, $c->conninfo($p) . ' sslmode=disable') });
}

# A five minutes' query on each other node, and VACUUM whose records wait for it there.
sub hold_replay
{
	my ($c, $p) = @_;
	my @others = grep { $_ != $p } $c->all;
	my @pids = map { my $i = $_; background(sub { $c->sql_try($i, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT sum(abalance) FROM pgbench_accounts; SELECT pg_sleep(300)', timeout => 310) }) } @others;
	for my $i (@others)
	{
		$c->wait_for(sub { $c->sql($i, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(300)%' AND wait_event = 'PgSleep'") eq '1' }, 60, "n$i is queried");
	}
	push @pids, background(sub { 1 while ($c->sql_try($p, 'VACUUM pgbench_branches, pgbench_tellers, pgbench_accounts', timeout => 60))[0] == 0 });
	for my $i (@others)
	{
		$c->wait_for(sub { $c->sql($i, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'RecoveryConflictSnapshot'") eq '1' }, 60, "replay on n$i waits for the query");
	}
	return @pids;
}

sub run
{
	my ($c, $name, $break, $table) = @_;
	my $old = $c->primary;
	$c->sql($old, "CREATE TABLE $table (x bigint PRIMARY KEY)");
	my @load = QuantaClient::start($c, $clients, $table);
	$c->wait_for(sub { scalar($c->acknowledged) >= 100 }, 60, '100 acknowledged rows');
	my @others = (pgbench_load($c, $old), $name eq 'queries' ? hold_replay($c, $old) : ());
	my $at = $break->($c, $old);
	my $ms;
	$c->wait_for(sub { defined($ms = outage($c, $name, $at)) }, 60, 'writes go on');
	QuantaClient::stop(@load, @others);
	$c->start($old) unless $c->postmaster($old);
	$c->wait_complete(120);
	my $new = $c->primary;
	my $missing = 0;
	for my $i ($c->all)
	{
		$c->wait_replayed($i, $new) if $i != $new;
		$missing += $c->missing_numbers($i, $table);
	}
	my $acked = scalar($c->acknowledged);
	is($missing, 0, "$name: $ms ms, n$old to n$new, all $acked acknowledged rows are on every node");
	return $ms;
}

my $c = QuantaCluster->new_cluster(n => 3, quick => 1);
QuantaBench::pgbench($c, $c->primary, '-i', '-q', '-s', '5');
for my $way (@ways)
{
	my ($name, $title, $break) = @$way;
	next unless ($ENV{QUANTADB_BENCH_WAYS} || $name) =~ /\b$name\b/;
	my $runs = $ENV{QUANTADB_BENCH_RUNS} || ($name eq 'switchover' ? 20 : 5);
	my @ms = map { run($c, $name, $break, "${name}_$_") } 1 .. $runs;
	printf "no writes after %s, %d runs: p50 %d ms, p99 %d ms, max %d ms (%s)\n", $title, $runs,
	  percentile(50, @ms), percentile(99, @ms), percentile(100, @ms), join(' ', @ms);
}
done_testing();
