# A commit that waits for its quorum waits until it has it: no cancel, terminate, timeout
# or shutdown turns it into a success; synchronous_commit keeps its meanings.
use strict;
use warnings;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $c = QuantaCluster->new_cluster(n => 3, conf => "max_prepared_transactions = 5\n");
my $p = $c->primary;
my @others = grep { $_ != $p } $c->all;
$c->sql($p, 'CREATE TABLE t (x text); CREATE TABLE u (x text)');
$c->sql($p, "BEGIN; INSERT INTO t VALUES ('prepared'); PREPARE TRANSACTION 'before'");
$c->sql($p, "BEGIN; INSERT INTO t VALUES ('taken back'); PREPARE TRANSACTION 'unwanted'");
$c->wait_replayed($_, $p) for @others;

my @stopped;
# Nobody acknowledges: the replicas' receivers stand still, the lease goes on.
sub stop_acks { @stopped = map { $c->sql($_, 'SELECT pid FROM pg_stat_wal_receiver') } @others; kill 'STOP', @stopped }
sub resume_acks { kill 'CONT', @stopped }

# A psql in the background, that says "done" once all its commands are.
sub launch
{
	my (@commands) = @_;
	my %job = (out => '', err => '');
	$job{run} = IPC::Run::start([ ($ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin') . '/psql', '-X', '-A', '-t', '-q',
			'-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose', '-d', $c->conninfo($p),
			(map { ('-c', $_) } @commands), '-c', '\echo done' ],
		'<', \undef, '>', \$job{out}, '2>', \$job{err});
	return \%job;
}
sub waiting { return $c->sql($p, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'}) }
sub finish { my ($job) = @_; eval { $job->{run}->finish }; return $job->{run}->full_result(0) == 0 }

# ---- signals and timeouts ----
my %sent = (
	cancel => ["INSERT INTO t VALUES ('cancel')"],
	terminate => ["INSERT INTO t VALUES ('terminate')", 'SELECT 1'],
	timeout => ["SET statement_timeout = '300ms'", "INSERT INTO t VALUES ('timeout')"],
	apply => ['SET synchronous_commit = remote_apply', "INSERT INTO t VALUES ('apply')"],
	prepare => ['BEGIN', "INSERT INTO u VALUES ('prepare')", "PREPARE TRANSACTION 'new'"],
	commit => ["SET statement_timeout = '300ms'", "COMMIT PREPARED 'before'"],
	rollback => ["SET statement_timeout = '300ms'", "ROLLBACK PREPARED 'unwanted'"]);
stop_acks();
my %job = map { $_ => launch("SET application_name = '$_'", @{$sent{$_}}) } keys %sent;
$c->wait_for(sub { waiting() == 7 }, 30, 'seven ends of transactions wait');
my $storm = "SELECT %s(pid) FROM pg_stat_activity WHERE application_name = '%s'";
for (1 .. 20)
{
	$c->sql($p, join(';', map { sprintf($storm, 'pg_cancel_backend', $_) } keys %sent));
}
$c->sql($p, sprintf($storm, 'pg_terminate_backend', $_)) for qw(terminate apply);
my $until = time + 2;
$c->wait_for(sub { time > $until }, 10, 'time for them to be wrong');
is(waiting(), '7', 'all of them still wait');
is($c->sql($p, 'SELECT count(*) FROM t'), '0', 'none of them is visible');
$_->{run}->pump_nb for values %job;
is(join('', map { $_->{out} } values %job), '', 'none was told that it is done');
resume_acks();
my %ok = map { $_ => finish($job{$_}) } keys %job;
$c->wait_for(sub { waiting() == 0 }, 30, 'nobody waits');
is($c->sql($p, "SELECT count(*) FROM t WHERE x IN ('cancel', 'terminate', 'timeout', 'apply', 'prepared')"), '5',
	'with acks all commits are there');
is($c->sql($p, "SELECT gid FROM pg_prepared_xacts"), 'new', 'so is the prepared one');
ok($ok{$_}, "the session of the prepared $_ was told so, not of its timeout") for qw(commit rollback);
ok(!$ok{terminate}, 'the terminated session ended after its commit');
like($job{terminate}{err}, qr/57P01|terminating|closed/, 'and says so');
$c->sql($p, "ROLLBACK PREPARED 'new'");

# ---- synchronous_commit ----
stop_acks();
for my $level (qw(off local))
{
	my ($code) = $c->sql_try($p, "SET synchronous_commit = $level; INSERT INTO t VALUES ('$level')");
	is($code, 0, "synchronous_commit = $level waits for nobody");
}
my %wait = map { $_ => launch("SET synchronous_commit = $_", "INSERT INTO t VALUES ('$_')") } qw(remote_write on remote_apply);
$c->wait_for(sub { waiting() == 3 }, 30, 'remote_write, on and remote_apply wait');
resume_acks();
ok(finish($wait{$_}), "$_ ends with a quorum") for qw(remote_write on remote_apply);

# remote_apply waits for replay, on does not.
for my $i (@others)
{
	$c->sql($i, 'SELECT pg_wal_replay_pause()');
	$c->wait_for(sub { $c->sql($i, 'SELECT pg_get_wal_replay_pause_state()') eq 'paused' }, 10, 'paused');
}
my ($code) = $c->sql_try($p, "INSERT INTO t VALUES ('flushed')");
is($code, 0, 'on is done when a quorum has flushed');
my $apply = launch('SET synchronous_commit = remote_apply', "INSERT INTO t VALUES ('applied')");
$c->wait_for(sub { waiting() == 1 }, 30, 'remote_apply waits');
$until = time + 1;
$c->wait_for(sub { time > $until }, 10, 'time for it to be wrong');
$apply->{run}->pump_nb;
is($apply->{out}, '', 'remote_apply is not done before a quorum has applied');
$c->sql($_, 'SELECT pg_wal_replay_resume()') for @others;
ok(finish($apply), 'and is then');

# ---- a fast shutdown during a wait, and a crash cycle ----
stop_acks();
my $lost = launch("INSERT INTO t VALUES ('shutdown')");
$c->wait_for(sub { waiting() == 1 }, 30, 'a commit waits');
ok($c->stop($p, 'fast'), 'a fast shutdown ends');
ok(!finish($lost), 'the commit was not reported as done');
is($lost->{out}, '', 'in no way');
resume_acks();
done_testing();
