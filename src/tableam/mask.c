/*-------------------------------------------------------------------------
 *
 * mask.c
 *		wal_consistency_checking: what WAL does not carry is no difference.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/wal.h"

#include "access/bufmask.h"

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
	uint16		refs[QDB_REFS];

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
