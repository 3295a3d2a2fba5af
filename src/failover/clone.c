/*-------------------------------------------------------------------------
 *
 * clone.c
 *		Get all data anew, of the primary's or from a replica that follows it.
 *
 * The running server is not touched before everything is staged and on disk.  Then the
 * plan is committed and this process ends with status 2: the postmaster goes
 * through its crash cycle, in which the plan is applied (apply.c).
 *
 * A member that votes keeps its promise and its identity.  What it had acknowledged
 * is in the new data too (I11): the primary forgot its acks before it named the flush
 * position that the new data reaches, and the plan is committed only if nothing was promised
 * or followed since.  A node that joins has acknowledged nothing.
 *
 * Process: quantadb resync.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/twophase.h"
#include "access/xlog.h"
#include "catalog/catalog.h"
#include "catalog/catversion.h"
#include "failover/clone.h"
#include "failover/wal_files.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "storage/fd.h"
#include "storage/lock.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#define GIVE_UP_US			INT64CONST(300000000)	/* without any progress */
#define RETRY_MS			1000
#define NO_PRIMARY_MS		200
#define AWAIT_US			INT64CONST(60000000)
#define BOOT_ID				"/proc/sys/kernel/random/boot_id"
#define BOOT_ID_SIZE		37

void
qdb_clone_set_phase(QdbClonePhase phase, const char *reason, const char *hint, int sqlstate)
{
	char		text[QDB_REASON_SIZE];
	char		advice[QDB_REASON_SIZE];

	strlcpy(text, reason, sizeof(text));
	strlcpy(advice, hint, sizeof(advice));
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->clone.phase = phase;
	qdb_shared->clone.sqlstate = sqlstate;
	if (text[0] != '\0')
	{
		memcpy(qdb_shared->clone.reason, text, sizeof(text));
		memcpy(qdb_shared->clone.hint, advice, sizeof(advice));
	}
	SpinLockRelease(&qdb_shared->mutex);
	qdb_wake_coordinator();
}

bool
qdb_clone_refuse(QdbClone *clone, const char *hint, const char *fmt,...)
{
	char		text[QDB_REASON_SIZE];
	int			save_errno = errno;
	va_list		args;

	errno = save_errno;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	clone->fatal = true;
	strlcpy(clone->hint, hint, sizeof(clone->hint));
	return qdb_fetch_fail(clone->fetch, "%s", text);
}

void
qdb_clone_copies(void)
{
	qdb_clone_set_phase(QDB_CLONE_COPYING, "", "", 0);
}

void
qdb_clone_progress(QdbClone *clone, uint64 done)
{
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->clone.bytes_done = done;
	qdb_shared->clone.bytes_total = Max(clone->state.bytes_total, done);
	SpinLockRelease(&qdb_shared->mutex);
	qdb_set_progress("clone", done, Max(clone->state.bytes_total, done));
}

/* ---- what an interrupted clone left ---- */

/* What was not fsynced survives the death of a process, but not of the machine. */
static void
read_boot_id(char *id)
{
	FILE	   *file = fopen(BOOT_ID, "r");

	if (file == NULL || fgets(id, BOOT_ID_SIZE, file) == NULL)
		snprintf(id, BOOT_ID_SIZE, "unknown-%d", (int) MyProcPid);
	if (file != NULL)
		fclose(file);
}

void
qdb_clone_save(const QdbCloneState *state)
{
	char		id[BOOT_ID_SIZE];
	FILE	   *file = AllocateFile(QDB_CLONE_STATE ".tmp", "w");

	if (file == NULL)
		return;					/* nothing to go on from, no more */
	read_boot_id(id);
	fprintf(file, "format=2 machine=%s system=%lu timeline=%u redo=%lu checkpoint=%lu "
			"total=%lu offset=%lu piece=%lu done=%lu reach_timeline=%u reach=%lu\n", id, state->system_identifier,
			state->timeline, state->redo, state->checkpoint, state->bytes_total, state->offset,
			state->piece, state->bytes_done, state->reach_timeline, state->reach);
	if (FreeFile(file) == 0)
		(void) rename(QDB_CLONE_STATE ".tmp", QDB_CLONE_STATE);
}

