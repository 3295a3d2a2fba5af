/*-------------------------------------------------------------------------
 *
 * demote.c
 *		Make this server a standby again inside the same postmaster.
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
#include "replication/walreceiver.h"
#include "storage/fd.h"
#include "storage/procarray.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "storage/sinvaladt.h"

#define PROMOTION_US		INT64CONST(3000000)

/*
 * InitWalRecovery ends the postmaster when the newest timeline in pg_wal does not
 * contain the checkpoint or the minimum recovery point.  Says whether it would, and of
 * which timeline; *own is this server's.  Raises errors.
 */
static bool
is_refused(const ControlFileData *control, TimeLineID *own, TimeLineID *tip)
{
	QdbHistory	history;
	bool		refuse;

	*own = *tip = Max(control->checkPointCopy.ThisTimeLineID, control->minRecoveryPointTLI);
	for (TimeLineID probe = *tip + 1; qdb_history_read(probe, &history) && history.exists; probe++)
	{
		/* A placeholder at the end is swept before recovery starts. */
		if (!history.placeholder)
			*tip = probe;
		qdb_history_free(&history);
	}
	if (!qdb_history_read(*tip, &history))
		return true;
	refuse = qdb_history_owner(&history, *tip, control->checkPoint + 1) != control->checkPointCopy.ThisTimeLineID ||
		(control->minRecoveryPoint != InvalidXLogRecPtr &&
		 qdb_history_owner(&history, *tip, control->minRecoveryPoint) != control->minRecoveryPointTLI);
	qdb_history_free(&history);
	return refuse;
}

/* A raised error counts as no objection, since recovery reads the same file. */
static bool
recovery_would_refuse(TimeLineID *own, TimeLineID *tip)
{
	MemoryContext old = CurrentMemoryContext;
	volatile bool refuse = false;

	PG_TRY();
	{
		bool		crc_ok;
		ControlFileData *control = get_controlfile(DataDir, &crc_ok);

		refuse = crc_ok && is_refused(control, own, tip);
		pfree(control);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		FlushErrorState();
	}
	PG_END_TRY();
	return refuse;
}

/*
 * qdb_drop_foreign_histories
 *		Remove history files in which this server's own data have no place.
 *
 * One that was fetched for a later primary ends the postmaster at its next start when the
 * data have gone past the fork (hazards 11): recovery takes the newest timeline for
 * its goal.  Without the file the server starts on its own timeline, is told who holds
 * the seat, and is rewound.  False: logged.
 */
bool
qdb_drop_foreign_histories(void)
{
	TimeLineID	own;
	TimeLineID	tip;
	char		path[MAXPGPATH];

	while (recovery_would_refuse(&own, &tip) && tip > own)
	{
		TLHistoryFilePath(path, tip);
		ereport(LOG, (errmsg("[failover] removing \"%s\": this server's data are not in the history of timeline %u",
							 path, tip)));
		if (!qdb_remove_file(path) || !qdb_fsync_path(XLOGDIR, true))
			return false;
	}
	return true;
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
	char		why[QDB_REASON_SIZE] = "";
	TimeLineID	own;
	TimeLineID	tip;

	if (qdb_worker_shutdown_requested())
		return;
	if (RecoveryInProgress())
		ereport(LOG, (errmsg("[failover] Restarting as a standby: %s", reason)));
	else
		ereport(LOG, (errmsg("[failover] Demoting to standby: %s", reason)));
	if (!qdb_secure_boot())		/* I15 */
	{
		ereport(LOG, (errmsg("[failover] not demoted: \"%s\" is not in place", STANDBY_SIGNAL_FILE)));
		return;
	}
	/* The history of a later timeline is removed at the boot. */
	if (recovery_would_refuse(&own, &tip) && tip <= own)
		snprintf(why, sizeof(why),
				 "timeline %u, the newest in pg_wal, does not contain this server's checkpoint or recovery point", tip);
	else if (qdb_limits_demanded(why))
		_exit(2);
	ereport(LOG, (errmsg("[failover] not demoted: %s", why)));
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
	char		why[QDB_REASON_SIZE];
	XLogRecPtr	end;

	if (!RecoveryInProgress())
		return;
	if (now - called_us > PROMOTION_US)
		begun_us = now;
	called_us = now;
	spare_asker = now - begun_us < PROMOTION_US;
	if (GetRecoveryPauseState() != RECOVERY_NOT_PAUSED)
	{
		/*
		 * The end of a pause for want of a setting would be the server's, and
		 * until then no query is in the way.
		 */
		if (!qdb_limits_demanded(why))
			return;
		SetRecoveryPause(false);
	}
	SpinLockAcquire(&qdb_shared->mutex);
	end = qdb_shared->wal_end;
	SpinLockRelease(&qdb_shared->mutex);

	/*
	 * What was received before this epoch counts too, also if nobody is
	 * followed yet.
	 */
	end = Max(end, GetWalRcvFlushRecPtr(NULL, NULL));
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
