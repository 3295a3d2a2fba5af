/*-------------------------------------------------------------------------
 *
 * promote.c
 *		Promote this standby onto the timeline that its grant names.
 *
 * PostgreSQL takes the first timeline number without a history file.  The grant
 * names the number (I1), so the ones below it are filled with placeholders: files
 * with one comment line and no entry.  An entry would make a placeholder a
 * possible parent when startup looks for new timelines before the fork.
 *
 * Files of timelines that may not be there (tails that count for nobody) are
 * removed first, or startup would take them for its future.
 *
 * Placeholders that end up below the new, real history file stay: a restarted
 * server finds its newest timeline only over a sequence without gaps.
 *
 * Process: coordinator, receiver parked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "failover/failover.h"
#include "failover/wal_files.h"
#include "miscadmin.h"

/* What drop_uncounted works with. */
typedef struct DropContext
{
	const QdbState *state;
	const QdbGrant *grant;
	bool		adopted;		/* startup may follow what was dropped */
} DropContext;

/* Does the history file lead away from the grant's parent past the grant's fork? */
static bool
contradicts(TimeLineID timeline, const QdbGrant *grant)
{
	QdbHistory	history;
	bool		result;

	if (!qdb_history_read(timeline, &history))
		return true;
	result = !history.placeholder && (history.nlines == 0 ||
									  history.lines[history.nlines - 1].end > grant->fork);
	qdb_history_free(&history);
	return result;
}

/*
 * Removes what is newer than the grant's parent and no part of its history.  The
 * history file of a granted timeline that forked at or before the grant's fork
 * stays as a filler: startup can follow it no further than the fork.
 */
static bool
drop_uncounted(const char *path, TimeLineID timeline, XLogSegNo segno, bool history, void *arg)
{
	DropContext *drop = arg;

	if (timeline <= drop->grant->parent_timeline)
		return true;
	if (history && timeline < drop->grant->timeline &&
		!contradicts(timeline, drop->grant))
		return true;
	if (history && qdb_grant_of_timeline(drop->state, timeline) != NULL)
		drop->adopted = true;
	ereport(LOG, (errmsg("[failover] removing \"%s\": timeline %u is no part of the history of timeline %u",
						 path, timeline, drop->grant->timeline)));
	return qdb_remove_file(path);
}

static bool
place_placeholders(TimeLineID from, TimeLineID to)
{
	for (TimeLineID timeline = from; timeline < to; timeline++)
	{
		char		path[MAXPGPATH];

		TLHistoryFilePath(path, timeline);
		if (!qdb_file_exists(path) && !qdb_place_file(path, QDB_PLACEHOLDER))
			return false;
	}
	return true;
}

/*
 * The grant is for this node as it is now: nothing replayed past its fork.  The caller
 * has scanned and fsynced under this very promise.
 */
static bool
fits_grant(const QdbState *state, const QdbGrant *grant, char *why)
{
	QdbEndOfWal end;

	if (!qdb_end_of_wal_again(state, &end, why))
		return false;
	if (end.end != grant->fork || end.timeline != grant->parent_timeline)
	{
		snprintf(why, QDB_REASON_SIZE,
				 "its WAL ends at %X/%X of timeline %u, but the grant forks at %X/%X of timeline %u",
				 LSN_FORMAT_ARGS(end.end), end.timeline,
				 LSN_FORMAT_ARGS(grant->fork), grant->parent_timeline);
		return false;
	}
	if (end.replayed > grant->fork)
	{
		snprintf(why, QDB_REASON_SIZE,
				 "needs a rewind: has replayed timeline %u up to %X/%X, past the fork at %X/%X of timeline %u",
				 end.replayed_timeline, LSN_FORMAT_ARGS(end.replayed),
				 LSN_FORMAT_ARGS(grant->fork), grant->parent_timeline);
		return false;
	}
	return true;
}

/* From the promote file on; startup removes it when it has noticed. */
bool
qdb_is_promoting(void)
{
	return RecoveryInProgress() && (PromoteIsTriggered() || qdb_file_exists(PROMOTE_SIGNAL_FILE));
}

bool
qdb_promote(const QdbState *state, const QdbGrant *grant, char *why)
{
	DropContext drop = {state, grant, false};

	why[0] = '\0';
	if (grant->parent_timeline == 0 || grant->timeline <= grant->parent_timeline ||
		grant->timeline - grant->parent_timeline > 100000)
	{
		snprintf(why, QDB_REASON_SIZE, "timeline %u cannot follow timeline %u",
				 grant->timeline, grant->parent_timeline);
		return false;
	}
	/* Repeated: startup may be writing the very files that are dropped below. */
	if (qdb_is_promoting())
		return true;
	if (!qdb_limits_demanded(why))
		return false;
	if (!fits_grant(state, grant, why)) /* I6 */
		return false;
	if (!qdb_visit_wal_files(drop_uncounted, &drop) || !qdb_sync_wal_folder())
	{
		snprintf(why, QDB_REASON_SIZE, "files in pg_wal could not be removed");
		return false;
	}

	/*
	 * Startup keeps the timeline that it has once adopted; only a restart
	 * makes it look again.  The grant ends with this boot, the next epoch can
	 * be won.
	 */
	if (drop.adopted)
	{
		snprintf(why, QDB_REASON_SIZE, "recovery follows a timeline that is no part of the grant's history");
		qdb_demote(why);
		return false;
	}

	/*
	 * The last file is for the postmaster at once: it must not outlive this
	 * boot.
	 */
	if (!place_placeholders(grant->parent_timeline + 1, grant->timeline) ||
		!qdb_touch(PROMOTE_SIGNAL_FILE))
	{
		(void) qdb_sweep_placeholders();
		snprintf(why, QDB_REASON_SIZE, "the files of a promotion could not be written");
		return false;
	}
	if (GetRecoveryPauseState() != RECOVERY_NOT_PAUSED)
		SetRecoveryPause(false);
	if (kill(PostmasterPid, SIGUSR1) != 0)
	{
		(void) qdb_remove_file(PROMOTE_SIGNAL_FILE);
		(void) qdb_sweep_placeholders();
		snprintf(why, QDB_REASON_SIZE, "the postmaster could not be signaled");
		return false;
	}
	ereport(LOG, (errmsg("[failover] Promoting to PRIMARY role: timeline %u, epoch " UINT64_FORMAT ", from %X/%X of timeline %u",
						 grant->timeline, grant->epoch,
						 LSN_FORMAT_ARGS(grant->fork), grant->parent_timeline),
				  errdetail("Replay has come to %X/%X.", LSN_FORMAT_ARGS(GetXLogReplayRecPtr(NULL)))));
	return true;
}

int
qdb_promotion_done(const QdbGrant *grant, char *why)
{
	TimeLineID	timeline;

	why[0] = '\0';
	if (RecoveryInProgress())
		return 0;

	/*
	 * I15: startup has unlinked it.  Should the machine die now, the next
	 * boot makes it anew.
	 */
	if (!qdb_touch(STANDBY_SIGNAL_FILE))
	{
		snprintf(why, QDB_REASON_SIZE, "standby.signal could not be written");
		return -1;
	}
	(void) qdb_sweep_placeholders();
	timeline = GetWALInsertionTimeLine();
	if (timeline != grant->timeline)	/* I1 */
	{
		snprintf(why, QDB_REASON_SIZE, "promoted to timeline %u instead of %u", timeline, grant->timeline);
		return -1;
	}
	return qdb_history_fits(grant, why) ? 1 : -1;
}
