# The work of a rewind or a clone is done in the crash cycle from a journal: killed at any point of
# any step, also by a loss of power, which takes back what was not synced, the next boot does
# it again, and the node comes back with the primary's data.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../chaos";
use ChaosDisk;
use QuantaCluster;
use Test::More;

my ($blocks, $rename) = (2, 7);	# kinds of steps, as in core/plan.h
my $c = QuantaCluster->new_cluster(n => 3, env => sub { ChaosDisk::environment(@_, "$FindBin::Bin/../chaos") });
my $first = $c->primary;
$c->sql($first, 'CREATE EXTENSION amcheck');
$c->sql($first, 'CREATE TABLE t (id int PRIMARY KEY, v text)');
$c->sql($first, "INSERT INTO t SELECT g, repeat('a', 100) FROM generate_series(1, 5000) g");

# The first and the last step of each kind: before, in the middle where it has one, after.
sub points
{
	my ($plan, $steps, $kind_of_interest) = @_;
	my (%first, %last);
	for (my $n = 0; length $plan; $n++)
	{
		my ($kind, $number, $path) = unpack('C Q< v/a', $plan);
		my ($other) = unpack('x9 v/x v/a', $plan);
		$plan = substr($plan, 13 + length($path) + length($other));
		$first{$kind} = $n unless exists $first{$kind};
		$last{$kind} = $n;
	}
	ok(exists $first{$kind_of_interest}, 'with what it is about: ' . ($kind_of_interest == $blocks ? 'a rewind' : 'a clone'));
	my %stops = map { 3 * $_ => 1, 3 * $_ + 2 => 1 } values %first, values %last;
	for my $kind (grep { exists $first{$_} } $blocks, $rename)
	{
		$stops{3 * $_ + 1} = 1 for $first{$kind}, $last{$kind};
	}
	return ((sort { $a <=> $b } keys %stops), 3 * $steps, 3 * $steps + 2);
}

# Node i, which is down, needs what only a plan can do; it is killed at each point of it.
sub comes_back
{
	my ($i, $new, $how, $kind, $then) = @_;
	my $node = $c->node($i);
	my $journal = "$node->{data}/quantadb/stage/journal";
	my $logged = -s $node->{log};
	my $old = "$node->{data}/pg_wal/00000001000000FF000000AA";

	# The plan's length is not known yet: the first stop is before its first step.
	QuantaCluster::append_file("$node->{data}/node.conf", "quantadb.debug_apply_stop = 0\n");
	$c->start($i);
	$c->wait_for(sub { !$c->postmaster($i) }, 120, 'killed before the first step');
	my ($steps) = substr(QuantaCluster::slurp($node->{log}), $logged) =~ /applying (\d+) steps of staged work/;
	cmp_ok($steps, '>', 20, "a plan of $steps steps");
	ok(-e $journal, 'which is still to be done');
	# A clone throws away what lies there, before its first rename.
	QuantaCluster::append_file($old, 'of before') if $kind == $rename;
	my ($killed, @missed) = (0);
	for my $stop (points(substr(QuantaCluster::slurp($journal), 48), $steps, $kind))
	{
		QuantaCluster::append_file("$node->{data}/node.conf", "quantadb.debug_apply_stop = $stop\n");
		$c->pg_ctl($i, '-w', '-t', '180', '-l', $node->{log}, 'start');
		push @missed, $stop if $c->postmaster($i) || !!-e $journal != ($stop <= 3 * $steps);
		last if @missed;
		$then->($i, $stop);
		$killed++;
	}
	is("@missed", '', "$how at each of $killed points");
	ok(!-e $journal, 'the plan is done, and done with');
	ok(!-e $old, 'what was there before is gone');
	QuantaCluster::append_file("$node->{data}/node.conf", "quantadb.debug_apply_stop = -1\n");
	$c->start($i) unless $c->postmaster($i);
	$c->wait_for(sub { $c->state($i) eq 'replica' }, 120, "n$i streams");
	my $plans = () = substr(QuantaCluster::slurp($node->{log}), $logged) =~ /The (rewind is staged|clone is complete)/g;
	is($plans, 1, 'which was the only one');
	$c->wait_replayed($i, $new);
	is($c->fingerprint($i), $c->fingerprint($new), 'its tables are the primary\'s');
	is($c->amcheck($i), '', 'amcheck finds nothing');
}

sub diverge
{
	my ($v) = @_;
	my $old = $c->primary;
	my $new = $c->diverge($old, "UPDATE t SET v = '$v' WHERE id % 2 = 0", 'CREATE TABLE dead (x int)',
		'INSERT INTO dead SELECT generate_series(1, 1000)', 'CREATE DATABASE dead_db');
	$c->sql($new, "UPDATE t SET v = 'alive' WHERE id % 3 = 0");
	return ($old, $new);
}

# A node for which nobody has the WAL that it needs.
sub leave_behind
{
	my $p = $c->primary;
	my ($i, $other) = $c->all_but($p);
	$c->kill_all($i);
	$c->sql($p, "UPDATE t SET v = 'cloned' WHERE id % 5 = 0");
	$c->sql($p, 'INSERT INTO t SELECT max(id) + 1 FROM t; SELECT pg_switch_wal()') for 1 .. 3;
	$c->sql($p, 'CHECKPOINT');
	$c->wait_replayed($other, $p);
	my $keep = $c->sql($p, 'SELECT pg_walfile_name(redo_lsn) FROM pg_control_checkpoint()');
	unlink grep { m{/([0-9A-F]{24})$} && $1 lt $keep } glob($c->node($_)->{data} . '/pg_wal/*') for $p, $other;
	return ($i, $p);
}

# What is not synced goes each time: all of it, or ("some") that of two files of three.
my $lost = 0;
sub loses_power
{
	my ($i, $new, $kind, $some) = @_;
	ChaosDisk::order($c, $i, 'set', 'undo=2');
	comes_back($i, $new, 'a loss of power', $kind, sub {
			my ($node, $stop) = @_;
			my $said = ChaosDisk::order($c, $node, 'lose', $some && $stop % 2 ? $stop : 0);
			note("$stop: $said");
			$lost += ($said =~ /^(\d+)/)[0];
		});
	ChaosDisk::order($c, $i, 'set', 'undo=0');
}

comes_back(diverge('killed'), 'kill -9', $blocks, sub { });
loses_power(diverge('no power'), $blocks, 'some');
comes_back(leave_behind(), 'kill -9', $rename, sub { });
loses_power(leave_behind(), $rename);
cmp_ok($lost, '>', 500, "$lost changes were lost on the way");
done_testing();
