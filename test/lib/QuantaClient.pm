# QuantaClient.pm
#	Clients that write numbers as fast as they are acknowledged, and go to the next node when
#	one refuses: PostgreSQL's wire protocol in a few lines, since a psql for each
#	insert would cost more than what is measured.
package QuantaClient;

use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use QuantaCluster;
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time sleep);

my $limit = 10;					# seconds that a client waits for an answer

sub read_bytes
{
	my ($socket, $want, $until) = @_;
	my $bytes = '';
	while (length($bytes) < $want)
	{
		return undef unless IO::Select->new($socket)->can_read($until - time);
		my $n = sysread($socket, $bytes, $want - length($bytes), length($bytes));
		return undef unless $n;
	}
	return $bytes;
}

# Reads up to ReadyForQuery; the SQLSTATE of an error, '' none, undef: the connection is gone.
sub read_answer
{
	my ($socket) = @_;
	my $state = '';
	my $until = time + $limit;
	while (1)
	{
		my $head = read_bytes($socket, 5, $until);
		return undef unless defined $head;
		my ($type, $length) = unpack('a N', $head);
		my $body = read_bytes($socket, $length - 4, $until);
		return undef unless defined $body;
		return $state if $type eq 'Z';
		$state = $1 if $type eq 'E' && $body =~ /C([0-9A-Z]{5})\0/;
	}
}

sub connect_to
{
	my ($host, $port) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port, Proto => 'tcp', Timeout => 1) or return undef;
	setsockopt($socket, IPPROTO_TCP, TCP_NODELAY, 1);
	my $startup = pack('n n', 3, 0) . join("\0", user => 'postgres', database => 'postgres', '', '');
	syswrite($socket, pack('N', 4 + length($startup)) . $startup);
	my $state = read_answer($socket);
	return defined $state && $state eq '' ? $socket : undef;
}

sub query
{
	my ($socket, $sql) = @_;
	return undef unless syswrite($socket, 'Q' . pack('N', 5 + length($sql)) . "$sql\0");
	return read_answer($socket);
}

sub run
{
	my ($c, $w, $count, $table) = @_;
	my @nodes = map { $c->node($_) } $c->all;
	my $socket;
	my $tried = 0;
	open(my $log, '>', "$c->{dir}/acked.$w") or POSIX::_exit(1);
	$log->autoflush(1);
	for (my $k = 0;; $k++)
	{
		my $number = $k * $count + $w;
		my $begin = time;
		$socket ||= connect_to($nodes[0]{host}, $nodes[0]{sql});
		my $state = $socket ? query($socket, "INSERT INTO $table VALUES ($number)") : undef;
		if (defined $state && $state eq '')
		{
			printf $log "%d %.4f %.4f\n", $number, $begin, time;
			$tried = 0;
			next;
		}
		close $socket if $socket;
		$socket = undef;
		push @nodes, shift @nodes;
		# Nobody takes writes: no need to ask more often than this.
		sleep 0.01 if ++$tried % @nodes == 0;
	}
}

# Starts them; what they have acknowledged is in the files that QuantaCluster reads.
sub start
{
	my ($c, $count, $table) = @_;
	my @pids;
	unlink glob "$c->{dir}/acked.*";
	for my $w (1 .. $count)
	{
		my $pid = fork();
		die "fork: $!" unless defined $pid;
		if ($pid == 0)
		{
			$SIG{TERM} = sub { POSIX::_exit(0) };
			$SIG{PIPE} = 'IGNORE';
			run($c, $w, $count, $table);
		}
		push @pids, $pid;
	}
	return @pids;
}

sub stop
{
	kill 'TERM', @_;
	waitpid($_, 0) for @_;
}

1;
