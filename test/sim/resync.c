/*-------------------------------------------------------------------------
 *
 * resync.c
 *		The resync worker: a rewind or a clone, staged and then applied in a
 *		crash cycle.
 *
 * In the order of src/failover/rewind.c and clone.c: the source forgets the member's acks and
 * names its flush position; data and WAL are copied while the node's old data
 * stays; the plan is committed only while nothing newer is promised and nothing is
 * followed; the rest needs no peer.
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

#include "core/rewind.h"

static void step(SimNode * node, uint64 number, uint64 unused);

static void
end_worker(SimNode * node)
{
	node->resync.running = false;
	if (node->shared->clone.phase == QDB_CLONE_STAGED)
		node->shared->clone.phase = QDB_CLONE_CONNECTING;
	sim_process_wake(node, 50);
}

static void
fail(SimNode * node, bool unreachable, const char *why)
{
	sim_trace(node, "resync: %s", why);
	if (node->resync.task == QDB_RESYNC_REWIND)
	{
		node->shared->rewind.failed++;
		node->shared->rewind.unreachable = unreachable;
		node->shared->rewind.useless = false;
		strlcpy(node->shared->rewind.reason, why, QDB_REASON_SIZE);
	}
	end_worker(node);
}

/* Does the source still serve the epoch, and can we hear it? */
static bool
source_there(const SimNode * node)
{
	const SimNode *source = sim.nodes[node->resync.source];

	return source->server_up && !source->stopped && source->seat_epoch == node->resync.epoch &&
		source->disk.identity.boot == node->resync.source_boot &&
		!sim_is_cut(SIM_STREAMS, node->index, source->index) && !sim_is_cut(SIM_STREAMS, source->index, node->index);
}

/* The holder of the seat, its gate open. */
static bool
find_source(SimNode * node)
{
	const QdbState *state = &node->shared->state;
	const QdbGrant *grant = qdb_current_grant(state);
	const QdbMember *holder = grant != NULL ? qdb_member_by_id(state, grant->holder) : NULL;

	if (holder == NULL || holder->id == node->shared->identity.member || !node->in_recovery ||
		(node->resync.task != QDB_RESYNC_REWIND && (!grant->opened || state->seat_released)))
		return false;
	node->resync.source = holder->replication_port % 100;
	node->resync.source_boot = grant->boot;
	node->resync.epoch = grant->epoch;
	return source_there(node);
}

static int
list_parts(const SimLog * log, uint32 n, QdbTimelinePart *parts)
{
	int			nparts = 0;

	for (uint32 i = 0; i < n; i++)
	{
		if (nparts == 0 || parts[nparts - 1].timeline != log->rec[i].timeline)
		{
			if (nparts > 0)
				parts[nparts - 1].end = sim_lsn(i);
			parts[nparts] = (QdbTimelinePart)
			{
				log->rec[i].timeline, nparts == 0 ? 0 : sim_lsn(i), UINT64_MAX
			};
			nparts++;
		}
	}
	return nparts;
}

/* I12: replay starts at a checkpoint that both nodes have passed. */
static bool
find_start(const SimNode * node, const SimNode * source, uint32 *start)
{
	static QdbTimelinePart own[SIM_MAX_RECORDS];
	static QdbTimelinePart theirs[SIM_MAX_RECORDS];
	const		SimLog *log = &node->disk.log;
	uint32_t	timeline;
	uint64_t	fork;
	int			nown = list_parts(log, log->n, own);
	int			ntheirs = list_parts(&source->disk.log, source->disk.log.flushed, theirs);

	if (!qdb_rewind_fork(own, nown, theirs, ntheirs, &timeline, &fork))
		return false;
	*start = Min(Min(sim_index(fork), node->disk.redo), source->disk.redo);
	return true;
}

/* Everything up to what the source has flushed now. */
static void
stage(SimNode * node, const SimNode * source, uint32 start)
{
	SimPlan    *plan = &node->disk.plan;

	plan->n = source->disk.log.flushed;
	plan->applied = start;
	plan->min_recovery = plan->n;
	memcpy(plan->rec, source->disk.log.rec, sizeof(SimRecord) * plan->n);
}

/* As hold_still in src/failover/rewind.c and clone.c. */
static bool
hold_still(SimNode * node)
{
	QdbShared  *shared = node->shared;

	if (SIM_KEEPS(SIM_RULE_FORGET_ACKS) &&
		(shared->promised != node->resync.epoch || shared->promising != node->resync.epoch ||
		 shared->target_epoch != 0 || shared->receiver_epoch != 0 ||
		 node->disk.plan.n < node->resync.goal))
		return false;
	shared->clone.phase = QDB_CLONE_STAGED;
	return true;
}

