# Certificates are renewed by themselves, keys may be kept encrypted, and a company's own
# certificates serve as well.
use strict;
use warnings;
use IPC::Run;
use QuantaCluster;
use Test::More;

sub openssl { return QuantaCluster::run_ok('openssl', @_) }
sub pem { my ($c, $i) = @_; return $c->node($i)->{data} . '/quantadb/keys/node.pem' }

# ---- lifetimes of seconds, and a passphrase ----
my $c = QuantaCluster->new_cluster(n => 3, conf => "quantadb.certificate_lifetime = '30s'
quantadb.key_passphrase_command = 'echo a secret of the night'");
for my $i (1, 2)
{
	like(QuantaCluster::slurp(pem($c, $i)), qr/BEGIN ENCRYPTED PRIVATE KEY/, "n$i: its key is encrypted");
	unlike(QuantaCluster::slurp(pem($c, $i)), qr/BEGIN PRIVATE KEY/, "n$i: and not there in the clear too");
	like(QuantaCluster::slurp($c->node($i)->{data} . '/quantadb/keys/ca.key'), qr/BEGIN ENCRYPTED/, "n$i: the authority's too")
		if -e $c->node($i)->{data} . '/quantadb/keys/ca.key';
}
my %first = map { $_ => openssl('x509', '-in', pem($c, $_), '-noout', '-serial') } 1, 2;
$c->wait_for(sub { !grep { openssl('x509', '-in', pem($c, $_), '-noout', '-serial') eq $first{$_} } 1, 2 },
	60, 'both certificates are renewed');
pass('certificates are renewed well before they expire');
$c->sql_becomes(1, 'SELECT count(*) FROM quantadb_nodes WHERE connected', '3', 'the members are connected');
$c->stop(2);
$c->wait_for(sub { my ($out, $err) = ('', ''); !IPC::Run::run(['openssl', 'x509', '-in', pem($c, 2), '-noout', '-checkend', '0'], '>', \$out, '2>', \$err) },
	60, 'the certificate of a stopped node expires');
$c->start(2);
$c->wait_for(sub { $c->state(2) eq 'replica' }, 60, 'n2 is back');
pass('a voter whose certificate has expired renews it itself and comes back');
$c->teardown;

# ---- a company's own ----
my $d = QuantaCluster->new(n => 2);
my $dir = "$d->{dir}/company";
mkdir $dir;
openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
	'-subj', '/CN=Company CA', '-keyout', "$dir/ca.key", '-out', "$dir/ca.crt");
for my $i (1, 2)
{
	openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', "/CN=n$i",
		'-keyout', "$dir/n$i.key", '-out', "$dir/n$i.csr");
	openssl('x509', '-req', '-in', "$dir/n$i.csr", '-CA', "$dir/ca.crt", '-CAkey', "$dir/ca.key", '-CAcreateserial',
		'-days', '2', '-out', "$dir/n$i.crt");
}
# each node has files of its own
my $write = \&QuantaCluster::write_settings;
{
	no warnings 'redefine';
	*QuantaCluster::write_settings = sub {
		my ($self, $i, %args) = @_;
		$write->($self, $i, %args);
		QuantaCluster::append_file($self->node($i)->{data} . '/node.conf',
			"quantadb.tls_cert_file = '$dir/n$i.crt'\nquantadb.tls_key_file = '$dir/n$i.key'\nquantadb.tls_ca_file = '$dir/ca.crt'\n")
			if $self == $d;
	};
}
$d->create_first(1);
$d->init(1);
my ($code, $out, $err);
$d->copy_node(2, 1);
my $token = $d->sql(1, 'SELECT quantadb_join_token()');
my $host = 'localhost:' . $d->node(1)->{http};
($code, $out, $err) = $d->sql_try(2, "SELECT quantadb_join('$host', '$token')", timeout => 120);
like($err, qr/certificate|subject name/i, 'the name of the host has to be in the certificate of a company');
openssl('x509', '-req', '-in', "$dir/n1.csr", '-CA', "$dir/ca.crt", '-CAkey', "$dir/ca.key", '-CAcreateserial',
	'-days', '2', '-out', "$dir/n1.crt", '-extfile', do { QuantaCluster::append_file("$dir/ext", "subjectAltName = DNS:localhost,DNS:n1\n"); "$dir/ext" });
$d->stop(1);
$d->start(1);
$d->wait_for(sub { $d->write_ok(1) }, 30, 'n1 is primary again');
$d->sql_try(2, "SELECT quantadb_join('$host', '$token')", timeout => 120);
$d->wait_for(sub { $d->state(2) eq 'replica' }, 60, 'n2 streams');
pass("members with a company's certificates");
ok(!-e $d->node(1)->{data} . '/quantadb/keys/ca.key', 'no authority of our own was made');
done_testing();
