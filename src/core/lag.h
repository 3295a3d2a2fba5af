/*-------------------------------------------------------------------------
 *
 * lag.h
 *		How long ago a replica's position was the newest that was sent to it.
 *
 * Plain arithmetic over remembered (position, time) pairs; times in us of one
 * clock, that of the sender.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_LAG_H
#define QDB_CORE_LAG_H

#include <stdint.h>

#define QDB_LAG_SAMPLES		64

typedef struct QdbLagSample
{
	uint64_t	lsn;
	int64_t		time_us;
} QdbLagSample;

/* One of two followers of the same samples: flush and apply. */
typedef struct QdbLagTracker
{
	QdbLagSample samples[QDB_LAG_SAMPLES];	/* ascending */
	uint32_t	n;
	int64_t		last_us;		/* measured when it last passed a sample; -1
								 * never */
} QdbLagTracker;

extern void qdb_lag_reset(QdbLagTracker *tracker);

/* WAL up to lsn left at this time. */
extern void qdb_lag_sent(QdbLagTracker *tracker, uint64_t lsn, int64_t now_us);

/* The replica is at lsn. */
extern void qdb_lag_reached(QdbLagTracker *tracker, uint64_t lsn, int64_t now_us);

/*
 * Lag now: 0 when nothing is outstanding, at least the age of the oldest thing
 * that is, -1 unknown.
 */
extern int64_t qdb_lag_now(const QdbLagTracker *tracker, int64_t now_us);

#endif							/* QDB_CORE_LAG_H */
