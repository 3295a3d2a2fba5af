/*-------------------------------------------------------------------------
 *
 * apply.c
 *		Do what a committed plan says, in the postmaster; see stage.h.
 *
 * On PostgreSQL 15 the crash cycle runs inside the SIGCHLD handler, after the last
 * child has gone and before the control file is read again: so this is plain local
 * work, without a peer, a palloc or an ereport(ERROR).  A kill -9 at any
 * instruction is followed by a boot that does it again, from the last
 * QDB_STEP_RENAME on.
 *
 * A rename is the one step that cannot see whether it was done: its source may
 * have a new owner since.  So its number is made durable before and after it
 * in QDB_STAGE_PROGRESS, and what lies before it is never done again.
 *
 * Process: postmaster.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "base/base.h"
#include "catalog/pg_control.h"
#include "common/file_perm.h"
#include "failover/stage.h"
#include "failover/wal_files.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"

#define PROGRESS_SIZE	16
#define COPY_SIZE		(64 * 1024)

/* Where a test may kill a step. */
enum
{
	AT_BEGIN,
	AT_MIDDLE,
	AT_END,
	POINTS
};

/* The plan that is being applied. */
typedef struct Plan
{
	const uint8 *bytes;			/* mapped journal */
	size_t		size;
	QdbPlanHeader header;
	uint32		done;			/* steps that must not be repeated */
	uint32		now;			/* number of the current step */
	int			progress_fd;
	bool		dirty;			/* a step was done since the last sync */
} Plan;

/* Too large for the stack of a signal handler's process to waste. */
static uint8 copy_buffer[COPY_SIZE];
static QdbStep step;

static void
reach(const Plan *plan, int point)
{
	if (qdb_debug_apply_stop >= 0 && qdb_debug_apply_stop == (int) plan->now * POINTS + point)
		(void) kill(getpid(), SIGKILL);
}

static bool
complain(const char *what, const char *path)
{
	ereport(LOG, (errcode_for_file_access(),
				  errmsg("[failover] could not %s \"%s\": %m", what, path)));
	return false;
}

/* ---- single steps ---- */

static bool
parent_of(const char *path, char *parent)
{
	char	   *slash;

	strlcpy(parent, path, MAXPGPATH);
	slash = strrchr(parent, '/');
	if (slash == NULL)
		return false;
	*slash = '\0';
	return true;
}

static bool
make_directory(const char *path)
{
	char		copy[MAXPGPATH];

	strlcpy(copy, path, sizeof(copy));
	if (pg_mkdir_p(copy, pg_dir_create_mode) != 0)
		return complain("create directory", path);
	return true;
}

static bool
make_parents(const char *path)
{
	char		parent[MAXPGPATH];
	struct stat st;

	if (!parent_of(path, parent) || stat(parent, &st) == 0)
		return true;
	return make_directory(parent);
}

static bool
copy_bytes(const Plan *plan, int from, int to)
{
	bool		first = true;
	ssize_t		n;

	errno = 0;
	while ((n = read(from, copy_buffer, sizeof(copy_buffer))) > 0)
	{
		if (write(to, copy_buffer, n) != n)
		{
			if (errno == 0)
				errno = ENOSPC;
			return false;
		}
		if (first)
			reach(plan, AT_MIDDLE);
		first = false;
	}
	return n == 0 && pg_fsync(to) == 0;
}

/* Another file system: a copy, and the rename there. */
static bool
put_copy(const Plan *plan, const char *staged, const char *path)
{
	char		temp[MAXPGPATH];
	int			from = open(staged, O_RDONLY | PG_BINARY | O_CLOEXEC);
	int			to;
	bool		ok;

	snprintf(temp, sizeof(temp), "%s.qdbtmp", path);
	to = open(temp, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY | O_CLOEXEC, pg_file_create_mode);
	ok = from >= 0 && to >= 0 && copy_bytes(plan, from, to) && rename(temp, path) == 0;
	if (!ok)
		(void) complain("write", path);
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
	return ok;
}

static bool
do_put(const Plan *plan)
{
	/* Moved away by an earlier try? */
	if (!qdb_file_exists(step.other) && qdb_file_exists(step.path))
		return true;
	if (!make_parents(step.path))
		return false;
	if (rename(step.other, step.path) == 0)
		return true;
	if (errno == EXDEV)
		return put_copy(plan, step.other, step.path);
	return complain("put in place", step.path);
}

