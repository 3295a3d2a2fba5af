/*-------------------------------------------------------------------------
 *
 * prune.c
 *		Removes what no snapshot needs, and cools what all see.
 *
 * Pruning removes dead versions and shortens HOT chains to a redirect.  Cooling
 * takes an inserter that everyone sees out of its rows (they have entry 0 then),
 * so that the entry can be used again and nothing has to be frozen later.  Both
 * happen in one step and by one horizon: what is dead by it goes before what
 * replaced it is cooled.  A chain whose link could not be checked any more
 * cannot arise.
 *
 * Readers hold no pin that would matter: the exclusive lock is enough.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/prune.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/procarray.h"

/* Raises *xid to the newest deleter of a row that was once there to see. */
void
qdb_advance_removed(QdbRow *row, TransactionId *xid)
{
	TransactionId xmin = QdbRowXmin(row);
	TransactionId xmax;

	if (QdbRowNoXmax(row) || (row->xx->mask & QDB_X_LOCK_ONLY))
		return;
	xmax = qdb_row_update_xid(row);
	if (xmax == xmin || !TransactionIdIsNormal(xmax))
		return;
	if (row->xi != NULL && ((row->xi->mask & QDB_X_ABORTED) ||
							(!(row->xi->mask & QDB_X_COMMITTED) && !TransactionIdDidCommit(xmin))))
		return;
	if (!TransactionIdIsValid(*xid) || TransactionIdFollows(xmax, *xid))
		*xid = xmax;
}

static void
record_prunable(QdbPrune *p, QdbRow *row)
{
	TransactionId xid = qdb_row_update_xid(row);

	if (TransactionIdIsNormal(xid) &&
		(!TransactionIdIsValid(p->new_prune_xid) || TransactionIdPrecedes(xid, p->new_prune_xid)))
		p->new_prune_xid = xid;
}

/* The row goes, and with it its entry of the overflow page. */
static void
forget_row(QdbPrune *p, OffsetNumber off)
{
	const uint8 *row = QdbPageRow(p->view->page, off);

	p->removed[off] = true;
	if (row[QDB_ROW_FLAGS] & QDB_R_XX_OVERFLOW)
		p->overflow[p->noverflow++] = QdbRowXX(row);
}

static void
record_unused(QdbPrune *p, OffsetNumber off)
{
	if (p->removed[off])
		return;
	forget_row(p, off);
	p->list.unused[p->list.nunused++] = off;
	p->ndeleted++;
}

static bool
is_normal(QdbPrune *p, OffsetNumber off)
{
	return ItemIdIsNormal(PageGetItemId(p->view->page, off));
}

/*
 * Follows the HOT chain of a root.  Returns how many members it has, up to the
 * first that is not dead, and the index of the last dead one, or -1.
 */
static int
walk_chain(QdbPrune *p, OffsetNumber root, OffsetNumber *chain, int *last_dead)
{
	OffsetNumber at = root;
	TransactionId prior = InvalidTransactionId;
	ItemPointerData next;
	int			n = 0;
	QdbRow		row;

	*last_dead = -1;
	if (!is_normal(p, root))
	{
		chain[n++] = root;
		at = ItemIdGetRedirect(PageGetItemId(p->view->page, root));
	}
	while (at >= FirstOffsetNumber && at <= p->max && !p->removed[at] && n < QDB_MAX_OFFSETS &&
		   qdb_view_row(p->view, at, &row) &&
		   (!TransactionIdIsValid(prior) || QdbRowXmin(&row) == prior))
	{
		chain[n++] = at;
		if (p->htsv[at] == HEAPTUPLE_DEAD)
		{
			*last_dead = n - 1;
			qdb_advance_removed(&row, &p->conflict);
		}
		else if (p->htsv[at] == HEAPTUPLE_RECENTLY_DEAD || p->htsv[at] == HEAPTUPLE_DELETE_IN_PROGRESS)
			record_prunable(p, &row);
		/* A recently dead one before a dead one is dead. */
		if (p->htsv[at] != HEAPTUPLE_DEAD && p->htsv[at] != HEAPTUPLE_RECENTLY_DEAD)
			break;
		if (!QdbRowHotUpdated(&row) || !QdbRowNext(&row, &next))
			break;
		prior = qdb_row_update_xid(&row);
		at = ItemPointerGetOffsetNumber(&next);
	}
	return n;
}

