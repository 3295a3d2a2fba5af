/* lost.h - keep WAL that is thrown away and say what it held; raises errors */
#ifndef QDB_FAILOVER_LOST_H
#define QDB_FAILOVER_LOST_H

#include "postgres.h"

#include "access/xlogreader.h"
#include "failover/own_wal.h"

/* What the records held; all of it in the process's memory. */
typedef struct QdbLost QdbLost;

extern QdbLost *qdb_lost_begin(void);
extern void qdb_lost_count(QdbLost *lost, XLogReaderState *record);

typedef struct QdbLostWal
{
	uint64		epoch;			/* that makes this node throw it away */
	TimeLineID	timeline;		/* of its end */
	XLogRecPtr	start;
	XLogRecPtr	end;
	const QdbWalPath *path;
	QdbLost    *lost;
	char		folder[MAXPGPATH];	/* qdb_lost_save */
} QdbLostWal;

/* Keeps the WAL and a summary below QDB_DIR/lost; durably if move, else the caller sees to that. */
extern void qdb_lost_save(QdbLostWal *wal, bool move);

/* One sentence of QDB_REASON_SIZE bytes for the journal; the timeline is that of the start. */
extern void qdb_lost_describe(const QdbLostWal *wal, TimeLineID timeline, char *text);

#endif							/* QDB_FAILOVER_LOST_H */
