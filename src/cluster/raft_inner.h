/*-------------------------------------------------------------------------
 *
 * raft_inner.h
 *		A Raft node from the inside, for raft_node.c, raft_receive.c and
 *		raft_reconcile.c only; raft_node.h is the interface.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CLUSTER_RAFT_INNER_H
#define QDB_CLUSTER_RAFT_INNER_H

#include "cluster/raft_io.h"

struct QdbRaft
{
	struct raft raft;
	struct raft_fsm fsm;
	QdbRaftIo	io;
	QdbRaftCallbacks callbacks;
	QdbState   *state;
	unsigned	election_ms;
	raft_time	next_tick;
	int			depth;			/* > 0: inside libraft or a callback */
	struct Proposal *first;		/* proposed inside a callback */
	struct Proposal **last;
	uint8_t    *snapshot;		/* buffer for an encoded state */

	struct raft_transfer transfer;
	bool		transferring;
	struct raft_change change;
	struct raft_barrier barrier;
	bool		changing;		/* a barrier or a change is under way */
	uint64_t	barrier_term;	/* a barrier of this term is done, 0 none */

	unsigned	heartbeat_ms;
	uint64_t	announced;		/* commit index that all followers were told */
	uint64_t	announced_term;

	raft_time	heard_ms;		/* when a leader last sent something; 0 never */
	uint64_t	dead;			/* leader known dead, 0 none */
	int			rank;
	int			jumps;
	raft_time	next_jump;
};

/*
 * Completes all writes and calls back what libraft has finished.  Before libraft
 * gets a message nothing may be left over: it relies on that.
 */
extern void qdb_raft_drain(QdbRaft *r);

#endif							/* QDB_CLUSTER_RAFT_INNER_H */
