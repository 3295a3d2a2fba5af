/*-------------------------------------------------------------------------
 *
 * rewind_plan.c
 *		WAL and the control file of a rewind.
 *
 * Replay starts at a common checkpoint, reads the common WAL that is here, and the source's
 * from the fork on, which is staged up to the minimum recovery point: after the plan
 * counts no peer is needed (I11).  That point is the end of the last whole record
 * before the source's flush position: the flush position may lie inside a record whose rest is
 * never written, and then it would never be reached.
 *
 * There is no backup_label: the control file says the same, and replacing it is the
 * one last step.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "failover/rewind.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/wait_event.h"

#define HISTORY_MAX		(64 * 1024)

typedef struct WalSink
{
	TimeLineID	timeline;
	XLogSegNo	segno;
	File		file;			/* -1: none */
} WalSink;

static void
wal_name(char *path, const char *folder, TimeLineID timeline, XLogSegNo segno)
{
	char		name[MAXFNAMELEN];

	XLogFileName(name, timeline, segno, wal_segment_size);
	snprintf(path, MAXPGPATH, "%s/%s", folder, name);
}

static void
stage_history(QdbRewind *rewind, TimeLineID timeline, const char *content)
{
	char		name[MAXFNAMELEN];
	char		staged[MAXPGPATH];
	char		path[MAXPGPATH];

	TLHistoryFileName(name, timeline);
	snprintf(staged, sizeof(staged), QDB_REWIND_WAL "/%s", name);
	snprintf(path, sizeof(path), XLOGDIR "/%s", name);
	qdb_stage_text(staged, content);
	qdb_stage_add_put(rewind->stage, staged, path);
}

/*
 * The histories from this node's oldest granted timeline to the source's.  A number between
 * that leads nowhere gets a placeholder where its file is missing, or startup would
 * not see past the gap.
 */
void
qdb_rewind_history(QdbRewind *rewind)
{
	char	   *content = palloc(HISTORY_MAX);

	for (TimeLineID timeline = 2; timeline <= rewind->welcome.timeline; timeline++)
	{
		char		path[MAXPGPATH];
		XLogRecPtr	limit;
		size_t		length = 0;
		bool		gone = true;

		TLHistoryFilePath(path, timeline);
		if (timeline == rewind->welcome.timeline ||
			(qdb_history_limit(rewind->state, rewind->grant, timeline, &limit) && !qdb_file_exists(path)))
			qdb_rewind_need(rewind, qdb_fetch_history(rewind->fetch, timeline, content, HISTORY_MAX - 1,
													  &length, &gone));
		if (gone && qdb_file_exists(path))
			continue;
		content[length] = '\0';
		stage_history(rewind, timeline, gone ? QDB_PLACEHOLDER : content);
	}
	TLHistoryFileName(content, rewind->welcome.timeline);
	if (!qdb_history_read_at(psprintf(QDB_REWIND_WAL "/%s", content), &rewind->history) ||
		rewind->history.nlines == 0)
		ereport(ERROR, (errmsg("the source's history of timeline %u cannot be read", rewind->welcome.timeline)));
	pfree(content);
}

/* ---- WAL ---- */

static bool
take_wal(QdbFetch *fetch, const QdbTransferRequest *request, const QdbTransferAnswer *answer, void *arg)
{
	WalSink    *sink = arg;
	XLogSegNo	segno = request->lsn / wal_segment_size;
	char		path[MAXPGPATH];

	if (answer->status != QDB_TRANSFER_OK || answer->length != request->length)
		return qdb_fetch_fail(fetch, "WAL at %X/%X is not there", LSN_FORMAT_ARGS(request->lsn));
	wal_name(path, QDB_REWIND_WAL, request->timeline, segno);
	if (sink->file < 0 || sink->segno != segno || sink->timeline != request->timeline)
	{
		if (sink->file >= 0)
			FileClose(sink->file);
		sink->segno = segno;
		sink->timeline = request->timeline;
		sink->file = PathNameOpenFile(path, O_RDWR | O_CREAT | PG_BINARY);
		/* What follows the last byte is zero. */
		if (sink->file < 0 || FileTruncate(sink->file, wal_segment_size, PG_WAIT_EXTENSION) != 0)
			ereport(ERROR, (errcode_for_file_access(), errmsg("could not create file \"%s\": %m", path)));
	}
	if (FileWrite(sink->file, (char *) answer->data, answer->length,
				  request->lsn % wal_segment_size, PG_WAIT_EXTENSION) != answer->length)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not write file \"%s\": %m", path)));
	return true;
}

static void
put_segments(QdbRewind *rewind, TimeLineID timeline, XLogRecPtr from, XLogRecPtr to)
{
	for (XLogSegNo segno = from / wal_segment_size; segno <= (to - 1) / wal_segment_size; segno++)
	{
		char		staged[MAXPGPATH];
		char		path[MAXPGPATH];

		wal_name(staged, QDB_REWIND_WAL, timeline, segno);
		wal_name(path, XLOGDIR, timeline, segno);
		qdb_stage_add_put(rewind->stage, staged, path);
		/* To archive it is the source's business. */
		wal_name(path, XLOGDIR "/archive_status", timeline, segno);
		strlcat(path, ".done", sizeof(path));
		wal_name(staged, QDB_REWIND_WAL, timeline, segno);
		strlcat(staged, ".done", sizeof(staged));
		qdb_stage_text(staged, "");
		qdb_stage_add_put(rewind->stage, staged, path);
	}
}

