/*-------------------------------------------------------------------------
 *
 * page.c
 *		Changes of a page's bytes, the same ones on the primary and in redo.
 *
 * Nothing here looks at a transaction's state or writes WAL.  Callers hold the
 * exclusive lock of the buffer, or own the page.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/internal.h"

void
qdb_page_init(Page page, int cap)
{
	QdbSpecial *special;

	Assert(cap >= 1 && cap <= QDB_MAX_CAP);
	PageInit(page, BLCKSZ, sizeof(QdbSpecial));
	special = QdbPageSpecial(page);
	special->kind = QDB_KIND_DATA;
	special->version = QDB_PAGE_VERSION;
	special->cap = cap;
	special->flags = 0;
	special->overflow = InvalidBlockNumber;
	((PageHeader) page)->pd_upper = QDB_SPECIAL_OFFSET - cap * sizeof(QdbXact);
}

void
qdb_overflow_init(Page page)
{
	QdbSpecial *special;

	/* All but the header is special, which PageInit does not do. */
	PageInit(page, BLCKSZ, sizeof(QdbSpecial));
	((PageHeader) page)->pd_upper = ((PageHeader) page)->pd_special = QDB_OVERFLOW_START;
	special = QdbPageSpecial(page);
	special->kind = QDB_KIND_OVERFLOW;
	special->version = QDB_PAGE_VERSION;
	special->overflow = InvalidBlockNumber;
	for (int i = 1; i <= QDB_OVERFLOW_ENTRIES; i++)
		QdbPageOverflow(page, i)->blk = InvalidBlockNumber;
}

/* Moves the rows down to make room for more entries. */
void
qdb_page_grow(Page page, int cap)
{
	PageHeader	header = (PageHeader) page;
	QdbSpecial *special = QdbPageSpecial(page);
	Size		shift = (cap - special->cap) * sizeof(QdbXact);
	Size		end = QDB_SPECIAL_OFFSET - special->cap * sizeof(QdbXact);
	OffsetNumber max = PageGetMaxOffsetNumber(page);

	if (cap <= special->cap)
		return;
	if (cap > QDB_MAX_CAP || QdbPageGap(page) < shift)
		elog(ERROR, "no room for %d transactions on the page", cap);

	memmove((char *) page + header->pd_upper - shift,
			(char *) page + header->pd_upper, end - header->pd_upper);
	header->pd_upper -= shift;
	for (OffsetNumber off = FirstOffsetNumber; off <= max; off++)
	{
		ItemId		lp = PageGetItemId(page, off);

		if (ItemIdIsNormal(lp))
			lp->lp_off -= shift;
	}
	MemSet((char *) page + end - shift, 0, shift);
	special->cap = cap;
}

/*
 * The line pointer for a new row: the first unused one if there is any, as in
 * heap, so that rows stand in the order in which heap would have them.
 * InvalidOffsetNumber: the page has as many as it may have.
 */
OffsetNumber
qdb_page_next_offset(Page page)
{
	OffsetNumber max = PageGetMaxOffsetNumber(page);

	if (PageHasFreeLinePointers(page))
		for (OffsetNumber off = FirstOffsetNumber; off <= max; off++)
		{
			ItemId		lp = PageGetItemId(page, off);

			if (!ItemIdIsUsed(lp) && !ItemIdHasStorage(lp))
				return off;
		}
	return max < QDB_MAX_OFFSETS ? max + 1 : InvalidOffsetNumber;
}

/* That line pointer, whatever the hint says: redo must find the same. */
OffsetNumber
qdb_page_first_free_offset(Page page)
{
	OffsetNumber max = PageGetMaxOffsetNumber(page);
	OffsetNumber off = FirstOffsetNumber;

	while (off <= max && ItemIdIsUsed(PageGetItemId(page, off)))
		off++;
	return off;
}

