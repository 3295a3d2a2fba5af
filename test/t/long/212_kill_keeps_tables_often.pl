# 084_kill_keeps_tables.pl with forty kills.
use strict;
use warnings;
use FindBin;

$ENV{QUANTADB_KILLS} ||= 40;
do "$FindBin::Bin/../084_kill_keeps_tables.pl" or die $@ || $!;
