# Sites with a bad line between them: 80 ms there and back and 1 % loss each way, by a relay
# between network namespaces (test/chaos/relay.c), so it needs root.  Three voters: two sites of two and
# one nodes, the primary in the greater one; and three sites of one each.  Each with default settings
# and with those that docs/operations.md recommends.  For each: latency of commits of one
# client beside the primary; how far the other nodes are behind; failovers and fences that
# nothing but the line caused, in some minutes; no writes after kill -9 of all processes of the
# primary; commits afterwards, with two nodes left; no writes at a switchover.
#
# QUANTADB_BENCH_RUNS kills (default 5), QUANTADB_BENCH_MINUTES without a fault (default 2),
# QUANTADB_BENCH_SITES='1,2/3 1/2/3', QUANTADB_BENCH_SETTINGS='default recommended'.
use strict;
use warnings;
use QuantaNet;
use QuantaCluster;
use QuantaBench qw(percentile);
use QuantaClient;
use Test::More;
use Time::HiRes qw(time sleep);

my $runs = $ENV{QUANTADB_BENCH_RUNS} || 5;
my $minutes = $ENV{QUANTADB_BENCH_MINUTES} || 2;
my %settings = (
	default => [],
	recommended => [ [ lease_duration => '2s' ], [ failover_timeout => '2500ms' ], [ open_timeout => '10s' ] ]);

my $net = QuantaNet->new(3);
my $c = QuantaCluster->new_cluster(n => 3, quick => 1, net => $net);
my $relay = "$c->{dir}/relay";
(my $source = $INC{'QuantaCluster.pm'}) =~ s/lib\/QuantaCluster\.pm$/chaos\/relay.c/;
QuantaCluster::run_ok('gcc', '-O2', '-o', $relay, $source);
my %default = map { split /\|/ } split /\n/, $c->sql($c->primary, "SELECT name, value FROM quantadb_settings WHERE name ~ '^(lease|failover|open)_'");

sub ms { return [ map { 1000 * ($_->[2] - $_->[1]) } @_ ] }
sub p { my ($percent, $values) = @_; return @$values ? sprintf('%.0f', percentile($percent, @$values)) : '-' }
sub events
{
	my ($from) = @_;
	my %n;
	for my $entry (grep { $_->{number} > $from } @{ $c->journal($c->await_primary) }) { $n{$entry->{event}}++ }
	return \%n;
}
sub last_event { return (map { $_->{number} } @{ $c->journal($c->await_primary) })[-1] || 0 }

# The primary is n1 again.
sub go_home
{
	$c->wait_complete(240);
	$c->wait_for(sub { $c->primary == 1 || !$c->sql_try($c->await_primary, "SELECT quantadb_promote('n1')", timeout => 60) && $c->primary == 1 }, 120, 'n1 is the primary');
	$c->wait_complete(240);
}

sub quiet_minutes
{
	my $epoch = $c->sql(1, 'SELECT epoch FROM quantadb_status()');
	my $from = last_event();
	my @load = QuantaClient::start($c, 1, 'w');
	my (%bytes, %behind);
	my $until = time + 60 * $minutes;
	while (time < $until)
	{
		for (split /\n/, ($c->sql_try($c->await_primary, "SELECT name, lag_bytes, lag_ms FROM quantadb_nodes WHERE state = 'replica'"))[1])
		{
			my ($name, $bytes, $ms) = split /\|/;
			push @{$bytes{$name}}, $bytes if length($bytes || '');
			push @{$behind{$name}}, $ms if length($ms || '');
		}
		sleep 0.5;
	}
	QuantaClient::stop(@load);
	my $commits = ms($c->acknowledged);
	my $events = events($from);
	my $moved = $c->sql($c->await_primary, 'SELECT epoch FROM quantadb_status()') - $epoch;
	printf "| commits, ms, p50 / p99 / greatest of %d | %s / %s / %s |\n", scalar(@$commits), p(50, $commits), p(99, $commits), p(100, $commits);
	printf "| behind, %s: ms and kB, p50 / p99 | %s / %s, %.0f / %.0f |\n", $_, p(50, $behind{$_}), p(99, $behind{$_}),
	  percentile(50, @{$bytes{$_}}) / 1024, percentile(99, @{$bytes{$_}}) / 1024 for sort keys %behind;
	printf "| without a fault for %g min: failovers, fences, nodes lost | %d, %d, %d |\n", $minutes, $moved, $events->{fence} || 0, $events->{node_lost} || 0;
	return $moved;
}

