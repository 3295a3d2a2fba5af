# A replica that has received WAL of a dead branch, and not replayed it, throws it away and
# follows the new primary; the WAL and a report of what it held stay.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 4, conf => 'autovacuum = off');
$c->create_first;
$c->init(1);
$c->join_copy($_) for 2, 3;
$c->join_copy(4, 1, role => 'replica');
$c->sql_becomes(1, 'SELECT can_lose FROM quantadb_status()', '1', 'n2 and n3 vote');
$c->sql(1, 'CREATE EXTENSION amcheck');
$c->sql(1, 'CREATE TABLE t (id int PRIMARY KEY, v text)');
$c->sql(1, "INSERT INTO t SELECT g, 'kept' FROM generate_series(1, 1000) g");
$c->wait_replayed($_, 1) for 2 .. 4;
my $replica = $c->node(4);

# Commits are counted below: autovacuum's would be among them.
# Voters get nothing more; the replica receives and does not replay.
$c->signal_children('STOP', $_, 'walreceiver') for 2, 3;
$c->signal_children('STOP', 4, 'startup');
my $begin = $c->sql(1, 'SELECT pg_current_wal_flush_lsn()');
for my $n (1 .. 7)
{
	$c->sql(1, "SET synchronous_commit = local; INSERT INTO t SELECT g, repeat('lost', 200) FROM generate_series($n * 10000, $n * 10000 + 4000) g");
}
$c->sql(1, 'SELECT pg_switch_wal()');
$c->sql(1, "SET synchronous_commit = local; INSERT INTO t VALUES (-1, 'lost')");
my $lost_end = $c->sql(1, 'SELECT pg_current_wal_flush_lsn()');
$c->wait_for(sub { $c->sql(4, "SELECT pg_last_wal_receive_lsn() >= '$lost_end'") eq 't' }, 30, 'n4 has received it');
is($c->sql(4, "SELECT pg_last_wal_replay_lsn() <= '$begin'"), 't', 'and not replayed');
$c->kill_all(1);
for my $signal (qw(TERM CONT))
{
	$c->signal_children($signal, $_, 'walreceiver') for 2, 3;
}
my $new;
$c->wait_for(sub { $new = $c->primary; $new && $new != 1 }, 60, 'a new primary');
$c->wait_for(sub { $c->write_ok($new) }, 30, "n$new takes writes");
$c->wait_for(sub { QuantaCluster::slurp($replica->{log}) =~ /Restarting as a standby: recovery must forget/ }, 30, 'n4 trims');
# It ends at once where it would be killed after five seconds.
$c->signal_children('CONT', 4, 'startup');
$c->wait_for(sub { $c->state(4) eq 'replica' }, 60, 'n4 streams');
$c->sql($new, "INSERT INTO t VALUES (2000, 'new')");
$c->wait_replayed(4, $new);
is($c->fingerprint(4), $c->fingerprint($new), 'with the primary\'s tables');
is($c->amcheck(4), '', 'amcheck finds nothing');
is($c->sql(4, 'SELECT count(*) FROM quantadb_lost_writes'), '1', 'one report');
is($c->sql(4, "SELECT transactions = 8 AND saved_bytes > pg_wal_lsn_diff(end_lsn, start_lsn) AND start_lsn >= '$begin' AND end_lsn >= '$lost_end' FROM quantadb_lost_writes"),
	't', 'of all its commits') or diag($c->sql(4, 'SELECT * FROM quantadb_lost_writes'));
like($c->sql(4, 'SELECT relations FROM quantadb_lost_writes'), qr/INSERT 28\d\d\d/, 'and rows');
my ($folder, $from, $to) = split(/\|/, $c->sql(4, 'SELECT folder, start_lsn, end_lsn FROM quantadb_lost_writes'));
my ($first) = sort map { m{/([0-9A-F]{24})$} ? $1 : () } glob("$replica->{data}/$folder/*");
my $dump = QuantaCluster::run_ok('/usr/lib/postgresql/15/bin/pg_waldump', '-p', "$replica->{data}/$folder", '-r', 'Transaction',
	'-t', hex(substr($first, 0, 8)), '-s', $from, '-e', $to);
is(scalar(() = $dump =~ /desc: COMMIT/g), 8, 'pg_waldump reads them in the WAL that was saved');
$c->wait_for(sub { $c->sql($new, "SELECT count(*) FROM quantadb_journal WHERE node = 'n4' AND event = 'trimmed' AND reason ~ '8 commits'") eq '1' },
	30, 'the journal tells of it');
is($c->sql($new, "SELECT count(*) FROM quantadb_journal WHERE node = 'n4' AND event ~ 'rewind|clone'"), '0', 'no rewind was needed');
done_testing();
