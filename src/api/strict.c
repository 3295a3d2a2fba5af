/*-------------------------------------------------------------------------
 *
 * strict.c
 *		Strict reads on a replica.
 *
 *	1	ask the holder of the seat for its quorum LSN q; it answers while its
 *		lease lives
 *	2	wait until replay has passed q: every write that was acknowledged before
 *		the read began is visible
 *	3	take the snapshot
 *	4	read the replay position r, and wait until the quorum LSN has passed it:
 *		nothing in the snapshot can be taken back by a failover
 *
 * Positions compare only along one history.  So each answer counts only if
 * it is of the epoch that this node follows, with histories matched (I3).
 *
 * At READ COMMITTED this is done for each query of the client.  A transaction
 * with one snapshot does it when it begins, and takes its snapshot there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "utils/wait_event.h"

#include "api/hooks.h"
#include "base/status.h"

#define ASK_AGAIN_MS	1

/* The epoch whose holder this node follows, its history matched; 0 none. */
static uint64
followed_epoch(void)
{
	uint64		epoch;

	SpinLockAcquire(&qdb_shared->mutex);
	epoch = qdb_shared->target_epoch;
	if (qdb_shared->promised != epoch || qdb_shared->promising != epoch)
		epoch = 0;
	SpinLockRelease(&qdb_shared->mutex);
	return epoch;
}

static void
fail_strict(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("could not answer a strict read in time"),
			 errdetail("%s", detail),
			 errhint("Try again, raise quantadb.read_timeout, or read with quantadb.read_consistency = 'eventual'.")));
}

/* The answer to a ticket drawn now; false: refused for now, or late. */
static bool
ask(int64 deadline, XLogRecPtr *lsn)
{
	uint64		ticket = pg_atomic_add_fetch_u64(&qdb_shared->read_ticket, 1);
	uint64		epoch = 0;
	bool		answered = false;

	qdb_wake_coordinator();
	ConditionVariablePrepareToSleep(&qdb_shared->read_done);
	while (!answered && qdb_now_us() < deadline)
	{
		SpinLockAcquire(&qdb_shared->mutex);
		answered = qdb_shared->read_answered >= ticket;
		epoch = qdb_shared->read_epoch;
		*lsn = qdb_shared->read_lsn;
		SpinLockRelease(&qdb_shared->mutex);
		if (!answered)
			(void) ConditionVariableTimedSleep(&qdb_shared->read_done, 20, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return answered && epoch != 0 && epoch == followed_epoch();
}

static void
pause_asking(void)
{
	CHECK_FOR_INTERRUPTS();
	pg_usleep(ASK_AGAIN_MS * 1000);
}

/*
 * Steps 1 and 2; the caller takes a new snapshot then.  Returns q: a quorum
 * LSN of the followed epoch.  xmin as for qdb_wait_for_replay.
 */
XLogRecPtr
qdb_begin_strict_read(TransactionId xmin)
{
	int64		deadline = qdb_read_deadline();
	XLogRecPtr	lsn;

	for (;;)
	{
		if (ask(deadline, &lsn))
			break;
		if (qdb_now_us() >= deadline)
			fail_strict("The primary did not say, under a live lease, how far its quorum is.");
		pause_asking();
	}
	if (!qdb_wait_for_replay(lsn, xmin, Max(deadline - qdb_now_us(), 0)))
		fail_strict("This node has not replayed what the quorum has.");
	if (followed_epoch() == 0)
		fail_strict("A failover has begun.");
	return lsn;
}

/* Step 4, after the snapshot.  known: a quorum LSN from step 1, 0 without one. */
void
qdb_finish_strict_read(XLogRecPtr known)
{
	int64		deadline = qdb_read_deadline();
	XLogRecPtr	shown = GetCurrentReplayRecPtr(NULL);
	XLogRecPtr	lsn;

	if (shown <= known)
		return;
	for (;;)
	{
		if (ask(deadline, &lsn) && lsn >= shown)
			return;
		if (qdb_now_us() >= deadline)
			fail_strict("What this node shows is not on a quorum.");
		pause_asking();
	}
}
