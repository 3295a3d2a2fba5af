/*-------------------------------------------------------------------------
 *
 * fetch.c
 *		Rows by TID: index scans, bitmap scans, single versions.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/change.h"

#include "miscadmin.h"
#include "nodes/tidbitmap.h"
#include "pgstat.h"
#include "storage/predicate.h"
#include "storage/procarray.h"

/*
 * Walks the HOT chain that begins at an offset and stops at the first version
 * that the snapshot sees; *off is its offset then.  With first false it goes on
 * after *off, which the call before returned.  *all_dead: no one needs any
 * version of the chain any more.
 */
bool
qdb_search_chain(QdbView *view, OffsetNumber *off, Snapshot snapshot, QdbRow *row, bool *all_dead,
				 bool first)
{
	OffsetNumber at = *off;
	TransactionId prior_xmax = InvalidTransactionId;
	bool		at_start = first;
	bool		skip = !first;
	GlobalVisState *vistest = NULL;
	ItemPointerData next;

	if (all_dead != NULL)
		*all_dead = first;
	/* A damaged chain may be a ring, and the lock lets no one interrupt us. */
	for (int steps = 0; steps <= QDB_MAX_OFFSETS; steps++)
	{
		ItemId		lp;

		if (at < FirstOffsetNumber || at > PageGetMaxOffsetNumber(view->page))
			return false;
		lp = PageGetItemId(view->page, at);
		if (ItemIdIsRedirected(lp) && at_start)
		{
			at = ItemIdGetRedirect(lp);
			at_start = false;
			continue;
		}
		if (!qdb_view_row(view, at, row))
			return false;
		if ((at_start && QdbRowHeapOnly(row)) ||
			(TransactionIdIsValid(prior_xmax) && QdbRowXmin(row) != prior_xmax))
			return false;
		if (!skip)
		{
			bool		visible = qdb_row_visible(row, snapshot);

			qdb_check_conflict_out(visible, row, snapshot);
			if (visible)
			{
				*off = at;
				qdb_predicate_lock(row, snapshot);
				if (all_dead != NULL)
					*all_dead = false;
				return true;
			}
		}
		skip = false;
		if (all_dead != NULL && *all_dead)
		{
			if (vistest == NULL)
				vistest = GlobalVisTestFor(view->rel);
			*all_dead = qdb_row_surely_dead(row, vistest);
		}
		if (!QdbRowHotUpdated(row) || !QdbRowNext(row, &next))
			return false;
		prior_xmax = qdb_row_update_xid(row);
		at = ItemPointerGetOffsetNumber(&next);
		at_start = false;
	}
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("versions of row (%u,%u) of table \"%s\" form a ring", view->blk, *off,
					RelationGetRelationName(view->rel))));
	return false;
}

/* ---- index scans ---- */

/*
 * The pin saves looking the page up again for the next entry of the same page.
 * Nothing waits for it.
 */
typedef struct IndexFetch
{
	IndexFetchTableData base;
	Buffer		buf;
} IndexFetch;

IndexFetchTableData *
qdb_index_fetch_begin(Relation rel)
{
	IndexFetch *fetch = palloc0(sizeof(IndexFetch));

	fetch->base.rel = rel;
	fetch->buf = InvalidBuffer;
	return &fetch->base;
}

void
qdb_index_fetch_reset(IndexFetchTableData *data)
{
	IndexFetch *fetch = (IndexFetch *) data;

	if (fetch->buf != InvalidBuffer)
		ReleaseBuffer(fetch->buf);
	fetch->buf = InvalidBuffer;
}

void
qdb_index_fetch_end(IndexFetchTableData *data)
{
	qdb_index_fetch_reset(data);
	pfree(data);
}

bool
qdb_index_fetch_tuple(IndexFetchTableData *data, ItemPointer tid, Snapshot snapshot,
					  TupleTableSlot *slot, bool *call_again, bool *all_dead)
{
	IndexFetch *fetch = (IndexFetch *) data;
	OffsetNumber off = ItemPointerGetOffsetNumber(tid);
	QdbView		view;
	QdbRow		row;
	bool		found;

	if (!*call_again)
	{
		Buffer		before = fetch->buf;

		fetch->buf = ReleaseAndReadBuffer(fetch->buf, data->rel, ItemPointerGetBlockNumber(tid));
		if (fetch->buf != before)
			qdb_page_check(data->rel, fetch->buf);
	}
	LockBuffer(fetch->buf, BUFFER_LOCK_SHARE);
	qdb_view_init(&view, data->rel, fetch->buf);
	TestForOldSnapshot(snapshot, data->rel, view.page);
	found = qdb_search_chain(&view, &off, snapshot, &row, all_dead, !*call_again);
	if (found)
	{
		/* Unique checks want the version's own place. */
		ItemPointerSetOffsetNumber(tid, off);
		qdb_slot_store(slot, &row);
	}
	LockBuffer(fetch->buf, BUFFER_LOCK_UNLOCK);
	qdb_view_done(&view);

	/* An MVCC snapshot sees one version at most. */
	*call_again = found && !IsMVCCSnapshot(snapshot);
	return found;
}

