# ChaosTrace.pm
#	What the logs of the nodes may not say: the trace of the epochs against the
#	invariants of the protocol.
#
# Only the order within a log is used, never a time: clocks may be wrong in a run.
package ChaosTrace;

use strict;
use warnings;

sub lsn { my ($high, $low) = split(m{/}, $_[0]); return hex($high) * 4294967296 + hex($low) }

# What a line tells: pattern => names of what it captures.
my @patterns = (
	[ boot => qr/\[cluster\] node ".*" is (member \d+, boot \d+)/, 'boot' ],
	[ report => qr/reporting for epoch (\d+): WAL ends at (\S+) of timeline (\d+), epoch (\d+)/, qw(epoch end timeline last) ],
	[ promote => qr/Promoting to PRIMARY role: timeline (\d+), epoch (\d+), from (\S+) of timeline (\d+)/, qw(timeline epoch end parent) ],
	[ serve => qr/Serving epoch (\d+) on timeline (\d+)/, qw(epoch timeline) ],
	[ open => qr/primary of epoch (\d+) is open on timeline (\d+)/, qw(epoch timeline) ],
	[ follow => qr/following node ".*" in epoch (\d+)/, 'epoch' ],
	[ stream => qr/From .* at \S+:\d+, epoch (\d+), timeline (\d+), from/, qw(epoch served) ]);

# Lines of a log => events, oldest first.
sub read_log
{
	my ($node, @lines) = @_;
	my @events;
	my $boot = '';
	for my $line (@lines)
	{
		for my $p (@patterns)
		{
			my ($what, $pattern, @names) = @$p;
			my @values = $line =~ $pattern or next;
			my %event = (what => $what, node => $node);
			@event{@names} = @values;
			$boot = $event{boot} if $what eq 'boot';
			push @events, { %event, boot => $boot };
			last;
		}
	}
	return @events;
}

# voters: how many, 0 when that changed in the run.  logs: node => [events].
sub check
{
	my ($voters, %logs) = @_;
	my @all = map { @{ $logs{$_} } } sort keys %logs;
	return (check_numbers(@all), (map { check_promises(@{ $logs{$_} }) } sort keys %logs),
		check_winners($voters, %logs), check_chain(@all));
}

# I1: an epoch has one timeline and one holder in one boot, a timeline one epoch.
sub check_numbers
{
	my (@events) = @_;
	my (%timeline, %epoch, %holder, @anomalies);
	for my $e (grep { $_->{what} =~ /^(promote|serve|open)$/ } @events)
	{
		my $holder = "$e->{node} $e->{boot}";
		for my $pair ([ \%timeline, "epoch $e->{epoch}", "timeline $e->{timeline}" ],
			[ \%epoch, "timeline $e->{timeline}", "epoch $e->{epoch}" ],
			[ \%holder, "epoch $e->{epoch}", $holder ])
		{
			my ($seen, $key, $value) = @$pair;
			push @anomalies, "I1: $key has $seen->{$key} and $value" if defined $seen->{$key} && $seen->{$key} ne $value;
			$seen->{$key} = $value;
		}
	}
	for my $e (grep { $_->{what} eq 'stream' } @events)
	{
		# It may begin on an earlier one of the same history.
		my ($known) = ($timeline{"epoch $e->{epoch}"} || '') =~ /(\d+)/ or next;
		push @anomalies, "I1: $e->{node} streams timeline $e->{served} in epoch $e->{epoch}, which has timeline $known"
		  if $e->{served} > $known;
	}
	return @anomalies;
}

# I2: who has reported for an epoch does nothing for an older one.
sub check_promises
{
	my (@events) = @_;
	my ($promised, @anomalies) = (0);
	for my $e (grep { defined $_->{epoch} } @events)
	{
		push @anomalies, "I2: $e->{node} has promised epoch $promised and then: $e->{what} in epoch $e->{epoch}"
		  if $e->{epoch} < $promised;
		$promised = $e->{epoch} if $e->{what} eq 'report' && $e->{epoch} > $promised;
	}
	return @anomalies;
}

# I6: who promotes has reported in that boot, promotes at the end of its report, and no
# more than a minority reported more.
sub check_winners
{
	my ($voters, %logs) = @_;
	my (%reports, @promotions, @anomalies);
	for my $node (sort keys %logs)
	{
		my %last;
		for my $e (@{ $logs{$node} })
		{
			if ($e->{what} eq 'report')
			{
				$last{ $e->{epoch} } = $e;
				push @{ $reports{ $e->{epoch} }{$node} }, $e;
			}
			next if $e->{what} ne 'promote';
			my $report = $last{ $e->{epoch} };
			if (!$report || $report->{boot} ne $e->{boot})
			{
				push @anomalies, "I6: $node is promoted in epoch $e->{epoch} without a report in that boot";
			}
			elsif ($report->{end} ne $e->{end} || $report->{timeline} != $e->{parent})
			{
				push @anomalies, "I6: $node reported $report->{end} of timeline $report->{timeline} for epoch $e->{epoch}"
				  . " and is promoted at $e->{end} of timeline $e->{parent}";
			}
			else { push @promotions, $report }
		}
	}
	for my $winner (grep { $voters } @promotions)
	{
		my $of_epoch = $reports{ $winner->{epoch} };
		my $behind = grep { grep { !more($_, $winner) } @{ $of_epoch->{$_} } } keys %$of_epoch;
		push @anomalies, "I6: $winner->{node} won epoch $winner->{epoch} with $winner->{end} over $behind reports of $voters"
		  if $behind <= $voters / 2;
	}
	return @anomalies;
}

sub more
{
	my ($a, $b) = @_;
	return $a->{last} > $b->{last} || ($a->{last} == $b->{last} && lsn($a->{end}) > lsn($b->{end}));
}

# I7, I8: an epoch that was open has its record on a quorum, so the history of each later
# epoch that opens goes through its timeline, past its beginning.
sub check_chain
{
	my (@events) = @_;
	my %promotion = map { $_->{timeline} => $_ } grep { $_->{what} eq 'promote' } @events;
	my %opened = map { $_->{timeline} => 1 } grep { $_->{what} eq 'open' } @events;
	my @opened = sort { $a <=> $b } grep { $promotion{$_} } keys %opened;
	my @anomalies;
	for my $n (1 .. $#opened)
	{
		my ($before, $timeline) = ($opened[ $n - 1 ], $opened[$n]);
		my $left;
		for (my $t = $timeline; $promotion{$t}; $t = $promotion{$t}{parent})
		{
			last if $t <= $before;
			$left = $promotion{$t}{end} if $promotion{$t}{parent} == $before;
		}
		push @anomalies, "I7: timeline $timeline does not come from timeline $before, which was open" if !defined $left;
		push @anomalies, "I8: timeline $timeline leaves timeline $before at $left, where that began"
		  if defined $left && lsn($left) <= lsn($promotion{$before}{end});
	}
	return @anomalies;
}

1;
