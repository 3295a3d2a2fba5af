/*-------------------------------------------------------------------------
 *
 * wal_files.c
 *		Files below pg_wal and signal files, touched without ereport(ERROR).
 *
 * PostgreSQL's own helpers raise errors, FATAL or PANIC on a failed fsync; here a
 * failure is a LOG line and a result, because the callers run in the
 * postmaster's crash cycle or below the coordinator's library callbacks.
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
#include "common/file_perm.h"
#include "failover/wal_files.h"
#include "storage/fd.h"

bool
qdb_fsync_path(const char *path, bool is_directory)
{
	int			fd = open(path, (is_directory ? O_RDONLY : O_RDWR) | PG_BINARY | O_CLOEXEC);
	bool		ok;

	if (fd < 0)
	{
		ereport(LOG, (errcode_for_file_access(),
					  errmsg("[failover] could not open \"%s\": %m", path)));
		return false;
	}
	ok = pg_fsync(fd) == 0;
	if (!ok)
		ereport(LOG, (errcode_for_file_access(),
					  errmsg("[failover] could not fsync \"%s\": %m", path)));
	close(fd);
	return ok;
}

/* The directory part of path, "." if it has none. */
static void
directory_of(const char *path, char *directory)
{
	char	   *slash;

	strlcpy(directory, path, MAXPGPATH);
	slash = strrchr(directory, '/');
	if (slash)
		*slash = '\0';
	else
		strlcpy(directory, ".", MAXPGPATH);
}

bool
qdb_place_file(const char *path, const char *content)
{
	char		temp[MAXPGPATH];
	char		directory[MAXPGPATH];
	size_t		length = strlen(content);
	int			fd;
	bool		ok;

	snprintf(temp, sizeof(temp), "%s.qdbtmp", path);
	directory_of(path, directory);
	fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY | O_CLOEXEC, pg_file_create_mode);
	ok = fd >= 0;
	if (ok && length > 0)
	{
		ssize_t		written;

		errno = 0;
		written = write(fd, content, length);
		ok = written == (ssize_t) length;
		if (!ok && errno == 0)
			errno = ENOSPC;
	}
	if (ok)
		ok = pg_fsync(fd) == 0;
	if (ok)
		ok = rename(temp, path) == 0;
	if (!ok)
		ereport(LOG, (errcode_for_file_access(),
					  errmsg("[failover] could not write \"%s\": %m", path)));
	if (fd >= 0)
		close(fd);
	if (!ok)
		(void) unlink(temp);
	return ok && qdb_fsync_path(directory, true);
}

/* Something in pg_wal changed its name or went, and that may not be on the disk yet. */
static bool wal_folder_dirty = true;

void
qdb_note_wal_folder(void)
{
	wal_folder_dirty = true;
}

bool
qdb_sync_wal_folder(void)
{
	if (wal_folder_dirty && !qdb_fsync_path(XLOGDIR, true))
		return false;
	wal_folder_dirty = false;
	return true;
}

bool
qdb_remove_file(const char *path)
{
	qdb_note_wal_folder();
	if (unlink(path) == 0 || errno == ENOENT)
		return true;
	ereport(LOG, (errcode_for_file_access(),
				  errmsg("[failover] could not remove \"%s\": %m", path)));
	return false;
}

bool
qdb_discard_wal(const char *path)
{
	char		target[MAXPGPATH];

	if (mkdir(QDB_DISCARDED_DIR, pg_dir_create_mode) == 0 || errno == EEXIST)
	{
		qdb_note_wal_folder();
		snprintf(target, sizeof(target), QDB_DISCARDED_DIR "/%s", path + strlen(XLOGDIR) + 1);
		if (rename(path, target) == 0)
			return true;
	}
	/* Also where pg_wal is on a file system of its own. */
	return qdb_remove_file(path);
}

bool
qdb_copy_cut(const char *from, const char *to, uint32 keep, bool sync)
{
	char		block[XLOG_BLCKSZ];
	int			in = open(from, O_RDONLY | PG_BINARY | O_CLOEXEC);
	int			out = open(to, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY | O_CLOEXEC, pg_file_create_mode);
	bool		ok = in >= 0 && out >= 0;

	for (uint32 offset = 0; ok && offset < keep; offset += sizeof(block))
	{
		ssize_t		length = Min(sizeof(block), keep - offset);

		ok = pg_pread(in, block, length, offset) == length &&
			pg_pwrite(out, block, length, offset) == length;
	}
	ok = ok && ftruncate(out, wal_segment_size) == 0 && (!sync || pg_fsync(out) == 0);
	if (!ok)
		ereport(LOG, (errcode_for_file_access(),
					  errmsg("[failover] could not copy \"%s\": %m", from)));
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	return ok;
}

bool
qdb_file_exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

/* Adds one line of a history file; false: malformed. */
static bool
parse_line(const char *line, QdbHistory *history)
{
	TimeLineID	timeline;
	uint32		hi;
	uint32		lo;
	QdbHistoryLine *lines;

	while (isspace((unsigned char) *line))
		line++;
	if (*line == '\0' || *line == '#')
		return true;
	if (sscanf(line, "%u\t%X/%X", &timeline, &hi, &lo) != 3)
		return false;
	if (history->nlines > 0 && timeline <= history->lines[history->nlines - 1].timeline)
		return false;
	lines = realloc(history->lines, (history->nlines + 1) * sizeof(*lines));
	if (lines == NULL)
		return false;
	lines[history->nlines].timeline = timeline;
	lines[history->nlines].end = ((uint64) hi << 32) | lo;
	history->lines = lines;
	history->nlines++;
	return true;
}

