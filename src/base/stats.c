/*-------------------------------------------------------------------------
 *
 * stats.c
 *		Counters and histograms in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

const int64 qdb_bucket_bounds[QDB_NBUCKETS] = {
	500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000,
	1000000, 2500000, 5000000, 10000000
};

static void
init_histogram(QdbHistogram *histogram)
{
	for (int i = 0; i <= QDB_NBUCKETS; i++)
		pg_atomic_init_u64(&histogram->counts[i], 0);
	pg_atomic_init_u64(&histogram->sum_us, 0);
}

void
qdb_init_counters(QdbCounters *counters)
{
	init_histogram(&counters->commits);
	init_histogram(&counters->proposals);
	pg_atomic_init_u64(&counters->queries, 0);
	pg_atomic_init_u64(&counters->webhooks_sent, 0);
	pg_atomic_init_u64(&counters->webhooks_failed, 0);
	pg_atomic_init_u64(&counters->webhooks_lost, 0);
}

void
qdb_observe(QdbHistogram *histogram, int64 us)
{
	int			i = 0;

	while (i < QDB_NBUCKETS && us > qdb_bucket_bounds[i])
		i++;
	pg_atomic_fetch_add_u64(&histogram->counts[i], 1);
	pg_atomic_fetch_add_u64(&histogram->sum_us, us > 0 ? us : 0);
}

void
qdb_set_progress(const char *step, uint64 done, uint64 total)
{
	SpinLockAcquire(&qdb_shared->mutex);
	strlcpy(qdb_shared->progress.step, step, sizeof(qdb_shared->progress.step));
	qdb_shared->progress.done = done;
	qdb_shared->progress.total = total;
	SpinLockRelease(&qdb_shared->mutex);
}
