/*-------------------------------------------------------------------------
 *
 * check.c
 *		quantadb_check: is a table what its format says?
 *
 * Returns a row per problem.  Each page is judged under its lock, with the
 * overflow page locked after it, so that running transactions raise no false
 * alarm.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/inspect.h"

#include "access/relation.h"
#include "access/visibilitymap.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(quantadb_check);

typedef struct Check
{
	ReturnSetInfo *rsinfo;
	Relation	rel;
	Buffer		buf;
	Page		page;
	BlockNumber blk;
	OffsetNumber max;
	uint8		vm;
	bool		reached[QDB_MAX_OFFSETS + 1];
	Page		overflow;		/* NULL: none, or it is not one */
} Check;

static void problem(Check *c, OffsetNumber off, const char *format,...) pg_attribute_printf(3, 4);

static void
problem(Check *c, OffsetNumber off, const char *format,...)
{
	Datum		values[3] = {0};
	bool		nulls[3] = {false};
	char		text[256];
	va_list		args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	values[0] = Int64GetDatum(c->blk);
	values[1] = Int32GetDatum(off);
	nulls[1] = off == InvalidOffsetNumber;
	values[2] = CStringGetTextDatum(text);
	tuplestore_putvalues(c->rsinfo->setResult, c->rsinfo->setDesc, values, nulls);
}

/* ---- structure ---- */

/* False: nothing else can be looked at. */
static bool
check_header(Check *c)
{
	PageHeader	header = (PageHeader) c->page;
	QdbSpecial *special = QdbPageSpecial(c->page);

	if (special->version != QDB_PAGE_VERSION)
		problem(c, 0, "format version %u is not known", special->version);
	else if (special->kind == QDB_KIND_OVERFLOW && header->pd_special == QDB_OVERFLOW_START)
		return true;
	else if (special->kind != QDB_KIND_DATA || header->pd_special != QDB_SPECIAL_OFFSET)
		problem(c, 0, "page is of unknown kind 0x%02X", special->kind);
	else if (special->cap < 1 || special->cap > QDB_MAX_CAP)
		problem(c, 0, "transaction table has %u entries", special->cap);
	else if (header->pd_lower < SizeOfPageHeaderData || header->pd_lower > header->pd_upper ||
			 header->pd_upper > QDB_SPECIAL_OFFSET - special->cap * sizeof(QdbXact))
		problem(c, 0, "free space from %u to %u is impossible", header->pd_lower, header->pd_upper);
	else if (PageGetMaxOffsetNumber(c->page) > QDB_MAX_OFFSETS)
		problem(c, 0, "page has %u line pointers", (unsigned) PageGetMaxOffsetNumber(c->page));
	else
		return true;
	return false;
}

/*
 * Is it an id whose state can be asked for?  relfrozenxid and relminmxid promise
 * that the table has nothing older, so that older states may have been removed.
 */
static bool
check_xid(Check *c, OffsetNumber off, const char *role, TransactionId xid)
{
	TransactionId oldest = c->rel->rd_rel->relfrozenxid;

	if (!TransactionIdIsNormal(xid))
		return true;
	if (TransactionIdFollowsOrEquals(xid, ReadNextTransactionId()))
		problem(c, off, "%s %u is in the future", role, xid);
	else if (TransactionIdIsNormal(oldest) && TransactionIdPrecedes(xid, oldest))
		problem(c, off, "%s %u is older than relfrozenxid %u", role, xid, oldest);
	else
		return true;
	return false;
}

static bool
check_updater(Check *c, OffsetNumber off, const QdbXact *x)
{
	MultiXactId oldest = c->rel->rd_rel->relminmxid;

	if (!(x->mask & QDB_X_MULTI))
		return check_xid(c, off, "updater", x->xid);
	if (!MultiXactIdIsValid(x->xid) || !MultiXactIdPrecedes(x->xid, ReadNextMultiXactId()))
		problem(c, off, "multixact %u is in the future", x->xid);
	else if (MultiXactIdIsValid(oldest) && MultiXactIdPrecedes(x->xid, oldest))
		problem(c, off, "multixact %u is older than relminmxid %u", x->xid, oldest);
	else
		return true;
	return false;
}

