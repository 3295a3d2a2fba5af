/*-------------------------------------------------------------------------
 *
 * endscan.c
 *		The true end of this node's WAL, and the epoch that owns its last byte.
 *
 * PostgreSQL's counters do not tell: flushedUpto falls back to the start of a
 * segment at a restart, and the control file knows a lower bound only.  So WAL is
 * read from the replay position on, record by record, until one is invalid
 * (length, CRC, xl_prev, page address), and what was read is fsynced (I6).
 *
 * Segments are recycled: what follows the end may be old records of the same
 * page offsets.  Within a scan xl_prev unmasks them.  For the first record,
 * where the reader has no predecessor to compare with, the record at xl_prev must be
 * valid and end where the scan began.
 *
 * A timeline of a grant counts only from its epoch record on.  Bytes of a
 * timeline without one belong to nobody: there the end is the fork.
 *
 * Process: coordinator, in recovery, with the receiver parked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "access/xlogrecord.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "failover/failover.h"
#include "failover/own_wal.h"
#include "failover/wal_files.h"
#include "miscadmin.h"
#include "utils/memutils.h"

/* What the page callback of one reader works with. */
typedef struct ScanSource
{
	const QdbState *state;
	TimeLineID	timeline;		/* the one to read */
	int			fd;				/* -1: none open */
	TimeLineID	open_timeline;
	XLogSegNo	open_segno;
} ScanSource;

/*
 * Opens a segment of the timeline.  A timeline's files begin with the segment of
 * its fork, so an older one is looked for in its ancestors.
 */
static bool
open_segment(ScanSource *source, XLogSegNo segno)
{
	TimeLineID	timeline = source->timeline;
	const QdbGrant *grant;

	if (source->fd >= 0 && source->open_segno == segno)
		return true;
	if (source->fd >= 0)
		close(source->fd);
	for (;;)
	{
		char		path[MAXPGPATH];

		XLogFilePath(path, timeline, segno, wal_segment_size);
		source->fd = open(path, O_RDONLY | PG_BINARY | O_CLOEXEC);
		if (source->fd >= 0)
			break;
		grant = qdb_grant_of_timeline(source->state, timeline);
		if (grant == NULL || grant->parent_timeline == 0 || grant->parent_timeline >= timeline ||
			segno >= grant->fork / wal_segment_size)
			return false;
		timeline = grant->parent_timeline;
	}
	source->open_timeline = timeline;
	source->open_segno = segno;
	return true;
}

static int
read_page(XLogReaderState *reader, XLogRecPtr page, int wanted, XLogRecPtr target, char *buffer)
{
	ScanSource *source = reader->private_data;

	if (!open_segment(source, page / wal_segment_size))
		return -1;
	if (pg_pread(source->fd, buffer, XLOG_BLCKSZ, page % wal_segment_size) != XLOG_BLCKSZ)
		return -1;
	reader->seg.ws_tli = source->open_timeline;
	return XLOG_BLCKSZ;
}

static void
close_segment(XLogReaderState *reader)
{
	reader->seg.ws_file = -1;
}

