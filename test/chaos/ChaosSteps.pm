# ChaosSteps.pm
#	Faults that hit a certain step of the cluster's own work, and those that change who
#	belongs to it.
#
# Each fault returns its words and a sub that ends it, like those of ChaosFault.
package ChaosSteps;

use strict;
use warnings;
use ChaosFault;
use File::Path qw(remove_tree);
use POSIX ();
use QuantaCluster;
use Time::HiRes qw(time sleep);

# What the log says at the beginning of each step.
my %steps = (
	promotion => [ 'reporting for epoch', 'Promoting to PRIMARY', 'received promote request', 'selected new timeline',
		'archive recovery complete', 'Serving epoch', 'is open on timeline' ],
	demotion => [ 'Demoting to standby', 'terminating any other active', 'all server processes terminated', 'entering standby mode',
		'consistent recovery state', 'following node' ],
	rewind => [ 'needs a rewind', 'Rewinding from', 'rewind is staged', 'applying \d+ steps', 'restarting backup recovery',
		'completed backup recovery', 'consistent recovery state', 'Stream connected' ]);

# Waits until a log of the nodes says it; the node's number, or 0 after some seconds.
sub wait_for_line
{
	my ($c, $pattern, $from, $seconds, @nodes) = @_;
	my $until = time + $seconds;
	while (time < $until)
	{
		for my $i (@nodes)
		{
			open(my $log, '<', $c->node($i)->{log}) or next;
			seek($log, $from->{$i}, 0);
			local $/;
			my $new = <$log>;
			return $i if defined $new && $new =~ /$pattern/;
		}
		sleep 0.003;
	}
	return 0;
}

sub log_ends { my ($c) = @_; return { map { $_ => (-s $c->node($_)->{log}) || 0 } $c->all } }

# In the background, for it waits.
sub in_background
{
	my ($code) = @_;
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	return $pid if $pid;
	$SIG{TERM} = 'DEFAULT';
	open(STDERR, '>', '/dev/null');
	eval { $code->() };
	POSIX::_exit(0);
}

