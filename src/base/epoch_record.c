/*-------------------------------------------------------------------------
 *
 * epoch_record.c
 *		The epoch record, and the WAL resource manager that the storage access
 *		method shares with it.
 *
 * A new primary's first record names cluster, epoch, timeline and the boot that
 * holds the seat.  Bytes of a timeline count for an epoch only from this record
 * on.  Redo changes no page: it only remembers where the record was.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xloginsert.h"
#include "access/xlogreader.h"
#include "miscadmin.h"
#include "replication/decode.h"

static QdbTableRecords table;

static bool
is_epoch(XLogReaderState *record)
{
	return (XLogRecGetInfo(record) & QDB_RMGR_OPMASK) == XLOG_QDB_EPOCH;
}

static void
epoch_redo(XLogReaderState *record)
{
	xl_qdb_epoch rec = {0};

	if ((XLogRecGetInfo(record) & ~XLR_INFO_MASK) == XLOG_QDB_EPOCH &&
		XLogRecGetDataLen(record) == sizeof(rec))
		memcpy(&rec, XLogRecGetData(record), sizeof(rec));

	/* To skip a record is to lose what it says. */
	if (rec.format != QDB_EPOCH_FORMAT)
		ereport(FATAL,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("[replication] cannot replay the WAL record of quantadb at %X/%X",
						LSN_FORMAT_ARGS(record->ReadRecPtr)),
				 errhint("A newer version of the extension may know it.")));
	if (qdb_shared == NULL)
		return;

	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->replayed_epoch = rec.epoch;
	qdb_shared->replayed_epoch_lsn = record->ReadRecPtr;
	SpinLockRelease(&qdb_shared->mutex);
}

/* All operations but the epoch record's belong to the storage access method. */
static void
rmgr_redo(XLogReaderState *record)
{
	if (is_epoch(record))
		epoch_redo(record);
	else
		table.redo(record);
}

static void
epoch_desc(StringInfo buf, XLogReaderState *record)
{
	xl_qdb_epoch rec;

	if (XLogRecGetDataLen(record) < sizeof(rec))
		return;
	memcpy(&rec, XLogRecGetData(record), sizeof(rec));
	appendStringInfo(buf, "epoch " UINT64_FORMAT " timeline %u", rec.epoch, rec.timeline);
}

static void
rmgr_desc(StringInfo buf, XLogReaderState *record)
{
	if (is_epoch(record))
		epoch_desc(buf, record);
	else
		table.desc(buf, record);
}

static const char *
rmgr_identify(uint8 info)
{
	return (info & QDB_RMGR_OPMASK) == XLOG_QDB_EPOCH ? "EPOCH" : table.identify(info);
}

/* Pages are the access method's only. */
static void
rmgr_mask(char *page, BlockNumber blkno)
{
	table.mask(page, blkno);
}

static void
rmgr_decode(struct LogicalDecodingContext *ctx, struct XLogRecordBuffer *buf)
{
	if (!is_epoch(buf->record))
		table.decode(ctx, buf);
}

static const RmgrData rmgr = {
	.rm_name = "quantadb",
	.rm_redo = rmgr_redo,
	.rm_desc = rmgr_desc,
	.rm_identify = rmgr_identify,
	.rm_mask = rmgr_mask,
	.rm_decode = rmgr_decode,
};

void
qdb_register_rmgr(const QdbTableRecords *records)
{
	table = *records;
	RegisterCustomRmgr(QDB_RMGR_ID, unconstify(RmgrData *, &rmgr));
}

XLogRecPtr
qdb_write_epoch_record(const xl_qdb_epoch *record, XLogRecPtr *end)
{
	XLogRecPtr	recptr;

	/*
	 * No critical section: no page goes with it, so an error may stay an
	 * error.
	 */
	XLogBeginInsert();
	XLogRegisterData(unconstify(char *, (const char *) record), sizeof(*record));
	recptr = XLogInsert(QDB_RMGR_ID, XLOG_QDB_EPOCH);
	XLogFlush(recptr);
	*end = recptr;
	return ProcLastRecPtr;
}

/* The first eight bytes of the UUID, or of whatever the text's digits say. */
uint64
qdb_cluster_hash(const char *cluster_id)
{
	uint64		hash = 0;
	int			digits = 0;

	for (const char *p = cluster_id; *p && digits < 16; p++)
	{
		int			v;

		if (*p >= '0' && *p <= '9')
			v = *p - '0';
		else if (*p >= 'a' && *p <= 'f')
			v = *p - 'a' + 10;
		else
			continue;
		hash = (hash << 4) | v;
		digits++;
	}
	return hash;
}
