/*-------------------------------------------------------------------------
 *
 * world.c
 *		Random numbers, the queue of events, violations and the trace.
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

#define MAX_EVENTS		8192

typedef struct Event
{
	int64		at_us;
	uint64		number;			/* ties: first come, first served */
	SimHandler	handler;
	SimNode    *node;
	uint32		life;
	bool		bound;			/* to that life */
	uint64		a;
	uint64		b;
}			Event;

SimWorld	sim;

static Event heap[MAX_EVENTS];
static int	nevents;
static uint64 next_number;

/* splitmix64 */
uint64
sim_random(void)
{
	uint64		z = (sim.rng += UINT64CONST(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64CONST(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64CONST(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

int64
sim_below(int64 n)
{
	return n <= 1 ? 0 : (int64) (sim_random() % (uint64) n);
}

bool
sim_chance(int percent)
{
	return sim_below(100) < percent;
}

static bool
is_before(const Event * a, const Event * b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->number < b->number;
}

static void
push(const Event * event)
{
	int			i = nevents++;

	if (nevents > MAX_EVENTS)
	{
		fprintf(stderr, "seed %llu: too many events\n", (unsigned long long) sim.seed);
		abort();
	}
	for (; i > 0 && is_before(event, &heap[(i - 1) / 2]); i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = *event;
}

static Event
pop(void)
{
	Event		first = heap[0];
	Event		last = heap[--nevents];
	int			i = 0;

	for (;;)
	{
		int			child = 2 * i + 1;

		if (child >= nevents)
			break;
		if (child + 1 < nevents && is_before(&heap[child + 1], &heap[child]))
			child++;
		if (!is_before(&heap[child], &last))
			break;
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = last;
	return first;
}

static void
add(int64 delay_us, SimHandler handler, SimNode * node, bool bound, uint64 a, uint64 b)
{
	Event		event = {sim.now_us + delay_us, next_number++, handler, node,
	node != NULL ? node->life : 0, bound, a, b};

	push(&event);
}

void
sim_at(int64 delay_us, SimHandler handler, SimNode * node, uint64 a, uint64 b)
{
	add(delay_us, handler, node, false, a, b);
}

void
sim_later(int64 delay_us, SimHandler handler, SimNode * node, uint64 a, uint64 b)
{
	add(delay_us, handler, node, true, a, b);
}

void
sim_events_begin(void)
{
	nevents = 0;
	next_number = 0;
}

bool
sim_next_event(int64 until_us)
{
	Event		event;

	if (nevents == 0 || heap[0].at_us > until_us || sim.violation != NULL)
		return false;
	event = pop();
	sim.now_us = event.at_us;
	sim.steps++;
	if (!event.bound || event.node->life == event.life)
		event.handler(event.node, event.a, event.b);
	return true;
}

void
sim_violation(const char *what, const char *format,...)
{
	va_list		args;

	if (sim.violation != NULL)
		return;
	sim.violation = what;
	va_start(args, format);
	vsnprintf(sim.detail, sizeof(sim.detail), format, args);
	va_end(args);
	sim_trace(NULL, "VIOLATION %s: %s", what, sim.detail);
}

void
sim_trace(const SimNode * node, const char *format,...)
{
	char		line[1024];
	va_list		args;

	if (!sim.trace)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	printf("%9.3f %s %s\n", (double) (sim.now_us - SIM_TRUE_START) / 1000.0,
		   node != NULL ? node->host : "--", line);
}
