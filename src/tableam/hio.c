/*-------------------------------------------------------------------------
 *
 * hio.c
 *		Which page takes a row.
 *
 * As heap does it: the page of the last insertion, the free space map, the last
 * page, a new one.  An insertion may go elsewhere when the transaction table of
 * a page has no room; only what changes a row must stay with it.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/internal.h"

#include "access/visibilitymap.h"
#include "storage/freespace.h"
#include "storage/lmgr.h"
#include "storage/smgr.h"

static Buffer
read_buffer(Relation rel, BlockNumber blk, ReadBufferMode mode, BulkInsertState bistate)
{
	Buffer		buf;

	if (bistate == NULL)
		buf = ReadBufferExtended(rel, MAIN_FORKNUM, blk, mode, NULL);
	else
	{
		if (bistate->current_buf != InvalidBuffer)
		{
			if (BufferGetBlockNumber(bistate->current_buf) == blk)
			{
				IncrBufferRefCount(bistate->current_buf);
				return bistate->current_buf;
			}
			ReleaseBuffer(bistate->current_buf);
			bistate->current_buf = InvalidBuffer;
		}
		buf = ReadBufferExtended(rel, MAIN_FORKNUM, blk, mode, bistate->strategy);
		IncrBufferRefCount(buf);
		bistate->current_buf = buf;
	}
	if (mode == RBM_NORMAL)
		qdb_page_check(rel, buf);
	return buf;
}

/*
 * Pins the visibility map pages of one or two locked pages that turned out to
 * be all-visible.  That may need I/O, so the locks are dropped for it.
 */
static void
get_vm_pins(Relation rel, Buffer buf1, Buffer buf2, Buffer *vm1, Buffer *vm2)
{
	BlockNumber blk1 = BufferGetBlockNumber(buf1);
	BlockNumber blk2 = BufferIsValid(buf2) ? BufferGetBlockNumber(buf2) : InvalidBlockNumber;

	for (;;)
	{
		bool		need1 = PageIsAllVisible(BufferGetPage(buf1)) && !visibilitymap_pin_ok(blk1, *vm1);
		bool		need2 = buf2 != InvalidBuffer && buf2 != buf1 &&
		PageIsAllVisible(BufferGetPage(buf2)) && !visibilitymap_pin_ok(blk2, *vm2);

		if (!need1 && !need2)
			return;
		LockBuffer(buf1, BUFFER_LOCK_UNLOCK);
		if (buf2 != InvalidBuffer && buf2 != buf1)
			LockBuffer(buf2, BUFFER_LOCK_UNLOCK);
		if (need1)
			visibilitymap_pin(rel, blk1, vm1);
		if (need2)
			visibilitymap_pin(rel, blk2, vm2);
		LockBuffer(buf1, BUFFER_LOCK_EXCLUSIVE);
		if (buf2 != InvalidBuffer && buf2 != buf1)
			LockBuffer(buf2, BUFFER_LOCK_EXCLUSIVE);
	}
}

static void
pin_vms_ordered(Relation rel, Buffer buf, Buffer other, Buffer *vm, Buffer *vm_other)
{
	if (other == InvalidBuffer || BufferGetBlockNumber(buf) <= BufferGetBlockNumber(other))
		get_vm_pins(rel, buf, other, vm, vm_other);
	else
		get_vm_pins(rel, other, buf, vm_other, vm);
}

/* Several wait for the extension lock: extend for them, too. */
static void
add_extra_blocks(Relation rel, BulkInsertState bistate)
{
	BlockNumber first = InvalidBlockNumber;
	BlockNumber blk = InvalidBlockNumber;
	int			extra = Min(512, RelationExtensionLockWaiterCount(rel) * 20);

	while (extra-- > 0)
	{
		Buffer		buf = read_buffer(rel, P_NEW, RBM_ZERO_AND_LOCK, bistate);

		if (!PageIsNew(BufferGetPage(buf)))
			elog(ERROR, "page %u of relation \"%s\" should be empty but is not",
				 BufferGetBlockNumber(buf), RelationGetRelationName(rel));
		blk = BufferGetBlockNumber(buf);
		UnlockReleaseBuffer(buf);
		if (first == InvalidBlockNumber)
			first = blk;
		RecordPageWithFreeSpace(rel, blk, QDB_MAX_ROW);
	}
	if (first != InvalidBlockNumber)
		FreeSpaceMapVacuumRange(rel, first, blk + 1);
}

