# The only voter with the newest commits never becomes primary (priority 0); it hands them to
# the one that does, and nothing acknowledged is lost.
use strict;
use warnings;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
my ($d, $t) = grep { $_ != $p } $c->all;
$c->sql($p, 'CREATE TABLE w (x bigint PRIMARY KEY, y text)');
QuantaCluster::append_file($c->node($d)->{data} . '/node.conf', "quantadb.priority = 0\n");
$c->pg_ctl($d, 'reload');
$c->wait_for(sub { $c->sql($p, "SELECT priority FROM quantadb_nodes WHERE name = 'n$d'") eq '0' }, 30, 'priority 0 is known');
$c->wait_replayed($_, $p) for $d, $t;
$c->sql($p, "SELECT quantadb_set('open_timeout', '20s')");

# Commits that only the primary and the donor have, more than a segment of them.
$c->stop($t, 'immediate');
$c->sql($p, "INSERT INTO w SELECT i, repeat('x', 500) FROM generate_series(1, 20000) i; SELECT pg_switch_wal()");
$c->sql($p, "INSERT INTO w VALUES ($_, '')") for 100001 .. 100020;
my $begin = time;
$c->kill_all($p);
$c->start($t);
$c->wait_for(sub { $c->state($t) eq 'primary' && $c->write_ok($t) }, 60, "n$t is primary");
note(sprintf('%.1f s from the kill to the first write', time - $begin));
is($c->sql($t, 'SELECT count(*) FROM w'), '20020', 'every acknowledged row is there');
is($c->sql($t, "SELECT reason FROM quantadb_journal WHERE event = 'donate' AND node = 'n$t' LIMIT 1"),
	"n$t takes the WAL that it lacks from n$d, which cannot be primary", 'the journal says how');
like(QuantaCluster::slurp($c->node($d)->{log}), qr/Handing WAL up to .* to node "n$t"/, 'the donor says so');
like(QuantaCluster::slurp($c->node($t)->{log}), qr/has come from node "n$d"/, 'and the taker');
$c->wait_for(sub { $c->state($d) eq 'replica' }, 60, "n$d streams from n$t");
$c->start($p);
$c->wait_complete;
$c->wait_replayed($_, $t) for $d, $p;
is($c->sql($_, 'SELECT count(*) FROM w'), '20020', "n$_ has them too") for $d, $p;
done_testing();
