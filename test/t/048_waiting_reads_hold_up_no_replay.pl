# A read that waits for replay is not what replay waits for: not by its snapshot, of which
# replay has to remove rows, and not by its locks, where a table is changed.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

# Replay waits for queries for ever, and reads for replay for long: who waits for whom shows.
my $c = QuantaCluster->new_cluster(n => 3, conf => "max_standby_streaming_delay = -1\nquantadb.read_timeout = '60s'\nautovacuum = off\n");
my $p = $c->primary;
my ($r) = grep { $_ != $p } $c->all;
$c->sql($p, 'CREATE TABLE t (x int); INSERT INTO t VALUES (0)');

sub pause_replay
{
	$c->wait_replayed($r, $p);
	$c->sql($r, 'SELECT pg_wal_replay_pause()');
	$c->wait_for(sub { $c->sql($r, 'SELECT pg_get_wal_replay_pause_state()') eq 'paused' }, 60, "n$r stands still");
}

my $n = 0;
# What a session on the replica says that begins to read before replay comes to $change.
# "LSN" in its commands is what it waits for.
sub read_before
{
	my ($change, @commands) = @_;
	my ($out, $err, $name) = ('', '', 'reader' . ++$n);
	pause_replay();
	$c->sql($p, $_) for @$change;
	my $lsn = $c->sql($p, 'INSERT INTO t VALUES (0); SELECT quantadb_last_commit_lsn()');
	s/LSN/$lsn/ for @commands;
	my $run = IPC::Run::start([ ($ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin') . '/psql', '-X', '-A', '-t', '-q',
			'-v', 'VERBOSITY=verbose', '-d', $c->conninfo($r), map { ('-c', $_) } "SET application_name = '$name'", @commands ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(180));
	$c->wait_for(sub { $c->sql($r, qq{SELECT count(*) FROM pg_stat_activity
		WHERE application_name = '$name' AND wait_event_type = 'Extension'}) eq '1' }, 60, 'it waits');
	$c->sql($r, 'SELECT pg_wal_replay_resume()');
	$run->finish;
	$out =~ s/\n$//;
	return $out . ($err =~ /(?:ERROR|FATAL): +(\w+)/ ? $1 : '');
}

my $session = q{SET quantadb.read_consistency = session; SET quantadb.min_lsn = 'LSN'};
my $strict = 'SET quantadb.read_consistency = strict';
my @dead = ('UPDATE t SET x = x + 1', 'UPDATE t SET x = x + 1', 'VACUUM t');

is(read_before(\@dead, $session, 'SELECT count(*) FROM t'), '2', 'a session read lets replay remove rows');
is(read_before(\@dead, $strict, 'SELECT count(*) FROM t'), '3', 'so does a strict one');
is(join(' ', sort split(/\n/, read_before(\@dead, $session, 'COPY t TO STDOUT'))), '0 2 4 6', 'and COPY of a table');
is(read_before(\@dead, $strict, 'COPY (SELECT count(*) FROM t) TO STDOUT'), '5', 'and of a query');
is(read_before(\@dead, q{SELECT quantadb_wait_for_lsn('LSN', '60s')}), 't', 'and quantadb_wait_for_lsn');

# Somebody else may still need these snapshots.
is(read_before(\@dead, "$session; BEGIN ISOLATION LEVEL REPEATABLE READ", 'SELECT count(*) FROM t'), '40001',
	'a transaction with one snapshot ends at once, with an error to retry for');
is(read_before(\@dead, $session, q{DO $$ BEGIN PERFORM count(*) FROM t; END $$}), '40001', 'a block does');
is(read_before(\@dead, 'BEGIN; DECLARE c CURSOR FOR SELECT x FROM t', q{SELECT quantadb_wait_for_lsn('LSN', '60s')}, 'FETCH 1 FROM c'),
	'40001', 'a transaction with a cursor does');

is(read_before(['TRUNCATE t'], $session, 'SELECT count(*) FROM t'), '40001', 'a read of a table that is changed ends at once');
is(read_before(['TRUNCATE t'], $strict, 'SELECT count(*) FROM t'), '40001', 'also a strict one');
is($c->sql($r, "$strict; SELECT count(*) FROM t"), '1', 'and is right when it is retried');
done_testing();
