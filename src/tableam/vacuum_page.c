/*-------------------------------------------------------------------------
 *
 * vacuum_page.c
 *		What VACUUM does to one page.
 *
 * The exclusive lock is all it takes, so no page is ever skipped because
 * someone reads it.  Since all that everyone sees is cooled in passing, a page
 * that becomes all-visible is all-frozen as well, and VACUUM does not come back
 * to freeze it.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/vacuum.h"

#include "access/visibilitymap.h"
#include "access/xloginsert.h"
#include "commands/progress.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/freespace.h"
#include "storage/procarray.h"

#include "tableam/change.h"

/*
 * Do all see all rows of the page?  *frozen: and nothing is left that would have
 * to be frozen.  *cutoff: the newest inserter.
 */
static bool
page_is_all_visible(QdbView *view, TransactionId oldest_xmin, TransactionId *cutoff, bool *frozen)
{
	OffsetNumber max = PageGetMaxOffsetNumber(view->page);

	*cutoff = InvalidTransactionId;
	*frozen = true;
	for (OffsetNumber off = FirstOffsetNumber; off <= max; off++)
	{
		QdbRow		row;

		if (QdbPageRowIsCold(view->page, off))
			continue;
		if (ItemIdIsDead(PageGetItemId(view->page, off)))
			return false;
		if (!qdb_view_row(view, off, &row))
			continue;
		if (qdb_row_satisfies_vacuum(&row, oldest_xmin) != HEAPTUPLE_LIVE ||
			(row.data[QDB_ROW_FLAGS] & QDB_R_XX_OVERFLOW))
			return false;
		if (row.xi != NULL)
		{
			/* Without the hint the commit may not be on disk. */
			if (!(row.xi->mask & QDB_X_COMMITTED) || !TransactionIdPrecedes(row.xi->xid, oldest_xmin))
				return false;
			if (TransactionIdFollows(row.xi->xid, *cutoff))
				*cutoff = row.xi->xid;
			*frozen = false;
		}
		if (row.xx != NULL)
			*frozen = false;
	}
	return true;
}

static void
note_xid(QdbVacuum *v, TransactionId xid)
{
	if (TransactionIdIsNormal(xid) && TransactionIdPrecedes(xid, v->new_relfrozenxid))
		v->new_relfrozenxid = xid;
}

/*
 * What may stay of a multixact that is too old: an update that is not undone,
 * and those who still hold the row.
 */
static bool
replace_multi(QdbRow *row, QdbXmax *new)
{
	MultiXactMember *members;
	MultiXactMember keep[2];
	MultiXactMember *kept;
	int			n = GetMultiXactIdMembers(row->xx->xid, &members, false,
										  (row->xx->mask & QDB_X_LOCK_ONLY) != 0);
	int			nkept = 0;

	if (n <= 0)
		return false;
	kept = n <= 2 ? keep : palloc(n * sizeof(MultiXactMember));
	for (int i = 0; i < n; i++)
		if (TransactionIdIsInProgress(members[i].xid) ||
			(ISUPDATE_from_mxstatus(members[i].status) && TransactionIdDidCommit(members[i].xid)))
			kept[nkept++] = members[i];
	if (nkept == 1 && ISUPDATE_from_mxstatus(kept[0].status))
	{
		new->xid = kept[0].xid;
		new->mask = kept[0].status == MultiXactStatusUpdate ? QDB_X_KEYS_UPDATED : 0;
	}
	else if (nkept > 0)
	{
		new->xid = MultiXactIdCreateFromMembers(nkept, kept);
		new->mask = qdb_multi_mask(new->xid);
	}
	if (n > 2)
		pfree(kept);
	pfree(members);
	return nkept > 0;
}

/* Has the multixact, or one of its members, to go? */
static bool
multi_is_old(QdbVacuum *v, const QdbRow *row)
{
	MultiXactMember *members;
	bool		old = MultiXactIdPrecedes(row->xx->xid, v->multi_cutoff);
	int			n;

	if (old)
		return true;
	n = GetMultiXactIdMembers(row->xx->xid, &members, false, (row->xx->mask & QDB_X_LOCK_ONLY) != 0);
	for (int i = 0; i < n; i++)
		if (TransactionIdPrecedes(members[i].xid, v->freeze_limit))
			old = true;
	if (n > 0)
		pfree(members);
	return old;
}

static void
note_multi(QdbVacuum *v, MultiXactId multi, bool lock_only)
{
	MultiXactMember *members;
	int			n = GetMultiXactIdMembers(multi, &members, false, lock_only);

	if (MultiXactIdPrecedes(multi, v->new_relminmxid))
		v->new_relminmxid = multi;
	for (int i = 0; i < n; i++)
		note_xid(v, members[i].xid);
	if (n > 0)
		pfree(members);
}