bool
qdb_history_read(TimeLineID timeline, QdbHistory *history)
{
	char		path[MAXPGPATH];

	TLHistoryFilePath(path, timeline);
	return qdb_history_read_at(path, history);
}

bool
qdb_history_read_at(const char *path, QdbHistory *history)
{
	char		line[MAXPGPATH];
	FILE	   *file;
	bool		ok = true;
	bool		marked = false;

	memset(history, 0, sizeof(*history));
	file = fopen(path, "r");
	if (file == NULL)
	{
		if (errno == ENOENT)
			return true;
		ereport(LOG, (errcode_for_file_access(),
					  errmsg("[failover] could not open \"%s\": %m", path)));
		return false;
	}
	history->exists = true;
	while (ok && fgets(line, sizeof(line), file) != NULL)
	{
		if (strcmp(line, QDB_PLACEHOLDER) == 0)
			marked = true;
		ok = parse_line(line, history);
	}
	if (ferror(file))
		ok = false;
	fclose(file);
	history->placeholder = marked && history->nlines == 0;
	if (!ok)
	{
		ereport(LOG, (errmsg("[failover] cannot read history file \"%s\"", path)));
		qdb_history_free(history);
	}
	return ok;
}

void
qdb_history_free(QdbHistory *history)
{
	free(history->lines);
	history->lines = NULL;
	history->nlines = 0;
}

TimeLineID
qdb_history_owner(const QdbHistory *history, TimeLineID tip, XLogRecPtr position)
{
	for (int i = 0; i < history->nlines; i++)
	{
		if (position <= history->lines[i].end)
			return history->lines[i].timeline;
	}
	return tip;
}

bool
qdb_visit_wal_files(QdbWalFileVisit visit, void *arg)
{
	DIR		   *directory = opendir(XLOGDIR);
	struct dirent *entry;
	bool		ok = true;

	if (directory == NULL)
	{
		ereport(LOG, (errcode_for_file_access(),
					  errmsg("[failover] could not open directory \"%s\": %m", XLOGDIR)));
		return false;
	}
	while (ok && (entry = readdir(directory)) != NULL)
	{
		char		path[MAXPGPATH];
		TimeLineID	timeline = 0;
		XLogSegNo	segno = 0;

		snprintf(path, sizeof(path), XLOGDIR "/%s", entry->d_name);
		if (IsTLHistoryFileName(entry->d_name))
		{
			if (sscanf(entry->d_name, "%08X", &timeline) == 1)
				ok = visit(path, timeline, 0, true, arg);
		}
		else if (IsXLogFileName(entry->d_name))
		{
			XLogFromFileName(entry->d_name, &timeline, &segno, wal_segment_size);
			ok = visit(path, timeline, segno, false, arg);
		}
	}
	closedir(directory);
	return ok;
}

/* Finds the newest real history file. */
static bool
find_newest_real(const char *path, TimeLineID timeline, XLogSegNo segno, bool history, void *arg)
{
	TimeLineID *newest = arg;
	QdbHistory	parsed;

	if (!history || timeline <= *newest || !qdb_history_read(timeline, &parsed))
		return true;
	if (!parsed.placeholder)
		*newest = timeline;
	qdb_history_free(&parsed);
	return true;
}

static bool
remove_placeholder_above(const char *path, TimeLineID timeline, XLogSegNo segno, bool history, void *arg)
{
	TimeLineID *newest = arg;
	QdbHistory	parsed;
	bool		ok = true;

	if (!history || timeline < *newest || !qdb_history_read(timeline, &parsed))
		return true;
	if (parsed.placeholder)
		ok = qdb_remove_file(path);
	qdb_history_free(&parsed);
	return ok;
}

bool
qdb_sweep_placeholders(void)
{
	TimeLineID	newest = 0;

	return qdb_visit_wal_files(find_newest_real, &newest) &&
		qdb_visit_wal_files(remove_placeholder_above, &newest) &&
		qdb_sync_wal_folder();
}

/*
 * Does the history file of the new timeline say what the grant says?  A timeline
 * without bytes between parent and fork is no difference.
 */
bool
qdb_history_fits(const QdbGrant *grant, char *why)
{
	QdbHistory	history;
	bool		fits;

	if (!qdb_history_read(grant->timeline, &history))
	{
		snprintf(why, QDB_REASON_SIZE, "the history file of timeline %u cannot be read", grant->timeline);
		return false;
	}
	fits = history.nlines > 0 &&
		history.lines[history.nlines - 1].end == grant->fork &&
		qdb_history_owner(&history, grant->timeline, grant->fork) == grant->parent_timeline;
	if (!fits)
		snprintf(why, QDB_REASON_SIZE, "timeline %u does not fork at %X/%X of timeline %u",
				 grant->timeline, LSN_FORMAT_ARGS(grant->fork), grant->parent_timeline);
	qdb_history_free(&history);
	return fits;
}

/* Not durable: who needs that does more. */
bool
qdb_touch(const char *path)
{
	int			fd = open(path, O_WRONLY | O_CREAT | PG_BINARY | O_CLOEXEC, pg_file_create_mode);

	if (fd < 0)
	{
		ereport(LOG, (errcode_for_file_access(),
					  errmsg("[failover] could not create \"%s\": %m", path)));
		return false;
	}
	close(fd);
	return true;
}

bool
qdb_secure_boot(void)
{
	if (qdb_file_exists(STANDBY_SIGNAL_FILE))
		return qdb_fsync_path(STANDBY_SIGNAL_FILE, false) && qdb_fsync_path(".", true);
	return qdb_place_file(STANDBY_SIGNAL_FILE, "");
}
