# What is wrong from outside gets a message that says what to do; no worker crashes and
# the rest of the cluster goes on.
use strict;
use warnings;
use QuantaCluster;
use IO::Socket::INET;
use Test::More;

my $c = QuantaCluster->new(n => 3);
$c->create_first(1);
$c->init(1);
my ($code, $out, $err);

sub logged { my ($i, $pattern) = @_; return QuantaCluster::slurp($c->node($i)->{log}) =~ $pattern }
sub log_size { return -s $c->node($_[0])->{log} || 0 }
sub logged_since { my ($i, $at, $pattern) = @_; return substr(QuantaCluster::slurp($c->node($i)->{log}), $at) =~ $pattern }

# ---- ports in use ----
my %held = map { $_ => IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $c->node(2)->{$_},
		Listen => 1, Proto => 'tcp', ReuseAddr => 1) } qw(raft replication http);
$c->copy_node(2, 1);
my $http = $c->node(1)->{http};
my $token = $c->sql(1, 'SELECT quantadb_join_token()');
$c->wait_for(sub { logged(2, qr/could not listen/i) }, 30, "a message about a port");
pass('a port in use is named in the log');
is($c->sql(2, 'SELECT 1'), '1', 'the server runs all the same');
close $_ for values %held;

# ---- a name that is taken ----
my $conf = $c->node(2)->{data} . '/node.conf';
$c->stop(2, 'fast');
QuantaCluster::append_file($conf, "quantadb.node_name = 'n1'\n");
$c->start(2);
($code, $out, $err) = $c->sql_try(2, "SELECT quantadb_join('127.0.0.1:$http', '$token')", timeout => 60);
isnt($code, 0, 'a duplicate node name is refused');
like($err, qr/name/i, 'and the error is about the name');

# ---- a token that is none, a peer that is not there ----
for my $bad ("'127.0.0.1:$http', 'rubbish'", "'127.0.0.1:1', '$token'", "'nowhere.invalid:1', '$token'", "'', ''")
{
	($code, $out, $err) = $c->sql_try(2, "SELECT quantadb_join($bad)", timeout => 60);
	isnt($code, 0, "quantadb_join($bad) is refused");
	like($err, qr/ERROR:\s+(?!XX000)\w{5}/, 'with an SQLSTATE of its own');
}
$c->stop(2, 'fast');
QuantaCluster::append_file($conf, "quantadb.node_name = 'n2'\n");

# ---- another system ----
$c->create_first(3);
$c->sql(3, 'CREATE EXTENSION quantadb; CREATE TABLE mine (x int)');
($code, $out, $err) = $c->sql_try(3, "SELECT quantadb_join('127.0.0.1:$http', '$token')", timeout => 60);
isnt($code, 0, 'a server with data of its own does not join by accident');
like($err, qr/HINT/, 'and is told what to do');
is($c->sql(3, 'SELECT count(*) FROM mine'), '0', 'its data is untouched');

# ---- a token that was used ----
$c->start(2);
($code, $out, $err) = $c->sql_try(2, "SELECT quantadb_join('127.0.0.1:$http', '$token')", timeout => 60);
$c->wait_for(sub { $c->state(2) eq 'replica' }, 60, 'n2 streams');
($code, $out, $err) = $c->sql_try(3, "SELECT quantadb_join('127.0.0.1:$http', '$token', discard_local_data => true)", timeout => 60);
like($err, qr/used or expired.*HINT:.*one use/s, 'a token that was used is refused, and the hint is about tokens');
$c->stop(2, 'fast');

# ---- a member whose Raft port somebody else has ----
$held{raft} = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $c->node(2)->{raft}, Listen => 1, Proto => 'tcp', ReuseAddr => 1)
  or die "port of n2: $!";
my $at = log_size(2);
$c->start(2);
$c->wait_for(sub { logged_since(2, $at, qr/\[raft\] could not listen on .*\n.*HINT/) }, 60, 'the log names the port');
$c->sql(2, "SELECT $_") for 1 .. 5;
my @said = substr(QuantaCluster::slurp($c->node(2)->{log}), $at) =~ /\[raft\] could not listen/g;
is(scalar(@said), 1, 'a port that stays in use is named once, not with each attempt');
close $held{raft};
$c->wait_for(sub { $c->state(2) eq 'replica' }, 60, 'n2 streams when the port is free');
$c->stop(2, 'fast');

# ---- max_wal_senders = 0 on a member ----
QuantaCluster::append_file($conf, "max_wal_senders = 0\n");
$at = log_size(2);
ok(!$c->pg_ctl(2, '-w', '-t', '60', '-l', $c->node(2)->{log}, 'start'), 'a member with max_wal_senders = 0 does not start');
ok(logged_since(2, $at, qr/max_wal_senders must not be 0.*\n.*HINT/), 'and says what to change');
QuantaCluster::append_file($conf, "max_wal_senders = 10\n");

# ---- a damaged Raft log ----
my ($raft) = grep { -f && -s } glob($c->node(2)->{data} . '/quantadb/raft/*log*');
ok($raft, 'there is a Raft log');
my $good = QuantaCluster::slurp($raft);
for my $damage (['a header of nothing' => "\0" x 64 . substr($good, 64)], ['half a file' => substr($good, 0, 100)],
	['a flipped byte' => substr($good, 0, 60) . chr(ord(substr($good, 60, 1)) ^ 1) . substr($good, 61)])
{
	my ($what, $bytes) = @$damage;
	open(my $f, '>', $raft) or die $!;
	print $f $bytes;
	close $f;
	$at = log_size(2);
	$c->start(2);
	$c->wait_for(sub { logged_since(2, $at, qr/corrupt|Raft log|is member/) }, 30, 'the log says something');
	is($c->sql(2, 'SELECT pg_is_in_recovery()'), 't', "$what in the Raft log: the server runs, as a standby");
	ok(!logged_since(2, $at, qr/terminated by signal|PANIC/), 'no worker crashes');
	$c->stop(2, 'immediate');
}
is($c->state_now(1), 'primary', 'the other node is still primary');
is($c->sql(1, "SELECT count(*) FROM quantadb_nodes WHERE role = 'voter'"), '1', 'alone it is the only voter');
$c->becomes(sub { $c->write_ok(1) }, 1, 'and takes writes');
done_testing();
