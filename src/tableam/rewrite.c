/*-------------------------------------------------------------------------
 *
 * rewrite.c
 *		CLUSTER and VACUUM FULL: copies a table into new files.
 *
 * Pages are filled in memory and written past the buffer pool.  Rows that old
 * snapshots may need are copied with their transactions.  Links to newer
 * versions are not: only a snapshot from before the rewrite could follow one,
 * and it takes the row for deleted, so that it fails like for any concurrent
 * change.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/change.h"

#include "access/genam.h"
#include "access/heaptoast.h"
#include "access/xloginsert.h"
#include "catalog/catalog.h"
#include "commands/progress.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/smgr.h"
#include "utils/memutils.h"
#include "utils/tuplesort.h"

/* What of a row's transactions goes to the new table. */
typedef struct Fate
{
	bool		dead;
	TransactionId xmin;			/* invalid: all see it */
	TransactionId xmax;			/* invalid: none */
	CommandId	cmin;
	CommandId	cmax;
} Fate;

typedef struct Rewrite
{
	Relation	old;
	Relation	new;
	TransactionId oldest_xmin;
	Size		save;
	BlockNumber blk;			/* of the page in memory */
	bool		have_rows;
	Datum	   *values;
	bool	   *isnull;
	double		copied;
	double		vacuumed;
	double		recently_dead;
	MemoryContext row_context;
	PGAlignedBlock page;
} Rewrite;

/* ---- the new table ---- */

static void
flush_page(Rewrite *w)
{
	Page		page = (Page) w->page.data;

	if (!w->have_rows)
		return;
	if (RelationNeedsWAL(w->new))
		log_newpage(&w->new->rd_node, MAIN_FORKNUM, w->blk, page, true);
	PageSetChecksumInplace(page, w->blk);
	smgrextend(RelationGetSmgr(w->new), MAIN_FORKNUM, w->blk, page, true);
	w->blk++;
	w->have_rows = false;
	qdb_page_init(page, QDB_FIRST_CAP);
}

static bool
try_put(Rewrite *w, QdbForm *form, const Fate *fate)
{
	Page		page = (Page) w->page.data;
	QdbAlloc	a;
	QdbEntry	xi = {0};
	QdbEntry	xx = {0};

	qdb_alloc_init(&a, page, form->len);
	if (TransactionIdIsValid(fate->xmin))
	{
		QdbXactInit(&xi.x, fate->xmin, fate->cmin, QDB_X_PLAIN);
		xi.idx = qdb_alloc_entry(&a, &xi.x, QDB_SHARE_INSERT, 0, &xi.fresh);
		if (xi.idx == 0)
			return false;
	}
	if (TransactionIdIsValid(fate->xmax))
	{
		QdbXactInit(&xx.x, fate->xmax, fate->cmax, QDB_X_PLAIN);
		xx.idx = qdb_alloc_entry(&a, &xx.x, QDB_SHARE_EXACT, 0, &xx.fresh);
		if (xx.idx == 0)
			return false;
	}
	if (!qdb_alloc_fits(&a, QDB_RESERVE) || (!a.empty && a.avail - a.used < w->save))
		return false;
	qdb_alloc_apply(&a);
	qdb_apply_entry(page, &xi);
	qdb_apply_entry(page, &xx);
	form->data[QDB_ROW_XI] = xi.idx;
	QdbRowSetXX(form->data, xx.idx, false);
	qdb_page_put_row(page, a.off, form->data, form->len);
	w->have_rows = true;
	return true;
}

/* The values are in w->values; columns that were dropped become null. */
static void
put_row(Rewrite *w, const Fate *fate)
{
	TupleDesc	desc = RelationGetDescr(w->new);
	QdbForm		form = {0};

	for (int i = 0; i < desc->natts; i++)
		if (TupleDescAttr(desc, i)->attisdropped)
			w->isnull[i] = true;
	qdb_form_values(desc, w->values, w->isnull, &form);
	if (qdb_form_needs_toast(w->new, &form))
		qdb_toast_form(w->new, &form, NULL, 0, HEAP_INSERT_SKIP_FSM | HEAP_INSERT_NO_LOGICAL);
	if (form.len > QDB_MAX_ROW)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("row is too big: size %zu, maximum size %zu", form.len, QDB_MAX_ROW)));
	if (!try_put(w, &form, fate))
	{
		flush_page(w);
		if (!try_put(w, &form, fate))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot rewrite table \"%s\" now", RelationGetRelationName(w->old)),
					 errdetail("A row of %zu bytes was inserted and deleted while a transaction runs that may see it.",
							   form.len),
					 errhint("Try again when old transactions have ended.")));
	}
}

/* ---- the old table ---- */

