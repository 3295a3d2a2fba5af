/*-------------------------------------------------------------------------
 *
 * insert.c
 *		INSERT, COPY and speculative insertion.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/wal.h"

#include "access/parallel.h"
#include "access/visibilitymap.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/predicate.h"

static void
refuse_in_worker(void)
{
	if (IsParallelWorker())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot insert tuples in a parallel worker")));
}

/* Takes the all-visible bits of a locked page away; in a critical section. */
bool
qdb_clear_all_visible(Relation rel, Buffer buf, Buffer vmbuffer)
{
	Page		page = BufferGetPage(buf);

	if (!PageIsAllVisible(page))
		return false;
	PageClearAllVisible(page);
	visibilitymap_clear(rel, BufferGetBlockNumber(buf), vmbuffer, VISIBILITYMAP_VALID_BITS);
	return true;
}

/*
 * A row's values as their difference to those of the row before it: a bit for
 * each byte, set where it is another, and these bytes.  0: that is not shorter,
 * or does not look as if it would be.
 */
static Size
diff_row(const uint8 *before, const uint8 *row, Size len, uint8 *out)
{
	Size		nbits = (len + 7) / 8;
	Size		n = nbits;

	if (len > XLQ_LIKE_BEFORE_MAX)
		return 0;
	memset(out, 0, nbits);
	for (Size i = 0; i < len; i += 8)
	{
		Size		step = Min(len - i, 8);

		if (step == 8 && memcmp(before + i, row + i, 8) == 0)
			continue;
		if (n + step >= len || n > nbits + 24 + i / 2)
			return 0;
		for (Size k = i; k < i + step; k++)
		{
			if (row[k] == before[k])
				continue;
			out[k >> 3] |= 1 << (k & 7);
			out[n++] = row[k];
		}
	}
	return n;
}

static void
log_insert(Relation rel, Buffer buf, const QdbEntry *e, OffsetNumber off, const uint8 *row, Size len,
		   bool init, bool vm_cleared)
{
	char		head[16];
	uint8		diff[XLQ_LIKE_BEFORE_MAX];
	Size		diff_len = 0;
	Size		before_len = 0;
	const uint8 *before = qdb_page_row_before(BufferGetPage(buf), off, &before_len);
	bool		same_natts = before != NULL && before[QDB_ROW_NATTS] == row[QDB_ROW_NATTS];
	QdbRecWriter w;
	XLogRecPtr	lsn;

	if (same_natts && before_len == len)
		diff_len = diff_row(before + QDB_ROW_HEADER, row + QDB_ROW_HEADER, len - QDB_ROW_HEADER, diff);
	QdbRecWriterInit(&w, head, sizeof(head));
	qdb_rec_write1(&w, (row[QDB_ROW_FLAGS] & XLQ_INSERT_ROW) | (e->fresh ? XLQ_INSERT_FRESH : 0) |
				   (e->cap > 0 ? XLQ_INSERT_CAP : 0) |
				   ((e->x.mask & QDB_X_SPECULATIVE) ? XLQ_INSERT_SPECULATIVE : 0) |
				   (same_natts ? XLQ_INSERT_SAME_NATTS : 0) |
				   (diff_len > 0 ? XLQ_INSERT_LIKE_BEFORE : 0));
	qdb_rec_write1(&w, e->idx);
	if (e->cap > 0)
		qdb_rec_write1(&w, e->cap);
	qdb_rec_write_offset(&w, off);
	if (!same_natts)
		qdb_rec_write1(&w, row[QDB_ROW_NATTS]);

	XLogBeginInsert();
	XLogRegisterBuffer(QDB_BLOCK_PAGE, buf, REGBUF_STANDARD | (init ? REGBUF_WILL_INIT : 0));
	XLogRegisterBufData(QDB_BLOCK_PAGE, w.start, w.p - w.start);
	if (diff_len > 0)
		XLogRegisterBufData(QDB_BLOCK_PAGE, (char *) diff, diff_len);
	else
		XLogRegisterBufData(QDB_BLOCK_PAGE, unconstify(char *, (const char *) row) + QDB_ROW_HEADER,
							len - QDB_ROW_HEADER);
	XLogSetRecordFlags(XLOG_INCLUDE_ORIGIN);
	lsn = qdb_xlog_insert(XLOG_QDB_INSERT | (vm_cleared ? XLOG_QDB_VM_CLEARED : 0));
	PageSetLSN(BufferGetPage(buf), lsn);
}

