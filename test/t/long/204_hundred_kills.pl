# A hundred random kills of any node, its postmaster alone or everything, under a bank and unique
# inserts: after each of them all nodes stream again without help, and at the end nothing that was
# acknowledged is gone, the nodes are equal, and amcheck finds nothing.
use strict;
use warnings;
use FindBin;

my $chaos = "$FindBin::Bin/../../chaos";
exec($^X, "-I$FindBin::Bin/../../lib", "-I$chaos", "$chaos/chaos.pl", 'kill_any,kill_postmaster',
	'faults=' . ($ENV{QUANTADB_KILLS} || 100));