/* Caller has made sure of the room. */
void
qdb_page_put_row(Page page, OffsetNumber off, const uint8 *row, Size len)
{
	PageHeader	header = (PageHeader) page;
	OffsetNumber max = PageGetMaxOffsetNumber(page);
	Size		lower = header->pd_lower + (off > max ? sizeof(ItemIdData) : 0);

	if (off > max + 1 || off > QDB_MAX_OFFSETS || len < QDB_ROW_HEADER ||
		lower + len > header->pd_upper ||
		(off <= max && ItemIdIsUsed(PageGetItemId(page, off))))
		elog(ERROR, "cannot put a row of %zu bytes at offset %u of the page", len, off);

	header->pd_lower = lower;
	header->pd_upper -= len;
	ItemIdSetNormal(PageGetItemId(page, off), header->pd_upper, len);
	memcpy((char *) page + header->pd_upper, row, len);
}

/*
 * The row before an offset, which is likely to be similar to the one that comes
 * there.  NULL: there is none.
 */
const uint8 *
qdb_page_row_before(Page page, OffsetNumber off, Size *len)
{
	ItemId		lp;

	if (off <= FirstOffsetNumber || off - 1 > PageGetMaxOffsetNumber(page))
		return NULL;
	lp = PageGetItemId(page, off - 1);
	*len = ItemIdGetLength(lp);
	if (!ItemIdIsNormal(lp) || *len < QDB_ROW_HEADER || ItemIdGetOffset(lp) + *len > QDB_SPECIAL_OFFSET)
		return NULL;
	return QdbPageRow(page, off - 1);
}

/*
 * How many rows name each entry?  refs has an element for each number that a row
 * may have.
 */
void
qdb_page_refs(Page page, uint16 *refs)
{
	OffsetNumber max = PageGetMaxOffsetNumber(page);

	memset(refs, 0, QDB_REFS * sizeof(uint16));
	for (OffsetNumber off = FirstOffsetNumber; off <= max; off++)
	{
		const ItemIdData lp = *PageGetItemId(page, off);
		const uint8 *row = (uint8 *) page + lp.lp_off;

		if (lp.lp_flags != LP_NORMAL)
			continue;
		refs[row[QDB_ROW_XI]]++;
		if (!(row[QDB_ROW_FLAGS] & QDB_R_XX_OVERFLOW))
			refs[row[QDB_ROW_XX]]++;
	}
}

static inline bool
entry_is_zero(const QdbXact *x)
{
	return x->xid == InvalidTransactionId && x->mask == 0;
}

static int
count_zero_entries(Page page)
{
	int			n = 0;

	for (int i = 1; i <= QdbPageSpecial(page)->cap; i++)
		n += entry_is_zero(QdbPageXact(page, i));
	return n;
}

static bool
has_free_entry(Page page)
{
	uint16		refs[QDB_REFS];

	qdb_page_refs(page, refs);
	for (int i = 1; i <= QdbPageSpecial(page)->cap; i++)
		if (refs[i] == 0)
			return true;
	return false;
}

/*
 * Entries go to an overflow page by now, and this one has no room for more.  Those
 * that no row names any more wait for the next prune.
 */
bool
qdb_page_is_crowded(Page page)
{
	return QdbPageSpecial(page)->overflow != InvalidBlockNumber &&
		QdbPageGap(page) < sizeof(QdbXact) && count_zero_entries(page) == 0;
}

/* What a row may not take: its line pointer, its inserter's entry, the reserve. */
#define QDB_ROOM_KEPT	(sizeof(ItemIdData) + QDB_RESERVE + sizeof(QdbXact))

/*
 * Length of the longest row that a new transaction may insert here, such that
 * the reserve for later changes stays.  0: none.
 */
Size
qdb_page_room(Page page)
{
	Size		gap;
	Size		keep;
	int			zero;

	if (PageIsNew(page))
		return QDB_MAX_ROW;
	if (QdbPageIsOverflow(page))
		return 0;
	if (PageGetMaxOffsetNumber(page) == 0)
		return QDB_MAX_ROW;
	if (qdb_page_next_offset(page) == InvalidOffsetNumber)
		return 0;

	gap = QdbPageGap(page);
	zero = count_zero_entries(page);
	if (zero == 0 && QdbPageSpecial(page)->cap >= QDB_MAX_CAP && !has_free_entry(page))
		return 0;
	keep = QDB_ROOM_KEPT;
	keep -= Min(zero, 3) * sizeof(QdbXact);
	return gap > keep ? gap - keep : 0;
}

