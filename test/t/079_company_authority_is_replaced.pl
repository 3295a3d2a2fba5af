# A company's authority is replaced by another one while the cluster is written to: no server
# is restarted, no write is lost, and the old authority is worth nothing in the end.
use strict;
use warnings;
use IPC::Run;
use QuantaClient;
use QuantaCluster;
use Test::More;

my ($dir, @clients);
my $main = $$;
my $c = QuantaCluster->new(n => 3, conf_of => sub {
	my ($i) = @_;
	return join('', map { "quantadb.tls_${_}_file = '$dir/n$i.$_'\n" } qw(cert key ca)) });
$dir = "$c->{dir}/company";

# Also where the test dies: who waits for its output would wait for them.
END { local $?; QuantaClient::stop(@clients) if @clients && $$ == $main }

sub openssl { return QuantaCluster::run_ok('openssl', @_) }

sub make_authority
{
	my ($name) = @_;
	openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
		'-subj', "/CN=$name authority", '-keyout', "$dir/$name.key", '-out', "$dir/$name.crt");
}

# A key and a certificate of this authority for a node, under another name.
sub issue
{
	my ($authority, $i) = @_;
	my $at = "$dir/n$i.$authority";
	openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', "/CN=n$i",
		'-keyout', "$at.key", '-out', "$at.csr");
	openssl('x509', '-req', '-in', "$at.csr", '-CA', "$dir/$authority.crt", '-CAkey', "$dir/$authority.key",
		'-CAcreateserial', '-days', '2', '-extfile', "$dir/ext", '-out', "$at.crt");
}

# Files are replaced as a whole, as operators should.
sub put
{
	my ($path, @from) = @_;
	unlink "$path.new";
	QuantaCluster::append_file("$path.new", join('', map { QuantaCluster::slurp($_) } @from));
	QuantaCluster::run_ok('chown', 'postgres:', "$path.new") if $> == 0;
	rename "$path.new", $path or die;
}

sub put_certificate
{
	my ($i, $authority) = @_;
	put("$dir/n$i.cert", "$dir/n$i.$authority.crt");
	put("$dir/n$i.key", "$dir/n$i.$authority.key");
}

# Does it, and waits until the node's log has said all this since.
sub log_says
{
	my ($i, $do, @want) = @_;
	my $before = length(QuantaCluster::slurp($c->node($i)->{log}));
	$do->();
	for my $want (@want)
	{
		$c->wait_for(sub { substr(QuantaCluster::slurp($c->node($i)->{log}), $before) =~ $want }, 120, "n$i: $want");
	}
}

sub reload
{
	my ($i, $want) = @_;
	log_says($i, sub { $c->sql($i, 'SELECT pg_reload_conf()') }, $want);
}

sub process
{
	my ($i, $title) = @_;
	my $pid;
	$c->wait_for(sub { ($pid) = grep { QuantaCluster::slurp("/proc/$_/cmdline") =~ $title } QuantaCluster::children_of($c->postmaster($i)); $pid },
		120, "n$i: $title");
	return $pid;
}

# Connections live on; these end, and are made anew with what is in force now.
sub reconnect_stream
{
	my ($i) = @_;
	log_says($i, sub { kill 'TERM', process($i, qr/walreceiver/) }, qr/Stream connected to primary/);
}

sub reconnect_mesh
{
	my ($i) = @_;
	log_says($i, sub { kill 'TERM', process($i, qr/quantadb coordinator/) }, map { qr/Connected to node n$_/ } $c->all_but($i));
}

# What a client with this certificate hears on a port; who is let in is not hung up on.
sub hears
{
	my ($want, $i, $port, @args) = @_;
	my $out = '';
	for my $seconds (1, 3, 10, 20)
	{
		my $in = $out = '';
		eval { IPC::Run::run([ 'timeout', $seconds, 'openssl', 's_client', '-tls1_3', '-ign_eof',
			'-connect', '127.0.0.1:' . $c->node($i)->{$port}, @args ], '<', \$in, '>&', \$out, IPC::Run::timeout(60)) };
		last if $out =~ $want;
	}
	return $out;
}

mkdir $dir or die;
QuantaCluster::run_ok('chown', 'postgres:', $dir) if $> == 0;
QuantaCluster::append_file("$dir/ext", "subjectAltName = DNS:localhost,IP:127.0.0.1\n");
make_authority($_) for 'old', 'new';
for my $i ($c->all)
{
	issue($_, $i) for 'old', 'new';
	put("$dir/n$i.ca", "$dir/old.crt");
	put_certificate($i, 'old');
}
$c->create_first(1);
$c->init(1);
$c->join_copy($_) for 2, 3;
$c->wait_complete;
$c->sql(1, 'CREATE TABLE t (x bigint PRIMARY KEY)');
my $epoch = $c->sql(1, 'SELECT epoch FROM quantadb_status()');
my @started = map { $c->postmaster($_) } $c->all;
@clients = QuantaClient::start($c, 2, 't');

# A certificate without its key is named, and harms no process that runs.
put("$dir/n3.cert", "$dir/n3.new.crt");
reload(3, qr/new certificate files cannot be used: .*certificate and key do not fit/);
$c->becomes(sub { $c->state(3) }, 'replica', 'with files that do not fit a member stays');
put_certificate(3, 'old');
reload(3, qr/certificate files were read again/);
reconnect_stream(3);
pass('and connects anew when they are mended');

for my $step ([ 'both are trusted', sub { put("$dir/n$_[0].ca", "$dir/old.crt", "$dir/new.crt") } ],
	[ 'certificates of the new one', sub { put_certificate($_[0], 'new') } ],
	[ 'the new one alone', sub { put("$dir/n$_[0].ca", "$dir/new.crt") } ])
{
	my ($name, $do) = @$step;
	for my $i ($c->all)
	{
		$do->($i);
		reload($i, qr/certificate files were read again/);
	}
	reconnect_stream($_) for 2, 3;
	reconnect_mesh(3);
	pass("$name: members connect anew");
}

for my $port ('raft', 'replication', 'http')
{
	my $want = qr/issuer=CN = new authority/;
	like(hears($want, 1, $port, '-cert', "$dir/n2.new.crt", '-key', "$dir/n2.new.key"), $want, "$port: shows the new certificate");
	next if $port eq 'http';
	$want = qr/alert unknown ca/;
	like(hears($want, 1, $port, '-cert', "$dir/n2.old.crt", '-key', "$dir/n2.old.key"), $want,
		"$port: one of the old authority is refused");
}
$c->wait_complete;
QuantaClient::stop(splice(@clients));
my @acked = map { (split)[0] } map { split(/\n/, QuantaCluster::slurp($_)) } glob "$c->{dir}/acked.*";
my %there = map { $_ => 1 } split(/\n/, $c->sql(1, 'SELECT x FROM t'));
cmp_ok(scalar @acked, '>', 0, 'writes were acknowledged');
is(scalar(grep { !$there{$_} } @acked), 0, 'none of them is gone');
is($c->sql(1, 'SELECT epoch FROM quantadb_status()'), $epoch, 'the same primary in the same epoch');
is_deeply([ map { $c->postmaster($_) } $c->all ], \@started, 'no server was restarted');
done_testing();
