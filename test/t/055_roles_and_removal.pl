# A replica serves reads and does not vote; a removed member stops, says so, and may come
# back with a new token; whatever was asked for is true when the call returns.
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
$c->{n} = 4;

sub role { my ($i, $on) = @_; return $c->sql($on || $c->await_primary, "SELECT role FROM quantadb_nodes WHERE name = 'n$i'") }
sub can_lose { return $c->sql($c->await_primary, 'SELECT can_lose FROM quantadb_status()') }
sub refused
{
	my ($i, $query, $state, $text, $name) = @_;
	my ($code, $out, $err) = $c->sql_try($i, $query, timeout => 120);
	isnt($code, 0, "$name: refused");
	like($err, qr/ERROR:\s+$state\b/, "$name: SQLSTATE $state");
	like($err, $text, "$name: says why, and what helps");
}

my $p = $c->primary;
my ($t, $o) = grep { $_ != $p } 1 .. 3;
$c->sql($p, 'CREATE TABLE r (x int); INSERT INTO r VALUES (1)');

# ---- what cannot be ----
refused($o, "SELECT quantadb_remove('n9')", '42704', qr/does not exist.*HINT/s, 'an unknown node');
refused($t, "SELECT quantadb_remove('n$p')", '55000', qr/is the primary.*HINT: +Switch over first: quantadb_promote/s, 'the primary');
refused($t, "SELECT quantadb_set_role('n$p', 'replica')", '55000', qr/is the primary/, 'a primary without a vote');
refused($p, "SELECT quantadb_set_role('n$t', 'king')", '22023', qr/voter.*replica/, 'a role that is none');

# ---- a replica ----
my (undef, undef, $err) = $c->sql_try($t, "SELECT quantadb_set_role('n$o', 'replica')");
like($err, qr/WARNING:.*2 voters, which survive the loss of 0, as 1 would/, 'an even number is told');
is(role($o), 'replica', 'it is a replica when the call returns');
is(can_lose(), '0', 'two voters survive no loss, and the cluster says so');
$c->sql_becomes($p, "SELECT why_not FROM quantadb_nodes WHERE name = 'n$o'", qr/is no voter/, 'nor can it be primary');
$c->sql($p, 'INSERT INTO r VALUES (2)');
$c->wait_replayed($o, $p);
is($c->sql($o, 'SELECT count(*) FROM r'), '2', 'it serves reads');
$c->becomes(sub { ($c->http($o, '/replica'))[0] }, 200, 'and its health says so');
refused($t, "SELECT quantadb_promote('n$o')", '55000', qr/no voter but a replica/, 'a replica as primary');
# It counts for nothing: without the other voter no commit gets through.
$c->stop($t, 'immediate');
my ($code) = $c->sql_try($p, "SET statement_timeout = '2s'; INSERT INTO r VALUES (3)", timeout => 5);
isnt($code, 0, 'its ack acknowledges no commit');
$c->start($t);
$c->wait_for(sub { $c->primary && $c->state($t) =~ /replica|primary/ }, 60, 'both voters are back');

# ---- a voter again, asked of the replica itself ----
($code, undef, $err) = $c->sql_try($o, "SELECT quantadb_set_role('n$o', 'voter')", timeout => 120);
is($code, 0, 'a replica asks to vote') or diag($err);
unlike($err, qr/WARNING.*voters/, 'three is no even number');
$c->wait_for(sub { $c->primary && role($o) eq 'voter' && can_lose() == 1 }, 60, 'three voters again');
pass('it votes again');

# ---- removal of a voter that lives ----
$p = $c->primary;
($t, $o) = grep { $_ != $p } 1 .. 3;
my $id = $c->sql($p, "SELECT raft_leader FROM quantadb_status()");
($code, undef, $err) = $c->sql_try($p, "SELECT quantadb_remove('n$o')", timeout => 120);
is($code, 0, 'a voter is removed') or diag($err);
is($c->sql($p, 'SELECT string_agg(name, \',\' ORDER BY name) FROM quantadb_nodes'), join(',', sort map { "n$_" } $p, $t),
	'it is gone when the call returns');
