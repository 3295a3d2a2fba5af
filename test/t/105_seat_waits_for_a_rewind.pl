# A primary that is left with a replica that has to rewind, which takes much longer than
# open_timeout, opens when the rewind is done: no new epoch throws it back to its start.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $old = $c->primary;
$c->sql($old, "SELECT quantadb_set('open_timeout', '4s')");
$c->sql($old, 'CREATE TABLE t AS SELECT g AS id, repeat(md5(g::text), 10) AS v FROM generate_series(1, 20000) g');
my $new = $c->diverge($old, "UPDATE t SET v = 'lost'");
my ($third) = grep { $_ != $old && $_ != $new } $c->all;
$c->sql($new, 'INSERT INTO t VALUES (0, \'kept\')');

# $new has to get the seat anew, and $old is all that is left to acknowledge.
$c->kill_all($third);
$c->kill_all($new);
QuantaCluster::append_file($c->node($old)->{data} . '/node.conf', "quantadb.clone_rate = '512kB'\n");
$c->start($_) for $new, $old;
$c->wait_for(sub { QuantaCluster::slurp($c->node($old)->{log}) =~ /Rewinding from/ }, 120, "n$old rewinds");
my $began = time;
$c->wait_for(sub { $c->primary && $c->write_ok($c->primary) }, 240, 'there is a primary');
cmp_ok(time - $began, '>', 8, 'it took two open_timeouts and more');
is($c->primary, $new, 'the one whose WAL it is');
is($c->sql($new, "SELECT count(*) FROM quantadb_journal WHERE reason ~ 'did not open in time'"), '0', 'and no seat was given up');
is($c->sql($new, 'SELECT v FROM t WHERE id = 0'), 'kept', 'nothing acknowledged is lost');
$c->start($third);
$c->wait_complete(120);
$c->wait_replayed($_, $new) for $old, $third;
is($c->fingerprint($old), $c->fingerprint($new), 'all have the same');
done_testing();
