/*-------------------------------------------------------------------------
 *
 * wal.c
 *		Bytes of WAL records, and what they do to entries.
 *
 * Writers run in critical sections: their buffers are large enough by
 * construction.  Readers run in recovery, where what does not fit is a damaged
 * record: nothing can be done then but to stop.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/wal.h"

#include "base/base.h"

void
qdb_rec_write1(QdbRecWriter *w, uint8 v)
{
	if (w->end - w->p < 1)
		elog(PANIC, "quantadb WAL record is too long");
	*w->p++ = v;
}

void
qdb_rec_write_bytes(QdbRecWriter *w, const void *p, Size len)
{
	if (w->end - w->p < len)
		elog(PANIC, "quantadb WAL record is too long");
	memcpy(w->p, p, len);
	w->p += len;
}

void
qdb_rec_write2(QdbRecWriter *w, uint16 v)
{
	qdb_rec_write_bytes(w, &v, sizeof(v));
}

const char *
qdb_rec_read_bytes(QdbRecReader *r, Size len)
{
	const char *p = r->p;

	if (r->end - r->p < len)
		elog(PANIC, "quantadb WAL record is too short");
	r->p += len;
	return p;
}

uint8
qdb_rec_read1(QdbRecReader *r)
{
	return *(const uint8 *) qdb_rec_read_bytes(r, 1);
}

uint16
qdb_rec_read2(QdbRecReader *r)
{
	uint16		v;

	memcpy(&v, qdb_rec_read_bytes(r, sizeof(v)), sizeof(v));
	return v;
}

/* Only what differs from the record's defaults is written. */
void
qdb_rec_write_entry(QdbRecWriter *w, const QdbEntry *e, const QdbXact *def)
{
	uint8		op = 0;

	if (e->fresh)
	{
		op |= XLQ_ENTRY_FRESH;
		if ((e->x.mask & QDB_X_WAL) != (def->mask & QDB_X_WAL))
			op |= XLQ_ENTRY_MASK;
		if (e->x.xid != def->xid)
			op |= XLQ_ENTRY_XID;
		if (!ItemPointerEquals(unconstify(ItemPointerData *, &e->x.next),
							   unconstify(ItemPointerData *, &def->next)) &&
			!(e->x.mask & QDB_X_SPECULATIVE))
			op |= XLQ_ENTRY_NEXT;
		if (e->x.mask & QDB_X_SPECULATIVE)
			op |= XLQ_ENTRY_SPECULATIVE;
	}
	if (e->cap > 0)
		op |= XLQ_ENTRY_CAP;
	if (e->overflow)
		op |= XLQ_ENTRY_OVERFLOW;
	if (e->idx > 255)
		op |= XLQ_ENTRY_HIGH;

	qdb_rec_write1(w, op);
	qdb_rec_write1(w, e->idx & 0xFF);
	if (op & XLQ_ENTRY_CAP)
		qdb_rec_write1(w, e->cap);
	if (op & XLQ_ENTRY_MASK)
		qdb_rec_write1(w, e->x.mask & QDB_X_WAL);
	if (op & XLQ_ENTRY_XID)
		qdb_rec_write_bytes(w, &e->x.xid, sizeof(e->x.xid));
	if (op & XLQ_ENTRY_NEXT)
		qdb_rec_write_bytes(w, &e->x.next, sizeof(e->x.next));
}

void
qdb_rec_read_entry(QdbRecReader *r, QdbEntry *e, const QdbXact *def)
{
	uint8		op = qdb_rec_read1(r);

	e->idx = qdb_rec_read1(r) + ((op & XLQ_ENTRY_HIGH) ? 256 : 0);
	e->fresh = (op & XLQ_ENTRY_FRESH) != 0;
	e->overflow = (op & XLQ_ENTRY_OVERFLOW) != 0;
	e->cap = (op & XLQ_ENTRY_CAP) ? qdb_rec_read1(r) : 0;
	e->x = *def;
	if (op & XLQ_ENTRY_MASK)
		e->x.mask = qdb_rec_read1(r);
	if (op & XLQ_ENTRY_XID)
		memcpy(&e->x.xid, qdb_rec_read_bytes(r, sizeof(e->x.xid)), sizeof(e->x.xid));
	if (op & XLQ_ENTRY_NEXT)
		memcpy(&e->x.next, qdb_rec_read_bytes(r, sizeof(e->x.next)), sizeof(e->x.next));
	if (op & XLQ_ENTRY_SPECULATIVE)
		e->x.mask |= QDB_X_SPECULATIVE;
	if (e->idx > (e->overflow ? QDB_OVERFLOW_ENTRIES : QDB_MAX_CAP) || e->cap > QDB_MAX_CAP)
		elog(PANIC, "quantadb WAL record names entry %d", e->idx);
}

void
qdb_apply_entry(Page page, const QdbEntry *e)
{
	if (e->cap > 0)
		qdb_page_grow(page, e->cap);
	if (e->fresh && !e->overflow && e->idx > 0)
	{
		if (e->idx > QdbPageSpecial(page)->cap)
			elog(ERROR, "entry %d is not in the transaction table of the page", e->idx);
		*QdbPageXact(page, e->idx) = e->x;
	}
}

