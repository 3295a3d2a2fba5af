# A grant that nobody opened leaves a number without a timeline.  Those that follow
# a later primary have to get across it: a walreceiver asks for the history file of
# every number between its own timeline and the primary's.
use strict;
use warnings;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(sleep);

my $c = QuantaCluster->new_cluster(n => 3);
$c->sql($c->primary, 'CREATE TABLE w (x bigint PRIMARY KEY)');
$c->start_writers(1, 'w');
$c->wait_for(sub { scalar($c->acknowledged) >= 20 }, 60, '20 acknowledged rows');

# The history that the primary's timeline comes from, as numbers.
sub ancestors
{
	my $primary = $c->await_primary;
	my $timeline = $c->sql($primary, 'SELECT timeline FROM quantadb_status()');
	my $path = sprintf('%s/pg_wal/%08X.history', $c->node($primary)->{data}, $timeline);
	return ($timeline, map { /^(\d+)\t/ ? $1 : () } split(/\n/, QuantaCluster::slurp($path)));
}

# Kills the primary, and its successor before it has promoted: both standbys' recovery
# stands still until then.
sub lose_two
{
	my $first = $c->primary;
	my @others = grep { $_ != $first } $c->all;
	my %marks = map { $_ => -s $c->node($_)->{log} } @others;
	my $second;
	$c->signal_children('STOP', $_, 'startup') for @others;
	$c->kill_all($first);
	$c->wait_for(sub {
		for my $i (@others)
		{
			my $log = substr(QuantaCluster::slurp($c->node($i)->{log}), $marks{$i});
			return $second = $1 if $log =~ /\[failover\] n(\d) was chosen/;
		}
		return 0;
	}, 30, 'a successor is named');
	$c->kill_all($second);
	$c->signal_children('CONT', $_, 'startup') for grep { $_ != $second } @others;
	$c->start($_) for $first, $second;
	$c->wait_for(sub { $c->primary }, 60, 'a primary again');
}

my ($gap, $timeline, @ancestors) = (0);
for (1 .. 6)
{
	lose_two();
	$c->wait_for(sub { $c->primary && $c->status($c->primary)->{epoch} }, 30, 'it answers');
	($timeline, @ancestors) = ancestors();
	my %known = map { $_ => 1 } @ancestors;
	$gap = grep { !$known{$_} } 1 .. $timeline - 1;
	last if $gap;
	$c->wait_for(sub { 2 == grep { $c->state($_) eq 'replica' } $c->all }, 60, 'all stream');
}
ok($gap, "timeline $timeline comes from @ancestors: $gap numbers are missing");

my $all_stream = eval { $c->wait_for(sub { 2 == grep { $c->state($_) eq 'replica' } $c->all }, 45, 'two replicas'); 1 };
ok($all_stream, 'both others follow across the gap');
$c->stop_writers;
my $last = $c->await_primary;
for my $i (grep { $_ != $last } $c->all)
{
	$c->wait_replayed($i, $last);
	is(scalar($c->missing_numbers($i, 'w')), 0, "n$i has every acknowledged row");
}

# What they were given in place of the missing files does no harm at a boot.
my ($one) = grep { $_ != $last } $c->all;
$c->stop($one);
$c->start($one);
ok(eval { $c->wait_for(sub { $c->state($one) eq 'replica' }, 45, 'streams'); 1 }, 'so does one that was restarted');
done_testing();
