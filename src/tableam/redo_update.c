/*-------------------------------------------------------------------------
 *
 * redo_update.c
 *		Replays UPDATE; redo.c has the other records, update_log.c writes this one.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/redo.h"

#include "access/visibilitymap.h"
#include "access/xlogutils.h"

/* The new version from what it shares with the old one on the same page. */
static Size
read_diff(QdbRecReader *r, uint8 *row, const uint8 *old, Size old_len, uint8 op, int xi)
{
	Size		prefix;
	Size		suffix;
	Size		middle;
	const uint8 same = QDB_R_HASNULL | QDB_R_EXTERNAL | QDB_R_NATTS16;

	if (op & XLQ_NEW_SAME_SHAPE)
	{
		row[QDB_ROW_FLAGS] = (old[QDB_ROW_FLAGS] & same) | QDB_R_UPDATED |
			((op & XLQ_NEW_HOT) ? QDB_R_HEAP_ONLY : 0);
		row[QDB_ROW_NATTS] = old[QDB_ROW_NATTS];
	}
	else
	{
		row[QDB_ROW_FLAGS] = qdb_rec_read1(r);
		row[QDB_ROW_NATTS] = qdb_rec_read1(r);
	}
	row[QDB_ROW_XI] = xi;
	row[QDB_ROW_XX] = 0;
	prefix = qdb_rec_read1(r);
	suffix = (op & XLQ_NEW_SAME_SHAPE) ? 0 : qdb_rec_read1(r);
	middle = r->end - r->p;
	if ((op & XLQ_NEW_SAME_SHAPE) && old_len >= QDB_ROW_HEADER + prefix + middle)
		suffix = old_len - QDB_ROW_HEADER - prefix - middle;
	if (prefix + suffix > old_len - QDB_ROW_HEADER ||
		QDB_ROW_HEADER + prefix + middle + suffix > QDB_MAX_ROW)
		elog(PANIC, "quantadb WAL record does not fit the row it changes");
	memcpy(row + QDB_ROW_HEADER, old + QDB_ROW_HEADER, prefix);
	memcpy(row + QDB_ROW_HEADER + prefix, qdb_rec_read_bytes(r, middle), middle);
	memcpy(row + QDB_ROW_HEADER + prefix + middle, old + old_len - suffix, suffix);
	return QDB_ROW_HEADER + prefix + middle + suffix;
}

static void
read_old_entry(QdbRecReader *r, uint8 op, QdbEntry *e, const QdbXact *def)
{
	if (!(op & XLQ_NEW_PLAIN))
	{
		qdb_rec_read_entry(r, e, def);
		return;
	}
	memset(e, 0, sizeof(*e));
	e->idx = qdb_rec_read1(r);
	e->fresh = true;
	e->x = *def;
}

/* The page of the new version, which may have the old one, too. */
static void
redo_new_version(XLogReaderState *record, Page page, BlockNumber blk, BlockNumber oblk)
{
	uint8		row[BLCKSZ];
	QdbRecReader r;
	QdbEntry	old_xx = {0};
	QdbEntry	new_xi;
	QdbEntry	new_xx;
	QdbXact		def;
	uint8		op;
	uint8		more;
	OffsetNumber off;
	OffsetNumber old_off = InvalidOffsetNumber;
	Size		len;

	qdb_redo_reader(record, QDB_BLOCK_PAGE, &r);
	op = qdb_rec_read1(&r);
	more = (op & XLQ_NEW_MORE) ? qdb_rec_read1(&r) : 0;
	if (op & XLQ_NEW_PRUNE)
	{
		QdbPruneList list;

		qdb_rec_read_prune(&r, page, &list);
		qdb_page_prune(page, &list);
	}
	off = (op & XLQ_NEW_NEXT) ? qdb_page_first_free_offset(page) : qdb_rec_read_offset(&r);
	if (op & XLQ_NEW_DIFF)
	{
		old_off = qdb_rec_read_offset(&r);
		qdb_redo_default(record, &def, QDB_X_UPDATED | ((op & XLQ_NEW_HOT) ? QDB_X_HOT : 0) |
						 ((more & XLQ_MORE_KEYS) ? QDB_X_KEYS_UPDATED : 0));
		ItemPointerSet(&def.next, blk, off);
		read_old_entry(&r, op, &old_xx, &def);
		qdb_apply_xx(page, blk, old_off, &old_xx, NULL, oblk);
		PageSetPrunable(page, XLogRecGetXid(record));
	}
	new_xi = old_xx;
	if (!(op & XLQ_NEW_SHARED))
	{
		qdb_redo_default(record, &def, QDB_X_PLAIN);
		qdb_rec_read_entry(&r, &new_xi, &def);
		qdb_apply_entry(page, &new_xi);
	}
	memset(&new_xx, 0, sizeof(new_xx));
	if (more & XLQ_MORE_XX)
	{
		qdb_redo_default(record, &def, QDB_X_KEYSHR | QDB_X_LOCK_ONLY);
		qdb_rec_read_entry(&r, &new_xx, &def);
	}
	if (op & XLQ_NEW_DIFF)
		len = read_diff(&r, row, QdbPageRow(page, old_off),
						ItemIdGetLength(PageGetItemId(page, old_off)), op, new_xi.idx);
	else
	{
		len = r.end - r.p + 2;
		qdb_redo_row(&r, row, len, new_xi.idx);
	}
	qdb_page_put_row(page, off, row, len);
	if (more & XLQ_MORE_XX)
		qdb_apply_xx(page, blk, off, &new_xx, NULL, oblk);
	if (QdbRecVmCleared(record))
		PageClearAllVisible(page);
}

