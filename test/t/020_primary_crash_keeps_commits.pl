# kill -9 of every process of the primary under load: another takes over within
# seconds and every acknowledged row is on every member that streams.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3, quick => 1);
my $old = $c->primary;
my $epoch = $c->sql($old, 'SELECT epoch FROM quantadb_status()');
$c->sql($old, 'CREATE TABLE w (x bigint PRIMARY KEY)');

$c->start_writers(2, 'w');
$c->wait_for(sub { scalar($c->acknowledged) >= 50 }, 60, '50 acknowledged rows');
my $at = $c->kill_all($old);
$c->wait_for(sub { defined $c->outage_ms($at) }, 60, 'an acknowledged write after the crash');
my $outage = $c->outage_ms($at);
my $before = grep { $_->[2] < $at } $c->acknowledged;
$c->wait_for(sub { scalar($c->acknowledged) >= $before + 20 }, 60, 'more of them');
$c->stop_writers;

note("outage $outage ms");
cmp_ok($outage, '<', 30000, "writes again after $outage ms");
my $new = $c->await_primary;
isnt($new, $old, 'another node is primary');
$c->be_patient($new);
cmp_ok($c->sql($new, 'SELECT epoch FROM quantadb_status()'), '>', $epoch, 'in a newer epoch');
is(scalar($c->missing_numbers($new, 'w')), 0, 'the new primary has every acknowledged row');

my ($other) = grep { $_ != $old && $_ != $new } $c->all;
$c->wait_for(sub { $c->state($other) eq 'replica' }, 30, "n$other follows");
$c->wait_replayed($other, $new);
is(scalar($c->missing_numbers($other, 'w')), 0, 'so has the other replica');
cmp_ok($c->sql($new, "SELECT count(*) FROM quantadb_journal WHERE epoch > $epoch"), '>=', 1,
	'the journal tells of the failover');

done_testing();
