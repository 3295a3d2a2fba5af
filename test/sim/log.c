/*-------------------------------------------------------------------------
 *
 * log.c
 *		A node's WAL: a list of records of equal length, and what the code in
 *		src/failover finds out about it.
 *
 * PostgreSQL keeps a file for each timeline and segment; the list is what startup would
 * read along its history.  A record that is overwritten by another one ends the log
 * there, as a wrong CRC or back pointer does.
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

XLogRecPtr
sim_lsn(uint32 n)
{
	return SIM_BASE + n * SIM_UNIT;
}

uint32
sim_index(XLogRecPtr lsn)
{
	return lsn <= SIM_BASE ? 0 : (uint32) ((lsn - SIM_BASE) / SIM_UNIT);
}

void
sim_log_cut(SimNode * node, uint32 n, const char *why)
{
	SimLog	   *log = &node->disk.log;

	if (n >= log->n)
		return;
	sim_check_cut(node, n, why);
	sim_trace(node, "WAL %u..%u goes: %s", n, log->n, why);
	log->n = n;
	log->written = Min(log->written, n);
	log->flushed = Min(log->flushed, n);
}

TimeLineID
sim_replay_timeline(const SimNode * node)
{
	return node->applied == 0 ? 1 : node->disk.log.rec[node->applied - 1].timeline;
}

bool
sim_switch_point(const SimNode * node, TimeLineID timeline, uint32 *end)
{
	const SimLog *log = &node->disk.log;
	bool		found = false;

	for (uint32 i = 0; i < log->n; i++)
	{
		if (log->rec[i].timeline == timeline)
		{
			found = true;
			*end = i + 1;
		}
	}
	return found;
}

void
sim_insert(SimNode * node, SimKind kind, uint32 *index)
{
	SimLog	   *log = &node->disk.log;
	SimRecord  *rec = &log->rec[log->n];

	*index = log->n++;
	rec->id = ++sim.ghost.next_id;
	rec->timeline = (uint16) node->timeline;
	rec->kind = kind;
	node->data[*index] = rec->id;
	node->applied = log->n;
	sim_check_written(node, *index);
}

static void
flushed(SimNode * node, uint64 n, uint64 unused)
{
	SimLog	   *log = &node->disk.log;

	node->flushing = false;
	if (node->in_recovery || node->frozen)
		return;
	log->written = Max(log->written, (uint32) n);
	log->flushed = Max(log->flushed, (uint32) n);
	sim_streamer_turn(node);
	sim_flush_soon(node);
}

/* XLogFlush by whoever commits. */
void
sim_flush_soon(SimNode * node)
{
	if (node->flushing || node->frozen || node->disk.full || node->disk.log.flushed == node->disk.log.n)
		return;
	node->flushing = true;
	sim_later(100 + node->fsync_us + node->wal_fsync_us + sim_below(500), flushed, node, node->disk.log.n, 0);
}

/* Where the timeline of the last record begins. */
static uint32
timeline_begin(const SimLog * log, uint32 n)
{
	uint32		i = n;

	while (i > 0 && log->rec[i - 1].timeline == log->rec[n - 1].timeline)
		i--;
	return i;
}

static bool
has_epoch_record(const SimLog * log, uint32 from, uint32 n, TimeLineID timeline)
{
	for (uint32 i = from; i < n; i++)
	{
		if (log->rec[i].kind == SIM_EPOCH && log->rec[i].timeline == timeline)
			return true;
	}
	return false;
}