static void
prune_chain(QdbPrune *p, OffsetNumber root)
{
	bool		normal = is_normal(p, root);
	OffsetNumber chain[QDB_MAX_OFFSETS + 1];
	int			last_dead;
	int			n;
	QdbRow		row;

	if (normal)
	{
		qdb_view_row(p->view, root, &row);
		if (QdbRowHeapOnly(&row))
		{
			/* Not the start of a chain; but aborted ones belong to none. */
			if (p->htsv[root] == HEAPTUPLE_DEAD && !QdbRowHotUpdated(&row))
			{
				qdb_advance_removed(&row, &p->conflict);
				record_unused(p, root);
			}
			return;
		}
	}
	else
	{
		OffsetNumber target = ItemIdGetRedirect(PageGetItemId(p->view->page, root));

		/* The usual chain: its only version lives. */
		if (target >= FirstOffsetNumber && target <= p->max && p->htsv[target] == HEAPTUPLE_LIVE)
			return;
	}
	n = walk_chain(p, root, chain, &last_dead);
	if (last_dead < 0)
	{
		/* A redirect to nothing is left over from an aborted update. */
		if (!normal && n < 2)
			p->list.dead[p->list.ndead++] = root;
		return;
	}
	for (int i = 1; i <= last_dead; i++)
		record_unused(p, chain[i]);
	if (normal)
	{
		forget_row(p, root);
		p->ndeleted++;
	}
	if (last_dead == n - 1)
		p->list.dead[p->list.ndead++] = root;
	else
	{
		p->list.redirect[2 * p->list.nredirect] = root;
		p->list.redirect[2 * p->list.nredirect + 1] = chain[last_dead + 1];
		p->list.nredirect++;
	}
}

/* Rows that stay: drops what holds them no more, and cools inserters. */
static void
plan_entries(QdbPrune *p)
{
	bool		cool[QDB_MAX_CAP + 1] = {0};

	for (int k = 0; k < p->nbusy; k++)
	{
		OffsetNumber off = p->busy[k];
		QdbRow		row;
		int			i;

		if (p->removed[off] || !qdb_view_row(p->view, off, &row))
			continue;
		if (row.xx != NULL && (row.xx->mask & QDB_X_ABORTED))
		{
			if (row.data[QDB_ROW_FLAGS] & QDB_R_XX_OVERFLOW)
				p->overflow[p->noverflow++] = QdbRowXX(row.data);
			p->list.clear[p->list.nclear++] = off;
		}
		i = row.data[QDB_ROW_XI];
		if (i == 0 || cool[i] || p->htsv[off] == HEAPTUPLE_INSERT_IN_PROGRESS ||
			p->htsv[off] == HEAPTUPLE_DEAD || !TransactionIdPrecedes(row.xi->xid, p->horizon) ||
			!TransactionIdIsNormal(row.xi->xid) || TransactionIdIsCurrentTransactionId(row.xi->xid))
			continue;
		cool[i] = true;
		p->list.cool[p->list.ncool++] = i;
		if (!TransactionIdIsValid(p->conflict) || TransactionIdFollows(row.xi->xid, p->conflict))
			p->conflict = row.xi->xid;
	}
}

/*
 * What each row is, once: the answer may change while we look.  Cold rows live,
 * and neither start nor end what could be removed.
 */
static void
classify_rows(QdbPrune *p)
{
	Page		page = p->view->page;
	const unsigned lower = ((PageHeader) page)->pd_lower;
	unsigned	used = lower + QdbPageSpecial(page)->cap * sizeof(QdbXact);

	for (OffsetNumber off = FirstOffsetNumber; off <= p->max; off++)
	{
		const ItemIdData lp = *PageGetItemId(page, off);
		QdbRow		row;

		/* What cannot be packed is found out before a critical section. */
		if (lp.lp_flags == LP_NORMAL)
		{
			used += lp.lp_len;
			if (unlikely(used > QDB_SPECIAL_OFFSET || lp.lp_off < lower))
				ereport(ERROR,
						(errcode(ERRCODE_DATA_CORRUPTED),
						 errmsg("rows of page %u of table \"%s\" overlap", p->view->blk,
								RelationGetRelationName(p->view->rel))));
		}
		if (QdbPageRowIsCold(p->view->page, off))
		{
			p->htsv[off] = HEAPTUPLE_LIVE;
			continue;
		}
		p->htsv[off] = qdb_view_row(p->view, off, &row) ? qdb_row_satisfies_vacuum(&row, p->horizon) : -1;
		if (p->htsv[off] >= 0 || ItemIdIsRedirected(PageGetItemId(p->view->page, off)))
			p->busy[p->nbusy++] = off;
	}
}