/*
 * Replaces old multixacts of the page, which is unlocked.  Few pages have any.
 */
static void
freeze_multis(QdbVacuum *v, BlockNumber blk, const OffsetNumber *offs, int n)
{
	for (int i = 0; i < n; i++)
	{
		QdbChange	c = {.xid = InvalidTransactionId,.mode = LockTupleExclusive,.oper = XLTW_None};
		ItemPointerData tid;
		QdbXmax		new;
		bool		exists;

		ItemPointerSet(&tid, blk, offs[i]);
		exists = qdb_change_open(&c, v->rel, &tid);
		while (exists && (qdb_change_pin_vm(&c) || qdb_change_make_room(&c, 1)))
			exists = qdb_change_lock(&c);
		if (exists && !QdbRowNoXmax(&c.row) && QdbRowXmaxIs(&c.row, QDB_X_MULTI) &&
			multi_is_old(v, &c.row) && replace_multi(&c.row, &new))
			qdb_set_lock(&c, new);

		/* One that is over by now stays until the next prune. */
		if (exists && QdbRowXmaxIs(&c.row, QDB_X_MULTI))
			note_multi(v, c.row.xx->xid, QdbRowXmaxIs(&c.row, QDB_X_LOCK_ONLY));
		else if (exists)
			note_xid(v, QdbRowRawXmax(&c.row));
		qdb_change_unlock(&c);
		qdb_change_close(&c);
	}
}

/* Counts rows, and notes the oldest xids that stay. */
static void
count_rows(QdbVacuum *v, QdbView *view, OffsetNumber *multis, int *nmultis, bool *has_rows)
{
	OffsetNumber max = PageGetMaxOffsetNumber(view->page);

	*nmultis = 0;
	*has_rows = false;
	for (OffsetNumber off = FirstOffsetNumber; off <= max; off++)
	{
		QdbRow		row;

		if (QdbPageRowIsCold(view->page, off))
		{
			*has_rows = true;
			v->live++;
			continue;
		}
		if (ItemIdIsRedirected(PageGetItemId(view->page, off)))
			*has_rows = true;
		if (!qdb_view_row(view, off, &row))
			continue;
		*has_rows = true;
		switch (qdb_row_satisfies_vacuum(&row, v->oldest_xmin))
		{
			case HEAPTUPLE_LIVE:
			case HEAPTUPLE_DELETE_IN_PROGRESS:
				v->live++;
				break;
			case HEAPTUPLE_RECENTLY_DEAD:
				v->recently_dead++;
				break;
			default:
				break;
		}
		if (row.xi != NULL)
			note_xid(v, row.xi->xid);
		if (row.xx == NULL)
			continue;
		if (!(row.xx->mask & QDB_X_MULTI))
			note_xid(v, row.xx->xid);
		else if (multi_is_old(v, &row))
			multis[(*nmultis)++] = off;
		else
			note_multi(v, row.xx->xid, (row.xx->mask & QDB_X_LOCK_ONLY) != 0);
	}
}

/* ---- dead line pointers ---- */

/* Makes them unused; their index entries are gone. */
static void
free_items(QdbVacuum *v, Buffer buf, OffsetNumber *offs, int n)
{
	Page		page = BufferGetPage(buf);
	uint8		kind = XLQ_MISC_VACUUM;
	XLogRecPtr	lsn;

	START_CRIT_SECTION();
	for (int i = 0; i < n; i++)
		ItemIdSetUnused(PageGetItemId(page, offs[i]));
	qdb_page_trim_offsets(page);
	MarkBufferDirty(buf);
	if (RelationNeedsWAL(v->rel))
	{
		XLogBeginInsert();
		XLogRegisterData((char *) &kind, sizeof(kind));
		XLogRegisterBuffer(QDB_BLOCK_PAGE, buf, REGBUF_STANDARD);
		XLogRegisterBufData(QDB_BLOCK_PAGE, (char *) offs, n * sizeof(OffsetNumber));
		lsn = qdb_xlog_insert(XLOG_QDB_MISC);
		PageSetLSN(page, lsn);
	}
	END_CRIT_SECTION();
}

static int
list_dead(Page page, OffsetNumber *offs)
{
	OffsetNumber max = PageGetMaxOffsetNumber(page);
	int			n = 0;

	for (OffsetNumber off = FirstOffsetNumber; off <= max; off++)
		if (ItemIdIsDead(PageGetItemId(page, off)))
			offs[n++] = off;
	return n;
}

/* ---- visibility map ---- */

