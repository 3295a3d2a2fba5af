# What each level of quantadb.read_consistency costs: pgbench -S on the primary and on a
# replica, idle and under a write load of one pgbench client.  Transactions a second and latency,
# as ratios to eventual reads of the same node in the same round; medians over the rounds.
#
# session: with a quantadb.min_lsn that the node already shows.  How long a session waits for
# its own write is measured apart: a commit on the primary, then at once a read on the replica,
# with each level, and how many of them showed the write.
#
# QUANTADB_BENCH_RUNS rounds (default 5), QUANTADB_BENCH_SECONDS each (default 5).
use strict;
use warnings;
use DBI;
use QuantaBench qw(median percentile);
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $rounds = $ENV{QUANTADB_BENCH_RUNS} || 5;
my $seconds = $ENV{QUANTADB_BENCH_SECONDS} || 5;
my @levels = qw(eventual session strict);

my $c = QuantaCluster->new_cluster(n => 3, quick => 1, conf => "shared_buffers = 64MB\n");
my $p = $c->primary;
my ($r) = grep { $_ != $p } $c->all;
QuantaBench::pgbench($c, $p, '-i', '-q', '-s', 5);
$c->wait_replayed($r, $p);
my $lsn = $c->sql($p, 'SELECT quantadb_last_commit_lsn()');

# (transactions a second, p50 and p99 in us)
sub run_reads
{
	my ($i, $level, $clients) = @_;
	my $prefix = "$c->{dir}/reads";
	unlink glob "$prefix.*";
	local $ENV{PGOPTIONS} = "-c quantadb.read_consistency=$level -c quantadb.min_lsn=$lsn";
	my $tps = QuantaBench::pgbench($c, $i, '-S', '-c', $clients, '-j', 1, '-T', $seconds, '-l', '--log-prefix', $prefix);
	my @us = map { (split)[2] } map { split /\n/, QuantaCluster::slurp($_) } glob "$prefix.*";
	return [ $tps, percentile(50, @us), percentile(99, @us) ];
}

sub start_load
{
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	return $pid if $pid;
	open(STDOUT, '>', '/dev/null');
	open(STDERR, '>&', \*STDOUT);
	exec("$ENV{PG_BINDIR}/pgbench", '-n', '-N', '-c', 1, '-T', 3600, $c->conninfo($p) . ' sslmode=disable') or POSIX::_exit(127);
}

for my $loaded (0, 1)
{
	my $load = $loaded ? start_load() : 0;
	for my $clients (1, 4)
	{
		for my $i ($p, $r)
		{
			my %found;
			for my $round (1 .. $rounds)
			{
				my @order = @levels;
				push @order, shift @order for 1 .. $round % 3;
				push @{$found{$_}}, run_reads($i, $_, $clients) for @order;
			}
			for my $level (@levels)
			{
				my @ratio = map { my $k = $_; median(map { $found{$level}[$_][$k] / $found{eventual}[$_][$k] } 0 .. $rounds - 1) } 0 .. 2;
				my @value = map { my $k = $_; median(map { $_->[$k] } @{$found{$level}}) } 0 .. 2;
				printf "%-7s %-11s %d client%s %-8s: %6.0f reads/s (%.2f), p50 %5d us (%.2f), p99 %5d us (%.2f)\n",
				  $i == $p ? 'primary' : 'replica', $loaded ? 'with writes' : 'idle', $clients, $clients > 1 ? 's' : ' ', $level,
				  map { ($value[$_], $ratio[$_]) } 0 .. 2;
			}
		}
	}
	next unless $load;
	kill 'TERM', $load;
	waitpid($load, 0);
}

# ---- read your own write elsewhere ----
sub connect_to
{
	my ($i) = @_;
	return DBI->connect('dbi:Pg:host=' . $c->node($i)->{host} . ' port=' . $c->node($i)->{sql} . ' dbname=postgres sslmode=disable', 'postgres', '',
		{ RaiseError => 1, AutoCommit => 1, PrintError => 0, pg_server_prepare => 0 });
}
$c->sql($p, 'CREATE TABLE own (x int); INSERT INTO own VALUES (0)');
$c->wait_replayed($r, $p);
my ($writer, $reader) = (connect_to($p), connect_to($r));
my $number = 0;
for my $level (@levels)
{
	$reader->do("SET quantadb.read_consistency = '$level'");
	my @us;
	my $shown = 0;
	for (1 .. 100 * $rounds)
	{
		$writer->do('UPDATE own SET x = ' . ++$number);
		my ($mine) = $writer->selectrow_array('SELECT quantadb_last_commit_lsn()');
		my $begin = time;
		$reader->do("SET quantadb.min_lsn = '$mine'") if $level eq 'session';
		my ($x) = $reader->selectrow_array('SELECT x FROM own');
		push @us, 1e6 * (time - $begin);
		$shown += $x == $number;
	}
	printf "own write, read on a replica, %-8s: p50 %5d us, p99 %5d us, %d of %d showed it\n", $level, percentile(50, @us), percentile(99, @us),
	  $shown, scalar(@us);
	is($shown, scalar(@us), "$level reads show every write that was acknowledged") if $level ne 'eventual';
}
done_testing();
