/*-------------------------------------------------------------------------
 *
 * demote.c
 *		Make this server a standby again inside the same postmaster, and decide
 *		whether its WAL can follow the current grant.
 *
 * PostgreSQL has no such transition.  We borrow its crash cycle: a worker that
 * exits with status 2 makes the postmaster end all children and recover, and with
 * standby.signal in place recovery leads to a standby.
 *
 * There is no checkpoint before: it would write WAL of an epoch that may be
 * over, which the next primary does not have, and it takes as long as there are
 * dirty buffers.  Recovery takes a little longer instead.
 *
 * Process: coordinator.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/transam.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "failover/failover.h"
#include "failover/wal_files.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/procarray.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "storage/sinvaladt.h"

#define PROMOTION_US		INT64CONST(3000000)

/*
 * InitWalRecovery ends the postmaster when the newest timeline in pg_wal does not
 * contain the checkpoint or the minimum recovery point.  Says whether it
 * would; a raised error counts as no objection, since recovery reads the same file.
 */
static bool
recovery_would_refuse(char *why)
{
	MemoryContext old = CurrentMemoryContext;
	ControlFileData *volatile control = NULL;
	TimeLineID	tip;
	TimeLineID	probe;
	QdbHistory	history;
	bool		crc_ok;
	bool		refuse;

	PG_TRY();
	{
		control = get_controlfile(DataDir, &crc_ok);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		FlushErrorState();
	}
	PG_END_TRY();
	if (control == NULL)
		return false;

	tip = Max(control->checkPointCopy.ThisTimeLineID, control->minRecoveryPointTLI);
	for (probe = tip + 1; qdb_history_read(probe, &history) && history.exists; probe++)
	{
		/* A placeholder at the end is swept before recovery starts. */
		if (!history.placeholder)
			tip = probe;
		qdb_history_free(&history);
	}
	refuse = !qdb_history_read(tip, &history);
	if (!refuse)
	{
		refuse = qdb_history_owner(&history, tip, control->checkPoint + 1) != control->checkPointCopy.ThisTimeLineID ||
			(control->minRecoveryPoint != InvalidXLogRecPtr &&
			 qdb_history_owner(&history, tip, control->minRecoveryPoint) != control->minRecoveryPointTLI);
		qdb_history_free(&history);
	}
	if (refuse)
		snprintf(why, QDB_REASON_SIZE,
				 "timeline %u, the newest in pg_wal, does not contain this server's checkpoint or recovery point",
				 tip);
	pfree(control);
	return refuse;
}

/*
 * qdb_demote
 *		Stop accepting writes and come back as a standby.
 *
 * Does not return when it works.  Returns, after a LOG line, when the next boot would
 * not be a standby or not be possible, or when the server is shutting down: then a
 * crash would end it without need.  The caller stays fenced and tries again.
 */
void
qdb_demote(const char *reason)
{
	char		why[QDB_REASON_SIZE];

	if (qdb_worker_shutdown_requested())
		return;
	ereport(LOG, (errmsg("[failover] Demoting: %s", reason)));
	if (!qdb_secure_boot())		/* I15 */
	{
		ereport(LOG, (errmsg("[failover] not demoted: \"%s\" is not in place", STANDBY_SIGNAL_FILE)));
		return;
	}
	if (recovery_would_refuse(why))
	{
		ereport(LOG, (errmsg("[failover] not demoted: %s", why)));
		return;
	}
	_exit(2);
}

/* What trim_file works with. */
typedef struct TrimContext
{
	const QdbState *state;
	const QdbGrant *grant;
	bool		newest_known;	/* the grant's own history file is here */
	bool		trimmed;
	bool		forgot_timeline;	/* startup may follow a timeline that is
									 * gone */
} TrimContext;

/*
 * Overwrites a segment with zeroes from offset on, durably.  *changed is set if
 * there was anything else.
 */
static bool
zero_rest(const char *path, uint32 offset, bool *changed)
{
	static const char zeroes[XLOG_BLCKSZ];
	char		block[XLOG_BLCKSZ];
	int			fd = open(path, O_RDWR | PG_BINARY | O_CLOEXEC);
	bool		ok = fd >= 0;

	while (ok && offset < wal_segment_size)
	{
		uint32		length = XLOG_BLCKSZ - offset % XLOG_BLCKSZ;

		ok = pg_pread(fd, block, length, offset) == length;
		if (ok && memcmp(block, zeroes, length) != 0)
		{
			*changed = true;
			ok = pg_pwrite(fd, zeroes, length, offset) == length;
		}
		offset += length;
	}
	if (ok)
		ok = pg_fsync(fd) == 0;
	if (!ok)
		ereport(LOG, (errcode_for_file_access(),
					  errmsg("[failover] could not trim \"%s\": %m", path)));
	if (fd >= 0)
		close(fd);
	return ok;
}

/*
 * I10: only WAL past the forks of the current grant's history goes.  Timelines
 * older than the first grant's are left alone.  So is the history file of a dead timeline
 * below the grant's once that one is here: it fills a gap in the numbers, and startup
 * takes the newest.  (The receiver may fetch it again from the primary; to remove it
 * each time would restart recovery for ever.)
 */
