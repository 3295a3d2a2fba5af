/*-------------------------------------------------------------------------
 *
 * main.c
 *		Runs schedules: a range of seeds, or one with its trace.
 *
 *	sim IMAGE SEEDS [FIRST]			prints the first violation, exit 1
 *	sim IMAGE seed=K [rule=N]		one seed, with its trace
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

#include <malloc.h>
#include <time.h>

bool		qdb_rule_off[SIM_NRULES];

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

int
main(int argc, char **argv)
{
	uint64		first = 1;
	uint64		n = 1000;
	uint64		one = 0;
	uint64		bad = 0;
	uint64		acks = 0,
				reads = 0,
				opened = 0;
	double		begun;
	bool		keep_on = false;

	if (argc < 2)
		return 2;
	for (int i = 2; i < argc; i++)
	{
		if (strncmp(argv[i], "seed=", 5) == 0)
			one = strtoull(argv[i] + 5, NULL, 10);
		else if (strncmp(argv[i], "rule=", 5) == 0)
			qdb_rule_off[atoi(argv[i] + 5)] = true;
		else if (strncmp(argv[i], "first=", 6) == 0)
			first = strtoull(argv[i] + 6, NULL, 10);
		else if (strcmp(argv[i], "all") == 0)
			keep_on = true;
		else
			n = strtoull(argv[i], NULL, 10);
	}
	/* Memory goes from one schedule to the next without the kernel. */
	mallopt(M_MMAP_THRESHOLD, 16 * 1024 * 1024);
	mallopt(M_TRIM_THRESHOLD, 1 << 30);
	sim_images_load(argv[1], SIM_MAX_NODES);
	if (one != 0)
	{
		bool		ok = sim_run(one, true);

		printf("%s - seed %llu: %s\n", ok ? "ok" : "not ok", (unsigned long long) one,
			   ok ? "nothing violated" : sim.violation);
		return ok ? 0 : 1;
	}
	begun = seconds();
	for (uint64 seed = first; seed < first + n; seed++)
	{
		if (!sim_run(seed, false))
		{
			bad++;
			printf("seed %llu: %s: %s\n", (unsigned long long) seed, sim.violation, sim.detail);
			fflush(stdout);
			if (!keep_on)
				break;
		}
		acks += sim.ghost.acks;
		reads += sim.ghost.reads;
		opened += sim.ghost.opened;
	}
	fflush(stdout);
	printf("%llu schedules, %llu violations, %llu commits, %llu strict reads, %llu seats opened, %llu events, %.1f s of CPU\n",
		   (unsigned long long) n, (unsigned long long) bad, (unsigned long long) acks,
		   (unsigned long long) reads, (unsigned long long) opened, (unsigned long long) sim.steps, seconds() - begun);
	return bad == 0 ? 0 : 1;
}
