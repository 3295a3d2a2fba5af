/*-------------------------------------------------------------------------
 *
 * decode.c
 *		Logical decoding is refused: the core decodes heap records only, and
 *		without this subscribers would silently miss the changes.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/wal.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_publication.h"
#include "catalog/pg_publication_rel.h"
#include "replication/decode.h"
#include "replication/logical.h"
#include "replication/snapbuild.h"
#include "utils/fmgroids.h"

#include "tableam/inspect.h"

/*
 * The change comes before the point from which the slot reports, but its
 * transaction may commit after.  Only the commit tells, and there is no hook for
 * it; so a change is queued that the replay of the transaction stops at with an
 * error, for it names no file.
 */
static void
queue_refusal(LogicalDecodingContext *ctx, XLogRecordBuffer *buf)
{
	ReorderBufferChange *change = ReorderBufferGetChange(ctx->reorder);
	ReorderBufferTupleBuf *row = ReorderBufferGetTupleBuf(ctx->reorder, SizeofHeapTupleHeader);

	/*
	 * A row of no columns: its length counts for memory, and it may go to
	 * disk.
	 */
	row->tuple.t_len = SizeofHeapTupleHeader;
	row->tuple.t_tableOid = InvalidOid;
	ItemPointerSetInvalid(&row->tuple.t_self);
	memset(row->tuple.t_data, 0, SizeofHeapTupleHeader);
	change->action = REORDER_BUFFER_CHANGE_INSERT;
	change->origin_id = XLogRecGetOrigin(buf->record);
	memset(&change->data.tp, 0, sizeof(change->data.tp));
	change->data.tp.newtuple = row;
	change->data.tp.clear_toast_afterwards = true;
	ReorderBufferQueueChange(ctx->reorder, XLogRecGetXid(buf->record), buf->origptr, change, false);
}

/*
 * A slot that would have to report a change of such a table fails here.  It can
 * be moved past the change with pg_replication_slot_advance().
 */
void
qdb_table_decode(LogicalDecodingContext *ctx, XLogRecordBuffer *buf)
{
	XLogReaderState *record = buf->record;
	uint8		info = XLogRecGetInfo(record) & XLOG_QDB_OPMASK;
	RelFileNode rnode;

	ReorderBufferProcessXid(ctx->reorder, XLogRecGetXid(record), buf->origptr);
	if (ctx->fast_forward || info == XLOG_QDB_LOCK || info == XLOG_QDB_PRUNE ||
		info == XLOG_QDB_MISC || !XLogRecHasBlockRef(record, QDB_BLOCK_PAGE))
		return;
	XLogRecGetBlockTag(record, QDB_BLOCK_PAGE, &rnode, NULL, NULL);
	if (rnode.dbNode != ctx->slot->data.database ||
		!SnapBuildProcessChange(ctx->snapshot_builder, XLogRecGetXid(record), buf->origptr))
		return;

	/* A slot that is being made does not know yet where it begins to report. */
	if (SnapBuildCurrentState(ctx->snapshot_builder) < SNAPBUILD_CONSISTENT ||
		SnapBuildXactNeedsSkip(ctx->snapshot_builder, buf->origptr))
	{
		queue_refusal(ctx, buf);
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot decode a change of a table of access method quantadb"),
			 errdetail("The change at %X/%X is in file %u of this database.",
					   LSN_FORMAT_ARGS(buf->origptr), rnode.relNode),
			 errhint("Replicate tables of access method heap, or change the table with ALTER TABLE ... SET ACCESS METHOD heap and advance the slot.")));
}

static object_access_hook_type prev_object_access_hook = NULL;

static void
refuse_published(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);

	if (rel->rd_tableam == qdb_table_routine())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot publish table \"%s\"", RelationGetRelationName(rel)),
				 errdetail("Changes of tables of access method quantadb cannot be decoded."),
				 errhint("Publish tables of access method heap, or use ALTER TABLE ... SET ACCESS METHOD heap.")));
	table_close(rel, AccessShareLock);
}

/*
 * A publication that names such a table is refused at once: when it is made, and
 * when the table is added.  With a wal_level that has nothing to decode it is
 * not: nothing can be lost, and qdb_table_decode refuses when that changes.
 */
static void
object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	bool		added = class_id == PublicationRelRelationId;
	Relation	catalog;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (prev_object_access_hook)
		prev_object_access_hook(access, class_id, object_id, sub_id, arg);
	if (access != OAT_POST_CREATE || (!added && class_id != PublicationRelationId) ||
		!XLogLogicalInfoActive())
		return;
	catalog = table_open(PublicationRelRelationId, AccessShareLock);
	ScanKeyInit(&key, added ? Anum_pg_publication_rel_oid : Anum_pg_publication_rel_prpubid,
				BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(object_id));
	scan = systable_beginscan(catalog, added ? PublicationRelObjectIndexId : PublicationRelPrpubidIndexId,
							  true, SnapshotSelf, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		refuse_published(((Form_pg_publication_rel) GETSTRUCT(tuple))->prrelid);
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
}

void
qdb_table_install_hooks(void)
{
	prev_object_access_hook = object_access_hook;
	object_access_hook = object_access;
}
