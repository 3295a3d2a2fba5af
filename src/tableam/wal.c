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
qdb_rec_too_long(void)
{
	elog(PANIC, "quantadb WAL record is too long");
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
		/* Compared, for a link to nothing is no valid pointer. */
		if (ItemPointerCompare(unconstify(ItemPointerData *, &e->x.next),
							   unconstify(ItemPointerData *, &def->next)) != 0 &&
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

#define PRUNE_REDIRECT	0x01
#define PRUNE_DEAD		0x02
#define PRUNE_UNUSED	0x04
#define PRUNE_COOL		0x08
#define PRUNE_CLEAR		0x10
#define PRUNE_WIDE		0x20	/* items have two bytes */
#define PRUNE_TIGHT		0x40
#define PRUNE_ONE		0x80	/* each list has one item, and no count */

/* Instead of a count: the items that are meant, as bits. */
#define SET_IS_BITS		255
#define SET_BYTES		((QDB_MAX_OFFSETS + 7) / 8)

static void
write_items(QdbRecWriter *w, const uint16 *items, int n, bool wide)
{
	for (int i = 0; i < n; i++)
		if (wide)
			qdb_rec_write2(w, items[i]);
		else
			qdb_rec_write1(w, items[i]);
}

static void
read_items(QdbRecReader *r, uint16 *items, int n, int max, bool wide)
{
	for (int i = 0; i < n; i++)
	{
		items[i] = wide ? qdb_rec_read2(r) : qdb_rec_read1(r);
		if (items[i] < 1 || items[i] > max)
			elog(PANIC, "quantadb WAL record prunes item %u", items[i]);
	}
}

/*
 * Items whose order means nothing.  One by one, or as bits where that is
 * shorter: so there are never more than SET_BYTES one by one.
 */
static void
write_set(QdbRecWriter *w, uint8 flags, const uint16 *items, int n)
{
	uint8		bits[SET_BYTES] = {0};
	int			bytes = 0;

	if (flags & PRUNE_ONE)
	{
		write_items(w, items, n, (flags & PRUNE_WIDE) != 0);
		return;
	}
	for (int i = 0; i < n; i++)
	{
		int			byte = (items[i] - 1) / 8;

		bits[byte] |= 1 << (items[i] - 1) % 8;
		bytes = Max(bytes, byte + 1);
	}
	if (bytes < n)
	{
		qdb_rec_write1(w, SET_IS_BITS);
		qdb_rec_write1(w, bytes);
		qdb_rec_write_bytes(w, bits, bytes);
		return;
	}
	qdb_rec_write1(w, n);
	write_items(w, items, n, (flags & PRUNE_WIDE) != 0);
}

static uint16
read_set(QdbRecReader *r, uint8 flags, uint16 *items, int max)
{
	int			n = (flags & PRUNE_ONE) ? 1 : qdb_rec_read1(r);
	int			bytes;
	const uint8 *bits;

	if (n != SET_IS_BITS)
	{
		if (n > max)
			elog(PANIC, "quantadb WAL record prunes %d items", n);
		read_items(r, items, n, max, (flags & PRUNE_WIDE) != 0);
		return n;
	}
	bytes = qdb_rec_read1(r);
	bits = (const uint8 *) qdb_rec_read_bytes(r, bytes);
	n = 0;
	for (int i = 0; i < bytes * 8; i++)
	{
		if (!(bits[i / 8] & (1 << i % 8)))
			continue;
		if (i >= max)
			elog(PANIC, "quantadb WAL record prunes item %d", i + 1);
		items[n++] = i + 1;
	}
	return n;
}

static bool
any_above(const uint16 *items, int n)
{
	for (int i = 0; i < n; i++)
		if (items[i] > 255)
			return true;
	return false;
}

static bool
at_most_one(const QdbPruneList *list)
{
	return list->nredirect <= 1 && list->ndead <= 1 && list->nunused <= 1 && list->ncool <= 1 &&
		list->nclear <= 1;
}

void
qdb_rec_write_prune(QdbRecWriter *w, const QdbPruneList *list)
{
	bool		wide = any_above(list->redirect, 2 * list->nredirect) ||
	any_above(list->dead, list->ndead) || any_above(list->unused, list->nunused) ||
	any_above(list->clear, list->nclear);
	uint8		flags = (list->nredirect ? PRUNE_REDIRECT : 0) | (list->ndead ? PRUNE_DEAD : 0) |
	(list->nunused ? PRUNE_UNUSED : 0) | (list->ncool ? PRUNE_COOL : 0) |
	(list->nclear ? PRUNE_CLEAR : 0) | (wide ? PRUNE_WIDE : 0) |
	(list->tight ? PRUNE_TIGHT : 0) | (at_most_one(list) ? PRUNE_ONE : 0);

	qdb_rec_write1(w, flags);
	if (list->nredirect)
	{
		/* Pairs, at most half of a page's line pointers. */
		if (!(flags & PRUNE_ONE))
			qdb_rec_write1(w, list->nredirect);
		write_items(w, list->redirect, 2 * list->nredirect, wide);
	}
	if (list->ndead)
		write_set(w, flags, list->dead, list->ndead);
	if (list->nunused)
		write_set(w, flags, list->unused, list->nunused);
	if (list->ncool)
		write_set(w, flags, list->cool, list->ncool);
	if (list->nclear)
		write_set(w, flags, list->clear, list->nclear);
}

void
qdb_rec_read_prune(QdbRecReader *r, QdbPruneList *list)
{
	uint8		flags = qdb_rec_read1(r);

	list->nredirect = list->ndead = list->nunused = list->ncool = list->nclear = 0;
	list->tight = (flags & PRUNE_TIGHT) != 0;
	if (flags & PRUNE_REDIRECT)
	{
		list->nredirect = (flags & PRUNE_ONE) ? 1 : qdb_rec_read1(r);
		read_items(r, list->redirect, 2 * list->nredirect, QDB_MAX_OFFSETS, (flags & PRUNE_WIDE) != 0);
	}
	if (flags & PRUNE_DEAD)
		list->ndead = read_set(r, flags, list->dead, QDB_MAX_OFFSETS);
	if (flags & PRUNE_UNUSED)
		list->nunused = read_set(r, flags, list->unused, QDB_MAX_OFFSETS);
	if (flags & PRUNE_COOL)
		list->ncool = read_set(r, flags, list->cool, QDB_MAX_CAP);
	if (flags & PRUNE_CLEAR)
		list->nclear = read_set(r, flags, list->clear, QDB_MAX_OFFSETS);
}

/* XLogInsert for a record of ours that is registered already. */
XLogRecPtr
qdb_xlog_insert(uint8 info)
{
	return XLogInsert(QDB_RMGR_ID, info);
}
