# A node that gets a timeline number above a gap fills the gap for a moment with a history file that
# says nothing (hazards 10).  Killed then, it starts as if that file were not there, and no
# timeline ever comes from the number that nobody had.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $old = $c->primary;
my ($victim, $third) = grep { $_ != $old } $c->all;
$c->sql($old, 'CREATE TABLE t (x int); INSERT INTO t SELECT generate_series(1, 100)');
# It wins ties.
for my $i ($c->all)
{
	QuantaCluster::append_file($c->node($i)->{data} . '/node.conf', 'quantadb.priority = ' . ($i == $victim ? 200 : 100) . "\n");
	$c->sql($i, 'SELECT pg_reload_conf()') if $i == $old;
}
my $timeline = $c->sql($old, 'SELECT timeline FROM quantadb_status()');
my $file = sprintf('%08X.history', $timeline + 1);
for my $i ($victim, $third)
{
	$c->stop($i, 'immediate');
	$c->start_with_killer($i, 'rename', $file);
	$c->wait_complete;
}
my %pid = map { $_ => $c->postmaster($_) } $victim, $third;
$c->wait_replayed($_, $old) for $victim, $third;

# One dies with the history of its own timeline, the next where it fills the gap.
$c->arm_killer;
$c->kill_all($old);
$c->await_killer($victim, $pid{$victim});
$c->arm_killer;
$c->start($old);
$c->await_killer($third, $pid{$third});
my $data = $c->node($third)->{data};
my $content = QuantaCluster::slurp("$data/pg_wal/$file");
ok($content ne '', "n$third died with a file for timeline " . ($timeline + 1));
unlike($content, qr/^\s*\d/m, 'which has no entry');

$c->start($third);
my $new;
$c->wait_for(sub { ($new = $c->primary) && $c->write_ok($new) }, 90, 'a primary');
$c->start($victim);
$c->wait_complete(90);
my $now = $c->sql($new, 'SELECT timeline FROM quantadb_status()');
cmp_ok($now, '>', $timeline + 1, "n$new has timeline $now");
for my $i ($c->all)
{
	my $path = sprintf('%s/pg_wal/%08X.history', $c->node($i)->{data}, $now);
	my @ancestors = map { /^(\d+)\t/ ? $1 : () } split(/\n/, QuantaCluster::slurp($path));
	ok(!(grep { $_ == $timeline + 1 } @ancestors), "n$i: which does not come from " . ($timeline + 1));
	$c->wait_replayed($i, $new) if $i != $new;
	is($c->fingerprint($i), $c->fingerprint($new), "n$i has the rows");
}
done_testing();
