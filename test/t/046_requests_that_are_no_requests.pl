# Requests that no client sends: each is refused or cut off, what follows it in the same connection is
# not taken for another request, and the next client is served.
use strict;
use warnings;
use IO::Socket::INET;
use IO::Select;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 1);
$c->create_first(1);
$c->init(1);
my $admin = $c->sql(1, "SELECT quantadb_api_token('admin')");
$c->becomes(sub { ($c->http(1, '/cluster/resume', '-X', 'POST', '-H', "Authorization: Bearer $admin"))[0] }, 200, 'a request as it should be');

# Everything that comes back until the server has closed, or has said nothing for a while.
sub raw
{
	my ($bytes) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $c->node(1)->{http}, Timeout => 30) or return 'no connection';
	my $answer = '';
	local $SIG{PIPE} = 'IGNORE';
	$socket->print($bytes);
	my $select = IO::Select->new($socket);
	while ($select->can_read($answer eq '' ? 30 : 3))
	{
		last unless sysread($socket, $answer, 65536, length $answer);
	}
	return $answer;
}

sub statuses { my ($answer) = @_; return join(' ', $answer =~ m{^HTTP/1\.[01] (\d+)}mg) }

my $paused = sub { return $c->sql(1, 'SELECT paused FROM quantadb_status()') };
my $auth = "Host: x\r\nAuthorization: Bearer $admin\r\n";
my $smuggled = "POST /cluster/pause HTTP/1.1\r\n${auth}Content-Length: 0\r\n\r\n";
my @cases = (
	[ 'a length and chunks', "POST /cluster/resume HTTP/1.1\r\n${auth}Content-Length: " . (5 + length $smuggled) . "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n$smuggled" ],
	[ 'chunks and a length', "POST /cluster/resume HTTP/1.1\r\n${auth}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n$smuggled" ],
	[ 'two lengths', "POST /cluster/resume HTTP/1.1\r\n${auth}Content-Length: 0\r\nContent-Length: " . length($smuggled) . "\r\n\r\n$smuggled" ],
	[ 'a length with a sign', "POST /cluster/resume HTTP/1.1\r\n${auth}Content-Length: +0\r\n\r\n$smuggled" ],
	[ 'a space before the colon', "POST /cluster/resume HTTP/1.1\r\n${auth}Content-Length : " . length($smuggled) . "\r\n\r\n$smuggled" ],
	[ 'a length below nothing', "POST /cluster/resume HTTP/1.1\r\n${auth}Content-Length: -1\r\n\r\n$smuggled" ],
	[ 'a length beyond all numbers', "POST /cluster/resume HTTP/1.1\r\n${auth}Content-Length: 18446744073709551617\r\n\r\n$smuggled" ],
	[ 'chunks by another name', "POST /cluster/resume HTTP/1.1\r\n${auth}Transfer-Encoding: xchunked\r\n\r\n$smuggled" ],
	[ 'chunks that are none', "POST /cluster/resume HTTP/1.1\r\n${auth}Transfer-Encoding: chunked\r\n\r\nzz\r\n$smuggled" ],
	[ 'a chunk beyond all numbers', "POST /cluster/resume HTTP/1.1\r\n${auth}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n$smuggled" ],
	[ 'a folded header', "POST /cluster/resume HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nX: y\r\n Authorization: Bearer $admin\r\n\r\n" ],
	[ 'a bodiless read with a body', "GET /primary HTTP/1.1\r\nHost: x\r\nContent-Length: " . length($smuggled) . "\r\n\r\n$smuggled", qr/^200$/ ],
	[ 'a long path', 'GET /' . 'a' x 20000 . " HTTP/1.1\r\nHost: x\r\n\r\n" ],
	[ 'a long query', 'GET /replica?lag=' . '1' x 20000 . " HTTP/1.1\r\nHost: x\r\n\r\n" ],
	[ 'a long header', "GET /primary HTTP/1.1\r\nHost: x\r\nX: " . 'a' x 60000 . "\r\n\r\n" ],
	[ 'many headers', "GET /primary HTTP/1.1\r\nHost: x\r\n" . join('', map { "X$_: y\r\n" } 1 .. 5000) . "\r\n" ],
	[ 'an unknown method', "BREW /primary HTTP/1.1\r\nHost: x\r\n\r\n" ],
	[ 'a long method', 'A' x 20000 . " /primary HTTP/1.1\r\nHost: x\r\n\r\n" ],
	[ 'a proxy request', "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n" ],
	[ 'no version', "GET /primary\r\n\r\n" ],
	[ 'another version', "GET /primary HTTP/9.9\r\nHost: x\r\n\r\n" ],
	[ 'a zero in the path', "GET /primary%00x HTTP/1.1\r\nHost: x\r\n\r\n" ],
	[ 'a path out', "GET /../../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n" ],
	[ 'an encoded path out', "GET /cluster/nodes/%2e%2e%2f%2e%2e%2fn1 HTTP/1.1\r\nHost: x\r\n\r\n" ],
	[ 'two tokens', "POST /cluster/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nAuthorization: Bearer nothing\r\nAuthorization: Bearer none\r\n\r\n" ]);
for my $case (@cases)
{
	my ($name, $bytes, $want) = @$case;
	my $got = statuses(raw($bytes));
	like($got, $want || qr/^(4\d\d|505)?( 4\d\d)*$/, "$name is not done");
	is($paused->(), 'f', '... nor what follows');
}
is(statuses(raw("GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n$smuggled")), '200 200', 'two requests behind each other are two');
$c->becomes($paused, 't', 'and both are done');
is(statuses(raw("POST /cluster/resume HTTP/1.1\r\n${auth}Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")), '200', 'a body in chunks is one');
$c->becomes($paused, 'f', 'and is read');
unlike(QuantaCluster::slurp($c->node(1)->{log}), qr/terminated by signal|exited with exit code/, 'no worker has died');
done_testing();
