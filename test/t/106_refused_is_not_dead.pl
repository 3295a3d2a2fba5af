# A firewall that refuses one way is no dead process: who is refused by the primary and still hears
# it causes no failover, and fills no log.
use strict;
use warnings;
use QuantaNet;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $net = QuantaNet->new(3);
my $c = QuantaCluster->new_cluster(n => 3, quick => 1, net => $net);
my $p = $c->primary;
my @others = $c->all_but($p);
$c->wait_complete;
sub lines { return scalar(() = QuantaCluster::slurp($c->node($_[0])->{log}) =~ /onnect/g) }
my %before = map { $_ => lines($_) } $c->all;
my $epoch = $c->sql($p, 'SELECT epoch FROM quantadb_status()');

# In turn, since one of them leads Raft and decides whether the primary is there.
for my $r (@others)
{
	$net->refuse($r, $p, $c->node($p)->{raft}, $c->node($p)->{replication});
	my $from = time;
	$c->wait_for(sub { time > $from + 4 }, 60, 'some seconds');
	is($c->state($p), 'primary', "n$p stays primary while it refuses n$r");
	$net->heal;
	$c->wait_complete(60);
}
unlike(join(' ', map { QuantaCluster::slurp($c->node($_)->{log}) } $c->all), qr/server of n$p has died/, 'nobody takes it for dead');
cmp_ok(lines($_) - $before{$_}, '<', 60, "n$_ does not fill its log") for $c->all;
is($c->sql($p, 'SELECT epoch FROM quantadb_status()'), $epoch, 'the primary is the same');
done_testing();
