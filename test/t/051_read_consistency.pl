# What a read may miss: session reads wait for the position they were given, strict
# reads miss nothing on any node and refuse rather than answer when they cannot know,
# and a replica that is too far behind refuses.
use strict;
use warnings;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $c = QuantaCluster->new_cluster(n => 3, conf => "quantadb.read_timeout = '60s'\n");
my $p = $c->primary;
my ($r, $s) = grep { $_ != $p } $c->all;
$c->sql($p, 'CREATE TABLE t (x int)');
$c->wait_replayed($_, $p) for $r, $s;

sub pause_replay
{
	my ($i) = @_;
	$c->sql($i, 'SELECT pg_wal_replay_pause()');
	$c->wait_for(sub { $c->sql($i, 'SELECT pg_get_wal_replay_pause_state()') eq 'paused' }, 10, "n$i stands still");
}

# ---- session ----
my $lsn = $c->sql($p, 'INSERT INTO t VALUES (1); SELECT quantadb_last_commit_lsn()');
is($c->sql($r, "SET quantadb.read_consistency = session; SET quantadb.min_lsn = '$lsn'; SELECT count(*) FROM t"), '1',
	'a session read shows what min_lsn names');
pause_replay($r);
$lsn = $c->sql($p, 'INSERT INTO t VALUES (2); SELECT quantadb_last_commit_lsn()');
is($c->sql($p, "SELECT quantadb_last_commit_lsn() >= '$lsn'"), 't', 'a session without a commit gets what was acknowledged');
is($c->sql($r, 'SELECT count(*) FROM t'), '1', 'an eventual read is stale');
is($c->sql($r, "SELECT quantadb_wait_for_lsn('$lsn', '200ms')"), 'f', 'quantadb_wait_for_lsn says so');
my $session = "SET quantadb.read_timeout = '300ms'; SET quantadb.read_consistency = session; SET quantadb.min_lsn = '$lsn';";
my ($code, $out, $err) = $c->sql_try($r, "$session SELECT count(*) FROM t");
isnt($code, 0, 'a session read does not answer early');
like($err, qr/55000.*HINT: .*"n$p"/s, 'it ends with an SQLSTATE and a hint that names the primary');

# ---- strict ----
my $strict = 'SET quantadb.read_consistency = strict;';
($code, $out, $err) = $c->sql_try($r, "$strict SET quantadb.read_timeout = '500ms'; SELECT count(*) FROM t");
isnt($code, 0, 'nor does a strict one while replay stands still');
like($err, qr/55000/, 'and says so');
$c->sql($r, 'SELECT pg_wal_replay_resume()');

my $wrong = 0;
for my $n (3 .. 40)
{
	$c->sql($p, "INSERT INTO t VALUES ($n)");
	for my $i ($r, $s, $p) { $wrong++ if $c->sql($i, "$strict SELECT max(x) FROM t") != $n }
}
is($wrong, 0, 'strict reads on all nodes show every acknowledged row at once');
$c->sql($p, 'INSERT INTO t VALUES (41)');
is($c->sql($r, "$strict BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT max(x) FROM t; COMMIT"), '41',
	'a transaction with one snapshot takes it when it begins');
is($c->sql($r, "$strict BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT max(x) FROM t; COMMIT"), '41',
	'or when it is told its isolation level');
($code, $out, $err) = $c->sql_try($r, "SET default_transaction_isolation = 'repeatable read'; $strict SELECT max(x) FROM t");
like($err, qr/40001.*BEGIN/s, 'where that cannot be it says what to do');
is($c->sql($r, "$strict COPY (SELECT max(x) FROM t) TO STDOUT"), '41', 'COPY keeps the promise too');
is($c->sql($r, "$strict DO \$\$ BEGIN PERFORM max(x) FROM t; END \$\$; SELECT 1"), '1', 'queries in functions as well');

# ---- a replica that is too far behind ----
is($c->sql($s, 'SHOW quantadb.max_replica_lag'), 'off', 'max_replica_lag is off by default');
for my $bad ('5', 'x', '-1s', '5 parsecs')
{
	($code, $out, $err) = $c->sql_try($s, "SET quantadb.max_replica_lag = '$bad'");
	like($err, qr/22023/, "max_replica_lag = $bad is refused");
}
$c->sql($s, "ALTER SYSTEM SET quantadb.max_replica_lag = '1MB'");
$c->sql($s, 'SELECT pg_reload_conf()');
$c->wait_for(sub { $c->sql($s, 'SHOW quantadb.max_replica_lag') ne 'off' }, 10, 'the limit is set');
$c->wait_replayed($s, $p);
$c->becomes(sub { ($c->sql_try($s, 'SELECT max(x) FROM t'))[1] }, '41', 'a replica within its limit answers');
pause_replay($s);
$c->sql($p, "INSERT INTO t SELECT -g FROM generate_series(1, 50000) g");
$c->wait_for(sub { ($code, $out, $err) = $c->sql_try($s, 'SELECT max(x) FROM t'); $err =~ /55000/ }, 10, 'it refuses');
like($err, qr/55000.*too far behind.*bytes.*HINT: .*"n$p"/s, 'with its lag and where to go');
$c->wait_for(sub { ($c->http($s, '/replica'))[0] == 503 }, 10, '/replica answers 503');
cmp_ok($c->sql($s, 'SELECT count(*) FROM quantadb_nodes'), '==', 3, 'the views still answer');
$c->sql($s, 'SELECT pg_wal_replay_resume()');
$c->wait_for(sub { ($code) = $c->sql_try($s, 'SELECT max(x) FROM t'); $code == 0 }, 30, 'it answers again');
$c->wait_for(sub { ($c->http($s, '/replica'))[0] == 200 }, 10, '/replica too');
$c->sql($s, "ALTER SYSTEM SET quantadb.max_replica_lag = '600ms'");
$c->sql($s, 'SELECT pg_reload_conf()');
$c->wait_for(sub { $c->sql($s, 'SHOW quantadb.max_replica_lag') eq '600ms' }, 10, 'the limit is set');
$c->wait_for(sub { ($code) = $c->sql_try($s, 'SELECT max(x) FROM t'); $code == 0 }, 10, 'a duration is a limit too');
pause_replay($s);
$c->sql($p, 'INSERT INTO t VALUES (42)');
$c->wait_for(sub { ($code, $out, $err) = $c->sql_try($s, 'SELECT max(x) FROM t'); $err =~ /55000/ }, 10, 'it refuses after that time');
like($err, qr/55000/, 'with the same SQLSTATE');
$c->sql($s, 'SELECT pg_wal_replay_resume()');

# ---- nobody to ask; a failover would be quicker than the second kill ----
$c->sql($p, 'SELECT quantadb_pause()');
$c->wait_for(sub { $c->sql($r, 'SELECT paused FROM quantadb_status()') eq 't' }, 60, "n$r knows of the pause");
$c->wait_replayed($r, $p);
$c->kill_all($p);
$c->kill_all($s);
($code, $out, $err) = $c->sql_try($r, "$strict SET quantadb.read_timeout = '1s'; SELECT max(x) FROM t");
isnt($code, 0, 'a replica alone answers no strict read');
($code, $out) = $c->sql_try($r, 'SELECT max(x) FROM t');
is("$code|$out", '0|42', 'but eventual ones');
done_testing();
