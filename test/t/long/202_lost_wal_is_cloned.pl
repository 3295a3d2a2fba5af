# A standby whose own WAL has lost what recovery needs never becomes consistent: it neither reports nor
# streams.  It gets its data anew.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my ($p, $standby) = ($c->primary, grep { $_ != $c->primary } $c->all);
$c->sql($p, 'CREATE EXTENSION amcheck');
$c->sql($p, 'CREATE TABLE t (id int PRIMARY KEY, v text)');
$c->sql($p, 'CHECKPOINT');
# The restartpoint begins at that checkpoint, and writes pages that are newer.
$c->sql($p, "INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series($_ * 1000, $_ * 1000 + 999) g; SELECT pg_switch_wal()") for 1 .. 4;
$c->wait_replayed($standby, $p);
$c->sql($standby, 'CHECKPOINT');
my $redo = $c->sql($standby, 'SELECT redo_lsn FROM pg_control_checkpoint()');
is($c->sql($standby, "SELECT min_recovery_end_lsn - '$redo'::pg_lsn > 2 * 16777216 FROM pg_control_recovery()"), 't', 'recovery needs some segments');
my $lost = $c->sql($p, "SELECT pg_walfile_name('$redo'::pg_lsn + 16777216)");
$c->kill_all($standby);
unlink $c->node($standby)->{data} . "/pg_wal/$lost" or die "$lost: $!";

$c->pg_ctl($standby, '-W', '-l', $c->node($standby)->{log}, 'start');
my $due = "SELECT count(*) FROM quantadb_journal WHERE node = 'n$standby' AND event = 'clone_due' AND reason ~ 'consistent'";
$c->wait_for(sub { $c->sql($p, $due) eq '1' }, 240, 'a clone is due');
$c->wait_for(sub { $c->state($standby) eq 'replica' }, 120, "n$standby streams");
$c->wait_replayed($standby, $p);
is($c->fingerprint($standby), $c->fingerprint($p), 'with the primary\'s tables');
is($c->amcheck($standby), '', 'amcheck finds nothing');
done_testing();
