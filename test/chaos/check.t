# The checkers find what they are there for, and nothing in a clean history.
use strict;
use warnings;
use ChaosCheck;
use ChaosTrace;
use Test::More;

my $clock = 0;

sub op
{
	my ($kind, $status, $words, $result, %more) = @_;
	$clock++;
	return { kind => $kind, client => 1, sequence => $clock, status => $status, begin => $clock, end => $clock + 0.5,
		words => $words, result => defined $result ? $result : '', %more };
}

sub finds
{
	my ($pattern, $name, @anomalies) = @_;
	like(join("\n", @anomalies), $pattern, $name);
}

# sets
my @inserts = (op('unique', 'ok', 1), op('unique', 'fail', 2), op('unique', 'unknown', 3));
is_deeply([ ChaosCheck::check_set('x', [ 1, 3 ], @inserts) ], [], 'a set: unknown may be there');
is_deeply([ ChaosCheck::check_set('x', [1], @inserts) ], [], 'or not');
finds(qr/^lost: x 1/, 'a lost insert', ChaosCheck::check_set('x', [3], @inserts));
finds(qr/^phantom: x 2 failed/, 'a failed insert that is there', ChaosCheck::check_set('x', [ 1, 2 ], @inserts));
finds(qr/^phantom: x 9 was never/, 'one that never was', ChaosCheck::check_set('x', [ 1, 9 ], @inserts));

# sequences
is_deeply([ ChaosCheck::check_sequence({ 5 => '1/1' }, op('sequence', 'ok', '1/1', 5), op('sequence', 'fail', '1/2', '25006 x')) ], [], 'a number');
finds(qr/^lost: number 5 of 1\/1 is not there/, 'a lost one', ChaosCheck::check_sequence({}, op('sequence', 'ok', '1/1', 5)));
finds(qr/^lost: number 5 of 1\/1 is of 1\/2/, 'one of somebody else', ChaosCheck::check_sequence({ 5 => '1/2' }, op('sequence', 'ok', '1/1', 5)));
finds(qr/^twice/, 'one that was given out twice', ChaosCheck::check_sequence({}, op('sequence', 'fail', '1/1', '23505 duplicate key')));

# bank
is_deeply([ ChaosCheck::check_bank(8, 100, op('audit', 'ok', 'n1', '800,8')) ], [], 'the whole sum');
finds(qr/^bank: n1 saw 799/, 'a torn sum', ChaosCheck::check_bank(8, 100, op('audit', 'ok', 'n1', '799,8')));

# registers
is_deeply([ ChaosCheck::check_registers(op('register', 'ok', 'w 1 7', '1 7'), op('register', 'ok', 'r 1', '1 7')) ],
	[], 'a read of the last write');
finds(qr/^stale: register 1/, 'a read of an older one',
	ChaosCheck::check_registers(op('register', 'ok', 'w 1 7', '1 7'), op('register', 'ok', 'r 1', '0 0')));
finds(qr/version 1 was written twice/, 'two writes of one version',
	ChaosCheck::check_registers(op('register', 'ok', 'w 1 7', '1 7'), op('register', 'ok', 'w 1 8', '1 8')));
my $slow = op('register', 'ok', 'r 1', '0 0');
my $write = op('register', 'ok', 'w 1 7', '1 7');
$slow->{end} = $write->{end} + 1;
is_deeply([ ChaosCheck::check_registers($write, { %$slow, begin => $write->{begin} }) ], [], 'concurrent ones may go either way');

# lists
sub lists { my ($final, @ops) = @_; return ChaosCheck::check_lists($final, 'SERIALIZABLE', @ops) }

is_deeply([ lists({ 1 => ',5,6' }, op('lists', 'ok', 'a 1 5', ''), op('lists', 'ok', 'a 1 6', ''), op('lists', 'ok', 'r 1', 'r 1 ,5')) ],
	[], 'a prefix');
