/*-------------------------------------------------------------------------
 *
 * redo.c
 *		Replays the records of the storage access method.
 *
 * Only exclusive locks are taken, never cleanup locks: readers copy what they
 * need while they hold the share lock.  A record that removes what an old
 * snapshot may need ends such snapshots first, also when its page comes as a
 * full image.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/prune.h"

#include "access/visibilitymap.h"
#include "access/xlogutils.h"
#include "storage/freespace.h"
#include "storage/standby.h"

static void
clear_vm(XLogReaderState *record, uint8 block, uint8 bits)
{
	RelFileNode rnode;
	BlockNumber blk;
	Relation	rel;
	Buffer		vmbuffer = InvalidBuffer;

	XLogRecGetBlockTag(record, block, &rnode, NULL, &blk);
	rel = CreateFakeRelcacheEntry(rnode);
	visibilitymap_pin(rel, blk, &vmbuffer);
	visibilitymap_clear(rel, blk, vmbuffer, bits);
	ReleaseBuffer(vmbuffer);
	FreeFakeRelcacheEntry(rel);
}

static bool
vm_cleared(XLogReaderState *record)
{
	return (XLogRecGetInfo(record) & XLOG_QDB_VM_CLEARED) != 0;
}

static void
block_reader(XLogReaderState *record, uint8 block, QdbRecReader *r)
{
	Size		len;
	char	   *data = XLogRecGetBlockData(record, block, &len);

	r->p = data;
	r->end = data == NULL ? NULL : data + len;
}

/* Ends queries whose snapshots need what the record removes. */
static void
resolve_conflict(XLogReaderState *record, RelFileNode rnode)
{
	TransactionId xid;

	if (XLogRecGetDataLen(record) < 1 + sizeof(xid))
		elog(PANIC, "quantadb WAL record is too short");
	memcpy(&xid, XLogRecGetData(record) + 1, sizeof(xid));
	if (InHotStandby && TransactionIdIsValid(xid))
		ResolveRecoveryConflictWithSnapshot(xid, rnode);
}

/* The default of an entry that the record's transaction made. */
static void
default_entry(XLogReaderState *record, QdbXact *x, uint16 mask)
{
	QdbXactInit(x, XLogRecGetXid(record), FirstCommandId, mask);
}

static XLogRedoAction
read_block(XLogReaderState *record, uint8 block, Buffer *buf)
{
	if (XLogRecGetBlock(record, block)->flags & BKPBLOCK_WILL_INIT)
	{
		*buf = XLogInitBufferForRedo(record, block);
		qdb_page_init(BufferGetPage(*buf), 1);	/* the record says more */
		return BLK_NEEDS_REDO;
	}
	return XLogReadBufferForRedo(record, block, buf);
}

static void
finish(XLogReaderState *record, Buffer buf)
{
	PageSetLSN(BufferGetPage(buf), record->EndRecPtr);
	MarkBufferDirty(buf);
}

/* As heap: the map is told when a page gets full. */
static void
update_fsm(XLogReaderState *record, Buffer buf, Size room)
{
	RelFileNode rnode;
	BlockNumber blk;

	if (room >= BLCKSZ / 5)
		return;
	XLogRecGetBlockTag(record, QDB_BLOCK_PAGE, &rnode, NULL, &blk);
	XLogRecordPageWithFreeSpace(rnode, blk, room);
}

/*
 * Copies a row's bytes from the record to an aligned place and completes its
 * header.
 */
static void
read_row(QdbRecReader *r, uint8 *row, Size len, int xi)
{
	if (len < QDB_ROW_HEADER || len > QDB_MAX_ROW)
		elog(PANIC, "quantadb WAL record has a row of %zu bytes", len);
	row[QDB_ROW_FLAGS] = qdb_rec_read1(r);
	row[QDB_ROW_NATTS] = qdb_rec_read1(r);
	row[QDB_ROW_XI] = xi;
	row[QDB_ROW_XX] = 0;
	memcpy(row + QDB_ROW_HEADER, qdb_rec_read_bytes(r, len - QDB_ROW_HEADER), len - QDB_ROW_HEADER);
}

