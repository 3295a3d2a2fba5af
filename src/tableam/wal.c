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

/* An offset has one byte, and two more follow if that is 0. */
void
qdb_rec_write_offset(QdbRecWriter *w, OffsetNumber off)
{
	qdb_rec_write1(w, off > 255 ? 0 : off);
	if (off > 255)
		qdb_rec_write2(w, off);
}

OffsetNumber
qdb_rec_read_offset(QdbRecReader *r)
{
	OffsetNumber off = qdb_rec_read1(r);

	return off > 0 ? off : qdb_rec_read2(r);
}

/* Which fields of an entry differ from the record's defaults. */
static uint8
entry_op(const QdbEntry *e, const QdbXact *def)
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
	return op;
}

/* Is it written, and its number all there is to say? */
bool
qdb_rec_entry_is_plain(const QdbEntry *e, const QdbXact *def)
{
	return entry_op(e, def) == XLQ_ENTRY_FRESH;
}

/* Only what differs from the record's defaults is written. */
void
qdb_rec_write_entry(QdbRecWriter *w, const QdbEntry *e, const QdbXact *def)
{
	uint8		op = entry_op(e, def);

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

/* XLogInsert for a record of ours that is registered already. */
XLogRecPtr
qdb_xlog_insert(uint8 info)
{
	return XLogInsert(QDB_RMGR_ID, info);
}
