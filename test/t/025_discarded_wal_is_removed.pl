# Segments that wait to be used again leave pg_wal in a hurry when a node follows a new
# primary; they are removed afterwards.
use strict;
use warnings;
use File::Copy qw(copy);
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
$c->sql($p, 'CREATE TABLE w (x bigint)');
my @others = grep { $_ != $p } $c->all;
$c->wait_replayed($_, $p) for @others;

# As recycling leaves them: named for later, with what they had.
my $current = $c->sql($p, 'SELECT pg_walfile_name(pg_current_wal_lsn())');
my ($timeline, $number) = $current =~ /^(\w{8})\w{8}(\w{8})$/;
my @waiting = map { sprintf '%s00000000%08X', $timeline, hex($number) + $_ } 2 .. 6;
for my $i (@others)
{
	my $wal = $c->node($i)->{data} . '/pg_wal';
	for my $name (@waiting)
	{
		copy("$wal/$current", "$wal/$name") or die "$wal/$name: $!";
		QuantaCluster::run_ok('chown', 'postgres:', "$wal/$name") if $> == 0;
	}
}
$c->kill_all($p);
my $new = $c->await_primary;
my ($follower) = grep { $_ != $new } @others;
my $data = $c->node($follower)->{data};
$c->wait_for(sub { $c->state($follower) eq 'replica' }, 60, 'the other one follows');
is(scalar(grep { -e "$data/pg_wal/$_" } @waiting), 0, 'they are gone from pg_wal');
like(QuantaCluster::slurp($c->node($follower)->{log}), qr/discarding "pg_wal\/$waiting[-1]"/, 'by the trim');
$c->wait_for(sub { !-e "$data/quantadb/discarded" }, 60, 'they are removed');
pass('and from the disk');
$c->sql($new, 'INSERT INTO w VALUES (1)');
$c->wait_replayed($follower, $new);
is($c->sql($follower, 'SELECT count(*) FROM w'), '1', 'it goes on');
done_testing();
