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
#include "tableam/redo.h"
#include "tableam/prune.h"

#include "access/visibilitymap.h"
#include "access/xlogutils.h"
#include "storage/freespace.h"
#include "storage/standby.h"

void
qdb_redo_clear_vm(XLogReaderState *record, uint8 block, uint8 bits)
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

void
qdb_redo_reader(XLogReaderState *record, uint8 block, QdbRecReader *r)
{
	Size		len;
	char	   *data = XLogRecGetBlockData(record, block, &len);

	r->p = data;
	r->end = data == NULL ? NULL : data + len;
}

/* Ends queries whose snapshots need what the record removes. */
void
qdb_redo_conflict(TransactionId xid, RelFileNode rnode)
{
	if (InHotStandby && TransactionIdIsValid(xid))
		ResolveRecoveryConflictWithSnapshot(xid, rnode);
}

/* The default of an entry that the record's transaction made. */
void
qdb_redo_default(XLogReaderState *record, QdbXact *x, uint16 mask)
{
	QdbXactInit(x, XLogRecGetXid(record), FirstCommandId, mask);
}

XLogRedoAction
qdb_redo_read(XLogReaderState *record, uint8 block, Buffer *buf)
{
	if (XLogRecGetBlock(record, block)->flags & BKPBLOCK_WILL_INIT)
	{
		*buf = XLogInitBufferForRedo(record, block);
		qdb_page_init(BufferGetPage(*buf), 1);	/* the record says more */
		return BLK_NEEDS_REDO;
	}
	return XLogReadBufferForRedo(record, block, buf);
}

void
qdb_redo_finish(XLogReaderState *record, Buffer buf)
{
	PageSetLSN(BufferGetPage(buf), record->EndRecPtr);
	MarkBufferDirty(buf);
}

/* As heap: the map is told when a page gets full. */
void
qdb_redo_fsm(XLogReaderState *record, Buffer buf, Size room)
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
void
qdb_redo_row(QdbRecReader *r, uint8 *row, Size len, int xi)
{
	if (len < QDB_ROW_HEADER || len > QDB_MAX_ROW)
		elog(PANIC, "quantadb WAL record has a row of %zu bytes", len);
	row[QDB_ROW_FLAGS] = qdb_rec_read1(r);
	row[QDB_ROW_NATTS] = qdb_rec_read1(r);
	row[QDB_ROW_XI] = xi;
	row[QDB_ROW_XX] = 0;
	memcpy(row + QDB_ROW_HEADER, qdb_rec_read_bytes(r, len - QDB_ROW_HEADER), len - QDB_ROW_HEADER);
}

/* The values of an inserted row, which may be logged as a difference; returns their length. */
static Size
read_values(QdbRecReader *r, uint8 op, const uint8 *before, Size before_len, uint8 *values)
{
	Size		len = r->end - r->p;
	const uint8 *bits;

	if (!(op & XLQ_INSERT_LIKE_BEFORE))
	{
		if (QDB_ROW_HEADER + len > QDB_MAX_ROW)
			elog(PANIC, "quantadb WAL record has a row of %zu bytes", QDB_ROW_HEADER + len);
		memcpy(values, r->p, len);
		return len;
	}
	len = before_len - QDB_ROW_HEADER;
	if (before == NULL || len > XLQ_LIKE_BEFORE_MAX)
		elog(PANIC, "quantadb WAL record does not fit the page it changes");
	bits = (const uint8 *) qdb_rec_read_bytes(r, (len + 7) / 8);
	for (Size i = 0; i < len; i++)
		values[i] = (bits[i >> 3] & (1 << (i & 7))) ? qdb_rec_read1(r) : before[QDB_ROW_HEADER + i];
	return len;
}

