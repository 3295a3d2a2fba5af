/*-------------------------------------------------------------------------
 *
 * change.c
 *		The steps that DELETE, UPDATE and row locks have in common, and DELETE.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/change.h"

#include "access/visibilitymap.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/predicate.h"

/* The page was locked by other means: looks the row up. */
bool
qdb_change_refresh(QdbChange *c)
{
	qdb_view_done(&c->view);
	qdb_view_init(&c->view, c->rel, c->buf);
	c->view.changing = true;
	c->have_refs = c->full = false;
	return qdb_view_row(&c->view, c->off, &c->row);
}

/* A plan for the row's page; which entries are in use is found out once. */
void
qdb_change_alloc_init(QdbChange *c, QdbAlloc *a, Size row_len)
{
	qdb_alloc_init(a, c->view.page, row_len);
	if (c->have_refs)
	{
		memcpy(a->refs, c->refs, sizeof(a->refs));
		a->have_refs = true;
	}
}

/* Locks the page and looks the row up; false: there is none. */
bool
qdb_change_lock(QdbChange *c)
{
	LockBuffer(c->buf, BUFFER_LOCK_EXCLUSIVE);
	return qdb_change_refresh(c);
}

void
qdb_change_unlock(QdbChange *c)
{
	qdb_overflow_unlock(c);
	LockBuffer(c->buf, BUFFER_LOCK_UNLOCK);
}

/*
 * Pins and locks the page of a row.  The caller has set xid, cid, mode and oper
 * or does so before it needs them.
 */
bool
qdb_change_open(QdbChange *c, Relation rel, ItemPointer tid)
{
	c->rel = rel;
	c->tid = *tid;
	c->blk = ItemPointerGetBlockNumber(tid);
	c->off = ItemPointerGetOffsetNumber(tid);
	c->vmbuffer = c->obuf = InvalidBuffer;
	c->olocked = c->have_tuplock = false;
	c->checked_lockers = c->locker_remains = false;
	c->view.overflow = NULL;
	c->buf = qdb_read_buffer(rel, c->blk, NULL);

	/* Not under the lock: the map may have to be read. */
	if (PageIsAllVisible(BufferGetPage(c->buf)))
		visibilitymap_pin(rel, c->blk, &c->vmbuffer);
	return qdb_change_lock(c);
}

/* Gives everything back; the page is not locked. */
void
qdb_change_close(QdbChange *c)
{
	qdb_view_done(&c->view);
	ReleaseBuffer(c->buf);
	if (c->vmbuffer != InvalidBuffer)
		ReleaseBuffer(c->vmbuffer);
	if (c->obuf != InvalidBuffer)
		ReleaseBuffer(c->obuf);
	if (c->have_tuplock)
		qdb_release_tuplock(c->rel, &c->tid, c->mode);
	c->have_tuplock = false;
}

/*
 * If the page turned out to be all-visible, pins its page of the map.  True:
 * the lock was dropped for it, and the caller starts over.
 */
bool
qdb_change_pin_vm(QdbChange *c)
{
	if (c->vmbuffer != InvalidBuffer || !PageIsAllVisible(BufferGetPage(c->buf)))
		return false;
	qdb_change_unlock(c);
	visibilitymap_pin(c->rel, c->blk, &c->vmbuffer);
	return true;
}

/* Has no one changed who holds the row? */
bool
qdb_change_same_xmax(const QdbChange *c, const QdbXmax *xmax)
{
	const uint16 bits = QDB_X_MULTI | QDB_X_LOCK_ONLY | QDB_X_SHR;

	return QdbRowRawXmax(&c->row) == xmax->xid &&
		(QdbRowXmaxMask(&c->row) & bits) == (xmax->mask & bits);
}

void
qdb_change_failure(QdbChange *c, TM_Result result, TM_FailureData *tmfd)
{
	QdbRowCtid(&c->row, &tmfd->ctid);
	tmfd->xmax = qdb_row_update_xid(&c->row);
	tmfd->cmax = result == TM_SelfModified ? QdbRowCmax(&c->row) : InvalidCommandId;
}

TM_Result
qdb_gone_result(const QdbRow *r)
{
	return QdbRowXmaxIs(r, QDB_X_UPDATED | QDB_X_MOVED) ? TM_Updated : TM_Deleted;
}

