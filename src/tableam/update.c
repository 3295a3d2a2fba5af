/*-------------------------------------------------------------------------
 *
 * update.c
 *		UPDATE: a new version, on the same page if it fits.
 *
 * As in heap every version has a TID of its own, and where no indexed column
 * changes and the page has room the new one needs no index entries (HOT).  The
 * two versions share one entry of the transaction table: the old row's updater
 * is the new row's inserter.
 *
 * If the version does not fit, or values must be toasted, the old row is locked
 * first (with a LOCK record), for the page must be unlocked meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/update.h"

#include "access/sysattr.h"
#include "access/visibilitymap.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/predicate.h"

/* ---- which columns change ---- */

/* Compares stored values, which is what heap does: not those of the type. */
static Bitmapset *
modified_columns(QdbUpdate *u, Bitmapset *interesting)
{
	TupleDesc	desc = RelationGetDescr(u->c.rel);
	Bitmapset  *modified = NULL;
	QdbCursor	old;
	QdbCursor	new;
	int			member = -1;
	int			att = 0;

	qdb_cursor_init(&old, desc, u->c.row.data, u->c.row.len);
	qdb_cursor_init(&new, desc, u->form.data, u->form.len);
	while ((member = bms_next_member(interesting, member)) >= 0)
	{
		int			attnum = member + FirstLowInvalidHeapAttributeNumber;
		Datum		v1 = 0,
					v2 = 0;
		Size		s1 = 0,
					s2 = 0;
		bool		has1 = false,
					has2 = false;

		if (attnum <= 0)
		{
			/* Whole rows and system columns: say that they change. */
			if (attnum != TableOidAttributeNumber)
				modified = bms_add_member(modified, member);
			continue;
		}
		if (attnum > old.natts)
		{
			/* Added since: its missing value is not in the row. */
			modified = bms_add_member(modified, member);
			continue;
		}
		for (; att < attnum; att++)
		{
			has1 = qdb_cursor_next(&old, desc, &v1, &s1);
			has2 = qdb_cursor_next(&new, desc, &v2, &s2);
		}
		if (has1 != has2 || s1 != s2)
			modified = bms_add_member(modified, member);
		else if (has1 && (TupleDescAttr(desc, attnum - 1)->attbyval ? v1 != v2 :
						  memcmp(DatumGetPointer(v1), DatumGetPointer(v2), s1) != 0))
			modified = bms_add_member(modified, member);
	}
	return modified;
}

/*
 * Key columns stay: then foreign keys that refer to the row need not wait.  No
 * indexed one changes: HOT.
 */
static void
classify(QdbUpdate *u, Bitmapset *hot_attrs, Bitmapset *key_attrs)
{
	Bitmapset  *all = bms_union(hot_attrs, key_attrs);
	Bitmapset  *modified = modified_columns(u, all);

	u->c.mode = bms_overlap(modified, key_attrs) ? LockTupleExclusive : LockTupleNoKeyExclusive;
	u->hot_possible = !bms_overlap(modified, hot_attrs);
	bms_free(all);
	bms_free(modified);
}

/* The xmax of both versions; who locks the old one locks the new one. */
static void
compute_xmaxes(QdbUpdate *u)
{
	QdbXmax		held = QdbRowXmax(&u->c.row);

	MultiXactIdSetOldestMember();
	qdb_compute_xmax(held, u->c.xid, u->c.mode, true, &u->old_xmax);
	u->new_xmax = held;
	if ((held.mask & QDB_X_ABORTED) || (u->c.checked_lockers && !u->c.locker_remains) ||
		!TransactionIdIsValid(held.xid))
		u->new_xmax.mask = QDB_X_ABORTED;
	else if (held.mask & QDB_X_MULTI)
		u->new_xmax.mask = qdb_multi_mask(held.xid);
	else
		u->new_xmax.mask = QDB_X_KEYSHR | QDB_X_LOCK_ONLY;
}

/* ---- the plan ---- */