/* Is qdb_page_room at least this?  Mostly that can be told without counting. */
bool
qdb_page_has_room(Page page, Size want, Size *room)
{
	if (!PageIsNew(page) && !QdbPageIsOverflow(page) && QdbPageSpecial(page)->cap < QDB_MAX_CAP &&
		PageGetMaxOffsetNumber(page) < QDB_MAX_OFFSETS)
	{
		*room = Max(QdbPageGap(page), QDB_ROOM_KEPT) - QDB_ROOM_KEPT;
		if (*room >= want)
			return true;
	}
	*room = qdb_page_room(page);
	return *room >= want;
}

/* ---- choice of entries ---- */

void
qdb_alloc_init(QdbAlloc *a, Page page, Size row_len)
{
	memset(a, 0, offsetof(QdbAlloc, refs));
	a->page = page;
	a->wants_row = row_len > 0;
	a->empty = PageGetMaxOffsetNumber(page) == 0 && row_len > 0;
	if (a->empty)
	{
		/* It will be initialized again, with as many entries as fit. */
		a->avail = QDB_SPECIAL_OFFSET - SizeOfPageHeaderData;
		a->old_cap = a->cap = 0;
	}
	else
	{
		a->avail = QdbPageGap(page);
		a->old_cap = a->cap = QdbPageSpecial(page)->cap;
	}
	if (row_len > 0)
	{
		a->off = a->empty ? FirstOffsetNumber : qdb_page_next_offset(page);
		a->used = row_len;
		if (a->empty || a->off > PageGetMaxOffsetNumber(page))
			a->used += sizeof(ItemIdData);
	}
}

static bool
is_taken(const QdbAlloc *a, int i)
{
	for (int k = 0; k < a->ntaken; k++)
		if (a->taken[k] == i)
			return true;
	return false;
}

static bool
may_share(const QdbXact *have, const QdbXact *want, QdbShare share)
{
	if ((have->mask & (QDB_X_HINTS | QDB_X_SPECULATIVE)))
		return false;
	if (share == QDB_SHARE_INSERT)
		return have->cid == want->cid && !(have->mask & (QDB_X_LOCK_ONLY | QDB_X_MULTI));
	return have->mask == want->mask &&
		(have->cid == want->cid || (want->mask & QDB_X_LOCK_ONLY));
}

/*
 * An entry that no row names; grows the table if there is none.  0: no room.
 * Those before the first are not zero.  sparse: while the page has much space,
 * it is not worth looking for entries that no row names any more.
 */
static int
find_free_entry(QdbAlloc *a, int first, bool sparse)
{
	/* The table grows by a few, which are at its end then. */
	for (int i = Max(first, a->old_cap - 3); i <= a->old_cap; i++)
		if (entry_is_zero(QdbPageXact(a->page, i)) && !is_taken(a, i))
			return i;
	for (int i = first; i <= a->old_cap - 4; i++)
		if (entry_is_zero(QdbPageXact(a->page, i)) && !is_taken(a, i))
			return i;
	if (a->old_cap > 0 &&
		!(sparse && a->cap < QDB_MAX_CAP && a->used + BLCKSZ / 4 <= a->avail))
	{
		if (!a->have_refs)
			qdb_page_refs(a->page, a->refs);
		a->have_refs = true;
		for (int i = 1; i <= a->old_cap; i++)
			if (a->refs[i] == 0 && !is_taken(a, i))
				return i;
	}
	if (a->cap < QDB_MAX_CAP && a->used + sizeof(QdbXact) <= a->avail)
	{
		a->cap++;
		a->used += sizeof(QdbXact);
		return a->cap;
	}
	return 0;
}