/* After its xmax has ended, what did it leave? */
void
qdb_hint_xmax(QdbRow *r, TransactionId xid)
{
	if (r->xx->mask & QDB_X_HINTS)
		return;
	if (!(r->xx->mask & QDB_X_LOCK_ONLY) && TransactionIdDidCommit(xid))
		qdb_set_hint(r, r->xx, QDB_X_COMMITTED, xid);
	else
		qdb_set_hint(r, r->xx, QDB_X_ABORTED, InvalidTransactionId);
}

typedef enum
{
	HOLDERS_GONE,
	HOLDERS_WON,				/* the row was updated or deleted */
	HOLDERS_CHANGED,			/* look again */
	HOLDERS_ROW_GONE
} Holders;

static Holders
wait_for_multi(QdbChange *c, QdbXmax held)
{
	bool		member = false;
	int			remain;

	if (qdb_multi_conflicts(held.xid, held.mask, c->mode, &member))
	{
		qdb_change_unlock(c);
		/* Who has a lock already must not queue: others wait for it. */
		if (!member)
			qdb_acquire_tuplock(c->rel, &c->tid, c->mode, LockWaitBlock, &c->have_tuplock);
		qdb_multi_wait(held.xid, qdb_status_of_mode(c->mode, true), held.mask, false,
					   c->rel, &c->tid, c->oper, &remain);
		c->checked_lockers = true;
		c->locker_remains = remain != 0;
		if (!qdb_change_lock(c))
			return HOLDERS_ROW_GONE;
		if (!qdb_change_same_xmax(c, &held))
			return HOLDERS_CHANGED;
	}
	/* An updater that a crash ended did not abort as far as pg_xact says. */
	return qdb_row_only_locked(&c->row) ? HOLDERS_GONE : HOLDERS_WON;
}

/*
 * Someone holds the row that we want to update or delete: waits, unless that is
 * not necessary.  The tuple lock makes us next in line.
 */
static Holders
wait_for_holders(QdbChange *c)
{
	QdbXmax		held = QdbRowXmax(&c->row);

	if (held.mask & QDB_X_MULTI)
		return wait_for_multi(c, held);
	if (TransactionIdIsCurrentTransactionId(held.xid) ||
		((held.mask & QDB_X_LOCK_ONLY) && (held.mask & QDB_X_SHR) == QDB_X_KEYSHR &&
		 c->mode == LockTupleNoKeyExclusive))
	{
		/* Our own lock, or one that does not conflict: it is kept. */
		c->checked_lockers = c->locker_remains = true;
		return HOLDERS_GONE;
	}
	qdb_change_unlock(c);
	qdb_acquire_tuplock(c->rel, &c->tid, c->mode, LockWaitBlock, &c->have_tuplock);
	XactLockTableWait(held.xid, c->rel, &c->tid, c->oper);
	c->checked_lockers = true;
	if (!qdb_change_lock(c))
		return HOLDERS_ROW_GONE;
	if (!qdb_change_same_xmax(c, &held))
		return HOLDERS_CHANGED;
	qdb_hint_xmax(&c->row, held.xid);
	return QdbRowNoXmax(&c->row) ? HOLDERS_GONE : HOLDERS_WON;
}

/*
 * Makes sure that a row's xmax finds its place: as many new entries on its page,
 * if need be pruned, or overflow entries on a page that is locked then.  True: the lock was
 * dropped, and the caller starts over.
 */
bool
qdb_change_make_room(QdbChange *c, int entries)
{
	QdbAlloc	a;
	QdbXact		any;
	bool		fresh;
	bool		fits = !(c->row.data[QDB_ROW_FLAGS] & QDB_R_XX_OVERFLOW);

	/*
	 * What is wanted may find an entry to share; then this asks for more than
	 * is needed.
	 */
	if (fits && entries == 1 && QdbRowXX(c->row.data) == 0 && qdb_page_is_crowded(c->view.page))
	{
		c->full = true;
		fits = false;
	}
	QdbXactInit(&any, InvalidTransactionId, 0, 0);
	qdb_change_alloc_init(c, &a, 0);
	for (int i = 0; i < entries && fits; i++)
		fits = qdb_alloc_entry(&a, &any, QDB_SHARE_NONE, i == 0 ? QdbRowXX(c->row.data) : 0, &fresh) > 0;
	if (a.have_refs && !c->have_refs)
	{
		memcpy(c->refs, a.refs, sizeof(c->refs));
		c->have_refs = true;
	}
	if (fits && qdb_alloc_fits(&a, 0))
		return false;
	if (!c->olocked && !(c->row.data[QDB_ROW_FLAGS] & QDB_R_XX_OVERFLOW) &&
		qdb_prune_for_change(c->rel, c->buf))
	{
		/* The row has moved on its page. */
		qdb_change_unlock(c);
		return true;
	}
	qdb_overflow_pin_own(c);
	if (qdb_overflow_lock(c, (c->row.data[QDB_ROW_FLAGS] & QDB_R_XX_OVERFLOW) ? entries - 1 : entries))
		return false;
	qdb_change_unlock(c);
	qdb_overflow_acquire(c, entries);
	return true;
}

