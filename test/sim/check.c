/*-------------------------------------------------------------------------
 *
 * check.c
 *		The invariants, against what really happened.
 *
 * The ghost knows every commit that a client was told about and everything that a strict
 * read has shown.  Each check is made where it could first fail, so that a trace
 * ends near the cause.
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

#include <inttypes.h>

/* Loss is allowed: by force, or under async. */
static bool
loss_allowed(void)
{
	return sim.ghost.forced || sim.ghost.was_async;
}

static SimNode *
node_of_member(uint64 member)
{
	for (int i = 0; i < sim.nnodes; i++)
	{
		if (sim.nodes[i]->disk.member && sim.nodes[i]->disk.identity.member == member)
			return sim.nodes[i];
	}
	return NULL;
}

/* ---- I13: one change at a time ---- */

static void
check_membership(const QdbCommand *command, const QdbState *state)
{
	SimGhost   *ghost = &sim.ghost;

	if (command->type == QDB_CMD_INIT && ghost->membership == 0)
		ghost->membership = state->membership;
	else if (state->membership == ghost->membership + 1)
	{
		if (ghost->change_open && SIM_KEEPS(QDB_RULE_BOTH_NUMBERS))
			sim_violation("I13", "membership %" PRIu64 " begins before the one before is closed", state->membership);
		if (state->epoch_open)
			sim_violation("I13", "membership %" PRIu64 " begins while an epoch is open", state->membership);
		ghost->membership = state->membership;
		ghost->change_open = true;
	}
	else if (state->membership == ghost->membership && command->type == QDB_CMD_MEMBERSHIP_CLOSE)
		ghost->change_open = false;
}

/* ---- I9: no seat while an older one's lease lives ---- */

static void
check_leases(const QdbGrant *grant)
{
	for (int i = 0; i < sim.nnodes; i++)
		if (!sim.nodes[i]->clock_sane)
			return;
	for (int i = 0; i < sim.nnodes; i++)
	{
		SimNode    *node = sim.nodes[i];

		if (node->server_up && node->shared->open_epoch != 0 && node->shared->open_epoch < grant->epoch &&
			sim_lease_alive(node) && !sim.ghost.was_wiped)
			sim_violation("I9", "epoch %" PRIu64 " has a seat while the lease of %s in epoch %" PRIu64 " lives",
						  grant->epoch, node->host, node->shared->open_epoch);
	}
}

/* ---- I1: one grant an epoch, one writer a timeline ---- */

void
sim_check_applied(SimNode * node, const QdbCommand *command, QdbResult result, const QdbState *state)
{
	const QdbGrant *grant;
	QdbGrant   *known;

	if (result != QDB_OK)
		return;
	if (sim.trace && command->type != QDB_CMD_NOTE)
		sim_trace(node, "applies command %d, epoch %" PRIu64 ", membership %" PRIu64 "%s", command->type,
				  state->epoch, state->membership, state->change_open ? " open" : "");
	check_membership(command, state);
	sim_step_made(node, command->type, command->type == QDB_CMD_REPORT ? command->report.member :
				  command->type == QDB_CMD_SEAT || command->type == QDB_CMD_GATE_OPEN ? command->grant.holder :
				  command->type == QDB_CMD_MEMBER_ROLE ? command->member.id : 0);
	if (command->type == QDB_CMD_RELEASE && command->grant.epoch < SIM_MAX_EPOCHS)
		sim.ghost.released[command->grant.epoch] = true;
	if (command->type == QDB_CMD_GATE_OPEN && command->grant.epoch > sim.ghost.gate.epoch)
		memcpy(&sim.ghost.gate, state, sizeof(*state));
	if (command->type != QDB_CMD_SEAT)
		return;
	grant = qdb_current_grant(state);
	if (grant == NULL || grant->epoch >= SIM_MAX_EPOCHS)
		return;
	known = &sim.ghost.grants[grant->epoch];
	if (known->epoch == 0)
	{
		for (uint64 e = 1; e < SIM_MAX_EPOCHS; e++)
			if (sim.ghost.grants[e].epoch != 0 && sim.ghost.grants[e].timeline == grant->timeline)
				sim_violation("I1", "timeline %u is given to epochs %" PRIu64 " and %" PRIu64,
							  grant->timeline, e, grant->epoch);
		*known = *grant;
		check_leases(grant);
	}
	else if (known->holder != grant->holder || known->boot != grant->boot ||
			 known->timeline != grant->timeline || known->fork != grant->fork)
		sim_violation("I1", "epoch %" PRIu64 " is granted twice", grant->epoch);
}

/* Every record of a timeline comes from one boot of one node. */
void
sim_check_written(SimNode * node, uint32 index)
{
	TimeLineID	timeline;
	uint64		boot;

	if (node == NULL)
		return;
	timeline = node->disk.log.rec[index].timeline;
	boot = node->disk.identity.boot;
	if (timeline >= SIM_MAX_EPOCHS)
		return;
	if (sim.ghost.writer[timeline].node == 0)
	{
		sim.ghost.writer[timeline].node = node->index + 1;
		sim.ghost.writer[timeline].boot = boot;
	}
	else if (sim.ghost.writer[timeline].node != node->index + 1 || sim.ghost.writer[timeline].boot != boot)
		sim_violation("I1", "timeline %u is written by h%d and by %s, boot %" PRIu64, timeline,
					  sim.ghost.writer[timeline].node - 1, node->host, boot);
}