/* As find_epoch in src/failover/endscan.c. */
static void
find_epoch(const SimLog * log, const QdbState *state, const QdbIdentity *identity, QdbEndOfWal *end)
{
	QdbBoot		self = {identity->member, identity->incarnation, identity->boot};

	for (;;)
	{
		const QdbGrant *grant = qdb_grant_of_timeline(state, end->timeline);
		uint32		n = sim_index(end->end);

		end->epoch = 0;
		if (grant == NULL)
		{
			if (state->ngrants == 0 || end->timeline < state->grants[0].timeline || n == 0)
				return;
			n = timeline_begin(log, n);
			end->end = sim_lsn(n);
			end->timeline = n > 0 ? log->rec[n - 1].timeline : 1;
			continue;
		}
		if (grant->parent_timeline == 0 || grant->parent_timeline >= end->timeline)
		{
			if (end->end > grant->fork)
				end->epoch = grant->epoch;
			return;
		}
		if (end->end > grant->fork)
		{
			if (has_epoch_record(log, sim_index(grant->fork), n, grant->timeline) ||
				qdb_start_counts(grant, &self))
			{
				end->epoch = grant->epoch;
				return;
			}
			end->end = grant->fork;
		}
		end->timeline = grant->parent_timeline;
	}
}

bool
sim_end_of_wal(const QdbState *state, QdbEndOfWal *end, char *why)
{
	SimNode    *node = sim.current;
	SimLog	   *log = &node->disk.log;

	memset(end, 0, sizeof(*end));
	why[0] = '\0';
	if (!node->in_recovery ||
		(SIM_KEEPS(SIM_RULE_MIN_RECOVERY) && node->applied < node->disk.min_recovery))
	{
		snprintf(why, QDB_REASON_SIZE, "recovery has not reached a consistent state yet");
		return false;
	}
	if (node->disk.full)
	{
		snprintf(why, QDB_REASON_SIZE, "its WAL could not be made durable");
		return false;
	}
	end->end = sim_lsn(log->n);
	end->timeline = log->n > 0 ? log->rec[log->n - 1].timeline : 1;
	end->replayed = sim_lsn(node->applied);
	end->replayed_timeline = sim_replay_timeline(node);
	if (node->fsync_us > 0)
		sim_process_wait(node->fsync_us);
	log->written = log->flushed = log->n;	/* I6 */
	if (!SIM_KEEPS(SIM_RULE_TRUE_REPORT))
	{
		/* A position in shared memory, which falls back at a restart. */
		end->end = end->replayed;
		end->timeline = end->replayed_timeline;
	}
	find_epoch(log, state, &node->shared->identity, end);
	return true;
}

/* As replayed_past in src/failover/demote.c. */
static bool
replayed_past(const SimNode * node, const QdbState *state, const QdbGrant *grant, char *why)
{
	TimeLineID	timeline = sim_replay_timeline(node);
	XLogRecPtr	replayed = sim_lsn(node->applied);
	XLogRecPtr	limit;

	if (qdb_history_limit(state, grant, timeline, &limit) && replayed <= limit)
		return false;
	snprintf(why, QDB_REASON_SIZE, "needs a rewind: has replayed timeline %u up to %u", timeline, node->applied);
	return true;
}

int
sim_match_history(const QdbState *state, const QdbEndOfWal *end, char *why)
{
	SimNode    *node = sim.current;
	SimLog	   *log = &node->disk.log;
	const QdbGrant *grant = qdb_current_grant(state);
	uint32		n = 0;

	why[0] = '\0';
	if (grant == NULL || !node->in_recovery)
	{
		snprintf(why, QDB_REASON_SIZE, "no member holds the seat");
		return -1;
	}
	if (!SIM_KEEPS(SIM_RULE_MATCH))
		return 1;
	if (replayed_past(node, state, grant, why))
		return -1;
	for (; n < log->n; n++)
	{
		XLogRecPtr	limit;

		if (log->rec[n].timeline < state->grants[0].timeline)
			continue;
		if (!qdb_history_limit(state, grant, log->rec[n].timeline, &limit) || sim_lsn(n + 1) > limit)
			break;
	}
	if (n == log->n)
		return 1;
	sim_log_cut(node, n, "it is past the fork");
	qdb_effects.demote("recovery must forget the trimmed WAL");
	snprintf(why, QDB_REASON_SIZE, "recovery may still hold WAL past the fork");
	return -1;
}
