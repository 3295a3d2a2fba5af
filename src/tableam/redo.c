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
#include "tableam/wal.h"

#include "access/visibilitymap.h"
#include "access/xlogutils.h"
#include "access/bufmask.h"
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
					ItemIdSetUnused(PageGetItemId(page, qdb_rec_read2(&r)));
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
		case XLOG_QDB_DELETE:
			redo_xmax(record, true);
			break;
		case XLOG_QDB_LOCK:
			redo_xmax(record, false);
			break;
		case XLOG_QDB_MISC:
			redo_misc(record);
			break;
		default:
			elog(PANIC, "quantadb WAL record has unknown operation %X", XLogRecGetInfo(record));
	}
}

/* ---- wal_consistency_checking ---- */

/* A command's number and hints are not in WAL. */
static void
mask_xact(QdbXact *x)
{
	x->cid = 0;
	x->mask &= ~QDB_X_HINTS;
	if (x->mask & QDB_X_SPECULATIVE)
		ItemPointerSetInvalid(&x->next);
}

void
qdb_table_mask(char *pagedata, BlockNumber blkno)
{
	Page		page = (Page) pagedata;
	uint8		refs[QDB_MAX_CAP + 1];

	mask_page_lsn_and_checksum(page);
	mask_page_hint_bits(page);
	if (PageIsNew(page))
		return;
	if (QdbPageIsOverflow(page))
	{
		for (int i = 1; i <= QDB_OVERFLOW_ENTRIES; i++)
		{
			QdbOverflowEntry *entry = QdbPageOverflow(page, i);

			if (entry->blk == InvalidBlockNumber)
				MemSet(&entry->x, 0, sizeof(entry->x));
			else
				mask_xact(&entry->x);
		}
		return;
	}
	mask_unused_space(page);
	if (QdbPageSpecial(page)->kind != QDB_KIND_DATA)
		return;
	qdb_page_refs(page, refs);
	for (int i = 1; i <= QdbPageSpecial(page)->cap; i++)
		if (refs[i])
			mask_xact(QdbPageXact(page, i));
		else
			MemSet(QdbPageXact(page, i), 0, sizeof(QdbXact));
}
