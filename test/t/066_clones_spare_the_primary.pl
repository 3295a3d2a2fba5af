# A node that gets its data anew takes it from a replica, and the primary serves no file: but
# what it ends with reaches what the primary had when it forgot the node's acks (I11).  Where
# the replica dies the clone goes on from the next one, and in the end from the primary.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 4, conf => "wal_compression = off\nfull_page_writes = on\n");
$c->create_first(1);
$c->init(1);
$c->join_copy(2, 1, role => 'replica');
$c->sql(1, q{CREATE TABLE t (x int); CREATE EXTENSION amcheck; CREATE TABLE big (x int PRIMARY KEY, t text);
	INSERT INTO big SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 70000) g}, timeout => 120);
$c->wait_replayed(2, 1);

sub served { my ($i, $name) = @_; return scalar(() = QuantaCluster::slurp($c->node($i)->{log}) =~ /Serving files to node "$name" for a clone/g) }

sub begin_join
{
	my ($i, $role) = @_;
	my $token = $c->sql(1, "SELECT quantadb_join_token('$role')");
	my ($code, $out, $err) = $c->ask_join($i, 1, token => $token);
	die $err if $code != 0 && $err =~ /ERROR: +(?!57P)/;
}

# The replica lacks the last rows: its receiver stands still.
my ($receiver) = grep { QuantaCluster::slurp("/proc/$_/cmdline") =~ /walreceiver/ } QuantaCluster::children_of($c->postmaster(2));
ok($receiver, 'n2 receives');
kill 'STOP', $receiver;
my $lsn = $c->sql(1, 'INSERT INTO t SELECT generate_series(1, 1000); SELECT pg_current_wal_flush_lsn()');
$c->create_first(3);
$c->sql(3, 'CREATE EXTENSION quantadb');
begin_join(3, 'replica');
my $log3 = $c->node(3)->{log};
$c->wait_for(sub { QuantaCluster::slurp($log3) =~ /clone (waits|is complete)/ }, 90, 'all files have come');
kill 'CONT', $receiver;
$c->wait_for(sub { $c->state(3) eq 'replica' }, 120, 'n3 streams');
is($c->sql(1, q{SELECT string_agg(reason, ',') FROM quantadb_journal WHERE event = 'clone' AND node = 'n3'}),
	'gets its data from n2', 'the data came from the replica');
is(served(1, 'n3'), 0, 'and none of it from the primary');
cmp_ok(served(2, 'n3'), '>', 0, 'as the log of the replica says');
like(QuantaCluster::slurp($log3), qr/The clone waits until node "n2" has WAL up to/, 'which the clone waited for');
my ($upto) = QuantaCluster::slurp($log3) =~ m{The clone is complete up to (\S+):};
is($c->sql(1, "SELECT '$upto'::pg_lsn >= '$lsn'"), 't', 'it reaches what the primary had when it began');
$c->wait_replayed(3, 1);
is($c->fingerprint(3), $c->fingerprint(1), 'the tables are equal');

# Source after source dies.
$c->start_writers(1, 't');
$c->create_first(4);
$c->sql(4, q{CREATE EXTENSION quantadb; ALTER SYSTEM SET quantadb.clone_rate = '12MB'; SELECT pg_reload_conf()});
begin_join(4, 'replica');
my $log4 = $c->node(4)->{log};

# The node that n4 gets its data from now, once more than $bytes have come.
sub source_now
{
	my ($bytes, $but) = @_;
	my $source;
	$c->wait_for(sub {
			($source) = $c->sql(1, q{SELECT reason FROM quantadb_journal WHERE event = 'clone' AND node = 'n4' ORDER BY number DESC LIMIT 1})
			  =~ /from n(\d)/;
			my ($code, $done) = $c->sql_try(1, q{SELECT resync_done FROM quantadb_nodes WHERE name = 'n4'});
			return $source && $source != $but && ($done || 0) > $bytes;
		}, 90, 'n4 is on its way');
	return $source;
}
my $first = source_now(40e6, 0);
like($first, qr/^[23]$/, 'a replica again');
# Slow enough that the next one is found before the clone is done.
$c->sql(4, q{ALTER SYSTEM SET quantadb.clone_rate = '1MB'; SELECT pg_reload_conf()});
$c->kill_all($first);
my $second = source_now(0, $first);
is($second, 5 - $first, 'then the other one');
$c->kill_all($second);
$c->sql(4, q{ALTER SYSTEM RESET quantadb.clone_rate; SELECT pg_reload_conf()});
$c->wait_for(sub { $c->state(4) eq 'replica' }, 120, 'n4 streams');
$c->stop_writers;
my $text = QuantaCluster::slurp($log4);
like($text, qr/The clone goes on at [1-9]\d of \d+ MB/, 'it went on with what it had');
is(source_now(-1, $second), 1, 'and ended with the primary');
cmp_ok(served(1, 'n4'), '>', 0, 'which served it');
$c->wait_replayed(4, 1);
is(join(',', $c->missing_numbers(4, 't')), '', 'every acknowledged row is there');
is($c->fingerprint(4), $c->fingerprint(1), 'the tables are equal');
is($c->amcheck(4), '', 'amcheck has nothing to say');
done_testing();