/*
 * Puts the row on a page.  token: of a speculative insertion, or 0.  Receives
 * the row's place in *tid.
 */
static void
insert_row(Relation rel, QdbForm *form, CommandId cid, int options, BulkInsertState bistate,
		   uint32 token, ItemPointer tid)
{
	TransactionId xid = GetCurrentTransactionId();
	Buffer		vmbuffer = InvalidBuffer;
	Buffer		buf;
	Page		page;
	QdbAlloc	alloc;
	QdbEntry	e = {0};
	bool		vm_cleared;

	if (qdb_form_needs_toast(rel, form))
		qdb_toast_form(rel, form, NULL, 0, options);

	buf = qdb_get_buffer(rel, form->len, InvalidBuffer, options, bistate, &vmbuffer, NULL);
	page = BufferGetPage(buf);

	/*
	 * A new row conflicts with locks on the whole table only, and no one can
	 * look at the page before it is there.
	 */
	CheckForSerializableConflictIn(rel, NULL, InvalidBlockNumber);

	QdbXactInit(&e.x, xid, cid, QDB_X_PLAIN);
	if (token != 0)
	{
		e.x.mask |= QDB_X_SPECULATIVE;
		ItemPointerSet(&e.x.next, token, SpecTokenOffsetNumber);
	}
	qdb_alloc_init(&alloc, page, form->len);
	if (!(options & HEAP_INSERT_FROZEN))
	{
		e.idx = qdb_alloc_entry(&alloc, &e.x, token ? QDB_SHARE_NONE : qdb_inserter_share(xid), 0, &e.fresh);
		if (e.idx == 0)
			elog(ERROR, "no entry for the row on page %u", BufferGetBlockNumber(buf));
	}
	if (!qdb_alloc_fits(&alloc, 0))
		elog(ERROR, "no room for the row on page %u", BufferGetBlockNumber(buf));
	if (alloc.empty || alloc.cap != alloc.old_cap)
		e.cap = alloc.cap;

	START_CRIT_SECTION();

	vm_cleared = qdb_clear_all_visible(rel, buf, vmbuffer);
	qdb_alloc_apply(&alloc);
	qdb_apply_entry(page, &e);
	QdbFormSetInserter(form, e.idx);
	qdb_page_put_row(page, alloc.off, form->data, form->len);
	MarkBufferDirty(buf);
	if (RelationNeedsWAL(rel))
		log_insert(rel, buf, &e, alloc.off, form->data, form->len, alloc.empty, vm_cleared);

	END_CRIT_SECTION();

	ItemPointerSet(tid, BufferGetBlockNumber(buf), alloc.off);
	UnlockReleaseBuffer(buf);
	if (vmbuffer != InvalidBuffer)
		ReleaseBuffer(vmbuffer);
	pgstat_count_heap_insert(rel, 1);
}

static void
insert_slot(Relation rel, TupleTableSlot *slot, CommandId cid, int options,
			BulkInsertState bistate, uint32 token)
{
	QdbForm		form;
	ItemPointerData tid;

	refuse_in_worker();
	qdb_form_row(rel, slot, &form);
	insert_row(rel, &form, cid, options, bistate, token, &tid);
	qdb_slot_set_system(slot, rel, &tid,
						(options & HEAP_INSERT_FROZEN) ? FrozenTransactionId : GetCurrentTransactionId(),
						cid, InvalidTransactionId);
	qdb_form_free(&form);
}

void
qdb_tuple_insert(Relation rel, TupleTableSlot *slot, CommandId cid, int options,
				 BulkInsertState bistate)
{
	insert_slot(rel, slot, cid, options, bistate, 0);
}

