# What a crash cycle costs where the data directory has many files: one of a replica, the
# demotion in a planned move, a rewind.  Each time until the node streams again.
#	QUANTADB_BENCH_FILES	files beside the cluster's own (default 100000)
use strict;
use warnings;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $files = $ENV{QUANTADB_BENCH_FILES} || 100_000;
my $c = QuantaCluster->new_cluster(n => 3, quick => 1);
my $p = $c->primary;
$c->sql($p, 'CREATE TABLE t (id int PRIMARY KEY, v text)');
$c->sql($p, "INSERT INTO t SELECT g, repeat('a', 100) FROM generate_series(1, 10000) g");

sub measure
{
	my ($what) = @_;
	my ($p, $standby) = ($c->primary, grep { $_ != $c->primary } $c->all);

	my $at = time;
	$c->signal_children('KILL', $standby, 'checkpointer');
	$c->wait_for(sub { $c->state($standby) ne 'replica' }, 60, 'a crash cycle');
	$c->wait_for(sub { $c->state($standby) eq 'replica' }, 120, "n$standby streams");
	my $cycle = time - $at;

	$c->wait_complete;
	$at = time;
	$c->sql($p, "SELECT quantadb_promote('n$standby')", timeout => 60);
	$c->wait_for(sub { $c->state($p) eq 'replica' }, 120, "n$p streams");
	my $move = time - $at;

	$c->wait_complete;
	my $new = $c->diverge($standby, "UPDATE t SET v = 'lost' WHERE id % 2 = 0");
	$at = time;
	$c->pg_ctl($standby, '-W', '-l', $c->node($standby)->{log}, 'start');
	$c->wait_for(sub { $c->state($standby) eq 'replica' }, 300, "n$standby streams");
	my $rewind = time - $at;
	$c->wait_complete;
	$c->wait_replayed($standby, $new);
	is($c->fingerprint($standby), $c->fingerprint($new), 'its tables are the primary\'s');
	printf "%s: crash cycle of a replica %.1f s, planned move %.1f s, start and rewind %.1f s\n", $what, $cycle, $move, $rewind;
}

measure('few files');
# As relations that nobody reads; the servers are stopped, so that all have the same.
$c->stop($_, 'immediate') for $c->all;
for my $i ($c->all)
{
	my $folder = $c->node($i)->{data} . '/base/5';
	for my $n (1 .. $files)
	{
		open(my $f, '>', "$folder/" . (90_000_000 + $n)) or die $!;
		close $f;
	}
	$c->give_to_owner($i);
}
$c->start($_) for $c->all;
$c->wait_complete(120);
measure("$files more files");
done_testing();