static XLogReaderState *
begin_scan(ScanSource *source, const QdbState *state, TimeLineID timeline)
{
	XLogReaderState *reader;

	memset(source, 0, sizeof(*source));
	source->state = state;
	source->timeline = timeline;
	source->fd = -1;
	reader = XLogReaderAllocate(wal_segment_size, NULL,
								XL_ROUTINE(.page_read = read_page,
										   .segment_open = NULL,
										   .segment_close = close_segment),
								source);
	if (reader == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	reader->system_identifier = GetSystemIdentifier();
	return reader;
}

static void
end_scan(XLogReaderState *reader)
{
	ScanSource *source = reader->private_data;

	if (source->fd >= 0)
		close(source->fd);
	source->fd = -1;
	XLogReaderFree(reader);
}

/* Does the record at prev end at start? */
static bool
is_predecessor(const QdbState *state, TimeLineID timeline, XLogRecPtr prev, XLogRecPtr start)
{
	ScanSource	source;
	XLogReaderState *reader;
	char	   *message;
	bool		found;

	if (!XRecOffIsValid(prev) || prev >= start)
		return false;
	reader = begin_scan(&source, state, timeline);
	XLogBeginRead(reader, prev);
	found = XLogReadRecord(reader, &message) != NULL && reader->EndRecPtr == start;
	end_scan(reader);
	return found;
}

/* Is it the record that makes the bytes from here on count for the grant? */
static bool
is_epoch_record(XLogReaderState *reader, const QdbGrant *grant)
{
	xl_qdb_epoch record;

	if (XLogRecGetRmid(reader) != QDB_RMGR_ID ||
		(XLogRecGetInfo(reader) & ~XLR_INFO_MASK) != XLOG_QDB_EPOCH ||
		XLogRecGetDataLen(reader) < sizeof(record))
		return false;
	memcpy(&record, XLogRecGetData(reader), sizeof(record));
	return record.format == QDB_EPOCH_FORMAT && record.timeline == grant->timeline &&
		record.epoch == grant->epoch;
}

/*
 * Reads from start to the last valid record, or to the epoch record of wanted if that
 * is not NULL; then *found says whether it is there.  Returns the end of
 * the last record read.
 */
static XLogRecPtr
scan_forward(const QdbState *state, TimeLineID timeline, XLogRecPtr start,
			 const QdbGrant *wanted, bool *found)
{
	ScanSource	source;
	XLogReaderState *reader = begin_scan(&source, state, timeline);
	XLogRecPtr	end = start;
	XLogRecord *record;
	char	   *message;

	if (found)
		*found = false;
	XLogBeginRead(reader, qdb_record_start(start));
	while ((record = XLogReadRecord(reader, &message)) != NULL)
	{
		if (end == start && !is_predecessor(state, timeline, record->xl_prev, start))
			break;
		end = reader->EndRecPtr;
		if (wanted && is_epoch_record(reader, wanted))
		{
			*found = true;
			break;
		}
	}
	end_scan(reader);
	return end;
}

static bool
has_fork_segment(TimeLineID timeline, XLogRecPtr fork)
{
	char		path[MAXPGPATH];

	XLogFilePath(path, timeline, fork / wal_segment_size, wal_segment_size);
	return qdb_file_exists(path);
}

/*
 * The newest granted timeline that leaves the given one between from and to and whose
 * epoch record is here; NULL: none.
 */
static const QdbGrant *
find_child(const QdbState *state, TimeLineID timeline, XLogRecPtr from, XLogRecPtr to)
{
	for (int i = (int) state->ngrants - 1; i >= 0; i--)
	{
		const QdbGrant *grant = &state->grants[i];
		bool		found;

		if (grant->parent_timeline != timeline || grant->timeline <= timeline ||
			grant->fork < from || grant->fork > to ||
			!has_fork_segment(grant->timeline, grant->fork))
			continue;
		(void) scan_forward(state, grant->timeline, grant->fork, grant, &found);
		if (found)
			return grant;
	}
	return NULL;
}

/*
 * Steps back from a timeline that nobody was granted (a promotion by hand) to its
 * parent.  False: its history is not known.
 */
static bool
leave_ungranted(QdbEndOfWal *end)
{
	QdbHistory	history;
	bool		known;

	if (!qdb_history_read(end->timeline, &history))
		return false;
	known = history.nlines > 0;
	if (known)
	{
		QdbHistoryLine *last = &history.lines[history.nlines - 1];

		end->end = Min(end->end, last->end);
		end->timeline = last->timeline;
	}
	qdb_history_free(&history);
	return known;
}

/* The timeline is that of this node's own promotion, which ended before its epoch record. */
static bool
is_own_start(const QdbGrant *grant)
{
	const QdbIdentity *identity = &qdb_shared->identity;
	QdbBoot		self = {identity->member, identity->incarnation, identity->boot};
	char		why[QDB_REASON_SIZE];

	return qdb_start_counts(grant, &self) && qdb_history_fits(grant, why);
}

/*
 * Moves the end back to the last byte that counts and names its epoch; 0 for
 * WAL older than the cluster.
 */
static bool
find_epoch(const QdbState *state, QdbEndOfWal *end)
{
	for (;;)
	{
		const QdbGrant *grant = qdb_grant_of_timeline(state, end->timeline);
		bool		found;

		end->epoch = 0;
		if (grant == NULL)
		{
			if (state->ngrants == 0 || end->timeline < state->grants[0].timeline)
				return true;
			if (!leave_ungranted(end))
				return false;
			continue;
		}
		if (grant->parent_timeline == 0 || grant->parent_timeline >= end->timeline)
		{
			/* The first: the fork is where its epoch record begins. */
			if (end->end > grant->fork)
				end->epoch = grant->epoch;
			return true;
		}
		if (end->end > grant->fork)
		{
			/*
			 * Without the segment of the fork: WAL is removed behind a
			 * restartpoint only, so the epoch record has been replayed.
			 */
			found = !has_fork_segment(grant->timeline, grant->fork);
			if (!found)
				(void) scan_forward(state, grant->timeline, grant->fork, grant, &found);
			if (found || is_own_start(grant))
			{
				end->epoch = grant->epoch;
				return true;
			}
			end->end = grant->fork;
		}
		end->timeline = grant->parent_timeline;
	}
}

/* Files from this segment on are to be fsynced. */
static bool
fsync_from(const char *path, TimeLineID timeline, XLogSegNo segno, bool history, void *arg)
{
	XLogSegNo  *range = arg;

	if (!history && (segno < range[0] || segno > range[1]))
		return true;
	/* A restartpoint may recycle the oldest one under our hands. */
	return qdb_fsync_path(path, false) || !qdb_file_exists(path);
}

/*
 * One segment before the replay position too: a receiver that died may have left it
 * unsynced, and startup replays what it can read.
 */
static bool
fsync_wal(XLogRecPtr replayed, XLogRecPtr end)
{
	XLogSegNo	range[2];

	range[0] = replayed / wal_segment_size;
	if (range[0] > 0)
		range[0]--;
	range[1] = Max(replayed, end) / wal_segment_size;
	return qdb_visit_wal_files(fsync_from, range) && qdb_fsync_path(XLOGDIR, true);
}

/*
 * Has startup reached consistency?  HotStandbyActive says so once it also has a
 * snapshot; until then the control file does: crash recovery has no minimum
 * recovery point, and archive recovery is consistent past it.
 */
static bool
is_consistent(XLogRecPtr replayed)
{
	ControlFileData *control;
	bool		crc_ok;
	bool		consistent;

	if (HotStandbyActive())
		return true;
	control = get_controlfile(DataDir, &crc_ok);
	consistent = crc_ok && control->state == DB_IN_ARCHIVE_RECOVERY &&
		control->minRecoveryPoint != InvalidXLogRecPtr &&
		control->minRecoveryPoint <= replayed &&
		control->backupStartPoint == InvalidXLogRecPtr &&
		control->backupEndPoint == InvalidXLogRecPtr && !control->backupEndRequired;
	pfree(control);
	return consistent;
}

static bool
find_end(const QdbState *state, QdbEndOfWal *end, bool sync, char *why)
{
	TimeLineID	timeline;
	XLogRecPtr	replayed = GetXLogReplayRecPtr(&timeline);
	XLogRecPtr	from = replayed;
	const QdbGrant *child;

	if (replayed == InvalidXLogRecPtr || timeline == 0 || !is_consistent(replayed))
	{
		snprintf(why, QDB_REASON_SIZE, "recovery has not reached a consistent state yet");
		return false;
	}
	end->timeline = timeline;
	for (;;)
	{
		end->end = scan_forward(state, end->timeline, from, NULL, NULL);
		child = find_child(state, end->timeline, from, end->end);
		if (child == NULL)
			break;
		from = child->fork;
		end->timeline = child->timeline;
	}

	/* Replay goes on meanwhile; it never passes what is on disk. */
	end->replayed = GetXLogReplayRecPtr(&end->replayed_timeline);
	if (end->replayed_timeline == end->timeline && end->replayed > end->end)
		end->end = end->replayed;
	if (sync && !fsync_wal(replayed, end->end)) /* I6 */
	{
		snprintf(why, QDB_REASON_SIZE, "its WAL could not be made durable");
		return false;
	}
	if (!find_epoch(state, end))
	{
		snprintf(why, QDB_REASON_SIZE, "the history of timeline %u is not known", end->timeline);
		return false;
	}
	return true;
}

/*
 * Never raises an error: what PostgreSQL raises below (out of memory, the
 * control file) becomes an answer of false.
 */
static bool
find_end_safely(const QdbState *state, QdbEndOfWal *end, bool sync, char *why)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext volatile context = NULL;
	volatile bool ok = false;

	memset(end, 0, sizeof(*end));
	why[0] = '\0';
	if (!RecoveryInProgress())
	{
		snprintf(why, QDB_REASON_SIZE, "it is not in recovery");
		return false;
	}
	PG_TRY();
	{
		context = AllocSetContextCreate(TopMemoryContext, "end of WAL", ALLOCSET_DEFAULT_SIZES);
		MemoryContextSwitchTo(context);
		ok = find_end(state, end, sync, why);
		MemoryContextSwitchTo(old);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		FlushErrorState();
		snprintf(why, QDB_REASON_SIZE, "%s", error->message ? error->message : "out of memory");
		FreeErrorData(error);
		ok = false;
	}
	PG_END_TRY();
	if (context)
		MemoryContextDelete(context);
	return ok;
}

/*
 * qdb_end_of_wal
 *		Scan to the true end, fsync, and name the owner of the last byte.
 */
bool
qdb_end_of_wal(const QdbState *state, QdbEndOfWal *end, char *why)
{
	return find_end_safely(state, end, true, why);
}

/*
 * qdb_end_of_wal_again
 *		The same without the fsync, which costs a promotion more than the scan.
 *
 * For who has called qdb_end_of_wal under the promise that still holds: nothing has
 * been written since, so where this finds the same end, it is as durable.
 */
bool
qdb_end_of_wal_again(const QdbState *state, QdbEndOfWal *end, char *why)
{
	return find_end_safely(state, end, false, why);
}
