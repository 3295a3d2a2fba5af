/*-------------------------------------------------------------------------
 *
 * net.c
 *		The network between coordinators: channel.h and door.h.
 *
 * A connection carries frames in order; a partition holds them back, as
 * retransmissions do, until it heals or the connection is given up.  Above that
 * the faults go further than TCP: frames may be lost or overtake each other.
 * A process that dies resets its connections, a machine that loses its power
 * says nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

#include <errno.h>

#include "base/channel.h"
#include "base/door.h"

#define MAX_CHANNELS	512
#define RETRY_US		(20 * SIM_MS)

typedef struct Frame
{
	struct Frame *next;
	uint32		length;
	uint8		type;
	uint8		payload[FLEXIBLE_ARRAY_MEMBER];
}			Frame;

typedef struct Queue
{
	Frame	   *first;
	Frame	   *last;
}			Queue;

struct QdbChannel
{
	uint32		serial;			/* 0: unused */
	SimNode    *owner;
	int			other_node;
	QdbChannel *other;			/* NULL: not there (yet, or any more) */
	uint32		other_serial;
	QdbChannelState state;
	int			error;
	int64		created_us;		/* the owner's clock */
	Queue		pipe;			/* on their way to this end */
	int64		arrival_us;		/* of the last of them */
	Queue		inbox;
	Frame	   *current;
};

struct QdbDoor
{
	SimNode    *node;
	bool		open;
	QdbChannel *waiting[MAX_CHANNELS];
	int			nwaiting;
};

static QdbChannel channels[MAX_CHANNELS];
static uint32 next_serial = 1;
static QdbDoor doors[SIM_MAX_NODES];

/* ---- links ---- */

bool
sim_is_cut(SimNet net, int from, int to)
{
	return sim.cut[net][from][to] > sim.now_us;
}

void
sim_cut(SimNet net, int from, int to, int64 us)
{
	if (from != to)
		sim.cut[net][from][to] = Max(sim.cut[net][from][to], sim.now_us + us);
}

int64
sim_delay(int from, int to)
{
	int64		delay = 100 + sim_below(sim.latency_us);

	if (sim.loss > 0 && sim_chance(sim.loss))
		return -1;
	if (sim.latency_us > SIM_MS && sim_chance(5))
		delay += sim_below(20 * sim.latency_us);
	return delay;
}

/* ---- queues ---- */

static void
put(Queue * queue, Frame * frame)
{
	frame->next = NULL;
	if (queue->first == NULL)
		queue->first = frame;
	else
		queue->last->next = frame;
	queue->last = frame;
}

/* Takes the frame at that place. */
static Frame *
take(Queue * queue, int place)
{
	Frame	  **link = &queue->first;
	Frame	   *before = NULL;
	Frame	   *frame;

	if (queue->first == NULL)
		return NULL;
	for (; place > 0 && (*link)->next != NULL; place--)
	{
		before = *link;
		link = &(*link)->next;
	}
	frame = *link;
	*link = frame->next;
	if (queue->last == frame)
		queue->last = before;
	return frame;
}

static void
drain(Queue * queue)
{
	Frame	   *frame;

	while ((frame = take(queue, 0)) != NULL)
		free(frame);
}

/* ---- channels ---- */

static QdbChannel *
make_channel(SimNode * owner, int other_node)
{
	for (int i = 0; i < MAX_CHANNELS; i++)
	{
		QdbChannel *c = &channels[i];

		if (c->serial != 0)
			continue;
		memset(c, 0, sizeof(*c));
		c->serial = next_serial++;
		c->owner = owner;
		c->other_node = other_node;
		c->created_us = sim_node_time(owner);
		c->state = QDB_CHANNEL_CONNECTING;
		return c;
	}
	fprintf(stderr, "seed %llu: too many connections\n", (unsigned long long) sim.seed);
	abort();
}

