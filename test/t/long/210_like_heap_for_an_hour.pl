# The comparison of 081_like_heap.pl for QUANTADB_FUZZ_SECONDS (an hour), with new seeds.
use strict;
use warnings;
use FindBin;

$ENV{QUANTADB_FUZZ_SECONDS} ||= 3600;
$ENV{QUANTADB_FUZZ_SEED} ||= time % 100_000_000;
do "$FindBin::Bin/../081_like_heap.pl" or die $@ || $!;