/* False: the row must not be looked at. */
static bool
check_xmax(Check *c, OffsetNumber off, const uint8 *row)
{
	int			i = QdbRowXX(row);
	QdbOverflowEntry *e;
	QdbXact    *x;

	if (i == 0)
		return true;
	if (!(row[QDB_ROW_FLAGS] & QDB_R_XX_OVERFLOW))
	{
		x = QdbPageXact(c->page, i);
		if (i > QdbPageSpecial(c->page)->cap)
		{
			problem(c, off, "updater %d is not in the transaction table", i);
			return false;
		}
		if (TransactionIdIsValid(x->xid) || (x->mask & QDB_X_MULTI))
			return check_updater(c, off, x);
		if (!(x->mask & QDB_X_ABORTED))
			problem(c, off, "updater %d is a free entry", i);
		return true;
	}
	if (c->overflow == NULL)
	{
		problem(c, off, "overflow page %u is none", QdbPageSpecial(c->page)->overflow);
		return false;
	}
	if (i > QDB_OVERFLOW_ENTRIES)
	{
		problem(c, off, "overflow entry %d does not exist", i);
		return false;
	}
	e = QdbPageOverflow(c->overflow, i);
	if (e->blk == c->blk && e->off == off)
		return check_updater(c, off, &e->x);
	problem(c, off, "overflow entry %d belongs to row (%u,%u)", i, e->blk, e->off);
	return false;
}

static bool
check_inserter(Check *c, OffsetNumber off, const uint8 *row)
{
	int			i = row[QDB_ROW_XI];
	QdbXact    *x;

	if (i == 0)
		return true;
	if (i > QdbPageSpecial(c->page)->cap)
	{
		problem(c, off, "inserter %d is not in the transaction table", i);
		return false;
	}
	x = QdbPageXact(c->page, i);
	if (x->mask & (QDB_X_LOCK_ONLY | QDB_X_MULTI))
		problem(c, off, "inserter %d is a lock", i);
	else if (!TransactionIdIsNormal(x->xid) && !(x->mask & QDB_X_ABORTED))
		problem(c, off, "inserter %d has no transaction", i);
	return check_xid(c, off, "inserter", x->xid);
}

/* Do the values end where the row ends? */
static void
check_values(Check *c, OffsetNumber off, const uint8 *row, Size len)
{
	TupleDesc	desc = RelationGetDescr(c->rel);
	const uint8 *end = row + len;
	QdbCursor	cursor;

	if (QdbRowNatts(row) > desc->natts)
	{
		problem(c, off, "row has %d columns, the table has %d", QdbRowNatts(row), desc->natts);
		return;
	}
	qdb_cursor_init_soft(&cursor, desc, row, len, true);
	for (int i = 0; i < cursor.natts && !cursor.damaged; i++)
	{
		Datum		value;
		Size		size;

		qdb_cursor_next(&cursor, desc, &value, &size);
	}
	if (cursor.damaged)
		problem(c, off, "values do not end where the row ends");
	else if (cursor.next != end)
		problem(c, off, "values end %d bytes before the row", (int) (end - cursor.next));
}

static bool
check_items(Check *c)
{
	uint32		start = QDB_SPECIAL_OFFSET - QdbPageSpecial(c->page)->cap * sizeof(QdbXact);
	char		used[BLCKSZ] = {0};
	bool		good = true;

	for (OffsetNumber off = FirstOffsetNumber; off <= c->max; off++)
	{
		ItemId		lp = PageGetItemId(c->page, off);
		uint32		from = ItemIdGetOffset(lp);
		uint32		len = ItemIdGetLength(lp);
		const uint8 *row;

		if (!ItemIdIsNormal(lp))
			continue;
		if (len < QDB_ROW_HEADER || from < ((PageHeader) c->page)->pd_upper || from + len > start)
		{
			problem(c, off, "row from %u to %u is not among the rows", from, from + len);
			good = false;
			continue;
		}
		for (uint32 i = from; i < from + len; i++)
		{
			if (used[i])
			{
				problem(c, off, "row overlaps another one at %u", i);
				good = false;
				break;
			}
			used[i] = 1;
		}
		row = QdbPageRow(c->page, off);
		if (!check_inserter(c, off, row) || !check_xmax(c, off, row))
			good = false;
		check_values(c, off, row, len);
	}
	return good;
}

/* ---- chains ---- */

