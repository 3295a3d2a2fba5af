# Every combination of 082_full_pages_refuse_nothing.pl.
use strict;
use warnings;
use FindBin;

$ENV{QUANTADB_FULL_MATRIX} ||= 1;
do "$FindBin::Bin/../082_full_pages_refuse_nothing.pl" or die $@ || $!;