static void
set_visibility(QdbVacuum *v, Buffer buf, Buffer vmbuffer)
{
	Page		page = BufferGetPage(buf);
	BlockNumber blk = BufferGetBlockNumber(buf);
	uint8		have = visibilitymap_get_status(v->rel, blk, &vmbuffer);
	uint8		flags = 0;
	TransactionId cutoff;
	bool		frozen;
	bool		visible;
	OffsetNumber dead[QDB_MAX_OFFSETS];
	QdbView		view;

	qdb_view_init(&view, v->rel, buf);
	visible = page_is_all_visible(&view, v->oldest_xmin, &cutoff, &frozen);
	qdb_view_done(&view);
	if (!visible)
	{
		/*
		 * The horizon may seem to go back, so that a page that is marked need
		 * not look so.  But dead items are a contradiction.
		 */
		if ((PageIsAllVisible(page) || have) && list_dead(page, dead) > 0)
		{
			ereport(WARNING,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("page %u of table \"%s\" is marked all-visible but has dead items",
							blk, RelationGetRelationName(v->rel))));
			PageClearAllVisible(page);
			MarkBufferDirty(buf);
			visibilitymap_clear(v->rel, blk, vmbuffer, VISIBILITYMAP_VALID_BITS);
		}
		return;
	}
	if (!(have & VISIBILITYMAP_ALL_VISIBLE))
		flags |= VISIBILITYMAP_ALL_VISIBLE;
	if (frozen && !(have & VISIBILITYMAP_ALL_FROZEN))
		flags |= VISIBILITYMAP_ALL_FROZEN;
	if (flags == 0)
		return;
	PageSetAllVisible(page);
	MarkBufferDirty(buf);
	visibilitymap_set(v->rel, blk, buf, InvalidXLogRecPtr, vmbuffer, cutoff, flags);
}

/* ---- first pass ---- */

/* A page that was never filled, or is empty by now. */
static void
empty_page(QdbVacuum *v, Buffer buf, Buffer vmbuffer)
{
	Page		page = BufferGetPage(buf);

	if (PageIsAllVisible(page))
		return;
	START_CRIT_SECTION();
	MarkBufferDirty(buf);
	/* Its initialization may not be in WAL yet. */
	if (RelationNeedsWAL(v->rel) && PageGetLSN(page) == InvalidXLogRecPtr)
		log_newpage_buffer(buf, true);
	PageSetAllVisible(page);
	visibilitymap_set(v->rel, BufferGetBlockNumber(buf), buf, InvalidXLogRecPtr, vmbuffer,
					  InvalidTransactionId, VISIBILITYMAP_ALL_VISIBLE | VISIBILITYMAP_ALL_FROZEN);
	END_CRIT_SECTION();
}

/* An overflow page without entries becomes a data page.  True: it is one now. */
static bool
reuse_overflow_page(QdbVacuum *v, Buffer buf)
{
	Page		page = BufferGetPage(buf);

	for (int i = 1; i <= QDB_OVERFLOW_ENTRIES; i++)
		if (QdbPageOverflow(page, i)->blk != InvalidBlockNumber)
			return false;
	START_CRIT_SECTION();
	qdb_page_init(page, QDB_FIRST_CAP);
	MarkBufferDirty(buf);
	if (RelationNeedsWAL(v->rel))
		log_newpage_buffer(buf, true);
	END_CRIT_SECTION();
	return true;
}

/*
 * Does the plan drop a multixact that has to go?  That it is over says only a
 * hint, which may be lost, and then its members are asked for.
 */
static bool
clears_old_multi(QdbVacuum *v, const QdbPrune *p)
{
	for (int i = 0; i < p->list.nclear; i++)
	{
		QdbRow		row;

		if (qdb_view_row(p->view, p->list.clear[i], &row) && QdbRowXmaxIs(&row, QDB_X_MULTI) &&
			multi_is_old(v, &row))
			return true;
	}
	return false;
}

static void
prune_page(QdbVacuum *v, Buffer buf)
{
	QdbView		view;
	QdbPrune   *p = palloc(sizeof(QdbPrune));

	qdb_view_init(&view, v->rel, buf);
	qdb_prune_plan(p, &view, v->oldest_xmin, true);

	/* Cooling alone is not worth a page image, unless it has to be. */
	if (!p->removes && !v->aggressive && RelationNeedsWAL(v->rel) && XLogCheckBufferNeedsBackup(buf) &&
		!clears_old_multi(v, p))
		p->list.ncool = p->list.nclear = p->noverflow = 0;
	if (qdb_prune_has_work(p))
		qdb_prune_execute(v->rel, p, buf);
	v->deleted += p->ndeleted;
	qdb_view_done(&view);
	pfree(p);
}

static void
remember_dead(QdbVacuum *v, BlockNumber blk, const OffsetNumber *offs, int n)
{
	v->dead_pages++;
	v->dead_items += n;
	for (int i = 0; i < n; i++)
		ItemPointerSet(&v->dead->items[v->dead->num_items + i], blk, offs[i]);
	v->dead->num_items += n;
	pgstat_progress_update_param(PROGRESS_VACUUM_NUM_DEAD_TUPLES, v->dead->num_items);
}

