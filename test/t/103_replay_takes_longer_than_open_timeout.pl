# A failover whose WAL takes longer to replay than open_timeout allows for has an end all the same:
# no seat begins replay anew.  Who is asked to switch over to such a node is told so first.
use strict;
use warnings;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

# All that changes stays in memory, so that recovery remembers nothing of how far it has come.
my $c = QuantaCluster->new_cluster(n => 3, conf => "shared_buffers = 384MB\nmax_wal_size = 4GB\nautovacuum = off");
my $p = $c->primary;
my @others = grep { $_ != $p } $c->all;
$c->sql($p, "CREATE TABLE t (x int, y text); INSERT INTO t SELECT g, repeat('x', 40) FROM generate_series(1, 20000) g");
$c->wait_replayed($_, $p) for @others;
$c->sql($p, "SELECT quantadb_set('open_timeout', '500ms')");
for my $i (@others)
{
	$c->sql($i, 'SELECT pg_wal_replay_pause()');
	$c->wait_for(sub { $c->sql($i, 'SELECT pg_get_wal_replay_pause_state()') eq 'paused' }, 60, "n$i replays nothing");
}
# In transactions of their own, so that the table stays small.
$c->sql($p, "DO 'BEGIN FOR i IN 1..80 LOOP UPDATE t SET x = x + 1; COMMIT; END LOOP; END'");
my $epoch = $c->sql($p, 'SELECT epoch FROM quantadb_status()');
my ($code, undef, $err) = $c->sql_try($p, "SELECT quantadb_promote('n$others[0]')", timeout => 120);
like($err, qr/its replay is \d+ bytes behind/, 'no switchover to who has that much to replay');
is($c->sql($p, 'SELECT epoch FROM quantadb_status()'), $epoch, 'the primary is as before');
$c->kill_all($p);
my $begin = time;
my $n;
$c->wait_for(sub { $n = $c->primary; $n && $n != $p && $c->write_ok($n) }, 120, 'a primary in spite of that');
pass('a primary in spite of that');
note(sprintf('%.1f s, %d epochs', time - $begin, $c->sql($n, 'SELECT epoch FROM quantadb_status()') - $epoch));
is($c->sql($n, 'SELECT min(x) FROM t'), '81', 'nothing is lost');
my $log = join('', map { QuantaCluster::slurp($c->node($_)->{log}) } @others);
my @begun = $log =~ m{Promoting to PRIMARY role: .* from ([0-9A-F]+)/([0-9A-F]+) of timeline \d+\n.*Replay has come to ([0-9A-F]+)/([0-9A-F]+)}g;
cmp_ok(scalar @begun, '>=', 4, 'a promotion was begun');
while (my ($fork_hi, $fork, $hi, $lo) = map { hex } splice(@begun, 0, 4))
{
	cmp_ok((($fork_hi - $hi) << 32) + $fork - $lo, '<=', 16 * 1024 * 1024, 'when replay was about through');
}
done_testing();
