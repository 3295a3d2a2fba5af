# A replica replays quantadb tables whatever its readers hold: no conflict over a buffer
# pin, and conflicts over snapshots exactly when rows that a reader sees go away or rows
# that it must not see lose their transaction id.  Replayed pages equal the primary's
# (wal_consistency_checking).
use strict;
use warnings;
use QuantaTable;
use Test::More;

my $t = QuantaTable->server(n => 2, conf => "max_wal_senders = 5\nhot_standby_feedback = off\nmax_standby_streaming_delay = 0
wal_keep_size = 512MB\nmax_connections = 30\n" . ($QuantaTable::am eq 'quantadb' ? "wal_consistency_checking = 'quantadb'\n" : ''));
my $c = $t->{c};
my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';
QuantaCluster::run_ok("$bindir/pg_basebackup", '-h', '127.0.0.1', '-p', $c->node(1)->{sql}, '-U', 'postgres',
	'-D', $c->node(2)->{data}, '-X', 'stream', '-c', 'fast', '-R');
$c->write_settings(2);
$c->start(2);
my $p = $t->connect_to(1);
$p->do('CREATE TABLE q (id int PRIMARY KEY, k int, v text)');
$p->do(q{INSERT INTO q SELECT i, i, 'v' FROM generate_series(1, 100) i});
$p->do('VACUUM q');
$p->do('CREATE TABLE tick (i int) USING heap');
# A commit flushes what VACUUM has only inserted.
sub caught_up { $p->do('INSERT INTO tick VALUES (1)'); $c->wait_replayed(2, 1) }
caught_up();
my $r = $t->connect_to(2);
sub conflicts { return $c->sql(2, "SELECT sum(confl_$_[0]) FROM pg_stat_database_conflicts") }

# ---- pins ----
$r->begin_work;
$r->do('DECLARE cur CURSOR FOR SELECT id, k, v FROM q');
is(QuantaTable::value($r, 'FETCH 1 FROM cur'), 1, 'a reader is in the middle of a page');
# Rows that nobody ever saw: their removal needs the page, and no snapshot matters.
$p->begin_work;
$p->do(q{INSERT INTO q SELECT i, i, 'never' FROM generate_series(101, 150) i});
$p->rollback;
$p->do('VACUUM q');
caught_up();
pass('replay has passed the page');
is(eval { scalar(@{$r->selectall_arrayref('FETCH ALL FROM cur')}) }, 99, 'the reader goes on');
eval { $r->commit };
is(conflicts('bufferpin'), 0, 'there was no conflict over a pin');

# ---- what cannot be looked at says so ----
if ($QuantaTable::am eq 'quantadb')
{
	$p->do('CREATE UNLOGGED TABLE not_here (i int)');
	caught_up();
	ok(!eval { $r->selectall_arrayref(q{SELECT * FROM quantadb_check('not_here')}); 1 }, 'an unlogged table is not checked on a replica');
	like($r->state . ' ' . $r->errstr, qr/^0A000 .*unlogged/s, 'and the error says why');
}

# ---- snapshots ----
# A reader with an old snapshot sees what it saw or is told that it cannot.
sub old_reader
{
	my ($name, @sql) = @_;
	$r = $t->connect_to(2);
	$r->begin_work;
	$r->do('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
	my $before = QuantaTable::value($r, q{SELECT count(*) || ' ' || sum(k) FROM q});
	$p->do($_) for @sql;
	caught_up();
	my $after = eval { QuantaTable::value($r, q{SELECT count(*) || ' ' || sum(k) FROM q}) };
	my $told = $r->state || '';
	ok((defined $after ? $after eq $before : $told =~ /^(40001|57P01|08|25P03)/ || $@ =~ /conflict|terminating/),
		"$name: " . (defined $after ? 'the same' : "refused with $told")) or diag("before $before, after ", defined $after ? $after : $@);
	eval { $r->disconnect };
	return defined $after;
}
old_reader('rows deleted and vacuumed away', 'DELETE FROM q WHERE id <= 10', 'VACUUM q');
old_reader('rows updated and pruned', 'UPDATE q SET k = k + 1 WHERE id > 50', 'UPDATE q SET k = k + 1 WHERE id > 50', 'SELECT count(*) FROM q', 'VACUUM q');
old_reader('new rows frozen', q{INSERT INTO q SELECT i, i, 'new' FROM generate_series(201, 300) i}, 'VACUUM (FREEZE) q');
old_reader('new rows on a full page, cooled', (map { "INSERT INTO q SELECT i, i, 'more' FROM generate_series($_, $_ + 39) i" } map { 1000 + 40 * $_ } 0 .. 30), 'VACUUM q');
ok(old_reader('rows inserted by a transaction that rolled back', 'BEGIN', q{INSERT INTO q VALUES (5000, 1, 'x')}, 'ROLLBACK', 'VACUUM q'),
	'and needs no conflict');
is(conflicts('bufferpin'), 0, 'still no conflict over a pin');

# ---- everything that writes WAL, replayed and compared page by page ----
for my $n (1 .. 20)
{
	$p->begin_work;
	$p->do("INSERT INTO q SELECT $n * 10000 + i, i, repeat('l', i % 90) FROM generate_series(1, 150) i");
	$p->do("UPDATE q SET k = k + 1, v = v || '$n' WHERE id % 20 = $n % 20");
	$p->do("SELECT id FROM q WHERE id % 30 = $n FOR " . ('UPDATE', 'SHARE', 'KEY SHARE')[ $n % 3 ]);
	$p->do("DELETE FROM q WHERE id % 25 = $n");
	$p->do("INSERT INTO q VALUES ($n, 0, 'c') ON CONFLICT (id) DO UPDATE SET k = q.k + 1");
	if ($n % 4) { $p->commit } else { $p->rollback }
	$p->do('VACUUM q') if $n % 5 == 0;
}
# ---- entries that move from one overflow page to another ----
# Two full pages share an overflow page until it is full; then those of the second go to a new one.
$p->do('CREATE TABLE m (i int, v text) WITH (vacuum_truncate = off); CREATE TABLE done () USING heap');
$p->do(q{INSERT INTO m SELECT i, repeat('v', 23) FROM generate_series(1, 460) i});
$p->do('VACUUM (FREEZE) m');
caught_up();
my $watcher = $t->connect_to(2);
my $seen = $watcher->prepare(q{DO $$BEGIN LOOP FOR k IN 1 .. 20 LOOP PERFORM count(*) FROM m WHERE ctid >= '(1,0)' AND ctid < '(2,0)'; END LOOP;
	EXIT WHEN EXISTS (SELECT FROM done); END LOOP; END$$}, { pg_async => DBD::Pg::PG_ASYNC() });
$seen->execute;
for my $round (1 .. 40)
{
	# A subtransaction each, so that each lock is an entry of its own.
	$p->begin_work;
	$p->do(q{DO $$DECLARE place tid; BEGIN FOR place IN SELECT ctid FROM m WHERE ctid < '(2,0)' ORDER BY (ctid::text::point)[1] > 20, ctid
		LOOP BEGIN PERFORM FROM m WHERE ctid = place FOR UPDATE; EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END$$});
	$p->rollback;
	$p->do('VACUUM m');
}
$p->do('INSERT INTO done DEFAULT VALUES');
caught_up();
is(eval { $watcher->pg_result; 'read' } || $@, 'read', 'a reader sees a page with its overflow page, or neither');
$watcher->disconnect;

$p->do('CREATE INDEX ON q (k)');
$p->do('VACUUM (FREEZE) q');
$p->do('VACUUM FULL q');
$p->do(q{UPDATE q SET k = k + 1 WHERE id % 3 = 0});
caught_up();
my $sum = q{SELECT count(*) || ' ' || md5(string_agg(q::text, ',' ORDER BY id)) FROM q};
is($c->sql(2, $sum), $c->sql(1, $sum), 'primary and replica hold the same');
$r = $t->connect_to(2);
is(QuantaTable::problems($_->[0], 'q'), '', "no problem found on the $_->[1]") for [ $p, 'primary' ], [ $r, 'replica' ];
unlike(QuantaCluster::slurp($c->node(2)->{log}), qr/inconsistent page|PANIC|FATAL:  (?!terminating connection|the database system)/, 'replayed pages equal the primary\'s');
done_testing();
