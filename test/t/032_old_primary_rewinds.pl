# A killed primary with commits of its own that nobody else has comes back by itself, in one
# rewind: its data are the others' again, and what it had is reported as lost.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3, conf => "allow_in_place_tablespaces = on\n");
my $old = $c->primary;
$c->sql($old, 'CREATE EXTENSION amcheck');
$c->sql($old, q(
	CREATE TABLE kept (id int PRIMARY KEY, v text);
	INSERT INTO kept SELECT g, repeat(md5(g::text), 10) FROM generate_series(1, 20000) g;
	CREATE TABLE cut AS SELECT g, repeat('x', 500) AS v FROM generate_series(1, 5000) g;
	CREATE TABLE gone (x int); INSERT INTO gone SELECT generate_series(1, 1000);
	CREATE UNLOGGED TABLE fleeting AS SELECT generate_series(1, 100) AS x;
	CREATE SEQUENCE seq;
	VACUUM kept;));
$c->sql($old, "CREATE TABLESPACE space LOCATION ''");
$c->sql($old, 'CREATE TABLE in_space TABLESPACE space AS SELECT g FROM generate_series(1, 1000) g');
$c->sql($old, 'CREATE DATABASE shared_db');
$c->wait_replayed($_, $old) for grep { $_ != $old } $c->all;

my $new = $c->diverge($old,
	'UPDATE kept SET v = \'lost\' WHERE id % 3 = 0',
	'INSERT INTO kept SELECT g, \'lost\' FROM generate_series(30000, 60000) g',
	'DELETE FROM cut WHERE g > 100', 'VACUUM cut',
	'INSERT INTO cut SELECT g, repeat(\'y\', 500) FROM generate_series(1, 3000) g',
	'DROP TABLE gone', 'CREATE TABLE dead AS SELECT generate_series(1, 5000) AS x',
	'CREATE DATABASE dead_db', 'DROP DATABASE shared_db',
	'CREATE TABLESPACE dead_space LOCATION \'\'',
	'CREATE TABLE dead_in_space TABLESPACE dead_space AS SELECT generate_series(1, 10) AS x',
	'UPDATE in_space SET g = -g', 'SELECT nextval(\'seq\') FROM generate_series(1, 1000)',
	'CREATE UNLOGGED TABLE dead_fleeting AS SELECT generate_series(1, 100) AS x',
	'VACUUM FULL kept', 'CHECKPOINT',
	'UPDATE kept SET v = \'lost again\' WHERE id % 5 = 0');
# The same numbers of relations and databases, with other content.
$c->sql($new, $_) for
	'CREATE TABLE alive AS SELECT generate_series(1, 3000) AS x', 'CREATE DATABASE alive_db',
	'UPDATE kept SET v = \'alive\' WHERE id % 7 = 0', 'INSERT INTO cut SELECT g, \'alive\' FROM generate_series(1, 100) g';

$c->start($old);
my $postmaster = $c->postmaster($old);
$c->wait_for(sub { $c->state($old) eq 'replica' }, 120, "n$old streams again");
is($c->postmaster($old), $postmaster, 'in the same postmaster');
my $events = "SELECT string_agg(event, ' ' ORDER BY number) FROM quantadb_journal WHERE node = 'n$old' AND event ~ 'rewind|clone'";
$c->wait_for(sub { $c->sql($new, $events) =~ /done/ }, 30, 'the journal tells of it');
is($c->sql($new, $events), 'rewind_due rewind_done', 'after one rewind');
$c->wait_replayed($old, $new);
is($c->fingerprint($old), $c->fingerprint($new), 'its tables are the primary\'s');
unlike($c->fingerprint($old), qr/dead/, 'and no others');
is($c->sql($old, "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate"),
	'alive_db postgres shared_db', 'so are its databases');
is($c->sql($old, "SELECT count(*) FROM kept WHERE v = 'lost again'"), '0', 'what was lost does not show');
is($c->amcheck($old), '', 'amcheck finds nothing');
is($c->sql($old, 'SELECT transactions > 10 AND saved_bytes > 0 FROM quantadb_lost_writes'), 't',
	'what was lost is reported');
like($c->sql($old, 'SELECT relations FROM quantadb_lost_writes'), qr/INSERT \d+/, 'with what it did to relations');

# It can hold the seat again, and diverge again.
$c->sql($new, 'CHECKPOINT');
my $third = $c->diverge($new, 'UPDATE kept SET v = \'lost twice\' WHERE id % 2 = 0');
$c->start($new);
$c->wait_for(sub { $c->state($new) eq 'replica' }, 120, "n$new streams again");
$c->wait_complete(60);
for my $i (grep { $_ != $third } $c->all)
{
	$c->wait_replayed($i, $third);
	is($c->fingerprint($i), $c->fingerprint($third), "n$i has the same tables");
	is($c->amcheck($i), '', "amcheck finds nothing on n$i");
}
my ($code, $out, $err) = $c->psql_rw('INSERT INTO fleeting VALUES (1)');
is($code, 0, 'unlogged tables work');
done_testing();
