/* lost.h - what is known of WAL that was thrown away; QDB_LOST_DIR/NUMBER/summary */
#ifndef QDB_BASE_LOST_H
#define QDB_BASE_LOST_H

#include "base/base.h"
#include "datatype/timestamp.h"

#define QDB_LOST_DIR	QDB_DIR "/lost"

typedef struct QdbLostEntry
{
	uint64		number;
	int64		time_us;		/* Unix time of the rewind or trim */
	uint64		epoch;			/* that it was done for */
	TimeLineID	timeline;		/* of the end */
	XLogRecPtr	start;
	XLogRecPtr	end;
	uint64		transactions;	/* that had committed */
	TimestampTz first_commit;	/* 0: none */
	TimestampTz last_commit;
	uint64		saved_bytes;	/* of WAL in the folder; 0: too long to keep */
	char	   *relations;		/* palloc'd */
} QdbLostEntry;

/* Durable; false: logged. */
extern bool qdb_lost_write(const QdbLostEntry *entry, const char *relations);

/* All of them, oldest first, palloc'd. */
extern QdbLostEntry *qdb_lost_list(int *n);

#endif							/* QDB_BASE_LOST_H */
