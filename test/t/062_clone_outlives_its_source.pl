# The primary dies while a fresh server clones from it, under load: the clone goes on from
# the next primary with what it has, and what it ends with is the primary's data.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';
my $rate = 8;					# MB/s
my $c = QuantaCluster->new(n => 4, conf => "wal_compression = off\nfull_page_writes = on\n");
$c->create_first(1);
$c->init(1);
$c->join_copy($_) for 2, 3;
$c->sql(1, q{CREATE TABLE big (x int PRIMARY KEY, t text);
	INSERT INTO big SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 70000) g;
	CREATE TABLE t (x int); CREATE EXTENSION amcheck;
	CREATE TABLE wide (t text);
	ALTER TABLE wide ALTER t SET STORAGE EXTERNAL}, timeout => 120);
$c->create_first(4);
$c->sql(4, "CREATE EXTENSION quantadb; ALTER SYSTEM SET quantadb.clone_rate = '${rate}MB'; SELECT pg_reload_conf()");
$c->{n} = 3;
$c->wait_complete;
$c->start_writers(2, 't');
$c->{n} = 4;

my $log = $c->node(4)->{log};
my ($code, $out, $err) = $c->ask_join(4, 1);
is($code, 0, 'the call returns while the data comes') or diag $err;
sub progress
{
	my ($i) = @_;
	my ($ok, $row) = $c->sql_try($i, q{SELECT resync, resync_done, resync_total FROM quantadb_nodes WHERE name = 'n4'});
	return $ok == 0 ? split(/\|/, $row) : ();
}
my (@seen, $step, $done, $total);
$c->wait_for(sub {
		($step, $done, $total) = progress(1);
		push @seen, $done if $done && (!@seen || $seen[-1] != $done);
		return ($done || 0) > 40e6;
	}, 60, 'some of it has come');
is($step, 'clone', 'others see what n4 does');
cmp_ok($total, '>', 70e6, 'how much there is to do');
cmp_ok(scalar @seen, '>', 2, 'and how far it is, every few MB');
# It gets no further before the source is dead, and then as fast as it can.
$c->signal_children('STOP', 4, 'quantadb resync');
is(() = QuantaCluster::slurp($log) =~ /The clone is complete/g, 0, 'it is in the middle');
$c->kill_all(1);
my $p;
$c->wait_for(sub { $p = $c->primary; $p && $p != 1 }, 60, 'another primary');
$c->sql(4, $_) for 'ALTER SYSTEM RESET quantadb.clone_rate', 'SELECT pg_reload_conf()';
$c->signal_children('CONT', 4, 'quantadb resync');
$c->wait_for(sub { $c->sql_try($p, q{INSERT INTO wide SELECT repeat('y', 1000000) FROM generate_series(1, 3)}); $c->state(4) eq 'replica' },
	120, 'n4 streams');
$c->stop_writers;
my $text = QuantaCluster::slurp($log);
like($text, qr/The clone goes on at ([1-9]\d) of \d+ MB/, 'it went on with what it had');
is(() = $text =~ /Cloning \d+ MB/g, 1, 'and did not begin anew');

# The minimum recovery point is one that replay can reach: a record begins there.
my ($lsn) = $text =~ m{The clone is complete up to (\S+):};
my $timeline = $c->sql($p, 'SELECT timeline FROM quantadb_status()');
my $dump = QuantaCluster::run_ok(@{$c->node($p)->{enter}}, "$bindir/pg_waldump", '-p', $c->node($p)->{data} . '/pg_wal',
	'-t', $timeline, '-s', $lsn, '-n', '1');
my ($first) = $dump =~ m{lsn: ([0-9A-F]+/[0-9A-F]+)};
cmp_ok($c->sql($p, "SELECT '$first'::pg_lsn - '$lsn'"), '<=', 40, "a record begins at $lsn");
unlike($dump, qr/skip/i, 'and not in the middle of one');

$c->wait_replayed(4, $p);
is(join(',', $c->missing_numbers(4, 't')), '', 'every acknowledged row is there');
is($c->fingerprint(4), $c->fingerprint($p), 'the tables are equal');
is($c->amcheck(4), '', 'amcheck has nothing to say');
done_testing();
