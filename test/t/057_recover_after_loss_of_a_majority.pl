# Two of three nodes are gone for good: the survivor begins a new cluster, says what may be
# lost, and lets nobody of the old one in.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 4);
$c->create_first(1);
$c->init(1);
$c->join_copy($_) for 2, 3;
$c->{n} = 3;
$c->wait_complete;
my $p = $c->primary;
my ($s, $o) = grep { $_ != $p } $c->all;
$c->sql($p, 'CREATE TABLE k (x int)');
$c->sql($p, "INSERT INTO k VALUES ($_)") for 1 .. 10;
$c->wait_replayed($_, $p) for $s, $o;
my $id = $c->status($s)->{cluster_id};
my $timeline = $c->sql($p, 'SELECT timeline FROM quantadb_status()');

# ---- where a majority can be reached ----
my ($code, undef, $err) = $c->sql_try($s, "SELECT quantadb_recover('shop')");
isnt($code, 0, 'with a majority: refused');
like($err, qr/ERROR:\s+55000.*majority of the voters can be reached.*HINT/s, 'and says why');
is($c->state_now($p), 'primary', 'nothing has changed');

# ---- the survivor lacks a commit of the two that are lost ----
my $authority = $c->node($s)->{data} . '/quantadb/keys/ca.crt';
my $old_authority = QuantaCluster::slurp($authority);
$c->stop($s, 'immediate');
$c->sql($p, 'INSERT INTO k VALUES (11)');
$c->kill_all($_) for $p, $o;
$c->start($s);
$c->wait_for(sub { $c->state($s) =~ /follower|standby/ }, 30, "n$s is there");
ok(!$c->write_ok($s), 'alone it takes no writes');
my ($out);
$c->wait_for(sub { ($code, $out, $err) = $c->sql_try($s, "SELECT quantadb_recover('shop')"); $code == 0 || $err !~ /Try again in a few/ },
	30, 'the answer of quantadb_recover()');
is($code, 0, 'the survivor recovers without any majority') or diag($err);
like($out, qr/^[0-9a-f]{8}-[0-9a-f-]{27}$/, 'the new cluster id is returned');
like($err, qr/NOTICE:.*only voter.*DETAIL:.*WAL ends at.*lost.*HINT:.*old cluster are refused/s, 'what may be lost is said, and what to do');
$c->wait_for(sub { $c->state($s) eq 'primary' && $c->write_ok($s) }, 30, "n$s takes writes");
is($c->sql($s, 'SELECT cluster FROM quantadb_status()'), 'shop', 'under the new name');
isnt(QuantaCluster::slurp($authority), $old_authority, 'with a new authority');
is($c->sql($s, "SELECT string_agg(name || ' ' || role, ',') FROM quantadb_nodes"), "n$s voter", 'as the only voter');
is($c->sql($s, 'SELECT count(*) FROM k'), '10', 'what it had is there');
cmp_ok($c->sql($s, 'SELECT timeline FROM quantadb_status()'), '>', $timeline + 1, 'on a timeline that the others cannot have');
is($c->sql($s, "SELECT node FROM quantadb_journal WHERE event = 'recover'"), "n$s", 'the journal says so');
is($c->sql($s, 'SELECT can_lose FROM quantadb_status()'), '0', 'it survives no loss');

# ---- again after a kill ----
$c->kill_all($s);
$c->start($s);
$c->wait_for(sub { $c->state($s) eq 'primary' && $c->write_ok($s) }, 30, "n$s is primary again");
pass('it stays a cluster of its own over a restart');

# ---- who was lost comes back ----
$c->start($_) for $p, $o;
my ($n, $m) = (0, 0);
$c->wait_for(sub { $c->primary ? $c->state($p) eq 'primary' || $c->state($o) eq 'primary' : 0 }, 60, 'the two find each other');
is($c->sql($s, "SELECT count(*) FROM quantadb_nodes"), '1', 'the old members are not let in');
is($c->state_now($s), 'primary', "n$s goes on");
my ($old) = grep { $c->state($_) eq 'primary' } $p, $o;
isnt($c->status($old)->{cluster_id} || 'a', $c->status($s)->{cluster_id} || 'b', 'they are another cluster');
is(($c->sql_try($s, "SELECT count(*) FROM quantadb_replication"))[1], '0', 'no stream leads there');
$c->stop($_, 'immediate') for $p, $o;

# ---- where names cannot be exchanged, and killed between the two renames ----
{
	local $ENV{QDB_NO_EXCHANGE} = 1;
	$c->start_with_killer($o, 'rename', 'raft.old');
}
$c->wait_for(sub { $c->state($o) =~ /follower|standby/ }, 60, "n$o is there");
$c->arm_killer;
my $pid = $c->postmaster($o);
$c->wait_for(sub { $c->sql_try($o, "SELECT quantadb_recover('mall')"); return !QuantaCluster::alive($pid) }, 60, "n$o dies while it recovers");
$c->await_killer($o, $pid);
my $folder = $c->node($o)->{data} . '/quantadb';
ok(!-e "$folder/raft" && -d "$folder/raft.old" && -d "$folder/raft.new", 'with no Raft folder in place');
$c->start($o);
$c->wait_for(sub { $c->state($o) eq 'primary' && $c->write_ok($o) }, 60, "n$o takes writes");
is($c->sql($o, 'SELECT cluster FROM quantadb_status()'), 'mall', 'as the new cluster');
ok(!-e "$folder/raft.old" && !-e "$folder/raft.new", 'and nothing is left over');
$c->stop($o, 'immediate');

# ---- a new member, with new data ----
$c->create_first(4);
$c->sql(4, 'CREATE EXTENSION quantadb');
($code, undef, $err) = $c->ask_join(4, $s);
ok($code == 0 || $err =~ /57P/, 'a fresh server joins') or diag($err);
$c->wait_for(sub { $c->state(4) eq 'replica' }, 60, 'n4 streams');
$c->sql($s, 'INSERT INTO k VALUES (12)');
$c->wait_replayed(4, $s);
is($c->sql(4, 'SELECT count(*) FROM k'), '11', 'and has all that the survivor has');
done_testing();