finds(qr/^lost: 6 was acknowledged/, 'a lost append',
	lists({ 1 => ',5' }, op('lists', 'ok', 'a 1 5'), op('lists', 'ok', 'a 1 6')));
finds(qr/^lost: client .* read 6/, 'a read of what is gone',
	lists({ 1 => ',5' }, op('lists', 'ok', 'a 1 5'), op('lists', 'unknown', 'a 1 6'), op('lists', 'ok', 'r 1', 'r 1 ,5,6')));
finds(qr/^G1a/, 'a failed append', lists({ 1 => ',5' }, op('lists', 'fail', 'a 1 5')));
finds(qr/^G1b/, 'an intermediate read',
	lists({ 1 => ',5,6' }, op('lists', 'ok', 'a 1 5;a 1 6', ''), op('lists', 'ok', 'r 1', 'r 1 ,5')));
finds(qr/half of client/, 'half a transaction',
	lists({ 1 => ',5', 2 => '' }, op('lists', 'unknown', 'a 1 5;a 2 6')));
finds(qr/^G0/, 'a cycle of writes',
	lists({ 1 => ',5,6', 2 => ',8,7' }, op('lists', 'ok', 'a 1 5;a 2 7'), op('lists', 'ok', 'a 1 6;a 2 8')));
finds(qr/^G1c/, 'a cycle of information',
	lists({ 1 => ',5', 2 => ',7' }, op('lists', 'ok', 'a 1 5;r 2', 'r 2 ,7'), op('lists', 'ok', 'a 2 7;r 1', 'r 1 ,5')));
finds(qr/^G-single/, 'read skew',
	lists({ 1 => ',5', 2 => ',7' }, op('lists', 'ok', 'a 1 5;a 2 7'), op('lists', 'ok', 'r 1;r 2', 'r 1 ;r 2 ,7')));
my @skew = (op('lists', 'ok', 'r 1;a 2 7', 'r 1 '), op('lists', 'ok', 'r 2;a 1 5', 'r 2 '));
finds(qr/^G2/, 'write skew', lists({ 1 => ',5', 2 => ',7' }, @skew));
is_deeply([ ChaosCheck::check_lists({ 1 => ',5', 2 => ',7' }, 'REPEATABLE READ', @skew) ], [],
	'which snapshot isolation allows');
finds(qr/^G-single/, 'a replica that shows half a transaction',
	lists({ 1 => ',5', 2 => ',7' }, op('lists', 'ok', 'a 1 5;a 2 7'), op('lists_read', 'ok', 'n2', 'r 1 ,5;r 2 ')));

my @taken_back = (op('lists', 'unknown', 'a 1 5'), op('lists', 'ok', 'a 1 6'));
is_deeply([ lists({ 1 => ',6' }, @taken_back, op('lists_read', 'ok', 'n2', 'r 1 ,5')) ], [],
	'a replica may show what was never acknowledged');
finds(qr/^lost/, 'the primary may not', lists({ 1 => ',6' }, @taken_back, op('lists', 'ok', 'r 1', 'r 1 ,5')));

# journal
is_deeply([ ChaosCheck::check_journal([ 1, 'seat', 'n1' ], [ 1, 'gate_open', 'n1' ], [ 2, 'seat', 'n2' ]) ], [], 'one seat an epoch');
finds(qr/epoch 1 has seats n1 and n2/, 'two seats', ChaosCheck::check_journal([ 1, 'seat', 'n1' ], [ 1, 'seat', 'n2' ]));

# the trace of the epochs
sub trace
{
	my (%lines) = @_;
	return ChaosTrace::check(3, map { $_ => [ ChaosTrace::read_log($_, @{ $lines{$_} }) ] } keys %lines);
}

