/*-------------------------------------------------------------------------
 *
 * directed.c
 *		Schedules about one interleaving that chance alone hardly meets.
 *
 * A small share of all seeds has a family.  Its script waits for states of the
 * cluster and then cuts, kills and asks; when exactly, about whom, and most often
 * nothing else, is drawn from the seed.  Each family is what one rule guards against, so
 * a rule that is taken out is looked for in its own family (main.c).
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

#define POLL_US			(3 * SIM_MS)
#define SHARE			3		/* percent of the seeds */
#define FOR_LONG		(20 * SIM_SECOND)

typedef struct Script
{
	int			step;
	int64		begun_us;		/* of the step */
	SimNode    *holder;
	uint64		epoch;			/* of its seat then */
	SimNode    *other[SIM_MAX_NODES];	/* the other first voters, shuffled */
	SimNode    *who;
}			Script;

static Script script;

int
sim_family(uint64 seed)
{
	uint64		z = (seed ^ UINT64CONST(0x6a09e667f3bcc909)) * UINT64CONST(0x9e3779b97f4a7c15);

	if (sim_only_family < SIM_NFAMILIES)
		return sim_only_family;
	z ^= z >> 29;
	return z % 100 < SHARE ? SIM_UNDIRECTED + 1 + (int) (z / 100 % (SIM_NFAMILIES - 1)) : SIM_UNDIRECTED;
}

/* Where a rule that was taken out is missed. */
int
sim_family_of_rule(int rule)
{
	static const int families_of_rules[SIM_NRULES] = {
		[SIM_RULE_DURABLE_PROMISE] = SIM_OLD_PROMISE,
		[SIM_RULE_TRUE_REPORT] = SIM_LATE_REPLAY,
		[SIM_RULE_FLUSHED_ONLY] = SIM_SLOW_FLUSH,
		[QDB_RULE_ACK_NAMES] = SIM_OLD_ACKS,
		[QDB_RULE_PROMOTING] = SIM_SLOW_PROMOTION,
		[SIM_RULE_WIPED_VOTER] = SIM_LOST_DISK,
		[QDB_RULE_OWN_NUMBERS] = SIM_OWN_NUMBERS,
		[QDB_RULE_BOTH_NUMBERS] = SIM_BOTH_NUMBERS,
	};

	/* Where two are out it is about this one. */
	return SIM_KEEPS(QDB_RULE_BOTH_NUMBERS) ? families_of_rules[rule] : SIM_BOTH_NUMBERS;
}

/* Entries of Raft's log until a snapshot; a voter that comes back begins with that. */
unsigned
sim_snapshot_threshold(void)
{
	return sim.profile.family == SIM_OLD_PROMISE || sim.profile.family == SIM_BOTH_NUMBERS ?
		3 + (unsigned) (sim.seed % 10) : 24;
}

void
sim_directed_profile(SimProfile * p)
{
	if (p->family == SIM_UNDIRECTED)
		return;
	if (sim_chance(80))
	{
		p->crashes = p->power_loss = p->partitions = p->bad_network = p->pauses = p->disks = p->held_replay = false;
		p->moves = p->clones = false;
		p->steps = 0;
	}
	p->voters = p->family == SIM_OLD_ACKS ? 5 : 3;
	p->members = p->force = p->async = p->wipes = p->wild_clocks = false;
	p->spares = p->family == SIM_OWN_NUMBERS || p->family == SIM_BOTH_NUMBERS ? 2 : 0;
	p->long_leases = p->family == SIM_BOTH_NUMBERS;
	p->length_us = p->family == SIM_LATE_REPLAY || p->family == SIM_SLOW_FLUSH ? 2 * SIM_SECOND : 3500 * SIM_MS;
}

/* ---- what scripts look at ---- */

/* Who holds the seat of the newest epoch that it knows, and is open. */
static SimNode *
open_holder(void)
{
	SimNode    *holder = NULL;

	for (int i = 0; i < sim.nnodes; i++)
	{
		SimNode    *node = sim.nodes[i];

		if (node->server_up && !node->in_recovery && node->seat_epoch != 0 &&
			node->shared->open_epoch == node->seat_epoch && node->shared->state.epoch == node->seat_epoch &&
			(holder == NULL || node->seat_epoch > holder->seat_epoch))
			holder = node;
	}
	return holder;
}