/*
 * Who inserts again looks for the entry of the time before; others need not look.
 * To be wrong costs an entry only.
 */
QdbShare
qdb_inserter_share(TransactionId xid)
{
	static TransactionId last = InvalidTransactionId;

	if (xid == last)
		return QDB_SHARE_INSERT;
	last = xid;
	return QDB_SHARE_FIRST;
}

/*
 * Number of an entry for what is wanted, or 0 if the page has no room for it.
 * *fresh: it must be written.  mine: an entry that only the row itself names
 * may be overwritten, 0 if there is none.
 */
int
qdb_alloc_entry(QdbAlloc *a, const QdbXact *want, QdbShare share, int mine, bool *fresh)
{
	bool		sparse = share == QDB_SHARE_FIRST || share == QDB_SHARE_INSERT;
	int			first = 1;
	int			i;

	*fresh = false;
	if (share > QDB_SHARE_FIRST)
	{
		first = a->old_cap + 1;
		for (i = 1; i <= a->old_cap; i++)
		{
			const QdbXact *x = QdbPageXact(a->page, i);

			if (x->xid == want->xid && may_share(x, want, share) && !is_taken(a, i))
				return i;
			if (x->xid == InvalidTransactionId)
				first = Min(first, i);
		}
	}
	*fresh = true;
	if (mine > 0 && mine <= a->old_cap && !is_taken(a, mine))
	{
		if (!a->have_refs)
			qdb_page_refs(a->page, a->refs);
		a->have_refs = true;
		i = a->refs[mine] == 1 ? mine : find_free_entry(a, first, false);
	}
	else
		i = find_free_entry(a, first, sparse);
	if (i > 0)
	{
		Assert(a->ntaken < lengthof(a->taken));
		a->taken[a->ntaken++] = i;
	}
	return i;
}

/*
 * True if all that was asked for fits, and leaves as many bytes or entries for
 * later changes, unless the row is the only one of its page.
 */
bool
qdb_alloc_fits(QdbAlloc *a, Size reserve)
{
	Size		left;
	int			zero = 0;

	if (a->used > a->avail || (a->wants_row && a->off == InvalidOffsetNumber))
		return false;
	left = a->avail - a->used;

	/* Grow by a few, to move rows less often. */
	while (a->cap < QDB_MAX_CAP && left >= sizeof(QdbXact) + QDB_RESERVE &&
		   (a->empty ? a->cap < QDB_FIRST_CAP : a->cap > a->old_cap && a->cap % 4 != 0))
	{
		a->cap++;
		a->used += sizeof(QdbXact);
		left -= sizeof(QdbXact);
		zero++;
	}
	if (a->cap == 0)
		a->cap = 1;				/* of an empty page, rows without entries */
	if (reserve == 0 || a->empty)
		return true;
	for (int i = 1; i <= a->old_cap; i++)
		zero += entry_is_zero(QdbPageXact(a->page, i)) && !is_taken(a, i);
	return left + zero * sizeof(QdbXact) >= reserve;
}

/* Makes the page as planned; in a critical section. */
void
qdb_alloc_apply(const QdbAlloc *a)
{
	if (a->empty)
		qdb_page_init(a->page, a->cap);
	else
		qdb_page_grow(a->page, a->cap);
}

/* ---- prune ---- */

/*
 * Packs the rows against a transaction table of cap entries, in the order of
 * their line pointers.  Those that lie there already stay; of the others, what
 * lies together moves together.
 */