static void
follow(Check *c, QdbView *view, OffsetNumber root)
{
	ItemId		lp = PageGetItemId(c->page, root);
	OffsetNumber at = root;
	TransactionId prior = InvalidTransactionId;
	ItemPointerData next;
	QdbRow		row;

	if (ItemIdIsRedirected(lp))
	{
		at = ItemIdGetRedirect(lp);
		if (!qdb_view_row(view, at, &row) || !QdbRowHeapOnly(&row))
			problem(c, root, "redirect to %u leads to no version of a row", at);
	}
	while (qdb_view_row(view, at, &row) && !c->reached[at] &&
		   (!TransactionIdIsValid(prior) || QdbRowXmin(&row) == prior))
	{
		c->reached[at] = true;
		if (!QdbRowHotUpdated(&row) || !QdbRowNext(&row, &next))
			return;
		prior = qdb_row_update_xid(&row);
		if (ItemPointerGetBlockNumber(&next) != c->blk)
			problem(c, at, "HOT chain leads to block %u", ItemPointerGetBlockNumber(&next));
		at = ItemPointerGetOffsetNumber(&next);
		if (TransactionIdIsNormal(prior) && !TransactionIdIsInProgress(prior) &&
			TransactionIdDidCommit(prior) &&
			(!qdb_view_row(view, at, &row) || QdbRowXmin(&row) != prior))
			problem(c, at, "HOT chain of %u breaks at update %u", root, prior);
	}
}

static void
check_chains(Check *c)
{
	QdbView		view;
	QdbRow		row;

	/* The overflow page is locked by us: its entries are taken from there. */
	qdb_view_init_copy(&view, c->rel, c->page, c->blk);
	if (c->overflow != NULL)
	{
		view.overflow = palloc0((QDB_OVERFLOW_ENTRIES + 1) * sizeof(QdbXact));
		for (int i = 1; i <= QDB_OVERFLOW_ENTRIES; i++)
			if (QdbPageOverflow(c->overflow, i)->blk == c->blk)
				view.overflow[i] = QdbPageOverflow(c->overflow, i)->x;
	}
	for (OffsetNumber off = FirstOffsetNumber; off <= c->max; off++)
	{
		ItemId		lp = PageGetItemId(c->page, off);

		if (ItemIdIsRedirected(lp) || (qdb_view_row(&view, off, &row) && !QdbRowHeapOnly(&row)))
			follow(c, &view, off);
	}
	for (OffsetNumber off = FirstOffsetNumber; off <= c->max; off++)
		if (!c->reached[off] && qdb_view_row(&view, off, &row) && QdbRowHeapOnly(&row) &&
			(row.xi == NULL || (!TransactionIdIsInProgress(row.xi->xid) &&
								TransactionIdDidCommit(row.xi->xid))))
			problem(c, off, "no index entry leads to this version");
	if (c->vm & VISIBILITYMAP_ALL_VISIBLE)
		for (OffsetNumber off = FirstOffsetNumber; off <= c->max; off++)
		{
			if (!qdb_view_row(&view, off, &row))
				continue;
			if (qdb_row_satisfies_vacuum(&row, InvalidTransactionId) != HEAPTUPLE_LIVE)
				problem(c, off, "page is marked all-visible, but not all see this row");
			else if ((c->vm & VISIBILITYMAP_ALL_FROZEN) && (row.xi != NULL || row.xx != NULL))
				problem(c, off, "page is marked all-frozen, but this row has a transaction");
		}
	qdb_view_done(&view);
}

static void
check_visibility(Check *c)
{
	if (!(c->vm & VISIBILITYMAP_ALL_VISIBLE))
		return;
	if (!PageIsAllVisible(c->page))
		problem(c, 0, "visibility map says all-visible, the page does not");
	for (OffsetNumber off = FirstOffsetNumber; off <= c->max; off++)
		if (ItemIdIsDead(PageGetItemId(c->page, off)))
			problem(c, off, "page is marked all-visible, but this item is dead");
}

/* ---- overflow pages ---- */