/* Is the row copied, and what of its transactions? */
static void
judge(Rewrite *w, QdbRow *row, Fate *fate)
{
	TransactionId updater = InvalidTransactionId;
	bool		system = IsSystemRelation(w->old);

	memset(fate, 0, sizeof(*fate));
	switch (qdb_row_satisfies_vacuum(row, w->oldest_xmin))
	{
		case HEAPTUPLE_DEAD:
			fate->dead = true;
			return;
		case HEAPTUPLE_RECENTLY_DEAD:
			w->recently_dead += 1;
			updater = qdb_row_update_xid(row);
			break;
		case HEAPTUPLE_LIVE:
			break;
		case HEAPTUPLE_INSERT_IN_PROGRESS:
			if (!system && !TransactionIdIsCurrentTransactionId(QdbRowXmin(row)))
				elog(WARNING, "concurrent insert in progress within table \"%s\"",
					 RelationGetRelationName(w->old));
			break;
		case HEAPTUPLE_DELETE_IN_PROGRESS:
			updater = qdb_row_update_xid(row);
			if (!system && !TransactionIdIsCurrentTransactionId(updater))
				elog(WARNING, "concurrent delete in progress within table \"%s\"",
					 RelationGetRelationName(w->old));
			w->recently_dead += 1;
			break;
	}
	/* The new table has an AccessExclusiveLock: row locks mean nothing now. */
	if (row->xi != NULL && !TransactionIdPrecedes(row->xi->xid, w->oldest_xmin))
	{
		fate->xmin = row->xi->xid;
		fate->cmin = row->xi->cid;
	}
	fate->xmax = updater;
	fate->cmax = QdbRowCmax(row);
}

/* The same for a row that an index scan returned. */
static bool
judge_tid(Rewrite *w, ItemPointer tid, Fate *fate)
{
	Buffer		buf = qdb_read_buffer(w->old, ItemPointerGetBlockNumber(tid), NULL);
	QdbView		view;
	QdbRow		row;
	bool		exists;

	LockBuffer(buf, BUFFER_LOCK_SHARE);
	qdb_view_init(&view, w->old, buf);
	exists = qdb_view_row(&view, ItemPointerGetOffsetNumber(tid), &row);
	if (exists)
		judge(w, &row, fate);
	qdb_view_done(&view);
	UnlockReleaseBuffer(buf);
	return exists;
}

/* Sorting takes heap tuples; their headers carry the transactions. */
static void
sort_row(Rewrite *w, Tuplesortstate *sort, const Fate *fate)
{
	HeapTuple	tuple = heap_form_tuple(RelationGetDescr(w->old), w->values, w->isnull);

	HeapTupleHeaderSetXmin(tuple->t_data, fate->xmin);
	HeapTupleHeaderSetXmax(tuple->t_data, fate->xmax);
	tuple->t_data->t_choice.t_heap.t_field3.t_cid = fate->cmin;
	ItemPointerSet(&tuple->t_data->t_ctid, fate->cmax, FirstOffsetNumber);
	tuplesort_putheaptuple(sort, tuple);
	heap_freetuple(tuple);
}

static void
write_sorted(Rewrite *w, Tuplesortstate *sort)
{
	MemoryContext caller = CurrentMemoryContext;
	HeapTuple	tuple;
	double		n = 0;

	pgstat_progress_update_param(PROGRESS_CLUSTER_PHASE, PROGRESS_CLUSTER_PHASE_SORT_TUPLES);
	tuplesort_performsort(sort);
	pgstat_progress_update_param(PROGRESS_CLUSTER_PHASE, PROGRESS_CLUSTER_PHASE_WRITE_NEW_HEAP);
	while ((tuple = tuplesort_getheaptuple(sort, true)) != NULL)
	{
		Fate		fate = {false};

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(w->row_context);
		MemoryContextSwitchTo(w->row_context);
		fate.xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
		fate.xmax = HeapTupleHeaderGetRawXmax(tuple->t_data);
		fate.cmin = HeapTupleHeaderGetRawCommandId(tuple->t_data);
		fate.cmax = ItemPointerGetBlockNumberNoCheck(&tuple->t_data->t_ctid);
		heap_deform_tuple(tuple, RelationGetDescr(w->old), w->values, w->isnull);
		put_row(w, &fate);
		MemoryContextSwitchTo(caller);
		n += 1;
		pgstat_progress_update_param(PROGRESS_CLUSTER_HEAP_TUPLES_WRITTEN, n);
	}
	tuplesort_end(sort);
}

static void
copy_or_sort(Rewrite *w, Tuplesortstate *sort, const Fate *fate)
{
	w->copied += 1;
	pgstat_progress_update_param(PROGRESS_CLUSTER_HEAP_TUPLES_SCANNED, w->copied);
	if (sort != NULL)
		sort_row(w, sort, fate);
	else
	{
		put_row(w, fate);
		pgstat_progress_update_param(PROGRESS_CLUSTER_HEAP_TUPLES_WRITTEN, w->copied);
	}
}