/* ---- I9: who gave its seat up does not take it back ---- */

/* The others did not wait for its lease, and its WAL is to end where the next epoch begins. */
void
sim_check_kept(SimNode * node)
{
	uint64		epoch = node->shared->seat_epoch;

	if (epoch < SIM_MAX_EPOCHS && sim.ghost.released[epoch])
		sim_violation("I9", "%s goes on with the seat of epoch %" PRIu64 ", which it has released", node->host, epoch);
}

/* ---- I3: an ack says the truth ---- */

void
sim_check_ack(SimNode * node, const SimNode * source, uint32 n)
{
	const		SimLog *own = &node->disk.log;
	const		SimLog *theirs = &source->disk.log;

	if (!source->server_up || source->seat_epoch != node->receiver.epoch)
		return;
	if (n > own->flushed)
		sim_violation("I3", "%s acknowledges %u, but has flushed %u", node->host, n, own->flushed);
	if (n > theirs->n)
		sim_violation("I3", "%s acknowledges %u, but the primary ends at %u", node->host, n, theirs->n);
	for (uint32 i = n > 24 ? n - 24 : 0; i < n; i++)
		if (own->rec[i].id != theirs->rec[i].id)
		{
			sim_violation("I3", "%s acknowledges other WAL at %u than the primary has", node->host, i);
			return;
		}
}

/* ---- I5: a commit is on a majority ---- */

static int
count_under(const QdbState *state, bool previous, uint32 index, uint32 id, int *voters)
{
	int			have = 0;

	*voters = 0;
	for (uint32 i = 0; i < state->nmembers; i++)
	{
		const SimNode *node = node_of_member(state->members[i].id);
		uint8		role = previous ? state->previous_roles[i] : state->members[i].role;

		if (role != QDB_ROLE_VOTER)
			continue;
		(*voters)++;
		if (node != NULL && index < node->disk.log.flushed && node->disk.log.rec[index].id == id)
			have++;
	}
	return have;
}

/* Under an open change, what the number before counted is still as good. */
static bool
is_on_quorum(const QdbState *state, uint32 index, uint32 id, int *have, int *voters)
{
	*have = count_under(state, false, index, id, voters);
	if (*have > *voters / 2)
		return true;
	if (!state->change_open)
		return false;
	*have = count_under(state, true, index, id, voters);
	return *have > *voters / 2;
}

void
sim_check_commit(SimNode * node, uint32 index, uint32 id, uint64 epoch, bool async)
{
	const QdbState *state = &node->shared->state;
	int			voters;
	int			have;

	if (!node->server_up)
		return;
	if (async)
	{
		sim.ghost.was_async = true;
		return;
	}
	if (sim.ghost.committed[index] != 0 && sim.ghost.committed[index] != id && !loss_allowed())
		sim_violation("I7", "a commit of epoch %" PRIu64 " is acknowledged at %u, where one of epoch %" PRIu64 " was",
					  epoch, index, sim.ghost.committed_epoch[index]);
	if (!is_on_quorum(state, index, id, &have, &voters) && !sim.ghost.was_wiped && !sim.ghost.was_async)
		sim_violation("I5", "%s acknowledges a commit at %u that %d of %d voters have", node->host, index, have, voters);
	sim_trace(node, "acknowledges the commit at %u", index);
	sim.ghost.acks++;
	sim.ghost.committed[index] = id;
	sim.ghost.committed_epoch[index] = epoch;
	sim.ghost.ncommitted = Max(sim.ghost.ncommitted, index + 1);
}

/* ---- I14: strict reads ---- */

void
sim_check_read(SimNode * node, uint32 n, uint32 acked, const char *how)
{
	const		SimLog *log = &node->disk.log;
	bool		sane = true;

	if (loss_allowed())
		return;
	for (int i = 0; i < sim.nnodes; i++)
		sane = sane && sim.nodes[i]->clock_sane;
	for (uint32 i = 0; i < acked && sane; i++)
		if (sim.ghost.committed[i] != 0 && (i >= n || log->rec[i].id != sim.ghost.committed[i]))
		{
			sim_violation("I14", "a strict read on %s (%s) lacks the commit at %u of epoch %" PRIu64,
						  node->host, how, i, sim.ghost.committed_epoch[i]);
			return;
		}
	if (!sane)
		return;
	sim_trace(node, "strict read (%s) of %u records, %u acknowledged before", how, n, acked);
	sim.ghost.reads++;
	for (uint32 i = 0; i < n; i++)
	{
		if (sim.ghost.committed[i] != 0 && sim.ghost.committed[i] != log->rec[i].id)
		{
			sim_violation("I14", "a strict read on %s (%s) shows at %u what was taken back", node->host, how, i);
			return;
		}
		if (log->rec[i].kind == SIM_DATA && sim.ghost.committed[i] == 0)
		{
			sim.ghost.committed[i] = log->rec[i].id;
			sim.ghost.committed_epoch[i] = node->shared->promised;
		}
	}
	sim.ghost.ncommitted = Max(sim.ghost.ncommitted, n);
}

