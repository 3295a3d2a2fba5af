/*-------------------------------------------------------------------------
 *
 * indexdel.c
 *		Which index entries lead to nothing that anyone needs.
 *
 * Index access methods ask this when a page of theirs is full.  The answer
 * comes with the newest xid whose snapshots would miss the rows; it becomes the
 * conflict horizon of their WAL record.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/prune.h"

#include "miscadmin.h"
#include "storage/procarray.h"

/* What one bottom-up deletion may cost. */
#define BOTTOMUP_MAX_BLOCKS		6

static int
compare_deltids(const void *a, const void *b)
{
	return ItemPointerCompare(unconstify(ItemPointerData *, &((const TM_IndexDelete *) a)->tid),
							  unconstify(ItemPointerData *, &((const TM_IndexDelete *) b)->tid));
}

/* Blocks of a bottom-up deletion, the most promising first. */
typedef struct BlockGroup
{
	int			first;
	int			n;
	int			promising;
} BlockGroup;

static int
compare_groups(const void *a, const void *b)
{
	const BlockGroup *g1 = a;
	const BlockGroup *g2 = b;

	if (g1->promising != g2->promising)
		return g2->promising - g1->promising;
	if (g1->n != g2->n)
		return g2->n - g1->n;
	return g1->first - g2->first;
}

/* Keeps the entries of the blocks that are worth a look, in that order. */
static void
choose_blocks(TM_IndexDeleteOp *op)
{
	TM_IndexDelete *copy = palloc(op->ndeltids * sizeof(TM_IndexDelete));
	BlockGroup *groups = palloc(op->ndeltids * sizeof(BlockGroup));
	int			ngroups = 0;
	int			kept = 0;

	for (int i = 0; i < op->ndeltids; i++)
	{
		if (i == 0 || ItemPointerGetBlockNumber(&op->deltids[i].tid) !=
			ItemPointerGetBlockNumber(&op->deltids[i - 1].tid))
		{
			groups[ngroups].first = i;
			groups[ngroups].n = groups[ngroups].promising = 0;
			ngroups++;
		}
		groups[ngroups - 1].n++;
		groups[ngroups - 1].promising += op->status[op->deltids[i].id].promising;
	}
	qsort(groups, ngroups, sizeof(BlockGroup), compare_groups);
	memcpy(copy, op->deltids, op->ndeltids * sizeof(TM_IndexDelete));
	for (int g = 0; g < Min(ngroups, BOTTOMUP_MAX_BLOCKS); g++)
		for (int i = 0; i < groups[g].n; i++)
			op->deltids[kept++] = copy[groups[g].first + i];
	op->ndeltids = kept;
	pfree(groups);
	pfree(copy);
}

static void
check_entry(TM_IndexDeleteOp *op, QdbView *view, const TM_IndexDelete *d)
{
	OffsetNumber off = ItemPointerGetOffsetNumber(unconstify(ItemPointerData *, &d->tid));
	const char *what = NULL;
	QdbRow		row;

	if (off > PageGetMaxOffsetNumber(view->page))
		what = "points past the end of the page";
	else if (!ItemIdIsUsed(PageGetItemId(view->page, off)))
		what = "points to an unused item";
	else if (qdb_view_row(view, off, &row) && QdbRowHeapOnly(&row))
		what = "points to a row that has no index entries";
	if (what != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INDEX_CORRUPTED),
				 errmsg("entry at offset %u of block %u in index \"%s\" %s",
						op->status[d->id].idxoffnum, op->iblknum, RelationGetRelationName(op->irel), what),
				 errdetail("It names row (%u,%u).", view->blk, off),
				 errhint("Rebuild the index with REINDEX.")));
}

static void
advance_for_chain(QdbView *view, OffsetNumber off, TransactionId *xid)
{
	TransactionId prior = InvalidTransactionId;
	ItemPointerData next;
	QdbRow		row;

	/* A chain has no more members; a damaged one may be a ring. */
	for (int steps = 0; steps <= QDB_MAX_OFFSETS && off >= FirstOffsetNumber &&
		 off <= PageGetMaxOffsetNumber(view->page); steps++)
	{
		ItemId		lp = PageGetItemId(view->page, off);

		if (ItemIdIsRedirected(lp))
		{
			off = ItemIdGetRedirect(lp);
			continue;
		}
		/* What made a pointer dead has said so in its own record. */
		if (!qdb_view_row(view, off, &row) ||
			(TransactionIdIsValid(prior) && QdbRowXmin(&row) != prior))
			return;
		qdb_advance_removed(&row, xid);
		if (!QdbRowHotUpdated(&row) || !QdbRowNext(&row, &next))
			return;
		prior = qdb_row_update_xid(&row);
		off = ItemPointerGetOffsetNumber(&next);
	}
}

/*
 * All entries of one block, from *i on.  Returns the space that the index gains.
 */
static int
check_block(TM_IndexDeleteOp *op, Relation rel, Snapshot snapshot, int *i, TransactionId *xid)
{
	BlockNumber blk = ItemPointerGetBlockNumber(&op->deltids[*i].tid);
	Buffer		buf = qdb_read_buffer(rel, blk, NULL);
	int			space = 0;
	QdbView		view;

	LockBuffer(buf, BUFFER_LOCK_SHARE);
	qdb_view_init(&view, rel, buf);
	for (; *i < op->ndeltids && ItemPointerGetBlockNumber(&op->deltids[*i].tid) == blk; (*i)++)
	{
		TM_IndexDelete *d = &op->deltids[*i];
		TM_IndexStatus *status = &op->status[d->id];
		OffsetNumber off = ItemPointerGetOffsetNumber(&d->tid);
		QdbRow		row;

		check_entry(op, &view, d);
		if (!status->knowndeletable)
		{
			if (qdb_search_chain(&view, &off, snapshot, &row, NULL, true))
				continue;
			status->knowndeletable = true;
			space += status->freespace;
		}
		advance_for_chain(&view, ItemPointerGetOffsetNumber(&d->tid), xid);
	}
	qdb_view_done(&view);
	UnlockReleaseBuffer(buf);
	return space;
}

TransactionId
qdb_index_delete_tuples(Relation rel, TM_IndexDeleteOp *op)
{
	TransactionId xid = InvalidTransactionId;
	SnapshotData snapshot;
	int			target = op->bottomupfreespace;
	int			space = 0;
	int			i = 0;

	InitNonVacuumableSnapshot(snapshot, GlobalVisTestFor(rel));
	qsort(op->deltids, op->ndeltids, sizeof(TM_IndexDelete), compare_deltids);
	if (op->bottomup)
		choose_blocks(op);
	while (i < op->ndeltids)
	{
		int			gained = check_block(op, rel, &snapshot, &i, &xid);

		space += gained;
		/* A block that gave nothing: the others promise less still. */
		if (op->bottomup && (gained == 0 || space >= target))
			break;
		if (op->bottomup)
			target /= 2;
	}

	/*
	 * The index takes the last one for one that goes; none: there is nothing
	 * to do.
	 */
	while (i > 0 && !op->status[op->deltids[i - 1].id].knowndeletable)
		i--;
	op->ndeltids = i;
	return xid;
}
