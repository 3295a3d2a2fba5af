/*-------------------------------------------------------------------------
 *
 * inspect.c
 *		SQL functions that show a page: its items and its transaction table.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/inspect.h"

#include "access/relation.h"
#include "access/xlog.h"
#include "catalog/pg_class_d.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(quantadb_page_items);
PG_FUNCTION_INFO_V1(quantadb_page_transactions);

/* Opens a table of ours for someone who may see everything in it. */
Relation
qdb_inspect_open(Oid relid)
{
	Relation	rel = relation_open(relid, AccessShareLock);

	if ((rel->rd_rel->relkind != RELKIND_RELATION && rel->rd_rel->relkind != RELKIND_MATVIEW) ||
		rel->rd_tableam != qdb_table_routine())
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table of access method quantadb", RelationGetRelationName(rel))));
	if (RecoveryInProgress() && !RelationIsPermanent(rel))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot access temporary or unlogged relations during recovery")));
	if (RELATION_IS_OTHER_TEMP(rel))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot look into temporary tables of other sessions")));
	return rel;
}

/* A private copy of one block. */
static void
copy_block(Relation rel, int64 blk, PGAlignedBlock *copy)
{
	Buffer		buf;

	if (blk < 0 || blk >= RelationGetNumberOfBlocks(rel))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("block %lld of table \"%s\" does not exist", (long long) blk,
						RelationGetRelationName(rel)),
				 errdetail("The table has %u blocks.", RelationGetNumberOfBlocks(rel))));
	buf = qdb_read_buffer(rel, (BlockNumber) blk, NULL);
	LockBuffer(buf, BUFFER_LOCK_SHARE);
	memcpy(copy->data, BufferGetPage(buf), BLCKSZ);
	UnlockReleaseBuffer(buf);
}

static Datum
names_of_bits(uint32 value, const char *const *names, int n)
{
	Datum		elems[32];
	int			count = 0;

	for (int i = 0; i < n; i++)
		if ((value & (1 << i)) && names[i] != NULL)
			elems[count++] = CStringGetTextDatum(names[i]);
	return PointerGetDatum(construct_array(elems, count, TEXTOID, -1, false, TYPALIGN_INT));
}

static const char *const row_bits[] = {
	"has null", "has external", NULL, "heap only", "updated", NULL, NULL, "overflow"
};

static const char *const entry_bits[] = {
	"key share", "exclusive", "lock only", "multi", "keys updated", "updated", "hot", "moved",
	"committed", "aborted", "speculative"
};

/* May a row be looked at, whatever its page has in it? */
bool
qdb_inspect_row_is_on(Page page, ItemId lp)
{
	uint32		from = ItemIdGetOffset(lp);
	uint32		len = ItemIdGetLength(lp);

	/* The number of columns may have a byte more. */
	return ItemIdIsNormal(lp) && len >= QDB_ROW_HEADER && from + len <= QDB_SPECIAL_OFFSET &&
		(len > QDB_ROW_HEADER || !(((uint8 *) page)[from + QDB_ROW_FLAGS] & QDB_R_NATTS16));
}

static void
put_item(ReturnSetInfo *rsinfo, Page page, OffsetNumber off)
{
	static const char *const states[] = {"unused", "normal", "redirect", "dead"};
	ItemId		lp = PageGetItemId(page, off);
	Datum		values[8] = {0};
	bool		nulls[8] = {false, false, true, true, true, true, true, true};

	values[0] = Int32GetDatum(off);
	values[1] = CStringGetTextDatum(states[lp->lp_flags]);
	if (ItemIdIsRedirected(lp))
	{
		values[2] = Int32GetDatum(ItemIdGetRedirect(lp));
		nulls[2] = false;
	}
	if (qdb_inspect_row_is_on(page, lp))
	{
		const uint8 *row = QdbPageRow(page, off);

		values[3] = Int32GetDatum(ItemIdGetLength(lp));
		values[4] = Int32GetDatum(QdbRowNatts(row));
		values[5] = Int32GetDatum(row[QDB_ROW_XI]);
		values[6] = Int32GetDatum(QdbRowXX(row));
		values[7] = names_of_bits(row[QDB_ROW_FLAGS], row_bits, lengthof(row_bits));
		memset(nulls + 3, 0, 5 * sizeof(bool));
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
quantadb_page_items(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Relation	rel = qdb_inspect_open(PG_GETARG_OID(0));
	PGAlignedBlock copy;
	Page		page = (Page) copy.data;

	copy_block(rel, PG_GETARG_INT64(1), &copy);
	InitMaterializedSRF(fcinfo, 0);
	if (!PageIsNew(page))
		for (OffsetNumber off = FirstOffsetNumber; off <= PageGetMaxOffsetNumber(page); off++)
			put_item(rsinfo, page, off);
	relation_close(rel, AccessShareLock);
	return (Datum) 0;
}

static void
put_entry(ReturnSetInfo *rsinfo, int i, const QdbXact *x, BlockNumber owner, OffsetNumber owner_off)
{
	Datum		values[6] = {0};
	bool		nulls[6] = {false};
	ItemPointer tid = palloc(sizeof(ItemPointerData));

	values[0] = Int32GetDatum(i);
	values[1] = TransactionIdGetDatum(x->xid);
	values[2] = CommandIdGetDatum(x->cid);
	nulls[3] = !(x->mask & QDB_X_UPDATED);
	values[3] = PointerGetDatum(&x->next);
	values[4] = names_of_bits(x->mask, entry_bits, lengthof(entry_bits));
	nulls[5] = owner == InvalidBlockNumber;
	ItemPointerSet(tid, owner, owner_off);
	values[5] = PointerGetDatum(tid);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* Entries that rows of the page name. */
static void
note_named(Page page, bool *named)
{
	for (OffsetNumber off = FirstOffsetNumber; off <= PageGetMaxOffsetNumber(page); off++)
	{
		ItemId		lp = PageGetItemId(page, off);
		const uint8 *row = QdbPageRow(page, off);

		if (!qdb_inspect_row_is_on(page, lp))
			continue;
		named[row[QDB_ROW_XI]] = true;
		if (!(row[QDB_ROW_FLAGS] & QDB_R_XX_OVERFLOW))
			named[row[QDB_ROW_XX]] = true;
	}
}

/* Entries that are in use: of a data page, or of an overflow page with their rows. */
Datum
quantadb_page_transactions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Relation	rel = qdb_inspect_open(PG_GETARG_OID(0));
	PGAlignedBlock copy;
	Page		page = (Page) copy.data;
	bool		named[QDB_REFS] = {0};

	copy_block(rel, PG_GETARG_INT64(1), &copy);
	InitMaterializedSRF(fcinfo, 0);
	if (PageIsNew(page))
		;
	else if (QdbPageIsOverflow(page))
	{
		for (int i = 1; i <= QDB_OVERFLOW_ENTRIES; i++)
		{
			QdbOverflowEntry *e = QdbPageOverflow(page, i);

			if (e->blk != InvalidBlockNumber)
				put_entry(rsinfo, i, &e->x, e->blk, e->off);
		}
	}
	else
	{
		note_named(page, named);
		for (int i = 1; i <= Min(QdbPageSpecial(page)->cap, QDB_MAX_CAP); i++)
			if (named[i])
				put_entry(rsinfo, i, QdbPageXact(page, i), InvalidBlockNumber, InvalidOffsetNumber);
	}
	relation_close(rel, AccessShareLock);
	return (Datum) 0;
}
