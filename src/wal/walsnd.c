/*-------------------------------------------------------------------------
 *
 * walsnd.c
 *		The streamer's entries among PostgreSQL's walsenders.
 *
 * One entry has our latch, so that XLogFlush wakes us, once.  Each stream has
 * another one without a latch, which shows it in pg_stat_replication.  Their
 * priority is 0: PostgreSQL's own release of synchronous commits never counts
 * them, release.c does.  MyWalSnd stays NULL.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

#include "wal/streamer.h"

static int	own_slot = -1;		/* while no stream has any */
static int	latch_slot = -1;	/* the one entry that has our latch */
static bool exit_registered = false;

void
qdb_walsnd_free(int slot)
{
	WalSnd	   *walsnd;

	if (slot < 0)
		return;
	if (slot == latch_slot)
		latch_slot = -1;
	walsnd = &WalSndCtl->walsnds[slot];
	SpinLockAcquire(&walsnd->mutex);

	/*
	 * The latch goes under the lock, so that WalSndWakeup never sees a dead
	 * one.
	 */
	walsnd->latch = NULL;
	walsnd->pid = 0;
	SpinLockRelease(&walsnd->mutex);
}

/* At exit, whatever has our pid. */
static void
free_all(int code, Datum arg)
{
	for (int i = 0; i < max_wal_senders; i++)
	{
		if (WalSndCtl->walsnds[i].pid == MyProcPid)
			qdb_walsnd_free(i);
	}
}

int
qdb_walsnd_claim(void)
{
	if (!exit_registered)
	{
		on_shmem_exit(free_all, (Datum) 0);
		exit_registered = true;
	}
	for (int i = 0; i < max_wal_senders; i++)
	{
		WalSnd	   *walsnd = &WalSndCtl->walsnds[i];
		bool		claimed = false;

		SpinLockAcquire(&walsnd->mutex);
		if (walsnd->pid == 0)
		{
			walsnd->pid = MyProcPid;
			walsnd->state = WALSNDSTATE_STREAMING;
			walsnd->sentPtr = InvalidXLogRecPtr;
			walsnd->needreload = false;
			walsnd->write = InvalidXLogRecPtr;
			walsnd->flush = InvalidXLogRecPtr;
			walsnd->apply = InvalidXLogRecPtr;
			walsnd->writeLag = -1;
			walsnd->flushLag = -1;
			walsnd->applyLag = -1;
			walsnd->sync_standby_priority = 0;
			walsnd->latch = NULL;
			walsnd->replyTime = 0;
			claimed = true;
		}
		SpinLockRelease(&walsnd->mutex);
		if (claimed)
			return i;
	}
	return -1;
}

/* PostgreSQL calls those that commits wait for "quorum". */
static int
priority_of(const QdbStream *stream)
{
	const QdbMember *member;
	int			priority;

	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	member = qdb_member_by_id(&qdb_shared->state, stream->member);
	priority = member != NULL && member->role == QDB_ROLE_VOTER ? 1 : 0;
	LWLockRelease(qdb_shared->state_lock);
	return priority;
}

void
qdb_walsnd_update(const QdbStream *stream, int64 now)
{
	WalSnd	   *walsnd;
	TimestampTz timestamp;
	int			priority;

	if (stream->walsnd < 0)
		return;
	timestamp = GetCurrentTimestamp();
	priority = priority_of(stream);
	walsnd = &WalSndCtl->walsnds[stream->walsnd];
	SpinLockAcquire(&walsnd->mutex);
	walsnd->state = (stream->historic || stream->sent < qdb_seat.flush) ?
		WALSNDSTATE_CATCHUP : WALSNDSTATE_STREAMING;
	walsnd->sentPtr = stream->sent;
	walsnd->write = stream->write;
	walsnd->flush = stream->flush;
	walsnd->apply = stream->apply;
	/* Replicas say what they wrote together with what they flushed. */
	walsnd->writeLag = walsnd->flushLag = qdb_lag_now(&stream->flush_lag, now);
	walsnd->applyLag = qdb_lag_now(&stream->apply_lag, now);
	walsnd->sync_standby_priority = priority;
	if (stream->reply_us != 0)
		walsnd->replyTime = timestamp - (qdb_now_us() - stream->reply_us);
	SpinLockRelease(&walsnd->mutex);
}

static void
give_latch(int slot)
{
	WalSnd	   *walsnd = &WalSndCtl->walsnds[slot];

	SpinLockAcquire(&walsnd->mutex);
	walsnd->latch = &MyProc->procLatch;
	SpinLockRelease(&walsnd->mutex);
	latch_slot = slot;
	/* A flush in between has woken nobody. */
	SetLatch(MyLatch);
}

void
qdb_walsnd_keep_latch(bool wanted)
{
	if (wanted && latch_slot >= 0 && latch_slot != own_slot)
		return;
	for (int i = 0; wanted && i < QDB_MAX_STREAMS; i++)
	{
		if (qdb_streams[i].channel == NULL || qdb_streams[i].walsnd < 0)
			continue;
		give_latch(qdb_streams[i].walsnd);
		wanted = false;
	}
	if (wanted && own_slot < 0)
	{
		own_slot = qdb_walsnd_claim();
		if (own_slot >= 0)
			give_latch(own_slot);
	}
	else if (!wanted && own_slot >= 0)
	{
		int			slot = own_slot;

		own_slot = -1;
		qdb_walsnd_free(slot);
	}
}
