# One archive for all members: across failovers it gets no row that was taken back, has no
# hole where the old primary had not come to it, and a recovery from it has each acknowledged row.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';
my $c = QuantaCluster->new(n => 3);
my ($archive, $base, $broken, $clash) = map { "$c->{dir}/$_" } qw(archive base broken clash);
sub as_owner { return QuantaCluster::run_ok(@{$c->node(1)->{enter}}, @_) }
as_owner('mkdir', $archive);
# As docs/operations.md has it, and able to fail.
my $script = "$c->{dir}/archive.sh";
QuantaCluster::append_file($script, <<"SH");
path=\$1 name=\$2
test ! -e $broken || exit 1
if test -e "$archive/\$name"; then
	cmp -s "\$path" "$archive/\$name" && exit 0
	echo "\$name" >> $clash
	exit 1
fi
cp "\$path" "$archive/\$name.\$\$" && sync "$archive/\$name.\$\$" && mv "$archive/\$name.\$\$" "$archive/\$name"
SH
QuantaCluster::run_ok('chown', 'postgres:', $script) if $> == 0;
$c->{conf} = "archive_mode = on\narchive_command = 'bash $script %p %f'\nwal_compression = off\n";
$c->create_first(1);
$c->init(1);
$c->join_copy($_) for 2, 3;
$c->wait_complete;
$c->sql(1, 'CREATE TABLE t (x int); CREATE TABLE gone (s text)');
as_owner("$bindir/pg_basebackup", '-h', '127.0.0.1', '-p', $c->node(1)->{sql}, '-U', 'postgres',
	'-D', $base, '-X', 'none', '-c', 'fast', '--no-manifest');
sub ready { return $c->sql($_[0], q{SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'}) }
sub has_archived { return -e "$archive/$_[0]" }

$c->start_writers(2, 't');
my $first = $c->sql(1, 'SELECT pg_walfile_name(pg_switch_wal())');
$c->wait_for(sub { has_archived($first) }, 30, 'a segment is archived');
is($c->sql(2, q{SELECT count(*) FROM pg_stat_archiver WHERE archived_count + failed_count > 0}), '0', 'a replica archives nothing');

# A whole segment that no quorum has, and an archive that would take it.
$c->signal_receivers('STOP', 1);
my $dead = $c->sql(1, q{SET synchronous_commit = local;
	INSERT INTO gone SELECT 'taken back' FROM generate_series(1, 100);
	SELECT pg_walfile_name(pg_switch_wal())});
my ($tried) = $dead =~ /([0-9A-F]{24})/;
$c->wait_for(sub { QuantaCluster::slurp($c->node(1)->{log}) =~ /"$tried" is not archived yet/ || has_archived($tried) }, 60,
	'the archiver has come to it');
ok(!has_archived($tried), 'what no quorum has is not archived');
$c->kill_all(1);
$c->signal_receivers('TERM', 1);
$c->signal_receivers('CONT', 1);
my $p;
$c->wait_for(sub { $p = $c->primary; $p && $p != 1 && $c->write_ok($p) }, 60, 'a new primary');
$c->start(1);
$c->wait_for(sub { $c->state(1) eq 'replica' }, 60, 'n1 is back');
$c->wait_complete;

# The archive is away; what is complete meanwhile is still to be archived when the primary dies.
QuantaCluster::append_file($broken, '');
my @held;
for my $n (1 .. 3)
{
	$c->wait_for(sub { ($c->sql_try($p, "INSERT INTO gone VALUES ('kept $n')"))[0] == 0 }, 20, 'a write');
	push @held, $c->sql($p, 'SELECT pg_walfile_name(pg_switch_wal())');
}
ok(!has_archived($held[2]), 'nothing of it is archived');

$c->kill_all($p);
my $q;
$c->wait_for(sub { $q = $c->primary; $q && $q != $p && $c->write_ok($q) }, 60, 'another primary');
unlink $broken;
$c->stop_writers;
my $last = $c->sql($q, q{SELECT pg_create_restore_point('end'); SELECT pg_walfile_name(pg_switch_wal())});
($last) = $last =~ /([0-9A-F]{24})/;
$c->wait_for(sub { has_archived($last) && ready($q) eq '0' }, 90, 'all is archived');
ok(has_archived($held[$_]), 'what the last primary had not archived is there') for 0, 2;
is(QuantaCluster::slurp($clash), '', 'nobody tried to replace a file by another');
my @with = grep { QuantaCluster::slurp($_) =~ /taken back/ } glob("$archive/*");
is("@with", '', 'no file has a row that was taken back');

# Recovery from the first backup, along three timelines.
my $data = "$c->{dir}/restored";
as_owner('cp', '-a', $base, $data);
$c->{nodes}[4] = { %{$c->node(3)}, name => 'r', data => $data, log => "$c->{dir}/r.log" };
@{$c->{nodes}[4]}{qw(sql raft replication http)} = QuantaCluster::free_ports(4);
$c->{n} = 4;
QuantaCluster::append_file("$data/postgresql.conf", "restore_command = 'cp $archive/%f %p'
recovery_target_name = 'end'\nrecovery_target_action = 'promote'\narchive_mode = off\n");
QuantaCluster::append_file("$data/recovery.signal", '');
$c->write_settings(4);
QuantaCluster::append_file("$data/node.conf", "archive_mode = off\n");
$c->start(4);
$c->wait_for(sub { ($c->sql_try(4, 'SELECT pg_is_in_recovery()'))[1] eq 'f' }, 60, 'recovered');
is(join(',', $c->missing_numbers(4, 't')), '', 'every acknowledged row is there');
is($c->sql(4, q{SELECT string_agg(DISTINCT s, ',' ORDER BY s) FROM gone}), 'kept 1,kept 2,kept 3', 'and none that was taken back');
is($c->state_now(4), 'inert', 'in a server of its own');
done_testing();