static void
redo_insert(XLogReaderState *record)
{
	Buffer		buf;
	Size		room = BLCKSZ;

	if (vm_cleared(record))
		clear_vm(record, QDB_BLOCK_PAGE, VISIBILITYMAP_VALID_BITS);
	if (read_block(record, QDB_BLOCK_PAGE, &buf) == BLK_NEEDS_REDO)
	{
		Page		page = BufferGetPage(buf);
		uint8		row[BLCKSZ];
		QdbRecReader r;
		QdbEntry	e;
		QdbXact		def;
		OffsetNumber off;
		Size		len;

		block_reader(record, QDB_BLOCK_PAGE, &r);
		default_entry(record, &def, QDB_X_PLAIN);
		qdb_rec_read_entry(&r, &e, &def);
		if (e.fresh && (e.x.mask & QDB_X_SPECULATIVE))
			ItemPointerSet(&e.x.next, 1, SpecTokenOffsetNumber);
		off = qdb_rec_read2(&r);
		len = r.end - r.p + 2;
		read_row(&r, row, len, e.idx);
		qdb_apply_entry(page, &e);
		qdb_page_put_row(page, off, row, len);
		if (vm_cleared(record))
			PageClearAllVisible(page);
		room = qdb_page_room(page);
		finish(record, buf);
	}
	if (BufferIsValid(buf))
		UnlockReleaseBuffer(buf);
	update_fsm(record, buf, room);
}

static void
put_rows(Page page, QdbRecReader *r, const QdbEntry *e, bool contiguous)
{
	uint8		row[BLCKSZ];
	OffsetNumber offs[QDB_MAX_OFFSETS];
	int			n = qdb_rec_read2(r);

	if (n > QDB_MAX_OFFSETS)
		elog(PANIC, "quantadb WAL record has %d rows", n);
	for (int i = 0; i < n; i++)
		offs[i] = contiguous && i > 0 ? offs[i - 1] + 1 : qdb_rec_read2(r);
	for (int i = 0; i < n; i++)
	{
		Size		len = qdb_rec_read2(r);

		read_row(r, row, len, e->idx);
		qdb_page_put_row(page, offs[i], row, len);
	}
}

static void
redo_multi_insert(XLogReaderState *record)
{
	uint8		flags = *(uint8 *) XLogRecGetData(record);
	Buffer		buf;
	Size		room = BLCKSZ;

	if (vm_cleared(record))
		clear_vm(record, QDB_BLOCK_PAGE, VISIBILITYMAP_VALID_BITS);
	if (read_block(record, QDB_BLOCK_PAGE, &buf) == BLK_NEEDS_REDO)
	{
		Page		page = BufferGetPage(buf);
		QdbRecReader r;
		QdbEntry	e;
		QdbXact		def;
		bool		contiguous;

		block_reader(record, QDB_BLOCK_PAGE, &r);
		contiguous = (qdb_rec_read1(&r) & XLQ_MULTI_CONTIGUOUS) != 0;
		default_entry(record, &def, QDB_X_PLAIN);
		qdb_rec_read_entry(&r, &e, &def);
		qdb_apply_entry(page, &e);
		put_rows(page, &r, &e, contiguous);
		if (vm_cleared(record))
			PageClearAllVisible(page);
		if (flags & XLQ_MULTI_ALL_FROZEN)
			PageSetAllVisible(page);
		room = qdb_page_room(page);
		finish(record, buf);
	}
	if (BufferIsValid(buf))
		UnlockReleaseBuffer(buf);
	update_fsm(record, buf, room);
}

static OffsetNumber
read_offset(QdbRecReader *r, bool wide)
{
	return wide ? qdb_rec_read2(r) : qdb_rec_read1(r);
}

