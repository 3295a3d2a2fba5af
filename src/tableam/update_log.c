/*-------------------------------------------------------------------------
 *
 * update_log.c
 *		The UPDATE record.
 *
 * On one page the new version is logged as its difference to the old one, which
 * stands on the same page: if that page comes as a full image, neither is
 * needed.  What concerns the page of the old version, or the overflow page, says
 * all in that block's data, for block 0 may come as an image.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/update.h"

/*
 * The new version as its difference to the old one on the same page.  Of the
 * same shape: what is equal at the end follows from the length.
 */
static void
write_diff(QdbRecWriter *w, const uint8 *old, Size old_len, const uint8 *new, Size new_len, bool same_shape)
{
	Size		values = Min(old_len, new_len) - QDB_ROW_HEADER;
	Size		prefix = 0;
	Size		suffix = 0;
	Size		max = Min(values, 255);
	Size		start;

	while (prefix < max && old[QDB_ROW_HEADER + prefix] == new[QDB_ROW_HEADER + prefix])
		prefix++;
	max = same_shape ? values - prefix : Min(values - prefix, 255);
	while (suffix < max && old[old_len - 1 - suffix] == new[new_len - 1 - suffix])
		suffix++;
	if (!same_shape)
	{
		qdb_rec_write1(w, new[QDB_ROW_FLAGS]);
		qdb_rec_write1(w, new[QDB_ROW_NATTS]);
	}
	qdb_rec_write1(w, prefix);
	if (!same_shape)
		qdb_rec_write1(w, suffix);
	start = QDB_ROW_HEADER + prefix;
	qdb_rec_write_bytes(w, new + start, new_len - suffix - start);
}

/* What there is of the new version besides its row. */
static void
write_new_entries(QdbUpdate *u, QdbRecWriter *w)
{
	QdbXact		def;

	if (!u->shared)
	{
		QdbXactInit(&def, u->c.xid, FirstCommandId, QDB_X_PLAIN);
		qdb_rec_write_entry(w, &u->new_xi, &def);
	}
	if (u->new_xx.idx)
	{
		QdbXactInit(&def, u->c.xid, FirstCommandId, QDB_X_KEYSHR | QDB_X_LOCK_ONLY);
		qdb_rec_write_entry(w, &u->new_xx, &def);
	}
}

/* Block 0: all that happens to the page of the new version. */
static void
write_new(QdbUpdate *u, QdbRecWriter *w, const QdbXact *old_def)
{
	const uint8 *row = u->form.data;
	bool		same = u->newbuf == u->c.buf;
	const uint8 *old = QdbPageRow(u->c.view.page, u->c.off);
	Size		old_len = ItemIdGetLength(PageGetItemId(u->c.view.page, u->c.off));
	bool		same_shape = same && old[QDB_ROW_NATTS] == row[QDB_ROW_NATTS] && old_len == u->form.len &&
	!((old[QDB_ROW_FLAGS] ^ row[QDB_ROW_FLAGS]) & (QDB_R_HASNULL | QDB_R_EXTERNAL | QDB_R_NATTS16));
	bool		plain = same && qdb_rec_entry_is_plain(&u->old_xx, old_def);
	uint8		more = (u->new_xx.idx ? XLQ_MORE_XX : 0) |
	((u->old_xmax.mask & QDB_X_KEYS_UPDATED) ? XLQ_MORE_KEYS : 0);

	qdb_rec_write1(w, (u->hot ? XLQ_NEW_HOT : 0) | (u->shared ? XLQ_NEW_SHARED : 0) |
				   (u->next ? XLQ_NEW_NEXT : 0) | (same ? XLQ_NEW_DIFF : 0) |
				   (same_shape ? XLQ_NEW_SAME_SHAPE : 0) | (plain ? XLQ_NEW_PLAIN : 0) |
				   (more ? XLQ_NEW_MORE : 0) | (u->prune ? XLQ_NEW_PRUNE : 0));
	if (more)
		qdb_rec_write1(w, more);
	if (u->prune != NULL)
		qdb_rec_write_bytes(w, u->prune->rec, u->prune->rec_len);
	if (!u->next)
		qdb_rec_write_offset(w, u->a.off);
	if (same)
		qdb_rec_write_offset(w, u->c.off);
	if (plain)
		qdb_rec_write1(w, u->old_xx.idx);
	else if (same)
		qdb_rec_write_entry(w, &u->old_xx, old_def);
	write_new_entries(u, w);
	if (same)
		write_diff(w, old, old_len, row, u->form.len, same_shape);
	else
	{
		qdb_rec_write1(w, row[QDB_ROW_FLAGS]);
		qdb_rec_write1(w, row[QDB_ROW_NATTS]);
		qdb_rec_write_bytes(w, row + QDB_ROW_HEADER, u->form.len - QDB_ROW_HEADER);
	}
}