static bool
trim_file(const char *path, TimeLineID timeline, XLogSegNo segno, bool history, void *arg)
{
	TrimContext *trim = arg;
	XLogRecPtr	limit;
	bool		changed = false;
	bool		ok;

	if (timeline < trim->state->grants[0].timeline)
		return true;
	if (!qdb_history_limit(trim->state, trim->grant, timeline, &limit))
	{
		QdbHistory	parsed;

		if (history)
		{
			if (trim->newest_known && timeline < trim->grant->timeline)
				return true;
			if (!qdb_history_read(timeline, &parsed))
				return false;
			changed = !parsed.placeholder;
			qdb_history_free(&parsed);
			if (!changed)
				return true;
			trim->forgot_timeline = true;
		}
	}
	else if (history || limit / wal_segment_size > segno)
		return true;
	else if (limit / wal_segment_size == segno && limit % wal_segment_size != 0)
	{
		ok = zero_rest(path, limit % wal_segment_size, &changed);
		if (changed)
			ereport(LOG, (errmsg("[failover] trimmed \"%s\" at the fork %X/%X",
								 path, LSN_FORMAT_ARGS(limit))));
		trim->trimmed |= changed;
		return ok;
	}
	ereport(LOG, (errmsg("[failover] removing \"%s\": not in the history of timeline %u",
						 path, trim->grant->timeline)));
	trim->trimmed = true;
	return qdb_remove_file(path);
}

/* Has startup read past the fork?  Then why says what is needed. */
static bool
replayed_past(const QdbState *state, const QdbGrant *grant, char *why)
{
	TimeLineID	timeline;
	XLogRecPtr	replayed = GetXLogReplayRecPtr(&timeline);
	XLogRecPtr	limit;

	if (!qdb_history_limit(state, grant, timeline, &limit))
	{
		snprintf(why, QDB_REASON_SIZE,
				 "needs a rewind: has replayed timeline %u up to %X/%X, which is not in the history of timeline %u",
				 timeline, LSN_FORMAT_ARGS(replayed), grant->timeline);
		return true;
	}
	if (replayed > limit)
	{
		snprintf(why, QDB_REASON_SIZE,
				 "needs a rewind: has replayed timeline %u up to %X/%X, past the fork at %X/%X of timeline %u",
				 timeline, LSN_FORMAT_ARGS(replayed), LSN_FORMAT_ARGS(limit), grant->timeline);
		return true;
	}
	return false;
}

int
qdb_match_history(const QdbState *state, const QdbEndOfWal *end, char *why)
{
	const QdbGrant *grant = qdb_current_grant(state);
	TrimContext trim = {state, grant};
	QdbHistory	newest;
	XLogRecPtr	limit;
	bool		tail;

	why[0] = '\0';
	if (grant == NULL)
	{
		snprintf(why, QDB_REASON_SIZE, "no member holds the seat");
		return -1;
	}
	if (!RecoveryInProgress())
	{
		snprintf(why, QDB_REASON_SIZE, "it is not in recovery");
		return -1;
	}
	if (replayed_past(state, grant, why))
		return -1;
	tail = !qdb_history_limit(state, grant, end->timeline, &limit) || end->end > limit;

	trim.newest_known = qdb_history_read(grant->timeline, &newest) && newest.nlines > 0;
	qdb_history_free(&newest);

	/*
	 * I3: what startup could read past the fork goes before anything is
	 * received.
	 */
	if (!qdb_visit_wal_files(trim_file, &trim) || !qdb_fsync_path(XLOGDIR, true))
	{
		snprintf(why, QDB_REASON_SIZE, "the WAL past the fork could not be removed");
		return -1;
	}
	if (replayed_past(state, grant, why))
		return -1;

	/*
	 * Startup may hold a record of the tail that it has read and not replayed
	 * (a query is in its way), and it keeps a timeline that it has adopted:
	 * only a new startup process forgets them.
	 */
	if (tail || trim.forgot_timeline)
	{
		qdb_demote("recovery must forget the trimmed WAL");
		snprintf(why, QDB_REASON_SIZE, "recovery may still hold WAL past the fork");
		return -1;
	}
	return trim.trimmed ? 0 : 1;
}

/*
 * qdb_end_blocking_queries
 *		End queries that hold up replay on this standby.
 *
 * While an epoch opens nothing may hold up replay (hazards 33): every transaction with a
 * snapshot is cancelled as a recovery conflict, and a pause ends.  Does
 * nothing when replay has reached what is known to be there.
 */
void
qdb_end_blocking_queries(void)
{
	static int64 begun_us = 0;
	static int64 called_us = 0;
	VirtualTransactionId *waiters;
	int64		now = qdb_now_us();
	bool		spare_asker;
	XLogRecPtr	end;

	if (!RecoveryInProgress())
		return;
	if (now - called_us > PROMOTION_US)
		begun_us = now;
	called_us = now;
	spare_asker = now - begun_us < PROMOTION_US;
	if (GetRecoveryPauseState() != RECOVERY_NOT_PAUSED)
		SetRecoveryPause(false);
	SpinLockAcquire(&qdb_shared->mutex);
	end = qdb_shared->wal_end;
	SpinLockRelease(&qdb_shared->mutex);
	if (!HotStandbyActive() || GetXLogReplayRecPtr(NULL) >= end)
		return;
	/* The result is kept in static memory by the process array. */
	waiters = GetConflictingVirtualXIDs(InvalidTransactionId, InvalidOid);
	for (; VirtualTransactionIdIsValid(*waiters); waiters++)
	{
		const PGPROC *proc = BackendIdGetProc(waiters->backendId);

		/*
		 * Who asked for all this gets his answer, unless he is in the way for
		 * long.
		 */
		if (proc != NULL && spare_asker && qdb_awaits_promotion(proc->pid))
			continue;
		(void) CancelVirtualTransaction(*waiters, PROCSIG_RECOVERY_CONFLICT_SNAPSHOT);
	}
}
