# Script.pm
#	Random sessions for the differential fuzzer: a pure function of the seed.
#
# A script is { seed, profile, setup => [sql], steps => [[session, sql]], sessions }.
# It is made without knowing what the statements will answer, so that any subset of
# its steps is a script again.
#
# What a correct access method may answer differently is kept out, not filtered later:
# - Rows come in physical order, which differs: statements that change or lock more
#   than one row go through an index on a unique key, results are compared sorted.
# - How many rows fit on a page differs: SERIALIZABLE, whose false positives depend
#   on pages and on HOT, is used only in profiles whose tables are one page.
# - heap waits for buffer pins in VACUUM (FREEZE): no script has both that and cursors.
package Script;

use strict;
use warnings;

my @profiles = qw(tiny tiny full full toast);
my ($profile, $ids, %session, $gid);

sub one { return $_[int rand @_] }
sub chance { return rand() < $_[0] }
# one of (weight => value, ...)
sub weighted
{
	my @pairs = @_;
	my $sum = 0;
	for (my $i = 0; $i < @pairs; $i += 2) { $sum += $pairs[$i] }
	my $at = rand $sum;
	for (my $i = 0; $i < @pairs; $i += 2)
	{
		return $pairs[ $i + 1 ] if ($at -= $pairs[$i]) < 0;
	}
	return $pairs[-1];
}

sub id { return 1 + int rand $ids }

# ---- values ----

sub text_value
{
	my $n = weighted(4 => int rand(12), 2 => int rand(90), 1 => 120 + int rand(15), ($profile eq 'full' ? 2 : 0.2) => int rand 600,
		($profile eq 'toast' ? 3 : 0.1) => 1500 + int rand 9000);
	return 'NULL' if chance(0.08);
	my $c = one('a' .. 'f');
	return "repeat('$c', $n)" if $n < 200 || chance(0.3);
	# text that pglz cannot make small
	return sprintf("(SELECT left(string_agg(md5(('%s' || i)::text), ''), %d) FROM generate_series(1, %d) i)", $c, $n, 1 + $n / 32);
}

my %value = (
	k => sub { int rand 20 },
	u => sub { chance(0.3) ? 'NULL' : int rand 3 * $ids },
	v => \&text_value,
	a => sub { one(qw(true false NULL)) },
	b => sub { chance(0.2) ? 'NULL' : int(rand 65536) - 32768 },
	c => sub { chance(0.2) ? 'NULL' : int rand 1e12 },
	d => sub { chance(0.2) ? 'NULL' : sprintf('%.3g', rand 1e6) },
	e => sub { chance(0.2) ? 'NULL' : "'" . one(qw(x yy zzz)) . "'" },
	f => sub { chance(0.2) ? 'NULL' : sprintf('%d.%02d', rand 1e6, rand 100) },
	g => sub { chance(0.2) ? 'NULL' : 'ARRAY[' . join(',', map { int rand 1000 } 0 .. int rand 6) . ']' },
	h => sub { chance(0.2) ? 'NULL' : sprintf(q('{"n": %d, "l": [%s]}'), rand 100, join(',', map { int rand 9 } 0 .. rand 4)) },
	j => sub { chance(0.2) ? 'NULL' : "md5('" . int(rand 50) . "')::uuid" });
my @columns = qw(k u v a b c d e f g h j);

sub some_columns
{
	my %c = map { $_ => 1 } map { one(@columns) } 0 .. int rand 4;
	$c{v} = 1 if chance(0.5);
	return sort keys %c;
}

sub assignments { return join ', ', map { "$_ = " . ($_ eq 'k' && chance(0.3) ? 'k + 1' : $value{$_}->()) } some_columns() }

sub row
{
	my ($id, @c) = @_;
	return '(' . join(', ', $id, map { $value{$_}->() } @c) . ')';
}

# ---- statements ----

