# A recovery looks for the newest timeline by counting up to the first missing history file.
# Timelines that were granted and never opened leave no gap in the archive.
use strict;
use warnings;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(sleep);

my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';
my $c = QuantaCluster->new(n => 3);
my ($archive, $base) = map { "$c->{dir}/$_" } qw(archive base);
sub as_owner { return QuantaCluster::run_ok(@{$c->node(1)->{enter}}, @_) }
as_owner('mkdir', $archive);
$c->{conf} = "archive_mode = on\narchive_command = 'if test -e $archive/%f; then cmp -s %p $archive/%f; "
  . "else cp %p $archive/%f.new && mv $archive/%f.new $archive/%f; fi'\n";
$c->create_first(1);
$c->init(1);
$c->join_copy($_) for 2, 3;
$c->wait_complete;
$c->sql(1, 'CREATE TABLE w (x bigint PRIMARY KEY)');
as_owner("$bindir/pg_basebackup", '-h', '127.0.0.1', '-p', $c->node(1)->{sql}, '-U', 'postgres',
	'-D', $base, '-X', 'none', '-c', 'fast', '--no-manifest');
$c->start_writers(1, 'w');

# Kills the primary, and its successor as soon as it is named.
sub lose_two
{
	my $first = $c->primary;
	my %marks = map { $_ => -s $c->node($_)->{log} } $c->all;
	my $second;
	$c->kill_all($first);
	$c->wait_for(sub {
		for my $i (grep { $_ != $first } $c->all)
		{
			my $log = substr(QuantaCluster::slurp($c->node($i)->{log}), $marks{$i});
			return $second = $1 if $log =~ /\[failover\] n(\d) was chosen/;
		}
		return 0;
	}, 30, 'a successor is named');
	$c->kill_all($second);
	$c->start($_) for $first, $second;
	$c->wait_for(sub { my $p = $c->primary; $p && $c->write_ok($p) }, 60, 'a primary again');
}

my ($gap, $timeline) = (0);
for (1 .. 8)
{
	lose_two();
	my $p = $c->primary or next;
	$timeline = $c->sql($p, 'SELECT timeline FROM quantadb_status()');
	my %known = map { $_ => 1 } QuantaCluster::slurp(sprintf('%s/pg_wal/%08X.history', $c->node($p)->{data}, $timeline)) =~ /^(\d+)\t/mg;
	$gap = grep { !$known{$_} } 1 .. $timeline - 1;
	$c->wait_for(sub { 2 == grep { $c->state($_) eq 'replica' } $c->all }, 90, 'all stream');
	last if $gap;
}
ok($gap, "timeline $timeline has skipped $gap numbers");
$c->wait_for(sub { scalar($c->acknowledged) >= 20 }, 60, '20 acknowledged rows');
$c->stop_writers;
my $p = $c->primary;
my ($last) = $c->sql($p, q{SELECT pg_create_restore_point('end'); SELECT pg_walfile_name(pg_switch_wal())}) =~ /([0-9A-F]{24})/;
$c->wait_for(sub { -e "$archive/$last" }, 120, 'all is archived');
my @missing = grep { !-e sprintf('%s/%08X.history', $archive, $_) } 2 .. $timeline;
is("@missing", '', 'the archive has a history file for each number');

my $data = "$c->{dir}/restored";
as_owner('cp', '-a', $base, $data);
$c->{nodes}[4] = { %{$c->node(3)}, name => 'r', data => $data, log => "$c->{dir}/r.log" };
@{$c->{nodes}[4]}{qw(sql raft replication http)} = QuantaCluster::free_ports(4);
$c->{n} = 4;
QuantaCluster::append_file("$data/postgresql.conf", "restore_command = 'cp $archive/%f %p'
recovery_target_name = 'end'\nrecovery_target_action = 'promote'\n");
QuantaCluster::append_file("$data/recovery.signal", '');
$c->write_settings(4);
QuantaCluster::append_file("$data/node.conf", "archive_mode = off\n");
$c->start(4);
$c->wait_for(sub { ($c->sql_try(4, 'SELECT pg_is_in_recovery()'))[1] eq 'f' }, 60, 'recovered');
is(join(',', $c->missing_numbers(4, 'w')), '', 'a recovery to the latest timeline has every acknowledged row');
done_testing();
