# A damaged page is an error, never a crash or an endless loop: for the functions that look
# into pages, for readers, for changes and for VACUUM.  quantadb_check says what is wrong.
use strict;
use warnings;
use QuantaTable;
use Test::More;
use Time::HiRes qw(sleep time);

plan skip_all => 'about the pages of quantadb' if $QuantaTable::am ne 'quantadb';

my $t = QuantaTable->server(conf => "ignore_checksum_failure = on\nrestart_after_crash = on\n");
my $c = $t->{c};
my $p = $t->connect_to;

sub line_pointer { my ($page, $n) = @_; my $v = unpack 'V', substr $$page, 20 + 4 * $n, 4; return ($v & 0x7FFF, ($v >> 15) & 3, $v >> 17) }
sub set_line_pointer { my ($page, $n, $off, $len) = @_; substr($$page, 20 + 4 * $n, 4) = pack 'V', $off | (1 << 15) | ($len << 17) }
sub set_entry { my ($page, $n, $xid) = @_; substr($$page, 8184 - 16 * $n, 4) = pack 'V', $xid }

my %damage = (
	far => sub { set_line_pointer($_[0], $_, 32767, 100) for 2 .. 10 },
	many => sub { substr(${$_[0]}, 12, 2) = substr ${$_[0]}, 14, 2 },
	deep => sub { substr(${$_[0]}, 14, 2) = pack 'v', 8180 },
	overlap => sub { my ($off) = line_pointer($_[0], 100); set_line_pointer($_[0], $_, $off, 200) for 2 .. 100 },
	future => sub { set_entry($_[0], $_, 1_000_000) for 1 .. 4 },
	# The newer version gets its own inserter as its updater, whose link leads to it.
	ring => sub { my ($off) = line_pointer($_[0], 101); substr(${$_[0]}, $off + 3, 1) = substr ${$_[0]}, $off + 2, 1 });

# Bytes at random, more of them where they mean something.
srand 88;
for my $n (1 .. 30)
{
	my @bytes = map { my $r = rand; [ $r < .15 ? int(rand 24) : $r < .5 ? 24 + int(rand 410) : $r < .8 ? 8184 - 16 * 8 + int(rand 136) : int(rand 8192),
		rand() < .5 ? int(rand 256) : (0, 1, 2, 3, 5, 8, 128, 255)[ rand 8 ] ] } 0 .. int(rand 3);
	$damage{"random$n"} = sub { substr(${$_[0]}, $_->[0], 1) = chr $_->[1] for @bytes };
}

my %file;
for my $name (sort keys %damage)
{
	$p->do("CREATE TABLE $name (i int, v text); CREATE INDEX ON $name (i)");
	$p->do("INSERT INTO $name SELECT i, repeat('v', i % 20) FROM generate_series(1, 100) i");
	$p->do("UPDATE $name SET v = 'newer' WHERE i = 1");
	$file{$name} = $c->node(1)->{data} . '/' . QuantaTable::value($p, "SELECT pg_relation_filepath('$name')");
}
$p->disconnect;
$c->stop(1) or die 'it does not stop';
for my $name (sort keys %damage)
{
	open my $fh, '+<:raw', $file{$name} or die "$file{$name}: $!";
	read $fh, my $page, 8192;
	$damage{$name}->(\$page);
	seek $fh, 0, 0;
	print $fh $page;
	close $fh;
}
$c->start(1);
$p = $t->connect_to;
$p->do('SET enable_seqscan = off; SET enable_bitmapscan = off');

# The answer, or the error.  What does not end in time cannot be cancelled either.
sub answer
{
	my ($sql) = @_;
	my $h = $p->prepare($sql, { pg_async => DBD::Pg::PG_ASYNC() });
	my $end = time + 120;
	$h->execute;
	while (!$p->pg_ready) { sleep 0.01; if (time > $end) { $c->kill_all(1); BAIL_OUT("endless: $sql") } }
	return eval { $p->pg_result; join ' ', map { map { defined $_ ? $_ : '' } @$_ } @{$h->fetchall_arrayref || []} } // $p->state . ' ' . $@;
}

like(answer(q{SELECT * FROM quantadb_check('far')}), qr/is not among the rows/, 'rows that lie elsewhere: quantadb_check says so');
like(answer(q{SELECT count(*) FROM quantadb_page_transactions('far', 0)}), qr/^\d/, 'and the page can be looked at');
like(answer('SELECT sum(i) FROM far'), qr/^XX001 .*damaged/s, 'but is not read');
for my $name (qw(many deep))
{
	like(answer("SELECT * FROM quantadb_check('$name')"), qr/line pointers|free space/, "a header that is $name: quantadb_check says so");
	like(answer($_), qr/^XX001 .*header of page 0 .*damaged/s, "$_ does, too") for "SELECT count(v) FROM $name", "VACUUM $name";
}
like(answer(q{SELECT * FROM quantadb_check('overlap')}), qr/overlaps another/, 'rows that overlap: quantadb_check says so');
like(answer('VACUUM overlap'), qr/^XX001 .*overlap/s, 'VACUUM does, too');
like(answer(q{SELECT * FROM quantadb_check('future')}), qr/1000000 is in the future/, 'a transaction of the future: quantadb_check says so');
like(answer('SELECT v FROM ring WHERE i = 1'), qr/^XX001 .*ring/s, 'a chain that is a ring is not followed for ever');
unlike(QuantaCluster::slurp($c->node(1)->{log}), qr/terminated by signal|PANIC/, 'nothing crashed');

for my $name (grep { /random/ } sort keys %damage)
{
	answer($_) for "SELECT count(*) FROM quantadb_page_items('$name', 0)", "SELECT count(*) FROM quantadb_page_transactions('$name', 0)",
		"SELECT * FROM quantadb_check('$name')", "SELECT count(v) FROM $name", "UPDATE $name SET v = v || '+' WHERE i % 3 = 0",
		"SELECT i FROM $name WHERE i % 5 = 0 FOR SHARE", "DELETE FROM $name WHERE i % 7 = 0", "INSERT INTO $name SELECT i, '' FROM generate_series(1, 50) i",
		"VACUUM (FREEZE) $name";
}
unlike(QuantaCluster::slurp($c->node(1)->{log}), qr/terminated by signal|PANIC/, 'nor does anything with bytes at random');
is(QuantaTable::value($p, 'SELECT 1'), 1, 'the session lives');
done_testing();
