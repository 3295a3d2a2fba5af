/*-------------------------------------------------------------------------
 *
 * fault.c
 *		What goes wrong in a schedule, and what operators do meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

/* Clocks within the bound that leases allow for: one part in 64 between two. */
#define DRIFT		(1.0 / 130)

static void lean_towards(SimProfile * p, int rule);

void
sim_plan_profile(void)
{
	SimProfile *p = &sim.profile;

	memset(p, 0, sizeof(*p));
	p->voters = sim_chance(75) ? 3 : sim_chance(70) ? 5 : 1 + (int) sim_below(4);
	p->length_us = 800 * SIM_MS + sim_below(sim_chance(30) ? 3 * SIM_SECOND : SIM_SECOND);
	p->crashes = sim_chance(80);
	p->power_loss = sim_chance(50);
	p->partitions = sim_chance(60);
	p->bad_network = sim_chance(30);
	p->pauses = sim_chance(40);
	p->clocks = sim_chance(50);
	p->wild_clocks = sim_chance(5);
	p->disks = sim_chance(20);
	p->held_replay = sim_chance(20);
	p->steps = sim_chance(50) ? 0 : 2 + (int) sim_below(12);
	p->long_leases = sim_chance(20);
	p->moves = sim_chance(30);
	p->members = sim_chance(30);
	p->spares = p->members && sim_chance(70) ? 1 + (int) sim_below(2) : 0;
	p->spares = Min(p->spares, SIM_MAX_NODES - p->voters);
	/* Whose loss leaves a majority: nobody takes votes away meanwhile. */
	p->wipes = p->voters >= 3 && !p->members && sim_chance(30);
	p->clones = sim_chance(15);
	p->async = sim_chance(5);
	p->force = p->moves && sim_chance(10);
	p->family = sim_family(sim.seed);
	for (int rule = 0; rule < SIM_NRULES; rule++)
		if (qdb_rule_off[rule])
			lean_towards(p, rule);
	sim_directed_profile(p);
}

/* What brings the violation of a rule that was taken out within reach sooner. */
static void
lean_towards(SimProfile * p, int rule)
{
	p->crashes = p->partitions = true;
	p->family = sim_family_of_rule(rule);
	switch (rule)
	{
		case QDB_RULE_ONE_CHANGE:
		case QDB_RULE_NEVER_BACK:
			p->members = true;
			p->steps = 10;
			break;
		case QDB_RULE_LEASE_WAIT:
		case QDB_RULE_LEASE_RESTART:
		case QDB_RULE_LEASE_DRIFT:
			p->clocks = p->long_leases = true;
			p->wild_clocks = false;
			p->steps = rule == QDB_RULE_LEASE_RESTART ? 40 : 0;
			break;
		case SIM_RULE_FORGET_ACKS:
			p->clones = true;
			break;
		default:
			p->power_loss = true;
			p->steps = 12;
			break;
	}
	p->async = p->force = false;
	p->spares = p->members ? Min(2, SIM_MAX_NODES - p->voters) : 0;
}

static SimNode *
pick(void)
{
	return sim.nodes[sim_below(sim.nnodes)];
}

/* Often the one that matters. */
static SimNode *
pick_target(void)
{
	if (sim_chance(50))
	{
		for (int i = 0; i < sim.nnodes; i++)
			if (sim.nodes[i]->server_up && !sim.nodes[i]->in_recovery)
				return sim.nodes[i];
	}
	return pick();
}

static int64
short_time(void)
{
	return sim_chance(70) ? sim_below(300 * SIM_MS) : sim_below(2 * SIM_SECOND);
}

/* ---- crashes ---- */

static void
start(SimNode * node, uint64 unused, uint64 unused2)
{
	sim_server_start(node);
}

static bool
may_wipe(const SimNode * node)
{
	return sim.profile.wipes && node->disk.member && sim.ghost.wiped == 0;
}

