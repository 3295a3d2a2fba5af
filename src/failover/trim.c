/*-------------------------------------------------------------------------
 *
 * trim.c
 *		Can this node's WAL follow the current grant?  Throw away what is past the fork
 *		and not replayed.
 *
 * What startup could read past the fork goes before anything is received (I3): it would
 * replay that, whatever was streamed since (hazards 8).  It is saved first; see lost.c.
 *
 * Process: coordinator, in recovery, with the receiver parked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "common/file_perm.h"
#include "failover/failover.h"
#include "failover/lost.h"
#include "failover/wal_files.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#define SAVE_TRIES		5
#define CHECK_BYTES		(16 * XLOG_BLCKSZ)	/* divides a segment */
#define COPY_MAX_BYTES	(16 * 1024 * 1024)	/* the loop waits for it */

/* What trim_file works with. */
typedef struct TrimContext
{
	const QdbState *state;
	const QdbGrant *grant;
	bool		newest_known;	/* the grant's own history file is here */
	bool		trimmed;
	bool		forgot_timeline;	/* startup may follow a timeline that is
									 * gone */
	QdbLostWal	lost;			/* end 0: nothing to save */
} TrimContext;

/*
 * Segments that were seen to hold nothing from offset on, as they were then: each
 * write, and each rename onto the name, changes ino or ctime.  Where seats move often,
 * many timelines end in one segment, and all their files would be read each time while
 * nobody can write.
 */
#define CLEAN_FILES		64

typedef struct CleanFile
{
	dev_t		dev;
	ino_t		ino;
	struct timespec changed;
	uint32		offset;
} CleanFile;

static CleanFile clean_files[CLEAN_FILES];
static int	next_clean = 0;

static bool
is_known_clean(const struct stat *file, uint32 offset)
{
	for (int i = 0; i < CLEAN_FILES; i++)
	{
		const CleanFile *clean = &clean_files[i];

		if (clean->ino == file->st_ino && clean->dev == file->st_dev && clean->offset == offset &&
			clean->changed.tv_sec == file->st_ctim.tv_sec && clean->changed.tv_nsec == file->st_ctim.tv_nsec)
			return true;
	}
	return false;
}

/* The times of files go by ticks: what was just written could be written again unseen. */
static void
note_clean(const struct stat *file, uint32 offset)
{
	if (file->st_ctim.tv_sec + 2 > time(NULL))
		return;
	clean_files[next_clean] = (CleanFile)
	{
		file->st_dev, file->st_ino, file->st_ctim, offset
	};
	next_clean = (next_clean + 1) % CLEAN_FILES;
}

/*
 * Overwrites a segment with zeroes from offset on, durably.  *changed is set if
 * there was anything else.
 */
static bool
zero_rest(const char *path, uint32 offset, bool *changed)
{
	char		block[CHECK_BYTES];
	uint32		first = offset;
	struct stat before;
	int			fd = open(path, O_RDWR | PG_BINARY | O_CLOEXEC);
	bool		ok = fd >= 0 && fstat(fd, &before) == 0;

	if (ok && is_known_clean(&before, offset))
	{
		close(fd);
		return true;
	}
	while (ok && offset < wal_segment_size)
	{
		uint32		length = sizeof(block) - offset % sizeof(block);

		ok = pg_pread(fd, block, length, offset) == length;
		if (ok && (block[0] != 0 || memcmp(block, block + 1, length - 1) != 0))
		{
			*changed = true;
			memset(block, 0, length);
			ok = pg_pwrite(fd, block, length, offset) == length;
		}
		offset += length;
	}
	if (ok)
		ok = pg_fsync(fd) == 0;
	if (ok && !*changed)
		note_clean(&before, first);
	if (!ok)
		ereport(LOG, (errcode_for_file_access(),
					  errmsg("[failover] could not trim \"%s\": %m", path)));
	if (fd >= 0)
		close(fd);
	return ok;
}

/* ---- what is thrown away ---- */

/* The first byte of own WAL that the grant's history does not have. */
static bool
find_fork(const TrimContext *trim, const QdbWalPath *own, TimeLineID *timeline, XLogRecPtr *fork)
{
	for (int i = 0; i < own->nparts; i++)
	{
		const QdbTimelinePart *part = &own->parts[i];
		XLogRecPtr	limit;

		*timeline = part->timeline;
		if (part->timeline < trim->state->grants[0].timeline)
			continue;
		if (!qdb_history_limit(trim->state, trim->grant, part->timeline, &limit))
			limit = part->begin;
		if (limit < part->end)
		{
			*fork = Max(limit, part->begin);
			return limit != PG_UINT64_MAX;
		}
	}
	return false;
}