/* ---- I10: what goes does not count ---- */

void
sim_check_cut(SimNode * node, uint32 n, const char *why)
{
	const		SimLog *log = &node->disk.log;

	if (loss_allowed())
		return;
	for (uint32 i = n; i < log->n && i < sim.ghost.ncommitted; i++)
		if (sim.ghost.committed[i] != 0 && log->rec[i].id == sim.ghost.committed[i])
		{
			sim_violation("I10", "%s throws the commit at %u away: %s", node->host, i, why);
			return;
		}
}

/* ---- I7, I8, I15: who opens ---- */

static void
check_opening(SimNode * node, uint64 epoch)
{
	const		SimLog *log = &node->disk.log;
	uint32		record = sim_index(node->shared->epoch_record_end) - 1;

	/* A member that helped to open the gate may have been removed since. */
	const QdbState *state = sim.ghost.gate.epoch == epoch ? &sim.ghost.gate : &node->shared->state;
	int			voters;
	int			have;

	sim.ghost.opened++;
	sim_trace(node, "opens epoch %" PRIu64 ", %u records", epoch, log->n);
	for (uint32 i = 0; i < sim.ghost.ncommitted && !loss_allowed(); i++)
		if (sim.ghost.committed[i] != 0 && sim.ghost.committed_epoch[i] < epoch &&
			(i >= log->n || log->rec[i].id != sim.ghost.committed[i]))
		{
			sim_violation("I7", "%s opens epoch %" PRIu64 " without the commit at %u of epoch %" PRIu64,
						  node->host, epoch, i, sim.ghost.committed_epoch[i]);
			return;
		}
	for (uint32 i = 0; i < SIM_MAX_RECORDS; i++)
		if (node->data[i] != 0 && (i >= log->n || node->data[i] != log->rec[i].id))
		{
			sim_violation("I12", "the data pages of %s have a change at %u that its WAL does not have", node->host, i);
			return;
		}
	if (!is_on_quorum(state, record, log->rec[record].id, &have, &voters) && !sim.ghost.was_wiped)
		sim_violation("I8", "%s opens epoch %" PRIu64 ", its epoch record is on %d of %d voters", node->host,
					  epoch, have, voters);
}

void
sim_check_node(SimNode * node)
{
	const QdbShared *shared = node->shared;
	const QdbGrant *grant;

	if (!node->server_up || !node->coordinator.alive)
		return;
	if (shared->promised > node->disk.promised && SIM_KEEPS(SIM_RULE_DURABLE_PROMISE))
		sim_violation("I2", "%s acts on a promise that is not durable", node->host);
	if (shared->open_epoch == 0)
		return;
	if (shared->open_epoch != node->seen_open)
	{
		node->seen_open = shared->open_epoch;
		check_opening(node, shared->open_epoch);
	}
	if (shared->fenced || shared->promised != shared->open_epoch || shared->promising != shared->promised)
		return;
	grant = &sim.ghost.grants[shared->open_epoch % SIM_MAX_EPOCHS];
	if (grant->epoch == shared->open_epoch &&
		(grant->holder != shared->identity.member || grant->boot != shared->identity.boot))
		sim_violation("I15", "%s is writable in epoch %" PRIu64 " without its seat", node->host, shared->open_epoch);
}

/* ---- after all faults have healed ---- */

bool
sim_check_healed(char *why, size_t size)
{
	SimNode    *primary = NULL;

	snprintf(why, size, "no primary is open");
	for (int i = 0; i < sim.nnodes; i++)
	{
		SimNode    *node = sim.nodes[i];

		if (node->server_up && !node->in_recovery && node->shared->open_epoch != 0 &&
			node->shared->open_epoch == node->shared->state.epoch && !node->shared->fenced &&
			(primary == NULL || node->shared->open_epoch > primary->shared->open_epoch))
			primary = node;
	}
	if (primary == NULL)
		return false;
	for (uint32 i = 0; i < primary->shared->state.nmembers; i++)
	{
		const QdbMember *member = &primary->shared->state.members[i];
		const SimNode *node = node_of_member(member->id);
		bool		streams = false;

		if (node == NULL || node == primary)
			continue;
		for (int k = 0; k < SIM_MAX_NODES; k++)
			streams = streams || (primary->streams[k].used && primary->streams[k].streaming &&
								  primary->streams[k].member == member->id && primary->streams[k].flush > 0);
		if (!streams || node->shared->receiver_epoch != primary->shared->open_epoch)
		{
			snprintf(why, size, "%s does not stream: %s", node->host, node->shared->why_not);
			return false;
		}
	}
	if (primary->shared->state.change_open)
	{
		snprintf(why, size, "a membership change is open");
		return false;
	}
	return true;
}
