# A transaction is visible on a replica before its commit record is replayed to the end: the
# files of what it has dropped go after that. A strict read shows it only when a quorum has it.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

# A small queue of the checkpointer, at which replay can be made to stand.
my $c = QuantaCluster->new_cluster(n => 3, conf => "quantadb.read_timeout = '3s'\nautovacuum = off\nshared_buffers = 1MB\n");
my $p = $c->primary;
my ($voter, $r) = grep { $_ != $p } $c->all;
$c->sql($p, "SELECT quantadb_set_role('n$r', 'replica')");
$c->sql($p, 'CREATE TABLE seen (x int); CREATE SCHEMA s');
$c->sql($p, q{DO $$ BEGIN FOR i IN 1 .. 200 LOOP EXECUTE format('CREATE TABLE s.t%s (x int)', i); END LOOP; END $$});

# A transaction of which only the commit record is missing on a quorum.
my ($in, $out, $err) = ('', '', '');
my $run = IPC::Run::start([ ($ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin') . '/psql', '-X', '-A', '-t', '-q', '-d', $c->conninfo($p) ],
	'<', \$in, '>', \$out, '2>', \$err, IPC::Run::timeout(300));
$in = "BEGIN; INSERT INTO seen VALUES (1); DROP SCHEMA s CASCADE; SELECT 'dropped';\n";
$c->wait_for(sub { $run->pump_nb; $out =~ /dropped/ }, 60, 'the transaction has done its work');
$c->sql($p, 'INSERT INTO seen VALUES (0)');
$c->wait_replayed($_, $p) for $voter, $r;

my $receiver = $c->sql($voter, 'SELECT pid FROM pg_stat_wal_receiver');
my $checkpointer = $c->sql($r, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'});
kill 'STOP', $checkpointer, $receiver;
$in = "COMMIT; SELECT 'committed';\n";
$c->wait_for(sub { $run->pump_nb; $c->sql($r, 'SELECT count(*) FROM seen') eq '2' }, 60, 'an eventual read shows it');
isnt($c->sql($r, 'SELECT pg_last_wal_receive_lsn() - pg_last_wal_replay_lsn()'), '0', 'its record is not replayed to the end');

my ($code, $shown, $error) = $c->sql_try($r, 'SET quantadb.read_consistency = strict; SELECT count(*) FROM seen');
is("$code $shown", '1 ', 'a strict read does not');
like($error, qr/55000/, 'and says so');

kill 'CONT', $checkpointer, $receiver;
$c->wait_for(sub { $run->pump_nb; $out =~ /committed/ }, 60, 'it is acknowledged');
is($c->sql($r, "SET quantadb.read_timeout = '60s'; SET quantadb.read_consistency = strict; SELECT count(*) FROM seen"), '2',
	'then it does');
$in = "\\q\n";
$run->finish;
done_testing();
