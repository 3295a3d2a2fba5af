# Who has no certificate of a present member gets nothing on any port: no byte of
# WAL, no vote, no join.  Members, HTTPS clients and load balancers go on.
use strict;
use warnings;
use File::Path qw(make_path);
use IO::Socket::INET;
use IPC::Run;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 4);
$c->create_first(1);
$c->init(1);
$c->join_copy($_) for 2, 3;
$c->wait_for(sub { my ($rc, $out) = $c->sql_try(1, 'SELECT can_lose FROM quantadb_status()');
	$rc == 0 && $out eq '1' }, 60, 'three voters');

my $dir = "$c->{dir}/pki";
make_path($dir);
my $keys = $c->node(1)->{data} . '/quantadb/keys';

sub run_out
{
	my (@command) = @_;
	my ($out, $in) = ('', '');
	my $done = eval { IPC::Run::run(\@command, '<', \$in, '>&', \$out, IPC::Run::timeout(20)); 1 };
	$out .= $@ unless $done;
	return $out;
}

sub openssl { my $out = run_out('openssl', @_); return $out }

# What a TLS client with these options hears on a port of a node.  Who is let in is not hung
# up on: it waits as long as it was told, and for longer when that was not enough to hear $want.
sub probe
{
	my ($want, $i, $port, @args) = @_;
	my $heard = '';
	for my $seconds (2, 5, 15)
	{
		$heard = run_out('timeout', $seconds, 'openssl', 's_client', '-tls1_3', '-connect',
			'127.0.0.1:' . $c->node($i)->{$port}, '-ign_eof', @args);
		last if $heard =~ $want;
	}
	return $heard;
}

sub hears
{
	my ($name, $want, @args) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return like(probe($want, @args), $want, $name);
}

# ---- files ----
for my $i (1 .. 3)
{
	my $folder = $c->node($i)->{data} . '/quantadb/keys';
	my @open = grep { (stat)[2] & 077 } glob("$folder/*");
	is("@open", '', "n$i: keys are readable by their owner only");
	$c->wait_for(sub { -e "$folder/ca.key" }, 30, "n$i, a voter, has the authority's key");
}
my $text = openssl('x509', '-in', "$keys/node.pem", '-noout', '-text');
like($text, qr/URI:quantadb:[0-9a-f-]{36}:1:\d+:0/, 'a certificate names cluster, member and incarnation');
like($text, qr/CN = n1/, 'and the node');

# ---- plaintext and wrong certificates on 7432 and 6432 ----
openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1',
	'-subj', '/CN=QuantaDB authority', '-keyout', "$dir/ca.key", '-out', "$dir/ca.crt");
openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
	'-subj', '/CN=n2', '-keyout', "$dir/w.key", '-out', "$dir/w.csr");
openssl('x509', '-req', '-in', "$dir/w.csr", '-CA', "$dir/ca.crt", '-CAkey', "$dir/ca.key",
	'-CAcreateserial', '-days', '1', '-out', "$dir/w.crt");
# the true authority, but over long ago
openssl('x509', '-req', '-in', "$dir/w.csr", '-CA', "$keys/ca.crt", '-CAkey', "$keys/ca.key",
	'-CAcreateserial', '-CAserial', "$dir/serial", '-days', '-1', '-out', "$dir/e.crt");
openssl('req', '-x509', '-key', "$dir/w.key", '-days', '1', '-subj', '/CN=quantadb joiner', '-out', "$dir/s.crt");
ok(-s "$dir/$_", "$_ was made for this test") for 'w.crt', 'e.crt', 's.crt';

for my $port ('raft', 'replication')
{
	my $required = qr/certificate required|handshake failure/;
	my $heard = probe($required, 1, $port);
	unlike($heard, qr/Verify return code: 0|QDB1/, "$port: no certificate, nothing is served");
	like($heard, $required, "$port: and TLS says so");
	hears("$port: a wrong authority", qr/unknown ca|alert/i, 1, $port, '-cert', "$dir/w.crt", '-key', "$dir/w.key");
	hears("$port: an expired certificate", qr/expired/i, 1, $port, '-cert', "$dir/e.crt", '-key', "$dir/w.key");
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $c->node(1)->{$port}) or die;
	$socket->syswrite("QDB1\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00");
	my $answer = '';
	eval { local $SIG{ALRM} = sub { die }; alarm 10; $socket->sysread($answer, 1000); alarm 0 };
	unlike($answer, qr/QDB1/, "$port: no answer in the clear");
}
hears('replication: who wants to join has no business there', qr/unknown ca|self.signed|alert/i,
	1, 'replication', '-cert', "$dir/s.crt", '-key', "$dir/w.key");

# ---- another node's certificate ----
my $other = $c->node(2)->{data} . '/quantadb/keys/node.pem';
my $mine = QuantaCluster::slurp($c->node(3)->{data} . '/quantadb/keys/node.pem');
$c->stop(3);
QuantaCluster::run_ok('cp', $other, $c->node(3)->{data} . '/quantadb/keys/node.pem');
$c->start(3);
$c->wait_for(sub { QuantaCluster::slurp($c->node(1)->{log}) =~ /its certificate is another member's|refused/ ||
	$c->sql(1, q{SELECT connected FROM quantadb_nodes WHERE name = 'n3'}) eq 'f' }, 30, 'n3 is not let in');
$c->sql(1, 'CREATE TABLE t (x int)');
$c->sql_becomes(1, q{SELECT connected FROM quantadb_nodes WHERE name = 'n3'}, 'f', 'a node with the key of another is not let in');
$c->sql_becomes(1, q{SELECT count(*) FROM quantadb_replication WHERE node = 'n3' AND state = 'streaming'}, '0', 'and gets no WAL');
$c->stop(3);
open(my $f, '>', $c->node(3)->{data} . '/quantadb/keys/node.pem') or die;
print $f $mine;
close $f;
$c->start(3);
$c->wait_for(sub { $c->state(3) eq 'replica' }, 60, 'n3 streams with its own');
pass('with its own it is');