static void
redo_old_version(XLogReaderState *record, Page page, BlockNumber blk, BlockNumber oblk, bool clear)
{
	QdbRecReader r;
	QdbEntry	e;
	QdbXact		def;
	OffsetNumber off;

	qdb_redo_reader(record, QDB_BLOCK_OLD, &r);
	off = qdb_rec_read2(&r);
	qdb_redo_default(record, &def, QDB_X_UPDATED);
	qdb_rec_read_entry(&r, &e, &def);
	qdb_apply_xx(page, blk, off, &e, NULL, oblk);
	PageSetPrunable(page, XLogRecGetXid(record));
	PageSetFull(page);
	if (clear)
		PageClearAllVisible(page);
}

static void
redo_update_overflow(XLogReaderState *record, Page opage, BlockNumber old_blk, BlockNumber new_blk)
{
	QdbRecReader r;
	QdbXact		def;
	uint8		which;

	qdb_redo_reader(record, QDB_BLOCK_OVERFLOW, &r);
	qdb_redo_default(record, &def, QDB_X_PLAIN);
	which = qdb_rec_read1(&r);
	for (int i = 1; i <= 2; i++)
	{
		OffsetNumber off;
		QdbEntry	e;

		if (!(which & i))
			continue;
		off = qdb_rec_read2(&r);
		qdb_rec_read_entry(&r, &e, &def);
		qdb_apply_xx(NULL, i == 1 ? old_blk : new_blk, off, &e, opage, InvalidBlockNumber);
	}
}

/* The main data of an UPDATE, which wal.h explains. */
static void
update_main_data(XLogReaderState *record, TransactionId *conflict, bool *old_vm)
{
	const char *data = XLogRecGetData(record);
	uint16		near;

	*conflict = InvalidTransactionId;
	*old_vm = false;
	switch (XLogRecGetDataLen(record))
	{
		case 0:
			break;
		case 1:
			*old_vm = (data[0] & XLQ_UPDATE_OLD_VM) != 0;
			break;
		case XLQ_CONFLICT_NEAR:
			memcpy(&near, data, sizeof(near));
			if (near > 0)
				*conflict = XLogRecGetXid(record) - near;
			break;
		case XLQ_CONFLICT_XID:
			memcpy(conflict, data, sizeof(*conflict));
			break;
		default:
			elog(PANIC, "quantadb WAL record has %u bytes of main data", XLogRecGetDataLen(record));
	}
}

void
qdb_redo_update(XLogReaderState *record)
{
	TransactionId conflict;
	bool		old_vm;
	bool		two = XLogRecHasBlockRef(record, QDB_BLOCK_OLD);
	RelFileNode rnode;
	BlockNumber new_blk;
	BlockNumber old_blk;
	BlockNumber oblk = InvalidBlockNumber;
	Buffer		old_buf = InvalidBuffer;
	Buffer		new_buf;
	Buffer		obuf = InvalidBuffer;
	Size		room = BLCKSZ;

	XLogRecGetBlockTag(record, QDB_BLOCK_PAGE, &rnode, NULL, &new_blk);
	old_blk = new_blk;
	if (two)
		XLogRecGetBlockTag(record, QDB_BLOCK_OLD, NULL, NULL, &old_blk);
	if (XLogRecHasBlockRef(record, QDB_BLOCK_OVERFLOW))
		XLogRecGetBlockTag(record, QDB_BLOCK_OVERFLOW, NULL, NULL, &oblk);
	update_main_data(record, &conflict, &old_vm);
	qdb_redo_conflict(conflict, rnode);
	if (QdbRecVmCleared(record))
		qdb_redo_clear_vm(record, QDB_BLOCK_PAGE, VISIBILITYMAP_VALID_BITS);
	if (old_vm)
		qdb_redo_clear_vm(record, QDB_BLOCK_OLD, VISIBILITYMAP_VALID_BITS);

	/* No one may see one version without the other: both stay locked. */
	if (two && qdb_redo_read(record, QDB_BLOCK_OLD, &old_buf) == BLK_NEEDS_REDO)
	{
		redo_old_version(record, BufferGetPage(old_buf), old_blk, oblk,
						 old_vm);
		qdb_redo_finish(record, old_buf);
	}
	if (qdb_redo_read(record, QDB_BLOCK_PAGE, &new_buf) == BLK_NEEDS_REDO)
	{
		redo_new_version(record, BufferGetPage(new_buf), new_blk, oblk);
		room = qdb_page_room(BufferGetPage(new_buf));
		qdb_redo_finish(record, new_buf);
	}
	if (oblk != InvalidBlockNumber &&
		XLogReadBufferForRedo(record, QDB_BLOCK_OVERFLOW, &obuf) == BLK_NEEDS_REDO)
	{
		redo_update_overflow(record, BufferGetPage(obuf), old_blk, new_blk);
		qdb_redo_finish(record, obuf);
	}
	if (BufferIsValid(new_buf))
		UnlockReleaseBuffer(new_buf);
	if (BufferIsValid(old_buf))
		UnlockReleaseBuffer(old_buf);
	if (BufferIsValid(obuf))
		UnlockReleaseBuffer(obuf);
	if (two)
		qdb_redo_fsm(record, new_buf, room);
}