static void
redo_insert(XLogReaderState *record)
{
	Buffer		buf;
	Size		room = BLCKSZ;

	if (QdbRecVmCleared(record))
		qdb_redo_clear_vm(record, QDB_BLOCK_PAGE, VISIBILITYMAP_VALID_BITS);
	if (qdb_redo_read(record, QDB_BLOCK_PAGE, &buf) == BLK_NEEDS_REDO)
	{
		Page		page = BufferGetPage(buf);
		uint8		row[BLCKSZ];
		QdbRecReader r;
		QdbEntry	e = {0};
		uint8		op;
		OffsetNumber off;
		const uint8 *before;
		Size		before_len = 0;
		Size		len;

		qdb_redo_reader(record, QDB_BLOCK_PAGE, &r);
		op = qdb_rec_read1(&r);
		e.fresh = (op & XLQ_INSERT_FRESH) != 0;
		qdb_redo_default(record, &e.x, QDB_X_PLAIN);
		if (op & XLQ_INSERT_SPECULATIVE)
		{
			e.x.mask |= QDB_X_SPECULATIVE;
			ItemPointerSet(&e.x.next, 1, SpecTokenOffsetNumber);
		}
		e.idx = qdb_rec_read1(&r);
		e.cap = (op & XLQ_INSERT_CAP) ? qdb_rec_read1(&r) : 0;
		off = qdb_rec_read_offset(&r);
		before = qdb_page_row_before(page, off, &before_len);
		if (e.idx > QDB_MAX_CAP || e.cap > QDB_MAX_CAP || ((op & XLQ_INSERT_SAME_NATTS) && before == NULL))
			elog(PANIC, "quantadb WAL record does not fit the page it changes");
		row[QDB_ROW_FLAGS] = op & XLQ_INSERT_ROW;
		row[QDB_ROW_NATTS] = (op & XLQ_INSERT_SAME_NATTS) ? before[QDB_ROW_NATTS] : qdb_rec_read1(&r);
		row[QDB_ROW_XI] = e.idx;
		row[QDB_ROW_XX] = 0;
		len = QDB_ROW_HEADER + read_values(&r, op, before, before_len, row + QDB_ROW_HEADER);
		qdb_apply_entry(page, &e);
		qdb_page_put_row(page, off, row, len);
		if (QdbRecVmCleared(record))
			PageClearAllVisible(page);
		room = qdb_page_room(page);
		qdb_redo_finish(record, buf);
	}
	if (BufferIsValid(buf))
		UnlockReleaseBuffer(buf);
	qdb_redo_fsm(record, buf, room);
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

		qdb_redo_row(r, row, len, e->idx);
		qdb_page_put_row(page, offs[i], row, len);
	}
}

static void
redo_multi_insert(XLogReaderState *record)
{
	uint8		flags = *(uint8 *) XLogRecGetData(record);
	Buffer		buf;
	Size		room = BLCKSZ;

	if (QdbRecVmCleared(record))
		qdb_redo_clear_vm(record, QDB_BLOCK_PAGE, VISIBILITYMAP_VALID_BITS);
	if (qdb_redo_read(record, QDB_BLOCK_PAGE, &buf) == BLK_NEEDS_REDO)
	{
		Page		page = BufferGetPage(buf);
		QdbRecReader r;
		QdbEntry	e;
		QdbXact		def;
		bool		contiguous;

		qdb_redo_reader(record, QDB_BLOCK_PAGE, &r);
		contiguous = (qdb_rec_read1(&r) & XLQ_MULTI_CONTIGUOUS) != 0;
		qdb_redo_default(record, &def, QDB_X_PLAIN);
		qdb_rec_read_entry(&r, &e, &def);
		qdb_apply_entry(page, &e);
		put_rows(page, &r, &e, contiguous);
		if (QdbRecVmCleared(record))
			PageClearAllVisible(page);
		if (flags & XLQ_MULTI_ALL_FROZEN)
			PageSetAllVisible(page);
		room = qdb_page_room(page);
		qdb_redo_finish(record, buf);
	}
	if (BufferIsValid(buf))
		UnlockReleaseBuffer(buf);
	qdb_redo_fsm(record, buf, room);
}

