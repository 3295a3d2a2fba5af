# Health paths say what a load balancer needs, on every member.
use strict;
use warnings;
use FindBin;
use IO::Socket::INET;
use IPC::Run;
use JSON::PP;
use QuantaBench qw(children_named cpu_seconds);
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
my ($r, $s) = grep { $_ != $p } $c->all;

sub code { return ($c->http(@_))[0] }

# What a member is shows at its health paths with the next message, not at once.
sub answers
{
	my ($i, $path, $want, $name, @args) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$c->becomes(sub { code($i, $path, @args) }, $want, $name);
}

for my $path ('/primary', '/leader', '/read-write', '/')
{
	answers($p, $path, 200, "$path on the primary");
	answers($r, $path, 503, "$path on a replica");
}
answers($p, '/replica', 503, '/replica on the primary');
answers($r, '/replica', 200, '/replica on a replica');
for my $path ('/read-only', '/health', '/cluster/health', '/liveness', '/readiness')
{
	answers($_, $path, 200, "$path on n$_") for $p, $r;
}
answers($p, '/primary', 200, 'HEAD', '-I');
answers($p, '/primary', 200, 'OPTIONS', '-X', 'OPTIONS');
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

# ---- every argument, bad ones too ----
for my $good ('lag=0', 'lag=16MB', 'lag=1GB', 'lag=8GB', 'lag=10s', 'lag=1min', 'min_lsn=0/1', 'lag=16MB&min_lsn=0/1')
{
	answers($r, "/replica?$good", 200, "/replica?$good");
}
is(code($r, '/replica?min_lsn=FF/FFFFFFFF'), 503, 'an LSN that is not there yet');
for my $bad ('lag', 'min_lsn', 'lag=1MB&lag=2MB', 'lag=1MB%00', 'lag=', 'lag=-1', 'lag=many', 'lag=5parsec', 'lag=1e300', 'lag=nan', 'min_lsn=', 'min_lsn=zz', 'min_lsn=1/2/3')
{
	my ($status, $text) = $c->http($r, "/replica?$bad");
	my $answer = eval { decode_json($text) } || {};
	ok($status == 400 && $answer->{error} && $answer->{hint}, "/replica?$bad is refused with a hint");
}
my $of_primary = decode_json(($c->http($p, '/replica'))[1]);
ok(!defined $of_primary->{lag_bytes} && !defined $of_primary->{lag_ms}, 'a primary has no lag of a replica') or diag(encode_json($of_primary));
for my $path ('/primary', '/cluster/status', '/metrics')
{
	my ($status, $text) = $c->http($r, $path, '-i', '-X', 'DELETE');
	ok($status == 405 && $text =~ /^Allow: GET, HEAD, OPTIONS\r$/m, "DELETE $path is refused and says what is allowed");
}
is(code($r, '/primary%00x'), 404, 'a zero byte ends no path');
is(code($r, "/cluster/rehearse?node=n$r%00x"), 400, 'nor a name');
is(code($r, "/cluster/rehearse?node=n$r&node=n$p"), 400, 'one of two nodes is not meant');
is(code($r, '/replica?nocache=1&nocache=2'), 200, 'what nobody knows is let pass');
my ($status, $missing) = $c->http($r, '/cluster/nodes/a/b');
ok($status == 404 && decode_json($missing)->{error}, 'an unknown path is answered in JSON');

# ---- metrics ----
$c->sql($p, 'CREATE TABLE counted (x int)');
$c->sql($p, "INSERT INTO counted VALUES ($_)") for 1 .. 5;
my $promtool = (grep { -x } '/usr/bin/promtool')[0];
for my $i ($p, $r)
{
	my ($scraped, $metrics) = $c->http($i, '/metrics');
	my ($out, $err) = ('', '');
	is($scraped, 200, "n$i: /metrics");
	is(IPC::Run::run([ $promtool, 'check', 'metrics' ], '<', \$metrics, '>', \$out, '2>', \$err) ? '' : "$out$err", '',
		"n$i: promtool finds nothing wrong") if $promtool;
	my $text = sub { return ($c->http($i, '/metrics'))[1] };
	$c->becomes($text, qr/^quantadb_member_primary\{node="n$p"\} 1$/m, "n$i: the primary");
	$c->becomes($text, qr/^quantadb_member_up\{node="n$_"\} 1$/m, "n$i: n$_ is heard") for $c->all;
	$c->becomes($text, qr/^quantadb_failover_state\{state="seated"\} 1$/m, "n$i: a seat is taken");
	$c->becomes($text, qr/^quantadb_disk_free_bytes\{folder="wal"\} \d{6,}$/m, "n$i: free space");
}
sub metric { my ($i, $name) = @_; my (undef, $text) = $c->http($i, '/metrics'); return $text =~ /^\Q$name\E (\S+)$/m ? $1 : -1 }
sub exceeds { my ($name, $least, $said) = @_; $c->becomes(sub { metric($p, $name) > $least ? 'yes' : 'no' }, 'yes', $said) }
exceeds('quantadb_commit_duration_seconds_count', 5, 'commits are timed');
exceeds('quantadb_commit_duration_seconds_sum', 0, 'and take time');
exceeds('quantadb_queries_total', 4, 'queries are counted');
exceeds(qq{quantadb_stream_raw_bytes_total{node="n$r"}}, 1000, 'WAL that was sent is counted');
exceeds('quantadb_transactions_total{result="commit"}', 5, 'transactions are counted');
$c->becomes(sub { metric($p, 'quantadb_commits_waiting') }, 0, 'nobody waits');
exceeds('quantadb_lease_remaining_seconds', 0, 'the lease lives');

