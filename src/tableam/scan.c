/*-------------------------------------------------------------------------
 *
 * scan.c
 *		Sequential scans, parallel and of a TID range.
 *
 * A scan takes a private copy of each page under its share lock, together with
 * the offsets of the rows its snapshot sees.  Then nothing is held: a page that
 * is being read can be pruned, here and in recovery.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/internal.h"

#include "access/skey.h"
#include "access/syncscan.h"
#include "access/valid.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/predicate.h"

static void
init_scan(QdbScan *scan, ScanKey key, bool keep_startblock)
{
	TableScanDesc base = &scan->base;
	ParallelBlockTableScanDesc pscan = (ParallelBlockTableScanDesc) base->rs_parallel;
	bool		allow_strat = false;
	bool		allow_sync = false;

	scan->nblocks = pscan != NULL ? pscan->phs_nblocks : RelationGetNumberOfBlocks(base->rs_rd);

	/* A large table must not sweep the buffer pool, and scans of it share. */
	if (!RelationUsesLocalBuffers(base->rs_rd) && scan->nblocks > NBuffers / 4)
	{
		allow_strat = (base->rs_flags & SO_ALLOW_STRAT) != 0;
		allow_sync = (base->rs_flags & SO_ALLOW_SYNC) != 0 && synchronize_seqscans;
	}
	if (allow_strat && scan->strategy == NULL)
		scan->strategy = GetAccessStrategy(BAS_BULKREAD);
	else if (!allow_strat && scan->strategy != NULL)
	{
		FreeAccessStrategy(scan->strategy);
		scan->strategy = NULL;
	}

	if (pscan != NULL)
		allow_sync = base->rs_parallel->phs_syncscan;
	else if (!keep_startblock)
		scan->startblock = allow_sync ? ss_get_location(base->rs_rd, scan->nblocks) : 0;
	if (allow_sync)
		base->rs_flags |= SO_ALLOW_SYNC;
	else
		base->rs_flags &= ~SO_ALLOW_SYNC;

	scan->numblocks = InvalidBlockNumber;
	scan->inited = false;
	scan->cblock = InvalidBlockNumber;
	scan->nrows = 0;
	if (key != NULL && base->rs_nkeys > 0)
		memcpy(base->rs_key, key, base->rs_nkeys * sizeof(ScanKeyData));
	if (base->rs_flags & SO_TYPE_SEQSCAN)
		pgstat_count_heap_scan(base->rs_rd);
}

TableScanDesc
qdb_scan_begin(Relation rel, Snapshot snapshot, int nkeys, ScanKey key,
			   ParallelTableScanDesc pscan, uint32 flags)
{
	QdbScan    *scan = palloc(sizeof(QdbScan));

	RelationIncrementReferenceCount(rel);
	memset(scan, 0, offsetof(QdbScan, copy));
	scan->base.rs_rd = rel;
	scan->base.rs_snapshot = snapshot;
	scan->base.rs_nkeys = nkeys;
	scan->base.rs_flags = flags;
	scan->base.rs_parallel = pscan;
	scan->context = CurrentMemoryContext;

	/* Serializable: there is nothing finer to lock for such a scan. */
	if (flags & (SO_TYPE_SEQSCAN | SO_TYPE_SAMPLESCAN))
		PredicateLockRelation(rel, snapshot);
	if (pscan != NULL)
		scan->worker = palloc(sizeof(ParallelBlockTableScanWorkerData));
	if (nkeys > 0)
		scan->base.rs_key = palloc(sizeof(ScanKeyData) * nkeys);
	init_scan(scan, key, false);
	return &scan->base;
}

static void
drop_view(QdbScan *scan)
{
	if (scan->have_view)
		qdb_view_done(&scan->view);
	scan->have_view = false;
}

void
qdb_scan_end(TableScanDesc sscan)
{
	QdbScan    *scan = (QdbScan *) sscan;

	drop_view(scan);
	RelationDecrementReferenceCount(sscan->rs_rd);
	if (sscan->rs_key)
		pfree(sscan->rs_key);
	if (scan->strategy != NULL)
		FreeAccessStrategy(scan->strategy);
	if (scan->worker != NULL)
		pfree(scan->worker);
	if (sscan->rs_flags & SO_TEMP_SNAPSHOT)
		UnregisterSnapshot(sscan->rs_snapshot);
	pfree(scan);
}

void
qdb_scan_rescan(TableScanDesc sscan, ScanKey key, bool set_params, bool allow_strat,
				bool allow_sync, bool allow_pagemode)
{
	QdbScan    *scan = (QdbScan *) sscan;

	if (set_params)
	{
		sscan->rs_flags &= ~(SO_ALLOW_STRAT | SO_ALLOW_SYNC | SO_ALLOW_PAGEMODE);
		sscan->rs_flags |= (allow_strat ? SO_ALLOW_STRAT : 0) | (allow_sync ? SO_ALLOW_SYNC : 0) |
			(allow_pagemode ? SO_ALLOW_PAGEMODE : 0);
	}
	drop_view(scan);
	init_scan(scan, key, true);
}