static void
register_overflow(QdbUpdate *u, char *data, Size size)
{
	QdbRecWriter w;
	QdbXact		def;

	QdbXactInit(&def, u->c.xid, FirstCommandId, QDB_X_PLAIN);
	QdbRecWriterInit(&w, data, size);
	qdb_rec_write1(&w, (u->old_xx.overflow ? 1 : 0) | (u->new_xx.overflow ? 2 : 0));
	if (u->old_xx.overflow)
	{
		qdb_rec_write2(&w, u->c.off);
		qdb_rec_write_entry(&w, &u->old_xx, &def);
	}
	if (u->new_xx.overflow)
	{
		qdb_rec_write2(&w, u->a.off);
		qdb_rec_write_entry(&w, &u->new_xx, &def);
	}
	XLogRegisterBuffer(QDB_BLOCK_OVERFLOW, u->c.obuf, 0);
	XLogRegisterBufData(QDB_BLOCK_OVERFLOW, w.start, w.p - w.start);
}

/* *near has to stay until the record is inserted, and so has *conflict. */
static void
register_conflict(TransactionId xid, const TransactionId *conflict, uint16 *near)
{
	uint32		distance = TransactionIdIsValid(*conflict) ? xid - *conflict : 0;

	*near = distance;
	if (distance <= PG_UINT16_MAX)
		XLogRegisterData((char *) near, XLQ_CONFLICT_NEAR);
	else
		XLogRegisterData(unconstify(char *, (const char *) conflict), XLQ_CONFLICT_XID);
}

void
qdb_log_update(QdbUpdate *u, bool vm_cleared, bool old_vm_cleared)
{
	char		data[2 * BLCKSZ];
	char		old_data[64];
	char		overflow_data[128];
	const uint8 flags = XLQ_UPDATE_OLD_VM;
	uint16		near;
	bool		same = u->newbuf == u->c.buf;
	QdbRecWriter w;
	QdbXact		def;
	XLogRecPtr	lsn;

	/* What the old version's entry is, unless it says otherwise. */
	QdbXactInit(&def, u->c.xid, FirstCommandId,
				QDB_X_UPDATED | (u->hot ? QDB_X_HOT : 0) | (u->old_xmax.mask & QDB_X_KEYS_UPDATED));
	ItemPointerSet(&def.next, BufferGetBlockNumber(u->newbuf), u->a.off);

	XLogBeginInsert();
	if (u->prune != NULL)
		register_conflict(u->c.xid, &u->prune->conflict, &near);
	else if (old_vm_cleared)
		XLogRegisterData(unconstify(char *, (const char *) &flags), sizeof(flags));
	QdbRecWriterInit(&w, data, sizeof(data));
	write_new(u, &w, &def);
	XLogRegisterBuffer(QDB_BLOCK_PAGE, u->newbuf,
					   REGBUF_STANDARD | (u->a.empty ? REGBUF_WILL_INIT : 0));
	XLogRegisterBufData(QDB_BLOCK_PAGE, w.start, w.p - w.start);
	if (!same)
	{
		/* Redo may have an image of the new page, and not what is said there. */
		QdbXactInit(&def, u->c.xid, FirstCommandId, QDB_X_UPDATED);
		QdbRecWriterInit(&w, old_data, sizeof(old_data));
		qdb_rec_write2(&w, u->c.off);
		qdb_rec_write_entry(&w, &u->old_xx, &def);
		XLogRegisterBuffer(QDB_BLOCK_OLD, u->c.buf, REGBUF_STANDARD);
		XLogRegisterBufData(QDB_BLOCK_OLD, w.start, w.p - w.start);
	}
	if (u->old_xx.overflow || u->new_xx.overflow)
		register_overflow(u, overflow_data, sizeof(overflow_data));
	XLogSetRecordFlags(XLOG_INCLUDE_ORIGIN);
	lsn = qdb_xlog_insert(XLOG_QDB_UPDATE | (vm_cleared ? XLOG_QDB_VM_CLEARED : 0));
	PageSetLSN(BufferGetPage(u->newbuf), lsn);
	PageSetLSN(u->c.view.page, lsn);
	if (u->old_xx.overflow || u->new_xx.overflow)
		PageSetLSN(BufferGetPage(u->c.obuf), lsn);
}
