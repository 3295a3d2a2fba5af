/*-------------------------------------------------------------------------
 *
 * redo.h
 *		What the files that replay records share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_TABLEAM_REDO_H
#define QDB_TABLEAM_REDO_H

#include "tableam/wal.h"

#include "access/xlogutils.h"

static inline bool
QdbRecVmCleared(XLogReaderState *record)
{
	return (XLogRecGetInfo(record) & XLOG_QDB_VM_CLEARED) != 0;
}

/* ---- redo.c ---- */
extern void qdb_redo_clear_vm(XLogReaderState *record, uint8 block, uint8 bits);
extern void qdb_redo_reader(XLogReaderState *record, uint8 block, QdbRecReader *r);
extern void qdb_redo_conflict(TransactionId xid, RelFileNode rnode);
extern void qdb_redo_default(XLogReaderState *record, QdbXact *x, uint16 mask);
extern XLogRedoAction qdb_redo_read(XLogReaderState *record, uint8 block, Buffer *buf);
extern void qdb_redo_finish(XLogReaderState *record, Buffer buf);
extern void qdb_redo_fsm(XLogReaderState *record, Buffer buf, Size room);
extern void qdb_redo_row(QdbRecReader *r, uint8 *row, Size len, int xi);

/* ---- redo_update.c ---- */
extern void qdb_redo_update(XLogReaderState *record);

#endif							/* QDB_TABLEAM_REDO_H */