static void
free_channel(QdbChannel *c)
{
	drain(&c->pipe);
	drain(&c->inbox);
	free(c->current);
	memset(c, 0, sizeof(*c));
}

static QdbChannel *
other_end(const QdbChannel *c)
{
	return c->other != NULL && c->other->serial == c->other_serial ? c->other : NULL;
}

static void
fail_now(SimNode * node, uint64 i, uint64 serial)
{
	QdbChannel *c = &channels[i];

	if (c->serial != serial || c->state == QDB_CHANNEL_FAILED)
		return;
	c->state = QDB_CHANNEL_FAILED;
	if (c->error == 0)
		c->error = ECONNRESET;
	sim_process_wake(c->owner, SIM_WAKE_US);
}

/* The other side has gone: this one hears of it after what was sent before. */
static void
reset(QdbChannel *c)
{
	int64		delay = Max(sim_delay(c->other_node, c->owner->index), 200);

	c->other = NULL;
	if (sim_is_cut(SIM_MESH, c->other_node, c->owner->index))
		return;
	if (c->arrival_us > sim.now_us + delay)
		delay = c->arrival_us - sim.now_us;
	sim_at(delay, fail_now, c->owner, c - channels, c->serial);
}

void
qdb_channel_close(QdbChannel *c)
{
	QdbChannel *other;

	if (c == NULL || c->serial == 0)
		return;
	other = other_end(c);
	free_channel(c);
	if (other != NULL)
		reset(other);
}

void
sim_net_begin(void)
{
	for (int i = 0; i < MAX_CHANNELS; i++)
		free_channel(&channels[i]);
	for (int i = 0; i < SIM_MAX_NODES; i++)
	{
		doors[i].open = false;
		doors[i].nwaiting = 0;
		doors[i].node = sim.nodes[i];
	}
}

/* Its coordinator has ended. */
void
sim_net_node_died(SimNode * node)
{
	for (int i = 0; i < MAX_CHANNELS; i++)
	{
		QdbChannel *c = &channels[i];
		QdbChannel *other;

		if (c->serial == 0 || c->owner != node)
			continue;
		other = other_end(c);
		free_channel(c);
		if (other != NULL && node->machine_up)
			reset(other);
		/* What a partition holds back is in the memory of the sender. */
		else if (other != NULL && sim_is_cut(SIM_MESH, node->index, other->owner->index))
			drain(&other->pipe);
	}
	doors[node->index].open = false;
	doors[node->index].nwaiting = 0;
}

static void
come_up(SimNode * node, uint64 i, uint64 serial)
{
	QdbChannel *c = &channels[i];

	if (c->serial != serial || c->state != QDB_CHANNEL_CONNECTING)
		return;
	c->state = QDB_CHANNEL_UP;
	sim_process_wake(c->owner, SIM_WAKE_US);
}

static void
try_connect(SimNode * node, uint64 i, uint64 serial)
{
	QdbChannel *c = &channels[i];
	SimNode    *target;
	QdbDoor    *door;

	if (c->serial != serial)
		return;
	target = sim.nodes[c->other_node];
	door = &doors[c->other_node];
	if (!target->machine_up || sim_is_cut(SIM_MESH, node->index, target->index) ||
		sim_is_cut(SIM_MESH, target->index, node->index))
		sim_at(2 * RETRY_US, try_connect, node, i, serial);
	else if (!door->open)
	{
		c->error = ECONNREFUSED;
		sim_at(200, fail_now, node, i, serial);
	}
	else
	{
		QdbChannel *in = make_channel(target, node->index);

		in->state = QDB_CHANNEL_UP;
		in->other = c;
		in->other_serial = c->serial;
		c->other = in;
		c->other_serial = in->serial;
		door->waiting[door->nwaiting++] = in;
		sim_process_wake(target, SIM_WAKE_US);
		sim_at(200, come_up, node, i, serial);
	}
}

