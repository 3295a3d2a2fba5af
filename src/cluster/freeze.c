/*-------------------------------------------------------------------------
 *
 * freeze.c
 *		Stop a primary's WAL at one position, for good.
 *
 * A primary that gives its seat up must end where its successor begins, or it
 * comes back with WAL that nobody else has.  PostgreSQL has no way to refuse WAL,
 * but nothing becomes durable, and no data page that depends on it either, while
 * somebody holds WALWriteLock.  So we flush all that was inserted, take the lock, and
 * look again: if nothing was inserted meanwhile, the files end exactly there, and
 * whatever is inserted from now on dies in shared memory.
 *
 * The lock is held until the crash cycle of the demotion, or until the seat is kept
 * after all.  An error in between ends this process, which releases it.
 *
 * Process: coordinator.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/transam.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"

#include "cluster/internal.h"

static bool frozen = false;

/*
 * The end of what was inserted.  At a page boundary PostgreSQL names the first byte that
 * the next record will have, behind a page header that does not exist yet.
 */
static XLogRecPtr
insert_end(void)
{
	XLogRecPtr	end = GetXLogInsertRecPtr();

	if (XLogSegmentOffset(end, wal_segment_size) == SizeOfXLogLongPHD)
		return end - SizeOfXLogLongPHD;
	if (end % XLOG_BLCKSZ == SizeOfXLogShortPHD)
		return end - SizeOfXLogShortPHD;
	return end;
}

bool
qdb_freeze_wal(XLogRecPtr *end)
{
	XLogRecPtr	inserted = insert_end();

	if (frozen)
	{
		*end = GetFlushRecPtr(NULL);
		return true;
	}
	if (GetFlushRecPtr(NULL) < inserted)
		XLogFlush(inserted);
	if (!LWLockConditionalAcquire(WALWriteLock, LW_EXCLUSIVE))
		return false;
	*end = GetFlushRecPtr(NULL);
	frozen = insert_end() == *end && GetXLogWriteRecPtr() == *end;
	if (!frozen)
		LWLockRelease(WALWriteLock);
	return frozen;
}

void
qdb_thaw_wal(void)
{
	if (frozen)
		LWLockRelease(WALWriteLock);
	frozen = false;
}

/*
 * Ends who may insert WAL at length: transactions with an xid, and VACUUM.  One that
 * commits now holds the signal back until its commit has been answered.
 */
void
qdb_end_writers(void)
{
	const uint8 vacuums = PROC_IS_AUTOVACUUM | PROC_IN_VACUUM | PROC_IN_SAFE_IC;

	LWLockAcquire(ProcArrayLock, LW_SHARED);
	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++)
	{
		const PGPROC *proc = &ProcGlobal->allProcs[i];

		/* Prepared transactions have no process. */
		if (proc->pid == 0 || proc->pid == MyProcPid || proc->databaseId == InvalidOid)
			continue;
		if (TransactionIdIsValid(proc->xid) || (proc->statusFlags & vacuums) != 0)
			(void) kill(proc->pid, SIGTERM);
	}
	LWLockRelease(ProcArrayLock);
}