# rows in the order of a unique index
sub range
{
	my ($t) = @_;
	my $x = id();
	my $y = $x + int rand($ids > 50 ? 30 : 6);
	return weighted(6 => "${t}id = $x", 3 => "${t}id BETWEEN $x AND $y", 1 => "${t}id IN (" . join(', ', $x, id(), id()) . ')',
		1 => "${t}id > " . ($ids - 3), 0.5 => "${t}id BETWEEN $x AND $y AND ${t}k % 2 = 0");
}

sub condition
{
	return weighted(3 => range(''), 2 => 'k = ' . int rand 20, 1 => 'k < ' . int rand 20, 1 => 'v IS NULL', 1 => "v LIKE 'a%'",
		1 => 'u > ' . int rand 3 * $ids, 2 => 'true', 1 => "g @> ARRAY[" . int(rand 1000) . ']', 1 => 'a');
}

sub lock_mode
{
	return 'FOR ' . one('UPDATE', 'NO KEY UPDATE', 'SHARE', 'KEY SHARE') . one('', '', '', ' NOWAIT', ' SKIP LOCKED');
}

sub insert
{
	my @c = some_columns();
	my $n = weighted(6 => 1, 2 => 1 + int rand 8, ($profile eq 'full' ? 2 : 0) => 40);
	my $at = id();
	my $rows = $n == 1 ? 'VALUES ' . row($at, @c) : 'VALUES ' . join(', ', map { row(chance(0.2) ? id() : $at + $_, @c) } 1 .. $n);
	my $sql = "INSERT INTO t (" . join(', ', 'id', @c) . ") $rows";
	my $set = 'SET ' . one('k = t.k + 1', 'v = excluded.v', 'id = excluded.id + 100', 'u = excluded.u, k = excluded.k')
	  if chance(0.5);
	# A row that comes twice would be updated twice, or which of them is first would matter.
	if ($n == 1 && chance(0.6))
	{
		$set =~ s/excluded\.(\w)/grep({ $_ eq $1 } @c) || $1 eq 'i' ? "excluded.$1" : "t.$1"/ge if $set;
		$sql .= ' ON CONFLICT ' . ($set ? "(id) DO UPDATE $set" . one('', '', ' WHERE t.k > 3') : one('', '(id) ', '(u) ') . 'DO NOTHING');
	}
	return $sql . one('', ' RETURNING id, k, length(v)', ' RETURNING t, tableoid::regclass');
}

sub update
{
	my $where = range('t.');
	my $set = assignments();
	return weighted(
		6 => "UPDATE t SET $set WHERE $where",
		2 => "UPDATE t SET $set WHERE $where RETURNING id, k, md5(v), xmin = pg_current_xact_id()::xid",
		1 => "UPDATE t SET id = id + " . one(1, 50, 1000, -1000) . " WHERE t.id = " . id(),
		1 => "UPDATE t SET v = s.v, k = s.k FROM (SELECT * FROM t WHERE id = " . id() . ") s WHERE t.id = " . id(),
		1 => "WITH x AS MATERIALIZED (SELECT id FROM t WHERE $where ORDER BY id FOR UPDATE) UPDATE t SET k = k + 1 FROM x WHERE t.id = x.id RETURNING t.id, t.k");
}

sub merge
{
	my $k = int rand 20;
	my $source = join ', ', map { "(" . join(', ', $_, int rand 20) . ")" } do { my $a = id(); ($a .. $a + rand 4) };
	return "MERGE INTO t USING (VALUES $source) s(id, k) ON t.id = s.id "
	  . join ' ', (chance(0.4) ? "WHEN MATCHED AND t.k = $k THEN DELETE" : ()),
		(chance(0.3) ? 'WHEN MATCHED AND t.k > s.k THEN DO NOTHING' : ()),
		(chance(0.8) ? "WHEN MATCHED THEN UPDATE SET k = s.k" . one('', ', v = ' . text_value(), ', u = NULL') : ()),
		'WHEN NOT MATCHED THEN ' . one('INSERT (id, k) VALUES (s.id, s.k)', 'DO NOTHING');
}

