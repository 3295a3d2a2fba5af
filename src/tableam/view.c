/*-------------------------------------------------------------------------
 *
 * view.c
 *		Rows of a page, and the entries of the transaction table they name.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/internal.h"

/*
 * Is it a page of ours, which code that knows no more than its kind can look at?
 * New pages are.  Without the lock "no" may be wrong: it is being made just now.
 */
bool
qdb_page_is_known(Page page)
{
	const QdbSpecial *special = QdbPageSpecial(page);
	uint16		start = ((PageHeader) page)->pd_special;

	if (PageIsNew(page))
		return true;
	if (special->version != QDB_PAGE_VERSION || PageGetMaxOffsetNumber(page) > QDB_MAX_OFFSETS)
		return false;
	if (special->kind == QDB_KIND_DATA)
		return start == QDB_SPECIAL_OFFSET && special->cap >= 1 && special->cap <= QDB_MAX_CAP &&
			((PageHeader) page)->pd_upper <= QDB_SPECIAL_OFFSET - special->cap * sizeof(QdbXact);
	return special->kind == QDB_KIND_OVERFLOW && start == QDB_OVERFLOW_START;
}

/*
 * Refuses a page that is not ours, or of a version that this code does not
 * know.  The caller has it pinned, and must not have it locked, nor a page that
 * comes after it in the order of locks.
 */
void
qdb_page_check(Relation rel, Buffer buf)
{
	BlockNumber blk = BufferGetBlockNumber(buf);
	PGAlignedBlock copy;
	QdbSpecial *special = QdbPageSpecial((Page) copy.data);

	if (likely(qdb_page_is_known(BufferGetPage(buf))))
		return;
	LockBuffer(buf, BUFFER_LOCK_SHARE);
	memcpy(copy.data, BufferGetPage(buf), BLCKSZ);
	LockBuffer(buf, BUFFER_LOCK_UNLOCK);
	if (qdb_page_is_known((Page) copy.data))
		return;
	if (special->kind != QDB_KIND_DATA && special->kind != QDB_KIND_OVERFLOW)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("page %u of table \"%s\" is not of access method quantadb",
						blk, RelationGetRelationName(rel))));
	if (special->version != QDB_PAGE_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("page %u of table \"%s\" has format version %u, but this server knows %u",
						blk, RelationGetRelationName(rel), special->version, QDB_PAGE_VERSION),
				 errhint("A newer version of the extension may know it.")));
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("header of page %u of table \"%s\" is damaged", blk, RelationGetRelationName(rel))));
}

/*
 * Reads a block and makes sure that it is of a known format.  That may take its
 * lock for a moment.
 */
Buffer
qdb_read_buffer(Relation rel, BlockNumber blk, BufferAccessStrategy strategy)
{
	Buffer		buf = ReadBufferExtended(rel, MAIN_FORKNUM, blk, RBM_NORMAL, strategy);

	qdb_page_check(rel, buf);
	return buf;
}

/* Caller holds at least the share lock. */
void
qdb_view_init(QdbView *view, Relation rel, Buffer buf)
{
	view->rel = rel;
	view->buf = buf;
	view->page = BufferGetPage(buf);
	view->blk = BufferGetBlockNumber(buf);
	view->overflow = NULL;
	view->changing = false;
}

void
qdb_view_init_copy(QdbView *view, Relation rel, Page page, BlockNumber blk)
{
	view->rel = rel;
	view->buf = InvalidBuffer;
	view->page = page;
	view->blk = blk;
	view->overflow = NULL;
	view->changing = false;
}

void
qdb_view_done(QdbView *view)
{
	if (view->overflow != NULL)
		pfree(view->overflow);
	view->overflow = NULL;
}

static void
corrupt(const QdbView *view, OffsetNumber off, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("row (%u,%u) of table \"%s\" is damaged", view->blk, off,
					RelationGetRelationName(view->rel)),
			 errdetail("%s", what)));
}

/*
 * Copies the entries of this page from its overflow page.  The data page is
 * locked, and they change only under its exclusive lock, so the copy stays
 * right as long as the lock is held.
 */
static void
load_overflow(QdbView *view)
{
	BlockNumber blk = QdbPageSpecial(view->page)->overflow;
	Buffer		buf;
	Page		page;

	if (blk == InvalidBlockNumber || blk == view->blk)
		corrupt(view, InvalidOffsetNumber, "Its overflow page is not known.");
	view->overflow = palloc0((QDB_OVERFLOW_ENTRIES + 1) * sizeof(QdbXact));
	buf = qdb_read_buffer(view->rel, blk, NULL);
	LockBuffer(buf, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buf);
	if (QdbPageIsOverflow(page))
		for (int i = 1; i <= QDB_OVERFLOW_ENTRIES; i++)
		{
			QdbOverflowEntry *entry = QdbPageOverflow(page, i);

			if (entry->blk == view->blk)
				view->overflow[i] = entry->x;
		}
	UnlockReleaseBuffer(buf);
}

static void
find_xx(QdbView *view, OffsetNumber off, QdbRow *row)
{
	int			i = QdbRowXX(row->data);

	row->xx_local = false;
	if (i == 0)
	{
		row->xx = NULL;
		return;
	}
	if (row->data[QDB_ROW_FLAGS] & QDB_R_XX_OVERFLOW)
	{
		if (i > QDB_OVERFLOW_ENTRIES)
			corrupt(view, off, "Its entry of the overflow page does not exist.");
		if (view->overflow == NULL)
			load_overflow(view);
		row->xx = &view->overflow[i];
		if (row->xx->xid == InvalidTransactionId)
			corrupt(view, off, "Its entry of the overflow page is not its own.");
		return;
	}
	if (i > QdbPageSpecial(view->page)->cap)
		corrupt(view, off, "Its updater is not in the transaction table of the page.");
	row->xx = QdbPageXact(view->page, i);
	row->xx_local = view->buf != InvalidBuffer;
}

/* False: there is no row at this offset. */
bool
qdb_view_row(QdbView *view, OffsetNumber off, QdbRow *row)
{
	ItemId		lp;
	int			i;

	if (off < FirstOffsetNumber || off > PageGetMaxOffsetNumber(view->page))
		return false;
	lp = PageGetItemId(view->page, off);
	if (!ItemIdIsNormal(lp))
		return false;

	row->view = view;
	row->off = off;
	row->len = ItemIdGetLength(lp);
	row->data = (uint8 *) view->page + ItemIdGetOffset(lp);
	if (row->len < QDB_ROW_HEADER || ItemIdGetOffset(lp) + row->len > QDB_SPECIAL_OFFSET)
		corrupt(view, off, "It does not lie on the page.");

	i = row->data[QDB_ROW_XI];
	if (i > QdbPageSpecial(view->page)->cap)
		corrupt(view, off, "Its inserter is not in the transaction table of the page.");
	row->xi = i == 0 ? NULL : QdbPageXact(view->page, i);
	find_xx(view, off, row);
	return true;
}
