# What was updated on a full page gives its room to the next update there: pages that
# were loaded full take HOT updates as heap's do, and a change that finds no entry for its
# transaction takes one that no one needs, before it goes to an overflow page.
use strict;
use warnings;
use QuantaTable;
use Test::More;

my $t = QuantaTable->server(conf => "autovacuum = off\nwal_consistency_checking = 'quantadb'\n");
my $c = $t->{c};
my ($p, $q) = map { $t->connect_to(1) } 1 .. 2;
sub value { return QuantaTable::value($p, @_) }
sub elsewhere
{
	$p->do('SELECT pg_stat_force_next_flush()');
	return value(q{SELECT n_tup_upd - n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'full_pages'});
}

# As pgbench_accounts: 77 rows fill a page, but for 11 bytes.
my $rows = 77;
my $pages = 10;
$p->do(q{CREATE TABLE full_pages (id int PRIMARY KEY, n int, m int, filler char(84))});
$p->do(q{INSERT INTO full_pages SELECT i, 0, 0, '' FROM generate_series(0, ?) i}, undef, $rows * $pages - 1);
$p->do('VACUUM full_pages');
is(value(q{SELECT pg_relation_size('full_pages') / 8192}), $pages, 'the pages are full');

# The first update of a page finds no room; the next ones have what it left.
for my $how ('seqscan', 'indexscan')
{
	my $first = $how eq 'seqscan' ? 0 : 12;
	$p->do('SET enable_seqscan = ' . ($how eq 'seqscan' ? 'on' : 'off'));
	$p->do('SET enable_bitmapscan = off');
	for my $row ($first .. $first + 8)
	{
		$p->do('UPDATE full_pages SET n = n + 1 WHERE id = ?', undef, $_ * $rows + $row) for 0 .. $pages - 1;
		if ($row == $first && $how eq 'seqscan')
		{
			cmp_ok(elsewhere(), '<=', $pages, 'the first ones went to another page');
		}
	}
	cmp_ok(elsewhere(), '<=', $how eq 'seqscan' ? $pages : 2 * $pages, "$how: the others stayed with their page");
}
is(value('SELECT sum(n) FROM full_pages'), 18 * $pages, 'all updates are there');
is(QuantaTable::problems($p, 'full_pages'), '', 'the table is sound');

# ---- no overflow page for those that no one needs ----
$q->begin_work;
$q->do('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
is(QuantaTable::value($q, 'SELECT sum(n) FROM full_pages'), 18 * $pages, 'a snapshot is older than what follows');
$p->do('CREATE TABLE one_page (id int PRIMARY KEY, n int, m int, filler char(84))');
$p->do(q{INSERT INTO one_page SELECT i, 0, 0, '' FROM generate_series(0, ?) i}, undef, $rows - 1);
$p->do('UPDATE one_page SET n = 1 WHERE id = ?', undef, $_) for 1 .. 3;
is(value(q{SELECT count(*) FROM quantadb_page_transactions('one_page', 0)}), 4, 'the page has no entry left')
  if $QuantaTable::am eq 'quantadb';
$q->commit;
$p->do('DELETE FROM one_page WHERE id = 5');
is(value(q{SELECT count(*) FROM generate_series(0, pg_relation_size('one_page') / 8192 - 1) b
	WHERE NOT EXISTS (SELECT 1 FROM quantadb_page_items('one_page', b))}), 0, 'there is no overflow page')
  if $QuantaTable::am eq 'quantadb';
is(value('SELECT count(*) || \' \' || sum(n) FROM one_page'), $rows - 1 . ' 3', 'all rows are there');
is(QuantaTable::problems($p, 'one_page'), '', 'the table is sound');

# ---- records say what is not on the page already ----
sub records
{
	my ($what, $from) = @_;
	return value("SELECT $what FROM pg_get_wal_records_info('$from', pg_current_wal_flush_lsn()) WHERE resource_manager = 'quantadb'");
}
if ($QuantaTable::am eq 'quantadb')
{
	$p->do('CREATE EXTENSION pg_walinspect');
	$p->do(q{SET wal_consistency_checking = ''});
	$p->do('CREATE TABLE history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22))');
	$p->do(q{INSERT INTO history VALUES (1, 1, 70001, -512, '2026-11-27 12:00')});
	my $from = value('SELECT pg_current_wal_insert_lsn()');
	$p->do(q{INSERT INTO history VALUES (90, 7, 810002, 4711, '2026-11-27 12:00:00.9')});
	cmp_ok(records('max(record_length - fpi_length)', $from), '<=', 64, 'of a row like the one before it only what is another');

	# Each of them finds the page full and one dead version there.
	$p->do('UPDATE full_pages SET n = n + 1 WHERE id = ?', undef, 20 + $_) for 1 .. 5;
	$from = value('SELECT pg_current_wal_insert_lsn()');
	$p->do('UPDATE full_pages SET n = n + 1 WHERE id = ?', undef, 30 + $_) for 1 .. 15;
	is(records(q{count(*) FILTER (WHERE record_type = 'UPDATE') || ' ' || count(*) FILTER (WHERE record_type = 'PRUNE')}, $from),
		'15 0', 'to prune takes no record of its own');
	cmp_ok(records('count(*) FILTER (WHERE main_data_length > 0)', $from), '>=', 5, 'updates prune in passing');
	cmp_ok(records('percentile_disc(0.8) WITHIN GROUP (ORDER BY record_length - fpi_length)', $from), '<=', 56, 'and take no more WAL than others');

	# What they find out about transactions of before goes with their own records.
	$p->do('CHECKPOINT');
	$from = value('SELECT pg_current_wal_insert_lsn()');
	$p->do('UPDATE full_pages SET n = n + 1 WHERE id = ?', undef, 50 + $_) for 1 .. 15;
	my $hints = q{count(*) FILTER (WHERE record_type = 'FPI_FOR_HINT' AND block_ref LIKE '%/' || pg_relation_filenode('full_pages') || ' %')};
	is(value("SELECT $hints FROM pg_get_wal_records_info('$from', pg_current_wal_flush_lsn())"), 0, 'and a hint none of its own');
}

# ---- the same after a crash ----
my $all = q{SELECT count(*) || ' ' || sum(hashtext(f::text)::bigint) FROM full_pages f};
my $before = value($all);
$c->kill_all(1);
$c->start(1);
$p = $t->connect_to(1);
is(value($all), $before, 'kill -9 loses no row');
is(QuantaTable::problems($p, $_), '', "$_ is sound") for 'full_pages', 'one_page';
done_testing();
