# A new primary whose epoch record is on no quorum yet shows nothing that it has: no table,
# and no large object either, which no plan names (I8).
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3, conf_of => sub { $_[0] == 3 ? "quantadb.priority = 0\n" : '' });
$c->sql($c->primary, "SELECT quantadb_promote('n1')") if $c->primary != 1;
$c->wait_complete;
$c->sql(1, "CREATE TABLE t AS SELECT 1 AS x; SELECT lo_from_bytea(77, 'seen')");
$c->wait_replayed($_, 1) for 2, 3;
is($c->sql(2, "SELECT convert_from(lo_get(77), 'UTF8')"), 'seen', 'a replica shows it');
$c->sql(1, "SELECT quantadb_set('open_timeout', '1h')");

# n3 can decide, and acknowledge nothing: replay asks for its next stream, and stands still.
my ($startup) = grep { QuantaCluster::slurp("/proc/$_/cmdline") =~ /startup/ } QuantaCluster::children_of($c->postmaster(3));
kill 'STOP', $startup;
$c->kill_all(1);
$c->wait_for(sub { ($c->sql_try(2, 'SELECT pg_is_in_recovery()'))[1] eq 'f' }, 60, 'n2 is promoted');
$c->becomes(sub { $c->state_now(2) }, 'fenced', 'and not open');
for my $query ('SELECT * FROM t', 'SELECT lo_get(77)', 'SELECT lo_get(n::oid) FROM generate_series(77, 77) n',
	'SELECT lo_get(n::oid, 0, 1) FROM generate_series(77, 77) n', 'SELECT loread(lo_open(n::oid, 262144), 4) FROM generate_series(77, 77) n')
{
	like(($c->sql_try(2, $query))[2], qr/57P03.*not open yet/s, "$query is refused");
}
kill 'CONT', $startup;
$c->wait_for(sub { $c->state(2) eq 'primary' }, 60, 'n2 opens');
is($c->sql(2, "SELECT convert_from(lo_get(77), 'UTF8')"), 'seen', 'and shows it');
done_testing();
