# Strangers that make whole handshakes and guess tokens, many at a time, neither slow the cluster
# nor take the place of one that has a token; and a token is used up before anything is issued for it.
use strict;
use warnings;
use FindBin;
use IPC::Run;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $c = QuantaCluster->new(n => 4);
$c->create_first(1);
$c->init(1);
$c->join_copy($_) for 2, 3;
$c->wait_for(sub { $c->sql(1, 'SELECT can_lose FROM quantadb_status()') eq '1' }, 60, 'three voters');
$c->sql(1, 'CREATE TABLE t (x int)');
$c->copy_node(4, 1);

# ---- a JOIN as any server sends it, of a node that nobody knows, with a token that nobody made ----
sub crc32c
{
	my ($bytes) = @_;
	my $crc = 0xffffffff;
	for my $byte (unpack('C*', $bytes))
	{
		$crc ^= $byte;
		$crc = $crc & 1 ? ($crc >> 1) ^ 0x82f63b78 : $crc >> 1 for 1 .. 8;
	}
	return $crc ^ 0xffffffff;
}
sub join_frame
{
	my ($name, $token) = @_;
	my $join = QuantaCluster::slurp("$FindBin::Bin/../fuzz/corpus/join/join");
	$join =~ s/\x02\x00n2/pack('v', length $name) . $name/e or die 'the corpus has changed';
	substr($join, -20) = pack('V5', (100000) x 5);	# limits that suffice
	my ($id, $secret) = $token =~ /^qdbjoin\.([0-9a-f]{16})\.([0-9a-f]{32})\./ or die "token $token";
	substr($join, 8, 24) = reverse(pack('H*', $id)) . pack('H*', $secret);
	my $header = 'QDB1' . pack('CCvV', 1, 6, 0, length $join);	# version, QDB_FRAME_JOIN
	my $file = "$c->{dir}/frame_$name";
	unlink $file;
	QuantaCluster::append_file($file, $header . pack('V', crc32c($header . $join)) . $join);
	return $file;
}
my $flood = "$c->{dir}/join_flood";
QuantaCluster::run_ok('gcc', '-O1', '-o', $flood, "$FindBin::Bin/../lib/join_flood.c", '-lssl', '-lcrypto', '-lpthread');

# What node $i answers.
sub answer
{
	my ($i, $name, $token) = @_;
	my $out = '';
	IPC::Run::run([ $flood, '127.0.0.1', $c->node($i)->{raft}, join_frame($name, $token), 0, 1 ], '<', \undef, '>', \$out);
	return $out;
}
my $unknown = qr/token is unknown, used or expired/;
my $guess = 'qdbjoin.' . '1' x 16 . '.' . '2' x 32 . '.';
like(answer(1, 'xx', $guess), $unknown, 'a guess is refused');

# ---- commits a second, and how long the slowest took ----
my $n = 0;
sub rate
{
	my ($seconds) = @_;
	my ($done, $slowest, $began) = (0, 0, time);
	while (time - $began < $seconds || $done < 20)
	{
		my $at = time;
		$c->sql(1, 'INSERT INTO t VALUES (' . ++$n . ')');
		$slowest = time - $at if time - $at > $slowest;
		$done++;
	}
	return sprintf('%.1f commits/s in sessions of their own, slowest %.0f ms', $done / (time - $began), 1000 * $slowest);
}
note('alone: ' . rate(2));
my $index = sub { return $c->sql(1, 'SELECT raft_last_index FROM quantadb_status()') };
my $epoch = $c->sql(1, 'SELECT epoch FROM quantadb_status()');
my $before = $index->();

# Forty stand open at any time, which is more than are let wait at once.
my $guessed = '';
my $run = IPC::Run::start([ $flood, '127.0.0.1', $c->node(1)->{raft}, join_frame('xx', $guess), 4, 10 ], '<', \undef, '>', \$guessed);
my $guesses = sub { $run->pump_nb; return $guessed =~ /(\d+)\n\z/ ? $1 : 0 };
$c->wait_for(sub { $guesses->() >= 200 }, 120, 'guesses');
note('while tokens are guessed: ' . rate(2));
my $during = $guesses->();

# ---- who has a token comes in ----
my $token = $c->sql(1, "SELECT quantadb_join_token('replica')");
my $http = $c->node(1)->{http};
my ($code, $out, $err, $tries) = (1, '', '', 0);
$c->wait_for(sub {
	$tries++;
	($code, $out, $err) = $c->sql_try(4, "SELECT quantadb_join('127.0.0.1:$http', '$token')", timeout => 120);
	return $err !~ /08006/; }, 120, 'a join goes through');
unlike($err, qr/ERROR: +(?!57P)/, "a join goes through, in attempt $tries");
$c->wait_for(sub { $c->state(4) eq 'replica' }, 60, 'n4 streams');
$c->wait_for(sub { $guesses->() >= $during + 200 }, 120, 'guesses go on');
$c->sql(1, 'INSERT INTO t VALUES (0)');
$run->kill_kill(grace => 0);
note("guesses: $during and more");
is($c->sql(1, 'SELECT epoch FROM quantadb_status()'), $epoch, 'there was no failover');
$c->sql_becomes(1, 'SELECT count(*) FROM quantadb_nodes WHERE connected', '4', 'all members are connected');
cmp_ok($index->() - $before, '<', 200, 'no guess came into the Raft log');

# ---- without a majority nothing is issued; killed there, the token has one use all the same ----
$token = $c->sql(1, "SELECT quantadb_join_token('replica')");
like(answer(1, 'yy', $token), qr/BEGIN CERTIFICATE/, 'a good token is answered with a certificate');
like(answer(1, 'zz', $token), $unknown, 'once');
$token = $c->sql(1, "SELECT quantadb_join_token('replica')");
my $least = $index->();
$c->sql_becomes($_, "SELECT raft_last_index >= $least FROM quantadb_status()", 't', "n$_ has it") for 2, 3;
my ($say, $heard) = ('', '');
my $asking = IPC::Run::start([ $flood, '127.0.0.1', $c->node(1)->{raft}, join_frame('xx', $token), 0, 1 ], '<', \$say, '>', \$heard);
$c->wait_for(sub { $asking->pump_nb; $heard =~ /ready/ }, 60, 'a handshake');
$c->freeze($_) for 2 .. 4;
$say = 'x';
# It stays uncommitted until the leader gives up, or hangs up.
$c->wait_for(sub { eval { $asking->pump_nb }; $heard =~ /ready\n./ || !$asking->pumpable }, 60, 'no majority');
$c->kill_all(1);
eval { $asking->finish };
unlike($heard, qr/CERTIFICATE/, 'nothing was issued before a majority had it');
$c->thaw($_) for 2 .. 4;
my $p;
$c->wait_for(sub { ($p) = grep { $c->state($_) eq 'primary' } 2, 3; $p }, 60, 'a new primary');
$c->wait_for(sub { $c->write_ok($p) }, 60, 'takes writes');
my $there = sub { return $c->sql($p, q{SELECT count(*) FROM quantadb_nodes WHERE name IN ('xx', 'zz')}) };
my $kept = $there->();
note($kept ? 'the survivors had it' : 'it was lost with its node');
like(answer($p, 'zz', $token), $kept ? $unknown : qr/BEGIN CERTIFICATE/, $kept ? 'the token is used up' : 'the token is good still');
like(answer($p, 'ww', $token), $unknown, 'and lets in no second one');
is($there->(), '1', 'one node has come in with it');
done_testing();
