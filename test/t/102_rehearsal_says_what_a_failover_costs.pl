# quantadb_rehearse(node) and GET /cluster/rehearse: what a failover would cost now, and then it
# does as was said.
use strict;
use warnings;
use JSON::PP;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
my ($r, $s) = grep { $_ != $p } $c->all;
sub rehearse
{
	my ($i, $node) = @_;
	my %row;
	@row{qw(name chosen why_not bytes_behind replay_lag_ms failover_wait_ms switchover_wait_ms last_outage_ms loss_bytes)} =
	  split /\|/, $c->sql($i, "SELECT * FROM quantadb_rehearse('$node')"), -1;
	return \%row;
}

$c->wait_for(sub { rehearse($p, "n$r")->{bytes_behind} eq '0' }, 30, "n$r has all WAL");
$c->becomes(sub { rehearse($p, "n$r")->{loss_bytes} }, '0', 'quorum loses nothing');
$c->becomes(sub { rehearse($p, "n$r")->{failover_wait_ms} }, qr/^\d+$/, 'the primary knows the wait');
$c->becomes(sub { rehearse($p, "n$p")->{why_not} }, 'it is the primary', 'the primary itself');
$c->becomes(sub { rehearse($s, "n$r")->{loss_bytes} }, '0', 'another node answers, too');

# One falls behind: the other would be chosen, and is.
my @stopped = grep { QuantaCluster::slurp("/proc/$_/cmdline") =~ /walreceiver/ } QuantaCluster::children_of($c->postmaster($r));
kill 'STOP', @stopped;
$c->sql($p, 'CREATE TABLE t AS SELECT generate_series(1, 10000) AS x');
$c->wait_for(sub { my $now = rehearse($p, "n$r"); $now->{bytes_behind} > 0 && $now->{chosen} eq "n$s" }, 30, "n$r is behind");
$c->becomes(sub { rehearse($p, "n$r")->{why_not} }, qr/^n$s has \d+ bytes more$/, 'and it says who comes before it');
my ($code, $body) = $c->http($p, "/cluster/rehearse?node=n$r");
is($code, 200, 'over HTTP');
my $json = decode_json($body);
is($json->{chosen}, "n$s", 'the same answer');
cmp_ok($json->{bytes_behind}, '>', 0, 'with the bytes');
is(($c->http($p, '/cluster/rehearse'))[0], 400, 'a missing argument is refused');
is(($c->http($p, '/cluster/rehearse?node=n9'))[0], 400, 'so is an unknown node');
my (undef, undef, $err) = $c->sql_try($p, "SELECT * FROM quantadb_rehearse('n9')");
like($err, qr/42704.*no node "n9"/s, 'in SQL with an SQLSTATE');
$c->kill_all($p);
# It ends without having read what waits in its socket.
kill 'TERM', @stopped;
kill 'CONT', @stopped;
$c->wait_for(sub { $c->state($s) eq 'primary' }, 40, "n$s is primary");
pass("n$s became primary as was said");
done_testing();
