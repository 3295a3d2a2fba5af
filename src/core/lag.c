/*-------------------------------------------------------------------------
 *
 * lag.c
 *		Lag in time, measured with the sender's clock alone.
 *
 * A sample is taken when WAL is sent.  When there is no room for another one,
 * every second goes: a replica that has stopped replaying for hours keeps its
 * oldest sample, and the lag that is shown grows with the clock.
 *
 *-------------------------------------------------------------------------
 */
#include "core/lag.h"

#include <string.h>

void
qdb_lag_reset(QdbLagTracker *tracker)
{
	memset(tracker, 0, sizeof(*tracker));
	tracker->last_us = -1;
}

void
qdb_lag_sent(QdbLagTracker *tracker, uint64_t lsn, int64_t now_us)
{
	if (tracker->n == QDB_LAG_SAMPLES)
	{
		/* The oldest stays, which the lag is counted from. */
		for (uint32_t i = 0; i < QDB_LAG_SAMPLES / 2; i++)
			tracker->samples[i] = tracker->samples[2 * i];
		tracker->n = QDB_LAG_SAMPLES / 2;
	}
	tracker->samples[tracker->n].lsn = lsn;
	tracker->samples[tracker->n++].time_us = now_us;
}

void
qdb_lag_reached(QdbLagTracker *tracker, uint64_t lsn, int64_t now_us)
{
	uint32_t	passed = 0;

	while (passed < tracker->n && tracker->samples[passed].lsn <= lsn)
		passed++;
	if (passed == 0)
		return;
	tracker->last_us = now_us - tracker->samples[passed - 1].time_us;
	tracker->n -= passed;
	memmove(tracker->samples, tracker->samples + passed, tracker->n * sizeof(QdbLagSample));
}

int64_t
qdb_lag_now(const QdbLagTracker *tracker, int64_t now_us)
{
	int64_t		oldest;

	if (tracker->n == 0)
		return tracker->last_us < 0 ? -1 : 0;
	oldest = now_us - tracker->samples[0].time_us;
	return oldest > tracker->last_us ? oldest : tracker->last_us;
}
