/*-------------------------------------------------------------------------
 *
 * overflow.c
 *		Entries for which a data page has no room.
 *
 * A change never fails because its page is full: the entry of the row's xmax
 * goes to an overflow page, and the row has its number there.  All entries of a
 * data page are on one overflow page, which it may share with others.
 *
 * Pages are found, made and pinned while no page is locked.  Once locked, the
 * data page first, what was found is verified, for all of it may have changed.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/change.h"
#include "tableam/prune.h"

#include "access/xloginsert.h"
#include "miscadmin.h"

/*
 * The overflow page that this session used last.  Only a guess: the page is
 * looked at before it is used.
 */
static struct
{
	RelFileNode rnode;
	BlockNumber blk;
}			last_used = {{0, 0, 0}, InvalidBlockNumber};

static bool
entry_is_free(Page opage, int i)
{
	return QdbPageOverflow(opage, i)->blk == InvalidBlockNumber;
}

/*
 * A free entry that is not the given one (0: any); 0: there is none.  Pages fill
 * from the front, so it is likely to be the one after the last that was found.
 */
int
qdb_overflow_find_free(Page opage, int other)
{
	static int	last = 0;

	if (last > 0 && last < QDB_OVERFLOW_ENTRIES && last + 1 != other &&
		!entry_is_free(opage, last) && entry_is_free(opage, last + 1))
		return ++last;
	for (int i = 1; i <= QDB_OVERFLOW_ENTRIES; i++)
		if (i != other && entry_is_free(opage, i))
		{
			last = i;
			return i;
		}
	return 0;
}

/* In a critical section. */
void
qdb_overflow_free(Page opage, int i)
{
	if (i < 1 || i > QDB_OVERFLOW_ENTRIES)
		elog(ERROR, "there is no overflow entry %d", i);
	MemSet(QdbPageOverflow(opage, i), 0, sizeof(QdbOverflowEntry));
	QdbPageOverflow(opage, i)->blk = InvalidBlockNumber;
}

static bool
has_free(Page opage, int n)
{
	/* They fill from the front. */
	for (int i = QDB_OVERFLOW_ENTRIES; i >= 1 && n > 0; i--)
		if (QdbPageOverflow(opage, i)->blk == InvalidBlockNumber)
			n--;
	return n <= 0;
}

void
qdb_overflow_unlock(QdbChange *c)
{
	if (c->olocked)
		LockBuffer(c->obuf, BUFFER_LOCK_UNLOCK);
	c->olocked = false;
}

/*
 * Locks the pinned overflow page, with the data page locked, if it is the one
 * to use and has as many free entries.
 */
bool
qdb_overflow_lock(QdbChange *c, int entries)
{
	BlockNumber own = QdbPageSpecial(BufferGetPage(c->buf))->overflow;
	Page		opage;

	if (c->olocked)
		return true;
	if (c->obuf == InvalidBuffer ||
		(own != InvalidBlockNumber && own != BufferGetBlockNumber(c->obuf)))
		return false;
	LockBuffer(c->obuf, BUFFER_LOCK_EXCLUSIVE);
	opage = BufferGetPage(c->obuf);
	if (QdbPageIsOverflow(opage) && has_free(opage, entries))
	{
		c->olocked = true;
		return true;
	}
	LockBuffer(c->obuf, BUFFER_LOCK_UNLOCK);
	return false;
}

/*
 * The data page has its overflow page already: pins that one, with the data page
 * locked.  Otherwise the lock would be dropped only to find it.
 */
void
qdb_overflow_pin_own(QdbChange *c)
{
	BlockNumber own = QdbPageSpecial(c->view.page)->overflow;

	if (own == InvalidBlockNumber || c->olocked ||
		(c->obuf != InvalidBuffer && BufferGetBlockNumber(c->obuf) == own))
		return;
	if (c->obuf != InvalidBuffer)
		ReleaseBuffer(c->obuf);
	c->obuf = InvalidBuffer;
	c->obuf = qdb_read_buffer(c->rel, own, NULL);
}

/* A new overflow page, pinned. */
static Buffer
make_page(Relation rel)
{
	Buffer		buf = qdb_extend(rel, NULL);

	START_CRIT_SECTION();
	qdb_overflow_init(BufferGetPage(buf));
	MarkBufferDirty(buf);
	if (RelationNeedsWAL(rel))
		log_newpage_buffer(buf, false);
	END_CRIT_SECTION();

	LockBuffer(buf, BUFFER_LOCK_UNLOCK);
	last_used.rnode = rel->rd_node;
	last_used.blk = BufferGetBlockNumber(buf);
	return buf;
}

/* Pins a page that has as many free entries now, or returns InvalidBuffer. */
static Buffer
try_page(Relation rel, BlockNumber blk, int entries)
{
	Buffer		buf;
	bool		fits;

	if (blk == InvalidBlockNumber || blk >= RelationGetNumberOfBlocks(rel))
		return InvalidBuffer;
	buf = qdb_read_buffer(rel, blk, NULL);
	LockBuffer(buf, BUFFER_LOCK_SHARE);
	fits = QdbPageIsOverflow(BufferGetPage(buf)) && has_free(BufferGetPage(buf), entries);
	LockBuffer(buf, BUFFER_LOCK_UNLOCK);
	if (fits)
		return buf;
	ReleaseBuffer(buf);
	return InvalidBuffer;
}

