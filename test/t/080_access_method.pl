# Tables of the access method are ordinary tables: they survive kill -9 with prepared
# transactions, are rewritten and change their access method, show what is inside, and
# say what they cannot do: logical decoding, another page format, a server without the
# library.
use strict;
use warnings;
use QuantaTable;
use Test::More;

my $t = QuantaTable->server(conf => "wal_level = logical\nmax_replication_slots = 4\nwal_consistency_checking = 'quantadb'\n");
my $c = $t->{c};
my $p = $t->connect_to(1);
sub value { return QuantaTable::value($p, @_) }
sub error_of { my ($sql) = @_; return eval { $p->do($sql); 1 } ? '' : $p->state . ' ' . $p->errstr }
my $quanta = $QuantaTable::am eq 'quantadb';

# ---- all kinds of changes, then a crash ----
$p->do('CREATE TABLE a (id int PRIMARY KEY, k int, v text, w text)');
$p->do('CREATE INDEX a_k ON a (k)');
$p->do('CREATE UNLOGGED TABLE u (id int)');
$p->do(q{INSERT INTO a SELECT i, i, 'v' || i, NULL FROM generate_series(1, 2000) i});
$p->do('INSERT INTO u SELECT generate_series(1, 1000)');
$p->do(q{UPDATE a SET v = v || '+' WHERE id % 3 = 0});
$p->do(q{UPDATE a SET k = -k WHERE id % 5 = 0});
$p->do('DELETE FROM a WHERE id % 7 = 0');
$p->do(q{UPDATE a SET w = (SELECT string_agg(md5(g::text), '') FROM generate_series(1, 400) g) WHERE id % 100 = 1});
$p->do(q{INSERT INTO a VALUES (1, 0, 'x'), (5000, 0, 'new') ON CONFLICT (id) DO UPDATE SET v = 'again'});
$p->begin_work;
$p->do(q{UPDATE a SET v = 'prepared' WHERE id IN (2, 4)});
$p->do('SELECT id FROM a WHERE id = 8 FOR UPDATE');
$p->do(q{PREPARE TRANSACTION 'in_doubt'});
$p = $t->connect_to(1);
my $all = q{SELECT count(*) || ' ' || sum(id) || ' ' || sum(k) || ' ' || md5(string_agg(v || coalesce(md5(w), ''), ',' ORDER BY id)) FROM a};
my $before = value($all);
$c->kill_all(1);
$c->start(1);
$p = $t->connect_to(1);
is(value($all), $before, 'kill -9 loses no row');
is(value('SELECT count(*) FROM u'), 0, 'an unlogged table is empty after a crash');
$p->do(q{SET lock_timeout = '100ms'});
like(error_of('SELECT id FROM a WHERE id = 8 FOR UPDATE'), qr/^55P03/, 'a prepared transaction keeps its row lock');
like(error_of('DELETE FROM a WHERE id = 2'), qr/^55P03/, 'and its change');
$p->do(q{COMMIT PREPARED 'in_doubt'});
is(value(q{SELECT count(*) FROM a WHERE v = 'prepared'}), 2, 'it commits after the crash');
is(QuantaTable::problems($p, 'a'), '', 'the table is sound');

# ---- rewriting ----
$before = value($all);
for my $sql ('VACUUM a', 'VACUUM FULL a', 'CLUSTER a USING a_k', 'ALTER TABLE a SET ACCESS METHOD heap',
	"ALTER TABLE a SET ACCESS METHOD $QuantaTable::am", 'REINDEX TABLE CONCURRENTLY a', 'VACUUM (FREEZE) a')
{
	$p->do($sql);
	is(value($all), $before, "$sql keeps all rows");
}
is(QuantaTable::problems($p, 'a'), '', 'the table is sound after all of it');

