#!/usr/bin/perl
# table.pl FILE...
#	Adds up the lines "run" that chaos.pl prints, by scenario.
use strict;
use warnings;

my (%sum, %total);
while (my $line = <>)
{
	chomp $line;
	my ($run, $name, $seconds, @rest) = split(/\t/, $line);
	next unless ($run || '') eq '# run' && @rest >= 6;
	my $outages = $rest[6] || '';
	for my $s ($sum{$name} ||= {}, \%total)
	{
		$s->{runs}++;
		$s->{seconds} += $seconds;
		$s->{values}[$_] += $rest[$_] for 0 .. 5;
		push @{ $s->{ms} }, split(/,/, $outages);
	}
}

sub percentile { my ($p, @ms) = @_; @ms = sort { $a <=> $b } @ms; return @ms ? $ms[ @ms * $p ] : '-' }

my @names = qw(runs minutes faults operations acknowledged lost anomalies failovers);
print '| scenario | ', join(' | ', @names, 'outage p50 ms', 'p99 ms'), " |\n|---", '|---:' x 10, "|\n";
for my $name (sort(keys %sum), 'together')
{
	my $s = $name eq 'together' ? \%total : $sum{$name};
	next unless $s->{runs};
	my @ms = @{ $s->{ms} || [] };
	print '| ', join(' | ', $name, $s->{runs}, int($s->{seconds} / 60 + 0.5), @{ $s->{values} }, percentile(0.5, @ms), percentile(0.99, @ms)), " |\n";
}
