/*-------------------------------------------------------------------------
 *
 * wal_prune.c
 *		What a record says of a prune.
 *
 * Lists of offsets and entries, as short as can be.  A chain that comes down to
 * its newest version is named by its root: the rest is on the page.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/wal.h"

#define PRUNE_REDIRECT	0x01
#define PRUNE_DEAD		0x02
#define PRUNE_UNUSED	0x04
#define PRUNE_COOL		0x08
#define PRUNE_CLEAR		0x10
#define PRUNE_WIDE		0x20	/* items have two bytes */
#define PRUNE_TIGHT		0x40
#define PRUNE_CHAINS	0x80	/* roots whose chains end where they end */

/* Instead of the only item, where items have one byte: a count follows. */
#define SET_HAS_COUNT	0
/* Instead of a count: the items that are meant, as bits. */
#define SET_IS_BITS		255
#define SET_BYTES		((QDB_MAX_OFFSETS + 7) / 8)

static void
write_items(QdbRecWriter *w, const uint16 *items, int n, bool wide)
{
	for (int i = 0; i < n; i++)
		if (wide)
			qdb_rec_write2(w, items[i]);
		else
			qdb_rec_write1(w, items[i]);
}

static void
read_items(QdbRecReader *r, uint16 *items, int n, int max, bool wide)
{
	for (int i = 0; i < n; i++)
	{
		items[i] = wide ? qdb_rec_read2(r) : qdb_rec_read1(r);
		if (items[i] < 1 || items[i] > max)
			elog(PANIC, "quantadb WAL record prunes item %u", items[i]);
	}
}

/*
 * Items whose order means nothing.  One by one, or as bits where that is
 * shorter: so there are never more than SET_BYTES one by one.
 */
static void
write_set(QdbRecWriter *w, const uint16 *items, int n, bool wide)
{
	uint8		bits[SET_BYTES] = {0};
	int			bytes = 0;

	if (!wide && n == 1)
	{
		write_items(w, items, n, wide);
		return;
	}
	if (!wide)
		qdb_rec_write1(w, SET_HAS_COUNT);
	for (int i = 0; i < n; i++)
	{
		int			byte = (items[i] - 1) / 8;

		bits[byte] |= 1 << (items[i] - 1) % 8;
		bytes = Max(bytes, byte + 1);
	}
	if (bytes < n)
	{
		qdb_rec_write1(w, SET_IS_BITS);
		qdb_rec_write1(w, bytes);
		qdb_rec_write_bytes(w, bits, bytes);
		return;
	}
	qdb_rec_write1(w, n);
	write_items(w, items, n, wide);
}

static uint16
read_set(QdbRecReader *r, uint16 *items, int max, bool wide)
{
	int			n = qdb_rec_read1(r);
	int			bytes;
	const uint8 *bits;

	if (!wide && n != SET_HAS_COUNT)
	{
		items[0] = n;
		if (items[0] > max)
			elog(PANIC, "quantadb WAL record prunes item %u", items[0]);
		return 1;
	}
	if (!wide)
		n = qdb_rec_read1(r);
	if (n != SET_IS_BITS)
	{
		if (n > max)
			elog(PANIC, "quantadb WAL record prunes %d items", n);
		read_items(r, items, n, max, wide);
		return n;
	}
	bytes = qdb_rec_read1(r);
	bits = (const uint8 *) qdb_rec_read_bytes(r, bytes);
	n = 0;
	for (int i = 0; i < bytes * 8; i++)
	{
		if (!(bits[i / 8] & (1 << i % 8)))
			continue;
		if (i >= max)
			elog(PANIC, "quantadb WAL record prunes item %d", i + 1);
		items[n++] = i + 1;
	}
	return n;
}

static bool
any_above(const uint16 *items, int n)
{
	for (int i = 0; i < n; i++)
		if (items[i] > 255)
			return true;
	return false;
}

/* ---- chains ---- */

/* What a root's chain comes to when all but its newest version goes. */
typedef struct ChainEnd
{
	OffsetNumber last;
	int			xi;				/* that one's inserter */
	int			ngone;
	OffsetNumber gone[QDB_MAX_OFFSETS]; /* besides the root */
} ChainEnd;

