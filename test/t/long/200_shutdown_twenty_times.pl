# pg_ctl stop -m fast of the primary and start, twenty times: it streams again without
# help.  All nodes stopped at once, and killed at once, and started: a primary within
# 10 s.  Nothing is lost on the way.
use strict;
use warnings;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $c = QuantaCluster->new_cluster(n => 3);
$c->sql($c->primary, 'CREATE TABLE w (x bigint PRIMARY KEY)');
$c->start_writers(2, 'w');
$c->wait_for(sub { scalar($c->acknowledged) >= 20 }, 60, 'a load');

for my $run (1 .. 20)
{
	my $old = $c->primary;
	my $at = time;
	my $acked = scalar($c->acknowledged);
	$c->stop($old, 'fast');
	$c->start($old);
	my $ok = eval { $c->wait_complete(60); $c->wait_for(sub { scalar($c->acknowledged) > $acked + 5 }, 30, 'writes go on'); 1 };
	ok($ok, sprintf("%d: n%d streams again after %.1f s", $run, $old, time - $at)) or diag($@);
	last unless $ok;
}

for my $way (qw(stop kill))
{
	if ($way eq 'stop')
	{
		my @pids = map { my $i = $_; my $pid = fork(); if (!$pid) { $c->stop($i, 'fast'); POSIX::_exit(0) } $pid } $c->all;
		waitpid($_, 0) for @pids;
	}
	else
	{
		$c->kill_all($_) for $c->all;
	}
	$c->start($_) for $c->all;
	my $up = time;
	ok(eval { $c->wait_for(sub { $c->primary }, 10, 'a primary'); 1 },
		sprintf('after a %s of all nodes: a primary after %.1f s', $way, time - $up));
	ok(eval { $c->wait_complete(60); 1 }, 'and all stream');
}

$c->stop_writers;
my $p = $c->primary;
for my $i ($c->all)
{
	$c->wait_replayed($i, $p) if $i != $p;
	is(scalar($c->missing_numbers($i, 'w')), 0, "n$i has every acknowledged row");
}
done_testing();