static bool
plan_new_xx(QdbUpdate *u, BlockNumber blk)
{
	QdbChange  *c = &u->c;
	QdbAllocMark before = QdbAllocGetMark(&u->a);
	QdbXact		want;
	BlockNumber own;

	memset(&u->new_xx, 0, sizeof(u->new_xx));
	if (u->new_xmax.mask & QDB_X_ABORTED)
		return true;
	QdbXactInit(&want, u->new_xmax.xid, FirstCommandId, u->new_xmax.mask);
	u->new_xx.x = want;
	u->new_xx.idx = qdb_alloc_entry(&u->a, &want, QDB_SHARE_EXACT, 0, &u->new_xx.fresh);
	if (u->new_xx.idx > 0 && u->a.used <= u->a.avail)
		return true;
	QdbAllocReset(&u->a, before);

	/* The page is full with the row alone. */
	own = u->a.empty ? InvalidBlockNumber : QdbPageSpecial(u->a.page)->overflow;
	if (!c->olocked || (own != InvalidBlockNumber && own != BufferGetBlockNumber(c->obuf)))
		return false;
	u->new_xx.fresh = u->new_xx.overflow = true;
	u->new_xx.idx = qdb_overflow_find_free(BufferGetPage(c->obuf), 0);
	if (u->old_xx.overflow && u->new_xx.idx == u->old_xx.idx)
		u->new_xx.idx = qdb_overflow_find_free(BufferGetPage(c->obuf), u->new_xx.idx);
	return u->new_xx.idx > 0;
}

static bool
plan_inserter(QdbUpdate *u)
{
	QdbXact		want;

	memset(&u->new_xi, 0, sizeof(u->new_xi));
	QdbXactInit(&want, u->c.xid, u->c.cid, QDB_X_PLAIN);
	u->new_xi.x = want;
	u->new_xi.idx = qdb_alloc_entry(&u->a, &want, qdb_inserter_share(u->c.xid), 0, &u->new_xi.fresh);
	return u->new_xi.idx > 0;
}

/* The new version on the page of the old one. */
static bool
plan_same_page(QdbUpdate *u, Size reserve)
{
	QdbXact		want;

	u->newbuf = u->c.buf;
	u->hot = u->hot_possible;
	qdb_alloc_init(&u->a, u->c.view.page, u->form.len);
	if (u->a.off == InvalidOffsetNumber || u->a.used > u->a.avail)
		return false;
	QdbXactInit(&want, u->old_xmax.xid, u->c.cid,
				u->old_xmax.mask | QDB_X_UPDATED | (u->hot ? QDB_X_HOT : 0));
	ItemPointerSet(&want.next, u->c.blk, u->a.off);
	if (!qdb_try_plan_xx(&u->c, &u->a, &want, &u->old_xx))
		return false;
	u->shared = !u->old_xx.overflow && !(want.mask & QDB_X_MULTI);
	if (u->shared)
	{
		memset(&u->new_xi, 0, sizeof(u->new_xi));
		u->new_xi.idx = u->old_xx.idx;
	}
	else if (!plan_inserter(u))
		return false;
	if (!plan_new_xx(u, u->c.blk) || !qdb_alloc_fits(&u->a, reserve))
		return false;
	if (u->a.cap != u->a.old_cap)
		u->old_xx.cap = u->a.cap;
	return true;
}

static void
drop_prune(QdbUpdate *u)
{
	if (u->prune == NULL)
		return;
	pfree(u->prune);
	pfree(u->pruned);
	u->prune = NULL;
}

/* The new version on a copy of the page that was pruned. */
static bool
plan_on_copy(QdbUpdate *u, QdbView *real, QdbPrune *prune, Page copy, Size reserve)
{
	QdbChange  *c = &u->c;

	memcpy(copy, real->page, BLCKSZ);
	qdb_page_prune(copy, &prune->list);
	qdb_view_init_copy(&c->view, c->rel, copy, c->blk);
	return qdb_view_row(&c->view, c->off, &c->row) && plan_same_page(u, reserve);
}

/*
 * The page has no room: perhaps it has if what is dead goes.  Both go into one
 * record.  Where that is not enough, a HOT update also gets the entries that no
 * row names and half of the reserve: it gives back as much as it takes when the
 * page is pruned next, and what goes to another page needs new index entries.
 */
