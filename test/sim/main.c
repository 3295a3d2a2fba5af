/*-------------------------------------------------------------------------
 *
 * main.c
 *		Runs schedules: a range of seeds, or one with its trace.
 *
 *	sim IMAGE N [first=K] [seconds=S] [all]	until the first violation, or all of them
 *	sim IMAGE seed=K [rule=R]				one seed, with its trace
 *	sim IMAGE N family=F ...				all of one family, 0: undirected
 *	sim IMAGE rules N						each rule taken out, until that is seen
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

#include <malloc.h>
#include <time.h>

bool		qdb_rule_off[SIM_NRULES];
int			sim_only_family = SIM_NFAMILIES;

static double
seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

extern void sim_applied(const QdbState *state, const QdbCommand *command, QdbResult result);

void
sim_applied(const QdbState *state, const QdbCommand *command, QdbResult result)
{
	sim_check_applied(sim.current, command, result, state);
}

/* Rules that the simulator must miss when they are taken out, and what each keeps. */
static const struct
{
	int			rule;
	const char *name;
	bool		quick;			/* some hundred schedules will do */
	uint64		seed;			/* quick begins there; 0: with 1 */
	int			also;			/* a second rule that covers it, taken out too;
								 * 0: none */
}			rules[] =

{
	{SIM_RULE_MATCH, "log_matching", true},
	{SIM_RULE_DURABLE_PROMISE, "durable_promise", true},
	{QDB_RULE_LAST_EPOCH, "epoch_of_the_last_byte", true, 8700},
	{QDB_RULE_MAXIMUM, "maximum_of_the_reports", true},
	{QDB_RULE_REPORT_MAJORITY, "majority_of_reports", true},
	{SIM_RULE_TRUE_REPORT, "true_reports", true},
	{QDB_RULE_GATE, "gate", true},
	{SIM_RULE_FLUSHED_ONLY, "flushed_only", true},
	{QDB_RULE_TAKE_WAL, "wal_under_the_promise", true},
	{QDB_RULE_ACK_NAMES, "refusal_of_old_acks", true},
	{QDB_RULE_NEVER_BACK, "quorum_never_back", true},
	{QDB_RULE_NAMED_BOOT, "named_boot", true},
	{QDB_RULE_PROMOTING, "superseded_promotion", true},
	{QDB_RULE_OWN_START, "own_start", true, 6300},
	{SIM_RULE_FORGET_ACKS, "forgotten_acks_before_a_clone", true},
	{SIM_RULE_WIPED_VOTER, "lost_disk_does_not_vote", true},
	{SIM_RULE_MIN_RECOVERY, "minimum_recovery_point", true},
	/* With either of the two alone majorities still meet. */
	{QDB_RULE_BOTH_NUMBERS, "both_numbers_of_a_change and one_change_at_a_time", true, 0, QDB_RULE_ONE_CHANGE},
	{QDB_RULE_ONE_CHANGE, "one_change_at_a_time", true},
	{QDB_RULE_LEASE_WAIT, "lease_wait", true},
	{QDB_RULE_LEASE_RESTART, "lease_over_a_restart", true, 8900},
	{QDB_RULE_LEASE_DRIFT, "lease_drift", true, 7700},
	{QDB_RULE_OWN_NUMBERS, "own_numbers", true},
};

static double
wall_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* Each rule alone, every other part-th one beginning with this; true: all were missed. */
static bool
run_rules(uint64 n, int part, int parts, bool quick)
{
	bool		all = true;

	for (int i = part; i < (int) lengthof(rules); i += parts)
	{
		uint64		first = quick && rules[i].seed != 0 ? rules[i].seed : 1;
		uint64		seed = first;

		if (quick && !rules[i].quick)
			continue;
		qdb_rule_off[rules[i].rule] = true;
		if (rules[i].also != 0)
			qdb_rule_off[rules[i].also] = true;
		/* Only what a user would lose counts, but for the rule that keeps a cluster alive. */
		while (seed < first + n && (sim_run(seed, false) ||
							 (rules[i].rule != QDB_RULE_OWN_START && strcmp(sim.violation, "liveness") == 0)))
			seed++;
		qdb_rule_off[rules[i].rule] = false;
		if (rules[i].also != 0)
			qdb_rule_off[rules[i].also] = false;
		if (seed < first + n)
			printf("ok - sim without %s: %s in schedule %llu\n", rules[i].name, sim.violation,
				   (unsigned long long) seed);
		else
			printf("not ok - sim without %s: nothing is violated in %llu schedules\n", rules[i].name,
				   (unsigned long long) n);
		fflush(stdout);
		all = all && seed < first + n;
	}
	return all;
}

