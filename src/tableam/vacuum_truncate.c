/*-------------------------------------------------------------------------
 *
 * vacuum_truncate.c
 *		Gives empty pages at the end of a table back.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/vacuum.h"

#include "catalog/storage.h"
#include "commands/progress.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/wait_event.h"

#define TRUNCATE_MINIMUM		1000
#define TRUNCATE_FRACTION		16
#define LOCK_CHECK_MS			20
#define LOCK_WAIT_MS			50
#define LOCK_TIMEOUT_MS			5000

static bool
worth_it(QdbVacuum *v)
{
	BlockNumber free = v->pages - v->nonempty;

	return v->do_truncate && !v->failsafe && old_snapshot_threshold < 0 && free > 0 &&
		(free >= TRUNCATE_MINIMUM || free >= v->pages / TRUNCATE_FRACTION);
}

/* True if nothing on the page keeps it: a dead item does, too. */
static bool
page_can_go(QdbVacuum *v, BlockNumber blk)
{
	Buffer		buf = qdb_read_buffer(v->rel, blk, v->strategy);
	Page		page = BufferGetPage(buf);
	bool		can_go = true;

	LockBuffer(buf, BUFFER_LOCK_SHARE);
	if (QdbPageIsOverflow(page))
		can_go = false;
	else if (!PageIsNew(page))
		for (OffsetNumber off = FirstOffsetNumber; off <= PageGetMaxOffsetNumber(page); off++)
			if (ItemIdIsUsed(PageGetItemId(page, off)))
				can_go = false;
	UnlockReleaseBuffer(buf);
	return can_go;
}

/*
 * Number of pages that stay, found from the end backwards.  *waiter: someone
 * wants the table, so we stopped.
 */
static BlockNumber
count_remaining(QdbVacuum *v, bool *waiter)
{
	BlockNumber blk = v->pages;
	instr_time	start;

	INSTR_TIME_SET_CURRENT(start);
	while (blk > v->nonempty)
	{
		if (blk % 32 == 0)
		{
			instr_time	now;
			instr_time	elapsed;

			INSTR_TIME_SET_CURRENT(now);
			elapsed = now;
			INSTR_TIME_SUBTRACT(elapsed, start);
			if (INSTR_TIME_GET_MILLISEC(elapsed) >= LOCK_CHECK_MS)
			{
				if (LockHasWaitersRelation(v->rel, AccessExclusiveLock))
				{
					*waiter = true;
					return blk;
				}
				start = now;
			}
		}
		CHECK_FOR_INTERRUPTS();
		if (!page_can_go(v, blk - 1))
			return blk;
		blk--;
	}
	return v->nonempty;
}

static bool
lock_table(QdbVacuum *v)
{
	for (int tries = 0; !ConditionalLockRelation(v->rel, AccessExclusiveLock); tries++)
	{
		CHECK_FOR_INTERRUPTS();
		if (tries >= LOCK_TIMEOUT_MS / LOCK_WAIT_MS)
		{
			ereport(v->verbose ? INFO : DEBUG2,
					(errmsg("\"%s\": stopping truncate due to conflicting lock request",
							RelationGetRelationName(v->rel))));
			return false;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LOCK_WAIT_MS,
						 WAIT_EVENT_VACUUM_TRUNCATE);
		ResetLatch(MyLatch);
	}
	return true;
}

void
qdb_vacuum_truncate(QdbVacuum *v)
{
	bool		waiter = true;

	if (!worth_it(v))
		return;
	pgstat_progress_update_param(PROGRESS_VACUUM_PHASE, PROGRESS_VACUUM_PHASE_TRUNCATE);
	v->phase = QDB_VACUUM_TRUNCATE;
	v->blk = v->nonempty;
	while (waiter && v->pages > v->nonempty)
	{
		BlockNumber remaining;

		waiter = false;
		if (!lock_table(v))
			return;
		if (RelationGetNumberOfBlocks(v->rel) != v->pages)
		{
			/* It has grown, and the new pages hardly are empty. */
			UnlockRelation(v->rel, AccessExclusiveLock);
			return;
		}
		remaining = count_remaining(v, &waiter);
		if (remaining >= v->pages)
		{
			UnlockRelation(v->rel, AccessExclusiveLock);
			return;
		}
		RelationTruncate(v->rel, remaining);
		UnlockRelation(v->rel, AccessExclusiveLock);
		ereport(v->verbose ? INFO : DEBUG2,
				(errmsg("table \"%s\": truncated %u to %u pages",
						RelationGetRelationName(v->rel), v->pages, remaining)));
		v->removed += v->pages - remaining;
		v->pages = remaining;
	}
}