static bool
streams_from(const SimNode * node, const SimNode * holder)
{
	return node->server_up && node->in_recovery && node->receiver.state == SIM_LINK_UP &&
		node->receiver.source == holder->index && node->receiver.epoch == holder->seat_epoch;
}

static bool
all_stream(const SimNode * holder)
{
	for (int i = 0; i < sim.nnodes; i++)
		if (sim.nodes[i] != holder && sim.nodes[i]->disk.member && !streams_from(sim.nodes[i], holder))
			return false;
	return true;
}

static uint8
role_of(const SimNode * at, const SimNode * node)
{
	const QdbMember *member = qdb_member_by_id(&at->shared->state, node->disk.identity.member);

	return member != NULL ? member->role : QDB_ROLE_REPLICA;
}

/* ---- what they do ---- */

static void
cut_both(SimNet net, const SimNode * a, const SimNode * b)
{
	sim_cut(net, a->index, b->index, FOR_LONG);
	sim_cut(net, b->index, a->index, FOR_LONG);
}

static void
cut_off(SimNet net, const SimNode * node)
{
	for (int i = 0; i < sim.nnodes; i++)
		cut_both(net, node, sim.nodes[i]);
}

static void
mend(SimNet net)
{
	memset(sim.cut[net], 0, sizeof(sim.cut[net]));
}

static void
start_later(SimNode * node, uint64 unused, uint64 unused2)
{
	sim_server_start(node);
}

static void
mend_later(SimNode * node, uint64 net, uint64 unused)
{
	mend((SimNet) net);
}

static void
lose_power(SimNode * node, int64 back_us)
{
	sim_server_kill(node, true);
	sim_at(back_us, start_later, node, 0, 0);
}

static int64
go_on(int64 delay_us)
{
	script.step++;
	script.begun_us = sim.now_us + delay_us;
	return delay_us;
}

static bool
lasts(int64 us)
{
	return sim.now_us - script.begun_us > us;
}

/* Names a holder that all follow, and the others. */
static bool
find_actors(void)
{
	SimNode    *holder = open_holder();
	int			n = 0;

	if (holder == NULL || !all_stream(holder) || holder->index >= sim.profile.voters)
		return false;
	script.holder = holder;
	script.epoch = holder->seat_epoch;
	for (int i = 0; i < sim.profile.voters; i++)
		if (sim.nodes[i] != holder)
			script.other[n++] = sim.nodes[i];
	for (int i = n - 1; i > 0; i--)
	{
		int			k = (int) sim_below(i + 1);
		SimNode    *node = script.other[i];

		script.other[i] = script.other[k];
		script.other[k] = node;
	}
	return true;
}

/* A later epoch's holder. */
static SimNode *
next_holder(void)
{
	SimNode    *holder = open_holder();

	return holder != NULL && holder->seat_epoch > script.epoch ? holder : NULL;
}

/* ---- the families; each returns when it goes on, 0: never ---- */

/*
 * I2.  Coordinators do not hear the primary, WAL still comes through.  A voter reports for
 * the next epoch, loses its power, and comes back to a snapshot of before.
 */
static int64
old_promise(void)
{
	const QdbGrant *grant = &sim.ghost.grants[(script.epoch + 1) % SIM_MAX_EPOCHS];

	switch (script.step)
	{
		case 0:
			if (!find_actors())
				return POLL_US;
			cut_off(SIM_MESH, script.holder);
			return go_on(POLL_US);
		case 1:
			if (grant->epoch != script.epoch + 1)
				return POLL_US;
			script.who = script.other[script.other[0]->disk.identity.member == grant->holder];
			lose_power(script.who, 2 * SIM_MS + sim_below(30 * SIM_MS));
			cut_off(SIM_MESH, script.who);
			sim_at(100 * SIM_MS + sim_below(500 * SIM_MS), mend_later, NULL, SIM_MESH, 0);
			return 0;
	}
	return 0;
}

