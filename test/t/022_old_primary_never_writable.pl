# A killed primary that comes back is never writable: a replica, or a standby that
# says why it cannot follow.
use strict;
use warnings;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $c = QuantaCluster->new_cluster(n => 3);
my $old = $c->primary;
$c->sql($old, 'CREATE TABLE w (x bigint PRIMARY KEY); CREATE TABLE probe (x int)');
$c->start_writers(2, 'w');
$c->wait_for(sub { scalar($c->acknowledged) >= 30 }, 60, '30 acknowledged rows');
my $at = $c->kill_all($old);
$c->wait_for(sub { defined $c->outage_ms($at) }, 60, 'a new primary');

$c->start($old);
my ($tries, $written, $wrong) = (0, 0, 0);
my $state = '';
my $until = time + 180;
my $settled = 0;
while (time < $until && $settled < 10)
{
	my ($code) = $c->sql_try($old, 'INSERT INTO probe VALUES (1)', timeout => 30);
	$written++ if $code == 0;
	$tries++;
	$state = $c->state($old);
	$wrong++ if $state eq 'primary' || ($c->http($old, '/primary'))[0] == 200;
	$settled++ if $state eq 'replica' || $state eq 'standby';
}
$c->stop_writers;
cmp_ok($tries, '>=', 10, "$tries attempts");
is($written, 0, 'none of them wrote');
is($wrong, 0, 'it never called itself primary');
like($state, qr/^(replica|standby)$/, "it is $state");
if ($state eq 'standby')
{
	my $p = $c->await_primary;
	isnt($c->sql($p, "SELECT coalesce(why_not, '') FROM quantadb_nodes WHERE name = 'n$old'"),
		'', 'and says why it is not eligible');
}
else
{
	$c->wait_replayed($old, $c->await_primary);
	is(scalar($c->missing_numbers($old, 'w')), 0, 'and has every acknowledged row');
}
is(scalar($c->missing_numbers($c->await_primary, 'w')), 0, 'the primary has every acknowledged row');
is($c->sql($c->await_primary, 'SELECT count(*) FROM probe'), '0', 'and no row of the old one');

done_testing();