/*
 * What could be removed by the horizon.  With entries: also what could be
 * cooled.  The page is locked exclusively and not changed yet.
 */
void
qdb_prune_plan(QdbPrune *p, QdbView *view, TransactionId horizon, bool entries)
{
	memset(p, 0, offsetof(QdbPrune, busy));
	p->list.nredirect = p->list.ndead = p->list.nunused = p->list.ncool = p->list.nclear = 0;
	p->list.tight = false;
	p->view = view;
	p->horizon = horizon;
	p->max = PageGetMaxOffsetNumber(view->page);
	memset(p->removed, 0, (p->max + 1) * sizeof(bool));
	classify_rows(p);
	for (int k = 0; k < p->nbusy; k++)
	{
		OffsetNumber off = p->busy[k];

		if (!p->removed[off])
			prune_chain(p, off);
	}
	p->removes = p->list.nredirect + p->list.ndead + p->list.nunused > 0;
	if (entries)
		plan_entries(p);
}

bool
qdb_prune_has_work(const QdbPrune *p)
{
	return p->removes || p->list.ncool + p->list.nclear > 0;
}

/* What the record says of a plan, while the page is as it was planned for. */
void
qdb_prune_write(QdbPrune *p)
{
	QdbRecWriter w;

	QdbRecWriterInit(&w, p->rec, sizeof(p->rec));
	qdb_rec_write_prune(&w, p->view->page, &p->list);
	p->rec_len = w.p - w.start;
}

/* In a critical section. */
void
qdb_prune_apply(QdbPrune *p, Page opage)
{
	Page		page = p->view->page;

	qdb_page_prune(page, &p->list);
	if (p->removes)
		((PageHeader) page)->pd_prune_xid = p->new_prune_xid;
	PageClearFull(page);
	for (int i = 0; i < p->noverflow; i++)
		qdb_overflow_free(opage, p->overflow[i]);
}

static void
log_prune(Relation rel, QdbPrune *p, Buffer buf, Buffer obuf)
{
	char		main[1 + sizeof(TransactionId)] = {0};
	XLogRecPtr	lsn;

	memcpy(main + 1, &p->conflict, sizeof(TransactionId));
	XLogBeginInsert();
	XLogRegisterData(main, sizeof(main));
	XLogRegisterBuffer(QDB_BLOCK_PAGE, buf, REGBUF_STANDARD);
	XLogRegisterBufData(QDB_BLOCK_PAGE, p->rec, p->rec_len);
	if (p->noverflow > 0)
	{
		XLogRegisterBuffer(QDB_BLOCK_OVERFLOW, obuf, 0);
		XLogRegisterBufData(QDB_BLOCK_OVERFLOW, (char *) p->overflow, p->noverflow * sizeof(uint16));
	}
	lsn = qdb_xlog_insert(XLOG_QDB_PRUNE);
	PageSetLSN(BufferGetPage(buf), lsn);
	if (p->noverflow > 0)
		PageSetLSN(BufferGetPage(obuf), lsn);
}

/* Carries a plan out and logs it. */
void
qdb_prune_execute(Relation rel, QdbPrune *p, Buffer buf)
{
	Buffer		obuf = InvalidBuffer;

	if (p->noverflow > 0)
	{
		obuf = qdb_read_buffer(rel, QdbPageSpecial(p->view->page)->overflow, NULL);
		LockBuffer(obuf, BUFFER_LOCK_EXCLUSIVE);
	}
	if (RelationNeedsWAL(rel))
		qdb_prune_write(p);

	START_CRIT_SECTION();
	qdb_prune_apply(p, obuf == InvalidBuffer ? NULL : BufferGetPage(obuf));
	MarkBufferDirty(buf);
	if (obuf != InvalidBuffer)
		MarkBufferDirty(obuf);
	if (RelationNeedsWAL(rel))
		log_prune(rel, p, buf, obuf);
	END_CRIT_SECTION();

	if (obuf != InvalidBuffer)
		UnlockReleaseBuffer(obuf);
}

static void
report_removed(Relation rel, const QdbPrune *p)
{
	if (p->ndeleted > p->list.ndead)
		pgstat_update_heap_dead_tuples(rel, p->ndeleted - p->list.ndead);
}

/*
 * In passing, for a page that is read: prunes if something may be dead and the
 * page is short of space.  The page is pinned and not locked.
 */