static void
crash(SimNode * node)
{
	bool		power = sim.profile.power_loss && sim_chance(50);

	if (!node->server_up)
		return;
	if (!power && sim_chance(20))
	{
		/* A backend died: the postmaster stays. */
		sim_server_cycle(node);
		return;
	}
	if (!power && sim_chance(15))
	{
		/* Only the coordinator. */
		sim_process_kill(node);
		sim_process_start(node, 5 * SIM_MS + sim_below(50 * SIM_MS));
		return;
	}
	if (!power && sim_chance(15))
	{
		sim_trace(node, "is shut down");
		node->shutdown = true;
		sim_process_wake(node, 0);
		return;
	}
	if (power && may_wipe(node))
	{
		sim.ghost.wiped++;
		sim_node_wipe(node);
		return;
	}
	sim_server_kill(node, power);
	sim_at(20 * SIM_MS + short_time(), start, node, 0, 0);
}

static void
resume(SimNode * node, uint64 unused, uint64 unused2)
{
	node->stopped = false;
	sim_process_wake(node, 0);
}

static void
stop(SimNode * node)
{
	if (node->stopped || !node->server_up)
		return;
	node->stopped = true;
	sim_trace(node, "is stopped");
	sim_at(50 * SIM_MS + short_time(), resume, node, 0, 0);
}

/* ---- network ---- */

static void
cut_link(int from, int to, int64 us)
{
	for (int net = 0; net < SIM_NNETS; net++)
		sim_cut(net, from, to, us);
}

static void
partition(SimNode * node)
{
	int64		us = 50 * SIM_MS + short_time();
	int			how = (int) sim_below(4);
	uint64		side = sim_random();

	sim_trace(node, "partition of kind %d for %lld ms", how, (long long) (us / 1000));
	for (int i = 0; i < sim.nnodes; i++)
	{
		if (how == 0 || how == 1)
			cut_link(node->index, i, us);
		if (how == 0 || how == 2)
			cut_link(i, node->index, us);
		for (int k = 0; how == 3 && k < sim.nnodes; k++)
			if (((side >> i) & 1) != ((side >> k) & 1))
				cut_link(i, k, us);
	}
}

static void
change_network(void)
{
	sim.latency_us = sim_chance(50) ? 500 : 500 + sim_below(60 * SIM_MS);
	sim.loss = sim_chance(50) ? 0 : (int) sim_below(25);
	sim.reorder = sim_chance(40);
}

/* ---- clocks and disks ---- */

static void
change_clock(SimNode * node)
{
	double		rate = 1.0 + DRIFT * (double) (sim_below(201) - 100) / 100.0;
	int64		jump = 0;

	if (sim.profile.wild_clocks && sim_chance(50))
	{
		rate = sim_chance(50) ? 0.5 : 2.0;
		jump = sim_below(2 * SIM_SECOND);
		node->clock_sane = false;
	}
	sim_set_clock(node, rate, jump);
	if (sim_chance(50))
		node->unix_offset = sim_below(20 * SIM_SECOND) - 10 * SIM_SECOND;
}

static void
empty_disk(SimNode * node, uint64 unused, uint64 unused2)
{
	node->disk.full = false;
}

static void
change_disk(SimNode * node)
{
	if (sim_chance(40))
	{
		node->disk.full = true;
		sim_trace(node, "disk full");
		sim_at(20 * SIM_MS + short_time(), empty_disk, node, 0, 0);
	}
	else
		node->fsync_us = sim_chance(50) ? 0 : sim_below(80 * SIM_MS);
}

/* Its data is to be copied anew; or the primary lacks the WAL that it needs. */
static void
ask_for_clone(SimNode * node)
{
	if (!node->server_up || !node->in_recovery)
		return;
	if (sim_chance(50))
	{
		if (!node->resync.running)
			sim_resync_start(node, QDB_RESYNC_CLONE);
		return;
	}
	sim_trace(node, "the primary lacks its WAL");
	node->wal_removed = true;
}

/* ---- faults at the steps of the protocol ---- */

static void
crash_later(SimNode * node, uint64 unused, uint64 unused2)
{
	crash(node);
}