void
qdb_tuple_insert_speculative(Relation rel, TupleTableSlot *slot, CommandId cid, int options,
							 BulkInsertState bistate, uint32 token)
{
	insert_slot(rel, slot, cid, options | HEAP_INSERT_SPECULATIVE, bistate, token);
}

/* ---- many rows ---- */

/* As many rows as fit on a page; the plan says where they go. */
typedef struct MultiPlan
{
	QdbAlloc	alloc;
	QdbEntry	e;
	int			n;
	bool		contiguous;
	OffsetNumber offs[QDB_MAX_OFFSETS];
} MultiPlan;

/* The next offset after one that was planned. */
static OffsetNumber
next_planned(Page page, bool empty, OffsetNumber last)
{
	OffsetNumber max = empty ? 0 : PageGetMaxOffsetNumber(page);
	OffsetNumber off;

	if (!empty && PageHasFreeLinePointers(page))
		for (off = last + 1; off <= max; off++)
			if (!ItemIdIsUsed(PageGetItemId(page, off)))
				return off;
	off = Max(last, max) + 1;
	return off <= QDB_MAX_OFFSETS ? off : InvalidOffsetNumber;
}

static void
plan_multi(MultiPlan *plan, Page page, QdbForm *forms, int nforms, Size save, bool frozen,
		   TransactionId xid, CommandId cid)
{
	QdbAlloc   *a = &plan->alloc;
	Size		keep = QDB_RESERVE + save;

	memset(&plan->e, 0, sizeof(plan->e));
	QdbXactInit(&plan->e.x, xid, cid, QDB_X_PLAIN);
	qdb_alloc_init(a, page, forms[0].len);
	if (!frozen)
		plan->e.idx = qdb_alloc_entry(a, &plan->e.x, qdb_inserter_share(xid), 0, &plan->e.fresh);
	if ((!frozen && plan->e.idx == 0) || !qdb_alloc_fits(a, 0))
		elog(ERROR, "no room for the row");
	if (a->empty || a->cap != a->old_cap)
		plan->e.cap = a->cap;

	/* Entries that are free count for the reserve. */
	if (a->empty && a->cap >= QDB_FIRST_CAP)
		keep -= QDB_RESERVE;
	plan->offs[0] = a->off;
	plan->contiguous = true;
	for (plan->n = 1; plan->n < nforms && plan->n < QDB_MAX_OFFSETS; plan->n++)
	{
		OffsetNumber off = next_planned(page, a->empty, plan->offs[plan->n - 1]);
		Size		len = forms[plan->n].len;

		if (off == InvalidOffsetNumber)
			break;
		if (a->empty || off > PageGetMaxOffsetNumber(page))
			len += sizeof(ItemIdData);
		if (a->used + len + keep > a->avail)
			break;
		a->used += len;
		if (off != plan->offs[plan->n - 1] + 1)
			plan->contiguous = false;
		plan->offs[plan->n] = off;
	}
}

