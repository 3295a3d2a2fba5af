# A primary that has lost both other nodes acknowledges nothing and, when its lease
# has run out, refuses; with one of them back it goes on.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3, quick => 1);
my $p = $c->primary;
my @others = grep { $_ != $p } $c->all;
$c->sql($p, 'CREATE TABLE m (x int)');
$c->kill_all($_) for @others;

# What is sent at once may wait for a quorum, but must not be acknowledged.
my ($code, $out, $err) = $c->sql_try($p, 'INSERT INTO m VALUES (1)', timeout => 4);
isnt($code, 0, 'no acknowledgement without a quorum');

# Of one that waited in vain nobody knows, and of one that was refused everybody does.
my ($row, @refused) = (100);
$c->wait_for(
	sub {
		$row++;
		($code, $out, $err) = $c->sql_try($p, "INSERT INTO m VALUES ($row)", timeout => 10);
		push @refused, $row if $code != 0 && $err =~ /\b(25006|57P03)\b/;
		return @refused;
	},
	30, 'writes are refused');
pass('a minority refuses writes');
my $state;
$c->wait_for(sub { $state = $c->state_now($p) }, 30, "n$p answers");
isnt($state, 'primary', 'and does not call itself primary');
$c->becomes(sub { ($c->http($p, '/primary'))[0] }, 503, 'nor does /primary');
($code) = $c->psql_rw('INSERT INTO m VALUES (3)', timeout => 60);
isnt($code, 0, 'libpq finds nobody that takes writes');

$c->start($others[0]);
$c->wait_for(sub { my ($code) = $c->psql_rw('INSERT INTO m VALUES (4)', timeout => 60); $code == 0 },
	60, 'writes with two of three');
pass('two of three go on');
my $now = $c->await_primary;
is($c->sql($now, 'SELECT count(*) FROM m WHERE x IN (' . join(', ', 3, @refused) . ')'), '0', 'what was refused is not there');
cmp_ok($c->sql($now, 'SELECT count(*) FROM m WHERE x = 4'), '>=', 1, 'what was acknowledged is');

# ---- an epoch that stays open because its majority is gone ----
$c->start($others[1]);
$c->wait_complete;
# Of the grant that comes next: nobody reports before it is over.
$c->sql($now, "SELECT quantadb_set('lease_duration', '4s')");
$c->sql($now, "SELECT quantadb_set('failover_timeout', '5s')");
my ($next, $third) = grep { $_ != $now } $c->all;
$c->sql($now, "SELECT quantadb_promote('n$next')", timeout => 60);
$c->wait_complete;
my $epoch = $c->sql($next, 'SELECT epoch + 1 FROM quantadb_status()');
$c->kill_all($next);
$c->wait_for(sub { $c->sql($now, 'SELECT epoch FROM quantadb_status()') eq $epoch }, 60, 'an epoch is opened');
$c->kill_all($third);
my $line = qr/reporting for epoch $epoch:/;
my $log = sub { return grep { /$line/ } split /\n/, QuantaCluster::slurp($c->node($now)->{log}) };
my $since;
$c->wait_for(sub { $since ||= time if $log->(); return $since && time > $since + 3 }, 60, "n$now reports for seconds");
is(scalar($log->()), 1, 'and says so once');
isnt($c->state_now($now), 'primary', 'it is no primary');

done_testing();