/* ---- single versions ---- */

bool
qdb_tuple_fetch_row_version(Relation rel, ItemPointer tid, Snapshot snapshot, TupleTableSlot *slot)
{
	Buffer		buf = qdb_read_buffer(rel, ItemPointerGetBlockNumber(tid), NULL);
	QdbView		view;
	QdbRow		row;
	bool		visible = false;

	LockBuffer(buf, BUFFER_LOCK_SHARE);
	qdb_view_init(&view, rel, buf);
	TestForOldSnapshot(snapshot, rel, view.page);
	if (qdb_view_row(&view, ItemPointerGetOffsetNumber(tid), &row))
	{
		visible = qdb_row_visible(&row, snapshot);
		if (visible)
			qdb_predicate_lock(&row, snapshot);
		qdb_check_conflict_out(visible, &row, snapshot);
		if (visible)
			qdb_slot_store(slot, &row);
	}
	qdb_view_done(&view);
	UnlockReleaseBuffer(buf);
	return visible;
}

/* The slot has a copy; what its row is now stands on the page. */
bool
qdb_tuple_satisfies_snapshot(Relation rel, TupleTableSlot *slot, Snapshot snapshot)
{
	Buffer		buf;
	QdbView		view;
	QdbRow		row;
	bool		visible;

	buf = qdb_read_buffer(rel, ItemPointerGetBlockNumber(&slot->tts_tid), NULL);
	LockBuffer(buf, BUFFER_LOCK_SHARE);
	qdb_view_init(&view, rel, buf);
	visible = qdb_view_row(&view, ItemPointerGetOffsetNumber(&slot->tts_tid), &row) &&
		qdb_row_visible(&row, snapshot);
	qdb_view_done(&view);
	UnlockReleaseBuffer(buf);
	return visible;
}

/* ---- bitmap scans ---- */

/* The rows of a bitmap's page: those it names, or if it is lossy, all. */
static void
list_bitmap_rows(QdbScan *scan, QdbView *view, const TBMIterateResult *tbmres)
{
	Snapshot	snapshot = scan->base.rs_snapshot;
	QdbRow		row;

	if (tbmres->ntuples >= 0)
	{
		for (int i = 0; i < tbmres->ntuples; i++)
		{
			OffsetNumber off = tbmres->offsets[i];

			if (qdb_search_chain(view, &off, snapshot, &row, NULL, true))
				scan->rows[scan->nrows++] = off;
		}
		return;
	}
	for (OffsetNumber off = FirstOffsetNumber; off <= PageGetMaxOffsetNumber(view->page); off++)
	{
		bool		visible;

		if (!qdb_view_row(view, off, &row))
			continue;
		visible = qdb_row_visible(&row, snapshot);
		if (visible)
		{
			scan->rows[scan->nrows++] = off;
			qdb_predicate_lock(&row, snapshot);
		}
		qdb_check_conflict_out(visible, &row, snapshot);
	}
}

bool
qdb_scan_bitmap_next_block(TableScanDesc sscan, TBMIterateResult *tbmres)
{
	QdbScan    *scan = (QdbScan *) sscan;
	MemoryContext caller;
	QdbView		view;
	Buffer		buf;

	scan->cindex = 0;
	scan->nrows = 0;

	/* Serializable: invisible rows behind the end must be looked at, too. */
	if (!IsolationIsSerializable() && tbmres->blockno >= scan->nblocks)
		return false;
	caller = MemoryContextSwitchTo(scan->context);
	buf = qdb_read_buffer(sscan->rs_rd, tbmres->blockno, scan->strategy);
	qdb_prune_opt(sscan->rs_rd, buf);
	LockBuffer(buf, BUFFER_LOCK_SHARE);
	qdb_view_init(&view, sscan->rs_rd, buf);
	if (!PageIsNew(view.page))
		list_bitmap_rows(scan, &view, tbmres);
	qdb_scan_keep(scan, &view);
	UnlockReleaseBuffer(buf);
	MemoryContextSwitchTo(caller);
	return scan->nrows > 0;
}

bool
qdb_scan_bitmap_next_tuple(TableScanDesc sscan, TBMIterateResult *tbmres, TupleTableSlot *slot)
{
	QdbScan    *scan = (QdbScan *) sscan;
	QdbRow		row;

	if (scan->cindex < 0 || scan->cindex >= scan->nrows ||
		!qdb_view_row(&scan->view, scan->rows[scan->cindex], &row))
		return false;
	scan->cindex++;
	pgstat_count_heap_fetch(sscan->rs_rd);
	qdb_slot_store(slot, &row);
	return true;
}
