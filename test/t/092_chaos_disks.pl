# Disks that forget what was not synced, fail, or are full, under a load that remembers
# everything: nothing acknowledged is lost, every node comes back.
use strict;
use warnings;
use FindBin;

my $chaos = "$FindBin::Bin/../chaos";
exec($^X, "-I$FindBin::Bin/../lib", "-I$chaos", "$chaos/chaos.pl",
	$ENV{QUANTADB_CHAOS} || 'power_loss,sync_fails,disk_full', 'minutes=0.6');
