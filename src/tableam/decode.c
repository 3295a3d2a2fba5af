/*-------------------------------------------------------------------------
 *
 * decode.c
 *		Logical decoding is refused: the core decodes heap records only, and
 *		without this subscribers would silently miss the changes.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/wal.h"

#include "replication/decode.h"
#include "replication/logical.h"
#include "replication/snapbuild.h"
#include "utils/relfilenodemap.h"

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
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot decode a change of a table of access method quantadb"),
			 errdetail("The change at %X/%X is in file %u of this database.",
					   LSN_FORMAT_ARGS(buf->origptr), rnode.relNode),
			 errhint("Replicate tables of access method heap, or change the table with ALTER TABLE ... SET ACCESS METHOD heap and advance the slot.")));
}
