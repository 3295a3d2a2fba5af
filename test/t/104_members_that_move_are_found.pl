# A member that is restarted on another port, or that named an address at which nobody finds it, is a
# member again when it is started with a good one; the others hear where it is from itself.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
my ($moved) = $c->all_but($p);
my $node = $c->node($moved);
my ($port) = QuantaCluster::free_ports(1);

sub seen { return $c->sql($p, "SELECT $_[0] FROM quantadb_nodes WHERE name = 'n$moved'") }

$c->stop($moved);
QuantaCluster::append_file("$node->{data}/node.conf", "quantadb.raft_port = $port\n");
$c->start($moved);
$c->wait_for(sub { seen('raft_port') == $port && seen('connected') eq 't' }, 60, "n$p finds n$moved at its new port");
pass('a member that was restarted on another port is found there');
$c->wait_complete;

# A typing error is mended by mending it.
QuantaCluster::append_file("$node->{data}/node.conf", "quantadb.advertise_host = 'nowhere.invalid'\n");
$c->stop($moved);
$c->start($moved);
$c->wait_for(sub { seen('connected') eq 'f' }, 60, "n$moved is not found at an address that is none");
QuantaCluster::append_file("$node->{data}/node.conf", "quantadb.advertise_host = '127.0.0.1'\n");
$c->stop($moved);
$c->start($moved);
$c->wait_for(sub { seen('host') eq '127.0.0.1' && seen('connected') eq 't' }, 60, "n$p finds n$moved again");
pass('a member whose address was wrong is found when it is right');
$c->wait_complete;
done_testing();