# Writes of the primary that no other node has, and its death.
sub diverge
{
	my ($c, $p) = @_;
	$c->signal_receivers('STOP', $p);
	$c->sql_try($p, "SET synchronous_commit = local; CREATE TABLE IF NOT EXISTS diverged (t text);
		INSERT INTO diverged SELECT repeat('x', 500) FROM generate_series(1, 500)", timeout => 10);
	$c->kill_all($p);
	$c->signal_receivers('TERM', $p);
	$c->signal_receivers('CONT', $p);
}

# kill -9 of all of a node when its log shows a step of a promotion, demotion or
# rewind; "other": of the primary, when another node shows it.
sub kill_at_step
{
	my ($c, $what, $other) = @_;
	my $p = ChaosFault::victim($c, 'primary') or return;
	my $pattern = ChaosFault::pick(@{ $steps{$what} });
	my $from = log_ends($c);
	my ($pid, @down);
	if ($what eq 'promotion') { $c->kill_all($p); @down = ($p) }
	elsif ($what eq 'demotion')
	{
		my $target = ChaosFault::victim($c, 'replica') or return;
		$pid = in_background(sub { $c->sql_try($target, 'SELECT quantadb_promote()', timeout => 20) });
	}
	else
	{
		diverge($c, $p);
		$pid = in_background(sub { $c->pg_ctl($p, '-w', '-t', '60', '-l', $c->node($p)->{log}, 'start') });
	}
	my $i = wait_for_line($c, $pattern, $from, 15, $what eq 'promotion' ? grep { $_ != $p } $c->all : $p);
	my $victim = $i && $other ? $c->primary : $i;
	$c->kill_all($victim) if $victim;
	if ($pid) { waitpid($pid, 0) }
	return ("$what of n$p: at \"$pattern\" " . ($victim ? "of n$i kill -9 of n$victim" : 'nobody was killed'),
		ChaosFault::start_again($c, $c->all));
}

# ---- who belongs to the cluster ----

# From three nodes to five under load, then two of the first three die at once.
sub grow_and_kill
{
	my ($c) = @_;
	my @first = 1 .. 3;
	if ($c->{n} == 3)
	{
		$c->join_fresh($_) for 4, 5;
		$c->{n} = 5;
		$c->wait_complete(90);
	}
	my @dead = (sort { rand() <=> 0.5 } @first)[ 0, 1 ];
	$c->kill_all($_) for @dead;
	return ("of five nodes kill -9 of n$dead[0] and n$dead[1], which were among the first three", ChaosFault::start_again($c, @dead));
}

# A voter becomes a replica and votes again, with one node cut off ("cut") or none.
sub change_role
{
	my ($c, $cut) = @_;
	my $i = ChaosFault::victim($c, 'replica') or return;
	my $p = $c->primary or return;
	my $away = cut_other($c, $cut, $i, $p);
	my ($code, undef, $err) = $c->sql_try($p, "SELECT quantadb_set_role('n$i', 'replica')", timeout => 40);
	my $second = 'not asked';
	for (1 .. 3)
	{
		my $now = $c->primary or next;
		my ($again, undef, $why) = $c->sql_try($now, "SELECT quantadb_set_role('n$i', 'voter')", timeout => 40);
		$second = $again ? first_error($why) : 'done';
		last unless $again;
	}
	return ("n$i replica (" . ($code ? first_error($err) : 'done') . ") and voter ($second)" . ($away ? " with n$away cut off" : ''),
		sub { $c->{net}->heal if $c->{net}; vote_again($c, $i) });
}

sub first_error { my ($text) = $_[0] =~ /(?:ERROR|FATAL): +(.*)/; return $text || 'connection lost' }

# A role that a fault left behind is set right, or later rounds would test less and less.
sub vote_again
{
	my ($c, $i) = @_;
	eval {
		$c->wait_for(
			sub {
				my $p = $c->primary or return 0;
				my ($code, $role) = $c->sql_try($p, "SELECT role FROM quantadb_nodes WHERE name = 'n$i'");
				return 0 if $code;
				return 1 if $role eq 'voter';
				$c->sql_try($p, "SELECT quantadb_set_role('n$i', 'voter')", timeout => 40) if $role eq 'replica';
				return 0;
			}, 90, "n$i votes again");
		1;
	} or print "# $@";
}

sub cut_other
{
	my ($c, $cut, @keep) = @_;
	return 0 unless $cut && $c->{net};
	my @others = grep { my $i = $_; !grep { $_ == $i } @keep } $c->all;
	my $away = ChaosFault::pick(@others) or return 0;
	$c->{net}->isolate($away);
	return $away;
}

# A node loses its disk; it is removed and joins as a new server, all under load.
sub wipe
{
	my ($c, $cut) = @_;
	my $i = ChaosFault::victim($c, $cut ? 'replica' : 'any') or return;
	$c->kill_all($i);
	my $p;
	eval { $c->wait_for(sub { $p = $c->primary }, 60, 'a primary without it'); 1 } or return ("n$i killed, no primary: $@", ChaosFault::start_again($c, $i));
	my $away = cut_other($c, $cut, $i, $p);
	remove_tree($c->node($i)->{data});
	my $words = "n$i lost its disk" . ($away ? " while n$away is cut off" : '');
	my $heal = sub { $c->{net}->heal if $c->{net}; come_back($c, $i) };
	my ($code, undef, $err) = $c->sql_try($p, "SELECT quantadb_remove('n$i')", timeout => 40);
	return ("$words; removal: " . first_error($err), $heal) if $code;
	eval { $c->join_fresh($i, $p); 1 } or return ("$words; joins later: $@", $heal);
	return ("$words, was removed and joined anew", $heal);
}

# Until a wiped node is there again.
sub come_back
{
	my ($c, $i) = @_;
	return if $c->state($i) =~ /^(replica|primary)$/;
	my $p = $c->primary;
	$c->sql_try($p, "SELECT quantadb_remove('n$i')", timeout => 40) if $p;
	if (!-e $c->node($i)->{data}) { eval { $c->create_first($i) } }
	eval { $c->join_fresh($i, $c->primary || $p); 1 } or print "# $@";
}

1;
