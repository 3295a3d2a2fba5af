/*-------------------------------------------------------------------------
 *
 * source.c
 *		The helper that makes a source of this node: a checkpoint to start
 *		from, WAL kept from there on, and a manifest of all files (manifest.c).
 *
 * A clone needs no backup mode: full_page_writes is on for every member, so files
 * that are copied after a checkpoint, in any order and at any time, become
 * consistent by replay from its redo point up to the flush position after the
 * last of them.  What is needed is that the WAL from there on stays: a temporary
 * slot keeps it, and goes away with this process.
 *
 * On a replica the checkpoint is a restartpoint.  Its redo point is one of the primary's
 * checkpoints, and no page on this disk is older than it; each page that replay has changed
 * since, and that may be torn when it is read, has its image after it.
 *
 * Process: quantadb source, one for each connection that clones.  It may raise
 * errors: the streamer tells the other side.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/bgwriter.h"
#include "postmaster/interrupt.h"
#include "replication/slot.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#include "wal/serve.h"

#define LOOK_MS				500

static QdbSource *source;
static uint64 serial;

static QdbManifestInfo info;

static void
remove_parts(int slot)
{
	char		path[MAXPGPATH];

	snprintf(path, sizeof(path), QDB_SOURCE_MANIFEST, slot);
	(void) unlink(path);
	snprintf(path, sizeof(path), QDB_SOURCE_NAMES, slot);
	(void) unlink(path);
}

/* However this process ends: the slot is free, or says that it failed. */
static void
leave(int code, Datum slot)
{
	remove_parts(DatumGetInt32(slot));
	SpinLockAcquire(&qdb_shared->mutex);
	if (source->serial == serial)
	{
		source->pid = 0;
		if (source->stop || source->streamer != qdb_shared->streamer_pid)
			source->state = QDB_SOURCE_FREE;
		else
			source->state = QDB_SOURCE_FAILED;
	}
	SpinLockRelease(&qdb_shared->mutex);
	qdb_wake_streamer();
}

static TimeLineID
own_timeline(void)
{
	TimeLineID	timeline;

	if (!RecoveryInProgress())
		return GetWALInsertionTimeLine();
	(void) GetXLogReplayRecPtr(&timeline);
	return timeline;
}

/*
 * Is the WAL from the redo point of an interrupted clone on still here?  The segment in
 * which timelines change may be there under the name of the newer one only.
 */
static bool
has_wal(XLogRecPtr redo)
{
	List	   *history = readTimeLineHistory(own_timeline());
	ListCell   *cell;
	XLogSegNo	segno;

	SpinLockAcquire(&MyReplicationSlot->mutex);
	MyReplicationSlot->data.restart_lsn = redo;
	SpinLockRelease(&MyReplicationSlot->mutex);
	ReplicationSlotsComputeRequiredLSN();
	/* After the slot counts: what is there now stays. */
	XLByteToSeg(redo, segno, wal_segment_size);
	if (XLogGetLastRemovedSegno() >= segno)
		return false;
	foreach(cell, history)
	{
		TimeLineHistoryEntry *entry = (TimeLineHistoryEntry *) lfirst(cell);
		char		path[MAXPGPATH];
		struct stat st;

		XLogFilePath(path, entry->tli, segno, wal_segment_size);
		if (entry->begin / wal_segment_size <= segno && stat(path, &st) == 0)
			return true;
	}
	return false;
}

static void
read_checkpoint(QdbManifestInfo *found)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	if (!crc_ok)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("could not read the control file")));
	found->redo = control->checkPointCopy.redo;
	found->checkpoint = control->checkPoint;
	found->timeline = control->checkPointCopy.ThisTimeLineID;
	if (!control->checkPointCopy.fullPageWrites)
		ereport(ERROR, (errmsg("WAL of the last checkpoint has no images of pages")));
	pfree(control);
}

