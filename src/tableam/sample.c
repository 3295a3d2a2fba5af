/*-------------------------------------------------------------------------
 *
 * sample.c
 *		TABLESAMPLE and ANALYZE.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/internal.h"

#include "access/syncscan.h"
#include "access/tsmapi.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "pgstat.h"

/* ---- TABLESAMPLE ---- */

bool
qdb_scan_sample_next_block(TableScanDesc sscan, SampleScanState *state)
{
	QdbScan    *scan = (QdbScan *) sscan;
	TsmRoutine *tsm = state->tsmroutine;
	BlockNumber blk;

	if (scan->nblocks == 0)
		return false;
	if (tsm->NextSampleBlock)
		blk = tsm->NextSampleBlock(state, scan->nblocks);
	else if (!scan->inited)
		blk = scan->startblock;
	else
	{
		blk = scan->cblock + 1;
		if (blk >= scan->nblocks)
			blk = 0;
		if (sscan->rs_flags & SO_ALLOW_SYNC)
			ss_report_location(sscan->rs_rd, blk);
		if (blk == scan->startblock)
			blk = InvalidBlockNumber;
	}
	if (!BlockNumberIsValid(blk))
	{
		scan->cblock = InvalidBlockNumber;
		scan->nrows = 0;
		scan->inited = false;
		return false;
	}
	qdb_scan_load(scan, blk);
	scan->inited = true;
	return true;
}

static bool
is_listed(const QdbScan *scan, OffsetNumber off)
{
	int			low = 0;
	int			high = scan->nrows - 1;

	while (low <= high)
	{
		int			mid = (low + high) / 2;

		if (scan->rows[mid] == off)
			return true;
		if (scan->rows[mid] < off)
			low = mid + 1;
		else
			high = mid - 1;
	}
	return false;
}

bool
qdb_scan_sample_next_tuple(TableScanDesc sscan, SampleScanState *state, TupleTableSlot *slot)
{
	QdbScan    *scan = (QdbScan *) sscan;

	for (;;)
	{
		OffsetNumber off;
		QdbRow		row;

		CHECK_FOR_INTERRUPTS();
		off = state->tsmroutine->NextSampleTuple(state, scan->cblock, scan->max);
		if (!OffsetNumberIsValid(off))
		{
			ExecClearTuple(slot);
			return false;
		}
		if (!is_listed(scan, off) || !qdb_view_row(&scan->view, off, &row))
			continue;
		qdb_slot_store(slot, &row);
		pgstat_count_heap_getnext(sscan->rs_rd);
		return true;
	}
}

/* ---- ANALYZE ---- */

/* Copies the page; false for pages that never have rows. */
bool
qdb_scan_analyze_next_block(TableScanDesc sscan, BlockNumber blk, BufferAccessStrategy bstrategy)
{
	QdbScan    *scan = (QdbScan *) sscan;
	MemoryContext caller = MemoryContextSwitchTo(scan->context);
	Buffer		buf = qdb_read_buffer(sscan->rs_rd, blk, bstrategy);
	bool		is_data;
	QdbView		view;

	LockBuffer(buf, BUFFER_LOCK_SHARE);
	qdb_view_init(&view, sscan->rs_rd, buf);
	is_data = !QdbPageIsOverflow(view.page);
	scan->cblock = blk;
	scan->cindex = FirstOffsetNumber;
	scan->max = PageIsNew(view.page) ? 0 : PageGetMaxOffsetNumber(view.page);

	/* Entries of an overflow page belong to the copy: have them loaded. */
	for (OffsetNumber off = FirstOffsetNumber; off <= scan->max && view.overflow == NULL; off++)
	{
		QdbRow		row;

		qdb_view_row(&view, off, &row);
	}
	scan->nrows = scan->max;
	qdb_scan_keep(scan, &view);
	UnlockReleaseBuffer(buf);
	MemoryContextSwitchTo(caller);
	return is_data;
}

/* heap's counting: what VACUUM and CREATE INDEX count, too. */
static bool
count_row(QdbRow *row, TransactionId oldest_xmin, double *liverows, double *deadrows)
{
	bool		live = false;

	switch (qdb_row_satisfies_vacuum(row, oldest_xmin))
	{
		case HEAPTUPLE_LIVE:
			live = true;
			break;
		case HEAPTUPLE_DEAD:
		case HEAPTUPLE_RECENTLY_DEAD:
			*deadrows += 1;
			break;
		case HEAPTUPLE_INSERT_IN_PROGRESS:
			/* Others will count theirs when they commit. */
			live = TransactionIdIsCurrentTransactionId(QdbRowXmin(row));
			break;
		case HEAPTUPLE_DELETE_IN_PROGRESS:
			if (TransactionIdIsCurrentTransactionId(qdb_row_update_xid(row)))
				*deadrows += 1;
			else
				live = true;
			break;
	}
	if (live)
		*liverows += 1;
	return live;
}

bool
qdb_scan_analyze_next_tuple(TableScanDesc sscan, TransactionId oldest_xmin, double *liverows,
							double *deadrows, TupleTableSlot *slot)
{
	QdbScan    *scan = (QdbScan *) sscan;

	for (; scan->cindex <= scan->max; scan->cindex++)
	{
		QdbRow		row;

		if (!qdb_view_row(&scan->view, scan->cindex, &row))
		{
			if (ItemIdIsDead(PageGetItemId(scan->view.page, scan->cindex)))
				*deadrows += 1;
			continue;
		}
		if (count_row(&row, oldest_xmin, liverows, deadrows))
		{
			qdb_slot_store(slot, &row);
			scan->cindex++;
			return true;
		}
	}
	ExecClearTuple(slot);
	return false;
}
