/*-------------------------------------------------------------------------
 *
 * own_wal.h
 *		Read WAL files along a history, as startup does.
 *
 * Process: resync worker.  Raises errors.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_OWN_WAL_H
#define QDB_OWN_WAL_H

#include "postgres.h"

#include "access/xlogreader.h"
#include "core/rewind.h"
#include "failover/wal_files.h"

typedef struct QdbWalPath
{
	const char *folder;			/* where the segments lie */
	uint64		system_identifier;	/* that their pages name; this server's */
	int			nparts;
	QdbTimelinePart *parts;		/* oldest first */
	int			fd;				/* -1: none open */
	TimeLineID	open_timeline;
	XLogSegNo	open_segno;
} QdbWalPath;

/* From history lines, which leave out the tip. */
extern QdbWalPath *qdb_wal_path(const char *folder, const QdbHistory *history, TimeLineID tip);
extern XLogReaderState *qdb_wal_reader(QdbWalPath *path);
extern void qdb_wal_reader_free(XLogReaderState *reader);

/* Where the first record at or after this position begins. */
extern XLogRecPtr qdb_record_start(XLogRecPtr position);

/*
 * The end of the last whole record of a path, read from the start of a record on, and
 * no further than limit; 0: there is none.
 */
extern XLogRecPtr qdb_last_record_end(QdbWalPath *path, XLogRecPtr start, XLogRecPtr limit);

/* The newest timeline that startup would follow from this one, by the files in pg_wal. */
extern TimeLineID qdb_newest_timeline(TimeLineID from);

#endif							/* QDB_OWN_WAL_H */
