# A member whose WAL is gone everywhere gets its data anew, by itself, and stays who it was;
# a server that cannot take the cluster's data is told why, and keeps its own.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';
my $c = QuantaCluster->new(n => 4);
$c->{n} = 3;
$c->create_first(1);
$c->init(1);
my $space = "$c->{dir}/space";
QuantaCluster::run_ok(@{$c->node(1)->{enter}}, 'mkdir', $space);
$c->sql(1, "CREATE TABLESPACE space LOCATION '$space'");
$c->sql(1, 'CREATE TABLE far (x int PRIMARY KEY) TABLESPACE space; INSERT INTO far SELECT generate_series(1, 1000);
	CREATE TABLE t (x int); CREATE EXTENSION amcheck');

# Refusals leave a server as it was.
sub is_refused
{
	my ($what, $like, %args) = @_;
	$c->{n} = 4;
	my ($code, $out, $err) = $c->ask_join(4, 1);
	isnt($code, 0, "refused: $what");
	like($err, $like, 'and why');
	like($err, qr/HINT: +\S/, 'and what to do') unless $args{no_hint};
	$c->wait_for(sub { $c->sql(1, 'SELECT count(*) FROM quantadb_nodes') eq '1' }, 30, 'it has left');
	is($c->sql(4, 'SELECT count(*) FROM mine'), '3', 'its data is there');
	is($c->state_now(4), 'inert', 'and it is no member');
	$c->{n} = 3;
}
my $four = $c->node(4);
QuantaCluster::run_ok(@{$four->{enter}}, "$bindir/initdb", '-A', 'trust', '-U', 'postgres', '-N', '-E', 'UTF8',
	'--locale=C', '--wal-segsize=1', '-D', $four->{data});
QuantaCluster::append_file("$four->{data}/postgresql.conf", "include = 'node.conf'\n");
$c->write_settings(4);
$c->start(4);
$c->sql(4, 'CREATE EXTENSION quantadb; CREATE TABLE mine AS SELECT generate_series(1, 3) x');
is_refused('another WAL segment size', qr/WAL segment size is 16777216, this server's is 1048576.*--wal-segsize/s);
$c->stop(4);
QuantaCluster::run_ok('rm', '-rf', $four->{data});
$c->create_first(4);
$c->sql(4, 'CREATE EXTENSION quantadb; CREATE TABLE mine AS SELECT generate_series(1, 3) x');
chmod 0555, $space;
is_refused('a tablespace that cannot be put anywhere', qr/could not (create|write to) directory.*tablespace.*Create the folder/s);
chmod 0700, $space;
# As on a machine where it is installed.
$c->sql(1, q{CREATE DATABASE elsewhere; UPDATE pg_database SET datcollate = 'xx_YY.utf8', datctype = 'xx_YY.utf8'
	WHERE datname = 'elsewhere'});
is_refused('a locale that this machine lacks', qr/uses the locale "xx_YY.utf8".*Install it/s);
$c->sql(1, 'DROP DATABASE elsewhere');
$c->{n} = 4;
$c->stop(4);
$c->{n} = 3;

# Joins by a clone, with a tablespace that lies where the primary's does.
$c->join_fresh($_, 1) for 2, 3;
$c->wait_complete;
is($c->sql(2, 'SELECT count(*) FROM far'), '1000', 'a tablespace came too');
isnt(readlink((glob($c->node(2)->{data} . '/pg_tblspc/*'))[0]), $space, 'into a folder of its own');

# A voter was away, and nobody has the WAL that it needs.
my $member = $c->sql(1, q{SELECT string_agg(name, ',' ORDER BY name) FROM quantadb_nodes});
$c->stop(3);
$c->sql(1, 'INSERT INTO t SELECT generate_series(1, 1000); DELETE FROM far WHERE x > 500');
for (1 .. 3)
{
	$c->sql(1, 'INSERT INTO t VALUES (0); SELECT pg_switch_wal()');
}
$c->sql(1, 'CHECKPOINT');
$c->wait_replayed(2, 1);
my $keep = $c->sql(1, 'SELECT pg_walfile_name(redo_lsn) FROM pg_control_checkpoint()');
for my $i (1, 2)
{
	unlink grep { m{/([0-9A-F]{24})$} && $1 lt $keep } glob($c->node($i)->{data} . '/pg_wal/*');
}
$c->start(3);
$c->wait_for(sub { ($c->state(3) eq 'replica') && $c->sql(1, q{SELECT count(*) FROM quantadb_journal
	WHERE event = 'clone_done' AND node = 'n3'}) eq '2' }, 90, 'n3 has been cloned again');
$c->wait_complete;
like($c->sql(1, q{SELECT string_agg(event, ' ' ORDER BY number) FROM quantadb_journal WHERE node = 'n3' AND event LIKE 'clone%'}),
	qr/clone_due (clone )+clone_done$/, 'the journal says why and when');
is($c->sql(1, q{SELECT string_agg(name, ',' ORDER BY name) FROM quantadb_nodes WHERE role = 'voter'}), $member, 'it is the voter that it was');
$c->wait_replayed(3, 1);
is($c->fingerprint(3), $c->fingerprint(1), 'its tables are the primary\'s');
is($c->amcheck(3), '', 'amcheck has nothing to say');

# Its vote and its data count.
$c->kill_all(1);
my $p;
$c->wait_for(sub { $p = $c->primary; $p && $p != 1 && $c->write_ok($p) }, 60, 'two go on without the third');
is($c->sql($p, 'SELECT count(*) FROM t WHERE x > 0'), '1000', 'with all rows');
done_testing();