/*
 * I6.  One replica has no stream, the other does not replay, and then both have to report:
 * what only the second one has, it has not replayed.
 */
static int64
late_replay(void)
{
	switch (script.step)
	{
		case 0:
			if (!find_actors())
				return POLL_US;
			cut_both(SIM_STREAMS, script.holder, script.other[0]);
			script.other[1]->replay_held = true;
			return go_on(30 * SIM_MS + sim_below(200 * SIM_MS));
		case 1:
			sim_server_kill(script.holder, sim_chance(50));
			if (sim_chance(50))
				sim_server_cycle(script.other[1]);
			mend(SIM_STREAMS);
			return go_on(500 * SIM_MS + sim_below(SIM_SECOND));
		case 2:
			sim_server_start(script.holder);
			return 0;
	}
	return 0;
}

/*
 * I4.  The primary's disk takes its time with WAL, and a member is cloned from what the
 * primary has flushed.
 */
static int64
slow_flush(void)
{
	switch (script.step)
	{
		case 0:
			if (!find_actors())
				return POLL_US;
			script.holder->wal_fsync_us = 300 * SIM_MS + sim_below(500 * SIM_MS);
			return go_on(20 * SIM_MS + sim_below(150 * SIM_MS));
		case 1:
			script.other[0]->wal_removed = true;
			return go_on(600 * SIM_MS);
		case 2:
			script.holder->wal_fsync_us = 0;
			return 0;
	}
	return 0;
}

/*
 * I5.  A primary of five and one voter are cut off and go on alone; the others open an epoch,
 * and then the seat comes back to the first one.  Acks of the time alone are heard now.
 */
static int64
old_acks(void)
{
	SimNode    *holder = open_holder();

	switch (script.step)
	{
		case 0:
			if (!find_actors())
				return POLL_US;
			for (int net = 0; net < SIM_NNETS; net++)
				for (int i = 1; i < 4; i++)
				{
					cut_both(net, script.holder, script.other[i]);
					cut_both(net, script.other[0], script.other[i]);
				}
			return go_on(POLL_US);
		case 1:
			if (next_holder() == NULL)
				return POLL_US;
			sim.rest_us = sim.now_us + 3 * SIM_SECOND;
			mend(SIM_MESH);
			mend(SIM_STREAMS);
			return go_on(POLL_US);
		case 2:
			if (holder == NULL || !all_stream(holder))
				return POLL_US;
			if (holder != script.holder)
			{
				char		name[16];

				snprintf(name, sizeof(name), "n%d", script.holder->index + 1);
				(void) sim_request_named(holder, QDB_REQ_PROMOTE, name, 0);
				return 100 * SIM_MS;
			}
			sim_cut(SIM_STREAMS, holder->index, script.other[0]->index, 400 * SIM_MS);
			sim_cut(SIM_STREAMS, holder->index, script.other[1]->index, 400 * SIM_MS);
			sim_cut(SIM_STREAMS, holder->index, script.other[2]->index, 400 * SIM_MS);
			sim.rest_us = 0;
			return go_on(20 * SIM_MS + sim_below(60 * SIM_MS));
		case 3:
			sim_old_acks(script.other[0], script.holder);
			return lasts(100 * SIM_MS) ? 0 : 10 * SIM_MS;
	}
	return 0;
}

/*
 * I3.  The first one with the next seat is slow to end its recovery; another gets the one after,
 * and is followed and answered.  Then the first promotion ends.
 */
static int64
slow_promotion(void)
{
	SimNode    *x = script.who;
	SimNode    *holder = next_holder();

	switch (script.step)
	{
		case 0:
			if (!find_actors())
				return POLL_US;
			sim_server_kill(script.holder, false);
			script.other[0]->promotion_held = script.other[1]->promotion_held = true;
			return go_on(POLL_US);
		case 1:
			for (int i = 0; i < 2; i++)
				if (script.other[i]->promoting)
					script.who = script.other[i];
			if (script.who == NULL)
				return POLL_US;
			script.other[script.who == script.other[0]]->promotion_held = false;
			return go_on(POLL_US);
		case 2:
			if (holder == NULL || holder == x)
				return POLL_US;
			sim_server_start(script.holder);
			return go_on(POLL_US);
		case 3:
			if (holder == NULL || ((!streams_from(x, holder) || !streams_from(script.holder, holder)) && !lasts(SIM_SECOND)))
				return POLL_US;
			cut_both(SIM_STREAMS, holder, script.holder);
			return go_on(20 * SIM_MS + sim_below(80 * SIM_MS));
		case 4:
			x->promotion_held = false;
			if (x->in_recovery && !lasts(60 * SIM_MS))
				return SIM_MS;
			if (holder != NULL)
				lose_power(holder, 1500 * SIM_MS);
			mend(SIM_STREAMS);
			return 0;
	}
	return 0;
}

