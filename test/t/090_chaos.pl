# A load that remembers everything, faults in between: nothing acknowledged is lost, and
# every node streams again without help.
use strict;
use warnings;
use FindBin;

my $chaos = "$FindBin::Bin/../chaos";
exec($^X, "-I$FindBin::Bin/../lib", "-I$chaos", "$chaos/chaos.pl",
	$ENV{QUANTADB_CHAOS} || 'kill_everyone,kill_replica,kill_coordinator,kill_streamer,cancel_storm', 'minutes=1');