void
qdb_vacuum_scan_page(QdbVacuum *v, BlockNumber blk, Buffer *vmbuffer, bool vm_all_visible)
{
	Buffer		buf;
	Page		page;
	OffsetNumber dead[QDB_MAX_OFFSETS];
	OffsetNumber multis[QDB_MAX_OFFSETS];
	int			ndead = 0;
	int			nmultis = 0;
	Size		room;
	bool		has_rows;
	bool		is_empty;
	QdbView		view;

	visibilitymap_pin(v->rel, blk, vmbuffer);
	buf = qdb_read_buffer(v->rel, blk, v->strategy);
	LockBuffer(buf, BUFFER_LOCK_EXCLUSIVE);
	page = BufferGetPage(buf);
	if (PageIsNew(page))
	{
		UnlockReleaseBuffer(buf);
		if (GetRecordedFreeSpace(v->rel, blk) == 0)
			RecordPageWithFreeSpace(v->rel, blk, QDB_MAX_ROW);
		return;
	}
	if (QdbPageIsOverflow(page) && !reuse_overflow_page(v, buf))
	{
		UnlockReleaseBuffer(buf);
		v->nonempty = blk + 1;
		return;
	}
	is_empty = PageGetMaxOffsetNumber(page) == 0;
	if (is_empty)
		empty_page(v, buf, *vmbuffer);
	else
	{
		prune_page(v, buf);
		qdb_view_init(&view, v->rel, buf);
		count_rows(v, &view, multis, &nmultis, &has_rows);
		qdb_view_done(&view);
		if (has_rows)
			v->nonempty = blk + 1;
		ndead = list_dead(page, dead);
		if (ndead > 0 && v->nindexes == 0)
		{
			v->dead_pages++;
			v->dead_items += ndead;
			free_items(v, buf, dead, ndead);
			ndead = 0;
		}
		else if (ndead > 0)
			remember_dead(v, blk, dead, ndead);
		if (ndead == 0 || PageIsAllVisible(page))
			set_visibility(v, buf, *vmbuffer);
	}
	room = qdb_page_room(page);
	UnlockReleaseBuffer(buf);
	if (nmultis > 0)
		freeze_multis(v, blk, multis, nmultis);
	if (ndead == 0 || !v->do_index_vacuuming)
		RecordPageWithFreeSpace(v->rel, blk, room);
}

/* ---- second pass ---- */

static int
vacuum_items_of_page(QdbVacuum *v, int index, Buffer *vmbuffer)
{
	BlockNumber blk = ItemPointerGetBlockNumber(&v->dead->items[index]);
	OffsetNumber offs[QDB_MAX_OFFSETS];
	Buffer		buf;
	Size		room;
	int			n = 0;

	v->blk = blk;
	visibilitymap_pin(v->rel, blk, vmbuffer);
	buf = qdb_read_buffer(v->rel, blk, v->strategy);
	LockBuffer(buf, BUFFER_LOCK_EXCLUSIVE);
	for (; index < v->dead->num_items &&
		 ItemPointerGetBlockNumber(&v->dead->items[index]) == blk; index++)
	{
		OffsetNumber off = ItemPointerGetOffsetNumber(&v->dead->items[index]);

		if (off > PageGetMaxOffsetNumber(BufferGetPage(buf)) ||
			!ItemIdIsDead(PageGetItemId(BufferGetPage(buf), off)))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("item (%u,%u) of table \"%s\" is not dead any more",
							blk, off, RelationGetRelationName(v->rel))));
		offs[n++] = off;
	}
	free_items(v, buf, offs, n);
	set_visibility(v, buf, *vmbuffer);
	room = qdb_page_room(BufferGetPage(buf));
	UnlockReleaseBuffer(buf);
	RecordPageWithFreeSpace(v->rel, blk, room);
	pgstat_progress_update_param(PROGRESS_VACUUM_HEAP_BLKS_VACUUMED, blk);
	return index;
}

/* The line pointers whose index entries are gone become free. */
void
qdb_vacuum_table(QdbVacuum *v)
{
	Buffer		vmbuffer = InvalidBuffer;
	int			index = 0;

	pgstat_progress_update_param(PROGRESS_VACUUM_PHASE, PROGRESS_VACUUM_PHASE_VACUUM_HEAP);
	v->phase = QDB_VACUUM_TABLE;
	while (index < v->dead->num_items)
	{
		vacuum_delay_point();
		index = vacuum_items_of_page(v, index, &vmbuffer);
	}
	v->blk = InvalidBlockNumber;
	if (vmbuffer != InvalidBuffer)
		ReleaseBuffer(vmbuffer);
}
