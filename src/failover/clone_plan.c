/*-------------------------------------------------------------------------
 *
 * clone_plan.c
 *		WAL, control file and the plan of a clone.
 *
 * Replay starts at the checkpoint that the source made before the first file was
 * copied and has to reach the source's flush position after the last one.  All WAL
 * between is staged too, so that nothing but this disk is needed once the plan
 * counts (I11).  A flush may end in the middle of a record, and what comes after it may
 * never be written: so the minimum recovery point is the end of the last whole one,
 * after which no page that was copied can have changed.
 *
 * The plan never takes pg_control away, since a postmaster reads it before it loads
 * any library; the folder "global" is changed file by file therefore, and the
 * control file last.  pg_wal may be a link to another disk: it stays, its content goes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/catalog.h"
#include "catalog/pg_control.h"
#include "common/file_perm.h"
#include "failover/clone.h"
#include "failover/own_wal.h"
#include "failover/wal_files.h"
#include "miscadmin.h"
#include "storage/fd.h"

#define HISTORY_MAX			(64 * 1024)
#define CATCH_UP_ROUNDS		5
#define STAGED_WAL			QDB_CLONE_DIR "/pg_wal"

/* ---- WAL ---- */

typedef struct WalSink
{
	QdbClone   *clone;
	int			fd;
	TimeLineID	timeline;
	XLogSegNo	segno;
} WalSink;

static bool
open_segment(WalSink *sink, TimeLineID timeline, XLogSegNo segno)
{
	char		name[MAXFNAMELEN];
	char		path[MAXPGPATH];

	if (sink->fd >= 0 && sink->segno == segno && sink->timeline == timeline)
		return true;
	if (sink->fd >= 0)
		close(sink->fd);
	XLogFileName(name, timeline, segno, wal_segment_size);
	snprintf(path, sizeof(path), STAGED_WAL "/%s", name);
	sink->timeline = timeline;
	sink->fd = open(path, O_WRONLY | O_CREAT | PG_BINARY | O_CLOEXEC, pg_file_create_mode);
	sink->segno = segno;
	/* What follows the last byte is zero. */
	if (sink->fd < 0 || ftruncate(sink->fd, wal_segment_size) != 0)
		return qdb_fetch_fail(sink->clone->fetch, "could not create file \"%s\": %m", path);
	return true;
}

static bool
take_wal(QdbFetch *fetch, const QdbTransferRequest *request, const QdbTransferAnswer *answer, void *arg)
{
	WalSink    *sink = arg;
	XLogSegNo	segno;

	if (answer->status != QDB_TRANSFER_OK || answer->length != request->length)
		return qdb_fetch_fail(fetch, "WAL at %X/%X is not there", LSN_FORMAT_ARGS(request->lsn));
	XLByteToSeg(request->lsn, segno, wal_segment_size);
	if (!open_segment(sink, request->timeline, segno))
		return false;
	errno = 0;
	if (pg_pwrite(sink->fd, answer->data, answer->length,
				  XLogSegmentOffset(request->lsn, wal_segment_size)) != answer->length)
	{
		if (errno == 0)
			errno = ENOSPC;
		return qdb_fetch_fail(fetch, "could not write WAL: %m");
	}
	return true;
}

/* Placeholders too: a gap in the numbers would hide what comes after it. */
static bool
fetch_histories(QdbClone *clone)
{
	char	   *content = palloc(HISTORY_MAX);
	bool		ok = true;
	QdbState   *state = qdb_copy_state();

	for (TimeLineID timeline = 2; ok && timeline <= clone->welcome.timeline; timeline++)
	{
		char		name[MAXFNAMELEN];
		char		path[MAXPGPATH];
		size_t		length = 0;
		bool		gone = true;
		XLogRecPtr	limit;

		TLHistoryFileName(name, timeline);
		snprintf(path, sizeof(path), STAGED_WAL "/%s", name);
		if (timeline == clone->welcome.timeline ||
			qdb_history_limit(state, qdb_current_grant(state), timeline, &limit))
			ok = qdb_fetch_history(clone->fetch, timeline, content, HISTORY_MAX - 1, &length, &gone);
		content[length] = '\0';
		if (ok && !qdb_place_file(path, gone ? QDB_PLACEHOLDER : content))
			ok = qdb_fetch_fail(clone->fetch, "could not write file \"%s\"", path);
	}
	pfree(content);
	pfree(state);
	return ok;
}