static void
load_state(QdbCloneState *state)
{
	char		id[BOOT_ID_SIZE];
	char		saved[BOOT_ID_SIZE];
	char		line[512] = "";
	FILE	   *file = AllocateFile(QDB_CLONE_STATE, "r");

	memset(state, 0, sizeof(*state));
	if (file == NULL)
		return;
	read_boot_id(id);
	if (fgets(line, sizeof(line), file) == NULL ||
		sscanf(line, "format=2 machine=%36s system=%lu timeline=%u redo=%lu checkpoint=%lu "
			   "total=%lu offset=%lu piece=%lu done=%lu reach_timeline=%u reach=%lu", saved, &state->system_identifier,
			   &state->timeline, &state->redo, &state->checkpoint, &state->bytes_total, &state->offset,
			   &state->piece, &state->bytes_done, &state->reach_timeline, &state->reach) != 11 ||
		strcmp(saved, id) != 0)
		memset(state, 0, sizeof(*state));
	FreeFile(file);
}

/*
 * Is what an interrupted clone has fetched within the history of this source?  *known is
 * false where the source's history is not: nothing is to be thrown away for that.
 */
static bool
is_usable(const QdbClone *clone, bool *known)
{
	const QdbCloneState *saved = &clone->state;
	QdbState   *state = qdb_copy_state();
	const QdbGrant *grant = qdb_current_grant(state);
	XLogRecPtr	limit;
	bool		usable;

	*known = grant != NULL && grant->epoch == clone->welcome.epoch;
	usable = *known && saved->system_identifier == clone->welcome.system_identifier &&
		saved->redo != InvalidXLogRecPtr && saved->bytes_total > 0 &&
		qdb_file_exists(QDB_CLONE_RELATIONS) &&
		qdb_history_limit(state, grant, saved->reach_timeline, &limit) && saved->reach <= limit;

	pfree(state);
	return usable;
}

/* Folders that an abandoned clone had made for tablespaces outside. */
static void
drop_outside(void)
{
	DIR		   *dir = opendir(QDB_CLONE_DIR "/pg_tblspc");
	struct dirent *entry;

	while (dir != NULL && (entry = readdir(dir)) != NULL)
	{
		char		link[MAXPGPATH];
		char		target[MAXPGPATH];
		ssize_t		n;

		snprintf(link, sizeof(link), QDB_CLONE_DIR "/pg_tblspc/%s", entry->d_name);
		n = readlink(link, target, sizeof(target) - 1);
		if (n <= 0)
			continue;
		target[n] = '\0';
		snprintf(link, sizeof(link), "%s/%s", target, TABLESPACE_VERSION_DIRECTORY);
		(void) rmtree(link, true);
	}
	if (dir != NULL)
		closedir(dir);
}

/* ---- one attempt ---- */

static bool
check_fit(QdbClone *clone)
{
	const QdbFilesWelcome ours = {
		.control_version = PG_CONTROL_VERSION,.catalog_version = CATALOG_VERSION_NO,.block_size = BLCKSZ,
		.segment_blocks = RELSEG_SIZE,.wal_block_size = XLOG_BLCKSZ,.wal_segment_size = wal_segment_size,
		.limits = {MaxConnections, max_worker_processes, max_wal_senders, max_prepared_xacts, max_locks_per_xact}
	};
	QdbMisfit	misfit;

	if (!qdb_welcome_misfit(&clone->welcome, &ours, &misfit))
		return true;
	if (misfit.kind == QDB_MISFIT_LIMIT)
		return qdb_clone_refuse(clone, "Raise it in postgresql.conf, restart the server, and join again.",
								"%s is %u, below the cluster's %u", misfit.what, misfit.ours, misfit.theirs);
	return qdb_clone_refuse(clone, misfit.kind == QDB_MISFIT_INITDB ?
							"Create this server with the same initdb --wal-segsize." :
							"Install the same major version of PostgreSQL, built the same way.",
							"the cluster's %s is %u, this server's is %u", misfit.what, misfit.theirs, misfit.ours);
}

