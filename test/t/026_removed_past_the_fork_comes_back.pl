# Files that a replica has removed for WAL past the fork are there again when it follows the new
# primary: where replay comes to their removal during the rewind, and where a failover meets it
# in the middle of one.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 4, conf => "autovacuum = off\nwal_compression = off\n",
	conf_of => sub { $_[0] == 4 ? "quantadb.clone_rate = '1MB'\n" : '' });
$c->create_first;
$c->init(1);
$c->join_copy($_) for 2, 3;
$c->join_copy(4, 1, role => 'replica');
$c->stop(4);
$c->start_with_killer(4, 'unlink', 'PG_VERSION', stop => 1);
$c->sql_becomes(1, 'SELECT can_lose FROM quantadb_status()', '1', 'n2 and n3 vote');

# The voters receive nothing more of $p.
sub stop_acks { my ($p) = @_; $c->signal_children('STOP', $_, 'walreceiver') for grep { $_ != $p && $_ != 4 } $c->all }

sub fail_over
{
	my ($p) = @_;
	$c->kill_all($p);
	for my $signal (qw(TERM CONT))
	{
		$c->signal_children($signal, $_, 'walreceiver') for grep { $_ != $p && $_ != 4 } $c->all;
	}
	my $new = $c->await_primary;
	$c->wait_for(sub { $c->write_ok($new) }, 60, "n$new takes writes");
	return $new;
}

# A point from which a rewind can start, on all nodes.
sub checkpoint
{
	my ($p) = @_;
	for (1, 2)
	{
		$c->sql($p, 'CHECKPOINT');
		$c->wait_replayed($_, $p) for $c->all_but($p);
		$c->sql($_, 'CHECKPOINT') for $c->all_but($p);
	}
}

# The events of n4's last way back.
sub way_back { my ($p) = @_; return $c->sql($p, q{SELECT string_agg(event, ' ' ORDER BY number) FROM quantadb_journal
	WHERE node = 'n4' AND event IN ('trimmed', 'rewind_done', 'clone_done')}) }

# ---- replay goes on during the rewind ----
$c->sql(1, q{CREATE TABLE large AS SELECT g AS id, repeat('x', 500) AS v FROM generate_series(1, 10000) g});
$c->sql(1, 'CREATE TABLE kept AS SELECT generate_series(1, 1000) AS x; CREATE TABLE also AS SELECT * FROM kept');
my $file = $c->node(4)->{data} . '/' . $c->sql(1, q{SELECT pg_relation_filepath('kept')});
checkpoint(1);
stop_acks(1);
$c->sql(1, 'SET synchronous_commit = local; UPDATE large SET id = id + 1');
$c->wait_replayed(4, 1);
$c->signal_children('STOP', 4, 'startup');
$c->sql(1, 'SET synchronous_commit = local; DROP TABLE kept, also');
my $end = $c->sql(1, 'SELECT pg_current_wal_flush_lsn()');
$c->wait_for(sub { $c->sql(4, "SELECT pg_last_wal_receive_lsn() >= '$end'") eq 't' }, 60, 'n4 has received it');
my $new = fail_over(1);

# Where much of what differs has come, the files were compared. Then replay drops the tables.
sub staged { return QuantaCluster::slurp($c->node(4)->{log}) =~ /The rewind is staged/ }
$c->wait_for(sub { staged() || $c->sql(4, q{SELECT resync = 'rewind' AND resync_done > resync_total / 3 FROM quantadb_nodes WHERE name = 'n4'}) eq 't' }, 90,
	'n4 is being rewound');
$c->signal_children('CONT', 4, 'startup');
$c->wait_for(sub { staged() || !-s $file }, 60, 'the table is dropped there');
$c->wait_for(sub { $c->state(4) eq 'replica' }, 120, 'n4 streams');
$c->wait_replayed(4, $new);
is($c->sql(4, "SELECT sum(x) FROM $_"), '500500', "$_ is there") for qw(kept also);
is($c->fingerprint(4), $c->fingerprint($new), 'with the primary\'s tables');
is(way_back($new), 'rewind_done', 'by a rewind');

# ---- the failover comes in the middle of a record ----
$c->start(1);
$c->wait_for(sub { $c->state(1) eq 'replica' }, 60, 'n1 is back');
$c->sql_becomes($new, 'SELECT can_lose FROM quantadb_status()', '1', 'a primary may be lost again');
$c->sql($new, 'CREATE DATABASE doomed');
my $oid = $c->sql($new, q{SELECT oid FROM pg_database WHERE datname = 'doomed'});
checkpoint($new);

# The primary has said that it drops it, and is about to log the removal: it waits for a session.
my ($in, $out, $err, $gone, $none) = ('', '', '', '', '');
my @psql = (($ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin') . '/psql', '-X', '-A', '-t', '-q', '-d', $c->conninfo($new));
my $idle = IPC::Run::start(\@psql, '<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(300));
$in = "SELECT pg_backend_pid();\n";
$c->wait_for(sub { $idle->pump_nb; $out =~ /^(\d+)\n/ }, 60, 'a session');
my ($pid) = $out =~ /^(\d+)/;
kill 'STOP', $pid;
my $drop = IPC::Run::start([ @psql, '-c', 'SET synchronous_commit = local', '-c', 'DROP DATABASE doomed' ],
	'<', \undef, '>', \$gone, '2>', \$none, IPC::Run::timeout(300));
$c->wait_for(sub { $c->sql($new, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ProcSignalBarrier'}) eq '1' }, 60,
	'DROP DATABASE waits');
$c->wait_replayed($_, $new) for $c->all_but($new);
stop_acks($new);
$c->arm_killer;
kill 'CONT', $pid;
sub version_file { return $c->node($_[0])->{data} . "/base/$oid/PG_VERSION" }
$c->wait_for(sub { !-e version_file(4) && !-e "$c->{dir}/armed" }, 60, 'n4 is removing it');
my $next = fail_over($new);
eval { $_->finish } for $idle, $drop;
ok(-e version_file($next), 'the next primary has its files');
$c->wait_for(sub { $c->state(4) eq 'replica' }, 120, 'n4 streams');
ok(-e version_file(4), 'n4 has them too');
is(way_back($next), 'rewind_done rewind_done', 'by a rewind');
done_testing();
