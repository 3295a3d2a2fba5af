/*-------------------------------------------------------------------------
 *
 * store.c
 *		Which files this node may hand to one that gets its data anew.
 *
 * Those of the holder of the seat, and those of a replica, to spare the holder.  What a
 * replica's files show is WAL that it has replayed.  That is within the history of the holder
 * of the epoch if it replays that epoch's timeline, of which no other node has written a byte
 * (I1, I2), and it stays so as long as it promises no newer epoch.  Whether a quorum has it,
 * and that the asking node's acks are forgotten (I11), the holder alone can say: who
 * clones from a replica keeps a connection to the holder too (failover/clone_source.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "replication/walreceiver.h"
#include "utils/memutils.h"

#include "wal/serve.h"
#include "wal/streamer.h"

QdbStore	qdb_store;

uint64
qdb_followed_epoch(TimeLineID *timeline)
{
	const QdbGrant *grant;
	TimeLineID	replayed;
	uint64		epoch;

	if (!RecoveryInProgress() || !HotStandbyActive())
		return 0;
	SpinLockAcquire(&qdb_shared->mutex);
	epoch = qdb_shared->promised;
	if (qdb_shared->promising != epoch || qdb_shared->clone.worker != 0)
		epoch = 0;
	SpinLockRelease(&qdb_shared->mutex);
	if (epoch == 0)
		return 0;
	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	grant = qdb_current_grant(&qdb_shared->state);
	if (grant == NULL || grant->epoch != epoch || !grant->opened ||
		grant->holder == qdb_shared->identity.member)
		epoch = 0;
	else
		*timeline = grant->timeline;
	LWLockRelease(qdb_shared->state_lock);
	(void) GetXLogReplayRecPtr(&replayed);
	return epoch != 0 && replayed == *timeline ? epoch : 0;
}

static void
look_at_store(QdbStore *store)
{
	memset(store, 0, sizeof(*store));
	if (qdb_seat.epoch != 0 && qdb_seat.taker == 0 && !qdb_seat.relay)
	{
		store->epoch = qdb_seat.epoch;
		store->timeline = qdb_seat.timeline;
		return;
	}
	store->replica = true;
	if (qdb_seat.epoch == 0 || qdb_seat.relay)
		store->epoch = qdb_followed_epoch(&store->timeline);
}

void
qdb_store_refresh(void)
{
	QdbStore	now;
	MemoryContext old;

	look_at_store(&now);
	if (now.epoch == qdb_store.epoch && now.replica == qdb_store.replica)
		return;
	for (int i = 0; i < QDB_MAX_STREAMS; i++)
	{
		if (qdb_streams[i].serve != NULL && !qdb_streams[i].closing)
			qdb_stream_refuse(&qdb_streams[i], true, "the seat has changed");
	}
	list_free_deep(qdb_store.history);
	qdb_store = now;
	qdb_store.history = NIL;
	if (now.epoch == 0)
		return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	qdb_store.history = readTimeLineHistory(now.timeline);
	MemoryContextSwitchTo(old);
}

XLogRecPtr
qdb_store_flush(void)
{
	return qdb_store.replica ? qdb_followed_flush() : GetFlushRecPtr(NULL);
}

XLogRecPtr
qdb_followed_flush(void)
{
	TimeLineID	receiving;
	TimeLineID	replaying;
	XLogRecPtr	received;
	XLogRecPtr	replayed;

	received = GetWalRcvFlushRecPtr(NULL, &receiving);
	/* After it: replay never passes what is flushed. */
	replayed = GetXLogReplayRecPtr(&replaying);
	return receiving == replaying && received > replayed ? received : replayed;
}