/*
 * A clone that another node has begun may go on here, but a page on this disk may be
 * as old as the last restartpoint: not before a checkpoint that began after its redo
 * point is complete.  A replica may have none to make a restartpoint of.
 */
static bool
can_resume(XLogRecPtr redo)
{
	QdbManifestInfo own;

	if (redo == InvalidXLogRecPtr ||
		redo > (RecoveryInProgress() ? GetXLogReplayRecPtr(NULL) : GetFlushRecPtr(NULL)) || !has_wal(redo))
		return false;
	read_checkpoint(&own);
	if (own.redo >= redo)
		return true;
	RequestCheckpoint(CHECKPOINT_FORCE | CHECKPOINT_WAIT | CHECKPOINT_IMMEDIATE);
	read_checkpoint(&own);
	return own.redo >= redo;
}

static void
find_start(int slot, XLogRecPtr resume, uint64 member)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), "quantadb_clone_%llu_%d", (unsigned long long) member, slot);
	ReplicationSlotCreate(name, false, RS_TEMPORARY, false);
	ReplicationSlotReserveWal();
	if (can_resume(resume))
	{
		info.redo = resume;
		info.timeline = own_timeline();
		info.resumed = true;
		return;
	}
	SpinLockAcquire(&MyReplicationSlot->mutex);
	MyReplicationSlot->data.restart_lsn = GetRedoRecPtr();
	SpinLockRelease(&MyReplicationSlot->mutex);
	ReplicationSlotsComputeRequiredLSN();
	RequestCheckpoint(CHECKPOINT_FORCE | CHECKPOINT_WAIT | CHECKPOINT_IMMEDIATE);
	read_checkpoint(&info);
	if (info.timeline != own_timeline())
		ereport(ERROR, (errmsg("the last checkpoint is of another timeline")));
}

/* What the other side shall read instead of "the helper has ended". */
static void
note_failure(void)
{
	ErrorData  *edata;
	char		copy[QDB_REASON_SIZE];

	MemoryContextSwitchTo(TopMemoryContext);
	edata = CopyErrorData();
	EmitErrorReport();
	FlushErrorState();
	strlcpy(copy, edata->message != NULL ? edata->message : "", sizeof(copy));
	SpinLockAcquire(&qdb_shared->mutex);
	if (source->serial == serial)
		memcpy(source->reason, copy, sizeof(copy));
	SpinLockRelease(&qdb_shared->mutex);
}

static bool
still_wanted(void)
{
	bool		wanted;

	SpinLockAcquire(&qdb_shared->mutex);
	wanted = source->serial == serial && !source->stop && source->streamer == qdb_shared->streamer_pid;
	SpinLockRelease(&qdb_shared->mutex);
	return wanted;
}

static void
prepare(int slot)
{
	QdbSource	copy;

	SpinLockAcquire(&qdb_shared->mutex);
	copy = *source;
	SpinLockRelease(&qdb_shared->mutex);
	if (copy.checkpoint)
		find_start(slot, copy.resume, copy.member);
	qdb_make_manifest(slot, &info);
	SpinLockAcquire(&qdb_shared->mutex);
	if (source->serial == serial)
	{
		source->info = info;
		source->state = QDB_SOURCE_READY;
	}
	SpinLockRelease(&qdb_shared->mutex);
	qdb_wake_streamer();
}

void
qdb_source_main(Datum arg)
{
	int			slot = DatumGetInt32(arg);

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	source = &qdb_shared->sources[slot];
	SpinLockAcquire(&qdb_shared->mutex);
	serial = source->serial;
	source->pid = MyProcPid;
	SpinLockRelease(&qdb_shared->mutex);
	before_shmem_exit(leave, Int32GetDatum(slot));
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	PG_TRY();
	{
		prepare(slot);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		note_failure();
		proc_exit(1);
	}
	PG_END_TRY();
	while (still_wanted())
	{
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOOK_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	proc_exit(0);
}
