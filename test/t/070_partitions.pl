# Real partitions: a primary that is cut off stops within its lease and the majority goes
# on; a voter that loses only its link to the primary causes no failover.
use strict;
use warnings;
use QuantaNet;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $net = QuantaNet->new(3);
my $c = QuantaCluster->new_cluster(n => 3, quick => 1, net => $net);
my $p = $c->primary;
my ($r, $s) = grep { $_ != $p } $c->all;
$c->sql($p, 'CREATE TABLE w (x bigint PRIMARY KEY)');
my $epoch = 'SELECT epoch FROM quantadb_status()';
my ($lease) = $c->sql($p, "SELECT value FROM quantadb_settings WHERE name = 'lease_duration'") =~ /(\d+)/;
# So that a busy machine is no partition; what is cut is away for much longer.
$c->sql($p, "SELECT quantadb_set('failover_timeout', '2s')");

# ---- one voter loses only its link to the primary ----
my $before = $c->sql($p, $epoch);
$c->start_writers(1, 'w');
$c->wait_for(sub { scalar($c->acknowledged) >= 20 }, 60, 'a load');
$net->cut($p, $r);
my $acked = scalar($c->acknowledged);
$c->wait_for(sub { $c->sql($p, "SELECT NOT connected FROM quantadb_nodes WHERE name = 'n$r'") eq 't' }, 60, "n$r is not connected");
my $until = time + 8;
$c->wait_for(sub { time > $until && scalar($c->acknowledged) >= $acked + 50 }, 60, 'commits go on');
is($c->sql($p, $epoch), $before, 'no failover while another voter hears the primary');
$c->becomes(sub { $c->state($p) }, 'primary', 'which stays');
$net->heal;
$c->wait_for(sub { $c->state($r) eq 'replica' }, 60, "n$r follows again");

# ---- the primary is cut off ----
my $strict = 'SET quantadb.read_consistency = strict; SELECT count(*) FROM w';
$net->isolate($p);
my $cut = time;
# The last one that was answered began before the lease was over; how long a psql takes does not count.
my $answered = 0;
$c->wait_for(
	sub {
		my $begin = time;
		my ($code) = $c->sql_try($p, $strict);
		$answered = $begin if $code == 0;
		return $code != 0;
	}, 20, 'strict reads are refused');
note(sprintf('the last strict read began %d ms after the cut, the lease is %d ms', 1000 * ($answered - $cut), $lease)) if $answered;
cmp_ok(1000 * ($answered - $cut), '<', $lease + 100, 'strict reads end with the lease') if $answered;
isnt(($c->sql_try($p, $strict))[0], 0, 'for good');
my ($code, $out, $err) = $c->sql_try($p, 'INSERT INTO w VALUES (-1)');
isnt($code, 0, 'so do writes');
like($err, qr/25006/, 'with the SQLSTATE of a read-only node');
$c->wait_for(sub { my $n = $c->primary; $n && $n != $p }, 60, 'the majority has a primary');
my $new = $c->primary;
($code, $out, $err) = $c->psql_rw('INSERT INTO w VALUES (-2); SELECT inet_server_addr()', timeout => 120);
is("$code|$out", '0|' . $net->host($new), 'libpq with all hosts passes the old one by');
($code, $out, $err) = $c->sql_try($p, 'INSERT INTO w VALUES (-3)');
isnt($code, 0, 'the old one still takes nothing');
my $outage = $c->outage_ms($cut);
note("outage of the cut: $outage ms") if defined $outage;

$net->heal;
$c->wait_for(sub { grep { $c->state($_) eq 'primary' } $c->all }, 60, 'a primary after the heal');
$c->wait_for(sub { $c->state($p) =~ /^(replica|standby)$/ }, 60, "n$p is no primary any more");
$c->stop_writers;
$c->wait_complete;
is(scalar(grep { $c->state($_) eq 'primary' } $c->all), 1, 'there is one primary');
$new = $c->await_primary;
is(scalar($c->missing_numbers($new, 'w')), 0, 'nothing acknowledged is lost');
is($c->sql($new, 'SELECT count(*) FROM w WHERE x IN (-1, -3)'), '0', 'nothing refused is there');
done_testing();
