# quantadb_init adopts a running server with its data, without a restart; alone it
# commits alone, and comes back as primary by itself.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 1);
$c->create_first(1);
$c->sql(1, 'CREATE TABLE kept AS SELECT generate_series(1, 1000) AS x');
$c->sql(1, "ALTER SYSTEM SET wal_keep_size = '3GB'");
$c->sql(1, 'SELECT pg_reload_conf()');
$c->sql_becomes(1, 'SHOW wal_keep_size', '3GB', 'a setting of the user');
my $postmaster = $c->postmaster(1);

$c->init(1);
is($c->postmaster(1), $postmaster, 'no restart');
is($c->sql(1, 'SELECT count(*) FROM kept'), '1000', 'the data is there');
is($c->sql(1, 'SHOW wal_keep_size'), '3GB', 'and what its configuration says of WAL');
is($c->sql(1, 'SELECT cluster, node, state, "primary" FROM quantadb_status()'),
	'test|n1|primary|n1', 'status');
is($c->sql(1, 'SELECT name, role, state FROM quantadb_nodes'), 'n1|voter|primary', 'one member');
cmp_ok($c->sql(1, 'SELECT epoch FROM quantadb_status()'), '>=', 1, 'an epoch was granted');
cmp_ok($c->sql(1, 'SELECT count(*) FROM quantadb_journal'), '>=', 1, 'the journal tells of it');

my ($code, $out, $err) = $c->sql_try(1, "SELECT quantadb_init('again')");
isnt($code, 0, 'a member cannot be initialised again');
($code, $out, $err) = $c->sql_try(1, "ALTER SYSTEM SET synchronous_standby_names = ''");
isnt($code, 0, 'owned settings are refused');
like($err, qr/HINT/, 'with a hint');

# ... nor does a reload change what an acknowledged commit and a demotion depend on, though
# the server has not started as a member yet.
QuantaCluster::append_file($c->node(1)->{data} . '/node.conf',
	"fsync = off\nfull_page_writes = off\nrestart_after_crash = off\nquantadb.heartbeat_interval = 99ms\n");
sub owned { return $c->sql(1, "SELECT string_agg(setting, ' ' ORDER BY name) FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'restart_after_crash')") }
$c->sql(1, 'SELECT pg_reload_conf()');
$c->sql_becomes(1, 'SHOW quantadb.heartbeat_interval', '99ms', 'a reload is done');
is(owned(), 'on on on', 'fsync and its like stay on');
unlike(QuantaCluster::slurp($c->node(1)->{log}), qr/WARNING:.*could not open/, 'no warning of folders that are not there yet');

ok(-e $c->node(1)->{data} . '/standby.signal', 'the next boot is a standby');
my $epoch = $c->sql(1, 'SELECT epoch FROM quantadb_status()');
for my $setting ('fsync = off', 'full_page_writes = off')
{
	($code) = $c->sql_try(1, "ALTER SYSTEM SET $setting");
	isnt($code, 0, "ALTER SYSTEM refuses $setting");
	QuantaCluster::append_file($c->node(1)->{data} . '/node.conf', "$setting\n");
}
QuantaCluster::append_file($c->node(1)->{data} . '/node.conf', "archive_mode = always\narchive_command = 'true'\n");
$c->kill_all(1);
$c->start(1);
$c->wait_for(sub { $c->state(1) eq 'primary' && $c->write_ok(1) }, 30, 'primary again');
pass('after kill -9 it wins the seat again');
cmp_ok($c->sql(1, 'SELECT epoch FROM quantadb_status()'), '>', $epoch, 'in a newer epoch');
is($c->sql(1, 'SELECT count(*) FROM kept'), '1000', 'with its data');
is($c->sql(1, "SHOW $_"), 'on', "$_ is on, whatever its configuration says") for qw(fsync full_page_writes);
is($c->sql(1, 'SHOW archive_mode'), 'on', 'and replicas keep no WAL for an archive of their own');

done_testing();