static void
compact(Page page, int cap)
{
	PageHeader	header = (PageHeader) page;
	const unsigned lower = header->pd_lower;
	unsigned	upper = QDB_SPECIAL_OFFSET - cap * sizeof(QdbXact);
	ItemId		end = PageGetItemId(page, FirstOffsetNumber) + PageGetMaxOffsetNumber(page);
	ItemId		lp;
	unsigned	from = 0;
	unsigned	len = 0;
	PGAlignedBlock copy;

	for (lp = PageGetItemId(page, FirstOffsetNumber); lp < end; lp++)
	{
		const ItemIdData item = *lp;

		if (item.lp_flags != LP_NORMAL)
			continue;
		if (item.lp_off + item.lp_len != upper)
			break;
		upper -= item.lp_len;
	}
	if (lp < end)
		memcpy(copy.data + lower, (char *) page + lower, QDB_SPECIAL_OFFSET - lower);
	for (; lp < end; lp++)
	{
		const ItemIdData item = *lp;

		if (item.lp_flags != LP_NORMAL)
			continue;
		if (item.lp_off < lower || item.lp_off + item.lp_len > QDB_SPECIAL_OFFSET || lower + item.lp_len > upper)
			elog(ERROR, "rows of the page overlap");
		if (item.lp_off + item.lp_len != from)
		{
			memcpy((char *) page + upper, copy.data + from, len);
			len = 0;
		}
		upper -= item.lp_len;
		from = item.lp_off;
		len += item.lp_len;
		lp->lp_off = upper;
	}
	memcpy((char *) page + upper, copy.data + from, len);
	header->pd_upper = upper;
	QdbPageSpecial(page)->cap = cap;
}

/* Drops unused line pointers at the end and notes whether others remain. */
void
qdb_page_trim_offsets(Page page)
{
	PageHeader	header = (PageHeader) page;
	OffsetNumber max = PageGetMaxOffsetNumber(page);
	bool		unused = false;

	while (max > 0 && !ItemIdIsUsed(PageGetItemId(page, max)))
		max--;
	header->pd_lower = SizeOfPageHeaderData + max * sizeof(ItemIdData);
	for (OffsetNumber off = FirstOffsetNumber; off <= max; off++)
		if (!ItemIdIsUsed(PageGetItemId(page, off)))
			unused = true;
	if (unused)
		PageSetHasFreeLinePointers(page);
	else
		PageClearHasFreeLinePointers(page);
}

/*
 * Carries out what was planned, frees the entries that no row names then, and
 * packs the page.
 */
void
qdb_page_prune(Page page, const QdbPruneList *list)
{
	QdbSpecial *special = QdbPageSpecial(page);
	bool		cool[256] = {0};
	bool		refs[256] = {0};
	int			last = 0;
	bool		overflow = false;
	OffsetNumber max = PageGetMaxOffsetNumber(page);

	for (int i = 0; i < list->nredirect; i++)
		ItemIdSetRedirect(PageGetItemId(page, list->redirect[2 * i]), list->redirect[2 * i + 1]);
	for (int i = 0; i < list->ndead; i++)
		ItemIdSetDead(PageGetItemId(page, list->dead[i]));
	for (int i = 0; i < list->nunused; i++)
		ItemIdSetUnused(PageGetItemId(page, list->unused[i]));
	for (int i = 0; i < list->nclear; i++)
		QdbRowSetXX(QdbPageRow(page, list->clear[i]), 0, false);
	for (int i = 0; i < list->ncool; i++)
		cool[list->cool[i]] = true;
	for (OffsetNumber off = FirstOffsetNumber; off <= max; off++)
	{
		const ItemIdData item = *PageGetItemId(page, off);
		uint8	   *row = (uint8 *) page + item.lp_off;

		if (item.lp_flags != LP_NORMAL)
			continue;
		if (cool[row[QDB_ROW_XI]])
			row[QDB_ROW_XI] = 0;
		refs[row[QDB_ROW_XI]] = true;
		if (row[QDB_ROW_FLAGS] & QDB_R_XX_OVERFLOW)
			overflow = true;
		else
			refs[row[QDB_ROW_XX]] = true;
	}
	if (!overflow)
		special->overflow = InvalidBlockNumber;
	for (int i = 1; i <= special->cap; i++)
	{
		if (refs[i])
			last = i;
		else
			MemSet(QdbPageXact(page, i), 0, sizeof(QdbXact));
	}
	compact(page, Max(last, list->tight ? 1 : Min(special->cap, QDB_FIRST_CAP)));
	qdb_page_trim_offsets(page);
}