/* The source's timelines, by the history that is staged; NULL: unreadable. */
static QdbWalPath *
open_path(QdbClone *clone)
{
	TimeLineID	tip = clone->welcome.timeline;
	QdbHistory	history = {0};
	char		name[MAXFNAMELEN];
	QdbWalPath *path;

	TLHistoryFileName(name, tip);
	if (tip > 1 && !qdb_history_read_at(psprintf(STAGED_WAL "/%s", name), &history))
	{
		(void) qdb_fetch_fail(clone->fetch, "the source's history of timeline %u cannot be read", tip);
		return NULL;
	}
	path = qdb_wal_path(STAGED_WAL, &history, tip);
	path->system_identifier = clone->welcome.system_identifier;
	qdb_history_free(&history);
	return path;
}

/* WAL between two positions, of each timeline that has some of it. */
static bool
fetch_range(QdbClone *clone, const QdbWalPath *path, XLogRecPtr from, XLogRecPtr to, WalSink *sink)
{
	for (int i = 0; i < path->nparts; i++)
	{
		const QdbTimelinePart *part = &path->parts[i];
		XLogRecPtr	begin = Max(from, part->begin - part->begin % wal_segment_size);
		XLogRecPtr	end = Min(to, part->end);

		if (begin < end && !qdb_fetch_wal(clone->fetch, part->timeline, begin, end, take_wal, sink))
			return false;
	}
	return qdb_fetch_finish(clone->fetch);
}

/*
 * All WAL from the redo point to the source's flush position of this moment, which a replica
 * has to bring past the one that the holder named (I11); what was written while that
 * came is fetched too, a few times.  Later a quorum has to have it (qdb_clone_await), so that a failover
 * cannot make this clone useless.
 */
bool
qdb_clone_wal(QdbClone *clone)
{
	XLogRecPtr	from = clone->state.redo - XLogSegmentOffset(clone->state.redo, wal_segment_size);
	WalSink		sink = {.clone = clone,.fd = -1};
	QdbWalPath *path = fetch_histories(clone) ? open_path(clone) : NULL;
	bool		ok = path != NULL && qdb_clone_await(clone, false, clone->welcome.flush);

	for (int round = 0; ok && round < CATCH_UP_ROUNDS; round++)
	{
		if (!qdb_fetch_position(clone->fetch, &clone->end))
		{
			ok = false;
			break;
		}
		if (clone->end.epoch != clone->welcome.epoch || clone->end.timeline != clone->welcome.timeline)
			ok = qdb_fetch_fail(clone->fetch, "the source is in another epoch");
		ok = ok && fetch_range(clone, path, from, clone->end.flush, &sink);
		if (clone->end.flush - from < (uint64) wal_segment_size && round > 0)
			break;
		from = clone->end.flush;
	}
	if (sink.fd >= 0)
		close(sink.fd);
	if (ok)
	{
		clone->min_recovery = qdb_last_record_end(path, clone->state.redo, clone->end.flush);
		if (clone->min_recovery < clone->state.checkpoint)
			ok = qdb_fetch_fail(clone->fetch, "the WAL from %X/%X on cannot be read",
								LSN_FORMAT_ARGS(clone->state.redo));
	}
	return ok;
}

/* ---- control file and label ---- */

static bool
write_whole(QdbClone *clone, const char *path, const void *data, size_t length)
{
	int			fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY | O_CLOEXEC, pg_file_create_mode);
	bool		ok;

	errno = 0;
	ok = fd >= 0 && write(fd, data, length) == (ssize_t) length;
	if (!ok)
		(void) qdb_fetch_fail(clone->fetch, "could not write file \"%s\": %m", path);
	if (fd >= 0)
		close(fd);
	return ok;
}

