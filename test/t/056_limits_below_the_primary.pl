# A server whose max_connections and the like are below the primary's can never replay
# its WAL: it is not let in, or says why it cannot be primary; nothing ends it, and a
# restart mends it.  And a joiner does not notice that the member it asks is behind.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 4);
$c->create_first(1);
$c->init(1);
$c->join_copy($_) for 2, 3;
$c->{n} = 3;
$c->wait_complete;

sub configure { my ($i, $text) = @_; QuantaCluster::append_file($c->node($i)->{data} . '/node.conf', $text) }
sub why_not { my ($on, $i) = @_; return ($c->sql_try($on, "SELECT eligible::text || ' ' || coalesce(why_not, '') FROM quantadb_nodes WHERE name = 'n$i'"))[1] }

# ---- at a join ----
$c->create_first(4);
configure(4, "max_connections = 49\nmax_wal_senders = 10\n");
$c->stop(4);
$c->start(4);
is($c->sql(4, 'SHOW max_wal_senders'), '32', 'what would be too small for any cluster is raised');
$c->sql(4, 'CREATE EXTENSION quantadb');
my $p = $c->primary;
my ($t, $o) = grep { $_ != $p } 1 .. 3;
my ($code, undef, $err) = $c->ask_join(4, $p);
isnt($code, 0, 'a server with fewer connections is not let in');
like($err, qr/its max_connections is below the cluster's 50/, 'and told why');

# A member whose coordinator stands still while the token is made has not heard of it.
configure(4, "max_connections = 50\n");
$c->stop(4);
$c->start(4);
my ($coordinator) = grep { QuantaCluster::slurp("/proc/$_/cmdline") =~ /quantadb coordinator/ }
  QuantaCluster::children_of($c->postmaster($o));
kill 'STOP', $coordinator;
my $token = $c->sql($p, "SELECT quantadb_join_token('replica')");
my $child = fork();
die "fork: $!" unless defined $child;
if ($child == 0)
{
	select(undef, undef, undef, 0.7);
	kill 'CONT', $coordinator;
	POSIX::_exit(0);
}
($code, undef, $err) = $c->ask_join(4, $o, token => $token);
waitpid($child, 0);
ok($code == 0 || $err =~ /57P/, 'a member that has not heard of the token yet lets the joiner in') or diag($err);
$c->wait_for(sub { $c->state(4) eq 'replica' }, 60, 'n4 streams');
ok(eval { $c->wait_for(sub { why_not($p, 4) =~ /^false .*is no voter/ }, 20, 'its role'); 1 }, 'as a replica') or diag(why_not($p, 4));

# ---- later: the next primary has more ----
$c->wait_complete;
$p = $c->primary;
($t, $o) = grep { $_ != $p } $c->all;
$c->sql($p, 'CREATE TABLE l (x int)');
$c->stop($t);
configure($t, "max_connections = 80\nmax_prepared_transactions = 5\n");
$c->start($t);
$c->wait_complete;
$c->sql($t, 'SELECT quantadb_promote()', timeout => 120);
for my $i ($p, $o)
{
	$c->wait_for(sub { why_not($t, $i) =~ /^false its max_connections is below the cluster's 80/ }, 30, "n$i says why");
	pass("n$i cannot be primary and says why");
	$c->sql_becomes($i, "SELECT why_not FROM quantadb_status()", qr/max_connections/, 'on itself too');
}
$c->wait_for(sub { $c->sql($o, 'SELECT pg_get_wal_replay_pause_state()') eq 'paused' }, 30, 'replay is paused');
$c->sql($t, 'INSERT INTO l VALUES (1)');
pass('commits go on: what is flushed there counts');
$c->sql_becomes($t, 'SELECT can_lose FROM quantadb_status()', '0', 'but nobody could follow the primary, and can_lose says so');

# ---- the primary goes: none of the others can open, and none of them ends ----
$c->sql($t, "SELECT quantadb_set('open_timeout', '1s')");
$c->kill_all($t);
$c->wait_for(sub { $c->sql($o, 'SELECT epoch FROM quantadb_status()') >= $c->sql($o, "SELECT max(epoch) FROM quantadb_journal WHERE event = 'seat'") + 2 },
	30, 'epochs pass without a primary');
is($c->sql($o, 'SELECT pg_get_wal_replay_pause_state()'), 'paused', 'nobody ends the pause, which would end the server');
# No query is in the way of a replay that cannot go on.
is($c->sql($_, 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM l; SELECT pg_sleep(3); COMMIT'), "0\n", "n$_ serves") for $p, $o;
is($c->primary, 0, 'there is no primary');

# ---- a restart is all it takes ----
$c->wait_for(sub { ($c->sql_try($o, "SELECT quantadb_set('open_timeout', '20s')"))[0] == 0 }, 60, 'time to open');
$c->stop($_) for $p, $o;
$c->start($_) for $p, $o;
is($c->sql($_, 'SHOW max_connections'), '80', "n$_ has what the WAL demands") for $p, $o;
like(QuantaCluster::slurp($c->node($o)->{log}), qr/max_connections is raised from 50 to 80/, 'and its log says so');
$c->wait_for(sub { $c->primary }, 60, 'a primary');
is($c->sql($c->await_primary, 'SELECT count(*) FROM l'), '1', 'with every row');
$c->start($t);
$c->wait_complete(90);
pass('three voters stream');
done_testing();
