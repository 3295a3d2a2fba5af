/*-------------------------------------------------------------------------
 *
 * operator.c
 *		What people and scripts do to a cluster: promote, change roles, add,
 *		remove, replace a lost node, pause, switch the durability.
 *
 * Everything goes through the mailbox of some node, as the SQL functions do it.
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

#include <raft.h>

#define JOIN_US		(60 * SIM_MS)

static uint64 next_incarnation;

/* Any server whose coordinator knows a cluster. */
static SimNode *
any_server(void)
{
	for (int i = 0; i < 8; i++)
	{
		SimNode    *node = sim.nodes[sim_below(sim.nnodes)];

		if (node->server_up && !node->stopped && node->shared->state.epoch != 0)
			return node;
	}
	return NULL;
}

static const QdbMember *
any_member(const QdbState *state)
{
	return state->nmembers == 0 ? NULL : &state->members[sim_below(state->nmembers)];
}

static void
set_value(SimNode * node, const char *name, const char *value)
{
	QdbCommand	command = {.type = QDB_CMD_SETTING};

	strlcpy(command.node, name, sizeof(command.node));
	strlcpy(command.value, value, sizeof(command.value));
	(void) sim_request(node, &command);
}

static void
change_role(SimNode * node)
{
	const QdbMember *member = any_member(&node->shared->state);
	bool		remove = sim_chance(20);
	int			role;

	if (member == NULL)
		return;
	role = member->role == QDB_ROLE_VOTER ? QDB_ROLE_REPLICA : QDB_ROLE_VOTER;
	sim_trace(node, "is asked to %s member %llu", remove ? "remove" : role == QDB_ROLE_VOTER ? "let vote" :
			  "take the vote from", (unsigned long long) member->id);
	(void) sim_request_named(node, remove ? QDB_REQ_REMOVE : QDB_REQ_ROLE, member->name, role);
}

static void
promote(SimNode * node, bool force)
{
	const QdbMember *member = any_member(&node->shared->state);

	if (member == NULL)
		return;
	sim_trace(node, "is asked to promote %s%s", member->name, force ? " by force" : "");
	if (sim_request_named(node, QDB_REQ_PROMOTE, member->name, force) && force)
		sim.ghost.forced = true;
}

/* ---- a node joins ---- */

/* The data of the open primary, up to what a quorum has. */
static bool
copy_data(SimNode * node)
{
	for (int i = 0; i < sim.nnodes; i++)
	{
		SimNode    *source = sim.nodes[i];
		SimDisk    *disk = &node->disk;
		uint32		n = source->disk.log.flushed;

		if (source == node || !source->server_up || source->seat_epoch == 0 ||
			source->shared->open_epoch != source->seat_epoch || source->shared->state.epoch != source->seat_epoch ||
			(pg_atomic_read_u64(&source->shared->quorum_lsn) < sim_lsn(n) && SIM_KEEPS(SIM_RULE_WIPED_VOTER)) ||
			sim_is_cut(SIM_STREAMS, node->index, i) || sim_is_cut(SIM_STREAMS, i, node->index))
			continue;
		disk->log.n = disk->log.written = disk->log.flushed = n;
		memcpy(disk->log.rec, source->disk.log.rec, sizeof(SimRecord) * n);
		disk->redo = source->disk.redo;
		disk->min_recovery = n;
		for (uint32 k = 0; k < n; k++)
			node->data[k] = disk->log.rec[k].id;
		return true;
	}
	return false;
}

static void
become_member(SimNode * node, uint64 id, uint64 incarnation, uint64 boot)
{
	SimDisk    *disk = &node->disk;

	if (!copy_data(node))
		return;
	disk->wiped = false;
	disk->member = true;
	strlcpy(disk->identity.cluster_id, "00000000-0000-4000-8000-000000000001", QDB_CLUSTER_ID_SIZE);
	snprintf(disk->identity.name, sizeof(disk->identity.name), "n%llu", (unsigned long long) id);
	disk->identity.member = id;
	disk->identity.system_identifier = 7;
	disk->identity.incarnation = incarnation;
	disk->identity.boot = boot;
	if (node->lost.member == id)
		sim_first_raft_disk(&disk->raft, id);
	else
		sim_raft_disk_begin(&disk->raft, id);
	node->joining = 0;
	sim_trace(node, "is member %llu now, with %u records", (unsigned long long) id, disk->log.n);
	sim_server_start(node);
}

