# The checkers find what they are there for, and nothing in a clean history.
use strict;
use warnings;
use ChaosCheck;
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

done_testing();