# ---- values of every kind, from everywhere a row may come from ----
my $dir = value('SHOW data_directory');
for my $kind ([ heap => 'twin_heap' ], [ $QuantaTable::am => 'twin' ])
{
	my ($am, $table) = @$kind;
	$p->do("CREATE TABLE $table (id int, s smallint, a int[], t text, b bytea, n numeric, c \"char\", d float8,
		g int GENERATED ALWAYS AS (id * 2) STORED, z text DEFAULT 'z', UNIQUE (id)) USING $am");
	$p->do("ALTER TABLE $table ALTER b SET STORAGE EXTERNAL, ALTER t SET STORAGE PLAIN");
	$p->do("CREATE FUNCTION mark_$table() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.z := NEW.z || TG_OP; RETURN NEW; END'");
	# An array that a variable holds is not flat when it comes.
	$p->do("DO \$\$DECLARE v int[] := '{}'; w bytea := ''; BEGIN FOR i IN 1..200 LOOP v := v || i; w := w || sha256(i::text::bytea);
		INSERT INTO $table (id, s, a, t, b, n, c, d) VALUES (i, nullif(i % 7, 0), v, repeat('t', i), w, i / 3.0, 'c', nullif(i % 5, 0)); END LOOP; END\$\$");
	$p->do("COPY (SELECT i, i % 9, ARRAY[i, NULL, 3], left(md5(i::text), i % 32), CASE WHEN i % 50 = 0 THEN decode(repeat(md5(i::text), 3000), 'hex') END,
		10 ^ (i % 40), 'x', i / 7.0 FROM generate_series(1001, 2500) i) TO '$dir/$table.copy'");
	$p->do("COPY $table (id, s, a, t, b, n, c, d) FROM '$dir/$table.copy'");
	$p->do("ALTER TABLE $table ADD y text DEFAULT 'added'");
	$p->do("INSERT INTO $table (id, a, b, t, y) SELECT id + 10000, a, b, t, y FROM $table");
	$p->do("CREATE TRIGGER mark BEFORE INSERT OR UPDATE ON $table FOR EACH ROW EXECUTE FUNCTION mark_$table()");
	$p->do("ALTER TABLE $table DROP s");
	$p->do("UPDATE $table SET d = d + 1, t = t || 'u' WHERE id % 3 = 0");
	$p->do("UPDATE $table SET id = -id, b = NULL WHERE id % 10 = 0");
	$p->do("INSERT INTO $table (id, t) SELECT i, 'c' FROM generate_series(1, 300) i ON CONFLICT (id) DO UPDATE SET t = EXCLUDED.t || $table.t, a = NULL");
	$p->do("CREATE TABLE ${table}_like (LIKE $table INCLUDING ALL) USING $am");
	$p->do("INSERT INTO ${table}_like (id, a, t, b, n, c, d, z, y) SELECT id, a, t, b, n, c, d, z, y FROM $table");
	$p->do("CREATE TABLE ${table}_as USING $am AS SELECT * FROM $table ORDER BY id");
	$p->do("CREATE TABLE ${table}_whole (LIKE ${table}_as) USING $am");
	$p->do("INSERT INTO ${table}_whole SELECT * FROM ${table}_as");
}
for my $suffix ('', '_like', '_as', '_whole')
{
	my $sum = sub { value("SELECT count(*) || md5(string_agg(md5(t::text), '' ORDER BY id)) FROM $_[0] t") };
	is($sum->("twin$suffix"), $sum->("twin_heap$suffix"), "all values of twin$suffix are those of heap");
	is(QuantaTable::problems($p, "twin$suffix"), '', 'and the table is sound');
}

if (!$quanta)
{
	done_testing();
	exit 0;
}

# ---- looking inside ----
is(value(q{SELECT count(*) FROM quantadb_page_items('a', 0) WHERE inserter <> 0}), 0, 'frozen rows name no inserter');
$p->do('CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES');
is(value(q{SELECT length || ' ' || columns FROM quantadb_page_items('nothing', 0)}), '4 0', 'a row of no columns is shown, too');
$p->begin_work;
$p->do('UPDATE a SET v = v WHERE id < 20');
is(value(q{SELECT count(DISTINCT xid::text) FROM generate_series(0, pg_relation_size('a') / 8192 - 1) b, quantadb_page_transactions('a', b)}), 1,
	'changed rows share what is known of one transaction');
$p->rollback;
my $from = value('SELECT pg_current_wal_insert_lsn()');
$p->do('CREATE EXTENSION pg_walinspect');
$p->do(q{INSERT INTO a VALUES (9000, 1, 'w')});
my $to = value('SELECT pg_current_wal_flush_lsn()');
is(value("SELECT count(*) FROM pg_get_wal_records_info('$from', '$to') WHERE resource_manager = 'quantadb' AND record_type = 'INSERT'"), 1,
	'records have names');

# ---- what it refuses ----
like(error_of('CREATE PUBLICATION p FOR TABLE a'), qr/^0A000 .*cannot publish table "a"/s, 'a publication of the table is refused');
$p->do('CREATE PUBLICATION p');
like(error_of('ALTER PUBLICATION p ADD TABLE a'), qr/^0A000/, 'adding it, too');
$p->do(q{SELECT pg_create_logical_replication_slot('s', 'test_decoding')});
$p->do('CREATE TABLE h (i int) USING heap');
$p->do('INSERT INTO h VALUES (1)');
is(value(q{SELECT count(*) > 0 FROM pg_logical_slot_peek_changes('s', NULL, NULL)}), 1, 'a slot decodes heap tables');
$p->do(q{UPDATE a SET v = 'decode me' WHERE id = 9000});
like(error_of(q{SELECT * FROM pg_logical_slot_peek_changes('s', NULL, NULL)}), qr/^0A000 .*cannot decode/s, 'but not changes of this one, and says so');
$p->do(q{SELECT pg_replication_slot_advance('s', pg_current_wal_insert_lsn())});
$p->do('INSERT INTO h VALUES (2)');
is(value(q{SELECT count(*) FROM pg_logical_slot_peek_changes('s', NULL, NULL) WHERE data LIKE '%INSERT%'}), 1, 'past the change it goes on');
$p->do(q{SELECT pg_drop_replication_slot('s')});

# ---- a change before the point from which a slot reports, committed after it ----
my ($one, $two, $three, $slot) = map { $t->connect_to(1) } 1 .. 4;
sub waits_for
{
	my ($dbh) = @_;
	my $xid = QuantaTable::value($dbh, 'SELECT pg_current_xact_id()::xid');
	$c->wait_for(sub { value("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid' AND transactionid = '$xid'") }, 60,
		"the slot waits for transaction $xid");
}
$one->begin_work;
$one->do('INSERT INTO h VALUES (3)');
$slot->do(q{SELECT pg_create_logical_replication_slot('between', 'test_decoding')}, { pg_async => DBD::Pg::PG_ASYNC() });
waits_for($one);
$two->begin_work;
$two->do('INSERT INTO h VALUES (4)');
$one->commit;
waits_for($two);
$three->begin_work;
$three->do(q{UPDATE a SET v = 'between' WHERE id = 9000});
$two->commit;
$slot->pg_result;
$three->commit;
like(error_of(q{SELECT * FROM pg_logical_slot_peek_changes('between', NULL, NULL)}), qr/^XX000 .*relfilenode 0/s, 'a slot made meanwhile does not leave it out');
$p->do(q{SELECT pg_drop_replication_slot('between')});

# ---- damage ----
$p->do('CREATE TABLE d (i int, v text)');
$p->do(q{INSERT INTO d SELECT i, 'some text' FROM generate_series(1, 300) i});
$p->do('CHECKPOINT');
my $file = $c->node(1)->{data} . '/' . value(q{SELECT pg_relation_filepath('d')});
sub damage
{
	my ($offset, $bytes) = @_;
	$c->stop(1);
	open my $fh, '+<:raw', $file or die "$file: $!";
	seek $fh, $offset, 0;
	read $fh, my $old, length $bytes;
	seek $fh, $offset, 0;
	print $fh $bytes;
	close $fh;
	$c->start(1);
	$p = $t->connect_to(1);
	$p->do('SET ignore_checksum_failure = on');
	return $old;
}
my $old = damage(8185, chr 99);
like(error_of('SELECT count(*) FROM d'), qr/^XX001 .*format version 99/s, 'a page of another format is refused, not guessed at');
like(value(q{SELECT string_agg(problem, ',') FROM quantadb_check('d')}), qr/format version 99/, 'quantadb_check names it');
damage(8185, $old);
is(value('SELECT count(*) FROM d'), 300, 'with the right version it is read');
my ($length) = $p->selectrow_array(q{SELECT length FROM quantadb_page_items('d', 0) WHERE item = 1});
$old = damage(8184 - 16 * 4 - $length + 2, chr 200);
like(value(q{SELECT string_agg(problem, ',') FROM quantadb_check('d')}), qr/inserter 200 is not in the transaction table/, 'a damaged row is found');
like(error_of('SELECT count(*) FROM d'), qr/^XX001 .*damaged/s, 'and not read');
$p->disconnect;
done_testing();
