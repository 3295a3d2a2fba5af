/*-------------------------------------------------------------------------
 *
 * removed.c
 *		The end of a membership, on the node whose membership it was.
 *
 * A member learns that it was removed from its own log, or where that came too late,
 * from the answer of any other member to its HELLO.  It then closes its Raft log and its
 * connections for good, says so, and stays what it is: a standby that nobody can write
 * to, with its old data, since its identity stays (I15).  A mark on disk makes that last over
 * restarts.  quantadb_join() with a new token makes it a member again, under a new id.
 *
 * Process: coordinator.  Writes QdbShared.removed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"

#include "cluster/internal.h"

#define TRANSFER_US		(2 * 1000 * 1000)	/* for another one to lead Raft */
#define RETRY_US		(1000 * 1000)

static bool learned = false;
static int64 learned_us = 0;
static int64 next_us = 0;

void
qdb_learn_removal(void)
{
	if (!learned)
		learned_us = qdb_now_us();
	learned = true;
}

bool
qdb_removal_learned(void)
{
	return learned;
}

/* What this node knew of the cluster is not true any more. */
static void
forget_cluster(void)
{
	qdb_close_raft();
	qdb_mesh_stop();
	qdb_state_init(qdb_co.state);
	LWLockAcquire(qdb_shared->state_lock, LW_EXCLUSIVE);
	qdb_state_init(&qdb_shared->state);
	memset(qdb_shared->peers, 0, sizeof(qdb_shared->peers));
	LWLockRelease(qdb_shared->state_lock);
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->target_epoch = 0;
	qdb_shared->target_member = 0;
	qdb_shared->raft_state = 0;
	qdb_shared->raft_leader = 0;
	SpinLockRelease(&qdb_shared->mutex);
	qdb_wake_streamer();
}

bool
qdb_removal_turn(void)
{
	if (!learned || qdb_shared->joining || !qdb_shared->member)
		return false;

	/*
	 * Who leads Raft hands that over first: the others need not wait for an
	 * election.
	 */
	if (qdb_is_raft_leader() && qdb_co.now_us - learned_us < TRANSFER_US)
		return false;
	if (qdb_co.now_us < next_us)
		return false;
	next_us = qdb_co.now_us + RETRY_US;
	if (!qdb_removed_store(&qdb_co.self))
		return false;
	ereport(LOG, (errmsg("[cluster] This node was removed from the cluster: it takes no part in it any more"),
				  errhint("quantadb_join() with a new token makes it a member again.")));
	qdb_end_wishes();
	forget_cluster();
	qdb_shared->removed = true;
	learned = false;
	return true;
}

void
qdb_removed_turn(void)
{
	bool		in_recovery = RecoveryInProgress();

	strlcpy(qdb_co.why_not, "it was removed from the cluster", sizeof(qdb_co.why_not));
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->node_state = QDB_NODE_STANDBY;
	qdb_shared->open_epoch = 0;
	qdb_shared->fenced = !in_recovery;
	memcpy(qdb_shared->why_not, qdb_co.why_not, sizeof(qdb_co.why_not));
	SpinLockRelease(&qdb_shared->mutex);
	(void) qdb_effects.park_receiver();
	if (in_recovery || qdb_co.now_us < next_us)
		return;
	next_us = qdb_co.now_us + RETRY_US;
	qdb_effects.demote("this node was removed from the cluster");	/* I15 */
}
