# A wrong name, a token of another cluster, files of another version, a member that is
# another one by now: each gets a message that says what to do, and nothing is lost.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 3);
$c->create_first(1);
$c->init(1);
$c->sql(1, 'CREATE TABLE t AS SELECT generate_series(1, 100) x');
$c->join_copy(2, 1);
my $conf = $c->node(2)->{data} . '/node.conf';

sub log_since { my ($i, $at) = @_; return substr(QuantaCluster::slurp($c->node($i)->{log}), $at) }
sub log_size { return -s $c->node($_[0])->{log} || 0 }

sub crc32c
{
	my $crc = 0xffffffff;
	for my $byte (unpack('C*', $_[0]))
	{
		$crc ^= $byte;
		$crc = $crc & 1 ? ($crc >> 1) ^ 0x82f63b78 : $crc >> 1 for 1 .. 8;
	}
	return $crc ^ 0xffffffff;
}

sub put
{
	my ($path, $bytes) = @_;
	open(my $f, '+<', $path) or die "$path: $!";	# the same inode
	truncate($f, 0);
	print $f $bytes;
	close $f;
}

# Starts n2, which must not come up; what it has logged.
sub refused_start
{
	my $at = log_size(2);
	my $started = $c->pg_ctl(2, '-w', '-t', '60', '-l', $c->node(2)->{log}, 'start');
	$c->stop(2, 'immediate') if $started;
	return $started ? 'it started' : log_since(2, $at);
}

# ---- names ----
$c->stop(2, 'fast');
my $settings = QuantaCluster::slurp($conf);
for my $bad ('a/b', 'x' x 100, "tab\there")
{
	put($conf, "$settings\nquantadb.node_name = '$bad'\n");
	my $at = log_size(2);
	$c->start(2);
	like(log_since(2, $at), qr/invalid value for parameter "quantadb.node_name".*\n.*DETAIL:.*node name has at most/,
		'a name that is none: ' . substr($bad, 0, 10));
	$c->stop(2, 'fast');
}
put($conf, "$settings\nquantadb.node_name = 'another'\n");
my $at = log_size(2);
$c->start(2);
$c->wait_for(sub { $c->state(2) eq 'replica' }, 60, 'a member with another name in its settings streams');
is($c->sql(2, 'SELECT node FROM quantadb_status()'), 'n2', 'under the name that it has joined with');
like(log_since(2, $at), qr/node_name "another" is ignored: this member is "n2".*\n.*HINT:/, 'and says so');
put($conf, $settings);

# ---- files of another version ----
my $identity = $c->node(2)->{data} . '/quantadb/identity';
$c->stop(2, 'fast');
my $good = QuantaCluster::slurp($identity);
(my $other = $good) =~ s/^format=\d+/format=99/;
$other =~ s/crc=[0-9a-f]{8}\n\z//;
put($identity, $other . sprintf("crc=%08x\n", crc32c($other)));
like(refused_start(), qr/FATAL: .*identity" has format 99, this version of quantadb reads.*\n.*HINT:.*[Ii]nstall/,
	'an identity of another version is no damaged one');
put($identity, substr($good, 0, 40));
like(refused_start(), qr/FATAL: .*identity" is damaged\n.*HINT:.*join/, 'a damaged one is');
put($identity, $good);
for my $name (qw(raft.log raft.meta))
{
	my $path = $c->node(2)->{data} . "/quantadb/raft/$name";
	my $bytes = QuantaCluster::slurp($path);
	put($path, substr($bytes, 0, 4) . pack('V', 99) . substr($bytes, 8));
	$at = log_size(2);
	$c->start(2);
	$c->wait_for(sub { log_since(2, $at) =~ /format 99, this version knows/ }, 60, "$name of another version is named");
	is($c->sql(2, 'SELECT count(*) FROM t'), '100', 'the server runs, for reads');
	isnt(($c->sql_try(2, 'INSERT INTO t VALUES (0)'))[0], 0, 'and takes no writes');
	unlike(log_since(2, $at), qr/PANIC|terminated by signal/, 'no worker crashes');
	$c->stop(2, 'immediate');
	put($path, $bytes);
}
my $ca = $c->node(2)->{data} . '/quantadb/keys/ca.crt';
rename($ca, "$ca.away") or die "rename: $!";
$at = log_size(2);
$c->start(2);
$c->wait_for(sub { log_since(2, $at) =~ /there is no HTTPS: could not open file ".*ca\.crt": No such file/ }, 60,
	'a lost certificate of the authority is named');
$c->stop(2, 'immediate');
rename("$ca.away", $ca) or die "rename: $!";
$c->start(2);
$c->wait_for(sub { $c->state(2) eq 'replica' }, 60, 'with its own files it streams again');

# ---- another cluster ----
$c->create_first(3);
$c->sql(3, 'CREATE EXTENSION quantadb');
$c->sql(3, "SELECT quantadb_init('other')");
$c->wait_for(sub { $c->state(3) eq 'primary' }, 60, 'another cluster');
my $token = $c->sql(3, 'SELECT quantadb_join_token()');
my ($code, $out, $err) = $c->ask_join(3, 1);
isnt($code, 0, 'a member joins no other cluster');
like($err, qr/ERROR: +55000.*member/s, 'since it is a member');
$c->stop(2, 'fast');
rename($c->node(2)->{data} . '/quantadb', $c->node(2)->{data} . '.quantadb') or die "rename: $!";
$c->start(2);
($code, $out, $err) = $c->ask_join(2, 1, token => $token);
isnt($code, 0, 'a token of another cluster is refused');
like($err, qr/ERROR: +22023.*not of the cluster that the token is for.*HINT: .*quantadb_join_token/s, 'as one');
is($c->state_now(1), 'primary', 'n1 goes on');
is($c->state_now(3), 'primary', 'so does the other one');

# ---- a member that is another one by now ----
($code, $out, $err) = $c->ask_join(2, 1);
like($err, qr/ERROR: +(?!XX000)\w{5}.*n2/s, 'the name of a member that is only gone is taken');
$at = log_size(1);
$c->stop(2, 'fast');
rename($c->node(2)->{data} . '.quantadb', $c->node(2)->{data} . '/quantadb') or die "rename: $!";
$c->start(2);
$c->wait_for(sub { $c->state(2) eq 'replica' }, 60, 'with its own identity it is back');
unlike(log_since(1, $at), qr/Refused node/, 'and not refused');
done_testing();
