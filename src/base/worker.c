/*-------------------------------------------------------------------------
 *
 * worker.c
 *		What the three background workers have in common.
 *
 * A worker publishes its latch while it runs, so that others can wake it,
 * and takes it back before its process ends: a latch of a dead process must
 * never be set.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/pidfile.h"
#include "utils/guc.h"

static Latch **published_latch = NULL;
static pid_t *published_pid = NULL;

static void
register_worker(const char *name, const char *function, BgWorkerStartTime start, int flags)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = flags;
	worker.bgw_start_time = start;
	worker.bgw_restart_time = 1;
	snprintf(worker.bgw_name, BGW_MAXLEN, "%s", name);
	snprintf(worker.bgw_type, BGW_MAXLEN, "%s", name);
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "quantadb");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "%s", function);
	RegisterBackgroundWorker(&worker);
}

void
qdb_register_workers(void)
{
	register_worker("quantadb coordinator", "qdb_coordinator_main",
					BgWorkerStart_PostmasterStart, BGWORKER_SHMEM_ACCESS);
	register_worker("quantadb http", "qdb_http_main",
					BgWorkerStart_PostmasterStart, BGWORKER_SHMEM_ACCESS);
	/* With a database-less connection, or pg_stat_replication shows no rows. */
	register_worker("quantadb streamer", "qdb_streamer_main",
					BgWorkerStart_ConsistentState,
					BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION);
}

static void
withdraw_latch(int code, Datum arg)
{
	SpinLockAcquire(&qdb_shared->mutex);
	if (*published_pid == MyProcPid)
	{
		*published_latch = NULL;
		*published_pid = 0;
	}
	SpinLockRelease(&qdb_shared->mutex);
}

void
qdb_worker_begin(Latch **latch_slot, pid_t *pid_slot)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();

	published_latch = latch_slot;
	published_pid = pid_slot;
	before_shmem_exit(withdraw_latch, (Datum) 0);

	SpinLockAcquire(&qdb_shared->mutex);
	*latch_slot = MyLatch;
	*pid_slot = MyProcPid;
	SpinLockRelease(&qdb_shared->mutex);
}

bool
qdb_worker_shutdown_requested(void)
{
	return ShutdownRequestPending;
}

bool
qdb_server_is_stopping(void)
{
	char		line[256];
	FILE	   *file = fopen("postmaster.pid", "r");
	bool		stopping = false;

	if (file == NULL)
		return true;
	for (int i = 1; fgets(line, sizeof(line), file) != NULL; i++)
	{
		if (i == LOCK_FILE_LINE_PM_STATUS)
			stopping = strncmp(line, PM_STATUS_STOPPING, 8) == 0;
	}
	fclose(file);
	return stopping;
}

/*
 * The postmaster never starts a worker again that ended with 0, as one does that a
 * user has terminated.
 */
void
qdb_worker_end(void)
{
	proc_exit(qdb_server_is_stopping() ? 0 : 1);
}
