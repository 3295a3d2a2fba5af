# PostgreSQL removes standby.signal in the middle of a promotion, before the new timeline is
# there, and takes the first number without a history file.  A node that is killed there boots
# as a standby all the same, and the number that it was given is never used again.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
$c->sql($c->primary, 'CREATE TABLE w (x bigint PRIMARY KEY)');
$c->start_writers(1, 'w');

# (dead primary, the one that was killed while it took over, the third)
sub lose_two
{
	my ($call, $name) = @_;
	my $old = $c->primary;
	my ($victim, $third) = grep { $_ != $old } $c->all;
	my $enough = $c->acknowledged + 20;
	# It wins ties.
	for my $i ($c->all)
	{
		QuantaCluster::append_file($c->node($i)->{data} . '/node.conf', 'quantadb.priority = ' . ($i == $victim ? 200 : 100) . "\n");
		$c->sql($i, 'SELECT pg_reload_conf()') if $i != $victim;
	}
	$c->stop($victim, 'immediate');
	$c->start_with_killer($victim, $call, $name);
	my $pid = $c->postmaster($victim);
	$c->wait_complete;
	$c->wait_for(sub { $c->acknowledged >= $enough && $c->sql($old, "SELECT min(flush_lsn) = max(flush_lsn) FROM quantadb_replication") eq 't' }, 60, 'writes');
	# Writes would make the other one win now and then.
	$c->stop_writers;
	$c->wait_replayed($_, $old) for $victim, $third;
	# Whatever the old primary still writes by itself, the victim has it first.
	$c->signal_children('STOP', $third, 'walreceiver');
	$c->arm_killer;
	$c->kill_all($old);
	$c->signal_children('CONT', $third, 'walreceiver');
	$c->await_killer($victim, $pid);
	return ($old, $victim, $third);
}

# ---- between standby.signal and the end of recovery ----
my $granted = $c->sql($c->primary, 'SELECT timeline + 1 FROM quantadb_status()');
my ($old, $victim, $third) = lose_two('unlink', 'standby.signal');
my $data = $c->node($victim)->{data};
ok(!-e "$data/standby.signal", 'standby.signal is gone');
$c->freeze($third);
$c->start($victim);
$c->wait_for(sub { ($c->sql_try($victim, 'SELECT 1'))[0] == 0 }, 30, 'it answers');
is($c->sql($victim, 'SELECT pg_is_in_recovery()'), 't', 'alone it boots as a standby');
$c->thaw($third);
$c->start($old);
$c->wait_complete(90);

# ---- with the history file of its timeline, which nobody else has ----
$c->start_writers(1, 'w');
$granted = $c->sql($c->primary, 'SELECT max(timeline) + 1 FROM quantadb_status()');
my ($before) = $c->sql($c->primary, 'SELECT timeline FROM quantadb_status()');
my $file = sprintf('%08X.history', $granted);
($old, $victim, $third) = lose_two('rename', $file);
$data = $c->node($victim)->{data};
ok(-e "$data/pg_wal/$file", "n$victim alone has timeline $granted");
ok(!-e $c->node($third)->{data} . "/pg_wal/$file", 'nobody knows of it');
$c->start($old);
my $new;
$c->wait_for(sub { ($new = $c->primary) && $c->write_ok($new) }, 60, 'a new primary');
my $timeline = $c->sql($new, 'SELECT timeline FROM quantadb_status()');
cmp_ok($timeline, '>', $granted, "n$new has timeline $timeline");
my @lines = map { /^(\d+)\t/ ? $1 : () } split(/\n/, QuantaCluster::slurp(sprintf('%s/pg_wal/%08X.history', $c->node($new)->{data}, $timeline)));
is($lines[-1], $before, "which comes from $before");
ok(!(grep { $_ == $granted } @lines), "and not from $granted");
$c->start($victim);
$c->wait_complete(90);
for my $i ($c->all_but($new))
{
	$c->wait_replayed($i, $new);
	is($c->fingerprint($i), $c->fingerprint($new), "n$i has the same tables");
}
is(scalar($c->missing_numbers($new, 'w')), 0, 'with every acknowledged row');
done_testing();