static void
begin_anew(QdbClone *clone)
{
	QdbCloneState *state = &clone->state;

	drop_outside();
	qdb_stage_clear();
	qdb_stage_mkdir(QDB_CLONE_DIR);
	memset(state, 0, sizeof(*state));
	state->system_identifier = clone->welcome.system_identifier;
	state->timeline = clone->info.timeline;
	state->redo = clone->info.redo;
	state->checkpoint = clone->info.checkpoint;
	ereport(LOG, (errmsg("[failover] Cloning %llu MB in %llu files from %s, to be replayed from %X/%X",
						 (unsigned long long) (clone->info.bytes >> 20),
						 (unsigned long long) clone->info.nfiles, qdb_member_label(qdb_shared->clone.source),
						 LSN_FORMAT_ARGS(state->redo))));
}

/* Goes on where an earlier attempt ended, if the source still can. */
static bool
begin_or_resume(QdbClone *clone)
{
	QdbCloneState *state = &clone->state;
	bool		known;
	bool		usable = is_usable(clone, &known);

	if (!known)
		return qdb_fetch_fail(clone->fetch, "the source is in another epoch");
	qdb_clone_set_phase(QDB_CLONE_PREPARING, "", "", 0);
	if (!qdb_fetch_prepare(clone->fetch, true, usable ? state->redo : InvalidXLogRecPtr, &clone->info))
		return false;
	if (clone->info.resumed && !usable)
		return qdb_fetch_fail(clone->fetch, "the source goes on with what was not asked for");
	clone->resumed = clone->info.resumed;
	if (clone->resumed)
		ereport(LOG, (errmsg("[failover] The clone goes on at %llu of %llu MB",
							 (unsigned long long) (state->bytes_done >> 20),
							 (unsigned long long) (state->bytes_total >> 20))));
	else
		begin_anew(clone);
	return true;
}

/*
 * Waits until the source, or the quorum that the primary counts, has WAL up to lsn.  A failover
 * may throw away what no quorum has; such a clone would be useless.
 */
