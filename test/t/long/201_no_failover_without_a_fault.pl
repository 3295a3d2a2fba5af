# Full load for a quarter of an hour, and no fault: no failover, no node that is lost.
# QUANTADB_LOAD_MINUTES shortens it.
use strict;
use warnings;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $minutes = $ENV{QUANTADB_LOAD_MINUTES} || 15;
my $c = QuantaCluster->new_cluster(n => 3, quick => 1);
my $p = $c->primary;
my $epoch = $c->sql($p, 'SELECT epoch FROM quantadb_status()');
my $conninfo = $c->conninfo($p);
$c->sql($p, 'CREATE TABLE w (x bigint PRIMARY KEY)');
QuantaCluster::run_ok("$ENV{PG_BINDIR}/pgbench", '-i', '-q', '-s', '10', $conninfo);
my $before = $c->sql($p, 'SELECT coalesce(max(number), 0) FROM quantadb_journal');

# More clients than cores, with and without CPU-bound reads beside them.
my @pids;
for my $args ([ '-c', '16', '-j', '2' ], [ '-c', '8', '-j', '2', '-S' ])
{
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open(STDOUT, '>', "$c->{dir}/pgbench.$$");
		open(STDERR, '>&', \*STDOUT);
		exec("$ENV{PG_BINDIR}/pgbench", '-n', @$args, '-T', int($minutes * 60), $conninfo);
	}
	push @pids, $pid;
}
my $failed = 0;
for my $pid (@pids)
{
	waitpid($pid, 0);
	$failed++ if $? != 0;
	my ($tps) = QuantaCluster::slurp("$c->{dir}/pgbench.$pid") =~ /tps = ([\d.]+)/;
	note(sprintf('%.0f transactions a second', $tps || 0));
}
is($failed, 0, "$minutes minutes without an error");
is($c->primary, $p, 'the same primary');
is($c->sql($p, 'SELECT epoch FROM quantadb_status()'), $epoch, 'in the same epoch');
is($c->sql($p, "SELECT count(*) FROM quantadb_journal WHERE number > $before AND event IN ('open_epoch', 'fence', 'seat')"),
	'0', 'no decision was needed');
ok(eval { $c->wait_complete(30); 1 }, 'all nodes stream');
done_testing();
