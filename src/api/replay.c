/*-------------------------------------------------------------------------
 *
 * replay.c
 *		Waits for replay, without holding it up.
 *
 * Replay on a standby waits for queries: before it removes row versions that their
 * snapshots may need, and where it has to lock a table that they have open.  A read that
 * waits for replay, and has a snapshot or tables of its own, may be the one that replay
 * waits for; neither would go on before a timeout ends one of them.  So:
 *
 * - A read gives its snapshot back before it waits, where nobody else can use it
 *   (hooks.c), and takes a new one after it.
 * - A lock cannot be given back, because the plan stands on it, and some snapshots belong to
 *   what is around the query.  Where replay waits for this process, the wait ends at
 *   once with an error for which clients retry: the retry finds replay further on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/wait_event.h"

#include "api/hooks.h"
#include "base/base.h"

#define MIN_POLL_MS		1
#define MAX_POLL_MS		10

/* Replay is seen to wait for snapshots so often in a row before one is taken for the cause. */
#define SEEN_WAITING	3

/*
 * Does anybody wait for a lock on a relation that this process has?  Queries of a standby
 * take none that conflict with each other's: it is replay, or stands behind it.
 */
static bool
holds_wanted_lock(void)
{
	bool		found = false;

	for (int i = 0; i < NUM_LOCK_PARTITIONS && !found; i++)
	{
		SHM_QUEUE  *queue = &MyProc->myProcLocks[i];
		PROCLOCK   *held;

		LWLockAcquire(LockHashPartitionLockByIndex(i), LW_SHARED);
		for (held = (PROCLOCK *) SHMQueueNext(queue, queue, offsetof(PROCLOCK, procLink));
			 held != NULL && !found;
			 held = (PROCLOCK *) SHMQueueNext(queue, &held->procLink, offsetof(PROCLOCK, procLink)))
		{
			LOCK	   *lock = held->tag.myLock;

			found = held->holdMask != 0 && lock->waitProcs.size > 0 &&
				lock->tag.locktag_type == LOCKTAG_RELATION;
		}
		LWLockRelease(LockHashPartitionLockByIndex(i));
	}
	return found;
}

/* Only the startup process has that to wait for. */
static bool
replay_awaits_snapshots(void)
{
	for (int i = 0; i < NUM_AUXILIARY_PROCS; i++)
	{
		if (*(volatile uint32 *) &GetPGProcByNumber(MaxBackends + i)->wait_event_info ==
			WAIT_EVENT_RECOVERY_CONFLICT_SNAPSHOT)
			return true;
	}
	return false;
}

/*
 * Replay says for which transactions it waits to itself only, and goes on when they have
 * ended, not when they have given their snapshots back.  Those with the oldest snapshot
 * are among them.
 */
static bool
had_oldest_snapshot(TransactionId xmin)
{
	VirtualTransactionId *older;

	if (!TransactionIdIsNormal(xmin))
		return false;
	TransactionIdRetreat(xmin);
	older = GetConflictingVirtualXIDs(xmin, InvalidOid);
	return !VirtualTransactionIdIsValid(*older);
}

static void
refuse_to_wait(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("this transaction holds up the replay that it waits for"),
			 errdetail("%s", detail),
			 errhint("Retry the transaction.")));
}

/* xmin: of the snapshot that this transaction has, or had before it began to wait. */
static void
check_replay_is_free(TransactionId xmin, int *seen)
{
	if (holds_wanted_lock())
		refuse_to_wait("Replay has to lock a table that this transaction reads.");
	*seen = replay_awaits_snapshots() ? *seen + 1 : 0;
	if (*seen >= SEEN_WAITING && had_oldest_snapshot(xmin))
		refuse_to_wait("Replay has to remove row versions that its snapshot may have needed.");
}

/*
 * Waits until this node shows the LSN; false when the time is over (< 0: no
 * limit but statement_timeout).  A primary shows all that it has.
 */
bool
qdb_wait_for_replay(XLogRecPtr lsn, TransactionId xmin, int64 timeout_us)
{
	int64		deadline = timeout_us < 0 ? PG_INT64_MAX : qdb_now_us() + timeout_us;
	int			poll_ms = MIN_POLL_MS;
	int			seen = 0;

	for (;;)
	{
		bool		recovery = RecoveryInProgress();
		XLogRecPtr	shown = recovery ? GetXLogReplayRecPtr(NULL) : GetXLogInsertRecPtr();

		if (shown >= lsn)
		{
			if (recovery)
				qdb_note_replay(shown);
			return true;
		}
		if (qdb_now_us() >= deadline)
			return false;
		CHECK_FOR_INTERRUPTS();
		if (recovery && poll_ms == MAX_POLL_MS)
			check_replay_is_free(TransactionIdIsValid(MyProc->xmin) ? MyProc->xmin : xmin, &seen);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 poll_ms, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		poll_ms = Min(poll_ms * 2, MAX_POLL_MS);
	}
}
