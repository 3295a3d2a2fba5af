# What is not encrypted does not leave a machine: HTTP is answered in the clear to loopback addresses
# alone unless that was asked for, TLS between nodes cannot be switched off elsewhere, and it has no
# version below 1.3.
use strict;
use warnings;
use QuantaNet;
use IO::Socket::INET;
use IPC::Run;
use QuantaCluster;
use Test::More;

my $net = QuantaNet->new(2);
my $c = QuantaCluster->new(n => 2, net => $net,
	conf_of => sub { $_[0] == 2 ? "quantadb.development_plaintext = on\nquantadb.listen_addresses = '127.0.0.1'\n" : '' });
$c->create_first(1);
$c->init(1);
my $http = $c->node(1)->{http};

# curl in the network of a node: the status.
sub asked
{
	my ($i, $url) = @_;
	my $out = '';
	IPC::Run::run([ $net->enter($i), 'curl', '-sk', '--noproxy', '*', '-m', '30', '-o', '/dev/null', '-w', '%{http_code}', $url ], '<', \undef, '>', \$out);
	return $out;
}

sub set
{
	my ($i, $line) = @_;
	QuantaCluster::append_file($c->node($i)->{data} . '/node.conf', "$line\n");
	$c->give_to_owner($i);
}

# ---- 8432 ----
my $there = $net->host(1) . ":$http/primary";
$c->becomes(sub { asked(2, "https://$there") }, '200', 'HTTPS is answered to another host');
is(asked(2, "http://$there"), '403', 'HTTP is not');
is(asked(2, 'http://' . $net->host(1) . ":$http/cluster/status"), '403', 'whatever it asks for');
set(1, 'quantadb.http_tls = off');
$c->sql(1, 'SELECT pg_reload_conf()');
$c->becomes(sub { asked(2, "http://$there") }, '200', 'unless quantadb.http_tls is off');
is(asked(2, "https://$there"), '200', 'which leaves HTTPS as it was');
set(1, 'quantadb.http_tls = on');
$c->sql(1, 'SELECT pg_reload_conf()');
$c->becomes(sub { asked(2, "http://$there") }, '403', 'and on again');

# ---- 7432 and 6432 ----
for my $port ('raft', 'replication')
{
	my ($out, $err) = ('', '');
	IPC::Run::run([ $net->enter(2), 'timeout', '20', 'openssl', 's_client', '-tls1_2', '-connect', $net->host(1) . ':' . $c->node(1)->{$port} ],
		'<', \undef, '>', \$out, '2>', \$err);
	like("$out$err", qr/protocol version/, "$port: TLS 1.2 is refused");
}

# ---- who would join in the clear shows its token to nobody ----
set(1, 'quantadb.http_tls = off');	# so that it is told where to join
$c->sql(1, 'SELECT pg_reload_conf()');
$c->becomes(sub { asked(2, "http://$there") }, '200', 'the status in the clear');
my $token = $c->sql(1, 'SELECT quantadb_join_token()');
$c->create_first(2);
$c->sql(2, 'CREATE EXTENSION quantadb');
my ($code, $out, $err) = $c->sql_try(2, 'SELECT quantadb_join(\'' . $net->host(1) . ":$http', '$token', discard_local_data => true)");
like($err, qr/development_plaintext is on.*not a loopback address/, 'a join in the clear to another host is refused');
is($c->sql(1, 'SELECT count(*) FROM quantadb_nodes'), '1', 'and is none');

# ---- nor does it listen ----
set(2, "quantadb.listen_addresses = '" . $net->host(2) . "'");
$c->stop(2);
$c->start(2);
my $said = sub { return scalar(() = QuantaCluster::slurp($c->node(2)->{log}) =~ /is not a loopback address/g) };
$c->wait_for($said, 60, 'the log says why');
for my $port ('raft', 'replication', 'http')
{
	my $socket = IO::Socket::INET->new(PeerAddr => $net->host(2), PeerPort => $c->node(2)->{$port}, Timeout => 10);
	ok(!$socket, "$port: nothing listens on an address that is not loopback");
}
done_testing();
