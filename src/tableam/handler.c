/*-------------------------------------------------------------------------
 *
 * handler.c
 *		The access method's routine, storage of relations, sizes.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/inspect.h"
#include "tableam/vacuum.h"

#include "access/heaptoast.h"
#include "access/xloginsert.h"
#include "access/xlog_internal.h"
#include "catalog/catalog.h"
#include "catalog/index.h"
#include "catalog/pg_am_d.h"
#include "catalog/storage.h"
#include "catalog/storage_xlog.h"
#include "commands/vacuum.h"
#include "fmgr.h"
#include "nodes/execnodes.h"
#include "storage/procarray.h"
#include "storage/smgr.h"
#include "utils/builtins.h"

#include "base/base.h"

PG_FUNCTION_INFO_V1(quantadb_handler);

static const TupleTableSlotOps *
slot_callbacks(Relation rel)
{
	return &qdb_slot_ops;
}

/* ---- storage ---- */

static void
relation_set_new_filenode(Relation rel, const RelFileNode *rnode, char persistence,
						  TransactionId *freeze_xid, MultiXactId *minmulti)
{
	SMgrRelation srel;

	/* No older transaction runs, and none can use older multixacts. */
	*freeze_xid = RecentXmin;
	*minmulti = GetOldestMultiXactId();

	srel = RelationCreateStorage(*rnode, persistence, true);
	if (persistence == RELPERSISTENCE_UNLOGGED)
	{
		/*
		 * The init fork did not go through shared buffers, so a checkpoint in
		 * between would not have written it.
		 */
		smgrcreate(srel, INIT_FORKNUM, false);
		log_smgrcreate(rnode, INIT_FORKNUM);
		smgrimmedsync(srel, INIT_FORKNUM);
	}
	smgrclose(srel);
}

static void
relation_nontransactional_truncate(Relation rel)
{
	RelationTruncate(rel, 0);
}

static void
relation_copy_data(Relation rel, const RelFileNode *rnode)
{
	SMgrRelation dst = smgropen(*rnode, rel->rd_backend);

	/* Files are copied, so what is in shared buffers goes out first. */
	FlushRelationBuffers(rel);
	RelationCreateStorage(*rnode, rel->rd_rel->relpersistence, true);
	RelationCopyStorage(RelationGetSmgr(rel), dst, MAIN_FORKNUM, rel->rd_rel->relpersistence);
	for (ForkNumber fork = MAIN_FORKNUM + 1; fork <= MAX_FORKNUM; fork++)
	{
		if (!smgrexists(RelationGetSmgr(rel), fork))
			continue;
		smgrcreate(dst, fork, false);
		if (RelationIsPermanent(rel) ||
			(rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED && fork == INIT_FORKNUM))
			log_smgrcreate(rnode, fork);
		RelationCopyStorage(RelationGetSmgr(rel), dst, fork, rel->rd_rel->relpersistence);
	}
	RelationDropStorage(rel);
	smgrclose(dst);
}

/* As heap: is there a column that could make a row too long? */
static bool
relation_needs_toast_table(Relation rel)
{
	TupleDesc	desc = rel->rd_att;
	int32		len = 0;
	bool		unlimited = false;
	bool		toastable = false;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			continue;
		len = att_align_nominal(len, att->attalign);
		if (att->attlen > 0)
			len += att->attlen;
		else
		{
			int32		max = type_maximum_size(att->atttypid, att->atttypmod);

			if (max < 0)
				unlimited = true;
			else
				len += max;
			if (att->attstorage != TYPSTORAGE_PLAIN)
				toastable = true;
		}
	}
	if (!toastable)
		return false;
	return unlimited ||
		MAXALIGN(SizeofHeapTupleHeader + BITMAPLEN(desc->natts)) + MAXALIGN(len) > TOAST_TUPLE_THRESHOLD;
}

/* The toaster writes heap tables only. */
static Oid
relation_toast_am(Relation rel)
{
	return HEAP_TABLE_AM_OID;
}