/* The source's, after all files; recovery is to end where its WAL did. */
bool
qdb_clone_control(QdbClone *clone)
{
	union
	{
		ControlFileData data;
		char		bytes[PG_CONTROL_FILE_SIZE];
	}			control;
	char		label[1024];
	char		name[MAXFNAMELEN];
	XLogSegNo	segno;

	memset(&control, 0, sizeof(control));
	if (!qdb_fetch_control(clone->fetch, &control.data))
		return false;
	if (control.data.system_identifier != clone->welcome.system_identifier)
		return qdb_fetch_fail(clone->fetch, "its control file names another system");
	control.data.state = DB_IN_ARCHIVE_RECOVERY;
	control.data.minRecoveryPoint = clone->min_recovery;
	control.data.minRecoveryPointTLI = clone->end.timeline;
	control.data.backupStartPoint = InvalidXLogRecPtr;
	control.data.backupEndPoint = InvalidXLogRecPtr;
	control.data.backupEndRequired = false;
	INIT_CRC32C(control.data.crc);
	COMP_CRC32C(control.data.crc, &control.data, offsetof(ControlFileData, crc));
	FIN_CRC32C(control.data.crc);

	XLByteToSeg(clone->state.redo, segno, wal_segment_size);
	XLogFileName(name, clone->state.timeline, segno, wal_segment_size);
	snprintf(label, sizeof(label),
			 "START WAL LOCATION: %X/%X (file %s)\nCHECKPOINT LOCATION: %X/%X\nBACKUP METHOD: quantadb\n"
			 "BACKUP FROM: standby\nLABEL: quantadb clone\nSTART TIMELINE: %u\n",
			 LSN_FORMAT_ARGS(clone->state.redo), name, LSN_FORMAT_ARGS(clone->state.checkpoint),
			 clone->state.timeline);
	return write_whole(clone, QDB_CLONE_DIR "/pg_control", &control, sizeof(control)) &&
		write_whole(clone, QDB_CLONE_DIR "/backup_label", label, strlen(label));
}

/* ---- the plan ---- */

typedef void (*NameVisit) (QdbStage *stage, const char *name);

/* Every entry of a folder, but no folders. */
static void
visit_files(QdbStage *stage, const char *path, NameVisit visit)
{
	DIR		   *dir = AllocateDir(path);
	struct dirent *entry;

	while ((entry = ReadDir(dir, path)) != NULL)
	{
		char		child[MAXPGPATH];
		struct stat st;

		snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
		if (lstat(child, &st) == 0 && S_ISREG(st.st_mode))
			visit(stage, entry->d_name);
	}
	FreeDir(dir);
}

static void
remove_global(QdbStage *stage, const char *name)
{
	char		path[MAXPGPATH];

	if (strcmp(name, "pg_control") == 0)
		return;
	snprintf(path, sizeof(path), "global/%s", name);
	qdb_stage_add_remove(stage, path);
}

static void
put_global(QdbStage *stage, const char *name)
{
	char		staged[MAXPGPATH];
	char		path[MAXPGPATH];

	snprintf(staged, sizeof(staged), QDB_CLONE_DIR "/global/%s", name);
	snprintf(path, sizeof(path), "global/%s", name);
	qdb_stage_add_put(stage, staged, path);
}

/* A segment, and the note that its archiving is another node's business. */
static void
put_wal(QdbStage *stage, const char *name)
{
	char		staged[MAXPGPATH];
	char		path[MAXPGPATH];

	snprintf(staged, sizeof(staged), STAGED_WAL "/%s", name);
	snprintf(path, sizeof(path), XLOGDIR "/%s", name);
	qdb_stage_add_put(stage, staged, path);
	snprintf(staged, sizeof(staged), QDB_CLONE_DIR "/archive_status/%s.done", name);
	qdb_stage_text(staged, "");
	snprintf(path, sizeof(path), XLOGDIR "/archive_status/%s.done", name);
	qdb_stage_add_put(stage, staged, path);
}

