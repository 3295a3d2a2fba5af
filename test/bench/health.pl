# What 1,000 health checks a second cost the http worker: GET /primary to the primary and
# GET /replica to a replica, over connections that are kept and over new ones, in the clear and with TLS
# (with and without the session of the connection before).  For each: CPU of the worker, as
# a share of a core, from /proc (utime + stime); failures; latency, counted from when the
# request was due.
#
# Then whether they delay the coordinator: latency of strict reads on a replica, each of which
# asks the coordinators of both nodes, and of commits, without health checks and with
# 1,000 a second to each node, in turns.
#
# QUANTADB_BENCH_RUNS rounds (default 5), QUANTADB_BENCH_SECONDS each (default 5).
use strict;
use warnings;
use QuantaBench qw(median percentile cpu_seconds children_named);
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $rounds = $ENV{QUANTADB_BENCH_RUNS} || 5;
my $seconds = $ENV{QUANTADB_BENCH_SECONDS} || 5;
my $rate = $ENV{QUANTADB_BENCH_RATE} || 1000;

my $c = QuantaCluster->new_cluster(n => 3, quick => 1);
my $p = $c->primary;
my ($r) = grep { $_ != $p } $c->all;
(my $source = $INC{'QuantaCluster.pm'}) =~ s/QuantaCluster\.pm$/health_load.c/;
my $load = "$c->{dir}/health_load";
QuantaCluster::run_ok('gcc', '-O2', '-o', $load, $source, '-lssl', '-lcrypto', '-lpthread');
my $epoch = $c->sql($p, 'SELECT epoch FROM quantadb_status()');

sub command
{
	my ($i, $path, $for, @how) = @_;
	return ($load, $c->node($i)->{host}, $c->node($i)->{http}, $path, $rate, $for, @how);
}

sub measure
{
	my ($i, $path, @how) = @_;
	my ($pid) = children_named($c, $i, qr/quantadb http/);
	my ($cpu, $at) = (cpu_seconds($pid), time);
	my @line = split ' ', QuantaCluster::run_ok(command($i, $path, $seconds, @how));
	return (100 * (cpu_seconds($pid) - $cpu) / (time - $at), @line);
}

for my $where ([ $p, '/primary' ], [ $r, '/replica?lag=16MB' ])
{
	for my $how ([qw(keep clear)], [qw(new clear)], [qw(keep tls)], [qw(resume tls)], [qw(new tls)])
	{
		my (@cpu, @p50, @p99, @max);
		my ($requests, $failures, $resumed) = (0, 0, 0);
		for (1 .. $rounds)
		{
			my ($cpu, $n, $bad, $again, $p50, $p99, $max) = measure(@$where, @$how);
			push @cpu, $cpu;
			push @p50, $p50;
			push @p99, $p99;
			push @max, $max;
			$requests += $n;
			$failures += $bad;
			$resumed += $again;
		}
		printf "%-18s %-6s %-5s: CPU %.1f %% of a core (%s), p50 %d us, p99 %d us, greatest %d us, %d failures and %d resumed of %d\n",
		  $where->[1], @$how, median(@cpu), join(' ', map { sprintf '%.1f', $_ } @cpu), median(@p50), median(@p99), percentile(100, @max),
		  $failures, $resumed, $requests;
		is($failures, 0, "@$how: every request is answered");
	}
}

# ---- the coordinator ----
sub latencies
{
	my ($name, $i, @args) = @_;
	my $prefix = "$c->{dir}/$name";
	unlink glob "$prefix.*";
	QuantaCluster::run_ok("$ENV{PG_BINDIR}/pgbench", '-n', '-T', $seconds, '-l', '--log-prefix', $prefix, @args, $c->conninfo($i) . ' sslmode=disable');
	return map { (split)[2] } map { split /\n/, QuantaCluster::slurp($_) } glob "$prefix.*";
}

QuantaBench::pgbench($c, $p, '-i', '-q', '-s', 1);
$c->wait_replayed($r, $p);
my %found;
for my $round (1 .. $rounds)
{
	for my $checked ($round % 2 ? (0, 1) : (1, 0))
	{
		my @pids;
		for my $node ($checked ? ([ $p, '/primary' ], [ $r, '/replica' ]) : ())
		{
			my $pid = fork();
			die "fork: $!" unless defined $pid;
			if ($pid == 0)
			{
				open(STDOUT, '>', '/dev/null');
				exec(command(@$node, 2 * $seconds + 2, 'keep', 'clear')) or POSIX::_exit(127);
			}
			push @pids, $pid;
		}
		local $ENV{PGOPTIONS} = '-c quantadb.read_consistency=strict';
		my @strict = latencies('strict', $r, '-S', '-c', 1);
		delete local $ENV{PGOPTIONS};
		my @commit = latencies('commit', $p, '-N', '-c', 1);
		kill 'TERM', @pids;
		waitpid($_, 0) for @pids;
		push @{$found{$checked}{'strict reads on a replica'}}, [ percentile(50, @strict), percentile(99, @strict) ];
		push @{$found{$checked}{'commits'}}, [ percentile(50, @commit), percentile(99, @commit) ];
	}
}
for my $what ('strict reads on a replica', 'commits')
{
	for my $k (0, 1)
	{
		my @without = map { $_->[$k] } @{$found{0}{$what}};
		my @with = map { $_->[$k] } @{$found{1}{$what}};
		printf "%s, p%d: %d us without health checks, %d us with %d a second to both nodes, ratio %.2f (median of %d rounds)\n", $what, $k ? 99 : 50,
		  median(@without), median(@with), $rate, median(map { $with[$_] / $without[$_] } 0 .. $#with), $rounds;
	}
}
is($c->sql($c->await_primary, 'SELECT epoch FROM quantadb_status()'), $epoch, 'no failover');
done_testing();