static void
partition_later(SimNode * node, uint64 unused, uint64 unused2)
{
	partition(node);
}

static void
stop_later(SimNode * node, uint64 unused, uint64 unused2)
{
	stop(node);
}

static void
restart_coordinator(SimNode * node, uint64 unused, uint64 unused2)
{
	if (!node->server_up || node->stopped)
		return;
	sim_process_kill(node);
	sim_process_start(node, SIM_MS + sim_below(10 * SIM_MS));
}

/* The network heals: who was away comes back in the middle of things. */
static void
mend(SimNode * node, uint64 unused, uint64 unused2)
{
	memset(sim.cut, 0, sizeof(sim.cut));
}

static SimNode *
node_of(uint64 member)
{
	for (int i = 0; i < sim.nnodes; i++)
		if (sim.nodes[i]->disk.member && sim.nodes[i]->disk.identity.member == member)
			return sim.nodes[i];
	return pick();
}

void
sim_step_made(SimNode * node, uint8 command, uint64 member)
{
	static const SimHandler faults[] = {crash_later, crash_later, stop_later, partition_later, restart_coordinator, mend};
	SimHandler	fault;

	if (sim.healed || !sim_chance(sim.profile.steps))
		return;
	switch (command)
	{
		case QDB_CMD_OPEN_EPOCH:
		case QDB_CMD_REPORT:
		case QDB_CMD_SEAT:
		case QDB_CMD_GATE_OPEN:
		case QDB_CMD_RELEASE:
		case QDB_CMD_MEMBER_ROLE:
		case QDB_CMD_MEMBERSHIP_CLOSE:
			break;
		default:
			return;
	}
	fault = faults[sim_below(lengthof(faults))];
	/* About the member that the step is about, or the one that hears of it. */
	sim_at(sim_below(sim_chance(70) ? 5 * SIM_MS : 60 * SIM_MS), fault,
		   member != 0 && sim_chance(60) ? node_of(member) : node, 0, 0);
}

/* ---- the stream of faults ---- */

static void
next_fault(SimNode * unused, uint64 a, uint64 b)
{
	const		SimProfile *p = &sim.profile;

	if (sim.healed)
		return;
	sim_at(30 * SIM_MS + sim_below(sim_chance(30) ? 100 * SIM_MS : 700 * SIM_MS), next_fault, NULL, 0, 0);
	switch (sim_below(8))
	{
		case 0:
		case 1:
			if (p->crashes)
				crash(pick_target());
			break;
		case 2:
		case 3:
			if (p->partitions)
				partition(pick_target());
			break;
		case 4:
			if (p->pauses)
				stop(pick_target());
			break;
		case 5:
			if (p->bad_network)
				change_network();
			break;
		case 6:
			if (p->clocks)
				change_clock(pick());
			break;
		case 7:
			if (p->disks)
				change_disk(pick());
			if (p->held_replay)
				pick()->replay_held = true;
			if (p->clones)
				ask_for_clone(pick());
			break;
	}
}

void
sim_faults_begin(void)
{
	for (int i = 0; i < sim.nnodes && sim.profile.clocks; i++)
		sim_set_clock(sim.nodes[i], sim_chance(50) ? 1.0 - DRIFT : 1.0 + DRIFT, 0);
	sim_at(200 * SIM_MS + sim_below(600 * SIM_MS), next_fault, NULL, 0, 0);
}

void
sim_heal(void)
{
	memset(sim.cut, 0, sizeof(sim.cut));
	sim.rest_us = 0;
	sim.latency_us = 500;
	sim.loss = 0;
	sim.reorder = false;
	for (int i = 0; i < sim.nnodes; i++)
	{
		SimNode    *node = sim.nodes[i];

		node->stopped = false;
		node->disk.full = false;
		node->fsync_us = node->wal_fsync_us = 0;
		node->replay_held = node->promotion_held = node->postmaster_hangs = node->sick = false;
		if (node->server_up)
			sim_replay_soon(node);
		sim_set_clock(node, 1.0, 0);
		sim_server_start(node);
	}
}