/* The end of the last whole record of the source's timeline that is staged. */
static XLogRecPtr
find_staged_end(QdbRewind *rewind, const QdbWalPath *source)
{
	QdbHistory	none = {0};
	QdbWalPath *path = qdb_wal_path(QDB_REWIND_WAL, &none, rewind->welcome.timeline);
	XLogRecPtr	start = qdb_record_start(source->parts[source->nparts - 1].begin);
	XLogRecPtr	end = qdb_last_record_end(path, start, rewind->end.flush);

	if (end == InvalidXLogRecPtr)
		ereport(ERROR, (errmsg("the source's WAL of timeline %u has no record", rewind->welcome.timeline)));
	return end;
}

/* What trims own WAL in the plan works with. */
static bool
plan_removal(const char *path, TimeLineID timeline, XLogSegNo segno, bool history, void *arg)
{
	QdbRewind  *rewind = arg;
	XLogRecPtr	limit;
	char		status[MAXPGPATH];
	bool		known = qdb_history_limit(rewind->state, rewind->grant, timeline, &limit);

	if (timeline < rewind->state->grants[0].timeline && timeline != rewind->fork_timeline)
		return true;
	if (timeline == rewind->fork_timeline)
		limit = known ? Min(limit, rewind->fork) : rewind->fork;
	else if (timeline == rewind->welcome.timeline)
		limit = rewind->end.flush;
	else if (!known)
		limit = 0;
	if (history)
	{
		/* One below the source's fills a gap in the numbers. */
		if (timeline > rewind->welcome.timeline)
			qdb_stage_add_remove(rewind->stage, path);
		return true;
	}
	if (segno < limit / wal_segment_size ||
		(segno == limit / wal_segment_size && timeline == rewind->welcome.timeline))
		return true;
	if (segno == limit / wal_segment_size && limit % wal_segment_size != 0)
	{
		char		staged[MAXPGPATH];

		snprintf(staged, sizeof(staged), QDB_REWIND_DIR "/%u", rewind->next_file++);
		if (!qdb_copy_cut(path, staged, limit % wal_segment_size, false))
			ereport(ERROR, (errcode(ERRCODE_IO_ERROR), errmsg("could not copy file \"%s\"", path)));
		qdb_stage_add_put(rewind->stage, staged, path);
	}
	else
		qdb_stage_add_remove(rewind->stage, path);
	snprintf(status, sizeof(status), XLOGDIR "/archive_status/%s.ready", path + strlen(XLOGDIR) + 1);
	qdb_stage_add_remove(rewind->stage, status);
	return true;
}

void
qdb_rewind_wal(QdbRewind *rewind)
{
	QdbWalPath *source = qdb_wal_path(XLOGDIR, &rewind->history, rewind->welcome.timeline);
	WalSink		sink = {.file = -1};

	qdb_rewind_need(rewind, qdb_fetch_position(rewind->fetch, &rewind->end));
	if (rewind->end.epoch != rewind->epoch || rewind->end.timeline != rewind->welcome.timeline)
		ereport(ERROR, (errmsg("the source is in another epoch")));
	if (!qdb_visit_wal_files(plan_removal, rewind))
		ereport(ERROR, (errcode(ERRCODE_IO_ERROR), errmsg("could not read directory \"%s\"", XLOGDIR)));
	for (int i = 0; i < source->nparts; i++)
	{
		const QdbTimelinePart *part = &source->parts[i];
		XLogRecPtr	from = part->begin - part->begin % wal_segment_size;
		XLogRecPtr	to = Min(part->end, rewind->end.flush);

		if (part->begin < rewind->fork || part->timeline == rewind->fork_timeline)
			continue;
		rewind->bytes_total += to - from;
		qdb_rewind_need(rewind, qdb_fetch_wal(rewind->fetch, part->timeline, from, to, take_wal, &sink) &&
						qdb_fetch_finish(rewind->fetch));
		put_segments(rewind, part->timeline, from, to);
	}
	if (sink.file >= 0)
		FileClose(sink.file);
	rewind->min_recovery = find_staged_end(rewind, source);
}

void
qdb_rewind_control(QdbRewind *rewind)
{
	union
	{
		ControlFileData data;
		char		bytes[PG_CONTROL_FILE_SIZE];
	}			control;
	int			fd;

	memset(&control, 0, sizeof(control));
	qdb_rewind_need(rewind, qdb_fetch_control(rewind->fetch, &control.data));
	if (control.data.system_identifier != rewind->own.system_identifier)
		qdb_rewind_impossible("the source's control file names another system");
	control.data.state = DB_IN_ARCHIVE_RECOVERY;
	control.data.checkPoint = rewind->checkpoint_lsn;
	control.data.checkPointCopy = rewind->checkpoint;
	control.data.minRecoveryPoint = rewind->min_recovery;
	control.data.minRecoveryPointTLI = rewind->welcome.timeline;
	control.data.backupStartPoint = rewind->checkpoint.redo;
	control.data.backupEndPoint = rewind->min_recovery;
	control.data.backupEndRequired = false;
	INIT_CRC32C(control.data.crc);
	COMP_CRC32C(control.data.crc, &control.data, offsetof(ControlFileData, crc));
	FIN_CRC32C(control.data.crc);
	fd = OpenTransientFile(QDB_REWIND_DIR "/pg_control", O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);
	if (fd < 0 || write(fd, &control, sizeof(control)) != sizeof(control))
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not write the control file: %m")));
	CloseTransientFile(fd);
	qdb_stage_add_put(rewind->stage, QDB_REWIND_DIR "/pg_control", XLOG_CONTROL_FILE);
}
