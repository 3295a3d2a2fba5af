# Nothing but the seat makes a member writable: not SQL on a replica, not
# pg_ctl promote, not a removed standby.signal.
use strict;
use warnings;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
my ($r, $s) = grep { $_ != $p } $c->all;
$c->sql($p, 'CREATE TABLE f (x int)');
$c->wait_replayed($_, $p) for $r, $s;

for my $query ('INSERT INTO f VALUES (1)', 'CREATE TABLE g (x int)',
	'SET transaction_read_only = off; INSERT INTO f VALUES (1)',
	'SET default_transaction_read_only = off; INSERT INTO f VALUES (1)')
{
	my ($code, $out, $err) = $c->sql_try($r, $query);
	isnt($code, 0, "refused on a replica: $query");
	like($err, qr/\b25006\b|\b0A000\b/, 'with an SQLSTATE of read-only');
}
my ($code, $out, $err) = $c->sql_try($r, 'INSERT INTO f VALUES (1)');
my $port = $c->node($p)->{sql};
like($err, qr/\b25006\b/, 'SQLSTATE 25006');
like($err, qr/HINT: .*"n$p" at 127\.0\.0\.1:$port/, 'the hint names the primary');

# What functions write is refused in the same way, wherever in PostgreSQL it is noticed.
$c->sql($p, 'CREATE SEQUENCE numbers');
$c->wait_replayed($r, $p);
for my $query ("SELECT nextval('numbers')", "SELECT setval('numbers', 5)", 'SELECT lo_create(0)', "SELECT lo_from_bytea(0, 'x')",
	"SELECT pg_logical_emit_message(true, 'a', 'b')", "SELECT pg_logical_emit_message(false, 'a', 'b')", 'SELECT txid_current()',
	"SELECT pg_notify('a', 'b')", "DO 'DECLARE n oid := lo_create(0); BEGIN END'", 'NOTIFY a', 'VACUUM f')
{
	($code, $out, $err) = $c->sql_try($r, $query);
	like($err, qr/\b25006\b.*HINT: .*"n$p" at 127\.0\.0\.1:$port/s, "$query: refused with the hint");
}
($code, $out, $err) = $c->sql_try($p, "BEGIN READ ONLY; SELECT nextval('numbers')");
like($err, qr/\b25006\b/, 'a read-only transaction on the primary');
unlike($err, qr/HINT/, 'is told nothing about primaries');
like(($c->sql_try($r, 'SELECT 1/0'))[2], qr/22012/, 'other errors are what they were');

# True when no write succeeds on node $i for three seconds.
sub never_writable
{
	my ($i) = @_;
	my $until = time + 3;
	while (time < $until)
	{
		my ($code) = $c->sql_try($i, 'INSERT INTO f VALUES (666)', timeout => 5);
		return 0 if $code == 0;
	}
	return 1;
}

$c->pg_ctl($r, '-W', 'promote');
ok(never_writable($r), 'pg_ctl promote yields no writable server');
$c->wait_for(sub { my ($code) = $c->psql_rw('INSERT INTO f VALUES (2)', timeout => 60); $code == 0 },
	60, 'the cluster takes writes');

$c->stop($s, 'immediate');
unlink $c->node($s)->{data} . '/standby.signal';
$c->start($s);
ok(never_writable($s), 'a removed standby.signal yields no writable server');

$c->wait_for(sub { my ($code) = $c->psql_rw('INSERT INTO f VALUES (3)', timeout => 60); $code == 0 },
	60, 'the cluster takes writes');
is($c->sql($c->await_primary, 'SELECT count(*) FROM f WHERE x IN (1, 666)'), '0', 'no refused row is there');

done_testing();