/* The new version from what it shares with the old one on the same page. */
static Size
read_diff(QdbRecReader *r, uint8 *row, const uint8 *old, Size old_len, uint8 op, int xi)
{
	Size		prefix;
	Size		suffix;
	Size		middle;
	const uint8 same = QDB_R_HASNULL | QDB_R_EXTERNAL | QDB_R_NATTS16;

	if (op & XLQ_NEW_SAME_HEADER)
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
	suffix = qdb_rec_read1(r);
	middle = r->end - r->p;
	if (prefix + suffix > old_len - QDB_ROW_HEADER ||
		QDB_ROW_HEADER + prefix + middle + suffix > QDB_MAX_ROW)
		elog(PANIC, "quantadb WAL record does not fit the row it changes");
	memcpy(row + QDB_ROW_HEADER, old + QDB_ROW_HEADER, prefix);
	memcpy(row + QDB_ROW_HEADER + prefix, qdb_rec_read_bytes(r, middle), middle);
	memcpy(row + QDB_ROW_HEADER + prefix + middle, old + old_len - suffix, suffix);
	return QDB_ROW_HEADER + prefix + middle + suffix;
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
	OffsetNumber off;
	OffsetNumber old_off = InvalidOffsetNumber;
	Size		len;

	block_reader(record, QDB_BLOCK_PAGE, &r);
	op = qdb_rec_read1(&r);
	if (op & XLQ_NEW_PRUNE)
	{
		QdbPruneList list;

		qdb_rec_read_prune(&r, &list);
		qdb_page_prune(page, &list);
	}
	off = read_offset(&r, (op & XLQ_NEW_WIDE) != 0);
	if (op & XLQ_NEW_DIFF)
	{
		old_off = read_offset(&r, (op & XLQ_NEW_WIDE) != 0);
		default_entry(record, &def, QDB_X_UPDATED | ((op & XLQ_NEW_HOT) ? QDB_X_HOT : 0) |
					  ((op & XLQ_NEW_KEYS) ? QDB_X_KEYS_UPDATED : 0));
		ItemPointerSet(&def.next, blk, off);
		qdb_rec_read_entry(&r, &old_xx, &def);
		qdb_apply_xx(page, blk, old_off, &old_xx, NULL, oblk);
		PageSetPrunable(page, XLogRecGetXid(record));
	}
	new_xi = old_xx;
	if (!(op & XLQ_NEW_SHARED))
	{
		default_entry(record, &def, QDB_X_PLAIN);
		qdb_rec_read_entry(&r, &new_xi, &def);
		qdb_apply_entry(page, &new_xi);
	}
	memset(&new_xx, 0, sizeof(new_xx));
	if (op & XLQ_NEW_XX)
	{
		default_entry(record, &def, QDB_X_KEYSHR | QDB_X_LOCK_ONLY);
		qdb_rec_read_entry(&r, &new_xx, &def);
	}
	if (op & XLQ_NEW_DIFF)
		len = read_diff(&r, row, QdbPageRow(page, old_off),
						ItemIdGetLength(PageGetItemId(page, old_off)), op, new_xi.idx);
	else
	{
		len = r.end - r.p + 2;
		read_row(&r, row, len, new_xi.idx);
	}
	qdb_page_put_row(page, off, row, len);
	if (op & XLQ_NEW_XX)
		qdb_apply_xx(page, blk, off, &new_xx, NULL, oblk);
	if (vm_cleared(record))
		PageClearAllVisible(page);
}