/* Reads it and writes what it held; raises errors. */
static void
save_tail(TrimContext *trim, XLogReaderState *volatile *reader)
{
	QdbHistory	history;
	QdbWalPath *own;
	QdbLostWal *lost = &trim->lost;
	TimeLineID	replayed;
	TimeLineID	fork_timeline;
	char	   *message;
	char		text[QDB_REASON_SIZE];

	(void) GetXLogReplayRecPtr(&replayed);
	lost->timeline = qdb_newest_timeline(replayed);
	if (!qdb_history_read(lost->timeline, &history))
		ereport(ERROR, (errmsg("the history of timeline %u cannot be read", lost->timeline)));
	lost->path = own = qdb_wal_path(XLOGDIR, &history, lost->timeline);
	qdb_history_free(&history);
	if (!find_fork(trim, own, &fork_timeline, &lost->start))
		return;
	lost->epoch = trim->grant->epoch;
	lost->lost = qdb_lost_begin();
	*reader = qdb_wal_reader(own);
	XLogBeginRead(*reader, qdb_record_start(lost->start));
	while (XLogReadRecord(*reader, &message) != NULL)
	{
		qdb_lost_count(lost->lost, *reader);
		lost->end = (*reader)->EndRecPtr;
	}
	if (lost->end == InvalidXLogRecPtr)
		return;
	qdb_lost_save(lost, true);
	qdb_lost_describe(lost, fork_timeline, text);
	if (!qdb_place_file(QDB_TRIM_DONE, text))
		ereport(ERROR, (errcode(ERRCODE_IO_ERROR), errmsg("could not write file \"%s\"", QDB_TRIM_DONE)));
}

/* False: why says what stood in the way. */
static bool
save_before_trim(TrimContext *trim, char *why)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "lost WAL", ALLOCSET_DEFAULT_SIZES);
	XLogReaderState *volatile reader = NULL;
	volatile bool saved = true;

	PG_TRY();
	{
		MemoryContextSwitchTo(context);
		save_tail(trim, &reader);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		saved = false;
		snprintf(why, QDB_REASON_SIZE, "the WAL past the fork could not be saved: %.150s",
				 error->message != NULL ? error->message : "out of memory");
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	if (reader != NULL)
		qdb_wal_reader_free(reader);
	MemoryContextDelete(context);
	trim->lost.lost = NULL;
	trim->lost.path = NULL;
	return saved;
}

/*
 * What cannot be saved is thrown away after some tries: a node does not stay away for
 * a report.
 */
static bool
save_or_give_up(TrimContext *trim, char *why)
{
	static QdbLostWal saved;	/* of this epoch; nothing was received since */
	static int	tries = 0;

	if (saved.epoch != trim->grant->epoch)
	{
		memset(&saved, 0, sizeof(saved));
		saved.epoch = trim->grant->epoch;
		tries = 0;
	}
	if (saved.end != InvalidXLogRecPtr)
	{
		trim->lost = saved;
		return true;
	}
	if (save_before_trim(trim, why))
	{
		if (trim->lost.end != InvalidXLogRecPtr)
			saved = trim->lost;
		return true;
	}
	trim->lost.end = InvalidXLogRecPtr;
	if (++tries < SAVE_TRIES)
		return false;
	ereport(LOG, (errmsg("[failover] %s; it is discarded unsaved", why)));
	why[0] = '\0';
	return true;
}

/* Into the folder of what is saved, or away. */
static bool
discard_segment(const TrimContext *trim, const char *path, XLogSegNo segno)
{
	const QdbLostWal *lost = &trim->lost;
	char		target[MAXPGPATH];

	if (lost->end == InvalidXLogRecPtr || lost->folder[0] == '\0' ||
		segno < lost->start / wal_segment_size || segno > (lost->end - 1) / wal_segment_size)
		return qdb_discard_wal(path);
	snprintf(target, sizeof(target), "%s%s", lost->folder, path + strlen(XLOGDIR));
	qdb_note_wal_folder();
	if (rename(path, target) == 0)
		return qdb_fsync_path(lost->folder, true);
	/* pg_wal on a file system of its own. */
	return qdb_copy_cut(path, target, wal_segment_size, true) &&
		qdb_fsync_path(lost->folder, true) && qdb_remove_file(path);
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
	ereport(LOG, (errmsg("[failover] discarding \"%s\": not in the history of timeline %u",
						 path, trim->grant->timeline)));
	trim->trimmed = true;
	return history ? qdb_discard_wal(path) : discard_segment(trim, path, segno);
}

/*
 * Has startup begun to replay what is past the fork?  A record that it is in the middle of counts:
 * what that has removed no replay brings back.  Then why says what is needed.
 */
