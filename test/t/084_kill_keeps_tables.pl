# kill -9 of the whole server under load, again and again: after each recovery
# quantadb_check and amcheck find nothing, and quantadb tables hold the same as the
# heap tables that the same transactions changed.
# QUANTADB_KILLS rounds (4).
use strict;
use warnings;
use QuantaTable;
use Test::More;

my $t = QuantaTable->server(conf => "full_page_writes = on\nmax_connections = 30\ncheckpoint_timeout = 30s\nfsync = off\n");
my $c = $t->{c};
my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';
my $rounds = $ENV{QUANTADB_KILLS} || 4;

my $dbh = $t->connect_to;
$dbh->do('CREATE TABLE q (id int PRIMARY KEY, k int, v text); CREATE INDEX q_k ON q (k); CREATE TABLE q_wide (id int, v text)');
$dbh->do('CREATE TABLE h (LIKE q INCLUDING ALL) USING heap; CREATE TABLE h_wide (LIKE q_wide) USING heap');
for my $table (qw(q h)) { $dbh->do("INSERT INTO $table SELECT i, i % 100, repeat('x', i % 200) FROM generate_series(1, 3000) i") }
$dbh->do('CREATE UNLOGGED TABLE q_lost (id int)');
$dbh->disconnect;

# One transaction changes both, and sees the same rows in both: those that it names, or
# those of one snapshot; what pgbench runs is chosen by weight.
my %script = (
	update => "BEGIN;\n%s\nCOMMIT;", insert => "BEGIN;\n%s\nCOMMIT;", delete => "BEGIN;\n%s\nROLLBACK;", bulk => "BEGIN;\n%s\nCOMMIT;",
	savepoint => "BEGIN;\n%s\nCOMMIT;", wide => "BEGIN ISOLATION LEVEL REPEATABLE READ;\n%s\nCOMMIT;", prepared => "BEGIN;\n%s\nPREPARE TRANSACTION 'p:client_id-:r';\nCOMMIT PREPARED 'p:client_id-:r';");
my %body = (
	update => "SELECT id FROM q WHERE id = :id FOR NO KEY UPDATE;\nUPDATE TABLE SET k = k + 1, v = v || 'u' WHERE id = :id;",
	insert => "INSERT INTO TABLE VALUES (:r, :k, repeat('i', :k)) ON CONFLICT (id) DO UPDATE SET k = TABLE.k + 1;",
	delete => "DELETE FROM TABLE WHERE id BETWEEN :id AND :id + 5;",
	bulk => "DELETE FROM TABLE WHERE id = :id;\nUPDATE TABLE SET v = repeat('b', :k) WHERE id BETWEEN :id + 1 AND :id + 4;",
	savepoint => "SAVEPOINT s;\nUPDATE TABLE SET k = 0 WHERE id = :id;\nROLLBACK TO s;\nSELECT id FROM TABLE WHERE id = :id FOR SHARE;\nUPDATE TABLE SET v = left(v, 3) WHERE id = :id;",
	wide => "INSERT INTO TABLE_wide SELECT :r, string_agg(md5((:r + i)::text), '') FROM generate_series(1, 100) i;\nDELETE FROM TABLE_wide WHERE id < :r - 500000;",
	prepared => "UPDATE TABLE SET k = k + 1 WHERE id = :id;");
for my $name (keys %script)
{
	# Locks are taken in the order q, then h, so that nobody waits in a circle.
	my $both = join "\n", map { (my $s = $body{$name}) =~ s/TABLE/$_/g; $s =~ s/^SELECT id FROM q .*\n// if $_ eq 'h'; $s } qw(q h);
	QuantaCluster::append_file("$c->{dir}/$name.sql", "\\set id random(1, 2990)\n\\set r random(3001, 900000)\n\\set k random(0, 99)\n"
		. sprintf($script{$name}, $both) . "\n");
}
QuantaCluster::append_file("$c->{dir}/vacuum.sql", "VACUUM q;\nVACUUM q_wide;\n");
QuantaCluster::append_file("$c->{dir}/checkpoint.sql", "CHECKPOINT;\n");

sub same
{
	my ($dbh, $a, $b) = @_;
	return QuantaTable::value($dbh, "SELECT (SELECT count(*) FROM (TABLE $a EXCEPT ALL TABLE $b) x) + (SELECT count(*) FROM (TABLE $b EXCEPT ALL TABLE $a) x)");
}

for my $round (1 .. $rounds)
{
	my ($out, $err) = ('', '');
	my $load = IPC::Run::start([ "$bindir/pgbench", '-h', '127.0.0.1', '-p', $c->node(1)->{sql}, '-U', 'postgres', '-n', '-c', 6, '-j', 1, '-T', 60,
			'--max-tries=100', (map { ('-f', "$c->{dir}/$_.sql\@" . ($_ =~ /vacuum|checkpoint/ ? 1 : 6)) } sort(keys %script), 'vacuum', 'checkpoint'), 'postgres' ],
		'<', \undef, '>', \$out, '2>', \$err);
	my $count = $c->sql(1, q{SELECT xact_commit FROM pg_stat_database WHERE datname = 'postgres'});
	$c->wait_for(sub { $c->sql(1, q{SELECT xact_commit FROM pg_stat_database WHERE datname = 'postgres'}) > $count + 1000 }, 60, "load in round $round");
	$c->kill_all(1);
	eval { $load->finish };
	$c->start(1);
	my $dbh = $t->connect_to;
	$dbh->do("ROLLBACK PREPARED '$_'") for @{$dbh->selectcol_arrayref('SELECT gid FROM pg_prepared_xacts')};
	is(QuantaTable::problems($dbh, $_), '', "round $round: no problem in $_") for qw(q q_wide);
	is(same($dbh, "q$_", "h$_"), 0, "round $round: q$_ is like h$_") for '', '_wide';
	is(QuantaTable::value($dbh, 'SELECT count(*) FROM q_lost'), 0, "round $round: an unlogged table is empty");
	$dbh->do('INSERT INTO q_lost SELECT generate_series(1, 10)');
	$dbh->do('VACUUM q, q_wide');
	is(QuantaTable::problems($dbh, 'q') . QuantaTable::problems($dbh, 'q_wide'), '', "round $round: nor after VACUUM");
	is(same($dbh, "q$_", "h$_"), 0, "round $round: and q$_ is like h$_ still") for '', '_wide';
	$dbh->disconnect;
	unlike($err, qr/\bPANIC\b/, "round $round: no panic") or diag($err);
}
unlike(QuantaCluster::slurp($c->node(1)->{log}), qr/PANIC|TRAP|signal (?!9)\d/, 'the log has no crash but ours');
done_testing();
1;