static void
lock_pair(Buffer buf, Buffer other)
{
	if (other == InvalidBuffer || other == buf)
		LockBuffer(buf, BUFFER_LOCK_EXCLUSIVE);
	else if (BufferGetBlockNumber(other) < BufferGetBlockNumber(buf))
	{
		LockBuffer(other, BUFFER_LOCK_EXCLUSIVE);
		LockBuffer(buf, BUFFER_LOCK_EXCLUSIVE);
	}
	else
	{
		LockBuffer(buf, BUFFER_LOCK_EXCLUSIVE);
		LockBuffer(other, BUFFER_LOCK_EXCLUSIVE);
	}
}

/*
 * Tries one page; true if the row fits, then it is locked, and the other one
 * with it.  *room: what the page has.
 */
static bool
try_page(Relation rel, BlockNumber blk, Size want, Buffer other, int options,
		 BulkInsertState bistate, Buffer *vm, Buffer *vm_other, Buffer *result, Size *room)
{
	Buffer		buf;
	Page		page;
	bool		same = other != InvalidBuffer && BufferGetBlockNumber(other) == blk;

	buf = same ? other : read_buffer(rel, blk, RBM_NORMAL, bistate);
	page = BufferGetPage(buf);
	if (PageIsAllVisible(page) ||
		((options & HEAP_INSERT_FROZEN) && PageGetMaxOffsetNumber(page) == 0))
		visibilitymap_pin(rel, blk, vm);
	lock_pair(buf, other);
	pin_vms_ordered(rel, buf, other, vm, vm_other);

	if (PageIsNew(page))
	{
		qdb_page_init(page, QDB_FIRST_CAP);
		MarkBufferDirty(buf);
	}
	if (qdb_page_has_room(page, want, room) ||
		(other == InvalidBuffer && !(options & HEAP_INSERT_SKIP_FSM) &&
		 qdb_prune_for_insert(rel, buf) && qdb_page_has_room(page, want, room)))
	{
		*result = buf;
		return true;
	}
	LockBuffer(buf, BUFFER_LOCK_UNLOCK);
	if (same)
		return false;
	if (other != InvalidBuffer)
		LockBuffer(other, BUFFER_LOCK_UNLOCK);
	ReleaseBuffer(buf);
	return false;
}

/* A new page at the end, locked. */
static Buffer
extend(Relation rel, Size want, bool use_fsm, BulkInsertState bistate, BlockNumber *instead)
{
	bool		lock = !RELATION_IS_LOCAL(rel);
	Buffer		buf;

	*instead = InvalidBlockNumber;
	if (lock && !use_fsm)
		LockRelationForExtension(rel, ExclusiveLock);
	else if (lock && !ConditionalLockRelationForExtension(rel, ExclusiveLock))
	{
		LockRelationForExtension(rel, ExclusiveLock);
		*instead = GetPageWithFreeSpace(rel, want);
		if (*instead != InvalidBlockNumber)
		{
			UnlockRelationForExtension(rel, ExclusiveLock);
			return InvalidBuffer;
		}
		add_extra_blocks(rel, bistate);
	}
	buf = read_buffer(rel, P_NEW, RBM_ZERO_AND_LOCK, bistate);
	if (!PageIsNew(BufferGetPage(buf)))
		elog(ERROR, "page %u of relation \"%s\" should be empty but is not",
			 BufferGetBlockNumber(buf), RelationGetRelationName(rel));
	if (lock)
		UnlockRelationForExtension(rel, ExclusiveLock);
	return buf;
}