/*
 * I16.  Two of three know of an epoch; one of them loses its disk, the other is cut off, and
 * the third comes back.
 */
static int64
lost_disk(void)
{
	SimNode    *holder = next_holder();

	switch (script.step)
	{
		case 0:
			if (!find_actors())
				return POLL_US;
			for (int net = 0; net < SIM_NNETS; net++)
				cut_off(net, script.other[0]);
			sim_server_cycle(script.holder);
			return go_on(POLL_US);
		case 1:
			script.who = script.other[1] == holder ? script.holder : script.other[1];
			if (holder == NULL || !streams_from(script.who, holder))
				return POLL_US;
			sim.ghost.wiped++;
			sim_node_wipe(script.who);
			sim_join(script.who, QDB_ROLE_VOTER);
			return go_on(POLL_US);
		case 2:
			if (!script.who->server_up && !lasts(200 * SIM_MS))
				return POLL_US;
			if (holder != NULL)
				for (int net = 0; net < SIM_NNETS; net++)
				{
					mend(net);
					cut_off(net, holder);
				}
			return go_on(SIM_SECOND);
		case 3:
			mend(SIM_MESH);
			mend(SIM_STREAMS);
			return 0;
	}
	return 0;
}

/* Two replicas are there, and stream. */
static bool
have_replicas(void)
{
	SimNode    *holder = open_holder();

	if (script.step > 0)
		return find_actors() && sim.nodes[3]->disk.member && sim.nodes[4]->disk.member;
	if (holder == NULL || !all_stream(holder))
		return false;
	sim_join(sim.nodes[3], QDB_ROLE_REPLICA);
	sim_join(sim.nodes[4], QDB_ROLE_REPLICA);
	script.step = 1;
	return false;
}

/* Both vote now, as far as this node knows; until then it is asked for. */
static bool
grown(SimNode * at)
{
	bool		done = true;

	for (int i = 3; i < 5; i++)
	{
		char		name[16];

		if (role_of(at, sim.nodes[i]) == QDB_ROLE_VOTER)
			continue;
		done = false;
		snprintf(name, sizeof(name), "n%llu", (unsigned long long) sim.nodes[i]->disk.identity.member);
		if (role_of(at, sim.nodes[i]) == QDB_ROLE_REPLICA)
			(void) sim_request_named(at, QDB_REQ_ROLE, name, QDB_ROLE_VOTER);
	}
	return done;
}

/*
 * I13.  A primary whose WAL only two replicas have is cut off.  In a later epoch the replicas become
 * voters, and then it hears of everything at once.
 */
static int64
own_numbers(void)
{
	SimNode    *holder = next_holder();

	switch (script.step)
	{
		case 0:
		case 1:
			if (!have_replicas())
				return POLL_US;
			cut_both(SIM_STREAMS, script.holder, script.other[0]);
			cut_both(SIM_STREAMS, script.holder, script.other[1]);
			script.step = 1;
			return go_on(30 * SIM_MS + sim_below(120 * SIM_MS));
		case 2:
			cut_off(SIM_MESH, script.holder);
			cut_off(SIM_STREAMS, script.holder);
			return go_on(POLL_US);
		case 3:
			if (holder == NULL || holder == script.holder || !grown(holder) || holder->shared->state.change_open)
				return 20 * SIM_MS;
			script.holder->postmaster_hangs = true;
			mend(SIM_MESH);
			return go_on(300 * SIM_MS);
		case 4:
			script.holder->postmaster_hangs = false;
			mend(SIM_STREAMS);
			return 0;
	}
	return 0;
}