typedef struct Options
{
	uint64		first;
	uint64		n;
	uint64		one;
	double		seconds;
	bool		all;
	bool		rules;
	bool		quick;
	int			part;
	int			parts;
}			Options;

static bool
run_seeds(const Options * options)
{
	uint64		done = 0;
	uint64		bad = 0;
	uint64		acks = 0;
	uint64		reads = 0;
	uint64		opened = 0;
	double		begun = seconds();
	double		deadline = options->seconds > 0 ? wall_seconds() + options->seconds : 0;

	for (; done < options->n && (deadline == 0 || wall_seconds() < deadline); done++)
	{
		uint64		seed = options->first + done;

		if (!sim_run(seed, false))
		{
			bad++;
			printf("not ok - seed %llu: %s: %s\n", (unsigned long long) seed, sim.violation, sim.detail);
			if (!options->all)
				break;
		}
		acks += sim.ghost.acks;
		reads += sim.ghost.reads;
		opened += sim.ghost.opened;
	}
	if (bad == 0)
		printf("ok - %llu schedules: %llu commits, %llu strict reads, %llu seats opened, %llu events, %.1f s of CPU\n",
			   (unsigned long long) done, (unsigned long long) acks, (unsigned long long) reads,
			   (unsigned long long) opened, (unsigned long long) sim.steps, seconds() - begun);
	return bad == 0;
}

int
main(int argc, char **argv)
{
	Options		options = {.first = 1,.n = 1000,.parts = 1};
	bool		ok;

	if (argc < 2)
		return 2;
	for (int i = 2; i < argc; i++)
	{
		if (strncmp(argv[i], "seed=", 5) == 0)
			options.one = strtoull(argv[i] + 5, NULL, 10);
		else if (strncmp(argv[i], "rule=", 5) == 0 && atoi(argv[i] + 5) < SIM_NRULES)
			qdb_rule_off[atoi(argv[i] + 5)] = true;
		else if (strncmp(argv[i], "family=", 7) == 0)
			sim_only_family = atoi(argv[i] + 7);
		else if (strncmp(argv[i], "first=", 6) == 0)
			options.first = strtoull(argv[i] + 6, NULL, 10);
		else if (strncmp(argv[i], "seconds=", 8) == 0)
			options.seconds = atof(argv[i] + 8);
		else if (strncmp(argv[i], "part=", 5) == 0)
			options.part = atoi(argv[i] + 5);
		else if (strncmp(argv[i], "parts=", 6) == 0)
			options.parts = Max(atoi(argv[i] + 6), 1);
		else if (strcmp(argv[i], "rules") == 0)
			options.rules = true;
		else if (strcmp(argv[i], "quick") == 0)
			options.quick = true;
		else if (strcmp(argv[i], "all") == 0)
			options.all = true;
		else
			options.n = strtoull(argv[i], NULL, 10);
	}
	/* Memory goes from one schedule to the next without the kernel. */
	mallopt(M_MMAP_THRESHOLD, 16 * 1024 * 1024);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	sim_images_load(argv[1], SIM_MAX_NODES);
	if (options.one != 0)
	{
		ok = sim_run(options.one, true);
		printf("%s - seed %llu: %s\n", ok ? "ok" : "not ok", (unsigned long long) options.one,
			   ok ? "nothing violated" : sim.violation);
	}
	else if (options.rules)
		ok = run_rules(options.n, options.part, options.parts, options.quick);
	else
		ok = run_seeds(&options);
	return ok ? 0 : 1;
}