static void
relation_estimate_size(Relation rel, int32 *attr_widths, BlockNumber *pages, double *tuples,
					   double *allvisfrac)
{
	table_block_relation_estimate_size(rel, attr_widths, pages, tuples, allvisfrac,
									   QDB_ROW_HEADER + sizeof(ItemIdData),
									   QDB_SPECIAL_OFFSET - SizeOfPageHeaderData -
									   QDB_FIRST_CAP * sizeof(QdbXact));
}

static const TableAmRoutine routine = {
	.type = T_TableAmRoutine,
	.slot_callbacks = slot_callbacks,
	.scan_begin = qdb_scan_begin,
	.scan_end = qdb_scan_end,
	.scan_rescan = qdb_scan_rescan,
	.scan_getnextslot = qdb_scan_getnextslot,
	.scan_set_tidrange = qdb_scan_set_tidrange,
	.scan_getnextslot_tidrange = qdb_scan_getnextslot_tidrange,
	.parallelscan_estimate = table_block_parallelscan_estimate,
	.parallelscan_initialize = table_block_parallelscan_initialize,
	.parallelscan_reinitialize = table_block_parallelscan_reinitialize,
	.index_fetch_begin = qdb_index_fetch_begin,
	.index_fetch_reset = qdb_index_fetch_reset,
	.index_fetch_end = qdb_index_fetch_end,
	.index_fetch_tuple = qdb_index_fetch_tuple,
	.tuple_fetch_row_version = qdb_tuple_fetch_row_version,
	.tuple_tid_valid = qdb_tuple_tid_valid,
	.tuple_get_latest_tid = qdb_tuple_get_latest_tid,
	.tuple_satisfies_snapshot = qdb_tuple_satisfies_snapshot,
	.index_delete_tuples = qdb_index_delete_tuples,
	.tuple_insert = qdb_tuple_insert,
	.tuple_insert_speculative = qdb_tuple_insert_speculative,
	.tuple_complete_speculative = qdb_tuple_complete_speculative,
	.multi_insert = qdb_multi_insert,
	.tuple_delete = qdb_tuple_delete,
	.tuple_update = qdb_tuple_update,
	.tuple_lock = qdb_tuple_lock,
	.relation_set_new_filenode = relation_set_new_filenode,
	.relation_nontransactional_truncate = relation_nontransactional_truncate,
	.relation_copy_data = relation_copy_data,
	.relation_copy_for_cluster = qdb_relation_copy_for_cluster,
	.relation_vacuum = qdb_relation_vacuum,
	.scan_analyze_next_block = qdb_scan_analyze_next_block,
	.scan_analyze_next_tuple = qdb_scan_analyze_next_tuple,
	.index_build_range_scan = qdb_index_build_range_scan,
	.index_validate_scan = qdb_index_validate_scan,
	.relation_size = table_block_relation_size,
	.relation_needs_toast_table = relation_needs_toast_table,
	.relation_toast_am = relation_toast_am,
	.relation_fetch_toast_slice = heap_fetch_toast_slice,
	.relation_estimate_size = relation_estimate_size,
	.scan_bitmap_next_block = qdb_scan_bitmap_next_block,
	.scan_bitmap_next_tuple = qdb_scan_bitmap_next_tuple,
	.scan_sample_next_block = qdb_scan_sample_next_block,
	.scan_sample_next_tuple = qdb_scan_sample_next_tuple,
};

const TableAmRoutine *
qdb_table_routine(void)
{
	return &routine;
}

/*
 * Without the preload there is no resource manager, so that WAL of such tables
 * could be written but not replayed.
 */
Datum
quantadb_handler(PG_FUNCTION_ARGS)
{
	if (!RmgrIdExists(QDB_RMGR_ID))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("access method quantadb needs the library to be preloaded"),
				 errhint("Add quantadb to shared_preload_libraries and restart the server.")));
	PG_RETURN_POINTER(&routine);
}