static bool
write_blocks(const Plan *plan, int from, int to)
{
	for (uint64 i = 0; i < step.number; i++)
	{
		BlockNumber block;
		ssize_t		n = read(from, copy_buffer, QDB_STAGED_BLOCK_SIZE);

		if (n != QDB_STAGED_BLOCK_SIZE)
		{
			if (n >= 0)
				errno = EIO;
			return false;
		}
		memcpy(&block, copy_buffer, sizeof(block));
		errno = 0;
		if (pg_pwrite(to, copy_buffer + sizeof(block), BLCKSZ, (off_t) block * BLCKSZ) != BLCKSZ)
		{
			if (errno == 0)
				errno = ENOSPC;
			return false;
		}
		if (i == step.number / 2)
			reach(plan, AT_MIDDLE);
	}
	return true;
}

static bool
do_blocks(const Plan *plan)
{
	int			from = open(step.other, O_RDONLY | PG_BINARY | O_CLOEXEC);
	int			to = open(step.path, O_RDWR | O_CREAT | PG_BINARY | O_CLOEXEC, pg_file_create_mode);
	bool		ok = from >= 0 && to >= 0 && write_blocks(plan, from, to);

	if (!ok)
		(void) complain("write blocks of", step.path);
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
	return ok;
}

static bool
do_truncate(void)
{
	struct stat st;

	if (stat(step.path, &st) != 0)
		return errno == ENOENT ? true : complain("stat", step.path);
	if ((uint64) st.st_size <= step.number)
		return true;
	if (truncate(step.path, (off_t) step.number) != 0)
		return complain("truncate", step.path);
	return true;
}

static bool
do_remove(void)
{
	if (strncmp(step.path, XLOGDIR "/", strlen(XLOGDIR "/")) == 0 &&
		strchr(step.path + strlen(XLOGDIR "/"), '/') == NULL)
		return qdb_discard_wal(step.path);
	return qdb_remove_file(step.path);
}

/* Does not follow symbolic links. */
static bool
remove_below(const Plan *plan, const char *path)
{
	DIR		   *dir = opendir(path);
	struct dirent *entry;
	bool		ok = true;

	if (dir == NULL)
		return errno == ENOENT ? true : complain("open directory", path);
	while (ok && (entry = readdir(dir)) != NULL)
	{
		char		child[MAXPGPATH];
		struct stat st;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
		if (lstat(child, &st) != 0)
			ok = complain("stat", child);
		else if (!S_ISDIR(st.st_mode))
			ok = qdb_remove_file(child);
		else if ((ok = remove_below(plan, child)) && rmdir(child) != 0)
			ok = complain("remove directory", child);
		reach(plan, AT_MIDDLE);
	}
	closedir(dir);
	return ok;
}

static bool
do_remove_tree(const Plan *plan)
{
	struct stat st;

	if (lstat(step.path, &st) != 0)
		return errno == ENOENT ? true : complain("stat", step.path);
	if (!S_ISDIR(st.st_mode))
		return qdb_remove_file(step.path);
	if (!remove_below(plan, step.path))
		return false;
	return rmdir(step.path) == 0 || complain("remove directory", step.path);
}

static bool
do_symlink(void)
{
	char		target[MAXPGPATH];
	ssize_t		n = readlink(step.path, target, sizeof(target) - 1);

	if (n >= 0)
	{
		target[n] = '\0';
		if (strcmp(target, step.other) == 0)
			return true;
		if (!qdb_remove_file(step.path))
			return false;
	}
	return (make_parents(step.path) && symlink(step.other, step.path) == 0) ||
		complain("create symbolic link", step.path);
}

/* ---- durability ---- */

static bool
sync_file_system(const char *path)
{
	int			fd = open(path, O_RDONLY | PG_BINARY | O_CLOEXEC);
	bool		ok = fd >= 0 && syncfs(fd) == 0;

	if (!ok)
		(void) complain("synchronize", path);
	if (fd >= 0)
		close(fd);
	return ok;
}

