/*-------------------------------------------------------------------------
 *
 * stage.c
 *		Prepare work on data files; see stage.h.
 *
 * The plan is written to journal.tmp step by step, so that its size is not
 * bound by memory: a database has as many steps as files.
 *
 * Process: whoever plans, one at a time (the resync worker).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "common/file_perm.h"
#include "common/file_utils.h"
#include "failover/stage.h"
#include "failover/wal_files.h"
#include "miscadmin.h"
#include "storage/fd.h"

#define TEMP_JOURNAL	QDB_STAGE_DIR "/journal.tmp"

struct QdbStage
{
	FILE	   *file;			/* AllocateFile: closed at the end of the
								 * process at the latest */
	bool		complete;		/* the control file was the last step */
	QdbPlanHeader header;
};

static void
report_error(const char *what, const char *path)
{
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not %s \"%s\": %m", what, path)));
}

bool
qdb_stage_pending(void)
{
	return qdb_file_exists(QDB_STAGE_JOURNAL);
}

void
qdb_stage_mkdir(const char *path)
{
	char		copy[MAXPGPATH];

	if (strcmp(path, QDB_STAGE_DIR) != 0 && !qdb_plan_is_staged(path))
		elog(ERROR, "\"%s\" is not below the stage", path);
	strlcpy(copy, path, sizeof(copy));
	if (pg_mkdir_p(copy, pg_dir_create_mode) != 0)
		report_error("create directory", path);
}

void
qdb_stage_text(const char *path, const char *text)
{
	size_t		length = strlen(text);
	int			fd;

	if (!qdb_plan_is_staged(path))
		elog(ERROR, "\"%s\" is not below the stage", path);
	fd = OpenTransientFile(path, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);
	if (fd < 0)
		report_error("create file", path);
	errno = 0;
	if (write(fd, text, length) != (ssize_t) length)
	{
		if (errno == 0)
			errno = ENOSPC;
		report_error("write file", path);
	}
	if (CloseTransientFile(fd) != 0)
		report_error("close file", path);
}

void
qdb_stage_clear(void)
{
	if (qdb_stage_pending())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("staged work waits to be applied"),
				 errhint("Restart the server.")));
	if (qdb_file_exists(QDB_STAGE_DIR) && !rmtree(QDB_STAGE_DIR, true))
		report_error("remove directory", QDB_STAGE_DIR);
}

QdbStage *
qdb_stage_begin(bool keep)
{
	QdbStage   *stage = palloc0(sizeof(QdbStage));
	uint8		zeroes[QDB_PLAN_HEADER_SIZE] = {0};
	struct stat st;

	if (!keep || qdb_stage_pending())
		qdb_stage_clear();
	qdb_stage_mkdir(QDB_STAGE_DIR);
	if (stat(".", &st) != 0)
		report_error("stat directory", DataDir);
	stage->header.inode = (uint64) st.st_ino;
	if (!qdb_remove_file(QDB_STAGE_PROGRESS))
		report_error("remove file", QDB_STAGE_PROGRESS);
	stage->file = AllocateFile(TEMP_JOURNAL, PG_BINARY_W);
	if (stage->file == NULL)
		report_error("create file", TEMP_JOURNAL);
	if (fwrite(zeroes, sizeof(zeroes), 1, stage->file) != 1)
		report_error("write file", TEMP_JOURNAL);
	return stage;
}

static void
add_step(QdbStage *stage, QdbStepKind kind, uint64 number, const char *path, const char *other)
{
	QdbStep		step = {0};
	uint8		buf[QDB_PLAN_STEP_MAX];
	QdbWriter	w = {.buf = buf,.size = sizeof(buf)};
	const char *problem;

	step.kind = kind;
	step.number = number;
	if (strlcpy(step.path, path, sizeof(step.path)) >= sizeof(step.path) ||
		strlcpy(step.other, other, sizeof(step.other)) >= sizeof(step.other))
		ereport(ERROR,
				(errcode(ERRCODE_NAME_TOO_LONG),
				 errmsg("path \"%s\" is too long to be staged", path)));
	problem = qdb_step_problem(&step);
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cannot stage work on \"%s\": %s", path, problem)));
	if (stage->complete)
		elog(ERROR, "the control file must be the last step of a plan");
	stage->complete = strcmp(path, "global/pg_control") == 0;
	qdb_step_encode(&step, &w);
	if (fwrite(buf, w.used, 1, stage->file) != 1)
		report_error("write file", TEMP_JOURNAL);
	stage->header.crc = qdb_crc32c(stage->header.crc, buf, w.used);
	stage->header.length += w.used;
	stage->header.nsteps++;
}