sub child
{
	return weighted(
		4 => sprintf('INSERT INTO c (id, t_id, z) VALUES (%d, %d, %d)%s', id(), id(), int rand 2 * $ids, one('', ' ON CONFLICT DO NOTHING')),
		2 => sprintf('UPDATE c SET t_id = %d WHERE id = %d RETURNING *', id(), id()),
		2 => sprintf('UPDATE c SET z = z + 1 WHERE id BETWEEN %d AND %d', (sort { $a <=> $b } id(), id())),
		2 => sprintf('DELETE FROM c WHERE id = %d RETURNING *', id()),
		1 => 'SET CONSTRAINTS ALL ' . one(qw(IMMEDIATE DEFERRED)));
}

sub partition
{
	return weighted(
		3 => sprintf('INSERT INTO p VALUES (%d, %d, %s) ON CONFLICT DO NOTHING', id(), int rand 20, text_value()),
		3 => sprintf('UPDATE p SET k = %d WHERE id = %d AND k = %d RETURNING *, tableoid::regclass', int rand 20, id(), int rand 20),
		2 => sprintf('UPDATE p SET v = %s WHERE id = %d', text_value(), id()),
		1 => sprintf('UPDATE p SET k = (k + 7) %% 20 WHERE id = %d', id()),
		1 => sprintf('DELETE FROM p WHERE id = %d', id()),
		2 => 'SELECT k, count(*), sum(length(v)) FROM p GROUP BY k');
}

sub excluded
{
	my $x = int rand 60;
	return weighted(4 => sprintf("INSERT INTO e VALUES (%d, '[%d,%d)')%s", id(), $x, $x + 1 + rand 4, one('', ' ON CONFLICT DO NOTHING')),
		1 => sprintf("UPDATE e SET r = '[%d,%d)' WHERE id = %d", $x, $x + 2, id()), 1 => sprintf('DELETE FROM e WHERE id = %d', id()));
}

sub query
{
	my $where = condition();
	return weighted(
		4 => "SELECT way, n, md5 FROM every_way(\$q\$SELECT t::text FROM t WHERE $where\$q\$)",
		2 => "SELECT id, k, length(v), md5(v) FROM t WHERE $where",
		1 => "SELECT * FROM t WHERE $where ORDER BY id LIMIT " . int rand 10,
		1 => "SELECT count(*), sum(k), count(v), max(length(v)) FROM t",
		1 => 'SELECT t.id, c.id FROM t JOIN c ON c.t_id = t.id',
		1 => 'SELECT op, old_id, new_id, count(*) FROM audit GROUP BY 1, 2, 3',
		1 => 'SELECT * FROM e', 0.5 => 'SELECT * FROM c',
		1 => "SELECT id, xmin = pg_current_xact_id_if_assigned()::xid FROM t WHERE $where AND xmin = pg_current_xact_id_if_assigned()::xid",
		0.5 => 'SELECT count(*) = (SELECT count(*) FROM t) FROM t a JOIN t b ON a.ctid = b.ctid AND a.id = b.id',
		0.5 => 'SELECT count(*) FROM t TABLESAMPLE bernoulli (100)', 0.3 => 'SELECT count(*) FROM t TABLESAMPLE system (100)');
}

sub lock_rows
{
	my $where = range('');
	return weighted(5 => "SELECT id, k FROM t WHERE $where ORDER BY id " . lock_mode(), 1 => "SELECT id FROM c WHERE id = " . id() . ' ' . lock_mode(),
		1 => "SELECT t.id, c.id FROM t JOIN c ON c.t_id = t.id WHERE t.id = " . id() . ' FOR ' . one('UPDATE OF t', 'SHARE OF c', 'NO KEY UPDATE'),
		0.3 => 'LOCK TABLE ' . one(qw(t c)) . ' IN ' . one('SHARE', 'ROW EXCLUSIVE', 'SHARE ROW EXCLUSIVE', 'EXCLUSIVE') . ' MODE' . one('', ' NOWAIT'));
}

