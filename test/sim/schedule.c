/*-------------------------------------------------------------------------
 *
 * schedule.c
 *		One schedule: a cluster is set up, lives under faults, is healed, and
 *		must then serve again.
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

#include <raft.h>

#define HEAL_US		(40 * SIM_SECOND)

static SimRaftDisk first_log;
static uint64 system_identifier = 7;

void
sim_set_member(QdbMember *member, int index, uint64 id, uint64 incarnation)
{
	memset(member, 0, sizeof(*member));
	member->id = id;
	member->incarnation = incarnation;
	snprintf(member->name, sizeof(member->name), "n%llu", (unsigned long long) id);
	snprintf(member->host, sizeof(member->host), "h%d", index);
	member->sql_port = (uint16) (5000 + index);
	member->raft_port = (uint16) (7000 + index);
	member->replication_port = (uint16) (6000 + index);
	member->http_port = (uint16) (8000 + index);
	member->priority = 100;
}

static void
add_command(const QdbCommand *command)
{
	uint8		buf[QDB_COMMAND_MAX_BYTES];
	size_t		len = sizeof(buf);
	QdbCommand	copy = *command;

	copy.time_us = SIM_UNIX;
	if (!qdb_command_encode(&copy, buf, &len))
		abort();
	sim_raft_disk_add(&first_log, 1, RAFT_COMMAND, buf, (uint32) len);
}

static void
add_setting(const char *name, int64 value)
{
	QdbCommand	command = {.type = QDB_CMD_SETTING};

	strlcpy(command.node, name, sizeof(command.node));
	snprintf(command.value, sizeof(command.value), "%lld", (long long) value);
	add_command(&command);
}

/* The log that all first voters have: who they are, and how they are set up. */
static void
make_first_log(int voters)
{
	QdbCommand	command = {.type = QDB_CMD_INIT};
	uint64_t	ids[SIM_MAX_NODES];
	uint8		conf[512];
	size_t		len;

	for (int i = 0; i < voters; i++)
		ids[i] = i + 1;
	sim_enter(sim.nodes[0]);
	len = sim.nodes[0]->image->configuration(ids, voters, conf, sizeof(conf));
	sim_enter(NULL);
	sim_raft_disk_begin(&first_log, 1);
	sim_raft_disk_add(&first_log, 1, RAFT_CHANGE, conf, (uint32) len);

	strlcpy(command.text, "sim", sizeof(command.text));
	strlcpy(command.value, "00000000-0000-4000-8000-000000000001", sizeof(command.value));
	command.system_identifier = system_identifier;
	sim_set_member(&command.member, 0, 1, 101);
	command.grant = (QdbGrant)
	{
		.epoch = 1,.timeline = 1,.fork = SIM_BASE,.holder = 1,.incarnation = 101,.boot = 1
	};
	add_command(&command);
	for (int i = 1; i < voters; i++)
	{
		memset(&command, 0, sizeof(command));
		command.type = QDB_CMD_TOKEN_ADD;
		command.token.id = i;
		command.token.role = QDB_ROLE_VOTER;
		command.token.expires_us = SIM_UNIX * 2;
		add_command(&command);
		command.type = QDB_CMD_MEMBER_ADD;
		sim_set_member(&command.member, i, i + 1, 101 + i);
		add_command(&command);
		command.type = QDB_CMD_MEMBER_ROLE;
		command.member.role = QDB_ROLE_VOTER;
		command.membership = 2 * i - 1 - (i - 1);
		add_command(&command);
		memset(&command, 0, sizeof(command));
		command.type = QDB_CMD_MEMBERSHIP_CLOSE;
		command.membership = i + 1;
		add_command(&command);
	}
	add_setting("lease_duration", sim.profile.long_leases ? 1000 + sim_below(2000) : 100 + 50 * sim_below(7));
	add_setting("failover_timeout", sim.profile.long_leases ? 150 : 150 + 50 * sim_below(8));
	add_setting("open_timeout", 600 + 100 * sim_below(15));
}

