# The same random sessions get the same answers from quantadb tables as from heap
# tables, and the comparison is able to see a difference.
# QUANTADB_FUZZ_SECONDS (40) and QUANTADB_FUZZ_SEED (1).
use strict;
use warnings;
use FindBin;
use QuantaCluster;
use Test::More;

my $c = QuantaCluster->new(n => 1, conf => "fsync = off\nautovacuum = off\nmax_prepared_transactions = 20
max_pred_locks_per_page = 1000\nmax_pred_locks_per_transaction = 1000\nmax_pred_locks_per_relation = 5000
max_locks_per_transaction = 200\nlog_min_messages = warning\nlog_min_error_statement = panic\n");
$c->create_first(1);
my $fuzzer = "$FindBin::Bin/../differential";
$fuzzer = "$FindBin::Bin/../../differential" if !-d $fuzzer;

sub twin
{
	my (@args) = @_;
	my $out = '';
	IPC::Run::run([ $^X, "-I$fuzzer", "$fuzzer/twin.pl", '127.0.0.1', $c->node(1)->{sql}, @args ], '<', \undef, '>', \$out, '2>&1');
	return ($? >> 8, $out);
}

my ($code, $out) = twin('subject=heap', 'tamper=1', 'seed=100', 'seeds=10', 'most=1', 'steps=40', 'shorten=5');
like($out, qr/^not ok - seed \d+ .*differs; again with/m, 'updates that are lost are found');
isnt($code, 0, 'and make the fuzzer fail');
($code, $out) = twin('seconds=' . ($ENV{QUANTADB_FUZZ_SECONDS} || 40), 'seed=' . ($ENV{QUANTADB_FUZZ_SEED} || 1), 'jobs=2');
is($code, 0, 'quantadb tables answer as heap tables') or diag($out);
diag($1) if $out =~ /^# (\d+ scripts.*)$/m;

done_testing();
1;
