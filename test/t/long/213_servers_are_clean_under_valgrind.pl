# A cluster of three whose servers run under valgrind: no process of it, ours or one that
# runs our hooks, redo or table code, reads what was never written or beyond what it has, or
# hands such bytes to the kernel.  What the server does alone is in valgrind.supp; every other
# report fails the test.  (Memory from the server's own contexts is one block to valgrind;
# what happens within these, make check-sanitize sees.)
use strict;
use warnings;
use IPC::Run;
use QuantaCluster;
use Test::More;

my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';
my $place = QuantaCluster::run_ok('mktemp', '-d', ($ENV{TMPDIR} || '/tmp') . '/valgrind-XXXXXX');
chomp $place;
(my $known = __FILE__) =~ s/[^\/]+$/valgrind.supp/;
QuantaCluster::append_file("$place/valgrind.supp", QuantaCluster::slurp($known));
QuantaCluster::append_file("$place/postgres", "#!/bin/sh
exec valgrind --tool=memcheck --quiet --vgdb=no --log-file=$place/%p.log --num-callers=60 --error-limit=no --leak-check=no \\
	--trace-children=yes --trace-children-skip=/bin/*,/usr/bin/* --track-origins=no --gen-suppressions=all \\
	--suppressions=$place/valgrind.supp $bindir/postgres \"\$\@\"\n");
QuantaCluster::run_ok('chmod', 'a+x', "$place/postgres");

# Everything is some thirty times slower, so nothing may depend on time.
my $c = QuantaCluster->new(n => 3, postgres => "$place/postgres", conf => "quantadb.heartbeat_interval = '1s'
quantadb.read_timeout = '300s'
quantadb.stall_timeout = 0
allow_in_place_tablespaces = on
max_prepared_transactions = 10
autovacuum = off
authentication_timeout = '600s'
");

sub ask
{
	my ($i, $sql) = @_;
	my ($code, $out, $err) = $c->sql_try($i, $sql, timeout => 900, connect => 300);
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($code, 0, "n$i: " . substr($sql, 0, 100)) or diag($err);
	return $out;
}

# The same where an answer, or none, is as good.
sub answer
{
	my ($i, $sql) = @_;
	my ($code, $out) = $c->sql_try($i, $sql, timeout => 300, connect => 120);
	return $code == 0 ? $out : '';
}

sub state { return answer($_[0], 'SELECT state FROM quantadb_status()') }

sub waits
{
	my ($ask, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	note(scalar(localtime) . " $name");
	ok(eval { $c->wait_for($ask, 600, $name); 1 }, $name) or BAIL_OUT($@);
}

# Asked again where one side is too slow for the other: in the same session, because each begins by
# translating the libraries that it calls; and as somebody new where only the answer was late.
sub joins
{
	my ($i, $more) = @_;
	my $name = $c->node($i)->{name};
	my $peer = '127.0.0.1:' . $c->node(1)->{http};
	for my $attempt (1 .. 10)
	{
		my $token = ask(1, 'SELECT quantadb_join_token()');
		my $join = "SELECT quantadb_join('$peer', '$token'$more);\n";
		my ($code, $out, $err) = $c->sql_try($i, "\\set ON_ERROR_STOP off\n" . $join x 3, timeout => 900);
		last if $code == 2 || $err !~ /no answer from the peer|could not ask/ || $err =~ /is a member|under way|57P/;
		note($err);
		ask(1, "SELECT quantadb_remove('$name')") if answer(1, "SELECT count(*) FROM quantadb_nodes WHERE name = '$name'") eq '1';
	}
	waits(sub { state($i) eq 'replica' }, "$name has joined and streams");
}

sub primary_is_open
{
	my ($p) = @_;
	waits(sub { state($p) eq 'primary' }, "n$p is primary");
	waits(sub { answer($p, 'CREATE TABLE probe (x int); DROP TABLE probe; SELECT 1') eq '1' }, "n$p takes writes");
}

# ---- a cluster: init, a copy joins, a fresh server is cloned ----
$c->create_first(1);
ask(1, 'CREATE EXTENSION quantadb');
ask(1, "SELECT quantadb_init('test')");
primary_is_open(1);
ask(1, "SELECT quantadb_set('failover_timeout', '120s')");
ask(1, "SELECT quantadb_set('lease_duration', '60s')");
ask(1, "SELECT quantadb_set('open_timeout', '600s')");
# A seat keeps the lease that it was given with.
$c->stop(1);
$c->start(1);
primary_is_open(1);
waits(sub { answer(1, 'SELECT lease_ms > 10000 FROM quantadb_status()') eq 't' }, 'with a long lease');
$c->copy_node(2, 1);
joins(2, '');
$c->create_first(3);
ask(3, 'CREATE EXTENSION quantadb');
joins(3, ', discard_local_data => true');
waits(sub { answer(1, "SELECT count(*) FROM quantadb_nodes WHERE role = 'voter'") eq '3' &&
		answer(1, 'SELECT can_lose FROM quantadb_status()') eq '1' }, 'three voters');

# ---- writes: heap, our tables, and what redo makes of them ----
ask(1, 'CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 3000) g');
ask(1, 'CREATE TABLE q (x int, y text) USING quantadb; CREATE INDEX ON q (x); INSERT INTO q SELECT g, g::text FROM generate_series(1, 2000) g');
ask(1, "INSERT INTO q SELECT g, string_agg(md5((g * h)::text), '') FROM generate_series(5001, 5010) g, generate_series(1, 500) h GROUP BY g");
ask(1, "UPDATE q SET y = y || repeat('u', 40) WHERE x % 2 = 0; DELETE FROM q WHERE x % 3 = 0; VACUUM q");
ask(1, "BEGIN; SAVEPOINT a; UPDATE q SET y = 'gone' WHERE x < 100; ROLLBACK TO a; SELECT count(*) FROM (SELECT x FROM q WHERE x < 50 FOR UPDATE) s; COMMIT");
ask(1, "BEGIN; INSERT INTO q VALUES (9000, 'prepared'); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'");
ask(1, 'COPY q TO STDOUT') ne '' or diag('nothing copied');
ask(1, 'CREATE TABLE q2 USING quantadb AS SELECT * FROM q; TRUNCATE q2; ANALYZE q; VACUUM FULL q; CLUSTER q USING q_x_idx');
ask(1, 'VACUUM (FREEZE) q; CHECKPOINT');

# ---- reads of every level ----
my $rows = ask(1, 'SELECT count(*) FROM q');
my $lsn = ask(1, "INSERT INTO t VALUES (100000, 'session'); SELECT quantadb_last_commit_lsn()");
for my $i (1 .. 3)
{
	is(ask($i, "SET quantadb.read_consistency = 'strict'; SELECT count(*) FROM q"), $rows, "n$i: a strict read");
	is(ask($i, "SET quantadb.read_consistency = 'session'; SET quantadb.min_lsn = '$lsn'; SELECT count(*) FROM t WHERE id = 100000"), '1',
		"n$i: a session read");
	ask($i, "SET quantadb.max_replica_lag = '1GB'; SELECT sum(length(y)), min(x) FROM q WHERE x BETWEEN 10 AND 5005");
	ask($i, "SELECT quantadb_wait_for_lsn('$lsn', '60s')");
	ask($i, "SELECT * FROM $_") for qw(quantadb_nodes quantadb_journal quantadb_replication quantadb_lost_writes quantadb_api_tokens);
}
my ($code) = $c->sql_try(2, 'INSERT INTO t VALUES (-1)', timeout => 600);
isnt($code, 0, 'a replica takes no writes');

# ---- HTTP and control ----
sub curl
{
	my ($i, $scheme, $path, @more) = @_;
	my $out = '';
	IPC::Run::run([ 'curl', '-sk', '--noproxy', '*', '-m', '600', '-o', '/dev/null', '-w', '%{http_code}', @more,
			"$scheme://127.0.0.1:" . $c->node($i)->{http} . $path ], '<', \undef, '>', \$out);
	return $out;
}
my $api = ask(1, "SELECT quantadb_api_token('admin', '1 hour')");
my @as_admin = ('-H', "Authorization: Bearer $api");
for my $i (1, 2)
{
	for my $path ('/', '/primary', '/replica?lag=10MB', '/read-only', '/health', '/cluster/health', '/liveness', '/readiness',
		'/metrics', '/cluster/status', '/cluster/nodes', '/cluster/journal', '/nothing', '/primary' . 'x' x 3000)
	{
		like(curl($i, $_, $path), qr/^(200|503|404)$/, "n$i: $_ " . substr($path, 0, 40)) for 'http', 'https';
	}
	is(curl($i, 'https', '/cluster/settings', '-X', 'PATCH', '-d', '{"min_failover_interval": "1s"}'), '401', "n$i: control without a token");
	is(curl($i, 'https', '/cluster/settings', '-X', 'PATCH', '-d', '{"min_failover_interval": "1s"}', @as_admin), '200', "n$i: with one");
	isnt(curl($i, 'https', '/cluster/settings', '-X', 'PATCH', '-d', '{"min_failover_interval": ', @as_admin), '200', "n$i: with half a body");
	is(curl($i, 'https', '/cluster/pause', '-X', 'POST', '--cert', $c->node(2)->{data} . '/quantadb/keys/node.pem'), '200', "n$i: with a certificate");
	is(curl($i, 'https', '/cluster/resume', '-X', 'POST', @as_admin), '200', "n$i: resume");
}
ask(1, 'SELECT quantadb_rotate_certificates()');
waits(sub { answer(1, q{SELECT count(*) FROM quantadb_journal WHERE event = 'certificate' AND reason ~ 'worth nothing'}) eq '3' },
	'all members have new keys');

# ---- a switchover ----
$c->sql_try(2, 'SELECT quantadb_promote()', timeout => 900);
primary_is_open(2);
waits(sub { state(1) eq 'replica' && state(3) eq 'replica' }, 'the others stream');
ask(2, 'INSERT INTO t VALUES (200000); DELETE FROM q WHERE x = 5001');

# ---- the primary writes what nobody else has, and is killed ----
waits(sub { answer(2, q{SELECT count(*) FROM quantadb_replication WHERE state = 'streaming'}) eq '2' }, 'both streams are up');
my @receivers = map { ask($_, 'SELECT pid FROM pg_stat_wal_receiver') } 1, 3;
kill 'STOP', @receivers;
ask(2, "SET synchronous_commit = local; UPDATE q SET y = 'lost' WHERE x % 2 = 1; UPDATE t SET v = 'lost' WHERE id < 500");
ask(2, 'SET synchronous_commit = local; CREATE TABLE dead USING quantadb AS SELECT generate_series(1, 500) AS x; CHECKPOINT');
$c->kill_all(2);
kill 'TERM', @receivers;
kill 'CONT', @receivers;
my $p;
waits(sub { ($p) = grep { state($_) eq 'primary' } 1, 3; $p }, 'a new primary');
primary_is_open($p);
ask($p, "INSERT INTO q SELECT g, 'alive' FROM generate_series(10000, 10200) g; UPDATE t SET v = 'alive' WHERE id % 7 = 0");
$rows = ask($p, 'SELECT count(*) FROM q');

# ---- which rewinds ----
$c->start(2);
waits(sub { state(2) eq 'replica' }, 'the old primary streams again');
waits(sub { answer($p, q{SELECT string_agg(event, ' ' ORDER BY number) FROM quantadb_journal WHERE node = 'n2' AND event ~ 'rewind|clone'}) eq
			'rewind_due rewind_done' }, 'after one rewind');
is(ask(2, "SET quantadb.read_consistency = 'strict'; SELECT count(*) FROM q"), $rows, 'it has the rows of the others');
is(ask(2, "SELECT count(*) FROM q WHERE y = 'lost'"), '0', 'and none of its own');
ask(2, 'SELECT * FROM quantadb_lost_writes');
ask($p, q{SELECT quantadb_remove('n2')});
waits(sub { answer($p, 'SELECT count(*) FROM quantadb_nodes') eq '2' }, 'a member is removed');
ok($c->pg_ctl($_, '-w', '-t', '1800', '-m', 'fast', 'stop'), "n$_ stops") for 2, 1, 3;

# A report is a block of lines with a stack; what follows it in braces would suppress it.
my @logs = glob("$place/*.log");
my @reports;
for my $log (@logs)
{
	push @reports, grep { /^==\d+==\s+(at|by) 0x/m } split(/^==\d+== *\n/m, QuantaCluster::slurp($log));
}
cmp_ok(scalar(@logs), '>', 60, 'valgrind has seen the processes') or diag(scalar(@logs));
is(scalar(@reports), 0, 'and has nothing to say about any') or diag(join("\n", @reports > 10 ? @reports[ 0 .. 9 ] : @reports));
unlike(QuantaCluster::slurp($c->node($_)->{log}), qr/was terminated by signal (4|6|7|8|11):/, "n$_: no process crashed") for 1 .. 3;
if (Test::More->builder->is_passing) { QuantaCluster::run_ok('rm', '-rf', $place) }
else { diag("valgrind's logs are in $place") }
done_testing();
