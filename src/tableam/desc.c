/*-------------------------------------------------------------------------
 *
 * desc.c
 *		What pg_walinspect and error contexts show of our records.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/wal.h"

const char *
qdb_table_identify(uint8 info)
{
	switch (info & XLOG_QDB_OPMASK)
	{
		case XLOG_QDB_INSERT:
			return "INSERT";
		case XLOG_QDB_MULTI_INSERT:
			return "MULTI_INSERT";
		case XLOG_QDB_UPDATE:
			return "UPDATE";
		case XLOG_QDB_DELETE:
			return "DELETE";
		case XLOG_QDB_LOCK:
			return "LOCK";
		case XLOG_QDB_PRUNE:
			return "PRUNE";
		case XLOG_QDB_MISC:
			return "MISC";
	}
	return NULL;
}

static const char *
misc_kind(uint8 kind)
{
	switch (kind)
	{
		case XLQ_MISC_CONFIRM:
			return "confirm";
		case XLQ_MISC_ABORT:
			return "abort";
		case XLQ_MISC_VACUUM:
			return "vacuum";
		case XLQ_MISC_IMAGES:
			return "images";
	}
	return "unknown";
}

void
qdb_table_desc(StringInfo buf, XLogReaderState *record)
{
	const char *data = XLogRecGetData(record);
	Size		len = XLogRecGetDataLen(record);
	uint8		info = XLogRecGetInfo(record) & XLOG_QDB_OPMASK;
	TransactionId xid;
	uint16		near;

	if (info == XLOG_QDB_UPDATE && len == XLQ_CONFLICT_NEAR)
	{
		memcpy(&near, data, sizeof(near));
		appendStringInfo(buf, "conflict %u", near > 0 ? XLogRecGetXid(record) - near : InvalidTransactionId);
	}
	else if (info == XLOG_QDB_UPDATE && len == XLQ_CONFLICT_XID)
	{
		memcpy(&xid, data, sizeof(xid));
		appendStringInfo(buf, "conflict %u", xid);
	}
	else if (info == XLOG_QDB_PRUNE && len > sizeof(xid))
	{
		memcpy(&xid, data + 1, sizeof(xid));
		appendStringInfo(buf, "flags 0x%02X conflict %u", (uint8) data[0], xid);
	}
	else if (info == XLOG_QDB_MISC && len > 0)
		appendStringInfoString(buf, misc_kind(data[0]));
	else if (len > 0)
		appendStringInfo(buf, "flags 0x%02X", (uint8) data[0]);
	if (XLogRecGetInfo(record) & XLOG_QDB_VM_CLEARED)
		appendStringInfoString(buf, len > 0 ? " visibility cleared" : "visibility cleared");
}
