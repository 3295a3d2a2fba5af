# Failures that kill nothing: a disk that finishes no write, and a postmaster that is stopped.
# The primary gives its seat up on purpose and says why, the others go on with all that was
# acknowledged, and it comes back by itself once it is well.
use strict;
use warnings;
use FindBin;
use QuantaClient;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time);

my $c = QuantaCluster->new(n => 3, conf => "quantadb.stall_timeout = 4000\n");
QuantaCluster::run_ok('cc', '-shared', '-fPIC', '-o', "$c->{dir}/slow_disk.so", "$FindBin::Bin/../lib/slow_disk.c", '-ldl');
chmod 0755, "$c->{dir}/slow_disk.so";
{
	local $ENV{LD_PRELOAD} = "$c->{dir}/slow_disk.so";
	$c->create_first;
	$c->init(1);
	$c->join_copy($_) for 2, 3;
	$c->wait_complete;
}
my $p = $c->primary;
$c->sql($p, 'CREATE TABLE w (x bigint PRIMARY KEY)');
my @load = QuantaClient::start($c, 2, 'w');
END { my $code = $?; QuantaClient::stop(@load) if @load; $? = $code }
$c->wait_for(sub { scalar($c->acknowledged) >= 30 }, 60, '30 acknowledged rows');

sub next_primary
{
	my ($old, $what) = @_;
	my $new;
	$c->wait_for(sub { ($new) = grep { $_ != $old && $c->state($_) eq 'primary' } $c->all; $new }, 40, "$what: another primary");
	my $at = time;
	$c->wait_for(sub { grep { $_->[1] > $at } $c->acknowledged }, 30, "$what: writes go on");
	pass("$what: n$new is primary and writes go on");
	return $new;
}

sub reason_is
{
	my ($i, $old, $text, $what) = @_;
	like($c->sql($i, "SELECT string_agg(reason, ' ') FROM quantadb_journal WHERE event = 'release' AND node = 'n$old'"),
		$text, "$what: the journal says why");
}

# ---- a disk that finishes no write ----

QuantaCluster::append_file($c->node($p)->{data} . '/stall_disk', '');
my $stalled = $p;
$p = next_primary($stalled, 'a stalled disk');
reason_is($p, $stalled, qr/its WAL does not reach the disk/, 'a stalled disk');
unlink $c->node($stalled)->{data} . '/stall_disk';
$c->wait_for(sub { $c->state($stalled) eq 'replica' }, 60, "n$stalled streams again");
pass("n$stalled streams again once its disk works");

# ---- a postmaster that does not run ----

# It is fit for a seat again only when it has been well for a while.
$c->wait_complete;
my $session;
my $row = -1000;
$c->wait_for(sub {
	$session = QuantaClient::connect_to('127.0.0.1', $c->node($p)->{sql});
	my $state = $session && QuantaClient::query($session, 'INSERT INTO w VALUES (' . --$row . ')');
	return defined $state && $state eq '';
}, 30, 'a session of the primary writes');
pass('a session of the primary writes');
my $postmaster = $c->postmaster($p);
kill 'STOP', $postmaster;
my $hung = $p;
$p = next_primary($hung, 'a stopped postmaster');
reason_is($p, $hung, qr/its postmaster does not answer/, 'a stopped postmaster');
my $said = QuantaClient::query($session, 'INSERT INTO w VALUES (-2)');
ok(!defined $said || $said ne '', 'the session that is still there cannot write');
kill 'CONT', $postmaster;
$c->wait_for(sub { $c->state($hung) eq 'replica' }, 60, "n$hung streams again");
pass("n$hung streams again once its postmaster runs");

QuantaClient::stop(splice @load);
for my $i ($c->all)
{
	$c->wait_replayed($i, $p) if $i != $p;
	is(scalar($c->missing_numbers($i, 'w')), 0, "n$i has every acknowledged row");
}
is($c->sql($p, 'SELECT count(*) FROM w WHERE x = -2'), '0', 'what was refused is nowhere');
done_testing();
