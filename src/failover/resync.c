/*-------------------------------------------------------------------------
 *
 * resync.c
 *		The resync worker: a clone, a rewind, or the removal of what they left.
 *
 * The coordinator starts it (src/cluster/clone.c, ladder.c) and never waits for it.
 *
 * Process: quantadb resync.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog/catalog.h"
#include "failover/clone.h"
#include "failover/rewind.h"
#include "failover/wal_files.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/resowner.h"

/* What the old data had outside, unless the new data lies there. */
static void
remove_garbage(void)
{
	char		line[MAXPGPATH + 32];
	FILE	   *list = AllocateFile(QDB_CLONE_GARBAGE, "r");

	while (list != NULL && fgets(line, sizeof(line), list) != NULL)
	{
		bool		used = false;
		DIR		   *dir = AllocateDir("pg_tblspc");
		struct dirent *entry;

		line[strcspn(line, "\n")] = '\0';
		while ((entry = ReadDir(dir, "pg_tblspc")) != NULL)
		{
			char		link[MAXPGPATH];
			struct stat a;
			struct stat b;

			snprintf(link, sizeof(link), "pg_tblspc/%s/%s", entry->d_name, TABLESPACE_VERSION_DIRECTORY);
			if (stat(link, &a) == 0 && stat(line, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
				used = true;
		}
		FreeDir(dir);
		if (!used && qdb_file_exists(line) && !rmtree(line, true))
			ereport(LOG, (errmsg("[failover] Could not remove all of \"%s\"", line)));
	}
	if (list != NULL)
		FreeFile(list);
}

static void
clean_up(void)
{
	if (qdb_stage_pending())
		return;
	remove_garbage();
	qdb_stage_clear();
	if (qdb_file_exists(QDB_DISCARDED_DIR) && !rmtree(QDB_DISCARDED_DIR, true))
		ereport(LOG, (errmsg("[failover] Could not remove all of \"%s\"", QDB_DISCARDED_DIR)));
}

static void
withdraw(int code, Datum arg)
{
	SpinLockAcquire(&qdb_shared->mutex);
	if (qdb_shared->clone.worker == MyProcPid)
	{
		qdb_shared->clone.worker = 0;
		if (qdb_shared->clone.phase == QDB_CLONE_STAGED)
			qdb_shared->clone.phase = QDB_CLONE_CONNECTING;
	}
	SpinLockRelease(&qdb_shared->mutex);
	qdb_wake_coordinator();
}

/* One at a time: two would share the stage. */
static bool
claim(void)
{
	bool		claimed;

	SpinLockAcquire(&qdb_shared->mutex);
	claimed = qdb_shared->clone.worker == 0;
	if (claimed)
		qdb_shared->clone.worker = MyProcPid;
	SpinLockRelease(&qdb_shared->mutex);
	if (claimed)
		before_shmem_exit(withdraw, (Datum) 0);
	return claimed;
}

void
qdb_resync_main(Datum arg)
{
	QdbResyncTask task = (QdbResyncTask) DatumGetInt32(arg);
	QdbIdentity self;
	char		why[QDB_REASON_SIZE] = "";

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	CreateAuxProcessResourceOwner();
	if (!claim())
		proc_exit(0);
	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	self = qdb_shared->identity;
	LWLockRelease(qdb_shared->state_lock);
	if (task == QDB_RESYNC_CLEAN)
		clean_up();
	else if (task == QDB_RESYNC_REWIND)
		qdb_rewind_run(&self);
	else if (!qdb_clone_run(&self, task == QDB_RESYNC_JOIN, why))
		ereport(LOG, (errmsg("[failover] The clone was given up: %s", why)));
	proc_exit(0);
}