sub cursor
{
	my ($me) = @_;
	if (!$me->{cursor} || chance(0.1))
	{
		$me->{cursor} = 1;
		my $hold = chance(0.2);
		return 'DECLARE cur ' . one('', 'SCROLL ', 'NO SCROLL ') . 'CURSOR ' . ($hold ? 'WITH HOLD ' : '')
		  . 'FOR SELECT id, k, length(v) FROM t WHERE id > 0' . one('', ' AND k < 12')
		  . ($hold ? ' ORDER BY id' : one('', ' ORDER BY id', '', ' FOR UPDATE', ' FOR KEY SHARE'));
	}
	return weighted(5 => 'FETCH ' . one(1, 3, 'PRIOR', 'NEXT', 'ABSOLUTE 2', 'LAST') . ' FROM cur', 1 => 'MOVE 2 IN cur',
		2 => 'UPDATE t SET ' . assignments() . ' WHERE CURRENT OF cur', 1 => 'DELETE FROM t WHERE CURRENT OF cur RETURNING id', 1 => 'CLOSE cur');
}

sub temporary
{
	return weighted(2 => 'CREATE TEMP TABLE IF NOT EXISTS tmp AS SELECT * FROM t WHERE ' . range(''), 2 => 'INSERT INTO tmp SELECT * FROM t WHERE ' . range(''),
		1 => 'UPDATE tmp SET k = k + 1', 1 => 'DELETE FROM tmp WHERE k % 3 = 0', 2 => 'SELECT id, k, md5(v) FROM tmp', 0.5 => 'TRUNCATE tmp', 0.5 => 'VACUUM tmp');
}

sub maintenance
{
	my ($options) = @_;
	my $t = one(qw(t t t c p e audit));
	return weighted(8 => "VACUUM (TRUNCATE false) $t", ($options->{freeze} ? 4 : 0) => "VACUUM (FREEZE, TRUNCATE false) $t", 3 => "ANALYZE $t", 2 => "VACUUM (INDEX_CLEANUP on, TRUNCATE false) $t",
		1 => "REINDEX TABLE t", 1 => 'CREATE INDEX IF NOT EXISTS extra ON t (' . one('k, u', 'b', 'd', 'length(v)') . ')', 1 => 'DROP INDEX IF EXISTS extra',
		0.3 => 'CREATE INDEX CONCURRENTLY IF NOT EXISTS extra ON t (' . one('k', 'c') . ')', 0.3 => 'REINDEX INDEX CONCURRENTLY t_pkey',
		0.5 => 'CLUSTER t USING t_pkey', 0.5 => 'VACUUM FULL t', 0.2 => 'TRUNCATE audit', 0.1 => 'TRUNCATE t, c',
		0.3 => "ALTER TABLE t ADD COLUMN IF NOT EXISTS n" . int(rand 2) . one(' int', ' int DEFAULT 7', " text DEFAULT 'x'", ' float8 DEFAULT random()*0'),
		0.2 => 'ALTER TABLE t DROP COLUMN IF EXISTS n' . int(rand 2), 0.1 => 'ALTER TABLE t ALTER COLUMN k TYPE ' . one(qw(int bigint)),
		0.3 => 'REFRESH MATERIALIZED VIEW mv', 0.3 => 'REFRESH MATERIALIZED VIEW CONCURRENTLY mv', 0.2 => 'ALTER TABLE t SET (fillfactor = ' . one(20, 50, 100) . ')');
}

sub begin
{
	my ($me, $options) = @_;
	$me->{in} = 1;
	$me->{points} = 0;
	$me->{cursor} = 0;
	my $level = one('READ COMMITTED', 'READ COMMITTED', 'REPEATABLE READ', ($options->{serializable} ? ('SERIALIZABLE') x 2 : 'REPEATABLE READ'));
	return "BEGIN ISOLATION LEVEL $level" . (chance(0.05) ? ' READ ONLY' : '');
}

