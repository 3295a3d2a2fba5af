/*-------------------------------------------------------------------------
 *
 * index.c
 *		Building indexes, and completing those that are built concurrently.
 *
 * An index has the values of a HOT chain's newest version under the TID of its
 * root.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/change.h"

#include "access/genam.h"
#include "catalog/catalog.h"
#include "catalog/index.h"
#include "commands/progress.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "pgstat.h"
#include "storage/procarray.h"
#include "utils/builtins.h"

/* Root of each row of a page, by offset - 1; of the copy that a scan has. */
static void
find_roots(QdbView *view, OffsetNumber *roots)
{
	OffsetNumber max = PageGetMaxOffsetNumber(view->page);

	memset(roots, 0, QDB_MAX_OFFSETS * sizeof(OffsetNumber));
	for (OffsetNumber off = FirstOffsetNumber; off <= max; off++)
	{
		ItemId		lp = PageGetItemId(view->page, off);
		OffsetNumber at;
		TransactionId prior = InvalidTransactionId;
		ItemPointerData next;
		QdbRow		row;

		if (ItemIdIsRedirected(lp))
			at = ItemIdGetRedirect(lp);
		else
		{
			if (!qdb_view_row(view, off, &row) || QdbRowHeapOnly(&row))
				continue;
			roots[off - 1] = off;
			if (!QdbRowHotUpdated(&row) || !QdbRowNext(&row, &next))
				continue;
			at = ItemPointerGetOffsetNumber(&next);
			prior = qdb_row_update_xid(&row);
		}
		/* None has two roots: so a damaged chain that is a ring ends, too. */
		while (at >= FirstOffsetNumber && at <= max && roots[at - 1] == InvalidOffsetNumber &&
			   qdb_view_row(view, at, &row) && (!TransactionIdIsValid(prior) || QdbRowXmin(&row) == prior))
		{
			roots[at - 1] = off;
			if (!QdbRowHotUpdated(&row) || !QdbRowNext(&row, &next))
				break;
			at = ItemPointerGetOffsetNumber(&next);
			prior = qdb_row_update_xid(&row);
		}
	}
}

static void
set_root_tid(const QdbRow *row, const OffsetNumber *roots, ItemPointer tid)
{
	OffsetNumber root = row->off;

	if (QdbRowHeapOnly(row))
	{
		root = roots[row->off - 1];
		if (!OffsetNumberIsValid(root))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg_internal("failed to find the root of row (%u,%u) in table \"%s\"",
									 row->view->blk, row->off,
									 RelationGetRelationName(row->view->rel))));
	}
	ItemPointerSet(tid, row->view->blk, root);
}

typedef struct Build
{
	Relation	rel;
	IndexInfo  *info;
	bool		check_unique;
	bool		anyvisible;
	TransactionId oldest_xmin;
	double		reltuples;
} Build;

typedef enum
{
	BUILD_SKIP,
	BUILD_LIVE,
	BUILD_DEAD,					/* for old snapshots only */
	BUILD_WAIT
} BuildResult;

static BuildResult
judge_insert_in_progress(Build *b, QdbRow *row, TransactionId *wait_for)
{
	if (b->anyvisible)
	{
		b->reltuples += 1;
		return BUILD_LIVE;
	}
	*wait_for = QdbRowXmin(row);
	if (TransactionIdIsCurrentTransactionId(*wait_for))
	{
		b->reltuples += 1;
		return BUILD_LIVE;
	}
	if (!IsSystemRelation(b->rel))
		elog(WARNING, "concurrent insert in progress within table \"%s\"", RelationGetRelationName(b->rel));
	return b->check_unique ? BUILD_WAIT : BUILD_LIVE;
}

static BuildResult
judge_delete_in_progress(Build *b, QdbRow *row, TransactionId *wait_for)
{
	if (b->anyvisible)
	{
		b->reltuples += 1;
		return BUILD_DEAD;
	}
	*wait_for = qdb_row_update_xid(row);
	if (!TransactionIdIsCurrentTransactionId(*wait_for))
	{
		if (!IsSystemRelation(b->rel))
			elog(WARNING, "concurrent delete in progress within table \"%s\"",
				 RelationGetRelationName(b->rel));
		/* If it aborts, this row counts, and not the end of its chain. */
		if (b->check_unique || QdbRowHotUpdated(row))
			return BUILD_WAIT;
		b->reltuples += 1;
		return BUILD_DEAD;
	}
	if (!QdbRowHotUpdated(row))
		return BUILD_DEAD;
	b->info->ii_BrokenHotChain = true;
	return BUILD_SKIP;
}

/*
 * Does the row belong into the index, and is it alive for unique checks?  The
 * counting is that of ANALYZE.
 */