static void
log_images(Buffer buf, Buffer old, Buffer new)
{
	uint8		kind = XLQ_MISC_IMAGES;
	XLogRecPtr	lsn;

	XLogBeginInsert();
	XLogRegisterData((char *) &kind, sizeof(kind));
	XLogRegisterBuffer(0, buf, REGBUF_FORCE_IMAGE | REGBUF_STANDARD);
	XLogRegisterBuffer(1, old, REGBUF_FORCE_IMAGE);
	XLogRegisterBuffer(2, new, REGBUF_FORCE_IMAGE);
	lsn = qdb_xlog_insert(XLOG_QDB_MISC);
	PageSetLSN(BufferGetPage(buf), lsn);
	PageSetLSN(BufferGetPage(old), lsn);
	PageSetLSN(BufferGetPage(new), lsn);
}

/* In a critical section: all rows of the page name the new page's entries. */
static void
move_entries(Page page, BlockNumber blk, Page opage, Page npage, BlockNumber nblk)
{
	for (OffsetNumber off = FirstOffsetNumber; off <= PageGetMaxOffsetNumber(page); off++)
	{
		QdbOverflowEntry *from;
		uint8	   *row;
		int			n;

		if (!ItemIdIsNormal(PageGetItemId(page, off)))
			continue;
		row = QdbPageRow(page, off);
		if (!(row[QDB_ROW_FLAGS] & QDB_R_XX_OVERFLOW))
			continue;
		from = QdbPageOverflow(opage, QdbRowXX(row));
		n = qdb_overflow_find_free(npage, 0);
		*QdbPageOverflow(npage, n) = *from;
		QdbRowSetXX(row, n, true);
	}
	for (int i = 1; i <= QDB_OVERFLOW_ENTRIES; i++)
		if (QdbPageOverflow(opage, i)->blk == blk)
			qdb_overflow_free(opage, i);
	QdbPageSpecial(page)->overflow = nblk;
}

/*
 * The page's overflow page is full of entries of others: moves ours to one of
 * their own.  An empty page always takes all of a data page's.
 */
static void
move(QdbChange *c, BlockNumber oblk)
{
	Buffer		new = make_page(c->rel);
	Buffer		old = qdb_read_buffer(c->rel, oblk, NULL);
	BlockNumber nblk = BufferGetBlockNumber(new);

	LockBuffer(c->buf, BUFFER_LOCK_EXCLUSIVE);
	LockBuffer(oblk < nblk ? old : new, BUFFER_LOCK_EXCLUSIVE);
	LockBuffer(oblk < nblk ? new : old, BUFFER_LOCK_EXCLUSIVE);
	if (QdbPageSpecial(BufferGetPage(c->buf))->overflow == oblk &&
		!QdbPageIsOverflow(BufferGetPage(old)))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("page %u of table \"%s\" names page %u for its overflow, which is none",
						c->blk, RelationGetRelationName(c->rel), oblk)));
	if (QdbPageSpecial(BufferGetPage(c->buf))->overflow == oblk &&
		has_free(BufferGetPage(new), QDB_OVERFLOW_ENTRIES))
	{
		START_CRIT_SECTION();
		move_entries(BufferGetPage(c->buf), c->blk, BufferGetPage(old), BufferGetPage(new), nblk);
		MarkBufferDirty(c->buf);
		MarkBufferDirty(old);
		MarkBufferDirty(new);
		if (RelationNeedsWAL(c->rel))
			log_images(c->buf, old, new);
		END_CRIT_SECTION();
	}
	UnlockReleaseBuffer(old);
	LockBuffer(new, BUFFER_LOCK_UNLOCK);
	LockBuffer(c->buf, BUFFER_LOCK_UNLOCK);
	c->obuf = new;
}

/*
 * Pins an overflow page that may take entries of the row's page.  The caller
 * holds no lock.
 */
void
qdb_overflow_acquire(QdbChange *c, int entries)
{
	BlockNumber own;
	int			rows;

	CHECK_FOR_INTERRUPTS();
	if (c->obuf != InvalidBuffer)
		ReleaseBuffer(c->obuf);
	c->obuf = InvalidBuffer;

	LockBuffer(c->buf, BUFFER_LOCK_SHARE);
	own = QdbPageSpecial(BufferGetPage(c->buf))->overflow;
	rows = PageGetMaxOffsetNumber(BufferGetPage(c->buf));
	LockBuffer(c->buf, BUFFER_LOCK_UNLOCK);

	if (own != InvalidBlockNumber)
	{
		/* Rows that have an entry there keep it. */
		c->obuf = try_page(c->rel, own, entries);
		if (c->obuf == InvalidBuffer)
			move(c, own);
		return;
	}

	/* Room for all rows, so that moving is the exception. */
	if (RelFileNodeEquals(last_used.rnode, c->rel->rd_node))
		c->obuf = try_page(c->rel, last_used.blk, Max(rows, entries));
	if (c->obuf == InvalidBuffer)
		c->obuf = make_page(c->rel);
}
