# A present member's certificate serves for control over HTTPS instead of a token; one of another
# cluster, an expired one, one with another's key and a removed member's do not.  A join token
# that was used once is worth nothing.
use strict;
use warnings;
use File::Path qw(make_path);
use IPC::Run;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 2);
$c->create_first(1);
$c->init(1);
$c->copy_node(2, 1);
my $http = $c->node(1)->{http};
my $token = $c->sql(1, "SELECT quantadb_join_token('replica')");
$c->sql_try(2, "SELECT quantadb_join('127.0.0.1:$http', '$token')", timeout => 60);
$c->wait_for(sub { $c->state(2) eq 'replica' }, 60, 'n2 streams');

my $dir = "$c->{dir}/pki";
make_path($dir);
my $keys = $c->node(1)->{data} . '/quantadb/keys';
my $own = $c->node(2)->{data} . '/quantadb/keys/node.pem';
QuantaCluster::run_ok('cp', $own, "$dir/own.pem");

sub openssl { return QuantaCluster::run_ok('openssl', @_) }

# The status of a control call of n1 with this certificate and key, both in one file.
sub control
{
	my ($pem, @more) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'curl', '-s', '--noproxy', '*', '-m', '30', '--cacert', "$keys/ca.crt", $pem ? ('--cert', $pem) : (), '-X', 'POST',
			'-o', '/dev/null', '-w', '%{http_code}', "https://127.0.0.1:$http/cluster/resume", @more ], '<', \undef, '>', \$out, '2>', \$err);
	return $out;
}

# What a certificate of n2 says, on a key of its own, signed by whom it is.
my ($uri) = openssl('x509', '-in', "$dir/own.pem", '-noout', '-ext', 'subjectAltName') =~ /URI:(quantadb:\S+?),?\s/;
like($uri, qr/^quantadb:[0-9a-f-]{36}:2:/, 'the name of n2');
QuantaCluster::append_file("$dir/ext", "subjectAltName = DNS:n2,URI:$uri\n");
openssl('pkey', '-in', "$dir/own.pem", '-out', "$dir/own.key");
openssl('req', '-new', '-key', "$dir/own.key", '-subj', '/CN=n2', '-out', "$dir/own.csr");
openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
	'-subj', '/CN=QuantaDB authority', '-keyout', "$dir/ca.key", '-out', "$dir/ca.crt");
openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=n2',
	'-keyout', "$dir/other.key", '-out', "$dir/other.csr");

sub sign
{
	my ($name, $ca, $key, $days) = @_;
	openssl('x509', '-req', '-in', "$dir/$key.csr", '-CA', "$ca/ca.crt", '-CAkey', "$ca/ca.key", '-CAcreateserial', '-CAserial',
		"$dir/serial", '-days', $days, '-extfile', "$dir/ext", '-out', "$dir/$name.crt");
	QuantaCluster::append_file("$dir/$name.pem", QuantaCluster::slurp("$dir/$name.crt") . QuantaCluster::slurp("$dir/$key.key"));
	return "$dir/$name.pem";
}
my $again = sign('again', $keys, 'own', 2);
my $expired = sign('expired', $keys, 'own', -1);
my $foreign = sign('foreign', $dir, 'own', 2);
my $stolen_name = sign('stolen', $keys, 'other', 2);

is(control("$dir/own.pem"), '200', 'the certificate of a member');
is($c->sql(1, q{SELECT count(*) FROM quantadb_journal WHERE event = 'control' AND reason LIKE '%member n2%'}), '1',
	'the journal says who it was');
is(control($again), '200', 'one that was renewed');
is(control(undef), '401', 'none');
isnt(control($_->[0]), '200', $_->[1])
  for [ $expired, 'an expired one' ], [ $foreign, "of another cluster's authority" ], [ $stolen_name, 'with the key of somebody else' ];
is(control("$dir/own.pem"), '200', 'a good one all the while');
is($c->sql(1, q{SELECT count(*) FROM quantadb_journal WHERE event = 'control'}), '3', 'and nothing was done for the others');

# The same over a TLS session that goes on: whether it did, and the status.
sub control_resumed
{
	my ($pem, @in) = @_;
	my ($out, $err) = ('', '');
	my $request = "POST /cluster/resume HTTP/1.1\r\nHost: n1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
	IPC::Run::run([ 'openssl', 's_client', '-connect', "127.0.0.1:$http", '-CAfile', "$keys/ca.crt", '-cert', $pem, '-key', $pem,
			'-ign_eof', '-sess_out', "$dir/session", @in ], '<', \$request, '>', \$out, '2>', \$err, IPC::Run::timeout(60));
	my ($status) = $out =~ m{HTTP/1\.1 (\d+)};
	return ($out =~ /^Reused, /m ? 'resumed' : 'new') . ' ' . ($status || "none: $out$err");
}
is(control_resumed("$dir/own.pem"), 'new 200', 'a session with the certificate');
is(control_resumed("$dir/own.pem", '-sess_in', "$dir/session"), 'resumed 200', 'which goes on');

$c->sql(1, q{SELECT quantadb_remove('n2')});
is(control("$dir/own.pem"), '401', "a removed member's");
is(control_resumed("$dir/own.pem", '-sess_in', "$dir/session"), 'resumed 401', 'in a session from before, too');

# ---- the same token again ----
$c->wait_for(sub { my ($code, $out) = $c->sql_try(2, 'SELECT why_not FROM quantadb_nodes LIMIT 1');
		QuantaCluster::slurp($c->node(2)->{log}) =~ /removed from the cluster/ }, 60, 'n2 knows');
my ($code, $out, $err) = $c->sql_try(2, "SELECT quantadb_join('127.0.0.1:$http', '$token')");
like($err, qr/token is unknown, used or expired/, 'a token that was used');
is($c->sql(1, 'SELECT count(*) FROM quantadb_nodes'), '1', 'lets nobody in');
done_testing();
