# WAL is kept for a member that is away, on standbys too: after a failover it streams from the
# new primary.  Past quantadb.wal_retention_limit it is not, the journal says so, and
# the member gets its data anew.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3, conf => "max_wal_size = 64MB\nmin_wal_size = 32MB\n");
my ($p, $standby, $away) = ($c->primary, grep { $_ != $c->primary } $c->all);
set_on_all('wal_keep_size', '16MB');
$c->sql($p, 'CREATE TABLE t (x int)');
$c->wait_replayed($_, $p) for $standby, $away;

sub set_on_all
{
	my ($name, $value) = @_;
	for my $i ($c->all)
	{
		$c->sql($i, "ALTER SYSTEM SET $name = '$value'");
		$c->sql($i, 'SELECT pg_reload_conf()');
	}
}

sub first_segment
{
	my ($i) = @_;
	my ($first) = sort map { m{/[0-9A-F]{8}([0-9A-F]{16})$} ? $1 : () } glob($c->node($i)->{data} . '/pg_wal/*');
	return $first;
}

# Checkpoints that let go what may go, on both.
sub write_segments
{
	my ($from, $count, @others) = @_;
	for (1 .. $count)
	{
		$c->sql($from, 'INSERT INTO t VALUES (1); SELECT pg_switch_wal()');
	}
	$c->sql($from, 'CHECKPOINT');
	$c->wait_replayed($_, $from) for @others;
	$c->sql($_, 'CHECKPOINT') for @others, $from;
}

sub slot { return $c->sql($_[0], "SELECT active, temporary FROM pg_replication_slots WHERE slot_name = 'quantadb_members'") }

$c->wait_for(sub { slot($p) eq 'f|f' && slot($standby) eq 'f|f' }, 30, 'slots');
$c->kill_all($away);
my $needed = substr($c->sql($p, 'SELECT pg_walfile_name(pg_current_wal_flush_lsn())'), 8);
write_segments($p, 12, $standby);
write_segments($p, 2, $standby);
is(slot($p), 'f|f', 'one slot, not held');
cmp_ok(first_segment($p), 'le', $needed, 'the primary keeps what the absent member lacks');
cmp_ok(first_segment($standby), 'le', $needed, 'so does the standby');
$c->sql_becomes($p, "SELECT wal_kept_bytes > 12 << 24 FROM quantadb_nodes WHERE name = 'n$away'", 't', 'quantadb_nodes says how much');
$c->becomes(sub { ($c->http($p, '/metrics'))[1] }, qr/^quantadb_wal_kept_bytes\{node="n$away"\} \d{9}$/m, 'and so do the metrics');

# The laggard is behind what the new primary has by all of that.
$c->kill_all($p);
$c->start($away);
my $new = $standby;
$c->wait_for(sub { $c->state($new) eq 'primary' && $c->write_ok($new) }, 60, "n$new is primary");
$c->wait_for(sub { $c->state($away) eq 'replica' }, 60, "n$away streams");
$c->wait_replayed($away, $new);
$c->start($p);
$c->wait_complete(60);
is($c->sql($new, "SELECT count(*) FROM quantadb_journal WHERE event ~ 'clone'"), '0', 'nobody was cloned');

# What nobody lacks goes.
$c->wait_for(sub { write_segments($new, 3, $away, $p); first_segment($new) gt $needed && first_segment($away) gt $needed },
	60, 'WAL that all have is let go');

# The limit.
set_on_all('quantadb.wal_retention_limit', '64MB');
$c->kill_all($away);
write_segments($new, 7, $p);
my $released = "SELECT count(*) FROM quantadb_journal WHERE event = 'wal_released' AND node = 'n$away'";
$c->wait_for(sub { $c->sql($new, $released) eq '1' }, 30, 'the journal says that a clone is due');
my $gone = $c->sql($new, "SELECT pg_walfile_name(pg_current_wal_flush_lsn() - 100000000)");
$c->wait_for(sub { write_segments($new, 1, $p); !-e $c->node($new)->{data} . "/pg_wal/$gone" }, 60, 'past the limit WAL goes');
is($c->sql($new, $released), '1', 'said once');
$c->start($away);
$c->wait_for(sub { $c->state($away) eq 'replica' }, 60, "n$away streams");
$c->wait_for(sub { $c->sql($new, "SELECT count(*) FROM quantadb_journal WHERE event = 'clone_done' AND node = 'n$away'") eq '1' },
	30, 'after a clone');
$c->wait_replayed($away, $new);
is($c->fingerprint($away), $c->fingerprint($new), 'with the same tables');
$c->wait_for(sub { slot($away) eq 'f|f' }, 30, 'and a slot of its own again');

# One that was removed keeps nothing for those whom it does not know any more.
$c->sql($new, "SELECT quantadb_remove('n$away')");
$c->wait_for(sub { $c->sql($away, 'SELECT count(*) FROM pg_replication_slots') eq '0' }, 30, 'no slot on a removed node');
done_testing();