/* The next version of a HOT chain.  An update that aborted has one, too. */
static OffsetNumber
next_in_chain(Page page, const uint8 *row)
{
	const uint16 both = QDB_X_UPDATED | QDB_X_HOT;
	int			xx = row[QDB_ROW_XX];
	const QdbXact *x;

	if ((row[QDB_ROW_FLAGS] & QDB_R_XX_OVERFLOW) || xx == 0 || xx > QdbPageSpecial(page)->cap)
		return InvalidOffsetNumber;
	x = QdbPageXact(page, xx);
	return (x->mask & both) == both ? ItemPointerGetOffsetNumberNoCheck(&x->next) : InvalidOffsetNumber;
}

/*
 * Follows the chain of a root to its end by what WAL carries, no hint and no
 * transaction's state: redo finds the same.  False: there is nothing that
 * could go, or it is no chain.
 */
static bool
follow_chain(Page page, OffsetNumber root, ChainEnd *end)
{
	OffsetNumber max = PageGetMaxOffsetNumber(page);
	OffsetNumber at = root;

	end->ngone = 0;
	if (root < FirstOffsetNumber || root > max)
		return false;
	if (ItemIdIsRedirected(PageGetItemId(page, root)))
		at = ItemIdGetRedirect(PageGetItemId(page, root));
	for (int steps = 0; steps <= max; steps++)
	{
		OffsetNumber next;
		ItemId		lp;

		if (at < FirstOffsetNumber || at > max)
			return false;
		lp = PageGetItemId(page, at);
		if (!ItemIdIsNormal(lp) || ItemIdGetLength(lp) < QDB_ROW_HEADER ||
			ItemIdGetOffset(lp) + ItemIdGetLength(lp) > QDB_SPECIAL_OFFSET)
			return false;
		next = next_in_chain(page, QdbPageRow(page, at));
		if (next == InvalidOffsetNumber)
		{
			end->last = at;
			end->xi = QdbPageRow(page, at)[QDB_ROW_XI];
			return steps > 0;
		}
		if (at != root && end->ngone < QDB_MAX_OFFSETS)
			end->gone[end->ngone++] = at;
		at = next;
	}
	return false;
}

/* A list without what follows from its chains, and their roots. */
typedef struct ShortList
{
	QdbPruneList list;
	int			nroots;
	OffsetNumber roots[QDB_MAX_OFFSETS];
} ShortList;

/* Does the list do to this root's chain what redo does, told the root alone? */
static bool
is_implied(Page page, OffsetNumber root, OffsetNumber to, const bool *unused, const bool *cool, ChainEnd *end)
{
	if (!follow_chain(page, root, end) || end->last != to || (end->xi > 0 && !cool[end->xi]))
		return false;
	for (int i = 0; i < end->ngone; i++)
		if (!unused[end->gone[i]])
			return false;
	return true;
}

/*
 * The page is as it was before the prune.  Most of what is pruned are chains of
 * which the newest version stays, and gets cold.
 */
static void
shorten(Page page, const QdbPruneList *list, ShortList *s)
{
	bool		unused[QDB_MAX_OFFSETS + 1] = {0};
	bool		cool[QDB_REFS] = {0};
	bool		implied[QDB_REFS] = {0};
	ChainEnd	end;

	s->nroots = s->list.nredirect = s->list.nunused = s->list.ncool = 0;
	for (int i = 0; i < list->nunused; i++)
		unused[list->unused[i]] = true;
	for (int i = 0; i < list->ncool; i++)
		cool[list->cool[i]] = true;
	for (int i = 0; i < list->nredirect; i++)
	{
		OffsetNumber root = list->redirect[2 * i];
		OffsetNumber to = list->redirect[2 * i + 1];

		if (is_implied(page, root, to, unused, cool, &end))
		{
			s->roots[s->nroots++] = root;
			implied[end.xi] = true;
			for (int k = 0; k < end.ngone; k++)
				unused[end.gone[k]] = false;
			continue;
		}
		s->list.redirect[2 * s->list.nredirect] = root;
		s->list.redirect[2 * s->list.nredirect + 1] = to;
		s->list.nredirect++;
	}
	for (int i = 0; i < list->nunused; i++)
		if (unused[list->unused[i]])
			s->list.unused[s->list.nunused++] = list->unused[i];
	for (int i = 0; i < list->ncool; i++)
		if (!implied[list->cool[i]])
			s->list.cool[s->list.ncool++] = list->cool[i];
}