void
qdb_apply_xx(Page page, BlockNumber blk, OffsetNumber off, const QdbEntry *e,
			 Page opage, BlockNumber oblk)
{
	if (page != NULL)
	{
		if (off < FirstOffsetNumber || off > PageGetMaxOffsetNumber(page) ||
			!ItemIdIsNormal(PageGetItemId(page, off)))
			elog(ERROR, "there is no row at offset %u of block %u", off, blk);
		qdb_apply_entry(page, e);
		QdbRowSetXX(QdbPageRow(page, off), e->idx, e->overflow);
		if (e->overflow)
			QdbPageSpecial(page)->overflow = oblk;
	}
	if (e->overflow && opage != NULL)
	{
		QdbOverflowEntry *entry = QdbPageOverflow(opage, e->idx);

		entry->blk = blk;
		entry->off = off;
		entry->pad = 0;
		entry->x = e->x;
	}
}

/* ---- prune lists ---- */

static void
write_count(QdbRecWriter *w, int n)
{
	qdb_rec_write1(w, Min(n, 255));
	if (n >= 255)
		qdb_rec_write2(w, n);
}

static int
read_count(QdbRecReader *r, int max)
{
	int			n = qdb_rec_read1(r);

	if (n == 255)
		n = qdb_rec_read2(r);
	if (n > max)
		elog(PANIC, "quantadb WAL record prunes %d items", n);
	return n;
}

static void
write_offsets(QdbRecWriter *w, const OffsetNumber *offsets, int n, bool wide)
{
	for (int i = 0; i < n; i++)
		if (wide)
			qdb_rec_write2(w, offsets[i]);
		else
			qdb_rec_write1(w, offsets[i]);
}

static void
read_offsets(QdbRecReader *r, OffsetNumber *offsets, int n, bool wide)
{
	for (int i = 0; i < n; i++)
	{
		offsets[i] = wide ? qdb_rec_read2(r) : qdb_rec_read1(r);
		if (offsets[i] < FirstOffsetNumber || offsets[i] > QDB_MAX_OFFSETS)
			elog(PANIC, "quantadb WAL record prunes offset %u", offsets[i]);
	}
}

static bool
any_above(const OffsetNumber *offsets, int n)
{
	for (int i = 0; i < n; i++)
		if (offsets[i] > 255)
			return true;
	return false;
}

#define PRUNE_REDIRECT	0x01
#define PRUNE_DEAD		0x02
#define PRUNE_UNUSED	0x04
#define PRUNE_COOL		0x08
#define PRUNE_CLEAR		0x10
#define PRUNE_WIDE		0x20

void
qdb_rec_write_prune(QdbRecWriter *w, const QdbPruneList *list)
{
	bool		wide = any_above(list->redirect, 2 * list->nredirect) ||
	any_above(list->dead, list->ndead) || any_above(list->unused, list->nunused) ||
	any_above(list->clear, list->nclear);

	qdb_rec_write1(w, (list->nredirect ? PRUNE_REDIRECT : 0) | (list->ndead ? PRUNE_DEAD : 0) |
				   (list->nunused ? PRUNE_UNUSED : 0) | (list->ncool ? PRUNE_COOL : 0) |
				   (list->nclear ? PRUNE_CLEAR : 0) | (wide ? PRUNE_WIDE : 0));
	if (list->nredirect)
	{
		write_count(w, list->nredirect);
		write_offsets(w, list->redirect, 2 * list->nredirect, wide);
	}
	if (list->ndead)
	{
		write_count(w, list->ndead);
		write_offsets(w, list->dead, list->ndead, wide);
	}
	if (list->nunused)
	{
		write_count(w, list->nunused);
		write_offsets(w, list->unused, list->nunused, wide);
	}
	if (list->ncool)
	{
		write_count(w, list->ncool);
		qdb_rec_write_bytes(w, list->cool, list->ncool);
	}
	if (list->nclear)
	{
		write_count(w, list->nclear);
		write_offsets(w, list->clear, list->nclear, wide);
	}
}

void
qdb_rec_read_prune(QdbRecReader *r, QdbPruneList *list)
{
	uint8		flags = qdb_rec_read1(r);
	bool		wide = (flags & PRUNE_WIDE) != 0;

	list->nredirect = list->ndead = list->nunused = list->ncool = list->nclear = 0;
	if (flags & PRUNE_REDIRECT)
	{
		list->nredirect = read_count(r, QDB_MAX_OFFSETS);
		read_offsets(r, list->redirect, 2 * list->nredirect, wide);
	}
	if (flags & PRUNE_DEAD)
	{
		list->ndead = read_count(r, QDB_MAX_OFFSETS);
		read_offsets(r, list->dead, list->ndead, wide);
	}
	if (flags & PRUNE_UNUSED)
	{
		list->nunused = read_count(r, QDB_MAX_OFFSETS);
		read_offsets(r, list->unused, list->nunused, wide);
	}
	if (flags & PRUNE_COOL)
	{
		list->ncool = read_count(r, QDB_MAX_CAP);
		memcpy(list->cool, qdb_rec_read_bytes(r, list->ncool), list->ncool);
		for (int i = 0; i < list->ncool; i++)
			if (list->cool[i] > QDB_MAX_CAP)
				elog(PANIC, "quantadb WAL record cools entry %d", list->cool[i]);
	}
	if (flags & PRUNE_CLEAR)
	{
		list->nclear = read_count(r, QDB_MAX_OFFSETS);
		read_offsets(r, list->clear, list->nclear, wide);
	}
}

/* XLogInsert for a record of ours that is registered already. */
XLogRecPtr
qdb_xlog_insert(uint8 info)
{
	return XLogInsert(QDB_RMGR_ID, info);
}