static const QdbMember *
find_incarnation(const QdbState *state, uint64 incarnation)
{
	for (uint32 i = 0; i < state->nmembers; i++)
		if (state->members[i].incarnation == incarnation)
			return &state->members[i];
	return NULL;
}

/* Who asked for a removal waits for its answer before he asks again. */
static bool
removal_waits(const SimNode * node)
{
	for (int i = 0; i < QDB_MAX_REQUESTS; i++)
	{
		const QdbRequest *request = &node->shared->requests[i];

		if (request->kind == QDB_REQ_REMOVE && request->state != QDB_REQUEST_FREE &&
			request->state != QDB_REQUEST_DONE)
			return true;
	}
	return false;
}

static void
join_step(SimNode * node, uint64 unused, uint64 unused2)
{
	SimNode    *other = any_server();
	const QdbState *state;
	const QdbMember *member;
	QdbCommand	command = {.type = QDB_CMD_TOKEN_ADD};

	if (node->joining == 0)
		return;
	sim_at(JOIN_US, join_step, node, 0, 0);
	if (other == NULL)
		return;
	if (!SIM_KEEPS(SIM_RULE_WIPED_VOTER) && node->lost.member != 0)
	{
		/* The primary's data, and of the Raft folder there was a backup. */
		become_member(node, node->lost.member, node->lost.incarnation, node->lost.boot + 100);
		return;
	}
	state = &other->shared->state;
	member = find_incarnation(state, node->joining);
	if (member != NULL)
	{
		become_member(node, member->id, member->incarnation, 0);
		return;
	}
	if (node->lost.member != 0 && qdb_member_by_id(state, node->lost.member) != NULL)
	{
		if (!removal_waits(other))
			(void) sim_request_named(other, QDB_REQ_REMOVE, qdb_member_by_id(state, node->lost.member)->name, 0);
		return;
	}
	command.token.id = sim_random() | 1;
	command.token.role = node->join_role >= 0 ? node->join_role :
		sim_chance(80) ? QDB_ROLE_VOTER : QDB_ROLE_REPLICA;
	command.token.expires_us = SIM_UNIX * 2;
	(void) sim_request(other, &command);
	command.type = QDB_CMD_MEMBER_ADD;
	sim_set_member(&command.member, node->index, state->next_member_id, node->joining);
	(void) sim_request(other, &command);
}

void
sim_join(SimNode * node, int role)
{
	if (node->joining != 0 || node->disk.member)
		return;
	node->join_role = role;
	node->joining = ++next_incarnation;
	sim_at(JOIN_US, join_step, node, 0, 0);
}

static void
replace_lost(void)
{
	for (int i = 0; i < sim.nnodes; i++)
	{
		SimNode    *node = sim.nodes[i];

		/* Scripts let those join that never were members. */
		if (node->joining != 0 || node->disk.member ||
			!(node->disk.wiped || (sim.profile.family == SIM_UNDIRECTED && sim_chance(20))))
			continue;
		sim_join(node, -1);
	}
}

/* ---- the stream of wishes ---- */

static void
next_wish(SimNode * unused, uint64 a, uint64 b)
{
	const		SimProfile *p = &sim.profile;
	SimNode    *node = any_server();

	sim_at(100 * SIM_MS + sim_below(500 * SIM_MS), next_wish, NULL, 0, 0);
	if (node == NULL)
		return;
	if (sim.healed)
	{
		if (!node->shared->state.settings.auto_failover)
			set_value(node, "auto_failover", "on");
		/* Under async a cluster may wait for somebody to accept a loss. */
		if (p->async && sim_chance(20))
			promote(node, true);
		return;
	}
	replace_lost();
	switch (sim_below(5))
	{
		case 0:
		case 1:
			if (p->moves)
				promote(node, p->force && sim_chance(30));
			break;
		case 2:
			if (p->members)
				change_role(node);
			break;
		case 3:
			if (p->moves && sim_chance(40))
				set_value(node, "auto_failover", sim_chance(50) ? "off" : "on");
			break;
		case 4:
			if (p->async)
			{
				bool		async = sim_chance(50);

				set_value(node, "durability", async ? "async" : "quorum");
				sim.ghost.was_async = sim.ghost.was_async || async;
			}
			break;
	}
}

void
sim_operators_begin(void)
{
	next_incarnation = 1000;
	sim_at(500 * SIM_MS + sim_below(500 * SIM_MS), next_wish, NULL, 0, 0);
}
