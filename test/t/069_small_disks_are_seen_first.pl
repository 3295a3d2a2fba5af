# A server whose disk cannot take the cluster's data is told so before anything is lost.
use strict;
use warnings;
use QuantaNet;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 2);
$c->create_first(1);
$c->init(1);
my $data = $c->node(2)->{data};
mkdir $data or die "$data: $!";
QuantaNet::run('mount', '-t', 'tmpfs', '-o', 'size=120m,mode=0700', 'tmpfs', $data);
QuantaNet::run('chown', 'postgres:', $data);
$c->create_first(2);
$c->sql(2, 'CREATE EXTENSION quantadb; CREATE TABLE mine AS SELECT generate_series(1, 3) x');
my ($code, $out, $err) = $c->ask_join(2, 1);
isnt($code, 0, 'refused');
like($err, qr/needs \d+ MB in .*, and \d+ MB are free.*Make room and join again/s, 'with both numbers, and what to do');
is($c->sql(2, 'SELECT count(*) FROM mine'), '3', 'its data is there');
is($c->state_now(2), 'inert', 'it is no member');
$c->wait_for(sub { $c->sql(1, 'SELECT count(*) FROM quantadb_nodes') eq '1' }, 30, 'it has left');
$c->wait_for(sub { !-e "$data/quantadb/stage" }, 30, 'what was fetched is removed');
pass('and nothing is left of it');
$c->stop(2, 'immediate');
system('umount', $data);
done_testing();