/* Does the row that an entry belongs to name it?  Locked in the usual order. */
static void
check_owner(Check *c, int i, BlockNumber owner, OffsetNumber off)
{
	Buffer		buf;
	Page		page;
	QdbOverflowEntry *e = QdbPageOverflow(c->page, i);
	const uint8 *row;

	if (owner >= RelationGetNumberOfBlocks(c->rel) || owner == c->blk)
	{
		problem(c, 0, "entry %d belongs to block %u, which does not exist", i, owner);
		return;
	}
	buf = ReadBuffer(c->rel, owner);
	LockBuffer(buf, BUFFER_LOCK_SHARE);
	LockBuffer(c->buf, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buf);
	/* What is wrong with the owner itself is said where it is checked. */
	if (qdb_page_is_known(page) && QdbPageIsOverflow(c->page) && e->blk == owner && e->off == off)
	{
		row = off >= FirstOffsetNumber && off <= PageGetMaxOffsetNumber(page) &&
			qdb_inspect_row_is_on(page, PageGetItemId(page, off)) ? QdbPageRow(page, off) : NULL;
		if (row == NULL || !(row[QDB_ROW_FLAGS] & QDB_R_XX_OVERFLOW) || QdbRowXX(row) != i)
			problem(c, 0, "entry %d belongs to row (%u,%u), which does not name it", i, owner, off);
		else if (QdbPageSpecial(page)->overflow != c->blk)
			problem(c, 0, "entry %d belongs to block %u, whose overflow page is %u", i, owner,
					QdbPageSpecial(page)->overflow);
	}
	LockBuffer(c->buf, BUFFER_LOCK_UNLOCK);
	UnlockReleaseBuffer(buf);
}

static void
check_overflow_page(Check *c)
{
	BlockNumber owners[QDB_OVERFLOW_ENTRIES + 1];
	OffsetNumber offs[QDB_OVERFLOW_ENTRIES + 1];

	for (int i = 1; i <= QDB_OVERFLOW_ENTRIES; i++)
	{
		owners[i] = QdbPageOverflow(c->page, i)->blk;
		offs[i] = QdbPageOverflow(c->page, i)->off;
	}
	LockBuffer(c->buf, BUFFER_LOCK_UNLOCK);
	for (int i = 1; i <= QDB_OVERFLOW_ENTRIES; i++)
		if (owners[i] != InvalidBlockNumber)
			check_owner(c, i, owners[i], offs[i]);
	LockBuffer(c->buf, BUFFER_LOCK_SHARE);
}

/* ---- pages ---- */

static void
check_data_page(Check *c)
{
	BlockNumber oblk = QdbPageSpecial(c->page)->overflow;
	Buffer		obuf = InvalidBuffer;

	c->max = PageGetMaxOffsetNumber(c->page);
	c->overflow = NULL;
	memset(c->reached, 0, sizeof(c->reached));
	if (oblk != InvalidBlockNumber && oblk != c->blk && oblk < RelationGetNumberOfBlocks(c->rel))
	{
		obuf = ReadBuffer(c->rel, oblk);
		LockBuffer(obuf, BUFFER_LOCK_SHARE);
		if (QdbPageIsOverflow(BufferGetPage(obuf)))
			c->overflow = BufferGetPage(obuf);
	}
	if (check_items(c))
		check_chains(c);
	check_visibility(c);
	if (obuf != InvalidBuffer)
		UnlockReleaseBuffer(obuf);
}

static void
check_block(Check *c, BlockNumber blk)
{
	Buffer		vmbuffer = InvalidBuffer;

	c->blk = blk;
	c->buf = ReadBuffer(c->rel, blk);
	c->page = BufferGetPage(c->buf);

	/* Read before the lock; what it says is judged with a second look. */
	(void) visibilitymap_get_status(c->rel, blk, &vmbuffer);
	LockBuffer(c->buf, BUFFER_LOCK_SHARE);
	c->vm = visibilitymap_get_status(c->rel, blk, &vmbuffer);
	if (!PageIsNew(c->page) && check_header(c))
	{
		if (!QdbPageIsOverflow(c->page))
			check_data_page(c);
		else
		{
			if (c->vm & VISIBILITYMAP_ALL_VISIBLE)
				problem(c, 0, "overflow page is marked all-visible");
			check_overflow_page(c);
		}
	}
	UnlockReleaseBuffer(c->buf);
	if (vmbuffer != InvalidBuffer)
		ReleaseBuffer(vmbuffer);
}

Datum
quantadb_check(PG_FUNCTION_ARGS)
{
	Check		c = {0};
	BlockNumber n;

	c.rel = qdb_inspect_open(PG_GETARG_OID(0));
	InitMaterializedSRF(fcinfo, 0);
	c.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	n = RelationGetNumberOfBlocks(c.rel);
	for (BlockNumber blk = 0; blk < n; blk++)
	{
		CHECK_FOR_INTERRUPTS();
		check_block(&c, blk);
	}
	relation_close(c.rel, AccessShareLock);
	return (Datum) 0;
}