static BuildResult
judge(Build *b, QdbRow *row, TransactionId *wait_for)
{
	switch (qdb_row_satisfies_vacuum(row, b->oldest_xmin))
	{
		case HEAPTUPLE_DEAD:
			return BUILD_SKIP;
		case HEAPTUPLE_LIVE:
			b->reltuples += 1;
			return BUILD_LIVE;
		case HEAPTUPLE_RECENTLY_DEAD:
			/* Old snapshots may need it; but not two rows of one chain. */
			if (!QdbRowHotUpdated(row))
				return BUILD_DEAD;
			b->info->ii_BrokenHotChain = true;
			return BUILD_SKIP;
		case HEAPTUPLE_INSERT_IN_PROGRESS:
			return judge_insert_in_progress(b, row, wait_for);
		case HEAPTUPLE_DELETE_IN_PROGRESS:
			return judge_delete_in_progress(b, row, wait_for);
	}
	return BUILD_SKIP;
}

/* The same, waiting for whom the answer depends on. */
static BuildResult
judge_and_wait(Build *b, QdbRow *row)
{
	for (;;)
	{
		TransactionId wait_for;
		BuildResult result = judge(b, row, &wait_for);
		ItemPointerData tid;

		if (result != BUILD_WAIT)
			return result;
		ItemPointerSet(&tid, row->view->blk, row->off);
		XactLockTableWait(wait_for, b->rel, &tid, XLTW_InsertIndexUnique);
		CHECK_FOR_INTERRUPTS();
	}
}

static BlockNumber
blocks_total(QdbScan *scan)
{
	return scan->base.rs_parallel != NULL ?
		((ParallelBlockTableScanDesc) scan->base.rs_parallel)->phs_nblocks : scan->nblocks;
}

static BlockNumber
blocks_done(QdbScan *scan)
{
	BlockNumber start = scan->base.rs_parallel != NULL ?
	((ParallelBlockTableScanDesc) scan->base.rs_parallel)->phs_startblock : scan->startblock;

	if (scan->cblock > start)
		return scan->cblock - start;
	return blocks_total(scan) - start + scan->cblock;
}

/* Calls back for each row that belongs into the index. */
static void
build_rows(Build *b, QdbScan *scan, Relation index, bool progress, EState *estate, TupleTableSlot *slot,
		   ExprState *predicate, IndexBuildCallback callback, void *state)
{
	ExprContext *econtext = GetPerTupleExprContext(estate);
	bool		any = scan->base.rs_snapshot == SnapshotAny;
	BlockNumber root_blk = InvalidBlockNumber;
	OffsetNumber roots[QDB_MAX_OFFSETS];
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];
	QdbRow		row;

	while (qdb_scan_next_row(scan, ForwardScanDirection, &row))
	{
		BuildResult result = BUILD_LIVE;
		ItemPointerData tid;

		CHECK_FOR_INTERRUPTS();
		if (scan->cblock != root_blk)
		{
			if (progress)
				pgstat_progress_update_param(PROGRESS_SCAN_BLOCKS_DONE, blocks_done(scan));
			find_roots(&scan->view, roots);
			root_blk = scan->cblock;
		}
		if (any)
			result = judge_and_wait(b, &row);
		else
			b->reltuples += 1;
		if (result == BUILD_SKIP)
			continue;

		MemoryContextReset(econtext->ecxt_per_tuple_memory);
		qdb_slot_store(slot, &row);
		if (predicate != NULL && !ExecQual(predicate, econtext))
			continue;
		FormIndexDatum(b->info, slot, estate, values, isnull);
		set_root_tid(&row, roots, &tid);
		callback(index, &tid, values, isnull, result == BUILD_LIVE, state);
	}
}

double
qdb_index_build_range_scan(Relation rel, Relation index, IndexInfo *info, bool allow_sync,
						   bool anyvisible, bool progress, BlockNumber start, BlockNumber n,
						   IndexBuildCallback callback, void *state, TableScanDesc scan)
{
	Build		b = {.rel = rel,.info = info,.anyvisible = anyvisible};
	EState	   *estate = CreateExecutorState();
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	Snapshot	registered = InvalidSnapshot;
	ExprState  *predicate;

	GetPerTupleExprContext(estate)->ecxt_scantuple = slot;
	predicate = ExecPrepareQual(info->ii_Predicate, estate);
	b.check_unique = info->ii_Unique || info->ii_ExclusionOps != NULL;
	b.oldest_xmin = InvalidTransactionId;
	if (!info->ii_Concurrent)
		b.oldest_xmin = GetOldestNonRemovableTransactionId(rel);

	if (scan == NULL)
	{
		/* A concurrent build takes what one snapshot sees. */
		if (!TransactionIdIsValid(b.oldest_xmin))
			registered = RegisterSnapshot(GetTransactionSnapshot());
		scan = table_beginscan_strat(rel, registered != InvalidSnapshot ? registered : SnapshotAny,
									 0, NULL, true, allow_sync);
	}
	if (progress)
		pgstat_progress_update_param(PROGRESS_SCAN_BLOCKS_TOTAL, blocks_total((QdbScan *) scan));
	if (!allow_sync)
		qdb_scan_set_limits(scan, start, n);

	build_rows(&b, (QdbScan *) scan, index, progress, estate, slot, predicate, callback, state);
	if (progress)
		pgstat_progress_update_param(PROGRESS_SCAN_BLOCKS_DONE, blocks_total((QdbScan *) scan));

	table_endscan(scan);
	if (registered != InvalidSnapshot)
		UnregisterSnapshot(registered);
	ExecDropSingleTupleTableSlot(slot);
	FreeExecutorState(estate);

	/* They point into the executor state that is gone. */
	info->ii_ExpressionsState = NIL;
	info->ii_PredicateState = NULL;
	return b.reltuples;
}