QdbChannel *
qdb_channel_connect(const char *host, int port)
{
	QdbChannel *c = make_channel(sim.current, port % 100);

	sim_at(Max(sim_delay(sim.current->index, c->other_node), 200), try_connect, sim.current,
		   c - channels, c->serial);
	return c;
}

static void
arrive(SimNode * node, uint64 i, uint64 serial)
{
	QdbChannel *c = &channels[i];
	Frame	   *frame;
	int			place = 0;

	if (c->serial != serial)
		return;
	if (sim_is_cut(SIM_MESH, c->other_node, node->index))
	{
		sim_at(RETRY_US, arrive, node, i, serial);
		return;
	}
	if (sim.reorder && sim_chance(20))
		place = (int) sim_below(4);
	frame = take(&c->pipe, place);
	if (frame != NULL)
		put(&c->inbox, frame);
	sim_process_wake(node, SIM_WAKE_US);
}

bool
qdb_channel_send(QdbChannel *c, uint8_t type, const void *payload, uint32_t length)
{
	QdbChannel *other = other_end(c);
	int64		delay = sim_delay(c->owner->index, c->other_node);
	Frame	   *frame;

	if (c->state != QDB_CHANNEL_UP)
		return false;
	if (other == NULL)
	{
		/* Nobody there any more: the answer to a packet is a reset. */
		reset(c);
		return true;
	}
	if (delay < 0)
		return true;
	frame = malloc(offsetof(Frame, payload) + length);
	frame->type = type;
	frame->length = length;
	if (length > 0)
		memcpy(frame->payload, payload, length);
	put(&other->pipe, frame);
	if (sim.now_us + delay < other->arrival_us)
		delay = other->arrival_us - sim.now_us;
	other->arrival_us = sim.now_us + delay;
	sim_at(delay, arrive, other->owner, other - channels, other->serial);
	return true;
}

bool
qdb_channel_receive(QdbChannel *c, QdbFrame *frame)
{
	free(c->current);
	c->current = take(&c->inbox, 0);
	if (c->current == NULL)
		return false;
	frame->type = c->current->type;
	frame->length = c->current->length;
	frame->payload = c->current->payload;
	return true;
}

void
qdb_channel_drive(QdbChannel *c)
{
}

QdbChannelState
qdb_channel_state(const QdbChannel *c)
{
	return c->state;
}

const char *
qdb_channel_error(const QdbChannel *c)
{
	return c->error == ECONNREFUSED ? "connection refused" : "connection reset";
}

int
qdb_channel_errno(const QdbChannel *c)
{
	return c->error == ECONNREFUSED ? c->error : 0;
}

size_t
qdb_channel_queued(const QdbChannel *c)
{
	return 0;
}

bool
qdb_plaintext(void)
{
	return false;
}

const QdbPeerCert *
qdb_channel_peer(const QdbChannel *c)
{
	return NULL;
}

int64_t
qdb_channel_created_us(const QdbChannel *c)
{
	return c->created_us;
}

int
qdb_channel_fd(const QdbChannel *c)
{
	return -1;
}

bool
qdb_channel_wants_write(const QdbChannel *c)
{
	return false;
}

/* ---- doors ---- */

QdbDoor *
qdb_door_open(const char *addresses, int port, QdbDoorKind kind, char *why, size_t why_size)
{
	QdbDoor    *door = &doors[sim.current->index];

	door->open = true;
	door->nwaiting = 0;
	return door;
}

void
qdb_door_close(QdbDoor *door)
{
	if (door != NULL)
		door->open = false;
}

int
qdb_door_fd(const QdbDoor *door)
{
	return -1;
}

void
qdb_door_turn(QdbDoor *door)
{
}

QdbChannel *
qdb_door_take(QdbDoor *door)
{
	QdbChannel *c;

	if (door->nwaiting == 0)
		return NULL;
	c = door->waiting[0];
	memmove(door->waiting, door->waiting + 1, sizeof(QdbChannel *) * --door->nwaiting);
	return c;
}
