# A winner that cannot open loses its seat after open_timeout; a paused cluster gives it to nobody
# but its last holder; long queries on replicas hold up no failover.
use strict;
use warnings;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
$c->sql($p, 'CREATE TABLE q (x int); INSERT INTO q SELECT generate_series(1, 1000)');

# ---- hazards 33: VACUUM's records wait for the queries, the gate must not ----
my @others = grep { $_ != $p } $c->all;
$c->wait_replayed($_, $p) for @others;
my @queries;
for my $i (@others)
{
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		$c->sql_try($i, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM q; SELECT pg_sleep(120)', timeout => 125);
		POSIX::_exit(0);
	}
	push @queries, $pid;
	$c->wait_for(sub { $c->sql($i, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(120)%' AND wait_event = 'PgSleep'") eq '1' }, 30, "n$i is queried");
}
$c->sql($p, 'DELETE FROM q WHERE x <= 500');
$c->sql($p, 'VACUUM q');
my $lsn = $c->sql($p, 'SELECT pg_current_wal_flush_lsn()');
$c->sql($p, 'INSERT INTO q VALUES (0)');
is($c->sql($others[0], "SELECT pg_last_wal_replay_lsn() < '$lsn'"), 't', 'replay waits for the query');
my $begin = time;
$c->kill_all($p);
$c->wait_for(sub { my $n = $c->primary; $n && $n != $p && $c->write_ok($n) }, 30, 'a new primary');
cmp_ok(time - $begin, '<', 15, 'the queries did not hold the gate');
note(sprintf('%.1f s', time - $begin));
my $n = $c->primary;
is($c->sql($n, 'SELECT count(*) FROM q'), '501', 'with every row');
kill 'TERM', @queries;
waitpid($_, 0) for @queries;
$c->start($p);
$c->wait_complete;

# ---- pause: nobody but the last holder ----
$p = $c->primary;
@others = grep { $_ != $p } $c->all;
$c->sql($others[0], 'SELECT quantadb_pause()');
is($c->sql($_, 'SELECT paused FROM quantadb_status()'), 't', "n$_ knows of the pause") for $p;
my $epoch = $c->sql($others[0], 'SELECT epoch FROM quantadb_status()');
$c->kill_all($p);
$c->wait_for(sub { $c->sql($others[0], "SELECT connected FROM quantadb_nodes WHERE name = 'n$p'") eq 'f' }, 30, "n$p is missed");
my $until = time + 4;
my $seen = 0;
while (time < $until) { $seen ||= grep { $c->state($_) eq 'primary' } @others }
is($seen, 0, 'a paused cluster takes no other primary');
is($c->sql($others[0], 'SELECT epoch FROM quantadb_status()'), $epoch, 'and opens no epoch');
$c->start($p);
$c->wait_for(sub { $c->state($p) eq 'primary' && $c->write_ok($p) }, 60, 'the last holder gets its seat back');
pass('the last holder gets its seat back');
$c->sql($p, 'SELECT quantadb_resume()');
$c->wait_complete;
$c->kill_all($p);
$c->wait_for(sub { grep { $c->state($_) eq 'primary' } @others }, 30, 'resumed, another one takes over');
pass('resumed, another one takes over');
$c->start($p);
$c->wait_complete;

# ---- open_timeout: the winner's startup process stands still, so it ends no recovery ----
$p = $c->primary;
@others = grep { $_ != $p } $c->all;
$c->sql($p, "SELECT quantadb_set('open_timeout', '2s')");
QuantaCluster::append_file($c->node($others[0])->{data} . '/node.conf', "quantadb.priority = 500\n");
$c->pg_ctl($others[0], 'reload');
$c->wait_for(sub { $c->sql($p, "SELECT priority FROM quantadb_nodes WHERE name = 'n$others[0]'") eq '500' }, 30, 'the favourite is known');
$c->wait_replayed($_, $p) for @others;
my ($stuck) = grep { QuantaCluster::slurp("/proc/$_/cmdline") =~ /startup/ } QuantaCluster::children_of($c->postmaster($others[0]));
ok($stuck, 'there is a startup process');
kill 'STOP', $stuck;
$c->kill_all($p);
$c->wait_for(sub { $c->state($others[1]) eq 'primary' && $c->write_ok($others[1]) }, 60, 'another one takes over');
kill 'CONT', $stuck;
my ($row) = $c->sql($others[1], "SELECT count(*) FROM quantadb_journal WHERE event = 'open_epoch' AND reason LIKE 'n$others[0] did not open in time%'");
cmp_ok($row, '>=', 1, 'who did not open in time was superseded');
$c->wait_for(sub { $c->state($others[0]) eq 'replica' }, 60, 'and follows');
is($c->sql($others[1], 'SELECT count(*) FROM q'), '501', 'nothing is lost');
done_testing();
