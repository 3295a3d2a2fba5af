# ChaosScenario.pm
#	The scenarios of chaos.pl.
#
# Each: faults, a list of [function, arguments...] of which one is drawn at a time,
# and where the defaults do not do:
#	lasts	seconds that a fault is left alone, on average (0.5)
#	needs	"net": network namespaces, which need root; "shim": test/chaos/shim.c
#	nodes	number of nodes (3); initial: how many there are at the beginning
#	alone	not in the mix: it changes who belongs to the cluster
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
	flip_byte => { faults => [ ['flip_byte'], [ flip_byte => 'failover' ] ] },
	ddl => { faults => [ ['ddl'] ] },

	kill_at_promotion => { faults => [ [ kill_at_step => 'promotion' ] ] },
	kill_at_demotion => { faults => [ [ kill_at_step => 'demotion' ], [ kill_at_step => 'demotion', 'other' ] ] },
	kill_at_rewind => { faults => [ [ kill_at_step => 'rewind' ] ] },
	kill_source_of_rewind => { faults => [ [ kill_at_step => 'rewind', 'other' ] ] },

	# members
	grow_and_kill => { faults => [ ['grow_and_kill'] ], nodes => 5, initial => 3, alone => 1 },
	roles => { faults => [ ['change_role'] ], nodes => 5, alone => 1 },
	roles_partition => { faults => [ [ change_role => 'cut' ] ], nodes => 5, needs => 'net', alone => 1 },
	wipe => { faults => [ ['wipe'] ], alone => 1 },
	wipe_partition => { faults => [ [ wipe => 'cut' ] ], nodes => 5, needs => 'net', alone => 1 },

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
		lasts => 10, needs => 'net' },

	# disks and clocks
	sync_slow => { faults => [ map { [ slow_sync => @$_ ] } [ primary => '/pg_wal/' ], [ replica => '/pg_wal/' ], [ any => '/quantadb/' ], [ any => '' ] ],
		lasts => 6, needs => 'shim' },
	sync_fails => { faults => [ map { [ fail_sync => @$_ ] } [ primary => '/pg_wal/' ], [ replica => '/pg_wal/' ], [ any => '/quantadb/' ], [ any => '' ] ],
		lasts => 2, needs => 'shim' },
	disk_full => { faults => [ map { [ disk_full => @$_ ] } [ primary => '/pg_wal/' ], [ replica => '/pg_wal/' ], [ primary => '/raft/' ],
			[ replica => '/raft/' ], [ any => '' ] ], lasts => 3, needs => 'shim' },
	power_loss => { faults => [ [ lose_power => 'primary' ], [ lose_power => 'replica' ], ['lose_power_everywhere'] ], needs => 'shim' },
	clock_rate => { faults => [ map { [ clock_rate => @$_ ] } [ primary => 2 ], [ primary => 0.5 ], [ replica => 2 ], [ replica => 0.5 ] ],
		lasts => 6, needs => 'shim' },
	clock_jump => { faults => [ map { [ clock_jump => @$_ ] } [ any => 3600 ], [ any => -3600 ], [ primary => 30 ], [ primary => -30 ] ],
		lasts => 2, needs => 'shim' });

# Names that can run here, all or those of the mix.
sub names
{
	my ($mix) = @_;
	return grep { !($mix && $scenarios{$_}{alone}) && (($scenarios{$_}{needs} || '') ne 'net' || $> == 0) } sort keys %scenarios;
}

1;