# ---- what the documents promise ----
my $docs = "$FindBin::RealBin/../../docs";
my @paths = QuantaCluster::slurp("$docs/openapi.yaml") =~ m{^  (/\S*):$}mg;
cmp_ok(scalar(@paths), '>=', 20, 'paths are described');
for my $path (@paths)
{
	(my $real = $path) =~ s/\{name\}/n1/;
	my $known = code($r, $real, '-X', 'OPTIONS');
	ok($known == 200 || $known == 503 || $known == 204, "$path answers") or diag($known);
}
SKIP:
{
	skip 'promtool is not installed', 1 unless $promtool;
	my $out = '';
	ok(IPC::Run::run([ $promtool, 'check', 'rules', "$docs/alerts.yml" ], '>', \$out, '2>&1'), 'the alert rules are right') or diag($out);
}
my (undef, $all) = $c->http($p, '/metrics');
my %families = map { $_ => 1 } $all =~ /^# TYPE (quantadb_\w+)/mg;
my %used;
for my $file ('grafana.json', 'alerts.yml')
{
	$used{$_} = 1 for QuantaCluster::slurp("$docs/$file") =~ /\b(quantadb_\w+)/g;
}
# The last one appears with the first failover.
delete $used{$_} for qw(quantadb_nodes quantadb_pause quantadb_failover_last_outage_seconds);
is(join(' ', grep { (my $f = $_) =~ s/_(bucket|sum|count)$//; !$families{$f} } sort keys %used), '',
	'dashboard and alerts use metrics that exist');

my $epoch = metric($p, 'quantadb_epoch');
$c->kill_all($p);
$c->wait_for(sub { code($r, '/primary') == 200 || code($s, '/primary') == 200 }, 30,
	'/primary moves');
$c->becomes(sub { code($r, '/primary') + code($s, '/primary') }, 703, 'to one node');

my ($new) = grep { code($_, '/primary') == 200 } $r, $s;
$c->wait_for(sub { metric($new, 'quantadb_failover_last_outage_seconds') > 0 }, 30, 'the outage is a metric');
$c->wait_for(sub { metric($new, qq{quantadb_member_up{node="n$p"}}) == 0 }, 30, 'so is the loss');
$c->becomes(sub { metric($new, 'quantadb_epoch') }, $c->sql($new, 'SELECT epoch FROM quantadb_status()'), 'and the epoch');
cmp_ok(metric($new, 'quantadb_epoch'), '>', $epoch, 'which is another one');

# ---- an operator finds the whole of it in the log ----
my $log = QuantaCluster::slurp($c->node($new)->{log});
$c->wait_for(sub { QuantaCluster::slurp($c->node($new)->{log}) =~ /\[cluster\] Health check failed for node n$p: \S/ }, 30,
	'the log says that a node is lost, and why');
like($log, qr/\[failover\] Promoting to PRIMARY role/, 'the log says that this node is promoted');
like($log . QuantaCluster::slurp($c->node($r)->{log}) . QuantaCluster::slurp($c->node($s)->{log}),
	qr/\[raft\] Transitioning to LEADER state/, 'a log says who leads Raft');
like(QuantaCluster::slurp($c->node($r)->{log}), qr/\[replication\] Stream connected to primary/, 'and who streams');

# ---- a load balancer that comes again goes on with its TLS session ----
my $load = "$c->{dir}/health_load";
QuantaCluster::run_ok('gcc', '-O1', '-o', $load, "$FindBin::Bin/../lib/health_load.c", '-lssl', '-lcrypto', '-lpthread');
my ($requests, $failures, $resumed) = split ' ', QuantaCluster::run_ok($load, '127.0.0.1', $c->node($new)->{http}, '/primary', 100, 2, 'resume', 'tls');
is("$requests $failures", '200 0', 'a connection for each of 200 health checks');
cmp_ok($resumed, '>=', 180, 'all but the first of each client without a handshake of certificates');

# ---- handshakes that their clients do not end take no time ----
my @held = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $c->node($new)->{http}) } 1 .. 20;
$_->syswrite("\x16\x03\x01\x01\x00") for @held;
my ($worker) = children_named($c, $new, qr/quantadb http/);
my ($cpu, $at) = (cpu_seconds($worker), time);
$c->wait_for(sub { time > $at + 4 }, 30, 'some seconds');
cmp_ok(100 * (cpu_seconds($worker) - $cpu) / (time - $at), '<', 5, '% of a core for half a handshake');
($requests, $failures) = split ' ', QuantaCluster::run_ok($load, '127.0.0.1', $c->node($new)->{http}, '/primary', 80, 1, 'new', 'tls');
is("$requests $failures", '80 0', 'and others are answered');
done_testing();