/* Folders of tablespaces that nothing points to any more, for after the boot. */
static void
list_garbage(void)
{
	FILE	   *list = AllocateFile(QDB_CLONE_GARBAGE, PG_BINARY_W);
	DIR		   *dir = AllocateDir("pg_tblspc");
	struct dirent *entry;

	if (list == NULL)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not create file \"%s\": %m", QDB_CLONE_GARBAGE)));
	while ((entry = ReadDir(dir, "pg_tblspc")) != NULL)
	{
		char		link[MAXPGPATH];
		char		target[MAXPGPATH];
		ssize_t		n;

		snprintf(link, sizeof(link), "pg_tblspc/%s", entry->d_name);
		n = readlink(link, target, sizeof(target) - 1);
		if (n <= 0)
			continue;
		target[n] = '\0';
		if (strchr(target, '\n') == NULL)
			fprintf(list, "%s/%s\n", target, TABLESPACE_VERSION_DIRECTORY);
	}
	FreeDir(dir);
	if (FreeFile(list) != 0)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not write file \"%s\": %m", QDB_CLONE_GARBAGE)));
}

/* Outside the stage, so that committing the plan does not reach it. */
static void
sync_tablespaces(void)
{
	DIR		   *dir = AllocateDir(QDB_CLONE_DIR "/pg_tblspc");
	struct dirent *entry;

	while ((entry = ReadDir(dir, QDB_CLONE_DIR "/pg_tblspc")) != NULL)
	{
		char		path[MAXPGPATH];
		int			fd;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), QDB_CLONE_DIR "/pg_tblspc/%s", entry->d_name);
		fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
		if (fd < 0 || syncfs(fd) != 0)
			ereport(ERROR, (errcode_for_file_access(),
							errmsg("could not synchronize \"%s\": %m", path)));
		CloseTransientFile(fd);
	}
	FreeDir(dir);
}

static void
swap_folder(QdbStage *stage, const char *folder)
{
	char		old[MAXPGPATH];
	char		new[MAXPGPATH];

	snprintf(old, sizeof(old), QDB_CLONE_OLD "/%s", folder);
	snprintf(new, sizeof(new), QDB_CLONE_DIR "/%s", folder);
	qdb_stage_mkdir(new);
	qdb_stage_add_rename(stage, folder, old);
	qdb_stage_add_rename(stage, new, folder);
}

/*
 * Raises errors.  What takes away comes first, then the renames, then what puts in
 * place: a plan is done again from its last rename on.
 */
QdbStage *
qdb_clone_plan(QdbClone *clone)
{
	QdbStage   *stage = qdb_stage_begin(true);

	sync_tablespaces();
	list_garbage();
	qdb_stage_mkdir(QDB_CLONE_DIR "/archive_status");
	qdb_stage_mkdir(QDB_CLONE_DIR "/global");
	for (int i = 0; qdb_empty_folders[i] != NULL; i++)
		qdb_stage_add_empty_dir(stage, qdb_empty_folders[i]);
	qdb_stage_add_empty_dir(stage, XLOGDIR);
	visit_files(stage, "global", remove_global);
	qdb_stage_add_remove(stage, "tablespace_map");
	for (int i = 0; qdb_served_folders[i] != NULL; i++)
	{
		if (strcmp(qdb_served_folders[i], "global") != 0)
			swap_folder(stage, qdb_served_folders[i]);
	}
	for (int i = 0; qdb_empty_folders[i] != NULL; i++)
		qdb_stage_add_mkdir(stage, qdb_empty_folders[i]);
	qdb_stage_add_mkdir(stage, XLOGDIR "/archive_status");
	visit_files(stage, QDB_CLONE_DIR "/global", put_global);
	visit_files(stage, STAGED_WAL, put_wal);
	qdb_stage_add_put(stage, QDB_CLONE_DIR "/backup_label", "backup_label");
	qdb_stage_text(QDB_CLONE_DIR "/clone.done", "");
	qdb_stage_add_put(stage, QDB_CLONE_DIR "/clone.done", QDB_CLONE_DONE);
	qdb_stage_add_put(stage, QDB_CLONE_DIR "/pg_control", XLOG_CONTROL_FILE);
	return stage;
}
