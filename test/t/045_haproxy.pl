# Clients that only know HAProxy write again after kill -9 of the primary.
use strict;
use warnings;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $haproxy = (grep { -x } '/usr/sbin/haproxy', '/usr/bin/haproxy')[0];
plan skip_all => 'haproxy is not installed' unless $haproxy;

my $c = QuantaCluster->new_cluster(n => 3);
my ($write, $read) = QuantaCluster::free_ports(2);
sub servers
{
	return join('', map { my $n = $c->node($_);
			"    server $n->{name} 127.0.0.1:$n->{sql} check port $n->{http}\n" } $c->all);
}
QuantaCluster::append_file("$c->{dir}/haproxy.cfg", "
defaults
    mode tcp
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    default-server inter 500ms fastinter 200ms fall 2 rise 1 on-marked-down shutdown-sessions
listen write
    bind 127.0.0.1:$write
    option httpchk GET /primary
" . servers() . "
listen read
    bind 127.0.0.1:$read
    balance roundrobin
    option httpchk GET /replica?lag=16MB
" . servers());

my $pid = fork();
die "fork: $!" unless defined $pid;
if ($pid == 0)
{
	open(STDOUT, '>>', "$c->{dir}/haproxy.log");
	open(STDERR, '>&', \*STDOUT);
	exec($haproxy, '-db', '-f', "$c->{dir}/haproxy.cfg") or POSIX::_exit(127);
}
END { my $code = $?; if ($pid) { kill 'TERM', $pid; waitpid($pid, 0) } $? = $code }

sub through { my ($port, $sql) = @_;
	return QuantaCluster::psql("host=127.0.0.1 port=$port user=postgres dbname=postgres connect_timeout=10", $sql, timeout => 30) }

# It takes every server for good until the first checks have failed.
my $p = $c->primary;
$c->wait_for(sub { my $log = QuantaCluster::slurp("$c->{dir}/haproxy.log");
		!grep { $_ != $p && $log !~ m{Server write/n$_ is DOWN} } $c->all }, 30, 'HAProxy has looked');
$c->wait_for(sub { (through($write, 'CREATE TABLE IF NOT EXISTS t (x int)'))[0] == 0 }, 30, 'HAProxy finds the primary');
my ($code, undef, $err) = through($write, 'INSERT INTO t VALUES (1)');
is($code, 0, 'a write through HAProxy') or diag($err);
$c->wait_for(sub { (through($read, 'SELECT pg_is_in_recovery()'))[1] eq 't' }, 30, 'HAProxy finds a replica');
pass('a read goes to a replica');

my $at = $c->kill_all($p);
$c->wait_for(sub { (through($write, 'INSERT INTO t VALUES (2)'))[0] == 0 }, 30, 'a write after the kill');
my $outage = time - $at;
diag(sprintf('writes through HAProxy again after %.0f ms', 1000 * $outage));
cmp_ok($outage, '<', 30, 'clients that only know HAProxy write again');
is((through($write, 'SELECT count(DISTINCT x) FROM t'))[1], '2', 'and nothing is missing');

done_testing();