/*
 * May the row be changed, waiting where that is asked for?  With TM_Ok the page
 * is locked, its map page pinned if it is needed, and there is room for the new
 * xmax.  Otherwise the page is unlocked and *tmfd filled.
 */
TM_Result
qdb_change_check(QdbChange *c, Snapshot crosscheck, bool wait, int entries, TM_FailureData *tmfd)
{
	TM_Result	result;

	for (;;)
	{
		bool		exists = true;
		Holders		holders;

		c->checked_lockers = c->locker_remains = false;
		result = qdb_row_satisfies_update(&c->row, c->cid);
		if (result == TM_Invisible)
		{
			qdb_change_unlock(c);
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 c->oper == XLTW_Delete ? errmsg("attempted to delete invisible tuple") :
					 errmsg("attempted to update invisible tuple")));
		}
		if (result == TM_BeingModified && wait)
		{
			holders = wait_for_holders(c);
			if (holders == HOLDERS_CHANGED)
				continue;
			exists = holders != HOLDERS_ROW_GONE;
			result = holders == HOLDERS_GONE ? TM_Ok : exists ? qdb_gone_result(&c->row) : TM_Deleted;
		}
		if (result == TM_Ok && crosscheck != InvalidSnapshot && !qdb_row_visible(&c->row, crosscheck))
			result = TM_Updated;
		if (result != TM_Ok)
		{
			tmfd->ctid = c->tid;
			tmfd->xmax = InvalidTransactionId;
			tmfd->cmax = InvalidCommandId;
			if (exists)
				qdb_change_failure(c, result, tmfd);
			qdb_change_unlock(c);
			return result;
		}
		if (!qdb_change_pin_vm(c) && !qdb_change_make_room(c, entries))
			return TM_Ok;
		if (!qdb_change_lock(c))
			elog(ERROR, "row (%u,%u) of table \"%s\" has gone while it was changed", c->blk, c->off,
				 RelationGetRelationName(c->rel));
	}
}

/*
 * Where the row's new xmax goes.  False: neither the page nor a locked overflow
 * page has room.
 */
bool
qdb_try_plan_xx(QdbChange *c, QdbAlloc *a, const QdbXact *want, QdbEntry *e)
{
	bool		overflows = (c->row.data[QDB_ROW_FLAGS] & QDB_R_XX_OVERFLOW) != 0;

	/* What links to a version, or is about one, belongs to one row. */
	QdbShare	share = (want->mask & (QDB_X_UPDATED | QDB_X_MOVED)) ? QDB_SHARE_NONE : QDB_SHARE_EXACT;

	memset(e, 0, sizeof(*e));
	e->x = *want;
	if (!overflows && !(c->full && c->olocked))
	{
		QdbAllocMark before = QdbAllocGetMark(a);

		e->idx = qdb_alloc_entry(a, want, share, QdbRowXX(c->row.data), &e->fresh);
		if (e->idx > 0 && a->used <= a->avail)
			return true;
		QdbAllocReset(a, before);
	}
	if (!c->olocked)
		return false;
	e->fresh = e->overflow = true;
	e->idx = overflows ? QdbRowXX(c->row.data) :
		qdb_overflow_find_free(BufferGetPage(c->obuf), 0);
	return e->idx > 0;
}

void
qdb_plan_xx(QdbChange *c, QdbAlloc *a, const QdbXact *want, QdbEntry *e)
{
	qdb_change_alloc_init(c, a, 0);
	if (!qdb_try_plan_xx(c, a, want, e) || !qdb_alloc_fits(a, 0))
		elog(ERROR, "no room for the xmax of row (%u,%u)", c->blk, c->off);
	if (a->cap != a->old_cap)
		e->cap = a->cap;
}

/* In a critical section. */
void
qdb_change_set_xx(QdbChange *c, const QdbAlloc *a, const QdbEntry *e)
{
	qdb_alloc_apply(a);
	qdb_apply_xx(c->view.page, c->blk, c->off, e, e->overflow ? BufferGetPage(c->obuf) : NULL,
				 e->overflow ? BufferGetBlockNumber(c->obuf) : InvalidBlockNumber);
	MarkBufferDirty(c->buf);
	if (e->overflow)
		MarkBufferDirty(c->obuf);
}

