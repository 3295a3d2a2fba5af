# Under Debian's pg_ctlcluster: create, start, join, stop, restart, fail over; and the exit
# status that a service manager sees.
use strict;
use warnings;
use QuantaCluster;
use POSIX ();
use Test::More;

plan(skip_all => 'needs Debian\'s postgresql-common') unless -x '/usr/bin/pg_createcluster';

my $c = QuantaCluster->new(n => 3);
$ENV{PGCTLTIMEOUT} = 180;
$ENV{PG_CLUSTER_CONF_ROOT} = "$c->{dir}/etc";
my $log = "$c->{dir}/ctl.log";

sub run_ctl
{
	my (@command) = @_;
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', $log);
		open(STDERR, '>&', \*STDOUT);
		exec(@command) or POSIX::_exit(127);
	}
	return $pid if $command[-1] eq '--foreground';
	waitpid($pid, 0);
	return $? >> 8;
}
sub ctl { my ($i, @args) = @_; return run_ctl('pg_ctlcluster', '--skip-systemctl-redirect', '15', "n$i", @args) }

for my $i (1 .. 3)
{
	my $node = $c->node($i);
	is(run_ctl('pg_createcluster', '15', "n$i", '-d', $node->{data}, '-p', $node->{sql}, '-s', $c->{dir}, '-l', $node->{log},
			'-e', 'UTF8', '--locale', 'C', '--', '-A', 'trust', '-N', '-k'), 0, "n$i is created")
	  or diag(QuantaCluster::slurp($log));
	QuantaCluster::append_file("$c->{dir}/etc/15/n$i/postgresql.conf", "shared_preload_libraries = 'quantadb'
quantadb.node_name = 'n$i'
quantadb.raft_port = $node->{raft}
quantadb.replication_port = $node->{replication}
quantadb.http_port = $node->{http}
listen_addresses = '127.0.0.1'
ssl = off
shared_buffers = 16MB
log_line_prefix = '%m [%p] %b '
");
	is(ctl($i, 'start'), 0, 'and starts');
}
$c->init(1);
$c->join_fresh($_, 1) for 2, 3;
$c->wait_complete;
like(QuantaCluster::slurp("$c->{dir}/etc/15/n2/postgresql.conf"), qr/node_name = 'n2'/, 'a clone keeps its configuration');

sub next_primary
{
	my ($old) = @_;
	my $new;
	$c->wait_for(sub { $new = $c->primary; $new && $new != $old && $c->write_ok($new) }, 60, 'another primary');
	return $new;
}

# A stop of the primary hands over, and says so by its status.
is(ctl(1, 'stop'), 0, 'the primary stops');
is(ctl(1, 'status'), 3, 'and has stopped');
ok(!-e $c->node(1)->{data} . '/postmaster.pid', 'without leaving its lock file');
my $p = next_primary(1);
is(ctl(1, 'start'), 0, 'it starts again');
$c->wait_for(sub { $c->state(1) eq 'replica' }, 60, 'n1 streams');
is(ctl($p, 'restart'), 0, "the primary n$p restarts");
my $q = next_primary($p);
$c->wait_complete;

# What systemd sees of a primary that is stopped.
my ($fg) = grep { $_ != $q } 1 .. 3;
is(ctl($fg, 'stop'), 0, 'a replica stops');
my $child = ctl($fg, 'start', '--foreground');
$c->wait_for(sub { $c->state($fg) eq 'replica' }, 60, "n$fg streams");
$c->wait_complete;
$c->sql($q, "SELECT quantadb_promote('n$fg')", timeout => 60);
$c->wait_for(sub { $c->state($fg) eq 'primary' && $c->write_ok($fg) }, 60, "n$fg is primary");
is(ctl($fg, 'stop'), 0, 'stopped as primary');
waitpid($child, 0);
is($?, 0, 'its status is no failure');
next_primary($fg);

# One that ends by itself does not look like one that was stopped.
$child = ctl($fg, 'start', '--foreground');
$c->wait_for(sub { $c->state($fg) eq 'replica' }, 60, "n$fg is back");
kill 'KILL', $c->postmaster($fg);
waitpid($child, 0);
isnt($?, 0, 'a killed one fails');
$c->wait_for(sub { ctl($fg, 'start') == 0 }, 60, 'and can be started again at once');
$c->wait_complete;
pass('all are there');
done_testing();
