# What strangers cost the cluster: commits a second of pgbench that wait for a quorum on three nodes, alone
# and while somebody without a certificate works against the primary's ports; then the CPU time of the
# workers that bear it.  The strangers run on the same machine, so they take their own share of it as
# well: ratios on few processors are worse than what another host could do.
#
# QUANTADB_BENCH_RUNS rounds (default 5), QUANTADB_BENCH_SECONDS each (default 5).
use strict;
use warnings;
use FindBin;
use IO::Socket::INET;
use IPC::Run;
use QuantaBench qw(median pgbench cpu_seconds children_named);
use QuantaCluster;
use Socket;
use Test::More;
use Time::HiRes ();

my $rounds = $ENV{QUANTADB_BENCH_RUNS} || 5;
my $seconds = $ENV{QUANTADB_BENCH_SECONDS} || 5;
my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
pgbench($c, $p, '-i', '-q', '-s', 10);

my $flood = "$c->{dir}/join_flood";
QuantaCluster::run_ok('gcc', '-O1', '-o', $flood, "$FindBin::Bin/../lib/join_flood.c", '-lssl', '-lcrypto', '-lpthread');
QuantaCluster::append_file("$c->{dir}/garbage", join('', map { chr(int rand 256) } 1 .. 1000));

# Each starts its strangers and returns their processes.
sub connections
{
	my ($port, $bytes) = @_;
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	return $pid if $pid;
	my $address = pack_sockaddr_in($c->node($p)->{$port}, inet_aton('127.0.0.1'));
	my @mine;
	$SIG{PIPE} = 'IGNORE';
	while (getppid() != 1)
	{
		socket(my $s, PF_INET, SOCK_STREAM, 0) or POSIX::_exit(1);
		syswrite($s, $bytes) if connect($s, $address) && length $bytes;
		push @mine, $s;
		shift @mine if @mine > 900;
		Time::HiRes::sleep(0.001);
	}
	POSIX::_exit(0);
}

sub program
{
	my (@command) = @_;
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	return $pid if $pid;
	open(STDOUT, '>', '/dev/null');
	exec(@command) or POSIX::_exit(127);
}
my %strangers = (
	'connections that say nothing' => sub { map { connections($_, '') } 'raft', 'replication', 'http' },
	'half a handshake' => sub { map { connections($_, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" . ('x' x 100)) } 'raft', 'replication', 'http' },
	'whole handshakes and garbage' => sub { program($flood, '127.0.0.1', $c->node($p)->{raft}, "$c->{dir}/garbage", 2, 16) });

my %load;
sub round
{
	my ($name) = @_;
	my @pids = $name ne '' ? $strangers{$name}->() : ();
	my @workers = map { children_named($c, $p, "quantadb $_") } 'coordinator', 'streamer', 'http';
	my $used = sub { my $sum = 0; $sum += cpu_seconds($_) for @workers; return $sum };
	my $before = $used->();
	my $tps = pgbench($c, $p, '-c', 4, '-j', 2, '-T', $seconds, '-N');
	push @{$load{$name}}, ($used->() - $before) / $seconds;
	kill 'KILL', @pids;
	waitpid($_, 0) for @pids;
	return $tps;
}
for my $name (sort keys %strangers)
{
	my (@alone, @with);
	for (1 .. $rounds)
	{
		push @alone, round('');
		push @with, round($name);
	}
	printf "%s: %.0f commits/s, %.0f alone, ratio %.3f (median of %d rounds); workers use %.0f %% of a processor, %.0f %% alone\n",
	  $name, median(@with), median(@alone), median(map { $with[$_] / $alone[$_] } 0 .. $rounds - 1), $rounds,
	  100 * median(@{$load{$name}}), 100 * median(@{$load{''}});
}
is($c->sql($p, 'SELECT epoch FROM quantadb_status()'), '1', 'there was no failover');
done_testing();