void
qdb_scan_set_limits(TableScanDesc sscan, BlockNumber start, BlockNumber num)
{
	QdbScan    *scan = (QdbScan *) sscan;

	scan->startblock = start;
	scan->numblocks = num;
}

/*
 * Takes a copy of the page, if there is a row to return, and the entries of the
 * overflow page that were read for it.  The page is locked, and the memory is
 * the scan's.
 */
void
qdb_scan_keep(QdbScan *scan, QdbView *view)
{
	drop_view(scan);
	if (scan->nrows > 0)
		memcpy(scan->copy.data, view->page, BLCKSZ);
	qdb_view_init_copy(&scan->view, view->rel, (Page) scan->copy.data, view->blk);
	scan->view.overflow = view->overflow;
	scan->have_view = true;
}

/*
 * Copies a page and lists what the snapshot sees of it.  With the copy are the
 * overflow entries that its rows name, so that each row can be taken as it was
 * at this moment.
 */
void
qdb_scan_load(QdbScan *scan, BlockNumber blk)
{
	Relation	rel = scan->base.rs_rd;
	Snapshot	snapshot = scan->base.rs_snapshot;
	bool		all_visible;
	MemoryContext caller;
	Buffer		buf;
	QdbView		view;
	Page		page;

	CHECK_FOR_INTERRUPTS();
	caller = MemoryContextSwitchTo(scan->context);
	buf = qdb_read_buffer(rel, blk, scan->strategy);
	qdb_prune_opt(rel, buf);
	LockBuffer(buf, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buf);
	TestForOldSnapshot(snapshot, rel, page);
	qdb_view_init(&view, rel, buf);

	/* In recovery PD_ALL_VISIBLE may have come with a page image too early. */
	all_visible = PageIsAllVisible(page) && !snapshot->takenDuringRecovery;
	scan->cblock = blk;
	scan->nrows = 0;
	scan->max = PageIsNew(page) ? 0 : PageGetMaxOffsetNumber(page);
	for (OffsetNumber off = FirstOffsetNumber; off <= scan->max; off++)
	{
		QdbRow		row;
		bool		visible;

		if (QdbPageRowIsCold(page, off))
		{
			scan->rows[scan->nrows++] = off;
			continue;
		}
		if (!qdb_view_row(&view, off, &row))
			continue;
		visible = all_visible || qdb_row_visible(&row, snapshot);
		qdb_check_conflict_out(visible, &row, snapshot);
		if (visible)
			scan->rows[scan->nrows++] = off;
	}
	qdb_scan_keep(scan, &view);
	UnlockReleaseBuffer(buf);
	MemoryContextSwitchTo(caller);
}

static BlockNumber
first_block(QdbScan *scan, ScanDirection direction)
{
	ParallelBlockTableScanDesc pscan = (ParallelBlockTableScanDesc) scan->base.rs_parallel;

	if (scan->nblocks == 0 || scan->numblocks == 0)
		return InvalidBlockNumber;
	if (ScanDirectionIsForward(direction))
	{
		if (pscan == NULL)
			return scan->startblock;
		table_block_parallelscan_startblock_init(scan->base.rs_rd, scan->worker, pscan);
		return table_block_parallelscan_nextpage(scan->base.rs_rd, scan->worker, pscan);
	}
	/* Others do not follow a scan that goes backwards. */
	scan->base.rs_flags &= ~SO_ALLOW_SYNC;
	if (scan->numblocks != InvalidBlockNumber)
		return (scan->startblock + scan->numblocks - 1) % scan->nblocks;
	return scan->startblock > 0 ? scan->startblock - 1 : scan->nblocks - 1;
}

static BlockNumber
next_block(QdbScan *scan, ScanDirection direction)
{
	BlockNumber blk = scan->cblock;

	if (ScanDirectionIsBackward(direction))
	{
		if (blk == scan->startblock ||
			(scan->numblocks != InvalidBlockNumber && --scan->numblocks == 0))
			return InvalidBlockNumber;
		return blk == 0 ? scan->nblocks - 1 : blk - 1;
	}
	if (scan->base.rs_parallel != NULL)
		return table_block_parallelscan_nextpage(scan->base.rs_rd, scan->worker,
												 (ParallelBlockTableScanDesc) scan->base.rs_parallel);
	if (++blk >= scan->nblocks)
		blk = 0;
	if (scan->base.rs_flags & SO_ALLOW_SYNC)
		ss_report_location(scan->base.rs_rd, blk);
	if (blk == scan->startblock ||
		(scan->numblocks != InvalidBlockNumber && --scan->numblocks == 0))
		return InvalidBlockNumber;
	return blk;
}