/* The page is as it was before the prune. */
void
qdb_rec_write_prune(QdbRecWriter *w, Page page, const QdbPruneList *list)
{
	ShortList	s;
	bool		wide;

	shorten(page, list, &s);
	wide = any_above(s.roots, s.nroots) || any_above(s.list.redirect, 2 * s.list.nredirect) ||
		any_above(list->dead, list->ndead) || any_above(s.list.unused, s.list.nunused) ||
		any_above(list->clear, list->nclear);
	qdb_rec_write1(w, (s.list.nredirect ? PRUNE_REDIRECT : 0) | (list->ndead ? PRUNE_DEAD : 0) |
				   (s.list.nunused ? PRUNE_UNUSED : 0) | (s.list.ncool ? PRUNE_COOL : 0) |
				   (list->nclear ? PRUNE_CLEAR : 0) | (wide ? PRUNE_WIDE : 0) |
				   (list->tight ? PRUNE_TIGHT : 0) | (s.nroots ? PRUNE_CHAINS : 0));
	if (s.nroots)
		write_set(w, s.roots, s.nroots, wide);
	if (s.list.nredirect)
	{
		/* Pairs, at most half of a page's line pointers. */
		qdb_rec_write1(w, s.list.nredirect);
		write_items(w, s.list.redirect, 2 * s.list.nredirect, wide);
	}
	if (list->ndead)
		write_set(w, list->dead, list->ndead, wide);
	if (s.list.nunused)
		write_set(w, s.list.unused, s.list.nunused, wide);
	if (s.list.ncool)
		write_set(w, s.list.cool, s.list.ncool, wide);
	if (list->nclear)
		write_set(w, list->clear, list->nclear, wide);
}

/* Adds what follows from the chains of these roots. */
static void
add_chains(Page page, QdbPruneList *list, const OffsetNumber *roots, int nroots)
{
	bool		cool[QDB_REFS] = {0};
	ChainEnd	end;

	for (int i = 0; i < list->ncool; i++)
		cool[list->cool[i]] = true;
	for (int i = 0; i < nroots; i++)
	{
		if (!follow_chain(page, roots[i], &end) || list->nredirect >= QDB_MAX_OFFSETS ||
			list->nunused + end.ngone > QDB_MAX_OFFSETS || end.xi > QDB_MAX_CAP)
			elog(PANIC, "quantadb WAL record prunes a chain that is not there");
		list->redirect[2 * list->nredirect] = roots[i];
		list->redirect[2 * list->nredirect + 1] = end.last;
		list->nredirect++;
		for (int k = 0; k < end.ngone; k++)
			list->unused[list->nunused++] = end.gone[k];
		if (end.xi > 0 && !cool[end.xi])
			list->cool[list->ncool++] = end.xi;
		cool[end.xi] = true;
	}
}

void
qdb_rec_read_prune(QdbRecReader *r, Page page, QdbPruneList *list)
{
	uint8		flags = qdb_rec_read1(r);
	bool		wide = (flags & PRUNE_WIDE) != 0;
	int			nroots = 0;
	OffsetNumber roots[QDB_MAX_OFFSETS];

	list->nredirect = list->ndead = list->nunused = list->ncool = list->nclear = 0;
	list->tight = (flags & PRUNE_TIGHT) != 0;
	if (flags & PRUNE_CHAINS)
		nroots = read_set(r, roots, QDB_MAX_OFFSETS, wide);
	if (flags & PRUNE_REDIRECT)
	{
		list->nredirect = qdb_rec_read1(r);
		read_items(r, list->redirect, 2 * list->nredirect, QDB_MAX_OFFSETS, wide);
	}
	if (flags & PRUNE_DEAD)
		list->ndead = read_set(r, list->dead, QDB_MAX_OFFSETS, wide);
	if (flags & PRUNE_UNUSED)
		list->nunused = read_set(r, list->unused, QDB_MAX_OFFSETS, wide);
	if (flags & PRUNE_COOL)
		list->ncool = read_set(r, list->cool, QDB_MAX_CAP, wide);
	if (flags & PRUNE_CLEAR)
		list->nclear = read_set(r, list->clear, QDB_MAX_OFFSETS, wide);
	add_chains(page, list, roots, nroots);
}
