# Health paths say what a load balancer needs, on every member.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
my ($r, $s) = grep { $_ != $p } $c->all;

sub code { return ($c->http(@_))[0] }

for my $path ('/primary', '/leader', '/read-write', '/')
{
	is(code($p, $path), 200, "$path on the primary");
	is(code($r, $path), 503, "$path on a replica");
}
is(code($p, '/replica'), 503, '/replica on the primary');
is(code($r, '/replica'), 200, '/replica on a replica');
for my $path ('/read-only', '/health', '/cluster/health', '/liveness', '/readiness')
{
	is(code($_, $path), 200, "$path on n$_") for $p, $r;
}
is(code($p, '/primary', '-I'), 200, 'HEAD');
is(code($p, '/primary', '-X', 'OPTIONS'), 200, 'OPTIONS');
is(code($p, '/nowhere'), 404, 'an unknown path');
cmp_ok(code($p, '/cluster/promote', '-X', 'POST'), '>=', 400, 'control is not open');

for my $i ($c->all)
{
	my $status = $c->status($i);
	is(ref $status, 'HASH', "n$i: /cluster/status is JSON");
	like(($c->http($i, '/cluster/status'))[1], qr/"n$p"/, "n$i knows the primary");
	is(code($i, '/cluster/nodes'), 200, "n$i: /cluster/nodes");
	is(code($i, '/cluster/journal'), 200, "n$i: /cluster/journal");
}
my ($code, $body) = $c->http($p, '/', '-H', 'Accept: text/html');
like($body, qr/<html/i, 'the dashboard');
is($code, 200, 'with the status of /primary');

$c->kill_all($p);
$c->wait_for(sub { code($r, '/primary') == 200 || code($s, '/primary') == 200 }, 30,
	'/primary moves');
is(code($r, '/primary') + code($s, '/primary'), 703, 'to one node');

done_testing();