static bool
replayed_past(const QdbState *state, const QdbGrant *grant, char *why)
{
	TimeLineID	timeline;
	XLogRecPtr	replayed = GetCurrentReplayRecPtr(&timeline);
	XLogRecPtr	limit;

	if (!qdb_history_limit(state, grant, timeline, &limit))
	{
		snprintf(why, QDB_REASON_SIZE,
				 QDB_NEEDS_REWIND ": has replayed timeline %u up to %X/%X, which is not in the history of timeline %u",
				 timeline, LSN_FORMAT_ARGS(replayed), grant->timeline);
		return true;
	}
	if (replayed > limit)
	{
		snprintf(why, QDB_REASON_SIZE,
				 QDB_NEEDS_REWIND ": has replayed timeline %u up to %X/%X, past the fork at %X/%X of timeline %u",
				 timeline, LSN_FORMAT_ARGS(replayed), LSN_FORMAT_ARGS(limit), grant->timeline);
		return true;
	}
	return false;
}

/* Copies the first keep bytes of a segment; the rest has its place on the disk, too. */
static bool
copy_begin(const char *from, const char *to, uint32 keep)
{
	char		block[16 * XLOG_BLCKSZ];
	int			in = open(from, O_RDONLY | PG_BINARY | O_CLOEXEC);
	int			out = open(to, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY | O_CLOEXEC, pg_file_create_mode);
	bool		ok = in >= 0 && out >= 0 && posix_fallocate(out, 0, wal_segment_size) == 0;

	for (uint32 offset = 0; ok && offset < keep; offset += sizeof(block))
	{
		ssize_t		length = Min(sizeof(block), keep - offset);

		ok = pg_pread(in, block, length, offset) == length &&
			pg_pwrite(out, block, length, offset) == length;
	}
	ok = ok && pg_fsync(out) == 0;
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	return ok;
}

/*
 * The new timeline's first segment begins with what the old one's last one has.  The
 * receiver would make an empty one and be sent all of that again before it acks the
 * epoch record, and after a crash in between startup would find zeroes where this node
 * had WAL.  So it is copied here, as the new primary does, while that one promotes, and
 * the receiver asks for what comes after it (receiver_startstreaming).  What fails the
 * receiver makes good.
 */
static void
copy_fork_segment(const QdbGrant *grant, const QdbEndOfWal *end)
{
	XLogSegNo	segno = grant->fork / wal_segment_size;
	XLogRecPtr	begin = segno * wal_segment_size;
	char		from[MAXPGPATH];
	char		to[MAXPGPATH];
	char		temp[MAXPGPATH];

	/*
	 * All of it or nothing: startup prefers the new timeline's file, and ends
	 * the postmaster where that stops before the fork.
	 */
	if (end->timeline != grant->parent_timeline || end->end != grant->fork || end->end <= begin ||
		wal_segment_size > COPY_MAX_BYTES)
		return;
	XLogFilePath(from, grant->parent_timeline, segno, wal_segment_size);
	XLogFilePath(to, grant->timeline, segno, wal_segment_size);
	if (qdb_file_exists(to) || !qdb_file_exists(from))
		return;
	/* PostgreSQL removes such files when it starts. */
	snprintf(temp, sizeof(temp), XLOGDIR "/xlogtemp.%d", MyProcPid);
	if (copy_begin(from, temp, grant->fork - begin) &&
		rename(temp, to) == 0 && qdb_fsync_path(XLOGDIR, true))
	{
		SpinLockAcquire(&qdb_shared->mutex);
		qdb_shared->begun_timeline = grant->timeline;
		qdb_shared->begun_upto = grant->fork;
		SpinLockRelease(&qdb_shared->mutex);
		return;
	}
	ereport(LOG, (errcode_for_file_access(),
				  errmsg("[failover] could not begin timeline %u with the WAL that is here: %m", grant->timeline)));
	(void) qdb_remove_file(temp);
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

	if (!save_or_give_up(&trim, why))
		return -1;

	/* What an earlier epoch began here may go now. */
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->begun_timeline = 0;
	SpinLockRelease(&qdb_shared->mutex);

	/*
	 * I3: what startup could read past the fork goes before anything is
	 * received.
	 */
	if (!qdb_visit_wal_files(trim_file, &trim) || !qdb_sync_wal_folder())
	{
		snprintf(why, QDB_REASON_SIZE, "the WAL past the fork could not be removed");
		return -1;
	}
	if (replayed_past(state, grant, why))
		return -1;

	/*
	 * Startup may hold a record of the tail that it has read and not begun to
	 * replay, and it keeps a timeline that it has adopted: only a new startup
	 * process forgets them.
	 */
	if (tail || trim.forgot_timeline)
	{
		qdb_demote("recovery must forget the trimmed WAL");
		snprintf(why, QDB_REASON_SIZE, "recovery may still hold WAL past the fork");
		return -1;
	}
	copy_fork_segment(grant, end);
	return trim.trimmed ? 0 : 1;
}