/* What the steps have changed becomes durable, wherever it lies. */
static bool
sync_all(void)
{
	DIR		   *dir;
	struct dirent *entry;
	bool		ok;

	if (!enableFsync)
		return true;
	ok = sync_file_system(".") && sync_file_system(XLOGDIR);
	dir = opendir("pg_tblspc");
	/* Gone for a moment while a clone's folders take their places. */
	if (dir == NULL)
		return errno == ENOENT ? ok : complain("open directory", "pg_tblspc");
	while (ok && (entry = readdir(dir)) != NULL)
	{
		char		path[MAXPGPATH];

		snprintf(path, sizeof(path), "pg_tblspc/%s", entry->d_name);
		/* A link to nowhere holds nothing to synchronize. */
		if (entry->d_name[0] != '.' && qdb_file_exists(path))
			ok = sync_file_system(path);
	}
	closedir(dir);
	return ok;
}

/* ---- the rename and its progress ---- */

/* Steps below done must not be repeated from now on: they are durable, or were renames. */
static bool
note_progress(Plan *plan, uint32 done)
{
	uint8		buf[PROGRESS_SIZE];
	QdbWriter	w = {.buf = buf,.size = sizeof(buf)};

	if (plan->progress_fd < 0)
		plan->progress_fd = open(QDB_STAGE_PROGRESS,
								 O_WRONLY | O_CREAT | O_APPEND | PG_BINARY | O_CLOEXEC,
								 pg_file_create_mode);
	qdb_put_u32(&w, done);
	qdb_put_u32(&w, plan->header.crc);
	qdb_put_u32(&w, plan->header.nsteps);
	qdb_put_u32(&w, qdb_crc32c(0, buf, w.used));
	errno = 0;
	if (plan->progress_fd < 0 || write(plan->progress_fd, buf, sizeof(buf)) != sizeof(buf) ||
		pg_fsync(plan->progress_fd) != 0)
	{
		if (errno == 0)
			errno = ENOSPC;
		return complain("write", QDB_STAGE_PROGRESS);
	}
	return qdb_fsync_path(QDB_STAGE_DIR, true);
}

/* A torn last record is one that nobody has relied on. */
static void
read_progress(Plan *plan)
{
	uint8		buf[PROGRESS_SIZE];
	int			fd = open(QDB_STAGE_PROGRESS, O_RDWR | PG_BINARY | O_CLOEXEC);
	off_t		good = 0;

	plan->done = 0;
	plan->progress_fd = -1;
	if (fd < 0)
		return;
	while (read(fd, buf, sizeof(buf)) == sizeof(buf))
	{
		QdbReader	r = {.buf = buf,.size = sizeof(buf)};
		uint32		done = qdb_get_u32(&r);

		if (qdb_get_u32(&r) != plan->header.crc || qdb_get_u32(&r) != plan->header.nsteps ||
			qdb_get_u32(&r) != qdb_crc32c(0, buf, sizeof(buf) - 4))
			break;
		plan->done = Max(plan->done, done);
		good += sizeof(buf);
	}
	if (ftruncate(fd, good) != 0)
		(void) complain("truncate", QDB_STAGE_PROGRESS);
	close(fd);
}

static bool
sync_parent(const char *path)
{
	char		parent[MAXPGPATH];

	return qdb_fsync_path(parent_of(path, parent) ? parent : ".", true);
}

static bool
do_rename(Plan *plan)
{
	struct stat st;
	bool		there = lstat(step.path, &st) == 0;

	if (lstat(step.other, &st) != 0 && there)
		return note_progress(plan, plan->now + 1);	/* killed after it */
	if (there)
	{
		ereport(LOG, (errmsg("[failover] cannot rename \"%s\": \"%s\" exists", step.other, step.path)));
		return false;
	}
	if (!make_parents(step.path) || (plan->dirty && !sync_all()) || !note_progress(plan, plan->now))
		return false;
	plan->dirty = false;
	reach(plan, AT_MIDDLE);
	if (rename(step.other, step.path) != 0)
		return complain("rename", step.other);
	return sync_parent(step.path) && sync_parent(step.other) && note_progress(plan, plan->now + 1);
}

/* ---- all of it ---- */

static bool
do_step(Plan *plan)
{
	switch ((QdbStepKind) step.kind)
	{
		case QDB_STEP_PUT:
			/* The control file says that all the rest is there. */
			if (strcmp(step.path, XLOG_CONTROL_FILE) == 0 && !sync_all())
				return false;
			return do_put(plan);
		case QDB_STEP_BLOCKS:
			return do_blocks(plan);
		case QDB_STEP_TRUNCATE:
			return do_truncate();
		case QDB_STEP_REMOVE:
			return do_remove();
		case QDB_STEP_EMPTY_DIR:
			return remove_below(plan, step.path);
		case QDB_STEP_MKDIR:
			return make_directory(step.path);
		case QDB_STEP_RENAME:
			return do_rename(plan);
		case QDB_STEP_REMOVE_TREE:
			return do_remove_tree(plan);
		case QDB_STEP_SYMLINK:
			return do_symlink();
	}
	return false;
}