static bool
plan_with_prune(QdbUpdate *u)
{
	QdbChange  *c = &u->c;
	Size		hot_len = u->hot_possible ? u->form.len : 0;
	QdbView		real = c->view;
	QdbRow		row = c->row;
	bool		planned = false;
	QdbPrune   *prune;
	char	   *copy;

	if (!qdb_prune_may_help_update(&real, hot_len))
		return false;
	prune = palloc(sizeof(QdbPrune));
	copy = palloc(BLCKSZ);
	if (qdb_prune_for_update(prune, &real, hot_len))
	{
		planned = prune->removes && plan_on_copy(u, &real, prune, (Page) copy, QDB_RESERVE);
		if (!planned && u->hot_possible)
		{
			prune->list.tight = true;
			planned = plan_on_copy(u, &real, prune, (Page) copy, QDB_RESERVE / 2);
		}
	}
	if (planned)
	{
		u->a.page = real.page;
		u->prune = prune;
		u->pruned = copy;
		if (RelationNeedsWAL(c->rel))
			qdb_prune_write(prune);
	}
	else
	{
		pfree(prune);
		pfree(copy);
	}
	c->view = real;
	c->row = row;
	return planned;
}

/* Both pages are locked. */
static bool
plan_two_pages(QdbUpdate *u)
{
	Page		page = BufferGetPage(u->newbuf);
	BlockNumber blk = BufferGetBlockNumber(u->newbuf);
	QdbXact		want;

	u->hot = u->shared = false;
	qdb_alloc_init(&u->a, page, u->form.len);
	if (u->a.off == InvalidOffsetNumber)
		return false;
	QdbXactInit(&want, u->old_xmax.xid, u->c.cid, u->old_xmax.mask | QDB_X_UPDATED);
	ItemPointerSet(&want.next, blk, u->a.off);
	qdb_change_alloc_init(&u->c, &u->b, 0);
	if (!qdb_try_plan_xx(&u->c, &u->b, &want, &u->old_xx) || !qdb_alloc_fits(&u->b, 0))
		return false;
	if (u->b.cap != u->b.old_cap)
		u->old_xx.cap = u->b.cap;
	if (!plan_inserter(u) || !plan_new_xx(u, blk) || !qdb_alloc_fits(&u->a, 0))
		return false;
	if (u->a.empty || u->a.cap != u->a.old_cap)
		u->new_xi.cap = u->a.cap;
	return true;
}

/*
 * The page that took the last row, if it can be locked at once: then the old
 * page need not be unlocked, and its row not be locked in between.
 */
static bool
plan_target_page(QdbUpdate *u)
{
	QdbChange  *c = &u->c;
	BlockNumber blk = RelationGetTargetBlock(c->rel);
	Size		want = u->form.len + RelationGetTargetPageFreeSpace(c->rel, HEAP_DEFAULT_FILLFACTOR) +
	sizeof(QdbXact);
	Size		room;
	Buffer		buf;

	if (blk == InvalidBlockNumber || blk == c->blk)
		return false;
	buf = ReadBuffer(c->rel, blk);

	/* Out of order, so only if no one has it. */
	if (ConditionalLockBuffer(buf))
	{
		Page		page = BufferGetPage(buf);

		u->newbuf = buf;
		if (qdb_page_is_known(page) && !PageIsNew(page) && !PageIsAllVisible(page) && qdb_page_has_room(page, want, &room) &&
			plan_two_pages(u))
			return true;
		LockBuffer(buf, BUFFER_LOCK_UNLOCK);
	}
	ReleaseBuffer(buf);
	u->newbuf = InvalidBuffer;
	return false;
}