sub finish
{
	my ($me) = @_;
	$me->{in} = 0;
	if (chance(0.08))
	{
		push @{$gid->{open}}, ++$gid->{last};
		return "PREPARE TRANSACTION '\@DB\@-$gid->{last}'";
	}
	return weighted(7 => 'COMMIT', 3 => 'ROLLBACK', 0.3 => 'COMMIT AND CHAIN');
}

sub savepoint
{
	my ($me) = @_;
	return weighted(3 => 'SAVEPOINT s' . int rand 3, 2 => 'ROLLBACK TO s' . int rand 3, 1 => 'RELEASE s' . int rand 3);
}

sub step
{
	my ($me, $options) = @_;
	if (@{$gid->{open}} && !$me->{in} && chance(0.35))
	{
		my $n = splice @{$gid->{open}}, int rand @{$gid->{open}}, 1;
		return one('COMMIT', 'COMMIT', 'ROLLBACK') . " PREPARED '\@DB\@-$n'";
	}
	return begin($me, $options) if !$me->{in} && chance(0.45);
	return finish($me) if $me->{in} && chance(0.14);
	return weighted(
		6 => \&insert, 8 => \&update, 3 => sub { 'DELETE FROM t WHERE ' . range('') . one('', ' RETURNING id, k') },
		2 => \&merge, 3 => \&child, 2 => \&partition, 1 => \&excluded, 6 => \&query, 4 => \&lock_rows,
		($options->{cursors} && $me->{in} ? 3 : 0) => sub { cursor($me) }, 0.7 => \&temporary,
		($me->{in} ? 0.1 : 2) => sub { maintenance($options) },
		($me->{in} ? 2 : 0.02) => sub { savepoint($me) },
		0.3 => sub { "SET lock_timeout = '" . one(0, 0, '150ms') . "'" })->();
}

# ---- the script ----