$c->wait_for(sub { $c->sql($o, 'SELECT why_not FROM quantadb_status()') eq 'it was removed from the cluster' }, 30, "n$o says so");
$c->becomes(sub { $c->state($o) }, 'standby', 'the removed node is a standby');
like(QuantaCluster::slurp($c->node($o)->{log}), qr/This node was removed from the cluster/, 'and its log says why');
$c->becomes(sub { ($c->http($o, '/replica'))[0] }, 503, 'no health check takes it for a replica');
is(($c->http($o, '/primary'))[0], 503, 'nor for a primary');
ok(!$c->write_ok($o), 'nobody writes to it');
$c->sql($p, 'INSERT INTO r VALUES (4)');
$c->sql_becomes($p, "SELECT count(*) FROM quantadb_replication WHERE node IS NULL OR node = 'n$o'", '0', 'no stream leads to it');
refused($o, "SELECT quantadb_remove('n$t')", '55000', qr/was removed from the cluster.*HINT.*quantadb_join/s, 'what a removed node asks for');
$c->stop($o, 'fast');
$c->start($o);
$c->wait_for(sub { $c->state($o) eq 'standby' }, 30, 'a standby after a restart too');
my $at = -s $c->node($o)->{log};
$c->pg_ctl($o, '-W', 'promote');
ok(!$c->write_ok($o), 'pg_ctl promote does not make it writable');
$c->wait_for(
	sub {
		substr(QuantaCluster::slurp($c->node($o)->{log}), $at) =~ /recovery complete.*removed from the cluster.*accept read-only connections/s
		  && ($c->sql_try($o, 'SELECT pg_is_in_recovery()'))[1] eq 't';
	},
	60, 'it is a standby again');

# ---- and back, under a new id ----
my $token = $c->sql($p, 'SELECT quantadb_join_token()');
my $http = $c->node($p)->{http};
($code, undef, $err) = $c->sql_try($o, "SELECT quantadb_join('127.0.0.1:$http', '$token')", timeout => 120);
ok($code == 0 || $err =~ /57P/, 'it joins with a new token') or diag($err);
$c->wait_for(sub { $c->state($o) eq 'replica' }, 90, "n$o streams again");
$c->wait_for(sub { role($o, $p) eq 'voter' && can_lose() == 1 }, 60, "n$o votes again");
$c->wait_replayed($o, $p);
is($c->sql($o, 'SELECT count(*) FROM r WHERE x IN (1, 2, 4)'), '3', 'with all rows');

# ---- removal of one that is dead; it hears of it when it starts ----
$c->kill_all($o);
($code, undef, $err) = $c->sql_try($t, "SELECT quantadb_remove('n$o')", timeout => 120);
is($code, 0, 'a dead node is removed') or diag($err);
like($err, qr/WARNING:.*2 voters/, 'with the warning');
$c->sql($p, 'INSERT INTO r VALUES (5)');
pass('the rest goes on');
$c->start($o);
$c->wait_for(sub { $c->sql($o, 'SELECT why_not FROM quantadb_status()') eq 'it was removed from the cluster' }, 30, "n$o learns of it");
pass('the dead node learns of it when it starts');

# ---- one of the last two goes: the one that stays is its own majority ----
($code, undef, $err) = $c->sql_try($t, "SELECT quantadb_remove('n$t')", timeout => 120);
ok($code == 0 || $err =~ /57P/, 'a node removes itself') or diag($err);
$c->wait_for(sub { $c->sql($p, "SELECT count(*) FROM quantadb_nodes") eq '1' }, 30, 'one is left');
$c->becomes(sub { $c->write_ok($p) }, 1, 'and takes writes alone');
refused($p, "SELECT quantadb_remove('n$p')", '55000', qr/last voter/, 'the last voter');
done_testing();
