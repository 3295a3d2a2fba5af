# Control over HTTP has the answers of SQL, never without a token; webhooks and
# NOTIFY tell what happened.
use strict;
use warnings;
use IPC::Run;
use JSON::PP;
use QuantaCluster;
use Test::More;
use WebhookReceiver;

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
my ($r, $s) = grep { $_ != $p } $c->all;
my $admin = $c->sql($p, "SELECT quantadb_api_token('admin')");
my $monitor = $c->sql($p, "SELECT quantadb_api_token('monitor')");

sub call
{
	my ($i, $method, $path, $token, $body, @more) = @_;
	my @args = ('-X', $method, '-m', 60, @more);
	push @args, '-H', "Authorization: Bearer $token" if defined $token;
	push @args, '--data-binary', $body if defined $body;
	my ($code, $text) = $c->http($i, $path, @args);
	return ($code, eval { decode_json($text) } || {});
}

# A token that was just made is known here with the next message of the leader.
$c->wait_for(sub { (call($_, 'POST', '/cluster/resume', $admin))[0] == 200 }, 30, "n$_ knows the token") for $c->all;

# ---- databases of another encoding ----
$c->sql($p, q{CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'});
$c->sql($p, q{\c latin
CREATE EXTENSION quantadb;
CREATE ROLE U&"m\00fcller" SUPERUSER;
SET ROLE U&"m\00fcller";
SELECT quantadb_api_token('monitor')});
$c->wait_for(sub { grep { ($_->{reason} || '') =~ /created by m\x{fc}ller$/ } @{ $c->journal($r) } }, 60, 'the journal is UTF-8');
pass('a name from a database in LATIN1 is in the journal as UTF-8');
for my $database (qw(postgres latin))
{
	is($c->sql($p, qq{\\c $database
SET client_encoding = 'LATIN1';
SELECT count(*) FROM quantadb_api_tokens WHERE creator = U&'m\\00fcller';
SELECT count(*) FROM quantadb_journal WHERE reason LIKE U&'%by m\\00fcller'}), "1\n1", "and in its own encoding in database $database");
}

# ---- never open ----
for my $path ('promote', 'pause', 'resume', 'join', 'nodes/n1/role')
{
	is((call($r, 'POST', "/cluster/$path"))[0], 401, "POST /cluster/$path without a token");
	is((call($r, 'POST', "/cluster/$path", $monitor, '{}'))[0], 403, "... with one that may only read");
}
is((call($r, 'DELETE', '/cluster/nodes/n1', 'qdbapi.0000000000000001.00000000000000000000000000000000'))[0],
	401, 'DELETE with an unknown token');
is((call($r, 'PATCH', '/cluster/settings', undef, '{"auto_failover": "off"}'))[0], 401, 'PATCH without a token');
is($c->sql($p, 'SELECT paused FROM quantadb_status()'), 'f', 'and nothing changed');

# ---- bad input ----
my @bad = (
	[ 'PATCH', '/cluster/settings', '{"failover_timeout": "soon"}' ],
	[ 'PATCH', '/cluster/settings', '{"nothing": "1"}' ],
	[ 'PATCH', '/cluster/settings', '{"failover_timeout": "1s"' ],
	[ 'PATCH', '/cluster/settings', '[]' ],
	[ 'PATCH', '/cluster/settings', '{"a": 1, "b": 2}' ],
	[ 'PATCH', '/cluster/settings', '{"failover_timeout": {}}' ],
	[ 'POST', '/cluster/promote', '{"node": 7}' ],
	[ 'POST', '/cluster/promote', '{"node": ""}' ],
	[ 'POST', '/cluster/promote', '{"nod": "n2"}' ],
	[ 'POST', '/cluster/promote', '{"force": "yes"}' ],
	[ 'POST', '/cluster/join', '{"role": "king"}' ],
	[ 'POST', '/cluster/join', '{"ttl_seconds": 0}' ],
	[ 'POST', '/cluster/nodes/n2/role', '{}' ],
	[ 'POST', '/cluster/promote', '{"node": "n2", "node": "n3"}' ],
	[ 'POST', '/cluster/promote', qq({"node": "\xff"}) ],
	[ 'POST', '/cluster/promote', '[' x 8000 ],
	[ 'POST', '/cluster/promote', '{"a":' x 1600 ]);
for my $case (@bad)
{
	my ($code, $answer) = call($r, $case->[0], $case->[1], $admin, $case->[2]);
	ok($code == 400 && $answer->{error} && ($answer->{detail} || $answer->{hint}), "$case->[1] " . substr($case->[2], 0, 40) . ' is refused')
	  or diag("$code " . encode_json($answer));
}
my $range = 'failover_timeout is a time from 100 to 600000 ms, such as 800ms or 1s';
is((call($r, 'PATCH', '/cluster/settings', $admin, '{"failover_timeout": "1ms"}'))[1]{detail}, $range, 'a refusal says what a setting takes');
my $refused = ($c->sql_try($r, "SELECT quantadb_set('failover_timeout', '1ms')"))[2];
like($refused, qr/22023.*$range/s, 'so does SQL');
like(($c->sql_try($r, "SELECT quantadb_set('failower_timeout', '1s')"))[2], qr/22023.*there is no setting "failower_timeout"/s, 'and that there is none');
like(($c->sql_try($r, "SELECT quantadb_promote('')"))[2], qr/42704.*there is no node ""/s, 'no name is not this node');
my $urls = 'webhooks is at most 4 different URLs with http:// or https://, separated by spaces';
is((call($r, 'PATCH', '/cluster/settings', $admin, '{"webhooks": "ftp://x"}'))[1]{detail}, $urls, 'of a list of URLs too');
# Every refusal has an SQLSTATE, a detail and a hint, on a member that is not the primary too.
my @calls = ("init('again')", "join('127.0.0.1:1', 'x')", "join_token('king')", "join_token('voter', '0')", "promote('n9')", "promote('')",
	"set_role('n9', 'voter')", "set_role('n$p', 'replica')", "set_role('n$p', 'king')", "remove('n9')", "remove('n$p')", "remove(repeat('x', 300))",
	"recover('x')", "recover('')", "set('nothing', '1')", "set('durability', 'x')", "set('webhooks', 'ftp://x')",
	"set('webhook_secret', repeat('x', 300))", "set('webhooks', repeat('x', 3000))", "api_token('king')", "api_token('admin', '-1 s')",
	"revoke_api_token('0')", "revoke_api_token('x')", "rehearse('n9')");
for my $call (@calls)
{
	my $said = ($c->sql_try($r, "SELECT quantadb_$call"))[2];
	like($said, qr/ERROR: +(?!XX)\w{5}: .*^DETAIL: .*^HINT: /ms, "quantadb_$call: why, and what to do")
	  if like($said, qr/ERROR/, "quantadb_$call is refused");
}
like(($c->sql_try($r, "SELECT quantadb_revoke_api_token('1')"))[2], qr/42704.*quantadb_api_tokens/s, 'a token that is none');
is($c->primary, $p, 'the primary is where it was');
is((call($r, 'POST', '/cluster/promote', $admin, '{"node": "n9"}'))[0], 404, 'an unknown node');
is((call($r, 'DELETE', '/cluster/nodes/n9', $admin))[0], 404, 'an unknown node to remove');
is((call($r, 'PUT', '/cluster/pause', $admin))[0], 405, 'a wrong method');
is((call($r, 'POST', '/cluster/promote', $admin, 'x' x 9000))[0], 413, 'a body that is too long');
is((call($r, 'POST', '/cluster/promote', $admin, 'x' x 90000, '-H', 'Transfer-Encoding: chunked'))[0], 413,
	'... and without saying so before');
my (undef, $refusal) = call($r, 'DELETE', "/cluster/nodes/n$p", $admin);
like(($c->sql_try($r, "SELECT quantadb_remove('n$p')"))[2], qr/\Q$refusal->{detail}\E/, 'a refusal says what SQL says');

# ---- webhooks: one that works, one that fails first, one that hangs ----
my $good = WebhookReceiver->new(secret => 'key');
my $late = WebhookReceiver->new(secret => 'key', mode => 'fail');
my $hung = WebhookReceiver->new(secret => 'key', mode => 'hang');
is((call($r, 'PATCH', '/cluster/settings', $admin, '{"webhook_secret": "key"}'))[0], 200, 'a secret is set');
is((call($r, 'PATCH', '/cluster/settings', $admin,
	encode_json({ webhooks => join(' ', map { $_->url } $good, $late, $hung) })))[0], 200, 'three webhooks are set');
unlike($c->sql($r, 'SELECT string_agg(value, chr(10)) FROM quantadb_settings'), qr/secret|\bkey\b/, 'a view shows neither paths nor key');
unlike(($c->http($r, '/cluster/journal'))[1], qr{/hook/|\bkey\b}, 'nor does the journal');

# ---- a session that listens ----
my ($in, $heard, $err) = ("LISTEN quantadb;\n", '', '');
my $listener = IPC::Run::start([ ($ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin') . '/psql', '-X', '-d', $c->conninfo($p) ],
	'<', \$in, '>', \$heard, '2>', \$err);
$c->wait_for(sub { $listener->pump_nb; $heard =~ /LISTEN/ }, 30, 'a session listens');

# ---- what it is for ----
is((call($r, 'POST', '/cluster/pause', $admin))[0], 200, 'pause');
$c->wait_for(sub { $c->sql($p, 'SELECT paused FROM quantadb_status()') eq 't' }, 30, 'is paused');
is((call($r, 'POST', '/cluster/resume', $admin))[0], 200, 'resume');
$c->wait_for(sub { $c->sql($p, 'SELECT paused FROM quantadb_status()') eq 'f' }, 30, 'is not paused');
$c->wait_for(sub { $in = "SELECT 1;\n"; $listener->pump_nb; $heard =~ /notification "quantadb" with payload.*"event": "set"/s }, 30,
	'the session is notified');
pass('the session is notified');
$in = "\\q\n";
$listener->finish;
is((call($r, 'PATCH', '/cluster/settings', $admin, '{"failover_timeout": 900}'))[0], 200, 'PATCH a setting');
$c->wait_for(sub { $c->sql($p, "SELECT value FROM quantadb_settings WHERE name = 'failover_timeout'") eq '900ms' }, 30, 'is set');
my ($code, $join) = call($r, 'POST', '/cluster/join', $admin, '{"role": "replica", "ttl_seconds": 60}');
ok($code == 200 && $join->{token} =~ /^qdbjoin/, 'a join token');
is((call($r, 'POST', "/cluster/nodes/n$s/role", $admin, '{"role": "replica"}'))[0], 200, 'a voter becomes a replica');
$c->wait_for(sub { $c->sql($p, "SELECT role FROM quantadb_nodes WHERE name = 'n$s'") eq 'replica' }, 30, 'is a replica');
my $voters = join('|', map { $c->node($_)->{http} } $p, $r);
$c->wait_for(sub { my (undef, $said) = call($s, 'POST', '/cluster/join', $admin); ($said->{next} || '') =~ /quantadb_join\('127\.0\.0\.1:(?:$voters)'/ }, 60,
	'a replica names a voter to a new server');
pass('a new server is sent to a voter, also by a replica');
$c->wait_for(sub { (call($r, 'POST', "/cluster/nodes/n$s/role", $admin, '{"role": "voter"}'))[0] == 200 }, 30, 'and back');
$c->wait_for(sub { $c->sql($p, 'SELECT can_lose FROM quantadb_status()') eq '1' }, 60, 'three voters again');
my ($promoted, $answer) = call($s, 'POST', '/cluster/promote', $admin, encode_json({ node => "n$r" }));
is($promoted, 200, 'a switchover') or diag(encode_json($answer));
is($answer->{epoch}, $c->sql($r, 'SELECT epoch FROM quantadb_status()'), 'answers the epoch');
is($c->state_now($r), 'primary', 'to the node that was named');
$c->becomes(sub { scalar(grep { $_->{event} eq 'control' && $_->{reason} =~ /of postgres asked to promote n$r/ } @{ $c->journal($r) }) }, 1,
	'the journal says who asked');
$c->becomes(sub { (grep { $_->{event} eq 'gate_open' && $_->{reason} =~ /nobody could write for \d+ ms/ } @{ $c->journal($r) }) ? 'yes' : 'no' }, 'yes',
	'and for how long nobody could write');

# ---- the leader is lost, the webhooks go on ----
$c->wait_complete;
my $leader;
$c->wait_for(sub { $leader = $c->status($r)->{raft_leader} }, 60, 'Raft has a leader');
my ($l) = grep { $c->node($_)->{name} eq $leader } $c->all;
$c->kill_all($l);
my ($alive) = grep { $_ != $l } $c->all;
sub lost_events { return grep { $_->{event} eq 'node_lost' && $_->{node} eq "n$l" } $_[0]->events }
$c->wait_for(sub { lost_events($good) }, 60, 'a webhook hears of the loss');
$c->start($l);
$c->wait_for(sub { grep { $_->{event} eq 'node_back' } $good->events }, 60, 'and of the return');
$late->restart('ok');
$hung->restart('ok');
$c->wait_for(sub { my @a = $late->events; my @b = $hung->events;
		grep { $_->{event} eq 'node_back' } @a and grep { $_->{event} eq 'node_back' } @b }, 90,
	'those that did not answer hear all of it');

my $state = decode_json(($c->http($alive, '/cluster/journal'))[1])->{journal};
my %news = map { $_->{number} => $_ } grep { $_->{event} !~ /^(report|membership_close|update)$/ } @$state;
my ($set) = grep { $news{$_}{reason} && $news{$_}{reason} eq 'webhooks was set' } keys %news;
for my $receiver ($good, $late, $hung)
{
	my @events = $receiver->events;
	my %count;
	$count{ $_->{number} }++ for @events;
	my $last = (sort { $a <=> $b } keys %count)[-1];
	is(join(' ', grep { !$count{$_} } sort { $a <=> $b } grep { $_ >= $set && $_ <= $last } keys %news), '',
		'every event was told');
	is(scalar(grep { !$_->{signature_ok} } @events), 0, 'signed');
	# What the lost leader told and could not note any more comes twice, and what was answered late.
	cmp_ok(scalar(grep { $_ > 1 } values %count), '<=', 6 + keys(%count) / 2, 'hardly any twice');
	my @numbers = map { $_->{number} } @events;
	my %seen;
	my @first = grep { !$seen{$_}++ } @numbers;
	is("@first", join(' ', sort { $a <=> $b } @first), 'in order');
}

# ---- remove, as the last thing ----
my $victim = $c->await_primary == $s ? $p : $s;
$c->wait_for(sub { my ($code) = call($c->primary, 'DELETE', "/cluster/nodes/n$victim", $admin); $code == 200 || $code == 404 }, 60, 'remove');
$c->wait_for(sub { $c->sql($c->await_primary, 'SELECT count(*) FROM quantadb_nodes') eq '2' }, 30, 'two members are left');
pass('a node is removed');

done_testing();
