/*-------------------------------------------------------------------------
 *
 * server.c
 *		A PostgreSQL server as far as it matters: boot, replay, promotion, crash.
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

#include "cluster/internal.h"

/* ---- replay ---- */

static void replay(SimNode * node, uint64 unused, uint64 unused2);

void
sim_replay_soon(SimNode * node)
{
	if (node->replaying || node->applied >= node->disk.log.n)
		return;
	node->replaying = true;
	sim_later(300 + sim_below(3 * SIM_MS), replay, node, 0, 0);
}

/* Startup reads what is there, also what is not flushed yet. */
static void
replay(SimNode * node, uint64 unused, uint64 unused2)
{
	SimLog	   *log = &node->disk.log;
	int			n = 1 + (int) sim_below(12);

	node->replaying = false;
	if (!node->in_recovery)
		return;
	for (; n > 0 && node->applied < log->n && !node->replay_held; n--)
	{
		uint32		i = node->applied++;

		/* A page that is past the record would be left as it is. */
		if (node->data[i] != 0 && node->data[i] != log->rec[i].id)
			sim_violation("I12", "%s replays at %u over a change that its WAL does not have", node->host, i);
		node->data[i] = log->rec[i].id;
	}
	/* Now and then a restartpoint: pages are on disk up to here. */
	if (sim_chance(2) && node->applied >= node->disk.min_recovery && node->applied <= log->flushed)
	{
		node->disk.redo = node->applied;
		node->disk.min_recovery = node->applied;
	}
	else if (sim_chance(5) && node->applied <= log->flushed)
		node->disk.min_recovery = Max(node->disk.min_recovery, node->applied);
	if (!node->replay_held)
		sim_replay_soon(node);
}

static void
checkpoint(SimNode * node, uint64 unused, uint64 unused2)
{
	if (!node->in_recovery && sim_chance(50))
		node->disk.redo = node->disk.log.flushed;
	sim_later(200 * SIM_MS + sim_below(800 * SIM_MS), checkpoint, node, 0, 0);
}

/* ---- boot and death ---- */

void
sim_server_start(SimNode * node)
{
	SimDisk    *disk = &node->disk;

	if (node->server_up || disk->wiped || !disk->member)
		return;
	node->life++;
	node->machine_up = node->server_up = true;
	node->shutdown = node->wal_removed = false;
	sim_apply_plan(node);
	/* What PostgreSQL does before it reads any WAL after a crash. */
	disk->log.written = disk->log.flushed = disk->log.n;
	memset(node->shared, 0, sizeof(QdbShared));
	node->in_recovery = true;
	node->timeline = 0;
	node->promoting = node->frozen = node->flushing = node->replaying = false;
	node->applied = Min(disk->redo, disk->log.n);
	node->released = 0;
	node->seen_open = 0;
	node->seat_epoch = node->seat_taker = 0;
	memset(node->streams, 0, sizeof(node->streams));
	memset(&node->resync, 0, sizeof(node->resync));
	sim_enter(node);
	node->image->shmem_startup();
	node->shared->streamer_latch = &sim_streamer_latch;
	sim_enter(NULL);
	sim_trace(node, "boot %llu, promise %llu, WAL %u (%u), redo %u, consistent at %u",
			  (unsigned long long) disk->identity.boot, (unsigned long long) disk->promised,
			  disk->log.n, disk->log.flushed, disk->redo, disk->min_recovery);
	sim_process_start(node, sim_below(5 * SIM_MS));
	sim_receiver_begin(node);
	sim_replay_soon(node);
	sim_later(sim_below(SIM_SECOND), checkpoint, node, 0, 0);
}

