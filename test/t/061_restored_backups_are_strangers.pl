# A backup of a member is nobody's identity.  Restored to a point in time it becomes a server
# of its own and, with quantadb_init, a new cluster; started as it is, it waits as a standby;
# and both hold also where it is put back in place of the server that it was taken from.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';
my $c = QuantaCluster->new(n => 2);
my ($archive, $backup) = ("$c->{dir}/archive", "$c->{dir}/backup");
my ($n1, $n2) = map { $c->node($_)->{data} } 1, 2;
$c->{conf} = "archive_mode = on\narchive_command = 'test ! -f $archive/%f && cp %p $archive/%f'\n";

sub as_owner { return QuantaCluster::run_ok(@{$c->node(1)->{enter}}, @_) }

sub backup_to
{
	as_owner("$bindir/pg_basebackup", '-h', '127.0.0.1', '-p', $c->node(1)->{sql}, '-U', 'postgres',
		'-D', $_[0], '-X', 'stream', '-c', 'fast', '--no-manifest');
}

# The content of a folder goes into another one, which stays the one it was.
sub put_back
{
	my ($from, $to) = @_;
	as_owner('bash', '-c', 'find "$1" -mindepth 1 -delete && cp -a "$0/." "$1"', $from, $to);
}

sub recover_to
{
	my ($i, $target) = @_;
	my $data = $c->node($i)->{data};
	QuantaCluster::append_file("$data/postgresql.conf", "restore_command = 'cp $archive/%f %p'
recovery_target_name = '$target'\nrecovery_target_action = 'promote'\narchive_command = '/bin/true'\n");
	QuantaCluster::append_file("$data/recovery.signal", '');
	$c->write_settings($i);
	$c->start($i);
	$c->wait_for(sub { ($c->sql_try($i, 'SELECT pg_is_in_recovery()'))[1] eq 'f' }, 30, "n$i has recovered");
}

as_owner('mkdir', $archive);
$c->create_first(1);
$c->init(1);
$c->sql(1, 'CREATE TABLE t (x int); INSERT INTO t VALUES (1)');
backup_to($backup);
$c->sql(1, q{INSERT INTO t VALUES (2); SELECT pg_create_restore_point('here'); INSERT INTO t VALUES (3);
	SELECT pg_switch_wal()});
$c->wait_for(sub { $c->sql(1, q{SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'}) eq '0' },
	30, 'all is archived');

# A copy next to the original.
as_owner('cp', '-a', $backup, $n2);
$c->write_settings(2);
$c->start(2);
is($c->sql(2, 'SELECT state, pg_is_in_recovery() FROM quantadb_status()'), 'inert|t', 'a copy waits as a standby of nobody');
is(() = glob("$n2/quantadb.stranger.*"), 1, 'the identity that it brought was set aside');
ok(!-e "$n2/quantadb/identity", 'it has none');
is(join(' ', map { m{([^/]+)$} } glob("$backup/quantadb/keys/*")), 'ca.crt ca.key node.pem', 'the backup has keys');
is(join(' ', map { m{([^/]+)$} } glob("$n2/quantadb.stranger.1/keys/*")), 'ca.crt', 'what was set aside has none');
is($c->sql(1, 'SELECT count(*) FROM quantadb_nodes'), '1', 'nobody has heard of it');
$c->stop(2, 'immediate');
as_owner('rm', '-rf', $n2);

# Recovery to a point in time, elsewhere.
as_owner('cp', '-a', $backup, $n2);
recover_to(2, 'here');
is($c->sql(2, 'SELECT string_agg(x::text, \',\' ORDER BY x) FROM t'), '1,2', 'recovered to the point in time');
is($c->state_now(2), 'inert', 'and no member');
$c->stop(2);
$c->start(2);
is($c->state_now(2), 'inert', 'nor after a restart');
$c->sql(2, 'INSERT INTO t VALUES (20)');
$c->sql(2, "SELECT quantadb_init('second')");
$c->wait_for(sub { $c->state(2) eq 'primary' && $c->write_ok(2) }, 30, 'n2 takes writes');
is($c->sql(2, 'SELECT cluster, node, can_lose FROM quantadb_status()'), 'second|n2|0', 'quantadb_init makes a new cluster of it');
is($c->sql(1, 'SELECT cluster, state FROM quantadb_status()'), 'test|primary', 'the old one goes on');
$c->kill_all(2);
$c->start(2);
$c->wait_for(sub { $c->state(2) eq 'primary' }, 30, 'n2 is primary again');
is($c->sql(2, 'SELECT count(*) FROM t'), '3', 'and comes back by itself');
$c->stop(2);

# A cold copy, put back later in place of what it was taken from.
my $cold = "$c->{dir}/cold";
$c->stop(1);
as_owner('cp', '-a', $n1, $cold);
$c->start(1);
$c->wait_for(sub { $c->state(1) eq 'primary' && $c->write_ok(1) }, 30, 'n1 is primary again');
$c->sql(1, 'INSERT INTO t VALUES (4)');
$c->stop(1);
my $inode = (stat $n1)[1];
put_back($cold, $n1);
is((stat $n1)[1], $inode, 'the folder is the same one');
$c->start(1);
is($c->sql(1, 'SELECT state, pg_is_in_recovery() FROM quantadb_status()'), 'inert|t', 'a cold copy put back is a stranger');
$c->stop(1, 'immediate');

# A backup with its label, and one that is to be recovered to a point in time.
put_back($backup, $n1);
$c->start(1);
is($c->sql(1, 'SELECT state, pg_is_in_recovery() FROM quantadb_status()'), 'inert|t', 'so is a backup put back');
$c->stop(1, 'immediate');
put_back($backup, $n1);
recover_to(1, 'here');
is($c->state_now(1), 'inert', 'and one that is recovered to a point in time');
$c->stop(1);
$c->start(1);
is($c->sql(1, 'SELECT state, pg_is_in_recovery() FROM quantadb_status()'), 'inert|f', 'for good');
is($c->sql(1, 'SELECT string_agg(x::text, \',\' ORDER BY x) FROM t'), '1,2', 'with its rows');
done_testing();