/* As a first voter has it, or a backup of then. */
void
sim_first_raft_disk(SimRaftDisk * disk, uint64 id)
{
	sim_raft_disk_begin(disk, id);
	disk->term = 1;
	for (size_t i = 0; i < first_log.n; i++)
		sim_raft_disk_add(disk, 1, first_log.entries[i].type, first_log.entries[i].data, first_log.entries[i].len);
}

static void
set_up_node(SimNode * node, bool voter)
{
	SimDisk    *disk = &node->disk;
	SimImage   *image = node->image;
	SimProcess	process = node->coordinator;
	QdbShared  *shared = node->shared;
	int			index = node->index;

	sim_raft_disk_clear(&disk->raft);
	process.alive = process.started = process.runnable = false;
	sim_process_kill(node);
	sim_process_free(node);
	memset(node, 0, sizeof(*node));
	node->image = image;
	node->coordinator = process;
	node->shared = shared;
	node->index = index;
	node->machine_up = true;
	node->clock_rate = 1;
	node->clock_sane = true;
	node->clock_true = sim.now_us;
	node->clock_base = 50 * SIM_SECOND + sim_below(1000 * SIM_SECOND);
	snprintf(node->host, sizeof(node->host), "h%d", index);
	if (!voter)
		return;
	disk->member = true;
	strlcpy(disk->identity.cluster_id, "00000000-0000-4000-8000-000000000001", QDB_CLUSTER_ID_SIZE);
	snprintf(disk->identity.name, sizeof(disk->identity.name), "n%d", index + 1);
	disk->identity.member = index + 1;
	disk->identity.system_identifier = system_identifier;
	disk->identity.incarnation = 101 + index;
	disk->identity.boot = 1;
	disk->promised = 1;
	sim_first_raft_disk(&disk->raft, index + 1);
	disk->log.n = disk->log.written = disk->log.flushed = 1;
	disk->log.rec[0] = (SimRecord)
	{
		1, 1, SIM_EPOCH
	};
	node->data[0] = 1;
}

static void
set_up(void)
{
	sim_events_begin();
	sim_net_begin();
	memset(&sim.ghost, 0, sizeof(sim.ghost));
	memset(sim.cut, 0, sizeof(sim.cut));
	sim.ghost.next_id = 1;
	sim.ghost.writer[1].node = 1;
	sim.ghost.writer[1].boot = 1;
	sim.now_us = SIM_TRUE_START;
	sim.latency_us = 500;
	sim.loss = 0;
	sim.rest_us = 0;
	sim.reorder = sim.healed = false;
	sim.next_serial = 0;
	sim.violation = NULL;
	sim.current = NULL;
	sim_plan_profile();
	qdb_priority = 100;
	qdb_heartbeat_ms = 20 + 10 * (int) sim_below(3);
	sim.nnodes = sim.profile.voters + sim.profile.spares;
	for (int i = 0; i < SIM_MAX_NODES; i++)
	{
		set_up_node(sim.nodes[i], false);
		sim.nodes[i]->shared->state.epoch = 0;
	}
	make_first_log(sim.profile.voters);
	for (int i = 0; i < sim.profile.voters; i++)
	{
		set_up_node(sim.nodes[i], true);
		sim_server_start(sim.nodes[i]);
	}
	sim_clients_begin();
	sim_faults_begin();
	sim_streams_begin();
	sim_directed_begin();
	sim_operators_begin();
}

bool
sim_run(uint64 seed, bool trace)
{
	char		why[256] = "";
	int64		until;

	sim.seed = seed;
	sim.rng = seed * UINT64CONST(0x2545f4914f6cdd1d) + 1;
	sim.trace = trace;
	set_up();
	until = sim.now_us + sim.profile.length_us;
	while (sim_next_event(until))
		;
	if (sim.violation == NULL)
	{
		sim_trace(NULL, "heals");
		sim_heal();
		sim.healed = true;
		until += HEAL_US;
		do
		{
			int64		next = sim.now_us + 50 * SIM_MS;

			while (sim_next_event(next))
				;
			sim.now_us = Max(sim.now_us, next);
		} while (sim.violation == NULL && !sim_check_healed(why, sizeof(why)) && sim.now_us < until);
		if (sim.violation == NULL && sim.now_us >= until)
			sim_violation("liveness", "%s", why);
	}
	return sim.violation == NULL;
}