/* What the files have after the death of the processes, or of the machine. */
static void
lose_memory(SimNode * node, bool power)
{
	SimLog	   *log = &node->disk.log;
	uint32		n = node->frozen ? log->flushed :
	log->flushed + (uint32) sim_below((int64) ((node->in_recovery ? log->written : log->n) - log->flushed) + 1);

	if (node->in_recovery && !power)
		n = log->written;
	log->n = log->written = n;
	if (power)
		log->flushed = n;
	/* Crash recovery of a primary replays all there is. */
	if (!node->in_recovery)
		node->disk.min_recovery = n;
	/* Pages that are on disk are from before that, also where their WAL was trimmed. */
	for (uint32 i = node->disk.min_recovery; i < SIM_MAX_RECORDS; i++)
		node->data[i] = 0;
	if (!SIM_KEEPS(SIM_RULE_DURABLE_PROMISE) && n > 0)
	{
		const QdbGrant *grant = NULL;

		if (node->image->state() != NULL && node->coordinator.started)
			grant = qdb_grant_of_timeline(node->image->state(), log->rec[n - 1].timeline);
		node->disk.promised = grant != NULL ? grant->epoch : 0;
	}
}

void
sim_server_kill(SimNode * node, bool power)
{
	if (!node->server_up)
		return;
	sim_trace(node, power ? "power loss" : "killed");
	node->server_up = false;
	if (power)
		node->machine_up = false;
	lose_memory(node, power);
	sim_process_kill(node);
	sim_close_streams(node);
	node->life++;
	memset(&node->receiver, 0, sizeof(node->receiver));
	node->resync.running = false;
}

static void
restart(SimNode * node, uint64 unused, uint64 unused2)
{
	sim_server_start(node);
}

/* All processes but the postmaster end; then the startup process begins. */
void
sim_server_cycle(SimNode * node)
{
	sim_trace(node, "crash cycle");
	sim_server_kill(node, false);
	sim_at(10 * SIM_MS + sim_below(100 * SIM_MS), restart, node, 0, 0);
}

/* The disk is replaced by an empty one. */
void
sim_node_wipe(SimNode * node)
{
	sim_server_kill(node, true);
	sim_trace(node, "disk lost");
	node->lost = node->disk.identity;
	sim_raft_disk_clear(&node->disk.raft);
	memset(&node->disk, 0, sizeof(node->disk));
	memset(node->data, 0, sizeof(node->data));
	node->disk.wiped = true;
	sim.ghost.was_wiped = true;
}

/* ---- the seam ---- */

static bool
park_receiver(void)
{
	return sim_receiver_park(sim.current);
}

static void
finish_promotion(SimNode * node, uint64 unused, uint64 unused2)
{
	SimDisk    *disk = &node->disk;
	uint32		index;

	if (!node->promoting)
		return;
	if (node->applied < disk->log.n || node->replay_held || node->promotion_held)
	{
		sim_later(2 * SIM_MS, finish_promotion, node, 0, 0);
		return;
	}
	node->promoting = false;
	sim_receiver_shut_down(node);
	node->in_recovery = false;
	node->timeline = node->promote_grant.timeline;
	disk->log.written = disk->log.flushed = disk->log.n;
	sim_insert(node, SIM_RECOVERY, &index);
	sim_trace(node, "promoted to timeline %u at %u", node->timeline, index);
	sim_flush_soon(node);
}

/* As qdb_promote in src/failover/promote.c. */
static bool
promote(const QdbState *state, const QdbGrant *grant, char *why)
{
	SimNode    *node = sim.current;
	QdbEndOfWal end;

	why[0] = '\0';
	if (node->promoting)
		return true;
	if (!sim_end_of_wal(state, &end, why))
		return false;
	if (end.end != grant->fork || end.timeline != grant->parent_timeline)
	{
		snprintf(why, QDB_REASON_SIZE, "its WAL does not end at the fork");
		return false;
	}
	if (end.replayed > grant->fork)
	{
		snprintf(why, QDB_REASON_SIZE, "needs a rewind: has replayed past the fork");
		return false;
	}
	if (node->disk.log.n > sim_index(grant->fork))
	{
		/* Startup may hold what is dropped: a new one forgets it. */
		sim_log_cut(node, sim_index(grant->fork), "it does not count");
		qdb_effects.demote("recovery follows a timeline that is no part of the grant's history");
		return false;
	}
	node->promoting = true;
	node->promote_grant = *grant;
	sim_later(5 * SIM_MS + sim_below(30 * SIM_MS), finish_promotion, node, 0, 0);
	return true;
}

