# A voter that gets its data anew goes on answering for what it has acknowledged: its old data
# stays until the new data reaches the position that the primary named (I11).  Here the only
# other copy of some rows is the primary's, which dies while the clone waits for a replica that
# lacks them.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
my ($behind, $cloned) = $c->all_but($p);
$c->sql($p, 'CREATE TABLE t (x int)');
$c->wait_replayed($_, $p) for $behind, $cloned;

# One voter lacks the rows, so the other one's acknowledgement made them count.
$c->signal_children('STOP', $behind, 'walreceiver');
$c->sql($p, 'INSERT INTO t SELECT generate_series(1, 1000)');
$c->stop($cloned);

# What the other one asks for when it comes back is gone.
$c->sql($p, 'SET synchronous_commit = local; SELECT pg_switch_wal(); CREATE TABLE u (x int); SELECT pg_switch_wal(); CREATE TABLE v (x int)');
my $keep = $c->sql($p, 'SELECT pg_walfile_name(pg_current_wal_lsn())');
unlink grep { m{/([0-9A-F]{24})$} && $1 lt $keep } glob($c->node($p)->{data} . '/pg_wal/*');
$c->start($cloned);
my $log = $c->node($cloned)->{log};
$c->wait_for(sub { QuantaCluster::slurp($log) =~ /The clone (waits until node "n$behind" has WAL up to|is complete)/ }, 120,
	"all files have come from n$behind");
like($c->sql($p, "SELECT string_agg(event, ' ' ORDER BY number) FROM quantadb_journal WHERE node = 'n$cloned' AND event LIKE 'clone%'"),
	qr/^clone_due clone\b/, 'the journal says that a clone is due and where its data come from');
my $waits = QuantaCluster::slurp($log) =~ /The clone waits until node "n$behind"/;

$c->kill_all($p);
# Before it reads on what is in its socket.
$c->signal_children($_, $behind, 'walreceiver') for 'TERM', 'CONT';
my $new;
$c->wait_for(sub { $new = $c->primary; $new && $new != $p && $c->write_ok($new) }, 120, 'the two others go on');
is($c->sql($new, 'SELECT count(*) FROM t'), '1000', 'with every acknowledged row');

# Where the other one was not heard in time, all came from the primary.
is($c->sql($new, "SELECT count(*) FROM quantadb_journal WHERE node = 'n$cloned' AND event = 'clone_done'"), '0', 'its data was not replaced') if $waits;
done_testing();
