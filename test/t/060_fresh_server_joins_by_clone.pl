# A fresh server joins with one call: its data is replaced by the primary's, it becomes a
# voter, and its commits count.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 3);
$c->create_first(1);
$c->sql(1, q{CREATE TABLE before (x int PRIMARY KEY, t text);
	INSERT INTO before SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g;
	CREATE UNLOGGED TABLE scratch AS SELECT generate_series(1, 1000) x;
	CREATE DATABASE other});
$c->init(1);

# Own data is not dropped unless told.
$c->create_first(2);
$c->sql(2, 'CREATE EXTENSION quantadb; CREATE TABLE mine (x int)');
my ($code, $out, $err) = $c->ask_join(2, 1, keep => 1);
isnt($code, 0, 'a server with user tables does not join by accident');
like($err, qr/user tables.*discard_local_data => true/s, 'the hint says how it would');
is($c->sql(2, 'SELECT count(*) FROM mine'), '0', 'its data is there');

# The question runs nothing that others have put into the superuser's path.
$c->sql(2, q{CREATE FUNCTION trap(oid, int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''trapped''; END';
	CREATE OPERATOR >= (LEFTARG = oid, RIGHTARG = int, FUNCTION = trap)});
($code, $out, $err) = $c->ask_join(2, 1, keep => 1);
like($err, qr/user tables/, 'and asks with nobody else\'s operators');

# Nor where they are in a database that the call is not made in.
$c->sql(2, 'CREATE DATABASE app');
my $app = $c->conninfo(2) =~ s/dbname=postgres/dbname=app/r;
my $peer = '127.0.0.1:' . $c->node(1)->{http};
my $unused = $c->sql(1, 'SELECT quantadb_join_token()');
($code, $out, $err) = QuantaCluster::psql($app, "CREATE EXTENSION quantadb; SELECT quantadb_join('$peer', '$unused')");
like($err, qr/55000.*user tables/s, 'nor where they are in another database');
$c->sql(2, 'DROP TABLE mine');
($code, $out, $err) = $c->ask_join(2, 1, token => $unused, keep => 1);
like($err, qr/55000.*user tables/s, 'an empty database more counts as data too');
$c->sql(2, 'CREATE TABLE mine (x int)');

# Refusals leave the server as it was.
my ($bad, undef, $why) = $c->ask_join(2, 1, token => '1234.' . 'ab' x 16);
isnt($bad, 0, 'a wrong token is refused');
is($c->sql(2, 'SELECT state FROM quantadb_status()'), 'inert', 'and the server is no member');
($bad, undef, $why) = $c->ask_join(2, 1, http => 1);
like($why, qr/08006|could not ask/, 'an unreachable peer is named');

$c->join_fresh(2, 1);
is($c->sql(2, 'SELECT count(*) FROM before'), '20000', 'the data is the primary\'s');
is($c->sql(2, q{SELECT count(*) FROM pg_class WHERE relname = 'mine'}), '0', 'its own is gone');
is($c->sql(2, q{SELECT count(*) FROM pg_database WHERE datname = 'other'}), '1', 'other databases came too');
is($c->sql(2, 'SHOW port'), $c->node(2)->{sql}, 'it keeps its configuration');
$c->join_fresh(3, 1);
$c->wait_complete;
$c->sql(1, 'CREATE TABLE after (x int); INSERT INTO after SELECT generate_series(1, 100)');
for my $i (2, 3)
{
	$c->wait_replayed($i, 1);
	is($c->sql($i, 'SELECT count(*) FROM after'), '100', "n$i streams");
}
my $journal = $c->sql(1, q{SELECT string_agg(event || ' ' || node, ', ' ORDER BY number) FROM quantadb_journal WHERE event LIKE 'clone%'});
like($journal, qr/clone n2, clone_done n2/, 'the journal tells it');
$c->wait_for(sub { !-e $c->node(2)->{data} . '/quantadb/stage' }, 30, 'what was left is removed');

# A clone is a full member: it takes over.
$c->kill_all(1);
$c->wait_for(sub { ($c->psql_rw('INSERT INTO after VALUES (0)'))[0] == 0 }, 60, 'a clone takes over');
my $p = $c->await_primary;
isnt($p, 1, "n$p is primary");
is($c->sql($p, 'SELECT count(*) FROM before'), '20000', 'with all data');
done_testing();
