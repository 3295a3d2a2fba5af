# A rewind where tables lie in tablespaces outside of the data directory: blocks, tails, dropped
# and new relations there are put right too, and a folder that only the lost history used is
# not part of the server any more.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 3);
$c->{n} = 1;
$c->create_first(1);
$c->init(1);
my ($space, $late) = map { my $path = "$c->{dir}/$_"; QuantaCluster::run_ok(@{$c->node(1)->{enter}}, 'mkdir', $path); $path } 'space', 'late';
$c->sql(1, "CREATE TABLESPACE space LOCATION '$space'");
$c->sql(1, q{CREATE EXTENSION amcheck; CREATE TABLE far (id int PRIMARY KEY USING INDEX TABLESPACE space, v text) TABLESPACE space;
	INSERT INTO far SELECT g, repeat('x', 200) FROM generate_series(1, 5000) g;
	CREATE TABLE gone (x int) TABLESPACE space; INSERT INTO gone SELECT generate_series(1, 1000)});
# By a clone each has a folder of its own: a copy of the first one's would share it.
for my $i (2, 3)
{
	$c->{n} = $i;
	$c->join_fresh($i, 1);
}
$c->wait_complete;
my @links = map { readlink((glob($c->node($_)->{data} . '/pg_tblspc/*'))[0]) } $c->all;
my %seen = map { $_ => 1 } @links;
is(scalar(keys %seen), 3, 'three nodes, three folders');
$c->wait_replayed($_, 1) for 2, 3;

my $new = $c->diverge(1, q{UPDATE far SET v = 'lost' WHERE id % 3 = 0}, q{INSERT INTO far SELECT g, 'lost' FROM generate_series(9001, 12000) g},
	'DROP TABLE gone', 'CREATE TABLE dead TABLESPACE space AS SELECT generate_series(1, 5000) x',
	"CREATE TABLESPACE late LOCATION '$late'", 'CREATE TABLE dead_too TABLESPACE late AS SELECT generate_series(1, 100) x', 'CHECKPOINT',
	q{UPDATE far SET v = 'lost again' WHERE id % 5 = 0});
$c->sql($new, q{UPDATE far SET v = 'alive' WHERE id % 7 = 0; CREATE TABLE alive TABLESPACE space AS SELECT generate_series(1, 2000) x});
$c->start(1);
$c->wait_for(sub { $c->state(1) eq 'replica' }, 120, 'n1 streams again');
is($c->sql($new, q{SELECT string_agg(event, ' ' ORDER BY number) FROM quantadb_journal WHERE node = 'n1' AND event ~ 'rewind_failed|clone'}), '',
	'by a rewind');
$c->wait_replayed(1, $new);
is($c->fingerprint(1), $c->fingerprint($new), 'its tables are the primary\'s');
unlike($c->fingerprint(1), qr/dead/, 'and no others');
is($c->amcheck(1), '', 'amcheck finds nothing');
is($c->sql(1, 'SELECT string_agg(spcname, \',\' ORDER BY spcname) FROM pg_tablespace'), 'pg_default,pg_global,space', 'its tablespaces too');
my @now = map { readlink($_) } glob($c->node(1)->{data} . '/pg_tblspc/*');
is("@now", $links[0], 'it has the link that it had, and not the one of the lost history');
my @files = glob("$space/PG_*/*/*");
my $data = $c->sql(1, q{SELECT count(*) FROM pg_class WHERE reltablespace = (SELECT oid FROM pg_tablespace WHERE spcname = 'space') AND relkind IN ('r', 'i')});
cmp_ok(scalar(grep { m{/\d+$} } @files), '>=', $data, 'the files lie where they lay');
done_testing();
