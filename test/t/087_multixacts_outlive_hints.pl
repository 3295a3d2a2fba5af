# What is known of a multixact by a hint alone may be forgotten: VACUUM leaves none behind
# that is older than the table's relminmxid, and an updater that a crash ended is no
# updater, also while a prepared transaction keeps its multixact alive.
use strict;
use warnings;
use QuantaTable;
use Test::More;

my $t = QuantaTable->server;
my $c = $t->{c};
my ($one, $two) = map { $t->connect_to } 1 .. 2;
my $quanta = $QuantaTable::am eq 'quantadb';

# ---- a multixact that is over ----
$one->do('CREATE TABLE q (id int PRIMARY KEY, k int); CREATE TABLE other (i int) USING heap');
$one->do('INSERT INTO q SELECT i, i FROM generate_series(1, 20) i');
$_->begin_work for $one, $two;
$_->do('SELECT id FROM q WHERE id = 5 FOR KEY SHARE') for $one, $two;
$_->commit for $one, $two;

# Such a reader looks at who holds a row, and leaves a hint that no one does.
$one->begin_work;
$one->do('SET TRANSACTION ISOLATION LEVEL SERIALIZABLE');
is(QuantaTable::value($one, 'SELECT count(*) FROM q'), 20, 'the rows are there');
$one->commit;

# From now on a change of the page costs its image, which VACUUM avoids where it can.
$one->do('CHECKPOINT');
$one->do('INSERT INTO other VALUES (1)');
$one->do('SET vacuum_multixact_freeze_min_age = 0');
$one->do('VACUUM q');
is(QuantaTable::value($one, q{SELECT count(*) FROM quantadb_page_transactions('q', 0), pg_class
	WHERE relname = 'q' AND 'multi' = ANY (flags) AND xid::text::bigint < relminmxid::text::bigint}), 0,
	'VACUUM leaves no multixact that is older than relminmxid') if $quanta;
is(QuantaTable::problems($one, 'q'), '', 'no problem found');

# ---- an updater that a crash ended ----
$one->begin_work;
$one->do('SELECT id FROM q WHERE id = 7 FOR KEY SHARE');
$one->do(q{PREPARE TRANSACTION 'in_doubt'});
$two->begin_work;
$two->do('UPDATE q SET k = 0 WHERE id = 7');
$one = $t->connect_to;
$one->do('INSERT INTO other VALUES (2)');
$c->kill_all(1);
$c->start(1);
$one = $t->connect_to;
is(QuantaTable::value($one, 'SELECT k FROM q WHERE id = 7'), 7, 'the update is undone');
SKIP:
{
	skip 'heap takes the crashed updater for one that won', 1 if !$quanta;
	$one->begin_work;
	$one->do('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
	ok(eval { $one->do('UPDATE q SET k = k + 1 WHERE id = 7') == 1 }, 'and does not stop another one') or diag($@);
	$one->commit;
	is(QuantaTable::value($one, 'SELECT k FROM q WHERE id = 7'), 8, 'which counts');
}
$one->do(q{COMMIT PREPARED 'in_doubt'});
is(QuantaTable::problems($one, 'q'), '', 'no problem found after it');
done_testing();
