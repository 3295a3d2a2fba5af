# A load that remembers everything, faults in between: nothing acknowledged is lost, and
# every node streams again without help.
use strict;
use warnings;
use FindBin;

my $chaos = "$FindBin::Bin/../chaos";
exec($^X, "-I$FindBin::Bin/../lib", "-I$chaos", "$chaos/chaos.pl",
	$ENV{QUANTADB_CHAOS} || 'kill_primary,kill_everyone,kill_postmaster,pause_node,kill_coordinator,kill_streamer,cancel_storm,double_failover,kill_at_promotion,kill_at_rewind', 'minutes=1.3');
