# A primary whose disk fills up gives its seat up while there is still room to do so in
# order: nothing is thrown away, it says why, and it is not chosen again until it
# has room.  A small file system of its own needs root.
use strict;
use warnings;
use QuantaNet;
use QuantaClient;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 3);
my $data = $c->node(1)->{data};
mkdir $data;
QuantaCluster::run_ok('mount', '-t', 'tmpfs', '-o', 'size=320m', 'tmpfs', $data);
END
{
	my $code = $?;
	if ($c) { $c->teardown; system('umount', '-l', $data) }
	$? = $code;
}
QuantaCluster::run_ok('chown', 'postgres:', $data);
chmod 0700, $data;

$c->create_first;
$c->init(1);
$c->join_copy($_) for 2, 3;
$c->wait_complete;
is($c->state_now(1), 'primary', 'n1 is primary on its small disk');
$c->sql(1, 'CREATE TABLE w (x bigint PRIMARY KEY)');
my @load = QuantaClient::start($c, 2, 'w');
$c->wait_for(sub { scalar($c->acknowledged) >= 30 }, 60, '30 acknowledged rows');

# All but 40 MB.
my ($free) = QuantaCluster::run_ok('df', '-B', '1M', '--output=avail', $data) =~ /(\d+)\s*$/;
QuantaCluster::run_ok('fallocate', '-l', ($free - 40) . 'M', "$data/ballast");
my $p;
$c->wait_for(sub { ($p) = grep { $_ != 1 && $c->state($_) eq 'primary' } 2, 3; $p }, 30, 'another primary');
$c->wait_for(sub { $c->state(1) eq 'replica' }, 60, 'n1 streams');
my ($rc) = $c->sql_try($p, "SELECT quantadb_promote('n1')", timeout => 120);
isnt($rc, 0, 'it cannot be promoted as soon as it is back');
QuantaClient::stop(@load);
like($c->sql($p, "SELECT string_agg(reason, ' ') FROM quantadb_journal WHERE event = 'release'"),
	qr/its disk is full: \d+ MB are left, 64 are wanted/, 'the journal says why');
is($c->sql(1, 'SELECT count(*) FROM quantadb_lost_writes'), '0', 'nothing was thrown away');
$c->wait_for(sub { $c->sql($p, "SELECT why_not FROM quantadb_nodes WHERE name = 'n1'") =~ /disk/ }, 20, 'why_not of n1');
pass('why_not says so as well');
my ($code, undef, $err) = $c->sql_try($p, "SELECT quantadb_promote('n1')", timeout => 120);
isnt($code, 0, 'it cannot be promoted');
like($err, qr/its disk/, 'with the reason');

unlink "$data/ballast";
$c->wait_for(sub { $c->sql($p, "SELECT why_not FROM quantadb_nodes WHERE name = 'n1'") eq '' }, 40, 'n1 is fit again');
$c->becomes(sub { $c->sql($p, "SELECT quantadb_promote('n1') > 0") }, 't', 'with room it can');
for my $i (1 .. 3)
{
	$c->wait_for(sub { $c->state($i) =~ /replica|primary/ }, 60, "n$i serves");
	$c->wait_replayed($i, 1) if $i != 1;
	is(scalar($c->missing_numbers($i, 'w')), 0, "n$i has every acknowledged row");
}
done_testing();
