# A replica that lacks WAL before the fork gets it from the new primary and goes on to the new
# timeline, also when its replay comes to that only after all of it was received.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
my ($r, $s) = grep { $_ != $p } $c->all;
$c->sql($p, 'CREATE TABLE t (x int)');
$c->wait_replayed($r, $p);
$c->kill_all($r);
$c->sql($p, 'INSERT INTO t SELECT generate_series(1, 1000)');
$c->sql($p, 'SELECT quantadb_pause()');
$c->wait_replayed($s, $p);
$c->kill_all($p);

# Its receiver waits for a primary; its startup process stands still from now on.
$c->start($r);
my $process = sub {
	my ($name) = @_;
	my ($pid) = grep { QuantaCluster::slurp("/proc/$_/cmdline") =~ /^postgres: \Q$name\E/ } QuantaCluster::children_of($c->postmaster($r));
	return $pid;
};
$c->wait_for(sub { $process->('walreceiver') }, 30, 'a receiver');
my $startup = $process->('startup');
kill 'STOP', $startup;
my $from = -s $c->node($r)->{log};
my $said = sub { return substr(QuantaCluster::slurp($c->node($r)->{log}), $from) };
$c->wait_for(sub { ($c->sql_try($s, 'SELECT quantadb_resume()'))[0] == 0 }, 30, 'failover is allowed');
$c->wait_for(sub { $said->() =~ /End of WAL reached on timeline 1/ }, 60, 'all WAL before the fork is there');
kill 'CONT', $startup;

$c->wait_for(sub { $c->state($s) eq 'primary' && $c->state($r) eq 'replica' }, 60, "n$r streams from n$s");
unlike($said->(), qr/FATAL:  according to history file/, 'its replay does not look for WAL in a file that has less');
$c->wait_replayed($r, $s);
is($c->sql($r, 'SELECT count(*) FROM t'), '1000', 'it has all rows');
done_testing();
