# ChaosNet.pm
#	Faults between the nodes of a chaos run: each node has a network of its own
#	(QuantaNet), clients reach all of them at any time.
#
# Each fault returns its words and a sub that ends it, like those of ChaosFault.
package ChaosNet;

use strict;
use warnings;
use ChaosFault;
use QuantaCluster;
use Time::HiRes qw(time sleep);

my $relay;

sub healing
{
	my ($c) = @_;
	return sub { $c->{net}->heal };
}

# One node alone.
sub isolate
{
	my ($c, $role) = @_;
	my $i = ChaosFault::victim($c, $role) or return;
	$c->{net}->isolate($i);
	return ("n$i ($role) is cut off", healing($c));
}

# Everybody hears a majority, and not all hear the same one: of three nodes two do not
# hear each other, of more each hears its neighbours only.
sub ring
{
	my ($c) = @_;
	my @nodes = sort { rand() <=> 0.5 } $c->all;
	my $n = @nodes;
	my @cut;
	for my $i (0 .. $n - 1)
	{
		for my $j ($i + 1 .. $n - 1)
		{
			next if $n > 3 ? ($j - $i == 1 || $j - $i == $n - 1) : "$i$j" ne '01';
			$c->{net}->cut($nodes[$i], $nodes[$j]);
			push @cut, "n$nodes[$i]-n$nodes[$j]";
		}
	}
	return ('nothing passes ' . join(' ', @cut), healing($c));
}

# direction "out": nothing of what the node sends arrives, "in": it hears nothing.
sub one_way
{
	my ($c, $role, $direction) = @_;
	my $i = ChaosFault::victim($c, $role) or return;
	for my $j (grep { $_ != $i } $c->all)
	{
		$c->{net}->cut_one_way($direction eq 'out' ? ($i, $j) : ($j, $i));
	}
	return ("n$i ($role) " . ($direction eq 'out' ? 'is not heard' : 'hears nothing'), healing($c));
}

# The two halves, with the primary in the smaller one.
sub halves
{
	my ($c) = @_;
	my $p = ChaosFault::victim($c, 'primary') or return;
	my @others = sort { rand() <=> 0.5 } grep { $_ != $p } $c->all;
	my @small = ($p, @others[ 0 .. int((@others + 1) / 2) - 2 ]);
	for my $i (@small)
	{
		for my $j ($c->all) { $c->{net}->cut($i, $j) unless grep { $_ == $j } @small }
	}
	return ('n' . join(' n', @small) . ' (with the primary) cut off from the majority', healing($c));
}

# Cut and whole in turns of a second.
sub flapping
{
	my ($c, $role) = @_;
	my $i = ChaosFault::victim($c, $role) or return;
	for (1 .. 5)
	{
		$c->{net}->isolate($i);
		sleep 1;
		$c->{net}->heal;
		sleep 1;
	}
	$c->{net}->isolate($i);
	return ("n$i ($role) cut off for a second, six times", healing($c));
}

# 20 % of the packets lost, the others up to 200 ms late and in any order.
sub bad_network
{
	my ($c, %args) = @_;
	if (!$relay)
	{
		$relay = "$c->{dir}/relay";
		QuantaCluster::run_ok('gcc', '-O2', '-o', $relay, "$c->{chaos}/relay.c");
	}
	my $heal = $c->{net}->relay($relay, seed => int(rand(1_000_000)), %args);
	return (join(', ', map { "$_ $args{$_}" } sort keys %args) . ' between all nodes', $heal);
}

1;
