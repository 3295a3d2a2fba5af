# quantadb_promote(): asked of the target, of the primary and of a third node, under load.
# The old primary streams again by itself, nothing acknowledged is lost, and what
# cannot be is refused with a reason.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../chaos";
use ChaosTrace;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $c = QuantaCluster->new_cluster(n => 3);
$c->sql($c->primary, 'CREATE TABLE w (x bigint PRIMARY KEY)');

sub refused
{
	my ($i, $query, $state, $text, $name) = @_;
	my ($code, $out, $err) = $c->sql_try($i, $query, timeout => 120);
	isnt($code, 0, "$name: refused");
	like($err, qr/ERROR:\s+$state\b/, "$name: SQLSTATE $state");
	like($err, $text, "$name: says why");
	like($err, qr/HINT:/, "$name: and what helps");
}

# ---- what cannot be ----

my $p = $c->primary;
my ($t, $o) = grep { $_ != $p } $c->all;
refused($o, "SELECT quantadb_promote('n9')", '42704', qr/no such node/, 'an unknown node');
$c->sql($p, 'SELECT quantadb_pause()');
$c->wait_for(sub { $c->sql($o, 'SELECT paused FROM quantadb_status()') eq 't' }, 30, "n$o knows of the pause");
refused($o, "SELECT quantadb_promote('n$t')", '55000', qr/paused/, 'a paused cluster');
$c->sql($o, 'SELECT quantadb_resume()');
is($c->sql($o, "SELECT quantadb_promote('n$p')"), $c->sql($p, 'SELECT epoch FROM quantadb_status()'),
	'who is primary already stays so');
$c->sql($p, "CREATE ROLE nobody LOGIN");
my (undef, undef, $err) = $c->sql_try($p, "SET ROLE nobody; SELECT quantadb_promote('n$t')");
like($err, qr/42501/, 'not for everybody');

# ---- moves, and each old primary comes back by itself ----

$c->start_writers(2, 'w');
$c->wait_for(sub { scalar($c->acknowledged) >= 30 }, 60, '30 acknowledged rows');
for my $from ('target', 'primary', 'other')
{
	$p = $c->await_primary;
	($t, $o) = grep { $_ != $p } $c->all;
	my $epoch = $c->sql($p, 'SELECT epoch FROM quantadb_status()');
	my $ask = { target => $t, primary => $p, other => $o }->{$from};
	my $begin = time;
	my ($code, $new, $err) = $c->sql_try($ask,
		'SELECT quantadb_promote(' . ($from eq 'target' ? '' : "'n$t'") . ')', timeout => 120);
	my $end = time;
	is($code, 0, "asked of the $from") or diag($err);
	cmp_ok($new || 0, '>', $epoch, "it returns the new epoch $new");
	is($c->state_now($t), 'primary', "n$t is primary when it returns");
	$c->wait_for(sub { $c->state($p) eq 'replica' && $c->state($o) eq 'replica' }, 60,
		"n$p and n$o stream from n$t");
	my $before = grep { $_->[2] < $end } $c->acknowledged;
	$c->wait_for(sub { scalar($c->acknowledged) > $before + 5 }, 60, 'writes go on');
	pass("n$p streams again by itself");
	$c->sql_becomes($t, "SELECT count(*) FROM quantadb_journal WHERE epoch = $new AND event = 'not_chosen'", 2,
		'the journal says of both others why they were not chosen');
	note(sprintf('promote took %.0f ms', 1000 * ($end - $begin)));
}
$c->stop_writers;
$p = $c->await_primary;
for my $i (grep { $_ != $p } $c->all)
{
	$c->wait_replayed($i, $p);
	is(scalar($c->missing_numbers($i, 'w')), 0, "n$i has every acknowledged row");
}
is(scalar($c->missing_numbers($p, 'w')), 0, "so has the primary n$p");

# ---- what everybody has is not sent again while the gate is closed ----

# From where on and of which timeline a log says that the third node was sent WAL; the fork of its last promotion.
my ($sent, $fork) = ('', 'none');
for (1 .. 5)
{
	$p = $c->primary;
	($t, $o) = grep { $_ != $p } $c->all;
	$c->wait_replayed($_, $p) for $t, $o;
	$c->sql($t, 'SELECT quantadb_promote()', timeout => 45);
	$c->wait_complete;
	my $log = QuantaCluster::slurp($c->node($t)->{log});
	my ($timeline) = $c->sql($t, 'SELECT timeline FROM quantadb_status()');
	($fork) = $log =~ m{Promoting to PRIMARY role: timeline $timeline, epoch \d+, from (\S+) of};
	($sent) = $log =~ m{Streaming to node "n$o" from (\S+) on timeline $timeline$}m;
	# Only where it had all of the old timeline when it was asked: a last record may still come.
	last if ($sent || '') eq $fork;
}
is($sent, $fork, 'the third node is sent the new timeline from the fork on');
$p = $c->primary;

# ---- one at a time ----

($t, $o) = grep { $_ != $p } $c->all;
my @results;
my @pids;
for my $i ($t, $o)
{
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		my ($code, undef, $err) = $c->sql_try($i, 'SELECT quantadb_promote()', timeout => 120);
		open(my $f, '>', "$c->{dir}/promote.$i");
		print $f "$code $err";
		close $f;
		POSIX::_exit(0);
	}
	push @pids, $pid;
}
waitpid($_, 0) for @pids;
my $won = grep { QuantaCluster::slurp("$c->{dir}/promote.$_") =~ /^0 / } $t, $o;
cmp_ok($won, '>=', 1, 'of two at once at least one succeeds');
for my $i ($t, $o)
{
	my $said = QuantaCluster::slurp("$c->{dir}/promote.$i");
	next if $said =~ /^0 /;
	# Or it was primary already when the other one took over, which ends its sessions.
	like($said, qr/ERROR:\s+(55006|55000|40001)|57P0|closed the connection/, "the other is told: n$i");
}
$c->wait_for(sub { my $n = $c->primary; $n && !grep { $_ != $n && $c->state($_) ne 'replica' } $c->all },
	60, 'one primary, two replicas');

# ---- a failover where the primary does not live ----

$p = $c->await_primary;
($t, $o) = grep { $_ != $p } $c->all;
$c->sql($p, "SELECT quantadb_set('failover_timeout', '60s')");
my $pid = $c->postmaster($p);
my @all = ($pid, QuantaCluster::children_of($pid));
kill 'STOP', @all;
my ($code, $epoch, $why) = $c->sql_try($t, 'SELECT quantadb_promote()', timeout => 120);
kill 'CONT', @all;
is($code, 0, 'promoted while the primary does not answer') or diag($why);
$c->wait_for(sub { $c->state($t) eq 'primary' && $c->write_ok($t) }, 30, "n$t takes writes");
pass("n$t takes writes");

# ---- no majority ----

$c->kill_all($_) for $p, $o;
refused($t, "SELECT quantadb_promote('n$o')", '57P03', qr/nothing was changed/, 'no majority');

# ---- what chaos runs read ----
my %said;
$said{ $_->{what} }++ for map { ChaosTrace::read_log("n$_", split(/\n/, QuantaCluster::slurp($c->node($_)->{log}))) } $c->all;
is(join(' ', sort keys %said), 'boot follow open promote report serve stream', 'the logs say all that the trace of chaos runs looks for');
done_testing();