static void
log_multi(Relation rel, Buffer buf, const MultiPlan *plan, QdbForm *forms, bool all_frozen, bool vm_cleared)
{
	char		data[2 * BLCKSZ];
	uint8		flags = all_frozen ? XLQ_MULTI_ALL_FROZEN : 0;
	QdbRecWriter w;
	QdbXact		def;
	XLogRecPtr	lsn;

	QdbXactInit(&def, GetCurrentTransactionIdIfAny(), FirstCommandId, QDB_X_PLAIN);
	QdbRecWriterInit(&w, data, sizeof(data));
	qdb_rec_write1(&w, plan->contiguous ? XLQ_MULTI_CONTIGUOUS : 0);
	qdb_rec_write_entry(&w, &plan->e, &def);
	qdb_rec_write2(&w, plan->n);
	for (int i = 0; i < (plan->contiguous ? 1 : plan->n); i++)
		qdb_rec_write2(&w, plan->offs[i]);
	for (int i = 0; i < plan->n; i++)
	{
		qdb_rec_write2(&w, forms[i].len);
		qdb_rec_write1(&w, forms[i].data[QDB_ROW_FLAGS]);
		qdb_rec_write1(&w, forms[i].data[QDB_ROW_NATTS]);
		qdb_rec_write_bytes(&w, forms[i].data + QDB_ROW_HEADER, forms[i].len - QDB_ROW_HEADER);
	}

	XLogBeginInsert();
	XLogRegisterData((char *) &flags, sizeof(flags));
	XLogRegisterBuffer(QDB_BLOCK_PAGE, buf,
					   REGBUF_STANDARD | (plan->alloc.empty ? REGBUF_WILL_INIT : 0));
	XLogRegisterBufData(QDB_BLOCK_PAGE, w.start, w.p - w.start);
	XLogSetRecordFlags(XLOG_INCLUDE_ORIGIN);
	lsn = qdb_xlog_insert(XLOG_QDB_MULTI_INSERT | (vm_cleared ? XLOG_QDB_VM_CLEARED : 0));
	PageSetLSN(BufferGetPage(buf), lsn);
}

/* Puts the planned rows on the page.  True: all of the page is frozen now. */
static bool
put_multi(Relation rel, Buffer buf, MultiPlan *plan, QdbForm *forms, bool frozen, Buffer vmbuffer)
{
	Page		page = BufferGetPage(buf);
	bool		all_frozen = frozen && plan->alloc.empty;
	bool		vm_cleared = false;

	START_CRIT_SECTION();

	/* Frozen rows do not change that all see all rows. */
	if (!frozen || plan->alloc.empty)
		vm_cleared = qdb_clear_all_visible(rel, buf, vmbuffer);
	qdb_alloc_apply(&plan->alloc);
	qdb_apply_entry(page, &plan->e);
	for (int i = 0; i < plan->n; i++)
	{
		QdbFormSetInserter(&forms[i], plan->e.idx);
		qdb_page_put_row(page, plan->offs[i], forms[i].data, forms[i].len);
	}
	if (all_frozen)
		PageSetAllVisible(page);
	MarkBufferDirty(buf);
	if (RelationNeedsWAL(rel))
		log_multi(rel, buf, plan, forms, all_frozen, vm_cleared);

	END_CRIT_SECTION();
	return all_frozen;
}

void
qdb_multi_insert(Relation rel, TupleTableSlot **slots, int nslots, CommandId cid, int options,
				 BulkInsertState bistate)
{
	TransactionId xid = GetCurrentTransactionId();
	Size		save = RelationGetTargetPageFreeSpace(rel, HEAP_DEFAULT_FILLFACTOR);
	bool		frozen = (options & HEAP_INSERT_FROZEN) != 0;
	Buffer		vmbuffer = InvalidBuffer;
	QdbForm    *forms;

	refuse_in_worker();
	forms = palloc(nslots * sizeof(QdbForm));
	for (int i = 0; i < nslots; i++)
	{
		qdb_form_row(rel, slots[i], &forms[i]);
		if (qdb_form_needs_toast(rel, &forms[i]))
			qdb_toast_form(rel, &forms[i], NULL, 0, options);
	}

	/* Early only to save work; the one at the end is what counts. */
	CheckForSerializableConflictIn(rel, NULL, InvalidBlockNumber);

	for (int done = 0; done < nslots;)
	{
		Buffer		buf;
		BlockNumber blk;
		MultiPlan	plan;

		CHECK_FOR_INTERRUPTS();
		buf = qdb_get_buffer(rel, forms[done].len, InvalidBuffer, options, bistate, &vmbuffer, NULL);
		blk = BufferGetBlockNumber(buf);
		plan_multi(&plan, BufferGetPage(buf), forms + done, nslots - done, save, frozen, xid, cid);
		if (put_multi(rel, buf, &plan, forms + done, frozen, vmbuffer))
			visibilitymap_set(rel, blk, buf, InvalidXLogRecPtr, vmbuffer, InvalidTransactionId,
							  VISIBILITYMAP_ALL_VISIBLE | VISIBILITYMAP_ALL_FROZEN);
		UnlockReleaseBuffer(buf);
		for (int i = 0; i < plan.n; i++)
		{
			ItemPointerData tid;

			ItemPointerSet(&tid, blk, plan.offs[i]);
			qdb_slot_set_system(slots[done + i], rel, &tid, frozen ? FrozenTransactionId : xid, cid,
								InvalidTransactionId);
		}
		done += plan.n;
	}
	if (vmbuffer != InvalidBuffer)
		ReleaseBuffer(vmbuffer);

	/* A scan may have locked the table since, and not have seen the rows. */
	CheckForSerializableConflictIn(rel, NULL, InvalidBlockNumber);
	for (int i = 0; i < nslots; i++)
		qdb_form_free(&forms[i]);
	pfree(forms);
	pgstat_count_heap_insert(rel, nslots);
}

