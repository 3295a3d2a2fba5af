# A winner that cannot open loses its seat after open_timeout; a paused cluster gives it to nobody
# but its last holder; long queries on replicas hold up no failover.
use strict;
use warnings;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

# No limit but the gate's own rule ends a query that replay waits for.
my $c = QuantaCluster->new_cluster(n => 3, conf => 'max_standby_streaming_delay = -1');
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
		my ($code, $out, $err) = $c->sql_try($i, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM q; SELECT pg_sleep(500)', timeout => 520);
		POSIX::_exit($err =~ /40001/ ? 40 : 1);
	}
	push @queries, $pid;
	$c->wait_for(sub { $c->sql($i, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(500)%' AND wait_event = 'PgSleep'") eq '1' }, 60, "n$i is queried");
}
$c->sql($p, 'DELETE FROM q WHERE x <= 500');
# Whatever else has a snapshot on the primary may keep VACUUM from removing them at first.
for my $i (@others)
{
	$c->wait_for(sub {
		$c->sql($p, 'VACUUM q');
		return $c->sql($i, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event = 'RecoveryConflictSnapshot'") eq '1';
	}, 60, "replay on n$i waits for the query");
}
pass('replay waits for the queries');
$c->sql($p, 'INSERT INTO q VALUES (0)');
my $begin = time;
$c->kill_all($p);
$c->wait_for(sub { my $n = $c->primary; $n && $n != $p && $c->write_ok($n) }, 120, 'a new primary');
note(sprintf('%.1f s', time - $begin));
for my $pid (@queries)
{
	$c->wait_for(sub { waitpid($pid, POSIX::WNOHANG()) == $pid }, 60, 'a query ends');
	is($? >> 8, 40, 'a query that held the gate was cancelled as a recovery conflict');
}
my $n = $c->primary;
is($c->sql($n, 'SELECT count(*) FROM q'), '501', 'with every row');
$c->start($p);
$c->wait_complete;

# ---- pause: nobody but the last holder ----
$p = $c->primary;
@others = grep { $_ != $p } $c->all;
$c->sql($others[0], 'SELECT quantadb_pause()');
for my $i ($c->all)
{
	$c->wait_for(sub { $c->sql($i, 'SELECT paused FROM quantadb_status()') eq 't' }, 60, "n$i knows of the pause");
}
my $epoch = $c->sql($others[0], 'SELECT epoch FROM quantadb_status()');
$c->kill_all($p);
$c->wait_for(sub { $c->sql($others[0], "SELECT connected FROM quantadb_nodes WHERE name = 'n$p'") eq 'f' }, 60, "n$p is missed");
my $until = time + 4;
my $seen = 0;
while (time < $until) { $seen ||= grep { $c->state($_) eq 'primary' } @others }
is($seen, 0, 'a paused cluster takes no other primary');
is($c->sql($others[0], 'SELECT epoch FROM quantadb_status()'), $epoch, 'and opens no epoch');
$c->start($p);
$c->wait_for(sub { $c->state($p) eq 'primary' && $c->write_ok($p) }, 120, 'the last holder gets its seat back');
pass('the last holder gets its seat back');
$c->sql($p, 'SELECT quantadb_resume()');
$c->wait_complete;
$c->kill_all($p);
$c->wait_for(sub { grep { $c->state($_) eq 'primary' } @others }, 60, 'resumed, another one takes over');
pass('resumed, another one takes over');
$c->start($p);
$c->wait_complete;

# ---- open_timeout: the winner's startup process stands still, so it ends no recovery ----
$p = $c->primary;
@others = grep { $_ != $p } $c->all;
my ($favourite, $other) = @others;
# Longer than it takes to start the old primary again: who did not open in time has to restart,
# and without either of them nobody has a majority.
$c->sql($p, "SELECT quantadb_set('open_timeout', '8s')");
QuantaCluster::append_file($c->node($favourite)->{data} . '/node.conf', "quantadb.priority = 500\n");
$c->pg_ctl($favourite, 'reload');
$c->wait_for(sub { $c->sql($other, "SELECT priority FROM quantadb_nodes WHERE name = 'n$favourite'") eq '500' }, 60, 'the favourite is known');
$c->wait_replayed($_, $p) for @others;
my ($stuck) = grep { QuantaCluster::slurp("/proc/$_/cmdline") =~ /startup/ } QuantaCluster::children_of($c->postmaster($favourite));
ok($stuck, 'there is a startup process');
kill 'STOP', $stuck;
# The favourite has the most WAL, whatever is on its way to the other one.
$epoch = $c->sql($other, 'SELECT epoch FROM quantadb_status()');
$c->signal_children('STOP', $other, 'walreceiver');
$c->sql($p, 'INSERT INTO q VALUES (-1)');
$c->kill_all($p);
$c->signal_children('CONT', $other, 'walreceiver');
$c->wait_for(sub { $c->sql($other, "SELECT count(*) FROM quantadb_journal WHERE event = 'seat' AND node = 'n$favourite' AND epoch > $epoch") eq '1' },
	60, 'the favourite has the seat');
$c->start($p);
my $next;
$c->wait_for(sub { $next = $c->primary; $next && $next != $favourite && $c->write_ok($next) }, 120, 'another one takes over');
kill 'CONT', $stuck;
my ($row) = $c->sql($next, "SELECT count(*) FROM quantadb_journal WHERE event = 'open_epoch' AND reason LIKE 'n$favourite did not open in time%'");
cmp_ok($row, '>=', 1, 'who did not open in time was superseded');
$c->wait_for(sub { $c->state($favourite) eq 'replica' }, 120, 'and follows');
is($c->sql($next, 'SELECT count(*) FROM q'), '502', 'nothing is lost');
done_testing();