static void
commit(SimNode * node)
{
	if (node->disk.full)
	{
		fail(node, false, "the disk is full");
		return;
	}
	if (node->resync.task == QDB_RESYNC_REWIND)
	{
		SimDisk    *disk = &node->disk;

		disk->rewinds = disk->rewinds_epoch == node->resync.epoch ? disk->rewinds + 1 : 1;
		disk->rewinds_epoch = node->resync.epoch;
	}
	node->disk.plan.staged = true;
	sim_trace(node, "%s staged: %u records, replay from %u",
			  node->resync.task == QDB_RESYNC_REWIND ? "rewind" : "clone",
			  node->disk.plan.n, node->disk.plan.applied);
	sim_server_cycle(node);
}

static void
step(SimNode * node, uint64 number, uint64 unused)
{
	SimNode    *source = sim.nodes[node->resync.source];
	uint32		start = 0;

	if (!node->resync.running)
		return;
	if (number == 0)
	{
		if (!find_source(node))
		{
			if (node->resync.task == QDB_RESYNC_REWIND)
				fail(node, true, "there is no source");
			else
				sim_later(100 * SIM_MS, step, node, 0, 0);
			return;
		}
		source = sim.nodes[node->resync.source];
		sim_streams_forget(source, node->shared->identity.member);
		node->resync.goal = source->disk.log.flushed;
		if (!SIM_KEEPS(SIM_RULE_FORGET_ACKS))
			stage(node, source, 0);
		sim_later(10 * SIM_MS + sim_below(150 * SIM_MS), step, node, 1, 0);
		return;
	}
	if (number == 2)
	{
		commit(node);
		return;
	}
	if (!source_there(node))
	{
		node->resync.polls = 0;
		if (node->resync.task == QDB_RESYNC_REWIND)
			fail(node, true, "the source has gone");
		else
			sim_later(100 * SIM_MS, step, node, 0, 0);
		return;
	}
	/* Of what no quorum has, a failover may make a clone useless. */
	if (node->resync.task != QDB_RESYNC_REWIND && node->resync.polls++ < 20 &&
		pg_atomic_read_u64(&source->shared->quorum_lsn) < sim_lsn(source->disk.log.flushed))
	{
		sim_later(50 * SIM_MS, step, node, 1, 0);
		return;
	}
	node->resync.polls = 0;
	if (node->resync.task == QDB_RESYNC_REWIND && !find_start(node, source, &start))
	{
		fail(node, false, "there is no common history");
		return;
	}
	if (SIM_KEEPS(SIM_RULE_FORGET_ACKS))
		stage(node, source, node->resync.task == QDB_RESYNC_REWIND ? start : source->disk.redo);
	if (hold_still(node))
		sim_later(2 * SIM_MS, step, node, 2, 0);
	else if (node->resync.task == QDB_RESYNC_REWIND)
		fail(node, false, "a newer epoch has begun");
	else
		sim_later(100 * SIM_MS, step, node, 0, 0);
}

void
sim_resync_start(SimNode * node, int task)
{
	if (task == QDB_RESYNC_CLEAN)
		return;
	memset(&node->resync, 0, sizeof(node->resync));
	node->resync.running = true;
	node->resync.task = task;
	sim_later(2 * SIM_MS + sim_below(20 * SIM_MS), step, node, 0, 0);
}

/* In the crash cycle or at boot, again and again until it is done. */
void
sim_apply_plan(SimNode * node)
{
	SimDisk    *disk = &node->disk;
	SimPlan    *plan = &disk->plan;

	if (!plan->staged)
		return;
	for (uint32 i = 0; i < disk->log.n && i < sim.ghost.ncommitted; i++)
	{
		uint32		id = sim.ghost.committed[i];

		if (id != 0 && disk->log.rec[i].id == id && (i >= plan->n || plan->rec[i].id != id) &&
			!sim.ghost.forced && !sim.ghost.was_async)
			sim_violation("I11", "%s gives a commit at %u away for data without it", node->host, i);
	}
	disk->log.n = disk->log.written = disk->log.flushed = plan->n;
	memcpy(disk->log.rec, plan->rec, sizeof(SimRecord) * plan->n);
	memset(node->data, 0, sizeof(node->data));
	for (uint32 i = 0; i < plan->n; i++)
		node->data[i] = plan->rec[i].id;
	disk->redo = plan->applied;
	disk->min_recovery = plan->min_recovery;
	plan->staged = false;
}