/* Locks both pages and plans; false: something was in the way. */
static bool
try_two_pages(QdbUpdate *u)
{
	QdbChange  *c = &u->c;
	Size		extra = sizeof(QdbXact) * 2;
	bool		planned;

	u->newbuf = qdb_get_buffer(c->rel, u->form.len > QDB_MAX_ROW ? u->form.len :
							   Min(u->form.len + extra, QDB_MAX_ROW),
							   c->buf, 0, NULL, &u->new_vmbuffer, &c->vmbuffer);
	if (!qdb_change_refresh(c))
		elog(ERROR, "row (%u,%u) of table \"%s\" has gone while it was locked", c->blk, c->off,
			 RelationGetRelationName(c->rel));
	if (c->obuf != InvalidBuffer)
		qdb_overflow_lock(c, 2);
	planned = u->newbuf == c->buf ? plan_same_page(u, QDB_RESERVE) : plan_two_pages(u);
	if (!planned)
	{
		if (u->newbuf != c->buf)
			UnlockReleaseBuffer(u->newbuf);
		u->newbuf = InvalidBuffer;
	}
	return planned;
}

/*
 * Locks the old row, does what needs the page unlocked, and finds a place for
 * the new version.  Returns with all pages locked and the plan made.
 */
static void
find_place(QdbUpdate *u, bool toast)
{
	QdbChange  *c = &u->c;
	uint8	   *old = memcpy(palloc(c->row.len), c->row.data, c->row.len);
	Size		old_len = c->row.len;
	QdbXmax		locked;

	qdb_compute_xmax(QdbRowXmax(&c->row), c->xid, c->mode, false, &locked);
	qdb_set_lock(c, locked);
	qdb_change_unlock(c);

	if (toast)
		qdb_toast_form(c->rel, &u->form, old, old_len, 0);
	pfree(old);
	for (;;)
	{
		bool		planned;

		CHECK_FOR_INTERRUPTS();
		if (toast)
		{
			/* It may fit now. */
			if (!qdb_change_lock(c))
				elog(ERROR, "row (%u,%u) of table \"%s\" has gone while it was locked", c->blk, c->off,
					 RelationGetRelationName(c->rel));
			if (qdb_change_pin_vm(c))
				continue;
			planned = plan_same_page(u, QDB_RESERVE) || plan_with_prune(u);
			if (!planned)
			{
				qdb_change_unlock(c);
				toast = false;
				continue;
			}
		}
		else
			planned = try_two_pages(u);
		if (planned && qdb_change_same_xmax(c, &locked))
			return;
		if (planned)
		{
			/* Someone shares the lock of the row: keep it for both versions. */
			locked = QdbRowXmax(&c->row);
			c->checked_lockers = false;
			compute_xmaxes(u);
		}
		if (planned && u->newbuf != c->buf)
			UnlockReleaseBuffer(u->newbuf);
		drop_prune(u);
		qdb_change_unlock(c);
		if (!planned)
			qdb_overflow_acquire(c, 2);
	}
}

/* ---- carrying it out ---- */

static void
apply(QdbUpdate *u)
{
	QdbChange  *c = &u->c;
	bool		same = u->newbuf == c->buf;
	Page		page = BufferGetPage(u->newbuf);
	BlockNumber blk = BufferGetBlockNumber(u->newbuf);
	uint8	   *row = u->form.data;
	Page		opage = c->olocked ? BufferGetPage(c->obuf) : NULL;
	BlockNumber oblk = c->olocked ? BufferGetBlockNumber(c->obuf) : InvalidBlockNumber;
	bool		vm_cleared;
	bool		old_vm_cleared = false;

	QdbFormSetInserter(&u->form, u->new_xi.idx);
	row[QDB_ROW_FLAGS] |= QDB_R_UPDATED | (u->hot ? QDB_R_HEAP_ONLY : 0);

	START_CRIT_SECTION();

	PageSetPrunable(c->view.page, c->xid);
	if (!same)
	{
		PageSetFull(c->view.page);
		old_vm_cleared = qdb_clear_all_visible(c->rel, c->buf, c->vmbuffer);
		vm_cleared = qdb_clear_all_visible(c->rel, u->newbuf, u->new_vmbuffer);
		qdb_alloc_apply(&u->b);
	}
	else
	{
		vm_cleared = qdb_clear_all_visible(c->rel, c->buf, c->vmbuffer);
		if (u->prune != NULL)
		{
			memcpy(c->view.page, u->pruned, BLCKSZ);
			((PageHeader) c->view.page)->pd_prune_xid = u->prune->new_prune_xid;
			PageClearFull(c->view.page);
			PageClearAllVisible(c->view.page);
			PageSetPrunable(c->view.page, c->xid);
		}
	}
	qdb_alloc_apply(&u->a);
	u->next = u->prune != NULL && u->a.off == qdb_page_first_free_offset(page);
	qdb_apply_xx(c->view.page, c->blk, c->off, &u->old_xx, opage, oblk);
	qdb_apply_entry(page, &u->new_xi);
	qdb_page_put_row(page, u->a.off, row, u->form.len);
	if (u->new_xx.idx)
		qdb_apply_xx(page, blk, u->a.off, &u->new_xx, opage, oblk);
	MarkBufferDirty(c->buf);
	if (!same)
		MarkBufferDirty(u->newbuf);
	if (u->old_xx.overflow || u->new_xx.overflow)
		MarkBufferDirty(c->obuf);
	if (RelationNeedsWAL(c->rel))
		qdb_log_update(u, vm_cleared, old_vm_cleared);

	END_CRIT_SECTION();
}

