# Rows outlive the wraparound of transaction ids and of multixact ids: pg_resetwal moves
# both counters around the circle, VACUUM (FREEZE) advances the horizons in between, and
# a quantadb table holds the same as its heap twin all the way.
use strict;
use warnings;
use QuantaTable;
use Test::More;

my $t = QuantaTable->server;
my $c = $t->{c};
my $data = $c->node(1)->{data};
my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';

# pg_resetwal makes no segments for a counter that it moves.
sub segment
{
	my ($dir, $number) = @_;
	my $file = sprintf '%s/%s/%04X', $data, $dir, $number;
	return if -e $file;
	open(my $f, '>', $file) or die "$file: $!";
	print $f "\0" x 262144;
	close $f;
	$c->give_to_owner(1);
}

# Both counters go to $next; nothing that is still needed may be further away than half the circle.
sub jump_to
{
	my ($next) = @_;
	$c->stop(1) or die 'it does not stop';
	my ($control) = QuantaCluster::run_ok("$bindir/pg_controldata", '-D', $data) =~ /oldestMultiXid:\s+(\d+)/;
	segment('pg_xact', int($next / 1048576));
	segment('pg_multixact/offsets', int($next / 65536));
	QuantaCluster::run_ok(@{$c->node(1)->{enter}}, "$bindir/pg_resetwal", '-D', $data, '-x', $next, '-m', "$next,$control");
	$c->start(1);
}

sub on_both { my ($dbh, $sql) = @_; for my $table (qw(q h)) { my $s = $sql; $s =~ s/\bTABLE\b/$table/g; $dbh->do($s) } }
sub same
{
	my ($dbh) = @_;
	return QuantaTable::value($dbh, 'SELECT (SELECT count(*) FROM (TABLE q EXCEPT ALL TABLE h) x) + (SELECT count(*) FROM (TABLE h EXCEPT ALL TABLE q) x)') == 0
	  && QuantaTable::value($dbh, 'SELECT count(*) FROM q') > 0;
}

my $dbh = $t->connect_to;
$dbh->do("CREATE TABLE q (id int PRIMARY KEY, k int, v text); CREATE INDEX ON q (k)");
$dbh->do('CREATE TABLE h (LIKE q INCLUDING ALL) USING heap');
on_both($dbh, "INSERT INTO TABLE SELECT i, i, 'first' FROM generate_series(1, 1000) i");
my $round = 0;

# Every kind of version there is: committed, aborted, locked by one and by two, updated twice, deleted.
sub work
{
	my ($first, $second, $old) = map { $t->connect_to } 1 .. 3;
	$round++;
	$old->begin_work;
	$old->do('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
	my $before = QuantaTable::value($old, 'SELECT sum(k) FROM q');
	on_both($first, "INSERT INTO TABLE SELECT $round * 10000 + i, i, 'round $round' FROM generate_series(1, 200) i");
	for my $n (1 .. 12)
	{
		on_both($first, "UPDATE TABLE SET k = k + 1, v = v || '$n' WHERE id % 50 = $n");
		$first->begin_work;
		on_both($first, "DELETE FROM TABLE WHERE id % 50 = $n + 20");
		if ($n % 3) { $first->rollback } else { $first->commit }
	}
	$first->begin_work;
	$second->begin_work;
	for my $who ($first, $second) { on_both($who, 'SELECT id FROM TABLE WHERE id % 50 = 49 FOR KEY SHARE') }
	on_both($first, "UPDATE TABLE SET v = 'under a share lock' WHERE id % 50 = 49");
	$first->commit;
	$second->commit;
	is(QuantaTable::value($old, 'SELECT sum(k) FROM q'), $before, "round $round: an old snapshot sees what it saw");
	ok(same($first), "round $round: like heap");
	is(QuantaTable::problems($first, 'q'), '', "round $round: no problem found");
	$_->disconnect for $old, $first, $second;
	my $v = $t->connect_to;
	$v->do('VACUUM q');
	ok(same($v), "round $round: like heap after VACUUM");
	is(QuantaTable::problems($v, 'q'), '', "round $round: no problem found after VACUUM");
}

sub freeze_all
{
	my $v = $t->connect_to;
	$v->do('UPDATE pg_database SET datallowconn = true');
	QuantaCluster::run_ok("$bindir/vacuumdb", '-a', '-F', '-q', '-h', '127.0.0.1', '-p', $c->node(1)->{sql}, '-U', 'postgres');
	is(QuantaTable::value($v, q{SELECT age(relfrozenxid) < 1000 AND mxid_age(relminmxid) < 1000 FROM pg_class WHERE relname = 'q'}), 1,
		"round $round: VACUUM (FREEZE) advanced the horizons");
	is(QuantaTable::problems($v, 'q'), '', "round $round: no problem found after freezing");
	$v->do('CHECKPOINT');
}

# Uses up enough ids of both kinds to get past the end.
sub cross_the_end
{
	my ($first, $second) = map { $t->connect_to } 1 .. 2;
	for my $n (1 .. 150)
	{
		for my $who ($first, $second)
		{
			$who->begin_work;
			on_both($who, "SELECT id FROM TABLE WHERE id = $n FOR KEY SHARE");
			$who->do('SELECT pg_current_xact_id()');
		}
		on_both($first, "UPDATE TABLE SET k = -k WHERE id = $n") if $n % 10 == 0;
		$_->commit for $first, $second;
	}
	ok(same($first), 'like heap when the counters have started again');
}

work();
freeze_all();
$dbh->disconnect;
for my $next (2_000_000_000, 4_000_000_000, 4_294_967_200)
{
	jump_to($next);
	work();
	if ($next > 4_200_000_000)
	{
		cross_the_end();
		work();
	}
	freeze_all();
}
$dbh = $t->connect_to;
cmp_ok(QuantaTable::value($dbh, 'SELECT pg_current_xact_id()::xid::text::bigint'), '<', 100000, 'transaction ids have wrapped around');
cmp_ok(QuantaTable::value($dbh, q{SELECT relminmxid::text::bigint FROM pg_class WHERE relname = 'q'}), '<', 100000, 'so have multixact ids');
is(QuantaTable::value($dbh, "SELECT count(*) FROM q WHERE v = 'first'"), QuantaTable::value($dbh, "SELECT count(*) FROM h WHERE v = 'first'"), 'the first rows are there');
ok(same($dbh), 'and all is like heap');
done_testing();
