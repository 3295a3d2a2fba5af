# A follower begins a new timeline with its own WAL, so that this need not be sent.  Where that
# file is trimmed away in a later epoch, and the timeline comes back in one after it, all of
# the file is sent again: with a hole it could acknowledge what it cannot replay.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
my ($h, $f) = grep { $_ != $p } $c->all;
my $log = $c->node($f)->{log};

sub follows { my ($i, $epoch) = @_; return QuantaCluster::slurp($log) =~ /following node "n$i" in epoch $epoch\b/ }

sub cycles { my @all = QuantaCluster::slurp($log) =~ /Restarting as a standby: /g; return scalar @all }

sub stop_streamer
{
	my ($i) = @_;
	$c->wait_for(
		sub {
			my $postmaster = $c->postmaster($i) or return 0;
			my ($pid) = grep { QuantaCluster::slurp("/proc/$_/cmdline") =~ /quantadb streamer/ } QuantaCluster::children_of($postmaster);
			return $pid && kill('STOP', $pid);
		},
		60, "the streamer of n$i");
}

$c->sql($p, 'CREATE TABLE t (x int PRIMARY KEY)');
$c->sql($p, 'INSERT INTO t SELECT generate_series(1, 1000)');
QuantaCluster::append_file($c->node($f)->{data} . '/node.conf', "quantadb.priority = 0\n");
$c->pg_ctl($f, 'reload');
$c->sql_becomes($p, "SELECT priority FROM quantadb_nodes WHERE name = 'n$f'", '0', "n$f only follows");
$c->sql($p, "SELECT quantadb_set('open_timeout', '10min')");
$c->wait_replayed($_, $p) for $h, $f;

my $cycles = cycles();

# The next holder serves nobody, and dies; n$p comes back with WAL that nobody else has.
stop_streamer($h);
$c->signal_receivers('STOP', $p);
$c->sql($p, 'SET synchronous_commit = local; INSERT INTO t SELECT generate_series(2000, 3000)');
$c->kill_all($p);
$c->signal_receivers($_, $p) for 'TERM', 'CONT';
$c->wait_for(sub { follows($h, 2) }, 60, "n$f would follow n$h");
my ($begun) = glob($c->node($f)->{data} . '/pg_wal/00000002*[0-9A-F]');
ok($begun, "n$f has begun timeline 2");
$c->wait_for(sub { $c->state($h) eq 'fenced' }, 60, "n$h is promoted");
$c->kill_all($h);

# n$p gets the next seat, and serves nobody either.
$c->freeze($f);
$c->start($p);
stop_streamer($p);
$c->thaw($f);
$c->wait_for(sub { follows($p, 3) }, 60, "n$f would follow n$p");
ok(!-e $begun, "n$f has trimmed timeline 2 away");
$c->kill_all($p);

# Timeline 2 comes back, and no process of n$f has ended meanwhile.
$c->start($h);
$c->wait_for(sub { $c->state($h) eq 'primary' && $c->write_ok($h) }, 60, "n$h is primary");
like(QuantaCluster::slurp($log), qr/following node "n$h" in epoch (?!2\b)\d/, "n$f follows n$h again");
is(cycles(), $cycles, 'in the same life of its server');
$c->sql($h, 'INSERT INTO t VALUES (5000)');
$c->sql_becomes($f, 'SELECT count(*) FROM t WHERE x = 5000', '1', "n$f replays what it acknowledges");
$c->start($p);
$c->wait_complete;
$c->wait_replayed($p, $h);
is($c->sql($p, 'SELECT count(*) FROM t WHERE x BETWEEN 2000 AND 3000'), '0', 'what nobody had is gone');
done_testing();
