# ChaosScenario.pm
#	The scenarios of chaos.pl.
#
# Each: faults, a list of [function, arguments...] of which one is drawn at a time,
# and where the defaults do not do:
#	lasts	seconds that a fault is left alone, on average (0.5)
#	needs	"net": network namespaces, which need root
#	nodes	number of nodes (3)
package ChaosScenario;

use strict;
use warnings;

our %scenarios = (
	# processes
	kill_primary => { faults => [ [ kill_all => 'primary' ] ] },
	kill_replica => { faults => [ [ kill_all => 'replica' ] ] },
	kill_any => { faults => [ [ kill_all => 'any' ] ] },
	kill_postmaster => { faults => [ [ kill_postmaster => 'primary' ], [ kill_postmaster => 'replica' ] ] },
	kill_backend => { faults => [ [ kill_process => 'primary', 'postgres postgres' ] ] },
	kill_coordinator => { faults => [ [ kill_process => 'any', 'quantadb coordinator' ] ] },
	kill_streamer => { faults => [ [ kill_process => 'primary', 'quantadb streamer' ] ] },
	kill_walreceiver => { faults => [ [ kill_process => 'replica', 'walreceiver' ] ] },
	kill_startup => { faults => [ [ kill_process => 'replica', 'startup' ] ] },
	kill_checkpointer => { faults => [ [ kill_process => 'any', 'checkpointer' ] ] },
	kill_everyone => { faults => [ ['kill_everyone'] ] },
	stop_everyone => { faults => [ ['stop_everyone'] ] },
	stop_fast => { faults => [ [ stop_fast => 'primary' ], [ stop_fast => 'replica' ] ] },
	pause_node => { faults => [ [ pause => 'primary', 'node' ], [ pause => 'replica', 'node' ] ], lasts => 3 },
	pause_postmaster => { faults => [ [ pause => 'primary', 'postmaster' ] ], lasts => 3 },
	pause_coordinator => { faults => [ [ pause => 'any', 'quantadb coordinator' ] ], lasts => 3 },
	pause_streamer => { faults => [ [ pause => 'primary', 'quantadb streamer' ] ], lasts => 3 },
	double_failover => { faults => [ ['double_failover'] ] },
	switchover => { faults => [ ['switchover'] ] },
	cancel_storm => { faults => [ ['cancel_storm'] ] },
	flip_byte => { faults => [ ['flip_byte'], [ kill_all => 'primary' ] ] },
	ddl => { faults => [ ['ddl'] ] },

	# networks
	partition_primary => { faults => [ [ isolate => 'primary' ] ], lasts => 5, needs => 'net' },
	partition_replica => { faults => [ [ isolate => 'replica' ] ], lasts => 3, needs => 'net' },
	partition_ring => { faults => [ ['ring'] ], lasts => 5, needs => 'net' },
	partition_ring_5 => { faults => [ ['ring'] ], lasts => 5, needs => 'net', nodes => 5 },
	partition_halves => { faults => [ ['halves'] ], lasts => 5, needs => 'net', nodes => 5 },
	partition_one_way => { faults => [ map { [ one_way => @$_ ] } [ primary => 'out' ], [ primary => 'in' ], [ replica => 'out' ], [ replica => 'in' ] ],
		lasts => 4, needs => 'net' },
	partition_flapping => { faults => [ [ flapping => 'primary' ], [ flapping => 'replica' ] ], lasts => 1, needs => 'net' },
	bad_network => { faults => [ [ bad_network => loss => 20, jitter => 200 ], [ bad_network => loss => 5, delay => 20, jitter => 100 ] ],
		lasts => 10, needs => 'net' });

# Names that can run here; %have: net => true.
sub names
{
	my (%have) = @_;
	return grep { !$scenarios{$_}{needs} || $have{ $scenarios{$_}{needs} } } sort keys %scenarios;
}

1;