/* A new page for entries that do not fit elsewhere: locked, not initialized. */
Buffer
qdb_extend(Relation rel, BufferAccessStrategy strategy)
{
	BlockNumber instead;

	return extend(rel, QDB_MAX_ROW, false, NULL, &instead);
}

/* Locks a page that comes before ours in the order of locks. */
static void
lock_other(Buffer buf, Buffer other)
{
	if (likely(ConditionalLockBuffer(other)))
		return;
	LockBuffer(buf, BUFFER_LOCK_UNLOCK);
	LockBuffer(other, BUFFER_LOCK_EXCLUSIVE);
	LockBuffer(buf, BUFFER_LOCK_EXCLUSIVE);
}

static BlockNumber
first_target(Relation rel, Size want, bool use_fsm, BulkInsertState bistate)
{
	BlockNumber blk;
	BlockNumber n;

	if (bistate != NULL && bistate->current_buf != InvalidBuffer)
		blk = BufferGetBlockNumber(bistate->current_buf);
	else
		blk = RelationGetTargetBlock(rel);
	if (blk == InvalidBlockNumber && use_fsm)
		blk = GetPageWithFreeSpace(rel, want);
	if (blk == InvalidBlockNumber)
	{
		/* The map knows nothing yet: not every session starts a page. */
		n = RelationGetNumberOfBlocks(rel);
		if (n > 0)
			blk = n - 1;
	}
	return blk;
}

/*
 * Returns a locked page with room for the row and one new entry.  With another
 * buffer (pinned, not locked) that is locked, too, in the order of block
 * numbers.  Pages of the visibility map that may have to be changed are pinned.
 */
Buffer
qdb_get_buffer(Relation rel, Size row_len, Buffer other, int options,
			   BulkInsertState bistate, Buffer *vmbuffer, Buffer *vmbuffer_other)
{
	bool		use_fsm = !(options & HEAP_INSERT_SKIP_FSM);
	Size		nearly_empty = QDB_MAX_ROW - QDB_MAX_OFFSETS / 8 * sizeof(ItemIdData);
	Size		save = RelationGetTargetPageFreeSpace(rel, HEAP_DEFAULT_FILLFACTOR);
	Size		want = row_len + save;
	Size		room;
	Buffer		buf;
	BlockNumber blk;

	if (row_len > QDB_MAX_ROW)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("row is too big: size %zu, maximum size %zu", row_len, QDB_MAX_ROW)));

	/* Large rows may go to pages that are as good as empty. */
	if (want > nearly_empty)
		want = Max(row_len, nearly_empty);

	blk = first_target(rel, want, use_fsm, bistate);
	for (;;)
	{
		while (blk != InvalidBlockNumber)
		{
			if (try_page(rel, blk, want, other, options, bistate, vmbuffer, vmbuffer_other,
						 &buf, &room))
			{
				RelationSetTargetBlock(rel, blk);
				return buf;
			}
			if (!use_fsm)
				break;
			blk = RecordAndGetPageWithFreeSpace(rel, blk, room, want);
		}

		buf = extend(rel, want, use_fsm, bistate, &blk);
		if (buf == InvalidBuffer)
			continue;
		qdb_page_init(BufferGetPage(buf), QDB_FIRST_CAP);
		MarkBufferDirty(buf);
		blk = BufferGetBlockNumber(buf);
		if (options & HEAP_INSERT_FROZEN)
			visibilitymap_pin(rel, blk, vmbuffer);
		if (other == InvalidBuffer)
			break;

		/*
		 * The other page comes first in the order of locks.  While ours is
		 * unlocked someone else may fill it.
		 */
		lock_other(buf, other);
		get_vm_pins(rel, other, buf, vmbuffer_other, vmbuffer);
		if (qdb_page_room(BufferGetPage(buf)) >= row_len)
			break;
		LockBuffer(other, BUFFER_LOCK_UNLOCK);
		UnlockReleaseBuffer(buf);
	}
	RelationSetTargetBlock(rel, BufferGetBlockNumber(buf));
	return buf;
}