static void
pause_failovers(SimNode * at, bool pause)
{
	QdbCommand	command = {.type = QDB_CMD_SETTING};

	strlcpy(command.node, "auto_failover", sizeof(command.node));
	strlcpy(command.value, pause ? "off" : "on", sizeof(command.value));
	(void) sim_request(at, &command);
}

/*
 * I13.  Three voters grow to five while the primary does not hear of it; one of the three
 * comes back to a snapshot of before, and follows it, the other three open an epoch.
 */
static int64
both_numbers(void)
{
	SimNode    *a = script.other[0];
	SimNode    *b = script.other[1];

	switch (script.step)
	{
		case 0:
		case 1:
			if (!have_replicas())
				return POLL_US;
			pause_failovers(script.holder, true);
			script.step = 1;
			return go_on(POLL_US);
		case 2:
			if (!find_actors() || script.holder->shared->state.settings.auto_failover ||
				script.holder->shared->raft_leader == script.holder->disk.identity.member)
				return POLL_US;
			/* The first of the others leads. */
			if (b->disk.identity.member == script.holder->shared->raft_leader)
			{
				script.other[0] = b;
				script.other[1] = a;
			}
			cut_off(SIM_MESH, script.holder);
			return go_on(POLL_US);
		case 3:
			if (!a->server_up || !grown(a))
				return lasts(SIM_SECOND) ? 0 : 20 * SIM_MS;
			return go_on(50 * SIM_MS + sim_below(200 * SIM_MS));
		case 4:
			lose_power(b, 2 * SIM_MS + sim_below(20 * SIM_MS));
			cut_off(SIM_MESH, b);
			return go_on(POLL_US);
		case 5:
			if (!streams_from(b, script.holder))
				return lasts(500 * SIM_MS) ? 0 : POLL_US;
			pause_failovers(a, false);
			return go_on(1200 * SIM_MS);
		case 6:
			mend(SIM_MESH);
			return 0;
	}
	return 0;
}

/*
 * Who has more WAL than the others, or the seat itself, may not be primary: WAL is handed over, or
 * the seat is given up.
 */
static int64
sick(void)
{
	switch (script.step)
	{
		case 0:
			if (!find_actors())
				return POLL_US;
			script.who = script.holder;
			if (sim_chance(70))
			{
				script.who = script.other[1];
				cut_both(SIM_STREAMS, script.holder, script.other[0]);
			}
			return go_on(30 * SIM_MS + sim_below(200 * SIM_MS));
		case 1:
			script.who->sick = true;
			if (script.who != script.holder)
				sim_server_kill(script.holder, sim_chance(50));
			mend(SIM_STREAMS);
			return go_on(300 * SIM_MS + sim_below(SIM_SECOND));
		case 2:
			sim_server_start(script.holder);
			script.who->sick = false;
			return 0;
	}
	return 0;
}

static int64 (*const families[SIM_NFAMILIES]) (void) = {
	[SIM_OLD_PROMISE] = old_promise,
	[SIM_LATE_REPLAY] = late_replay,
	[SIM_SLOW_FLUSH] = slow_flush,
	[SIM_OLD_ACKS] = old_acks,
	[SIM_SLOW_PROMOTION] = slow_promotion,
	[SIM_LOST_DISK] = lost_disk,
	[SIM_OWN_NUMBERS] = own_numbers,
	[SIM_BOTH_NUMBERS] = both_numbers,
	[SIM_SICK] = sick,
};

static void
drive(SimNode * unused, uint64 a, uint64 b)
{
	int			step = script.step;
	int64		next;

	if (sim.healed)
		return;
	next = families[sim.profile.family] ();
	if (script.step != step)
		sim_trace(NULL, "script: step %d", script.step);
	if (next > 0)
		sim_at(next, drive, NULL, 0, 0);
}

void
sim_directed_begin(void)
{
	memset(&script, 0, sizeof(script));
	if (sim.profile.family != SIM_UNDIRECTED)
		sim_at(50 * SIM_MS + sim_below(200 * SIM_MS), drive, NULL, 0, 0);
}