sub setup
{
	my ($options) = @_;
	my $with = 'WITH (autovacuum_enabled = off, toast.autovacuum_enabled = off, fillfactor = ' . $options->{fillfactor} . ')';
	my $deferred = one('', 'DEFERRABLE', 'DEFERRABLE INITIALLY DEFERRED');
	my @sql = (
		"CREATE TABLE t (id int PRIMARY KEY, k int CHECK (k < 1000), u int, v text, a bool, b int2, c int8, d float8, e char(3), f numeric, g int[], h jsonb, j uuid, UNIQUE (u)) $with",
		"CREATE TABLE c (id int PRIMARY KEY, t_id int REFERENCES t " . one('', 'ON DELETE CASCADE', 'ON DELETE SET NULL', 'ON DELETE SET DEFAULT')
		  . " ON UPDATE " . one('CASCADE', 'NO ACTION', 'RESTRICT') . " $deferred, z int UNIQUE DEFERRABLE) WITH (autovacuum_enabled = off)",
		'CREATE TABLE audit (op text, old_id int, new_id int, v text) WITH (autovacuum_enabled = off)',
		'CREATE TABLE p (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY RANGE (k)',
		'CREATE TABLE p0 PARTITION OF p FOR VALUES FROM (0) TO (5) WITH (autovacuum_enabled = off)',
		'CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (5) TO (10) WITH (autovacuum_enabled = off)',
		'CREATE TABLE p2 PARTITION OF p DEFAULT WITH (autovacuum_enabled = off)',
		'CREATE TABLE e (id int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&) ' . one('', 'DEFERRABLE INITIALLY DEFERRED') . ') WITH (autovacuum_enabled = off)');
	push @sql, 'CREATE INDEX t_k ON t ' . one('', '', 'USING hash ', 'USING brin ') . '(k)' if chance(0.6);
	push @sql, 'CREATE INDEX t_v ON t (left(v, 20)) WHERE k > 5' if chance(0.4);
	push @sql, 'CREATE INDEX t_g ON t USING gin (g)' if chance(0.3);
	push @sql, 'CREATE INDEX c_t ON c (t_id)' if chance(0.7);
	# The rows to start with; some of them updated, so that there are versions.
	my $n = int($ids * 0.7);
	push @sql, "INSERT INTO t SELECT i, i % 20, i * 2, repeat(chr(97 + i % 6), " . ($profile eq 'tiny' ? '5' : "(i * 37) % $options->{pad}") . ")"
	  . ", i % 2 = 0, i, i * 1000000007::bigint, i / 3.0, 'x', i * 1.5, ARRAY[i, i + 1], jsonb_build_object('n', i), md5(i::text)::uuid FROM generate_series(1, $n) i";
	push @sql, "UPDATE t SET k = (k + 1) % 20 WHERE id % 3 = 0" if chance(0.5);
	push @sql, "INSERT INTO c SELECT i, i, i FROM generate_series(1, " . int($n / 2) . ") i";
	push @sql, "INSERT INTO p SELECT i, i % 20, 'p' || i FROM generate_series(1, $n) i";
	if ($options->{triggers})
	{
		push @sql, q{CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
			'BEGIN INSERT INTO audit VALUES (TG_OP, OLD.id, NEW.id, left(OLD.v, 5) || left(NEW.v, 5) || coalesce(OLD.k, -1) || coalesce(NEW.k, -1)); RETURN NULL; END'};
		push @sql, 'CREATE ' . one('', 'CONSTRAINT ') . 'TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note()';
		push @sql, q{CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS
			'BEGIN IF NEW.k = 13 THEN RETURN NULL; END IF; IF NEW.k = 7 THEN NEW.v := coalesce(OLD.v, NEW.v) || ''!''; END IF; RETURN NEW; END'},
		  'CREATE TRIGGER before BEFORE ' . one('UPDATE', 'INSERT OR UPDATE') . ' ON t FOR EACH ROW EXECUTE FUNCTION before()' if chance(0.5);
		push @sql, q{CREATE FUNCTION whole() RETURNS trigger LANGUAGE plpgsql AS
			'BEGIN INSERT INTO audit SELECT ''stmt'', count(*), sum(o.k - n.k), NULL FROM o JOIN n USING (id); RETURN NULL; END'},
		  'CREATE TRIGGER whole AFTER UPDATE ON t REFERENCING OLD TABLE o NEW TABLE n FOR EACH STATEMENT EXECUTE FUNCTION whole()' if chance(0.3);
	}
	push @sql, 'CREATE MATERIALIZED VIEW mv AS SELECT id, k, md5(v) AS m FROM t', 'CREATE UNIQUE INDEX mv_id ON mv (id)';
	push @sql, 'VACUUM ' . one('', '(FREEZE) ') . 't' if chance(0.4);
	return \@sql;
}

sub generate
{
	my ($seed, %args) = @_;
	srand $seed;
	$profile = one(@profiles);
	$ids = $profile eq 'tiny' ? 12 : $profile eq 'full' ? one(40, 150, 400) : 15;
	%session = ();
	$gid = { last => 0, open => [] };
	my $sessions = one(1, 3, 3, 4);
	my $freeze = chance(0.5);
	my %options = (serializable => $profile eq 'tiny', freeze => $freeze, cursors => !$freeze, triggers => chance(0.6),
		fillfactor => $profile eq 'full' ? one(100, 100, 90, 50) : 100, pad => one(40, 200, 700));
	my $setup = setup(\%options);
	my @steps;
	for (1 .. $args{steps} || 120)
	{
		my $s = 1 + int rand $sessions;
		push @steps, [ $s, step($session{$s} ||= { in => 0 }, \%options) ];
	}
	return { seed => $seed, profile => $profile, sessions => $sessions, setup => $setup, steps => \@steps };
}

1;
