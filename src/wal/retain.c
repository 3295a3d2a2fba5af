/*-------------------------------------------------------------------------
 *
 * retain.c
 *		The slot that keeps WAL for the other members.
 *
 * One slot for all of them, so that none is left behind when a member goes: it moves to
 * the position that the coordinator names (cluster/retention.c).  It is held for the
 * moment of a move only: PostgreSQL terminates the holder of a slot that it invalidates, and
 * the bound is ours, not max_slot_wal_keep_size's.
 *
 * A rewind or a clone empties pg_replslot; the slot is made anew at the redo point.
 *
 * Process: streamer, which is in the process array, as the functions of slots ask for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/base.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"
#include "wal/streamer.h"

#define SLOT_NAME		"quantadb_members"
#define TURN_US			(1000 * 1000)
#define RETRY_US		(60 * 1000 * 1000)

static void
make_slot(void)
{
	ReplicationSlotCreate(SLOT_NAME, false, RS_PERSISTENT, false);
	ReplicationSlotReserveWal();
	ReplicationSlotMarkDirty();
	ReplicationSlotSave();
	ReplicationSlotRelease();
}

/* Not saved at once: after a crash an older position keeps more. */
static void
move_slot(XLogRecPtr from)
{
	ReplicationSlotAcquire(SLOT_NAME, true);
	SpinLockAcquire(&MyReplicationSlot->mutex);
	MyReplicationSlot->data.restart_lsn = from;
	SpinLockRelease(&MyReplicationSlot->mutex);
	ReplicationSlotMarkDirty();
	ReplicationSlotsComputeRequiredLSN();
	ReplicationSlotRelease();
}

static void
publish(XLogRecPtr from)
{
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->kept_from = from;
	SpinLockRelease(&qdb_shared->mutex);
}

/* Raises errors. */
static void
keep_slot(QdbKeepMode mode, XLogRecPtr from)
{
	ReplicationSlot *slot = SearchNamedReplicationSlot(SLOT_NAME, true);
	XLogRecPtr	kept;
	bool		lost;

	if (slot != NULL)
	{
		SpinLockAcquire(&slot->mutex);
		kept = slot->data.restart_lsn;
		lost = slot->data.invalidated_at != InvalidXLogRecPtr || kept == InvalidXLogRecPtr;
		SpinLockRelease(&slot->mutex);
		if (lost || mode == QDB_KEEP_NOTHING)
		{
			ReplicationSlotDrop(SLOT_NAME, true);
			slot = NULL;
		}
	}
	if (mode == QDB_KEEP_NOTHING)
	{
		publish(InvalidXLogRecPtr);
		return;
	}
	if (slot == NULL)
	{
		make_slot();
		kept = GetRedoRecPtr();
	}
	else if (mode == QDB_KEEP_MEMBERS && from > kept)
	{
		move_slot(from);
		kept = from;
	}
	publish(kept);
}

void
qdb_retain_turn(int64 now)
{
	static int64 next_us = 0;
	MemoryContext old = CurrentMemoryContext;
	QdbKeepMode mode;
	XLogRecPtr	from;

	if (now < next_us)
		return;
	next_us = now + TURN_US;
	SpinLockAcquire(&qdb_shared->mutex);
	mode = qdb_shared->member && !qdb_shared->removed ? qdb_shared->keep_mode : QDB_KEEP_NOTHING;
	from = qdb_shared->keep_from;
	SpinLockRelease(&qdb_shared->mutex);
	PG_TRY();
	{
		keep_slot(mode, from);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		FlushErrorState();
		LWLockReleaseAll();
		if (MyReplicationSlot != NULL)
			ReplicationSlotRelease();
		ereport(LOG, (errmsg("[replication] The slot \"%s\" that keeps WAL for the other members could not be moved: %s",
							 SLOT_NAME, error->message != NULL ? error->message : "unknown error"),
					  errhint("Slots are limited by max_replication_slots.")));
		FreeErrorData(error);
		next_us = now + RETRY_US;
	}
	PG_END_TRY();
}