static void
redo_old_version(XLogReaderState *record, Page page, BlockNumber blk, BlockNumber oblk, bool clear)
{
	QdbRecReader r;
	QdbEntry	e;
	QdbXact		def;
	OffsetNumber off;

	block_reader(record, QDB_BLOCK_OLD, &r);
	off = qdb_rec_read2(&r);
	default_entry(record, &def, QDB_X_UPDATED);
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

	block_reader(record, QDB_BLOCK_OVERFLOW, &r);
	default_entry(record, &def, QDB_X_PLAIN);
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

static void
redo_update(XLogReaderState *record)
{
	uint8		flags = XLogRecGetDataLen(record) > 0 ? *(uint8 *) XLogRecGetData(record) : 0;
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
	if (flags & XLQ_UPDATE_PRUNE)
		resolve_conflict(record, rnode);
	if (vm_cleared(record))
		clear_vm(record, QDB_BLOCK_PAGE, VISIBILITYMAP_VALID_BITS);
	if (flags & XLQ_UPDATE_OLD_VM)
		clear_vm(record, QDB_BLOCK_OLD, VISIBILITYMAP_VALID_BITS);

	/* No one may see one version without the other: both stay locked. */
	if (two && read_block(record, QDB_BLOCK_OLD, &old_buf) == BLK_NEEDS_REDO)
	{
		redo_old_version(record, BufferGetPage(old_buf), old_blk, oblk,
						 (flags & XLQ_UPDATE_OLD_VM) != 0);
		finish(record, old_buf);
	}
	if (read_block(record, QDB_BLOCK_PAGE, &new_buf) == BLK_NEEDS_REDO)
	{
		redo_new_version(record, BufferGetPage(new_buf), new_blk, oblk);
		room = qdb_page_room(BufferGetPage(new_buf));
		finish(record, new_buf);
	}
	if (oblk != InvalidBlockNumber &&
		XLogReadBufferForRedo(record, QDB_BLOCK_OVERFLOW, &obuf) == BLK_NEEDS_REDO)
	{
		redo_update_overflow(record, BufferGetPage(obuf), old_blk, new_blk);
		finish(record, obuf);
	}
	if (BufferIsValid(new_buf))
		UnlockReleaseBuffer(new_buf);
	if (BufferIsValid(old_buf))
		UnlockReleaseBuffer(old_buf);
	if (BufferIsValid(obuf))
		UnlockReleaseBuffer(obuf);
	if (two)
		update_fsm(record, new_buf, room);
}

/* DELETE and LOCK: the xmax of one row. */
static void
redo_xmax(XLogReaderState *record, bool is_delete)
{
	Buffer		buf;
	Buffer		obuf = InvalidBuffer;
	RelFileNode rnode;
	BlockNumber blk;
	BlockNumber oblk = InvalidBlockNumber;
	bool		overflow = XLogRecHasBlockRef(record, QDB_BLOCK_OVERFLOW);
	XLogRedoAction action;
	QdbXact		def;

	if (vm_cleared(record))
		clear_vm(record, QDB_BLOCK_PAGE,
				 is_delete ? VISIBILITYMAP_VALID_BITS : VISIBILITYMAP_ALL_FROZEN);
	XLogRecGetBlockTag(record, QDB_BLOCK_PAGE, &rnode, NULL, &blk);
	if (overflow)
		XLogRecGetBlockTag(record, QDB_BLOCK_OVERFLOW, NULL, NULL, &oblk);
	default_entry(record, &def, QDB_X_PLAIN);

	action = read_block(record, QDB_BLOCK_PAGE, &buf);
	if (action == BLK_NEEDS_REDO)
	{
		Page		page = BufferGetPage(buf);
		QdbRecReader r;
		QdbEntry	e;
		OffsetNumber off;

		block_reader(record, QDB_BLOCK_PAGE, &r);
		off = qdb_rec_read2(&r);
		qdb_rec_read_entry(&r, &e, &def);
		qdb_apply_xx(page, blk, off, &e, NULL, oblk);
		if (is_delete)
		{
			PageSetPrunable(page, XLogRecGetXid(record));
			if (vm_cleared(record))
				PageClearAllVisible(page);
		}
		finish(record, buf);
	}
	if (overflow && XLogReadBufferForRedo(record, QDB_BLOCK_OVERFLOW, &obuf) == BLK_NEEDS_REDO)
	{
		qdb_redo_overflow(record, BufferGetPage(obuf), blk, &def);
		finish(record, obuf);
	}
	if (BufferIsValid(buf))
		UnlockReleaseBuffer(buf);
	if (BufferIsValid(obuf))
		UnlockReleaseBuffer(obuf);
}

/* Entries of one data page that go to an overflow page. */
void
qdb_redo_overflow(XLogReaderState *record, Page opage, BlockNumber blk, const QdbXact *def)
{
	QdbRecReader r;
	int			n;

	block_reader(record, QDB_BLOCK_OVERFLOW, &r);
	if (!QdbPageIsOverflow(opage))
		qdb_overflow_init(opage);
	n = qdb_rec_read1(&r);
	for (int i = 0; i < n; i++)
	{
		OffsetNumber off = qdb_rec_read2(&r);
		QdbEntry	e;

		qdb_rec_read_entry(&r, &e, def);
		qdb_apply_xx(NULL, blk, off, &e, opage, InvalidBlockNumber);
	}
}

static void
redo_prune(XLogReaderState *record)
{
	RelFileNode rnode;
	Buffer		buf;
	Buffer		obuf = InvalidBuffer;

	XLogRecGetBlockTag(record, QDB_BLOCK_PAGE, &rnode, NULL, NULL);
	resolve_conflict(record, rnode);
	if (read_block(record, QDB_BLOCK_PAGE, &buf) == BLK_NEEDS_REDO)
	{
		QdbRecReader r;
		QdbPruneList list;

		block_reader(record, QDB_BLOCK_PAGE, &r);
		qdb_rec_read_prune(&r, &list);
		qdb_page_prune(BufferGetPage(buf), &list);
		PageClearFull(BufferGetPage(buf));
		finish(record, buf);
	}
	if (XLogRecHasBlockRef(record, QDB_BLOCK_OVERFLOW) &&
		XLogReadBufferForRedo(record, QDB_BLOCK_OVERFLOW, &obuf) == BLK_NEEDS_REDO)
	{
		QdbRecReader r;

		block_reader(record, QDB_BLOCK_OVERFLOW, &r);
		while (r.p < r.end)
			qdb_overflow_free(BufferGetPage(obuf), qdb_rec_read2(&r));
		finish(record, obuf);
	}
	if (BufferIsValid(buf))
	{
		Size		room = qdb_page_room(BufferGetPage(buf));
		BlockNumber blk = BufferGetBlockNumber(buf);

		/* After a failover the space should be found. */
		UnlockReleaseBuffer(buf);
		XLogRecordPageWithFreeSpace(rnode, blk, room);
	}
	if (BufferIsValid(obuf))
		UnlockReleaseBuffer(obuf);
}

static void
redo_misc(XLogReaderState *record)
{
	uint8		kind = *(uint8 *) XLogRecGetData(record);
	Buffer		buf;
	QdbRecReader r;

	if (kind == XLQ_MISC_IMAGES)
	{
		for (int block = 0; block <= XLogRecMaxBlockId(record); block++)
		{
			if (!XLogRecHasBlockRef(record, block))
				continue;
			if (XLogReadBufferForRedo(record, block, &buf) == BLK_NEEDS_REDO)
				elog(PANIC, "quantadb WAL record lacks a page image");
			if (BufferIsValid(buf))
				UnlockReleaseBuffer(buf);
		}
		return;
	}
	if (read_block(record, QDB_BLOCK_PAGE, &buf) == BLK_NEEDS_REDO)
	{
		Page		page = BufferGetPage(buf);

		block_reader(record, QDB_BLOCK_PAGE, &r);
		switch (kind)
		{
			case XLQ_MISC_CONFIRM:
			case XLQ_MISC_ABORT:
				qdb_apply_speculative(page, qdb_rec_read2(&r), kind == XLQ_MISC_CONFIRM);
				break;
			case XLQ_MISC_VACUUM:
				while (r.p < r.end)
				{
					OffsetNumber off = qdb_rec_read2(&r);

					if (off < FirstOffsetNumber || off > PageGetMaxOffsetNumber(page))
						elog(PANIC, "quantadb WAL record frees offset %u", off);
					ItemIdSetUnused(PageGetItemId(page, off));
				}
				qdb_page_trim_offsets(page);
				break;
			default:
				elog(PANIC, "quantadb WAL record is of unknown kind %u", kind);
		}
		finish(record, buf);
	}
	if (BufferIsValid(buf))
		UnlockReleaseBuffer(buf);
}

void
qdb_table_redo(XLogReaderState *record)
{
	switch (XLogRecGetInfo(record) & XLOG_QDB_OPMASK)
	{
		case XLOG_QDB_INSERT:
			redo_insert(record);
			break;
		case XLOG_QDB_MULTI_INSERT:
			redo_multi_insert(record);
			break;
		case XLOG_QDB_UPDATE:
			redo_update(record);
			break;
		case XLOG_QDB_DELETE:
			redo_xmax(record, true);
			break;
		case XLOG_QDB_LOCK:
			redo_xmax(record, false);
			break;
		case XLOG_QDB_PRUNE:
			redo_prune(record);
			break;
		case XLOG_QDB_MISC:
			redo_misc(record);
			break;
		default:
			elog(PANIC, "quantadb WAL record has unknown operation %X", XLogRecGetInfo(record));
	}
}
