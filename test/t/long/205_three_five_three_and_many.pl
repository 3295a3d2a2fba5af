# 3 voters grow to 5 and shrink to 3 under load; then 7 voters and 20 replicas without a vote
# live through the loss of three voters, the primary among them.
use strict;
use warnings;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $c = QuantaCluster->new(n => 27, conf => "shared_buffers = 4MB\nmax_wal_size = 64MB\nmin_wal_size = 32MB\nautovacuum = off\n");
$c->{n} = 1;
$c->create_first(1);
$c->init(1);
$c->join_copy($_) for 2, 3;
$c->{n} = 3;
$c->wait_complete;
$c->sql($c->primary, 'CREATE TABLE w (x bigint PRIMARY KEY)');

sub can_lose { return ($c->sql_try($c->primary || 1, 'SELECT can_lose FROM quantadb_status()'))[1] || 0 }
sub voters { return $c->sql($c->primary, "SELECT count(*) FROM quantadb_nodes WHERE role = 'voter'") }

# ---- 3 -> 5 -> 3, writes going on ----
$c->start_writers(2, 'w');
$c->join_copy($_) for 4, 5;
$c->{n} = 5;
$c->wait_complete(120);
is(voters(), '5', 'five voters');
is(can_lose(), '2', 'which survive two losses');
my $p = $c->primary;
my @lost = ($p, (grep { $_ != $p } $c->all)[0]);
$c->kill_all($_) for @lost;
$c->wait_for(sub { $c->primary }, 60, 'a primary after two losses at once');
pass('two lost at once, the primary one of them: it goes on');
$c->start($_) for @lost;
$c->wait_complete(120);
$p = $c->primary;
for my $i ((grep { $_ != $p } reverse $c->all)[0, 1])
{
	my ($code, undef, $err) = $c->sql_try($p, "SELECT quantadb_remove('n$i')", timeout => 60);
	is($code, 0, "n$i is removed under load") or diag($err);
}
is(voters(), '3', 'three voters');
$c->wait_for(sub { can_lose() == 1 }, 60, 'which survive one loss');
$c->stop_writers;
my @left = grep { $c->sql($p, "SELECT count(*) FROM quantadb_nodes WHERE name = 'n$_'") } $c->all;
for my $i (grep { $_ != $p } @left)
{
	$c->wait_replayed($i, $p);
	is(scalar($c->missing_numbers($i, 'w')), 0, "n$i has every acknowledged row");
}

# ---- 7 voters, 20 replicas ----
for my $i (grep { my $i = $_; !grep { $_ == $i } @left } 1 .. 7)
{
	if ($c->postmaster($i))
	{
		my $token = $c->sql($p, 'SELECT quantadb_join_token()');
		my $http = $c->node($p)->{http};
		$c->sql_try($i, "SELECT quantadb_join('127.0.0.1:$http', '$token')", timeout => 60);
		$c->wait_for(sub { $c->state($i) eq 'replica' }, 120, "n$i streams");
	}
	else { $c->join_copy($i, $p) }
}
$c->{n} = 7;
$c->wait_complete(180);
is(can_lose(), '3', 'seven voters survive three losses');
for my $i (8 .. 27)
{
	$c->copy_node($i, $p);
	my $token = $c->sql($p, "SELECT quantadb_join_token('replica')");
	my $http = $c->node($p)->{http};
	$c->sql_try($i, "SELECT quantadb_join('127.0.0.1:$http', '$token')", timeout => 60);
	$c->wait_for(sub { $c->state($i) eq 'replica' }, 120, "n$i streams");
}
is($c->sql($p, "SELECT count(*) FROM quantadb_replication WHERE state = 'streaming'"), '26', '26 streams leave the primary');
is($c->sql($p, "SELECT count(*) FROM quantadb_nodes WHERE role = 'replica' AND NOT eligible"), '20', 'twenty replicas cannot be primary');
is(can_lose(), '3', 'and count in no majority');
$c->sql($p, 'INSERT INTO w VALUES (-1)');

my @victims = ($p, (grep { $_ != $p } $c->all)[0, 1]);
my $begin = time;
$c->kill_all($_) for @victims;
$c->wait_for(sub { $c->primary && $c->write_ok($c->primary) }, 120, 'a primary after three losses');
note(sprintf('%.1f s after three of seven were killed', time - $begin));
my $n = $c->primary;
$c->sql($n, 'INSERT INTO w VALUES (-2)');
for my $i (8 .. 27)
{
	$c->wait_for(sub { my ($k, $r) = $c->sql_try($i, 'SELECT count(*) FROM w WHERE x < 0'); $k == 0 && $r eq '2' }, 120, "n$i has the row");
}
pass('twenty replicas follow the new primary and show the row');
$c->start($_) for @victims;
$c->wait_complete(180);
pass('seven voters stream again');
done_testing();