sub boot { return qq{[cluster] node "x" is member 1, boot $_[0]} }
sub report { return "[failover] reporting for epoch $_[0]: WAL ends at $_[1] of timeline $_[2], epoch $_[3]" }
sub promote { return "[failover] Promoting to PRIMARY role: timeline $_[0], epoch $_[0], from $_[1] of timeline $_[2]" }
sub opens { return ("[replication] Serving epoch $_[0] on timeline $_[0]", "[failover] primary of epoch $_[0] is open on timeline $_[0]") }
sub streams { return "DETAIL:  From node \"n2\" at x:1, epoch $_[0], timeline $_[0], from 0/1000000." }

my @n1 = (boot(1), report(2, '0/2000', 1, 1), promote(2, '0/2000', 1), opens(2), boot(2), report(3, '0/3000', 2, 2), streams(3));
my @n2 = (boot(1), report(2, '0/1800', 1, 1), streams(2), report(3, '0/3000', 2, 2), promote(3, '0/3000', 2), opens(3));
is_deeply([ trace(n1 => \@n1, n2 => \@n2, n3 => [ boot(1), report(2, '0/2800', 1, 1) ]) ], [],
	'a trace of two epochs; a minority may have reported more');
finds(qr/^I1: epoch 2 has n1 member 1, boot 1 and n2 member 1, boot 1/m, 'two holders of an epoch',
	trace(n1 => \@n1, n2 => [ boot(1), report(2, '0/2000', 1, 1), promote(2, '0/2000', 1) ]));
finds(qr/^I1: timeline 2 has epoch 2 and epoch 3/m, 'two epochs of a timeline',
	trace(n1 => [ @n1[ 0 .. 4 ] ], n2 => [ boot(1), '[replication] Serving epoch 3 on timeline 2' ]));
finds(qr/^I1: epoch 2 has n1 member 1, boot 1 and n1 member 1, boot 2/m, 'a holder that went on after a restart',
	trace(n1 => [ @n1[ 0 .. 4 ], boot(2), opens(2) ]));
finds(qr/^I1: n2 streams timeline 4 in epoch 2/m, 'a stream of another timeline',
	trace(n1 => \@n1, n2 => [ boot(1), report(2, '0/1800', 1, 1), 'DETAIL:  From node "n1" at x:1, epoch 2, timeline 4, from 0/1000000.' ]));
finds(qr/^I2: n2 has promised epoch 3 and then: stream in epoch 2/m, 'a promise that goes back',
	trace(n1 => \@n1, n2 => [ @n2[ 0, 1, 3 ], boot(2), streams(2) ]));
finds(qr/^I6: n1 is promoted in epoch 2 without a report in that boot/m, 'a seat for another boot',
	trace(n1 => [ boot(1), report(2, '0/2000', 1, 1), boot(2), promote(2, '0/2000', 1) ]));
finds(qr/^I6: n1 reported 0\/2000 .* promoted at 0\/2500/m, 'a promotion elsewhere than reported',
	trace(n1 => [ boot(1), report(2, '0/2000', 1, 1), promote(2, '0/2500', 1) ]));
finds(qr/^I6: n1 won epoch 2 with 0\/2000 over 1 reports of 3/m, 'a winner with less than a majority has',
	trace(n1 => [ @n1[ 0 .. 4 ] ], n2 => [ boot(1), report(2, '0/2100', 1, 1) ], n3 => [ boot(1), report(2, '0/2200', 1, 1) ]));
finds(qr/^I7: timeline 3 does not come from timeline 2/m, 'an open epoch that the next one does not contain',
	trace(n1 => \@n1, n2 => [ boot(1), report(3, '0/3000', 1, 1), promote(3, '0/3000', 1), opens(3) ]));
finds(qr/^I8: timeline 3 leaves timeline 2 at 0\/2000/m, 'an epoch that was open without its record',
	trace(n1 => \@n1, n2 => [ boot(1), report(3, '0/2000', 2, 1), promote(3, '0/2000', 2), opens(3) ]));

done_testing();