static void
finish(QdbUpdate *u, TupleTableSlot *slot)
{
	QdbChange  *c = &u->c;
	ItemPointerData tid;

	ItemPointerSet(&tid, BufferGetBlockNumber(u->newbuf), u->a.off);
	if (u->newbuf != c->buf)
		UnlockReleaseBuffer(u->newbuf);
	qdb_change_unlock(c);
	if (u->new_vmbuffer != InvalidBuffer)
		ReleaseBuffer(u->new_vmbuffer);
	qdb_slot_set_system(slot, c->rel, &tid, c->xid, c->cid,
						(u->new_xmax.mask & QDB_X_ABORTED) ? InvalidTransactionId : u->new_xmax.xid);
	pgstat_count_heap_update(c->rel, u->hot);
	if (u->prune != NULL)
	{
		qdb_prune_report(c->rel, u->prune);
		drop_prune(u);
	}
}

TM_Result
qdb_tuple_update(Relation rel, ItemPointer otid, TupleTableSlot *slot, CommandId cid,
				 Snapshot snapshot, Snapshot crosscheck, bool wait, TM_FailureData *tmfd,
				 LockTupleMode *lockmode, bool *update_indexes)
{
	/* Lists that may need the catalog are fetched before any page is locked. */
	Bitmapset  *hot_attrs = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_ALL);
	Bitmapset  *key_attrs = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_KEY);
	QdbUpdate	u = {0};
	TM_Result	result = TM_Deleted;

	if (IsInParallelMode())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot update tuples during a parallel operation")));

	*update_indexes = false;
	u.c.xid = GetCurrentTransactionId();
	u.c.cid = cid;
	u.c.oper = XLTW_Update;
	u.new_vmbuffer = InvalidBuffer;
	qdb_form_row(rel, slot, &u.form);
	if (qdb_change_open(&u.c, rel, otid))
	{
		classify(&u, hot_attrs, key_attrs);
		*lockmode = u.c.mode;
		result = qdb_change_check(&u.c, crosscheck, wait, 1, tmfd);
	}
	else
	{
		qdb_change_unlock(&u.c);
		tmfd->ctid = *otid;
		tmfd->xmax = InvalidTransactionId;
		tmfd->cmax = InvalidCommandId;
	}
	if (result == TM_Ok)
	{
		bool		toast = (u.c.row.data[QDB_ROW_FLAGS] & QDB_R_EXTERNAL) ||
		qdb_form_needs_toast(rel, &u.form);

		compute_xmaxes(&u);
		if (toast || (!plan_same_page(&u, QDB_RESERVE) && !plan_with_prune(&u) && !plan_target_page(&u)))
			find_place(&u, toast);
		CheckForSerializableConflictIn(rel, &u.c.tid, u.c.blk);
		apply(&u);
		finish(&u, slot);
		*update_indexes = !u.hot;
	}
	qdb_change_close(&u.c);
	qdb_form_free(&u.form);
	bms_free(hot_attrs);
	bms_free(key_attrs);
	return result;
}