void
qdb_prune_opt(Relation rel, Buffer buf)
{
	Page		page = BufferGetPage(buf);
	TransactionId prune_xid = ((PageHeader) page)->pd_prune_xid;
	GlobalVisState *vistest;
	Size		minfree;
	QdbView		view;
	QdbPrune	p;

	if (!TransactionIdIsValid(prune_xid) || PageIsNew(page) || RecoveryInProgress())
		return;
	vistest = GlobalVisTestFor(rel);
	if (!GlobalVisTestIsRemovableXid(vistest, prune_xid))
		return;
	minfree = Max(RelationGetTargetPageFreeSpace(rel, HEAP_DEFAULT_FILLFACTOR), BLCKSZ / 10);
	if ((!PageIsFull(page) && QdbPageGap(page) >= minfree) || !ConditionalLockBuffer(buf))
		return;
	qdb_view_init(&view, rel, buf);
	qdb_prune_plan(&p, &view, GlobalVisTestNonRemovableHorizon(vistest), true);
	if (p.removes)
	{
		qdb_prune_execute(rel, &p, buf);
		report_removed(rel, &p);
	}
	else if (((PageHeader) page)->pd_prune_xid != p.new_prune_xid || PageIsFull(page))
	{
		((PageHeader) page)->pd_prune_xid = p.new_prune_xid;
		PageClearFull(page);
		MarkBufferDirtyHint(buf, true);
	}
	qdb_view_done(&view);
	LockBuffer(buf, BUFFER_LOCK_UNLOCK);
}

/*
 * Prunes and cools a page that is locked exclusively, if at least as many entries
 * become free, or line pointers.
 */
static bool
prune_for_room(Relation rel, Buffer buf, int entries)
{
	Page		page = BufferGetPage(buf);
	TransactionId horizon = GlobalVisTestNonRemovableHorizon(GlobalVisTestFor(rel));
	bool		done = false;
	int			old = 0;
	QdbView		view;
	QdbPrune	p;

	for (int i = 1; i <= QdbPageSpecial(page)->cap; i++)
	{
		QdbXact    *x = QdbPageXact(page, i);

		old += !(x->mask & QDB_X_MULTI) && TransactionIdIsNormal(x->xid) &&
			TransactionIdPrecedes(x->xid, horizon);
	}
	if (old < entries)
		return false;
	qdb_view_init(&view, rel, buf);
	view.changing = true;
	qdb_prune_plan(&p, &view, horizon, true);
	if (p.list.ncool >= entries || p.list.nunused > 0)
	{
		qdb_prune_execute(rel, &p, buf);
		report_removed(rel, &p);
		done = true;
	}
	qdb_view_done(&view);
	return done;
}

/* For a row that does not fit on the page: frees space if that is worth a record. */
bool
qdb_prune_for_insert(Relation rel, Buffer buf)
{
	Page		page = BufferGetPage(buf);

	if (QdbPageIsOverflow(page) || PageGetMaxOffsetNumber(page) == 0)
		return false;
	return prune_for_room(rel, buf, 4);
}

/*
 * For a change that finds no entry: one is enough, for the alternative is an
 * overflow page.  True: something was freed, so that to ask again and again
 * comes to an end.
 */
bool
qdb_prune_for_change(Relation rel, Buffer buf)
{
	return prune_for_room(rel, buf, 1);
}

/* Might a version of this length take what the page has left without entries? */
static bool
fits_tightly(const QdbView *view, Size hot_len)
{
	return hot_len > 0 &&
		QdbPageGap(view->page) + QdbPageSpecial(view->page)->cap * sizeof(QdbXact) >= hot_len;
}

/*
 * For an UPDATE whose new version does not fit: could a prune help?  hot_len: the
 * length of a version that may stay at the cost of entries, or 0.
 */
bool
qdb_prune_may_help_update(QdbView *view, Size hot_len)
{
	TransactionId prune_xid = ((PageHeader) view->page)->pd_prune_xid;

	if (QdbPageSpecial(view->page)->overflow != InvalidBlockNumber)
		return false;
	return fits_tightly(view, hot_len) ||
		(TransactionIdIsValid(prune_xid) &&
		 GlobalVisTestIsRemovableXid(GlobalVisTestFor(view->rel), prune_xid));
}

/*
 * Plans that prune, which the caller carries out and puts into its own record.
 * False: there is nothing to gain.
 */
bool
qdb_prune_for_update(QdbPrune *p, QdbView *view, Size hot_len)
{
	qdb_prune_plan(p, view, GlobalVisTestNonRemovableHorizon(GlobalVisTestFor(view->rel)), true);
	return p->removes || fits_tightly(view, hot_len);
}

void
qdb_prune_report(Relation rel, const QdbPrune *p)
{
	report_removed(rel, p);
}