/* ---- speculative insertion ---- */

/*
 * Ends a speculative insertion: the row stays, or is dead for everyone at once,
 * also if this transaction commits.
 */
void
qdb_tuple_complete_speculative(Relation rel, TupleTableSlot *slot, uint32 token, bool succeeded)
{
	ItemPointer tid = &slot->tts_tid;
	Buffer		buf = qdb_read_buffer(rel, ItemPointerGetBlockNumber(tid), NULL);
	Page		page = BufferGetPage(buf);
	QdbView		view;
	QdbRow		row;
	uint8		kind = succeeded ? XLQ_MISC_CONFIRM : XLQ_MISC_ABORT;
	uint8	   *copy = NULL;
	OffsetNumber off = ItemPointerGetOffsetNumber(tid);

	LockBuffer(buf, BUFFER_LOCK_EXCLUSIVE);
	qdb_view_init(&view, rel, buf);
	if (!qdb_view_row(&view, off, &row) || row.xi == NULL ||
		!(row.xi->mask & QDB_X_SPECULATIVE) ||
		!TransactionIdIsCurrentTransactionId(row.xi->xid))
		elog(ERROR, "row is not a speculative insertion of this transaction");
	if (!succeeded && (row.data[QDB_ROW_FLAGS] & QDB_R_EXTERNAL))
	{
		copy = palloc(row.len);
		memcpy(copy, row.data, row.len);
	}

	START_CRIT_SECTION();

	qdb_apply_speculative(page, off, succeeded);
	if (!succeeded)
		PageSetPrunable(page, TransactionIdPrecedes(TransactionXmin, rel->rd_rel->relfrozenxid) ?
						rel->rd_rel->relfrozenxid : TransactionXmin);
	MarkBufferDirty(buf);
	if (RelationNeedsWAL(rel))
	{
		XLogRecPtr	lsn;

		XLogBeginInsert();
		XLogRegisterData((char *) &kind, sizeof(kind));
		XLogRegisterBuffer(QDB_BLOCK_PAGE, buf, REGBUF_STANDARD);
		XLogRegisterBufData(QDB_BLOCK_PAGE, (char *) &off, sizeof(off));
		XLogSetRecordFlags(XLOG_INCLUDE_ORIGIN);
		lsn = qdb_xlog_insert(XLOG_QDB_MISC);
		PageSetLSN(page, lsn);
	}

	END_CRIT_SECTION();

	qdb_view_done(&view);
	UnlockReleaseBuffer(buf);
	if (succeeded)
		return;
	if (copy != NULL)
		qdb_toast_delete(rel, copy, row.len, true);
	pgstat_count_heap_delete(rel);
}

/* The inserter's entry is the row's own: it was not shared. */
void
qdb_apply_speculative(Page page, OffsetNumber off, bool succeeded)
{
	QdbXact    *x = QdbPageXact(page, QdbPageRow(page, off)[QDB_ROW_XI]);

	x->mask &= ~QDB_X_SPECULATIVE;
	ItemPointerSetInvalid(&x->next);
	if (!succeeded)
	{
		x->xid = InvalidTransactionId;
		x->mask |= QDB_X_ABORTED;
	}
}