void
qdb_stage_add_put(QdbStage *stage, const char *staged, const char *path)
{
	add_step(stage, QDB_STEP_PUT, 0, path, staged);
}

void
qdb_stage_add_blocks(QdbStage *stage, const char *staged, const char *path, uint64 nblocks)
{
	add_step(stage, QDB_STEP_BLOCKS, nblocks, path, staged);
}

void
qdb_stage_add_truncate(QdbStage *stage, const char *path, uint64 size)
{
	add_step(stage, QDB_STEP_TRUNCATE, size, path, "");
}

void
qdb_stage_add_remove(QdbStage *stage, const char *path)
{
	add_step(stage, QDB_STEP_REMOVE, 0, path, "");
}

void
qdb_stage_add_empty_dir(QdbStage *stage, const char *path)
{
	add_step(stage, QDB_STEP_EMPTY_DIR, 0, path, "");
}

void
qdb_stage_add_mkdir(QdbStage *stage, const char *path)
{
	add_step(stage, QDB_STEP_MKDIR, 0, path, "");
}

void
qdb_stage_add_rename(QdbStage *stage, const char *from, const char *to)
{
	add_step(stage, QDB_STEP_RENAME, 0, to, from);
}

void
qdb_stage_add_remove_tree(QdbStage *stage, const char *path)
{
	add_step(stage, QDB_STEP_REMOVE_TREE, 0, path, "");
}

void
qdb_stage_add_symlink(QdbStage *stage, const char *target, const char *path)
{
	add_step(stage, QDB_STEP_SYMLINK, 0, path, target);
}

/*
 * Fsyncs a tree, depth first: a folder after what it names.  syncfs before it has
 * written the bulk; the single fsyncs are what reports an error reliably.
 */
static void
sync_tree(const char *path, uint64 *synced)
{
	DIR		   *dir = AllocateDir(path);
	struct dirent *entry;

	while ((entry = ReadDir(dir, path)) != NULL)
	{
		char		child[MAXPGPATH];
		struct stat st;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		CHECK_FOR_INTERRUPTS();
		snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
		if (lstat(child, &st) != 0)
			report_error("stat file", child);
		if (S_ISDIR(st.st_mode))
			sync_tree(child, synced);
		else if (S_ISREG(st.st_mode) && !qdb_fsync_path(child, false))
			report_error("fsync file", child);
		*synced += st.st_size;
		qdb_set_progress(QDB_REWIND_SYNC, *synced, 0);
	}
	FreeDir(dir);
	if (!qdb_fsync_path(path, true))
		report_error("fsync directory", path);
}

static void
sync_stage(const char *also)
{
	int			fd = OpenTransientFile(QDB_STAGE_DIR, O_RDONLY | PG_BINARY);
	uint64		synced = 0;

	qdb_set_progress(QDB_REWIND_SYNC, 0, 0);
	if (fd < 0 || syncfs(fd) != 0)
		report_error("synchronize directory", QDB_STAGE_DIR);
	CloseTransientFile(fd);
	sync_tree(QDB_STAGE_DIR, &synced);
	if (also[0] != '\0')
		sync_tree(also, &synced);
	if (!qdb_fsync_path("quantadb", true) || !qdb_fsync_path(".", true))
		report_error("fsync directory", DataDir);
}

void
qdb_stage_commit(QdbStage *stage, const char *also)
{
	uint8		buf[QDB_PLAN_HEADER_SIZE];

	qdb_plan_header_encode(&stage->header, buf);
	if (fseek(stage->file, 0, SEEK_SET) != 0 ||
		fwrite(buf, sizeof(buf), 1, stage->file) != 1 || fflush(stage->file) != 0)
		report_error("write file", TEMP_JOURNAL);
	if (FreeFile(stage->file) != 0)
		report_error("close file", TEMP_JOURNAL);
	stage->file = NULL;
	sync_stage(also);
	if (rename(TEMP_JOURNAL, QDB_STAGE_JOURNAL) != 0)
		report_error("rename file", TEMP_JOURNAL);
	if (!qdb_fsync_path(QDB_STAGE_DIR, true))
	{
		/* Nobody knows whether it counts: a crash cycle finds out. */
		ereport(PANIC,
				(errcode_for_file_access(),
				 errmsg("could not make \"%s\" durable: %m", QDB_STAGE_JOURNAL)));
	}
	pfree(stage);
}

void
qdb_stage_discard(QdbStage *stage)
{
	if (stage->file != NULL)
		FreeFile(stage->file);
	if (!qdb_remove_file(TEMP_JOURNAL))
		report_error("remove file", TEMP_JOURNAL);
	pfree(stage);
}
