/*-------------------------------------------------------------------------
 *
 * walsnd.c
 *		The streamer's entries among PostgreSQL's walsenders.
 *
 * An entry with our latch makes XLogFlush wake us, and shows a stream in
 * pg_stat_replication.  Its priority is 0: PostgreSQL's own release of
 * synchronous commits never counts it, release.c does.  MyWalSnd stays NULL.
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

static int	own_slot = -1;
static bool exit_registered = false;

void
qdb_walsnd_free(int slot)
{
	WalSnd	   *walsnd;

	if (slot < 0)
		return;
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
			walsnd->latch = &MyProc->procLatch;
			walsnd->replyTime = 0;
			claimed = true;
		}
		SpinLockRelease(&walsnd->mutex);
		if (claimed)
			return i;
	}
	return -1;
}

void
qdb_walsnd_update(const QdbStream * stream)
{
	WalSnd	   *walsnd;
	TimestampTz now;

	if (stream->walsnd < 0)
		return;
	now = GetCurrentTimestamp();
	walsnd = &WalSndCtl->walsnds[stream->walsnd];
	SpinLockAcquire(&walsnd->mutex);
	walsnd->state = (stream->historic || stream->sent < qdb_seat.flush) ?
		WALSNDSTATE_CATCHUP : WALSNDSTATE_STREAMING;
	walsnd->sentPtr = stream->sent;
	walsnd->write = stream->write;
	walsnd->flush = stream->flush;
	walsnd->apply = stream->apply;
	walsnd->applyLag = stream->apply_lag_us;
	if (stream->reply_us != 0)
		walsnd->replyTime = now - (qdb_now_us() - stream->reply_us);
	SpinLockRelease(&walsnd->mutex);
}

void
qdb_walsnd_keep_own(bool wanted)
{
	if (wanted && own_slot < 0)
		own_slot = qdb_walsnd_claim();
	else if (!wanted && own_slot >= 0)
	{
		qdb_walsnd_free(own_slot);
		own_slot = -1;
	}
}
