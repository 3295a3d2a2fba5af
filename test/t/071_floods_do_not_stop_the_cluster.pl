# Thousands of half-open connections, garbage, oversized and truncated frames, and
# slow requests on every port: no worker dies, commits go on, members reconnect.
use strict;
use warnings;
use IO::Socket::INET;
use IPC::Run;
use QuantaCluster;
use Socket;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
$c->sql($p, 'CREATE TABLE t (x bigint PRIMARY KEY)');
my $started = sub { my ($i) = @_; return join(',', sort map { my ($s) = QuantaCluster::slurp("/proc/$_/cmdline") =~ /quantadb (\w+)/; $s ? "$s $_" : () }
	QuantaCluster::children_of($c->postmaster($i))) };
my $before = $started->($p);
like($before, qr/coordinator.*http.*streamer/, 'three workers run');

my @held;
sub attack
{
	my ($port, $bytes) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Blocking => 0) or return;
	push @held, [ $socket, $bytes ];
}

sub send_all
{
	for (@held) { local $SIG{PIPE} = 'IGNORE'; $_->[0]->syswrite($_->[1]) if length $_->[1] }
}

my $n = 0;
sub commits_go_on
{
	my ($what) = @_;
	my ($code, $out, $err) = $c->sql_try($p, "INSERT INTO t VALUES (" . ++$n . ")", timeout => 120);
	is($code, 0, "commits go on: $what");
}

my $more = 0;
sub commits { my ($code) = $c->sql_try($p, 'INSERT INTO t VALUES (' . ++$n . ')', timeout => 120); return $code == 0 ? ++$more : 0 }

my %bytes = (
	'nothing at all' => '',
	'garbage' => join('', map { chr(int rand 256) } 1 .. 4000),
	'a frame in the clear' => "QDB1\x01\x01\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00",
	'the beginning of a handshake' => "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" . ('x' x 100),
	'an endless record' => "\x16\x03\x03\xff\xff" . ('y' x 16000),
	'half a request' => "GET /primary HTTP/1.1\r\nHost: x\r\nX-Slow: ");
for my $port ('raft', 'replication', 'http')
{
	for my $kind (sort keys %bytes)
	{
		attack($c->node($p)->{$port}, $bytes{$kind}) for 1 .. 200;
		send_all();
		commits_go_on("200 connections with $kind on $port");
		@held = ();
	}
}
# thousands that say nothing and stay: two processes a port, each opens what was closed again
my @children;
pipe(my $tell, my $told) or die "pipe: $!";
$tell->blocking(0);
for my $port ('raft', 'replication', 'http')
{
	for (1 .. 2)
	{
		my $pid = fork();
		die "fork: $!" unless defined $pid;
		if ($pid == 0)
		{
			my $address = pack_sockaddr_in($c->node($p)->{$port}, inet_aton('127.0.0.1'));
			my @mine;
			my $opened = 0;
			while (getppid() != 1)
			{
				socket(my $s, PF_INET, SOCK_STREAM, 0) or POSIX::_exit(1);
				syswrite($told, 'x') if connect($s, $address) && ++$opened % 100 == 0;
				push @mine, $s;
				shift @mine if @mine > 900;
				Time::HiRes::sleep(0.002);
			}
			POSIX::_exit(0);
		}
		push @children, $pid;
	}
	commits_go_on("half-open connections on $port");
}
$c->wait_for(sub { commits() > 20 }, 60, 'commits while they come');
my $hundreds = '';
$c->wait_for(sub { sysread($tell, $hundreds, 1000, length $hundreds); length $hundreds >= 100 }, 180, '10,000 connections');
commits_go_on('after 10,000 half-open connections');
# a stream that breaks is made anew while they are there
my $r = $p == 1 ? 2 : 1;
$c->sql($r, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walreceiver'});
$c->wait_for(sub { $c->sql($p, q{SELECT count(*) FROM quantadb_replication WHERE state = 'streaming'}) eq '2' }, 30, 'two streams');
commits_go_on('after a stream was made anew');
$c->sql_becomes($p, q{SELECT count(*) FROM quantadb_nodes WHERE connected}, '3', 'the members are connected');
$c->becomes(sub { ($c->http($p, '/primary'))[0] }, 200, 'and HTTP answers');
kill 'KILL', @children;
waitpid($_, 0) for @children;

# a client that opens many connections before it says anything on them is no attacker
my @slow = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $c->node($p)->{http}, Timeout => 60) } 1 .. 100;
$c->becomes(sub { ($c->http($p, '/primary'))[0] }, 200, 'one more is answered, so all of them were taken');
my $answered = 0;
for my $s (grep { defined } @slow)
{
	local $SIG{PIPE} = 'IGNORE';
	syswrite($s, "GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n");
	my $line = '';
	sysread($s, $line, 4096);
	$answered++ if $line =~ m{^HTTP/1.1 200 };
}
is($answered, 100, '100 connections of one client that all begin late are answered');
@slow = ();

# 10,000 requests, many at a time
my ($out, $err) = ('', '');
my $url = 'http://127.0.0.1:' . $c->node($p)->{http} . '/primary';
my $config = "$c->{dir}/curl";
open(my $f, '>', $config) or die;
print $f qq{url = "$url"\noutput = "/dev/null"\n} for 1 .. 10000;
close $f;
IPC::Run::run([ 'curl', '-s', '--noproxy', '*', '-Z', '--parallel-max', '100', '-m', '300', '-w', '%{http_code}\n', '-K', $config ],
	'<', \undef, '>', \$out, '2>', \$err);
my %answers;
$answers{$_}++ for split(/\n/, $out);
# 503 while a busy machine lets the lease lapse is an answer too; 000 is none.
is(($answers{200} || 0) + ($answers{503} || 0), 10000, '10,000 requests in parallel are answered')
  or diag(join(', ', map { "$answers{$_} times $_" } sort keys %answers));
commits_go_on('after them');
is($started->($p), $before, 'no worker has died');
$c->becomes(sub { ($c->http($p, '/primary'))[0] }, 200, 'the node is primary as before');
is($c->sql($p, 'SELECT epoch FROM quantadb_status()'), '1', 'there was no failover');
done_testing();
