# Relations of more than one segment file, changed in the first, in the second, and cut back to the
# first on the dead branch; temporary and unlogged relations beside them.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $old = $c->primary;
$c->sql($old, 'CREATE EXTENSION amcheck');
for my $table (qw(big shrinks))
{
	$c->sql($old, "CREATE TABLE $table (id int, v text) WITH (autovacuum_enabled = off)");
	$c->sql($old, "INSERT INTO $table SELECT g, repeat('a', 500) FROM generate_series(1, 2000) g");
}
$c->sql($old, 'CREATE UNLOGGED TABLE fleeting AS SELECT generate_series(1, 1000) AS x');
$c->wait_replayed($_, $old) for $c->all_but($old);
$c->sql($_, 'CHECKPOINT') for $c->all;
# Empty pages up to the end of the first segment, the same on all nodes: two files at once.
my @files = map { $c->sql($old, "SELECT pg_relation_filepath('$_')") } qw(big shrinks);
my @nodes = $c->all;
$c->stop($_, 'immediate') for @nodes;
for my $i (@nodes)
{
	for my $file (@files)
	{
		my $path = $c->node($i)->{data} . "/$file";
		truncate($path, 1 << 30) or die "$path: $!";
		QuantaCluster::append_file("$path.1", "\0" x (8192 * 20));
	}
	$c->give_to_owner($i);
}
$c->start($_) for @nodes;
$c->wait_complete(90);
$old = $c->primary;
$c->sql($old, "INSERT INTO $_ SELECT g, repeat('b', 500) FROM generate_series(10000, 12000) g") for qw(big shrinks);
cmp_ok($c->sql($old, "SELECT pg_relation_size('big')"), '>', 1 << 30, 'two segments');
cmp_ok($c->sql($old, "SELECT count(*) FROM big WHERE (ctid::text::point)[0] >= 131072"), '>', 0, 'with rows in the second');
$c->wait_replayed($_, $old) for $c->all_but($old);

my $new = $c->diverge($old,
	'CREATE TEMP TABLE passing AS SELECT generate_series(1, 100000) AS x; UPDATE passing SET x = -x',
	"UPDATE big SET v = 'lost' WHERE id % 7 = 0", 'DELETE FROM shrinks WHERE id >= 10000', 'VACUUM shrinks',
	"INSERT INTO shrinks SELECT g, repeat('lost', 100) FROM generate_series(1, 200) g",
	'INSERT INTO fleeting SELECT generate_series(1, 1000)', 'CREATE DATABASE dead_db', 'CHECKPOINT',
	"UPDATE big SET v = 'lost again' WHERE id % 11 = 0");
$c->sql($new, "UPDATE big SET v = 'alive' WHERE id % 13 = 0");
$c->sql($new, 'CREATE DATABASE alive_db');
$c->start($old);
$c->wait_for(sub { $c->state($old) eq 'replica' }, 240, "n$old streams");
$c->wait_for(sub { $c->sql($new, "SELECT count(*) FROM quantadb_journal WHERE node = 'n$old' AND event = 'rewind_done'") eq '1' }, 30, 'after a rewind');
$c->wait_replayed($old, $new);
is($c->fingerprint($old), $c->fingerprint($new), 'its tables are the primary\'s');
is($c->sql($old, "SELECT pg_relation_size('shrinks')"), $c->sql($new, "SELECT pg_relation_size('shrinks')"), 'of the same size');
is($c->amcheck($old), '', 'amcheck finds nothing');
is($c->sql($old, "SELECT count(*) FROM pg_ls_dir('base/5') f WHERE f ~ '^t[0-9]'"), '0', 'temporary files are gone');
done_testing();
