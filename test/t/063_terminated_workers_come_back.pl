# A worker that is told to end by anything but a shutdown of the server comes back.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 1);
$c->sql(1, 'CREATE TABLE t (x int)');
my $postmaster = $c->postmaster(1);
sub worker
{
	my ($name) = @_;
	my ($pid) = grep { QuantaCluster::slurp("/proc/$_/cmdline") =~ /quantadb $name/ } QuantaCluster::children_of($postmaster);
	return $pid || 0;
}
for my $name (qw(streamer http coordinator))
{
	my $old = worker($name);
	ok($old, "the $name runs");
	kill 'TERM', $old;
	my $new;
	$c->wait_for(sub { $new = worker($name); $new && $new != $old }, 20, "the $name is back");
	$c->wait_for(sub { $c->state(1) eq 'primary' && $c->write_ok(1) }, 20, 'writes are taken');
	$c->wait_for(sub { ($c->http(1, '/primary'))[0] == 200 }, 20, 'checks are answered');
	pass("the $name comes back and does its work");
}
is($c->postmaster(1), $postmaster, 'in the same server');
ok($c->stop(1), 'a shutdown ends them all');
done_testing();