/* ---- CREATE INDEX CONCURRENTLY, second pass ---- */

/* The sorted TIDs that the index has, and which of the page are passed. */
typedef struct Merge
{
	ValidateIndexState *state;
	bool		empty;
	bool		have;
	ItemPointerData at;
	BlockNumber blk;
	bool		in_index[QDB_MAX_OFFSETS];
} Merge;

/* Advances to the root's TID or past it; true: the index has it. */
static bool
merge_has(Merge *m, ItemPointer root)
{
	while (!m->empty && (!m->have || ItemPointerCompare(&m->at, root) < 0))
	{
		Datum		value;
		bool		isnull;

		if (m->have && ItemPointerGetBlockNumber(&m->at) == m->blk &&
			ItemPointerGetOffsetNumber(&m->at) <= QDB_MAX_OFFSETS)
			m->in_index[ItemPointerGetOffsetNumber(&m->at) - 1] = true;
		m->empty = !tuplesort_getdatum(m->state->tuplesort, true, &value, &isnull, NULL);
		m->have = !m->empty;
		if (m->have)
			itemptr_decode(&m->at, DatumGetInt64(value));
	}
	return (m->have && ItemPointerCompare(&m->at, root) == 0) ||
		m->in_index[ItemPointerGetOffsetNumber(root) - 1];
}

static void
validate_rows(Relation rel, Relation index, IndexInfo *info, QdbScan *scan, ValidateIndexState *state,
			  EState *estate, TupleTableSlot *slot, ExprState *predicate)
{
	ExprContext *econtext = GetPerTupleExprContext(estate);
	Merge		m = {.state = state,.blk = InvalidBlockNumber};
	OffsetNumber roots[QDB_MAX_OFFSETS];
	Datum		values[INDEX_MAX_KEYS];
	bool		isnull[INDEX_MAX_KEYS];
	QdbRow		row;

	while (qdb_scan_next_row(scan, ForwardScanDirection, &row))
	{
		ItemPointerData root;

		CHECK_FOR_INTERRUPTS();
		state->htups += 1;
		if (scan->cblock != m.blk)
		{
			pgstat_progress_update_param(PROGRESS_SCAN_BLOCKS_DONE, scan->cblock);
			find_roots(&scan->view, roots);
			memset(m.in_index, 0, sizeof(m.in_index));
			m.blk = scan->cblock;
		}
		set_root_tid(&row, roots, &root);
		if (merge_has(&m, &root))
			continue;
		MemoryContextReset(econtext->ecxt_per_tuple_memory);
		qdb_slot_store(slot, &row);
		if (predicate != NULL && !ExecQual(predicate, econtext))
			continue;
		FormIndexDatum(info, slot, estate, values, isnull);

		/*
		 * The check looks at the whole chain, and so finds real conflicts
		 * only.
		 */
		index_insert(index, values, isnull, &root, rel,
					 info->ii_Unique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO, false, info);
		state->tups_inserted += 1;
	}
}

void
qdb_index_validate_scan(Relation rel, Relation index, IndexInfo *info, Snapshot snapshot,
						ValidateIndexState *state)
{
	EState	   *estate = CreateExecutorState();
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	ExprState  *predicate;
	TableScanDesc scan;

	GetPerTupleExprContext(estate)->ecxt_scantuple = slot;
	predicate = ExecPrepareQual(info->ii_Predicate, estate);

	/* From block 0 on: the TIDs are sorted. */
	scan = table_beginscan_strat(rel, snapshot, 0, NULL, true, false);
	pgstat_progress_update_param(PROGRESS_SCAN_BLOCKS_TOTAL, ((QdbScan *) scan)->nblocks);
	validate_rows(rel, index, info, (QdbScan *) scan, state, estate, slot, predicate);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	FreeExecutorState(estate);
	info->ii_ExpressionsState = NIL;
	info->ii_PredicateState = NULL;
}
