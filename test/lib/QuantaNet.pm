# QuantaNet.pm
#	Each node of a QuantaCluster in a network namespace of its own.
#
#	use QuantaNet;				# first: isolates the whole test
#	my $net = QuantaNet->new(3);
#	my $c = QuantaCluster->new_cluster(n => 3, net => $net);
#	$net->cut(1, 2); $net->isolate(1); $net->heal;
#
# The test runs again inside new network, mount and pid namespaces, and the nodes' own
# ones belong to processes in there.  So nothing is left behind, however it ends:
# with the outermost process the kernel ends all the others, and with them
# the namespaces.  That needs root; servers run as postgres.
package QuantaNet;

use strict;
use warnings;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep);

sub import
{
	return if $ENV{QUANTADB_NET_INSIDE};
	if ($> != 0)
	{
		plan(skip_all => 'network namespaces need root: run make test as root to have this tested');
		exit 0;
	}
	$ENV{QUANTADB_NET_INSIDE} = 1;
	# bash reaps what is orphaned inside; a perl with pid 1 would not.
	my $run = 'mount --make-rprivate /; ip link set lo up; "$@"; exit $?';
	exec('unshare', '-n', '-p', '-m', '--fork', '--kill-child', '--mount-proc', 'bash', '-c', $run, 'test',
		$^X, (map { "-I$_" } grep { !ref } @INC), $0, @ARGV) or die "unshare: $!";
}

sub run
{
	my (@command) = @_;
	system(@command) == 0 or die "@command failed";
}

sub new
{
	my ($class, $n) = @_;
	my $self = bless { n => $n, holder => [] }, $class;
	run(qw(ip link add qdb0 type bridge));
	run(qw(ip addr add 10.77.0.254/24 dev qdb0));
	run(qw(ip link set qdb0 up));
	for my $i (1 .. $n)
	{
		my $pid = fork();
		die "fork: $!" unless defined $pid;
		if ($pid == 0) { exec('unshare', '-n', 'sleep', 'infinity') or POSIX::_exit(127) }
		$self->{holder}[$i] = $pid;
		my $own = readlink('/proc/self/ns/net');
		for (1 .. 200)
		{
			last if (readlink("/proc/$pid/ns/net") || $own) ne $own;
			sleep 0.02;
		}
		run('ip', 'link', 'add', "qdb$i", 'type', 'veth', 'peer', 'name', 'eth0', 'netns', $pid);
		run('ip', 'link', 'set', "qdb$i", 'master', 'qdb0', 'up');
		$self->inside($i, 'ip', 'addr', 'add', $self->host($i) . '/24', 'dev', 'eth0');
		$self->inside($i, 'ip', 'link', 'set', $_, 'up') for qw(lo eth0);
	}
	return $self;
}

sub host { return "10.77.0.$_[1]" }

# What starts a command in a node's network.
sub enter { return ('nsenter', '-t', $_[0]{holder}[$_[1]], '-n', '--') }
sub inside { my ($self, $i, @command) = @_; run($self->enter($i), @command) }

# Nothing passes between two nodes, without a word to either.
sub cut
{
	my ($self, $i, $j) = @_;
	$self->inside($i, 'iptables', '-A', 'INPUT', '-s', $self->host($j), '-j', 'DROP');
	$self->inside($i, 'iptables', '-A', 'OUTPUT', '-d', $self->host($j), '-j', 'DROP');
}

# What node $i sends does not reach node $j; the other way is open.
sub cut_one_way
{
	my ($self, $i, $j) = @_;
	$self->inside($j, 'iptables', '-A', 'INPUT', '-s', $self->host($i), '-j', 'DROP');
}

# A firewall of node $j refuses what node $i sends to some ports of it.
sub refuse
{
	my ($self, $i, $j, @ports) = @_;
	$self->inside($j, 'iptables', '-A', 'INPUT', '-p', 'tcp', '-s', $self->host($i), '--dport', $_, '-j', 'REJECT', '--reject-with', 'tcp-reset') for @ports;
}

# The node is cut off from the others; the test still reaches it.
sub isolate
{
	my ($self, $i) = @_;
	$self->cut($i, $_) for grep { $_ != $i } 1 .. $self->{n};
}

sub heal
{
	my ($self) = @_;
	$self->inside($_, 'iptables', '-F') for 1 .. $self->{n};
}

# All that the nodes send each other goes through a bad network (test/chaos/relay.c), what
# the test sends does not.  With sites => [[1, 2], [3]] only what goes from one site to another.
# Returns a sub that ends it.
sub relay
{
	my ($self, $program, %args) = @_;
	# Not open('-|'): a test that dies would wait for its end.
	pipe(my $out, my $in) or die "pipe: $!";
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open(STDOUT, '>&', $in);
		exec($program, $args{seed}, $args{delay} || 0, $args{jitter} || 0, $args{loss} || 0,
			map { "$self->{holder}[$_]=" . $self->host($_) } 1 .. $self->{n}) or POSIX::_exit(127);
	}
	close $in;
	my $line = <$out>;
	die "$program does not start" unless ($line || '') eq "ready\n";
	my %site;
	for my $site (@{$args{sites} || [ map { [$_] } 1 .. $self->{n} ]}) { $site{$_} = $site for @$site }
	for my $i (1 .. $self->{n})
	{
		$self->inside($i, 'ip', 'link', 'set', 'qdbbad', 'up');
		$self->inside($i, 'ip', 'route', 'add', $self->host($_) . '/32', 'dev', 'qdbbad', 'src', $self->host($i))
		  for grep { $site{$_} != $site{$i} } 1 .. $self->{n};
	}
	return sub { kill 'KILL', $pid; waitpid($pid, 0); close $out };
}

1;
