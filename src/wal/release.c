/*-------------------------------------------------------------------------
 *
 * release.c
 *		Count acks into the quorum LSN and release waiting commits.
 *
 * Commits wait in PostgreSQL's SyncRepWaitForLSN.  synchronous_standby_names
 * is a constant that no walsender satisfies, so only we release, from the
 * membership in the replicated state (I5).
 *
 * Acks are counted under state_lock, so that members, incarnations and
 * the membership number that is published belong together.  The quorum LSN never goes back
 * within an epoch, also across a restart of the streamer, because it lives in
 * shared memory.  A membership number is published only once the count under
 * it has reached what was published before (I13).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "replication/syncrep.h"
#include "replication/walsender_private.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "wal/streamer.h"

/*
 * What SyncRepWakeQueue does: same order of unlinking, state and latch, which
 * SyncRepWaitForLSN relies on because it looks without the lock.
 */
static void
wake_queue(int mode)
{
	SHM_QUEUE  *queue = &WalSndCtl->SyncRepQueue[mode];
	PGPROC	   *proc;

	Assert(LWLockHeldByMeInMode(SyncRepLock, LW_EXCLUSIVE));
	proc = (PGPROC *) SHMQueueNext(queue, queue, offsetof(PGPROC, syncRepLinks));
	while (proc != NULL && proc->waitLSN <= WalSndCtl->lsn[mode])
	{
		PGPROC	   *done = proc;

		proc = (PGPROC *) SHMQueueNext(queue, &proc->syncRepLinks,
									   offsetof(PGPROC, syncRepLinks));
		SHMQueueDelete(&done->syncRepLinks);
		pg_write_barrier();
		done->syncRepState = SYNC_REP_WAIT_COMPLETE;
		SetLatch(&done->procLatch);
	}
}

static void
release_waiters(XLogRecPtr flush, XLogRecPtr apply)
{
	/* Only we write lsn[], so that it can be compared without the lock. */
	if (WalSndCtl->lsn[SYNC_REP_WAIT_FLUSH] >= flush &&
		WalSndCtl->lsn[SYNC_REP_WAIT_APPLY] >= apply)
		return;

	LWLockAcquire(SyncRepLock, LW_EXCLUSIVE);
	for (int mode = 0; mode < NUM_SYNC_REP_WAIT_MODE; mode++)
	{
		XLogRecPtr	upto = mode == SYNC_REP_WAIT_APPLY ? apply : flush;

		if (WalSndCtl->lsn[mode] < upto)
		{
			/* First the LSN: who comes now need not queue. */
			WalSndCtl->lsn[mode] = upto;
			wake_queue(mode);
		}
	}
	LWLockRelease(SyncRepLock);
}

/*
 * Counts flush and apply positions.  The streamer's acks were checked for
 * epoch, connection, incarnation and membership when they came; the
 * incarnation is compared again, since the state may have moved on.  False where it
 * has moved on to another epoch: then nothing counts any more.
 */
static bool
count_acks(XLogRecPtr *flush, XLogRecPtr *apply, uint64 *membership, bool *async)
{
	QdbAck		flushes[QDB_MAX_STREAMS + 1];
	QdbAck		applies[QDB_MAX_STREAMS + 1];
	size_t		n = 0;
	const QdbState *state = &qdb_shared->state;

	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	if (!qdb_counts_by(state, qdb_seat.epoch))
	{
		LWLockRelease(qdb_shared->state_lock);
		return false;
	}
	flushes[n] = (QdbAck)
	{
		qdb_shared->identity.member, qdb_seat.flush
	};
	applies[n++] = (QdbAck)
	{
		qdb_shared->identity.member, qdb_seat.flush
	};
	for (int i = 0; i < QDB_MAX_STREAMS; i++)
	{
		const QdbStream *stream = &qdb_streams[i];
		const QdbMember *member;

		if (stream->channel == NULL || stream->member == 0 || stream->flush == 0)
			continue;
		member = qdb_member_by_id(state, stream->member);
		if (member == NULL || member->incarnation != stream->incarnation)
			continue;
		flushes[n] = (QdbAck)
		{
			stream->member, stream->flush
		};
		applies[n++] = (QdbAck)
		{
			stream->member, Min(stream->apply, stream->flush)
		};
	}
	*flush = qdb_quorum_lsn(state, flushes, n);
	*apply = qdb_quorum_lsn(state, applies, n);
	*membership = state->membership;
	*async = state->settings.async;
	LWLockRelease(qdb_shared->state_lock);
	return true;
}

/* Publishes; true when the coordinator has to know at once. */
static bool
publish_quorum(XLogRecPtr counted, uint64 membership)
{
	QdbQuorum	before = {
		pg_atomic_read_u64(&qdb_shared->quorum_epoch),
		pg_atomic_read_u64(&qdb_shared->quorum_lsn),
		pg_atomic_read_u64(&qdb_shared->quorum_membership)
	};
	QdbQuorum	now = before;

	qdb_quorum_advance(&now, qdb_seat.epoch, counted, membership);
	if (now.epoch != before.epoch)
	{
		before.lsn = 0;
		pg_atomic_write_u64(&qdb_shared->quorum_epoch, 0);
		pg_write_barrier();
		pg_atomic_write_u64(&qdb_shared->quorum_lsn, 0);
		pg_atomic_write_u64(&qdb_shared->quorum_membership, 0);
		pg_write_barrier();
		pg_atomic_write_u64(&qdb_shared->quorum_epoch, now.epoch);
	}
	pg_atomic_write_u64(&qdb_shared->quorum_lsn, now.lsn);
	pg_write_barrier();
	pg_atomic_write_u64(&qdb_shared->quorum_membership, now.membership);

	/* The gate waits for the record, a change for its closing (I13). */
	return (before.lsn < qdb_seat.record_end && now.lsn >= qdb_seat.record_end) ||
		now.membership != before.membership;
}

/*
 * qdb_count_and_release
 *		After acks or a flush of our own.  Without a seat it does nothing.
 */
void
qdb_count_and_release(void)
{
	XLogRecPtr	flush;
	XLogRecPtr	apply;
	uint64		membership;
	bool		async;

	if (qdb_seat.epoch == 0 || qdb_seat.taker != 0 || qdb_seat.relay)
		return;
	if (!count_acks(&flush, &apply, &membership, &async))
		return;

	/*
	 * Back from async to quorum: the number that says so is switched to only
	 * when all that was acknowledged without a quorum is on one (I13).
	 */
	if (!async && flush < WalSndCtl->lsn[SYNC_REP_WAIT_FLUSH])
		membership = pg_atomic_read_u64(&qdb_shared->quorum_membership);
	if (publish_quorum(flush, membership))
		qdb_wake_coordinator();
	flush = pg_atomic_read_u64(&qdb_shared->quorum_lsn);
	/* I8: nothing is acknowledged before the epoch record is on the quorum. */
	if (flush < qdb_seat.record_end)
		return;
	if (async)
		release_waiters(qdb_seat.flush, qdb_seat.flush);
	else
		release_waiters(flush, Min(apply, flush));
}
