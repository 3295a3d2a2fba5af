# The work of a rewind is done in the crash cycle from a journal: killed at any point of any
# step, the next boot does it again, and the node comes back with the primary's data.
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

my $new = $c->diverge($old, "UPDATE t SET v = 'lost' WHERE id % 2 = 0", 'CREATE TABLE dead (x int)',
	'INSERT INTO dead SELECT generate_series(1, 1000)', 'CREATE DATABASE dead_db');
$c->sql($new, "UPDATE t SET v = 'alive' WHERE id % 3 = 0");

# The plan's length is not known yet: the first stop is before its first step.
QuantaCluster::append_file("$node->{data}/node.conf", "quantadb.debug_apply_stop = 0\n");
$c->start($old);
$c->wait_for(sub { !$c->postmaster($old) }, 60, 'killed before the first step');
my ($steps) = QuantaCluster::slurp($node->{log}) =~ /applying (\d+) steps of staged work/;
cmp_ok($steps, '>', 20, "a plan of $steps steps");
ok(-e "$node->{data}/quantadb/stage/journal", 'which is still to be done');

# The first and the last step of each kind: before, in the middle where it has one, after.
my $plan = substr(QuantaCluster::slurp("$node->{data}/quantadb/stage/journal"), 48);
my (%first, %last);
for (my $n = 0; length $plan; $n++)
{
	my ($kind, $number, $path) = unpack('C Q< v/a', $plan);
	my ($other) = unpack('x9 v/x v/a', $plan);
	$plan = substr($plan, 13 + length($path) + length($other));
	$first{$kind} = $n unless exists $first{$kind};
	$last{$kind} = $n;
}
my $blocks = 2;
ok(exists $first{$blocks}, 'with blocks of a relation') or diag(join ' ', %first);
my %stops = map { 3 * $_ => 1, 3 * $_ + 2 => 1 } values %first, values %last;
$stops{3 * $first{$blocks} + 1} = $stops{3 * $last{$blocks} + 1} = $stops{3 * $steps} = 1;
my ($killed, @missed) = (0);
for my $stop (sort { $a <=> $b } keys %stops)
{
	QuantaCluster::append_file("$node->{data}/node.conf", "quantadb.debug_apply_stop = $stop\n");
	$c->pg_ctl($old, '-w', '-t', '180', '-l', $node->{log}, 'start');
	push @missed, $stop if $c->postmaster($old) || !-e "$node->{data}/quantadb/stage/journal";
	last if @missed;
	$killed++;
}
is("@missed", '', "killed at each of $killed points");
QuantaCluster::append_file("$node->{data}/node.conf", "quantadb.debug_apply_stop = -1\n");
$c->start($old) unless $c->postmaster($old);
$c->wait_for(sub { $c->state($old) eq 'replica' }, 120, "n$old streams");
ok(!-e "$node->{data}/quantadb/stage/journal", 'the plan is done');
$c->wait_replayed($old, $new);
is($c->fingerprint($old), $c->fingerprint($new), 'its tables are the primary\'s');
is($c->amcheck($old), '', 'amcheck finds nothing');
done_testing();
