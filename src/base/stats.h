/*-------------------------------------------------------------------------
 *
 * stats.h
 *		Counters in shared memory that /metrics shows.
 *
 * All are atomics: any process adds, the http worker reads, and nobody waits.
 * A crash cycle sets them to zero, as Prometheus expects of a restart.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_BASE_STATS_H
#define QDB_BASE_STATS_H

#include "port/atomics.h"

#define QDB_NBUCKETS	14		/* and one for what is slower than all */

typedef struct QdbHistogram
{
	pg_atomic_uint64 counts[QDB_NBUCKETS + 1];	/* not cumulative */
	pg_atomic_uint64 sum_us;
} QdbHistogram;

typedef struct QdbCounters
{
	QdbHistogram commits;		/* backends: from PRE_COMMIT to the quorum */
	QdbHistogram proposals;		/* coordinator: from proposal to answer */
	pg_atomic_uint64 queries;	/* backends: plans that were started */
	pg_atomic_uint64 webhooks_sent; /* http */
	pg_atomic_uint64 webhooks_failed;	/* http: attempts without a 2xx */
	pg_atomic_uint64 webhooks_lost; /* http: given up */
} QdbCounters;

/* Upper bounds of the buckets, in microseconds. */
extern const int64 qdb_bucket_bounds[QDB_NBUCKETS];

extern void qdb_init_counters(QdbCounters *counters);
extern void qdb_observe(QdbHistogram *histogram, int64 us);
static inline void
qdb_count(pg_atomic_uint64 *counter)
{
	pg_atomic_fetch_add_u64(counter, 1);
}

#endif							/* QDB_BASE_STATS_H */