static bool
promoting(void)
{
	return sim.current->in_recovery && sim.current->promoting;
}

static int
promotion_done(const QdbGrant *grant, char *why)
{
	SimNode    *node = sim.current;

	why[0] = '\0';
	if (node->in_recovery)
		return 0;
	if (node->timeline == grant->timeline)
		return 1;
	snprintf(why, QDB_REASON_SIZE, "promoted to another timeline");
	return -1;
}

static void
demote(const char *reason)
{
	if (sim.current->shutdown)
		return;
	sim_trace(sim.current, "demotes: %s", reason);
	sim_process_exit(true);
}

static bool
secure_boot(void)
{
	return !sim.current->disk.full;
}

/* All servers of the simulator have the same settings. */
static bool
limits_demanded(char *why)
{
	why[0] = '\0';
	return true;
}

static void
end_blocking_queries(void)
{
	sim.current->replay_held = false;
	sim_replay_soon(sim.current);
}

QdbEffects	qdb_effects = {
	.end_of_wal = sim_end_of_wal,
	.park_receiver = park_receiver,
	.promote = promote,
	.promoting = promoting,
	.promotion_done = promotion_done,
	.demote = demote,
	.match_history = sim_match_history,
	.secure_boot = secure_boot,
	.end_blocking_queries = end_blocking_queries,
	.limits_demanded = limits_demanded,
};

/* ---- what the coordinator writes ---- */

bool
qdb_promise_store(uint64 epoch)
{
	SimNode    *node = sim.current;

	if (node->disk.full)
		return false;
	if (node->fsync_us > 0)
		sim_process_wait(node->fsync_us);
	if (epoch < node->disk.promised)
		sim_violation("I2", "the promise of %s goes back from %llu to %llu", node->host,
					  (unsigned long long) node->disk.promised, (unsigned long long) epoch);
	node->disk.promised = epoch;
	sim_trace(node, "promises %llu", (unsigned long long) epoch);
	return true;
}

/* Writes and flushes, so it waits. */
XLogRecPtr
qdb_write_epoch_record(const xl_qdb_epoch *record, XLogRecPtr *end)
{
	SimNode    *node = sim.current;
	uint32		index;

	sim_insert(node, SIM_EPOCH, &index);
	sim_process_wait(200 + node->fsync_us);
	node->disk.log.written = Max(node->disk.log.written, index + 1);
	node->disk.log.flushed = Max(node->disk.log.flushed, index + 1);
	*end = sim_lsn(index + 1);
	sim_trace(node, "epoch record %llu at %u", (unsigned long long) record->epoch, index);
	return sim_lsn(index);
}

bool
qdb_freeze_wal(XLogRecPtr *end)
{
	SimNode    *node = sim.current;
	SimLog	   *log = &node->disk.log;

	*end = sim_lsn(log->flushed);
	if (node->frozen)
		return true;
	if (log->flushed < log->n)
	{
		sim_flush_soon(node);
		return false;
	}
	node->frozen = true;
	return true;
}

void
qdb_thaw_wal(void)
{
	SimNode    *node = sim.current;

	sim_check_kept(node);
	node->frozen = false;
	sim_flush_soon(node);
}

void
qdb_end_writers(void)
{
}

/* SIGQUIT to the postmaster: the end without a checkpoint. */
extern int	sim_kill(pid_t pid, int signo);
extern void sim_exit(int code) pg_attribute_noreturn();

int
sim_kill(pid_t pid, int signo)
{
	sim_process_exit(true);
	return 0;
}

void
sim_exit(int code)
{
	sim_process_exit(true);
}