bool
qdb_clone_await(QdbClone *clone, bool quorum, XLogRecPtr lsn)
{
	QdbFetch   *fetch = quorum ? clone->primary : clone->fetch;
	int64		deadline = qdb_now_us() + AWAIT_US;
	bool		told = quorum;
	QdbSourcePosition now;

	for (;;)
	{
		if (!qdb_fetch_position(fetch, &now))
			return false;
		if (now.epoch != clone->welcome.epoch)
			return qdb_fetch_fail(fetch, "the source is in another epoch");
		if ((quorum ? now.quorum : now.flush) >= lsn)
			return true;
		if (!told)
			ereport(LOG, (errmsg("[failover] The clone waits until %s has WAL up to %X/%X",
								 qdb_member_label(clone->source.member), LSN_FORMAT_ARGS(lsn))));
		told = true;
		if (qdb_now_us() > deadline)
			return qdb_fetch_fail(fetch, quorum ? "no quorum has what was cloned" :
								  "the source is too far behind the primary");
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 50, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static bool
attempt(QdbClone *clone, char *why)
{
	bool		ok = qdb_clone_connect(clone, why);

	if (!ok && clone->primary == NULL)
		return false;
	if (ok)
	{
		load_state(&clone->state);
		ok = check_fit(clone) && begin_or_resume(clone) && qdb_clone_files(clone) &&
			qdb_clone_wal(clone) && qdb_clone_control(clone) &&
			qdb_clone_await(clone, true, clone->end.flush);
	}
	if (!ok)
		qdb_clone_blame(clone, why);
	qdb_clone_disconnect(clone);
	return ok;
}

/* ---- the end ---- */

/*
 * I11: from here to the crash cycle this node makes no promise and follows
 * nobody, which the coordinator respects while the phase is STAGED.  False: it
 * has gone on meanwhile, and what is staged may lack what it acknowledged since.
 */
static bool
hold_still(QdbClone *clone)
{
	bool		still;

	SpinLockAcquire(&qdb_shared->mutex);
	still = clone->joining ||
		(qdb_shared->promised == clone->welcome.epoch && qdb_shared->promising == clone->welcome.epoch &&
		 qdb_shared->target_epoch == 0 && qdb_shared->receiver_epoch == 0);
	if (still)
		qdb_shared->clone.phase = QDB_CLONE_STAGED;
	SpinLockRelease(&qdb_shared->mutex);
	return still && clone->end.flush >= clone->welcome.flush;
}

static void
put_in_place(QdbClone *clone)
{
	QdbStage   *stage = qdb_clone_plan(clone);

	qdb_stage_commit(stage, "");
	ereport(LOG, (errmsg("[failover] The clone is complete up to %X/%X: the server restarts with it",
						 LSN_FORMAT_ARGS(clone->min_recovery))));
	/* The crash cycle begins; the plan is applied in it. */
	_exit(2);
}

/* Errors of the file system end an attempt like those of the connection. */
static bool
guarded_attempt(QdbClone *clone, char *why)
{
	volatile bool ok = false;
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		ok = attempt(clone, why);
		if (ok && hold_still(clone))
			put_in_place(clone);
		else if (ok)
			strlcpy(why, "this node has followed another primary meanwhile", QDB_REASON_SIZE);
		ok = false;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		strlcpy(why, edata->message != NULL ? edata->message : "unknown error", QDB_REASON_SIZE);
		/* Not closed by an error: this process has no transactions. */
		AtEOXact_Files(false);
		qdb_clone_disconnect(clone);
	}
	PG_END_TRY();
	return ok;
}

static void
pause_ms(int ms)
{
	int64		until = qdb_now_us() + ms * INT64CONST(1000);
	int64		left;

	while ((left = until - qdb_now_us()) > 0)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left / 1000 + 1, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
note_attempt(const char *why)
{
	ereport(LOG, (errmsg("[failover] The clone was interrupted: %s", why)));
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->clone.attempts++;
	SpinLockRelease(&qdb_shared->mutex);
	qdb_clone_set_phase(QDB_CLONE_CONNECTING, why, "", 0);
}

bool
qdb_clone_run(const QdbIdentity *self, bool joining, char *why)
{
	QdbClone   *clone = palloc0(sizeof(QdbClone));
	uint64		best = 0;
	int64		deadline = qdb_now_us() + GIVE_UP_US;

	clone->self = *self;
	clone->joining = joining;
	clone->begun_us = qdb_now_us();
	qdb_clone_set_phase(QDB_CLONE_CONNECTING, "", "", 0);
	while (qdb_now_us() < deadline && !clone->fatal)
	{
		if (!qdb_clone_find_source(clone))
		{
			deadline = qdb_now_us() + GIVE_UP_US;
			pause_ms(NO_PRIMARY_MS);
			continue;
		}
		why[0] = '\0';
		(void) guarded_attempt(clone, why);
		note_attempt(why);
		/* What came no further than the best attempt is no progress. */
		if (clone->state.bytes_done > best)
			deadline = qdb_now_us() + GIVE_UP_US;
		best = Max(best, clone->state.bytes_done);
		if (!clone->fatal)
			pause_ms(RETRY_MS);
	}
	qdb_set_progress("", 0, 0);
	drop_outside();
	qdb_clone_set_phase(QDB_CLONE_FAILED, why, clone->hint, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
	pfree(clone);
	return false;
}