/* Entries of one data page that go to an overflow page. */
static void
redo_overflow(XLogReaderState *record, Page opage, BlockNumber blk, const QdbXact *def)
{
	QdbRecReader r;
	int			n;

	qdb_redo_reader(record, QDB_BLOCK_OVERFLOW, &r);
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

	if (QdbRecVmCleared(record))
		qdb_redo_clear_vm(record, QDB_BLOCK_PAGE,
						  is_delete ? VISIBILITYMAP_VALID_BITS : VISIBILITYMAP_ALL_FROZEN);
	XLogRecGetBlockTag(record, QDB_BLOCK_PAGE, &rnode, NULL, &blk);
	if (overflow)
		XLogRecGetBlockTag(record, QDB_BLOCK_OVERFLOW, NULL, NULL, &oblk);
	qdb_redo_default(record, &def, QdbDefaultXmaxMask(is_delete ? XLOG_QDB_DELETE : XLOG_QDB_LOCK));

	action = qdb_redo_read(record, QDB_BLOCK_PAGE, &buf);
	if (action == BLK_NEEDS_REDO)
	{
		Page		page = BufferGetPage(buf);
		QdbRecReader r;
		QdbEntry	e;
		OffsetNumber off;

		qdb_redo_reader(record, QDB_BLOCK_PAGE, &r);
		off = qdb_rec_read2(&r);
		qdb_rec_read_entry(&r, &e, &def);
		qdb_apply_xx(page, blk, off, &e, NULL, oblk);
		if (is_delete)
		{
			PageSetPrunable(page, XLogRecGetXid(record));
			if (QdbRecVmCleared(record))
				PageClearAllVisible(page);
		}
		qdb_redo_finish(record, buf);
	}
	if (overflow && XLogReadBufferForRedo(record, QDB_BLOCK_OVERFLOW, &obuf) == BLK_NEEDS_REDO)
	{
		redo_overflow(record, BufferGetPage(obuf), blk, &def);
		qdb_redo_finish(record, obuf);
	}
	if (BufferIsValid(buf))
		UnlockReleaseBuffer(buf);
	if (BufferIsValid(obuf))
		UnlockReleaseBuffer(obuf);
}

static void
redo_prune(XLogReaderState *record)
{
	RelFileNode rnode;
	Buffer		buf;
	Buffer		obuf = InvalidBuffer;
	TransactionId conflict;

	XLogRecGetBlockTag(record, QDB_BLOCK_PAGE, &rnode, NULL, NULL);
	if (XLogRecGetDataLen(record) < 1 + sizeof(conflict))
		elog(PANIC, "quantadb WAL record is too short");
	memcpy(&conflict, XLogRecGetData(record) + 1, sizeof(conflict));
	qdb_redo_conflict(conflict, rnode);
	if (qdb_redo_read(record, QDB_BLOCK_PAGE, &buf) == BLK_NEEDS_REDO)
	{
		QdbRecReader r;
		QdbPruneList list;

		qdb_redo_reader(record, QDB_BLOCK_PAGE, &r);
		qdb_rec_read_prune(&r, BufferGetPage(buf), &list);
		qdb_page_prune(BufferGetPage(buf), &list);
		PageClearFull(BufferGetPage(buf));
		qdb_redo_finish(record, buf);
	}
	if (XLogRecHasBlockRef(record, QDB_BLOCK_OVERFLOW) &&
		XLogReadBufferForRedo(record, QDB_BLOCK_OVERFLOW, &obuf) == BLK_NEEDS_REDO)
	{
		QdbRecReader r;

		qdb_redo_reader(record, QDB_BLOCK_OVERFLOW, &r);
		while (r.p < r.end)
			qdb_overflow_free(BufferGetPage(obuf), qdb_rec_read2(&r));
		qdb_redo_finish(record, obuf);
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

/*
 * Pages that come as images.  The data page names entries of the new overflow
 * page: no one may see the one without the other, so all stay locked.
 */
static void
redo_images(XLogReaderState *record)
{
	Buffer		bufs[XLR_MAX_BLOCK_ID + 1];
	int			n = 0;

	for (int block = 0; block <= XLogRecMaxBlockId(record); block++)
	{
		if (!XLogRecHasBlockRef(record, block))
			continue;
		if (XLogReadBufferForRedo(record, block, &bufs[n]) == BLK_NEEDS_REDO)
			elog(PANIC, "quantadb WAL record lacks a page image");
		n++;
	}
	while (n-- > 0)
		if (BufferIsValid(bufs[n]))
			UnlockReleaseBuffer(bufs[n]);
}

static void
redo_misc(XLogReaderState *record)
{
	uint8		kind = *(uint8 *) XLogRecGetData(record);
	Buffer		buf;
	QdbRecReader r;

	if (kind == XLQ_MISC_IMAGES)
	{
		redo_images(record);
		return;
	}
	if (qdb_redo_read(record, QDB_BLOCK_PAGE, &buf) == BLK_NEEDS_REDO)
	{
		Page		page = BufferGetPage(buf);

		qdb_redo_reader(record, QDB_BLOCK_PAGE, &r);
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
		qdb_redo_finish(record, buf);
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
			qdb_redo_update(record);
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