static bool
do_steps(Plan *plan)
{
	QdbReader	r = {.buf = plan->bytes + QDB_PLAN_HEADER_SIZE,.size = plan->header.length};

	for (plan->now = 0; plan->now < plan->header.nsteps; plan->now++)
	{
		qdb_step_decode(&r, &step);
		if (r.failed)
		{
			ereport(LOG, (errmsg("[failover] step %u of \"%s\" is malformed", plan->now,
								 QDB_STAGE_JOURNAL)));
			return false;
		}
		if (plan->now < plan->done)
			continue;
		reach(plan, AT_BEGIN);
		if (!do_step(plan))
			return false;
		plan->dirty |= step.kind != QDB_STEP_RENAME;
		reach(plan, AT_END);
	}
	return qdb_reader_done(&r);
}

/* Maps and checks the journal; NULL in plan->bytes: not valid, logged. */
static void
open_plan(Plan *plan)
{
	int			fd = open(QDB_STAGE_JOURNAL, O_RDONLY | PG_BINARY | O_CLOEXEC);
	struct stat st;
	void	   *bytes = MAP_FAILED;

	memset(plan, 0, sizeof(*plan));
	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size >= QDB_PLAN_HEADER_SIZE)
		bytes = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (fd >= 0)
		close(fd);
	if (bytes == MAP_FAILED)
	{
		(void) complain("read", QDB_STAGE_JOURNAL);
		return;
	}
	plan->size = st.st_size;
	if (!qdb_plan_header_decode(bytes, &plan->header) ||
		plan->header.length != plan->size - QDB_PLAN_HEADER_SIZE ||
		qdb_crc32c(0, (uint8 *) bytes + QDB_PLAN_HEADER_SIZE, plan->header.length) != plan->header.crc)
	{
		ereport(LOG, (errmsg("[failover] \"%s\" is damaged or of another version", QDB_STAGE_JOURNAL)));
		munmap(bytes, plan->size);
		return;
	}
	plan->bytes = bytes;
}

static bool
finish(Plan *plan)
{
	if (!sync_all())
		return false;
	plan->now = plan->header.nsteps;
	reach(plan, AT_BEGIN);
	if (!qdb_remove_file(QDB_STAGE_JOURNAL) || !qdb_fsync_path(QDB_STAGE_DIR, true))
		return false;
	reach(plan, AT_END);
	return true;
}

bool
qdb_apply_pending(void)
{
	Plan		plan;
	struct stat st;
	bool		ok;

	if (!qdb_stage_pending())
		return false;
	open_plan(&plan);
	ok = plan.bytes != NULL;
	if (ok && (stat(".", &st) != 0 || plan.header.inode != (uint64) st.st_ino))
	{
		/* A copy of that server's files: it has only what was copied. */
		ereport(LOG, (errmsg("[failover] \"%s\" belongs to another data directory", QDB_STAGE_JOURNAL)));
		munmap(unconstify(uint8 *, plan.bytes), plan.size);
		return false;
	}
	if (ok)
	{
		ereport(LOG, (errmsg("[failover] applying %u steps of staged work", plan.header.nsteps)));
		read_progress(&plan);
		ok = do_steps(&plan) && finish(&plan);
		if (plan.progress_fd >= 0)
			close(plan.progress_fd);
		munmap(unconstify(uint8 *, plan.bytes), plan.size);
	}
	if (!ok)
		ereport(FATAL,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("[failover] could not apply the staged work in \"%s\"", QDB_STAGE_DIR),
				 errdetail("This data directory is incomplete until that is done."),
				 errhint("Remove the cause, which the log names, and start the server again.")));
	return true;
}

/*
 * Runs at every end of the postmaster's shared memory; only the one of a crash
 * cycle is not the end of the postmaster.
 */
static void
apply_in_crash_cycle(int code, Datum arg)
{
	if (!proc_exit_inprogress && MyProcPid == PostmasterPid)
		(void) qdb_apply_pending();
}

void
qdb_apply_register(void)
{
	on_shmem_exit(apply_in_crash_cycle, (Datum) 0);
}