static void
copy_in_index_order(Rewrite *w, Relation index)
{
	TupleTableSlot *slot = table_slot_create(w->old, NULL);
	IndexScanDesc scan;
	MemoryContext caller = CurrentMemoryContext;

	pgstat_progress_update_param(PROGRESS_CLUSTER_PHASE, PROGRESS_CLUSTER_PHASE_INDEX_SCAN_HEAP);
	pgstat_progress_update_param(PROGRESS_CLUSTER_INDEX_RELID, RelationGetRelid(index));
	scan = index_beginscan(w->old, index, SnapshotAny, 0, 0);
	index_rescan(scan, NULL, 0, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		Fate		fate;

		CHECK_FOR_INTERRUPTS();
		if (scan->xs_recheck)
			elog(ERROR, "CLUSTER does not support lossy index conditions");
		if (!judge_tid(w, &slot->tts_tid, &fate))
			continue;
		if (fate.dead)
		{
			w->vacuumed += 1;
			continue;
		}
		slot_getallattrs(slot);
		memcpy(w->values, slot->tts_values, slot->tts_tupleDescriptor->natts * sizeof(Datum));
		memcpy(w->isnull, slot->tts_isnull, slot->tts_tupleDescriptor->natts * sizeof(bool));
		MemoryContextReset(w->row_context);
		MemoryContextSwitchTo(w->row_context);
		copy_or_sort(w, NULL, &fate);
		MemoryContextSwitchTo(caller);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}

static void
copy_in_order(Rewrite *w, Tuplesortstate *sort)
{
	TableScanDesc sscan;
	QdbScan    *scan;
	QdbRow		row;
	MemoryContext caller = CurrentMemoryContext;

	pgstat_progress_update_param(PROGRESS_CLUSTER_PHASE, PROGRESS_CLUSTER_PHASE_SEQ_SCAN_HEAP);
	sscan = table_beginscan(w->old, SnapshotAny, 0, NULL);
	scan = (QdbScan *) sscan;
	pgstat_progress_update_param(PROGRESS_CLUSTER_TOTAL_HEAP_BLKS, scan->nblocks);
	while (qdb_scan_next_row(scan, ForwardScanDirection, &row))
	{
		Fate		fate;

		CHECK_FOR_INTERRUPTS();
		pgstat_progress_update_param(PROGRESS_CLUSTER_HEAP_BLKS_SCANNED,
									 (scan->cblock + scan->nblocks - scan->startblock) % scan->nblocks + 1);
		judge(w, &row, &fate);
		if (fate.dead)
		{
			w->vacuumed += 1;
			continue;
		}
		MemoryContextReset(w->row_context);
		MemoryContextSwitchTo(w->row_context);
		qdb_deform(RelationGetDescr(w->old), row.data, row.len, w->values, w->isnull);
		copy_or_sort(w, sort, &fate);
		MemoryContextSwitchTo(caller);
	}
	pgstat_progress_update_param(PROGRESS_CLUSTER_HEAP_BLKS_SCANNED, scan->nblocks);
	table_endscan(sscan);
}

void
qdb_relation_copy_for_cluster(Relation old, Relation new, Relation index, bool use_sort,
							  TransactionId oldest_xmin, TransactionId *xid_cutoff,
							  MultiXactId *multi_cutoff, double *num_tuples, double *tups_vacuumed,
							  double *tups_recently_dead)
{
	Rewrite    *w = palloc0(sizeof(Rewrite));
	Tuplesortstate *sort = NULL;
	int			natts = Max(RelationGetDescr(old)->natts, RelationGetDescr(new)->natts);

	w->old = old;
	w->new = new;
	w->oldest_xmin = oldest_xmin;
	w->save = RelationGetTargetPageFreeSpace(new, HEAP_DEFAULT_FILLFACTOR);
	w->blk = RelationGetNumberOfBlocks(new);
	w->values = palloc(Max(natts, 1) * sizeof(Datum));
	w->isnull = palloc(Max(natts, 1) * sizeof(bool));
	w->row_context = AllocSetContextCreate(CurrentMemoryContext, "rewritten row", ALLOCSET_DEFAULT_SIZES);
	qdb_page_init((Page) w->page.data, QDB_FIRST_CAP);

	if (use_sort)
		sort = tuplesort_begin_cluster(RelationGetDescr(old), index, maintenance_work_mem, NULL, TUPLESORT_NONE);
	if (index != NULL && !use_sort)
		copy_in_index_order(w, index);
	else
		copy_in_order(w, sort);
	if (sort != NULL)
		write_sorted(w, sort);
	flush_page(w);

	/*
	 * The pages did not go through the buffer pool, where a checkpoint sees
	 * them.
	 */
	if (RelationNeedsWAL(new))
		smgrimmedsync(RelationGetSmgr(new), MAIN_FORKNUM);

	/* Nothing older than the horizon was copied. */
	*xid_cutoff = oldest_xmin;
	*num_tuples = w->copied;
	*tups_vacuumed = w->vacuumed;
	*tups_recently_dead = w->recently_dead;
	MemoryContextDelete(w->row_context);
	pfree(w->values);
	pfree(w->isnull);
	pfree(w);
}