/* Moves to the next row that the snapshot sees; false at the end. */
bool
qdb_scan_next_row(QdbScan *scan, ScanDirection direction, QdbRow *row)
{
	bool		forward = !ScanDirectionIsBackward(direction);
	BlockNumber blk;
	OffsetNumber off;

	if (!scan->inited)
	{
		if (ScanDirectionIsNoMovement(direction))
			return false;
		blk = first_block(scan, direction);
		if (blk == InvalidBlockNumber)
			return false;
		qdb_scan_load(scan, blk);
		scan->inited = true;
		scan->cindex = forward ? 0 : scan->nrows - 1;
	}
	else if (!ScanDirectionIsNoMovement(direction))
		scan->cindex += forward ? 1 : -1;

	while (scan->cindex < 0 || scan->cindex >= scan->nrows)
	{
		blk = next_block(scan, direction);
		if (blk == InvalidBlockNumber)
		{
			drop_view(scan);
			scan->inited = false;
			scan->cblock = InvalidBlockNumber;
			scan->nrows = 0;
			return false;
		}
		qdb_scan_load(scan, blk);
		scan->cindex = forward ? 0 : scan->nrows - 1;
	}
	off = scan->rows[scan->cindex];
	if (!QdbPageRowIsCold(scan->view.page, off))
		return qdb_view_row(&scan->view, off, row);
	QdbViewColdRow(&scan->view, off, row);
	return true;
}

static bool
keys_match(TupleTableSlot *slot, int nkeys, ScanKey keys)
{
	for (int i = 0; i < nkeys; i++)
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, keys[i].sk_attno, &isnull);

		if (isnull || (keys[i].sk_flags & SK_ISNULL) ||
			!DatumGetBool(FunctionCall2Coll(&keys[i].sk_func, keys[i].sk_collation, value,
											keys[i].sk_argument)))
			return false;
	}
	return true;
}

bool
qdb_scan_getnextslot(TableScanDesc sscan, ScanDirection direction, TupleTableSlot *slot)
{
	QdbScan    *scan = (QdbScan *) sscan;
	QdbRow		row;

	while (qdb_scan_next_row(scan, direction, &row))
	{
		/*
		 * Such a snapshot says who is at work on this row, not on the last of
		 * the page.
		 */
		if (sscan->rs_snapshot->snapshot_type == SNAPSHOT_DIRTY &&
			!qdb_row_visible(&row, sscan->rs_snapshot))
			continue;
		qdb_slot_store(slot, &row);
		if (sscan->rs_nkeys > 0 && !keys_match(slot, sscan->rs_nkeys, sscan->rs_key))
			continue;
		pgstat_count_heap_getnext(sscan->rs_rd);
		return true;
	}
	ExecClearTuple(slot);
	return false;
}

/* ---- TID ranges ---- */

void
qdb_scan_set_tidrange(TableScanDesc sscan, ItemPointer mintid, ItemPointer maxtid)
{
	QdbScan    *scan = (QdbScan *) sscan;
	ItemPointerData highest;
	ItemPointerData lowest;
	BlockNumber start;

	if (scan->nblocks == 0)
		return;
	ItemPointerSet(&highest, scan->nblocks - 1, MaxOffsetNumber);
	ItemPointerSet(&lowest, 0, FirstOffsetNumber);
	if (ItemPointerCompare(maxtid, &highest) < 0)
		ItemPointerCopy(maxtid, &highest);
	if (ItemPointerCompare(mintid, &lowest) > 0)
		ItemPointerCopy(mintid, &lowest);
	if (ItemPointerCompare(&highest, &lowest) < 0)
	{
		qdb_scan_set_limits(sscan, 0, 0);
		return;
	}
	start = ItemPointerGetBlockNumberNoCheck(&lowest);
	qdb_scan_set_limits(sscan, start, ItemPointerGetBlockNumberNoCheck(&highest) - start + 1);
	ItemPointerCopy(&lowest, &sscan->rs_mintid);
	ItemPointerCopy(&highest, &sscan->rs_maxtid);
}

bool
qdb_scan_getnextslot_tidrange(TableScanDesc sscan, ScanDirection direction, TupleTableSlot *slot)
{
	QdbScan    *scan = (QdbScan *) sscan;
	ItemPointerData tid;
	QdbRow		row;

	while (qdb_scan_next_row(scan, direction, &row))
	{
		ItemPointerSet(&tid, row.view->blk, row.off);
		if (ItemPointerCompare(&tid, &sscan->rs_mintid) < 0)
		{
			if (ScanDirectionIsBackward(direction))
				break;
			continue;
		}
		if (ItemPointerCompare(&tid, &sscan->rs_maxtid) > 0)
		{
			if (ScanDirectionIsForward(direction))
				break;
			continue;
		}
		qdb_slot_store(slot, &row);
		pgstat_count_heap_getnext(sscan->rs_rd);
		return true;
	}
	ExecClearTuple(slot);
	return false;
}

bool
qdb_tuple_tid_valid(TableScanDesc sscan, ItemPointer tid)
{
	return ItemPointerIsValid(tid) &&
		ItemPointerGetBlockNumber(tid) < ((QdbScan *) sscan)->nblocks;
}
