# Killed in the middle of a rewind a node has neither its old data nor the new ones.  The source
# dies then; the node does the rest from what it has staged, says nothing before it is consistent, and
# makes a majority with the one that is left.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $old = $c->primary;
my $node = $c->node($old);
$c->sql($old, 'CREATE EXTENSION amcheck');
$c->sql($old, 'CREATE TABLE t (id int PRIMARY KEY, v text)');
$c->sql($old, "INSERT INTO t SELECT g, repeat('a', 100) FROM generate_series(1, 5000) g");
my $new = $c->diverge($old, "UPDATE t SET v = 'lost' WHERE id % 2 = 0", 'CHECKPOINT', "UPDATE t SET v = 'lost' WHERE id % 3 = 0");
my ($third) = grep { $_ != $new } $c->all_but($old);
$c->sql($new, "UPDATE t SET v = 'alive' WHERE id % 5 = 0");

# Every second point that a step has, until one is in the middle of the blocks.
QuantaCluster::append_file("$node->{data}/node.conf", "quantadb.debug_apply_stop = 0\n");
$c->start($old);
$c->wait_for(sub { !$c->postmaster($old) }, 60, 'killed before the first step');
my $plan = substr(QuantaCluster::slurp("$node->{data}/quantadb/stage/journal"), 48);
my @blocks;
for (my $n = 0; length $plan; $n++)
{
	my ($kind, $number, $path) = unpack('C Q< v/a', $plan);
	my ($other) = unpack('x9 v/x v/a', $plan);
	$plan = substr($plan, 13 + length($path) + length($other));
	push @blocks, $n if $kind == 2;
}
ok(scalar(@blocks), 'the plan changes blocks');
my $stop = 3 * $blocks[ @blocks / 2 ] + 1;
QuantaCluster::append_file("$node->{data}/node.conf", "quantadb.debug_apply_stop = $stop\n");
$c->pg_ctl($old, '-w', '-t', '180', '-l', $node->{log}, 'start');
ok(!$c->postmaster($old), 'killed in the middle of them');

$c->sql($new, "INSERT INTO t SELECT g, 'acknowledged' FROM generate_series(10000, 11000) g");
my $fingerprint = $c->fingerprint($new);
$c->kill_all($new);
QuantaCluster::append_file("$node->{data}/node.conf", "quantadb.debug_apply_stop = -1\n");
$c->start($old);
$c->wait_for(sub { $c->state($third) eq 'primary' }, 60, "n$third is primary");
is($c->fingerprint($third), $fingerprint, 'with all that was acknowledged');
$c->wait_for(sub { $c->write_ok($third) }, 60, 'and commits, which takes two');
$c->becomes(sub { $c->state($old) }, 'replica', "n$old streams");
$c->wait_replayed($old, $third);
is($c->fingerprint($old), $fingerprint, 'with the same tables');
is($c->amcheck($old), '', 'amcheck finds nothing');
$c->start($new);
$c->wait_complete(90);
done_testing();
