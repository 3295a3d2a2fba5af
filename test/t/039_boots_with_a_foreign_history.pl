# A node whose data have gone past the fork, and which has the history file of the primary that
# forked there, does not start as a stock server: recovery takes the newest timeline for its goal and
# ends the postmaster.  As a member it starts, and is rewound.  So it does with the begin of that
# timeline's first segment, which recovery prefers to its own.
use strict;
use warnings;
use File::Copy qw(copy);
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $old = $c->primary;
$c->sql($old, 'CREATE TABLE t (id int PRIMARY KEY, v text)');
$c->sql($old, "INSERT INTO t SELECT g, 'kept' FROM generate_series(1, 1000) g");
$c->wait_replayed($_, $old) for $c->all_but($old);
my $new = $c->diverge($old, "UPDATE t SET v = 'lost'", 'CHECKPOINT', "UPDATE t SET v = 'lost again'");
$c->sql($new, "UPDATE t SET v = 'alive' WHERE id % 2 = 0");

my $timeline = $c->sql($new, 'SELECT timeline FROM quantadb_status()');
my ($data, $file) = ($c->node($old)->{data}, sprintf('%08X.history', $timeline));
copy($c->node($new)->{data} . "/pg_wal/$file", "$data/pg_wal/$file") or die $!;
$c->give_to_owner($old);

# Nobody tells it of the other epoch for now: it has to boot and to pass a crash cycle.
$c->freeze($_) for $c->all_but($old);
$c->start($old);
$c->wait_for(sub { ($c->sql_try($old, 'SELECT 1'))[0] == 0 }, 30, 'it starts');
my $postmaster = $c->postmaster($old);
is($c->sql($old, 'SELECT pg_is_in_recovery()'), 't', 'as a standby');
copy($c->node($new)->{data} . "/pg_wal/$file", "$data/pg_wal/$file") or die $!;
$c->give_to_owner($old);
my $mark = -s $c->node($old)->{log};
$c->signal_children('KILL', $old, 'checkpointer');
$c->wait_for(sub { substr(QuantaCluster::slurp($c->node($old)->{log}), $mark) =~ /ready to accept read-only connections/ || !$c->postmaster($old) },
	30, 'a crash cycle');
is($c->postmaster($old), $postmaster, 'in the same postmaster after a crash cycle');
$c->thaw($_) for $c->all_but($old);

$c->wait_for(sub { $c->state($old) eq 'replica' }, 90, "n$old streams");
$c->wait_complete;
$new = $c->await_primary;
$c->wait_replayed($old, $new);
is($c->fingerprint($old), $c->fingerprint($new), 'with the primary\'s tables');
is($c->sql($old, "SELECT count(*) FROM t WHERE v ~ 'lost'"), '0', 'and nothing that was lost');

# The first segment of a timeline as a walreceiver leaves it that is killed before the fork.
$c->wait_complete(60);
my ($standby, $next) = $c->all_but($new);
$data = $c->node($standby)->{data};
$c->kill_all($standby);
$c->sql($new, "UPDATE t SET v = 'more'");
$c->sql($next, "SELECT quantadb_promote('n$next')", timeout => 60);
$c->wait_for(sub { $c->write_ok($next) }, 60, "n$next is primary");
$timeline = $c->sql($next, 'SELECT timeline FROM quantadb_status()');
$file = sprintf('%08X.history', $timeline);
my ($fork) = QuantaCluster::slurp($c->node($next)->{data} . "/pg_wal/$file") =~ m{\t0/(\S+)\t[^\n]*\s*\z};
my $segment = sprintf('%08X%08X%08X', $timeline, 0, hex($fork) >> 24);
my $begun = substr(QuantaCluster::slurp($c->node($next)->{data} . "/pg_wal/$segment"), 0, int((hex($fork) % (1 << 24)) / 2));
QuantaCluster::append_file("$data/pg_wal/$segment", $begun . "\0" x ((1 << 24) - length($begun)));
copy($c->node($next)->{data} . "/pg_wal/$file", "$data/pg_wal/$file") or die $!;
$c->give_to_owner($standby);
ok(eval { $c->start($standby); 1 }, 'the torn first segment of a timeline does not end the server');
$c->wait_for(sub { $c->state($standby) eq 'replica' }, 60, "n$standby streams");
$c->wait_replayed($standby, $next);
is($c->fingerprint($standby), $c->fingerprint($next), 'with the primary\'s tables');

# After a rewind it is the other way round: its own segment of the old timeline has less.
$c->kill_all($standby);
my ($parent) = QuantaCluster::slurp("$data/pg_wal/$file") =~ m{(\d+)\t0/\S+\t[^\n]*\s*\z};
my $path = sprintf('%s/pg_wal/%08X%s', $data, $parent, substr($segment, 8));
open(my $f, '+<', $path) or die "$path: $!";
seek($f, length($begun), 0);
print $f "\0" x ((1 << 24) - length($begun));
close $f;
$mark = -s $c->node($standby)->{log};
$c->start($standby);
$c->wait_for(sub { $c->state($standby) eq 'replica' }, 60, "n$standby streams");
unlike(substr(QuantaCluster::slurp($c->node($standby)->{log}), $mark), qr/removing "pg_wal/, 'a whole segment is not taken for a torn one');
done_testing();
