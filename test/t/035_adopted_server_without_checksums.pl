# A server without checksums that was adopted as it ran has not logged hint bits: pages of its may
# differ from the others' and no record says so.  Its first way back is a clone; from then on it
# rewinds.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 3);
$c->create_first(1, no_checksums => 1);
$c->sql(1, 'CREATE EXTENSION quantadb');
my (undef, undef, $said) = $c->sql_try(1, "SELECT quantadb_init('test')");
like($said, qr/NOTICE:.*logs no hint bits.*HINT:.*Restart/s, 'who adopts it is told what a restart is good for');
$c->wait_for(sub { $c->state(1) eq 'primary' && $c->write_ok(1) }, 60, 'n1 takes writes');
$c->be_patient(1);
is($c->sql(1, 'SHOW wal_log_hints'), 'off', 'adopted without a restart');
$c->join_copy($_) for 2, 3;
$c->wait_complete;
$c->sql(1, 'CREATE EXTENSION amcheck');
$c->sql(1, 'CREATE TABLE t (id int PRIMARY KEY, v text)');
$c->sql(1, "INSERT INTO t SELECT g, repeat('a', 100) FROM generate_series(1, 5000) g");
$c->wait_replayed($_, 1) for 2, 3;

my $new = $c->diverge(1, "UPDATE t SET v = 'lost' WHERE id % 2 = 0", 'SELECT count(*) FROM t', 'CHECKPOINT');
$c->sql($new, "UPDATE t SET v = 'alive' WHERE id % 3 = 0");
$c->start(1);
$c->wait_for(sub { $c->state(1) eq 'replica' }, 120, 'n1 streams again');
my $events = "SELECT string_agg(event, ' ' ORDER BY number) FROM quantadb_journal WHERE node = 'n1' AND event ~ 'rewind|clone'";
$c->wait_for(sub { $c->sql($new, $events) =~ /clone_done/ }, 30, 'the journal tells of it');
like($c->sql($new, $events), qr/^rewind_due rewind_failed clone_due (clone )+clone_done$/, 'by a clone');
like($c->sql($new, "SELECT reason FROM quantadb_journal WHERE node = 'n1' AND event = 'clone_due'"), qr/hint bits were not logged/,
	'and why');
$c->wait_complete;
$c->wait_replayed(1, $new);
is($c->fingerprint(1), $c->fingerprint($new), 'with the primary\'s tables');
is($c->amcheck(1), '', 'amcheck finds nothing');

# The new primary was a member when it started.
$c->sql($new, 'CHECKPOINT');
my $third = $c->diverge($new, "UPDATE t SET v = 'lost' WHERE id % 5 = 0", 'SELECT count(*) FROM t', 'CHECKPOINT');
$c->start($new);
$c->wait_for(sub { $c->state($new) eq 'replica' }, 120, "n$new streams again");
$events =~ s/n1/n$new/;
$c->wait_for(sub { $c->sql($third, $events) =~ /done/ }, 30, 'the journal tells of it');
is($c->sql($third, $events), 'rewind_due rewind_done', "n$new comes back by a rewind");
$c->wait_replayed($new, $third);
is($c->fingerprint($new), $c->fingerprint($third), 'with the primary\'s tables');
is($c->amcheck($new), '', 'amcheck finds nothing');
done_testing();
