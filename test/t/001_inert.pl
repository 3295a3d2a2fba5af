# Loaded but no member, a server behaves as stock; without the preload the
# functions say what to do.
use strict;
use warnings;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 2);
$c->create_first(1);

is($c->sql(1, 'SHOW shared_preload_libraries'), 'quantadb', 'the library is loaded');
is($c->sql(1, 'SELECT pg_is_in_recovery()'), 'f', 'the server is no standby');
$c->becomes(sub { $c->write_ok(1) }, 1, 'writes work');
is($c->sql(1, 'SHOW synchronous_standby_names'), '', 'synchronous_standby_names is untouched');
is($c->sql(1, 'SHOW quantadb.node_name'), 'n1', 'settings can be shown');
is($c->sql(1, 'SHOW default_transaction_read_only'), 'off', 'sessions are not read-only');
$c->sql(1, "ALTER SYSTEM SET primary_slot_name = 'mine'");
pass('ALTER SYSTEM takes settings that a member owns');
$c->sql(1, 'ALTER SYSTEM RESET primary_slot_name');
ok(!-e $c->node(1)->{data} . '/standby.signal', 'no standby.signal was left');

ok($c->stop(1), 'it stops');
$c->start(1);
$c->becomes(sub { $c->write_ok(1) }, 1, 'it starts again and takes writes');

$c->sql(1, 'CREATE EXTENSION quantadb');
is($c->sql(1, 'SELECT count(*) FROM quantadb_nodes'), '0', 'there is no member');
my ($code, $out, $err) = $c->sql_try(1, 'SELECT quantadb_join_token()');
isnt($code, 0, 'a function for members refuses');
like($err, qr/quantadb_init|HINT/, 'and says what to do');

# a crash cycle, and the death of everything
my $child = $c->sql(1, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});
kill 'KILL', $child;
$c->wait_for(sub { my ($code) = $c->sql_try(1, 'SELECT 1'); $code == 0
	&& $c->sql(1, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'}) ne $child },
	30, 'a crash cycle');
$c->becomes(sub { $c->write_ok(1) }, 1, 'writable after a crash cycle');
$c->kill_all(1);
$c->start(1);
$c->becomes(sub { $c->write_ok(1) }, 1, 'writable after kill -9 of everything');

$c->create_first(2, no_preload => 1);
my ($code2, $out2, $err2) =
  $c->sql_try(2, "CREATE EXTENSION quantadb; SELECT quantadb_init('test')");
isnt($code2, 0, 'without the preload there is an error');
like($err2, qr/shared_preload_libraries/, 'that names shared_preload_libraries');
$c->becomes(sub { $c->write_ok(2) }, 1, 'and the server goes on');

done_testing();