/* DELETE and LOCK records. */
void
qdb_log_xx(QdbChange *c, uint8 op, const QdbEntry *e, bool vm_cleared)
{
	char		data[64];
	char		odata[64];
	QdbRecWriter w;
	QdbXact		def;
	XLogRecPtr	lsn;

	QdbXactInit(&def, GetCurrentTransactionIdIfAny(), FirstCommandId, QdbDefaultXmaxMask(op));
	QdbRecWriterInit(&w, data, sizeof(data));
	qdb_rec_write2(&w, c->off);
	qdb_rec_write_entry(&w, e, &def);
	XLogBeginInsert();
	XLogRegisterBuffer(QDB_BLOCK_PAGE, c->buf, REGBUF_STANDARD);
	XLogRegisterBufData(QDB_BLOCK_PAGE, w.start, w.p - w.start);
	if (e->overflow)
	{
		QdbRecWriterInit(&w, odata, sizeof(odata));
		qdb_rec_write1(&w, 1);
		qdb_rec_write2(&w, c->off);
		qdb_rec_write_entry(&w, e, &def);
		XLogRegisterBuffer(QDB_BLOCK_OVERFLOW, c->obuf, 0);
		XLogRegisterBufData(QDB_BLOCK_OVERFLOW, w.start, w.p - w.start);
	}
	if (op == XLOG_QDB_DELETE)
		XLogSetRecordFlags(XLOG_INCLUDE_ORIGIN);
	lsn = qdb_xlog_insert(op | (vm_cleared ? XLOG_QDB_VM_CLEARED : 0));
	PageSetLSN(c->view.page, lsn);
	if (e->overflow)
		PageSetLSN(BufferGetPage(c->obuf), lsn);
}

/* ---- DELETE ---- */

static void
delete_row(QdbChange *c, bool changing_part)
{
	QdbXmax		new;
	QdbXact		want;
	QdbAlloc	a;
	QdbEntry	e;
	bool		vm_cleared;

	CheckForSerializableConflictIn(c->rel, &c->tid, c->blk);
	MultiXactIdSetOldestMember();
	qdb_compute_xmax(QdbRowXmax(&c->row), c->xid, LockTupleExclusive, true, &new);
	QdbXactInit(&want, new.xid, c->cid, new.mask | (changing_part ? QDB_X_MOVED : 0));
	qdb_plan_xx(c, &a, &want, &e);

	START_CRIT_SECTION();
	PageSetPrunable(c->view.page, c->xid);
	vm_cleared = qdb_clear_all_visible(c->rel, c->buf, c->vmbuffer);
	qdb_change_set_xx(c, &a, &e);
	if (RelationNeedsWAL(c->rel))
		qdb_log_xx(c, XLOG_QDB_DELETE, &e, vm_cleared);
	END_CRIT_SECTION();
}

TM_Result
qdb_tuple_delete(Relation rel, ItemPointer tid, CommandId cid, Snapshot snapshot, Snapshot crosscheck,
				 bool wait, TM_FailureData *tmfd, bool changing_part)
{
	QdbChange	c = {.xid = GetCurrentTransactionId(),.cid = cid,.mode = LockTupleExclusive,.oper = XLTW_Delete};
	TM_Result	result;
	uint8	   *copy = NULL;
	Size		len = 0;

	if (IsInParallelMode())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot delete tuples during a parallel operation")));

	if (!qdb_change_open(&c, rel, tid))
	{
		qdb_change_unlock(&c);
		qdb_change_close(&c);
		tmfd->ctid = *tid;
		tmfd->xmax = InvalidTransactionId;
		tmfd->cmax = InvalidCommandId;
		return TM_Deleted;
	}
	result = qdb_change_check(&c, crosscheck, wait, 1, tmfd);
	if (result == TM_Ok)
	{
		if (c.row.data[QDB_ROW_FLAGS] & QDB_R_EXTERNAL)
		{
			len = c.row.len;
			copy = memcpy(palloc(len), c.row.data, len);
		}
		delete_row(&c, changing_part);
		qdb_change_unlock(&c);
		if (copy != NULL)
			qdb_toast_delete(rel, copy, len, false);
		pgstat_count_heap_delete(rel);
	}
	qdb_change_close(&c);
	return result;
}