# ---- tokens ----
$c->copy_node(4, 1);
my $http = $c->node(1)->{http};
my $token = $c->sql(1, q{SELECT quantadb_join_token('replica', '1 hour')});
my ($rc, $out, $err);
(my $guess = $token) =~ s/^(qdbjoin\.[0-9a-f]+\.)[0-9a-f]{32}/$1 . '0' x 32/e;
# The cluster writes into its log now and then by itself: once in ten times it did not.
my $entries = -1;
for (1 .. 10)
{
	my $at = $c->sql(1, 'SELECT raft_last_index FROM quantadb_status()');
	($rc, $out, $err) = $c->sql_try(4, "SELECT quantadb_join('127.0.0.1:$http', '$guess')");
	last if $err !~ /token is unknown, used or expired/;
	$entries = $c->sql(1, 'SELECT raft_last_index FROM quantadb_status()') - $at;
	last if $entries == 0;
}
like($err, qr/token is unknown, used or expired/, 'a guessed secret');
is($entries, 0, 'does not reach the Raft log');
(my $mitm = $token) =~ s/[0-9a-f]{64}$/'0' x 64/e;
($rc, $out, $err) = $c->sql_try(4, "SELECT quantadb_join('127.0.0.1:$http', '$mitm')");
like($err, qr/certificate|SSL/i, 'a member whose authority is not the one in the token');
my $short = $c->sql(1, q{SELECT quantadb_join_token('replica', '1 second')});
my $over = $c->sql(1, q{SELECT now() + interval '1.2 s'});
$c->wait_for(sub { $c->sql(1, "SELECT now() > '$over'") eq 't' }, 10, 'a second passes');
($rc, $out, $err) = $c->sql_try(4, "SELECT quantadb_join('127.0.0.1:$http', '$short')");
like($err, qr/token is unknown, used or expired/, 'an expired token');
($rc, $out, $err) = $c->sql_try(4, "SELECT quantadb_join('127.0.0.1:$http', '$token')", timeout => 120);
diag("quantadb_join: $err") if $err =~ /ERROR: +(?!57P)/;
$c->wait_for(sub { $c->state(4) eq 'replica' }, 60, 'n4 streams');
pass('the token itself works');
ok(!-e $c->node(4)->{data} . '/quantadb/keys/ca.key', 'a replica does not get the key of the authority');
my $keep = "$dir/removed.pem";
QuantaCluster::run_ok('cp', $c->node(4)->{data} . '/quantadb/keys/node.pem', $keep);

# ---- removed ----
hears('the certificate of a member is taken', qr/Verify return code: 0/,
	1, 'replication', '-cert', $keep, '-key', $keep, '-CAfile', "$keys/ca.crt");
$c->sql(1, q{SELECT quantadb_remove('n4')});
$c->wait_for(sub { $c->sql(1, q{SELECT count(*) FROM quantadb_replication WHERE node = 'n4' AND state = 'streaming'}) eq '0' },
	30, 'the stream to a removed member ends');
my $offset = length QuantaCluster::slurp($c->node(1)->{log});
probe(qr/alert|Verify return code/, 1, 'replication', '-cert', $keep, '-key', $keep);
$c->wait_for(sub { substr(QuantaCluster::slurp($c->node(1)->{log}), $offset) =~ /Refused a connection: it was removed/ },
	20, 'a removed certificate is refused');
pass('a removed member is refused although its certificate has not expired');

# ---- rotation ----
my $old_key = "$dir/old.pem";
QuantaCluster::run_ok('cp', $c->node(2)->{data} . '/quantadb/keys/node.pem', $old_key);
$c->sql(1, 'SELECT quantadb_rotate_certificates()');
$c->wait_for(sub { (() = $c->sql(1, q{SELECT reason FROM quantadb_journal WHERE event = 'certificate'}) =~ /worth nothing/g) == 3 },
	60, 'three nodes have new keys');
isnt(QuantaCluster::slurp($old_key), QuantaCluster::slurp($c->node(2)->{data} . '/quantadb/keys/node.pem'), 'there is a new key');
$offset = length QuantaCluster::slurp($c->node(1)->{log});
probe(qr/alert|Verify return code/, 1, 'replication', '-cert', $old_key, '-key', $old_key);
$c->wait_for(sub { substr(QuantaCluster::slurp($c->node(1)->{log}), $offset) =~ /its key is not the member's/ }, 20, 'an old key is refused');
pass('the old key is worth nothing');
$c->kill_all(2);
$c->start(2);
$c->wait_for(sub { $c->state(2) eq 'replica' }, 60, 'n2 comes back with its new key');
pass('a node restarts with its new key');

# ---- HTTP ----
$c->becomes(sub { ($c->http(1, '/primary'))[0] }, 200, 'plain HTTP on loopback');
my $https = run_out('curl', '-s', '--noproxy', '*', '--cacert', "$keys/ca.crt", '-o', '/dev/null', '-w', '%{http_code}',
	"https://127.0.0.1:$http/primary");
is($https, '200', "HTTPS on the same port, verified with the cluster's authority");
isnt(run_out('curl', '-s', '--noproxy', '*', '--cacert', "$dir/ca.crt", '-o', '/dev/null', '-w', '%{http_code}',
		"https://127.0.0.1:$http/primary"), '200', 'a client with another authority notices');

$c->sql_becomes(1, 'SELECT can_lose FROM quantadb_status()', '1', 'the cluster is whole');
done_testing();
