# A row can be deleted, updated or locked however full its page is and however many
# transactions have been there: nothing fails, nothing waits for space.
#
# A page is filled so that 0 to 40 bytes are free.  Then up to 255 transactions that
# nobody may forget yet (an old snapshot is open) change or lock its rows.
# QUANTADB_FULL_MATRIX=1 runs every combination, 0-9 those with so many free bytes.
use strict;
use warnings;
use QuantaTable;
use Test::More;

my $t = QuantaTable->server;
my ($worker, $second, $old) = map { $t->connect_to } 1 .. 3;
$_->do("SET statement_timeout = '120s'") for $worker, $second;
my $rows = $QuantaTable::am eq 'heap' ? 150 : 255;
# How many transactions; on heap there are fewer rows on a page.
my @counts = grep { $_ <= $rows } (1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 127, 128, 200, 253, 254, 255);
my @operations = qw(delete update lock share multi mixed);

sub free_bytes { return QuantaTable::value($worker, "SELECT upper - lower FROM page_header(get_raw_page('full_page', 0))") }

# Fills page 0 with $rows rows and exactly $free bytes left; false when no row size does that.
my $per_row;
sub fill_page
{
	my ($free) = @_;
	$worker->do('DROP TABLE IF EXISTS full_page');
	$worker->do('CREATE TABLE full_page (id int, v text) WITH (autovacuum_enabled = off)');
	$worker->do("INSERT INTO full_page SELECT i, repeat('x', 13) FROM generate_series(1, $rows - 1) i");
	my $before = free_bytes();
	my $length = 13 + $before - $free - $per_row;
	return 0 if $length < 1;
	# A longer header of the value; then not compressible, so that the length is the length.
	$length -= 3 if $length > 126;
	$worker->do("INSERT INTO full_page SELECT $rows, left(string_agg(md5(i::text), ''), $length) FROM generate_series(1, 300) i");
	return QuantaTable::value($worker, q{SELECT count(*) FROM full_page WHERE ctid < '(1,0)'}) == $rows;
}

# What a row with 13 characters takes from the page.
$worker->do('CREATE TABLE full_page (id int, v text)');
$worker->do("INSERT INTO full_page VALUES (1, repeat('x', 13))");
$per_row = free_bytes();
$worker->do("INSERT INTO full_page VALUES (2, repeat('x', 13))");
$per_row -= free_bytes();

# One subtransaction a row: each has a transaction id of its own, and none is over.
my %sql = (
	delete => 'DELETE FROM full_page WHERE id = i', update => 'UPDATE full_page SET v = v || i WHERE id = i',
	lock => 'PERFORM 1 FROM full_page WHERE id = i FOR UPDATE', share => 'PERFORM 1 FROM full_page WHERE id = i FOR KEY SHARE',
	mixed => 'CASE i % 3 WHEN 0 THEN DELETE FROM full_page WHERE id = i; WHEN 1 THEN UPDATE full_page SET v = v || i WHERE id = i; ELSE PERFORM 1 FROM full_page WHERE id = i FOR SHARE; END CASE');
sub each_in_its_own
{
	my ($dbh, $sql, $n) = @_;
	$dbh->do("DO \$\$ BEGIN FOR i IN 1 .. $n LOOP BEGIN $sql; EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END \$\$");
}

sub state_of { return QuantaTable::value($_[0], q{SELECT count(*) || ' ' || md5(string_agg(id || v, ',' ORDER BY id)) FROM full_page}) }

# The state that must come out, made in a heap table.
sub wanted
{
	my ($operation, $n) = @_;
	my $sql = $operation eq 'multi' ? 'SELECT 1' : $sql{$operation};
	$worker->do('DROP TABLE IF EXISTS want; CREATE TABLE want USING heap AS SELECT * FROM full_page');
	$sql =~ s/full_page/want/g;
	each_in_its_own($worker, $sql, $n) if $operation =~ /delete|update|mixed/;
	return QuantaTable::value($worker, q{SELECT count(*) || ' ' || md5(string_agg(id || v, ',' ORDER BY id)) FROM want});
}

my ($done, $unreachable, $case) = (0, 0, 0);
my @failed;
sub try
{
	my ($free, $operation, $n, $commit) = @_;
	if (!fill_page($free)) { $unreachable++; return }
	my $before = state_of($worker);
	my $want = wanted($operation, $n);
	my $name = "$free bytes free, $operation by $n transactions, " . ($commit ? 'commit' : 'rollback');
	eval {
		$old->begin_work;
		$old->do('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
		die "old snapshot" if state_of($old) ne $before;
		$worker->begin_work;
		if ($operation eq 'multi')
		{
			# Two lockers a row, all different: every row has its own multixact.
			$second->begin_work;
			each_in_its_own($second, $sql{share}, $n);
			each_in_its_own($worker, $sql{share}, $n);
		}
		else { each_in_its_own($worker, $sql{$operation}, $n) }
		die "changes are not seen by their own transaction\n" if state_of($worker) ne $want;
		die "uncommitted changes are seen\n" if state_of($second) ne $before;
		if ($commit) { $worker->commit } else { $worker->rollback }
		$second->commit if $operation eq 'multi';
		die "wrong contents afterwards\n" if state_of($second) ne ($commit ? $want : $before);
		die "the old snapshot sees something else\n" if state_of($old) ne $before;
		my $problems = QuantaTable::problems($second, 'full_page');
		die "quantadb_check: $problems\n" if $problems;
		$old->commit;
		# Once more with nothing to protect: rows can be changed again, space comes back.
		$worker->do('UPDATE full_page SET v = left(v, 5) WHERE id % 2 = 0');
		$worker->do('VACUUM full_page');
		$problems = QuantaTable::problems($second, 'full_page');
		die "quantadb_check after vacuum: $problems\n" if $problems;
		$done++;
		1;
	} or do {
		push @failed, "$name: $@";
		for ($worker, $second, $old) { eval { $_->rollback if !$_->{AutoCommit} } }
	};
}

my ($least, $most) = ($ENV{QUANTADB_FULL_MATRIX} || '') =~ /^(\d+)-(\d+)$/ ? ($1, $2) : (0, 40);
for my $free ($least .. $most)
{
	for my $operation (@operations)
	{
		my @n = $ENV{QUANTADB_FULL_MATRIX} ? @counts : ($counts[ $case++ * 7 % @counts ]);
		for my $n (@n)
		{
			try($free, $operation, $n, ($free + $n) % 2) if @failed < 10;
		}
	}
}
is(scalar(@failed), 0, 'no operation failed or waited') or diag(join "\n", @failed);
cmp_ok($done, '>', 50, "$done combinations were tried") or diag("$unreachable could not be made");
is(QuantaTable::value($second, "SELECT count(*) FROM pg_locks WHERE NOT granted"), 0, 'nobody waits');
done_testing();
1;
