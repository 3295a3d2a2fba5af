# Partitions under a load that remembers everything: the primary alone, one direction only,
# flapping, and links of which every node keeps some.  Nothing acknowledged is lost, one
# history on all nodes.
use strict;
use warnings;
use FindBin;
use QuantaNet;

my $chaos = "$FindBin::Bin/../chaos";
exec($^X, "-I$FindBin::Bin/../lib", "-I$chaos", "$chaos/chaos.pl",
	$ENV{QUANTADB_CHAOS} || 'partition_primary,partition_one_way,partition_ring', 'minutes=0.6');