sub one_kill
{
	my ($k) = @_;
	my $old = $c->await_primary;
	$c->sql($old, 'TRUNCATE w');
	my @load = QuantaClient::start($c, 1, 'w');
	$c->wait_for(sub { scalar($c->acknowledged) >= 50 }, 60, 'a load');
	my $at = $c->kill_all($old);
	my $ms;
	$c->wait_for(sub { defined($ms = $c->outage_ms($at)) }, 120, 'writes go on');
	my $n = scalar($c->acknowledged);
	$c->wait_for(sub { scalar($c->acknowledged) >= $n + 30 }, 120, 'for a while');
	my @after = grep { $_->[1] > $at + $ms / 1000 } $c->acknowledged;
	QuantaClient::stop(@load);
	my $new = $c->await_primary;
	is(scalar($c->missing_numbers($new, 'w')), 0, "kill $k: $ms ms, n$old to n$new, nothing acknowledged is lost");
	$c->start($old);
	go_home();
	return ($ms, @{ms(@after)}) if wantarray;
}

sub switchover
{
	$c->sql(1, 'TRUNCATE w');
	my @load = QuantaClient::start($c, 1, 'w');
	$c->wait_for(sub { scalar($c->acknowledged) >= 50 }, 60, 'a load');
	my $at = time;
	$c->sql(2, 'SELECT quantadb_promote()', timeout => 60);
	$c->wait_for(sub { defined $c->outage_ms(time - 0.5) }, 60, 'writes go on');
	QuantaClient::stop(@load);
	my ($longest, $last) = (0, undef);
	for (grep { $_->[2] > $at - 0.2 } $c->acknowledged)
	{
		$longest = $_->[2] - $last if defined $last && $_->[2] - $last > $longest;
		$last = $_->[2];
	}
	go_home();
	return int(1000 * $longest);
}

$c->sql($c->primary, 'CREATE TABLE w (x bigint PRIMARY KEY)');
for my $sites (split ' ', $ENV{QUANTADB_BENCH_SITES} || '1,2/3 1/2/3')
{
	my $heal = $net->relay($relay, seed => 1, delay => 40, loss => 1, sites => [ map { [ split /,/ ] } split /\//, $sites ]);
	for my $which (split ' ', $ENV{QUANTADB_BENCH_SETTINGS} || 'default recommended')
	{
		for (map { [ $_ => $default{$_} ] } sort keys %default) { $c->psql_rw("SELECT quantadb_set('$_->[0]', '$_->[1]')", timeout => 60) }
		for (reverse @{$settings{$which}}) { $c->psql_rw("SELECT quantadb_set('$_->[0]', '$_->[1]')", timeout => 60) }
		# The lease is that of the grant.
		$c->sql_try($c->await_primary, "SELECT quantadb_promote('n2')", timeout => 60);
		go_home();
		print "\n| sites $sites, $which settings | |\n|---|---|\n";
		my $moved = quiet_minutes();
		go_home();
		my (@outages, @after);
		for (1 .. $runs)
		{
			my ($ms, @commits) = one_kill($_);
			push @outages, $ms;
			push @after, @commits;
		}
		printf "| no writes after kill -9 of all processes, ms, %d runs | p50 %s, greatest %s (%s) |\n", $runs, p(50, \@outages), p(100, \@outages), "@outages";
		printf "| commits of the two that are left, ms, p50 / p99 | %s / %s |\n", p(50, \@after), p(99, \@after);
		printf "| no writes at a switchover, ms | %d |\n", switchover();
		is($moved, 0, "sites $sites, $which settings: no failover without a fault") if $which eq 'recommended';
	}
	$heal->();
}
done_testing();
