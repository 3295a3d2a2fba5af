/*-------------------------------------------------------------------------
 *
 * tableam.h
 *		The storage access method, for quantadb.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_TABLEAM_H
#define QDB_TABLEAM_H

#include "postgres.h"

#include "access/xlogreader.h"
#include "lib/stringinfo.h"
#include "storage/block.h"

struct LogicalDecodingContext;
struct XLogRecordBuffer;

/* Its part of the resource manager: records whose operation is not 0. */
extern void qdb_table_redo(XLogReaderState *record);
extern void qdb_table_desc(StringInfo buf, XLogReaderState *record);
extern const char *qdb_table_identify(uint8 info);
extern void qdb_table_mask(char *pagedata, BlockNumber blkno);
extern void qdb_table_decode(struct LogicalDecodingContext *ctx, struct XLogRecordBuffer *buf);

/* Refuses publications of such tables. */
extern void qdb_table_install_hooks(void);

#endif							/* QDB_TABLEAM_H */
