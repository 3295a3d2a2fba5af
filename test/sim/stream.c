/*-------------------------------------------------------------------------
 *
 * stream.c
 *		The streamer of a primary and the walreceivers: WAL one way, acks the
 *		other.
 *
 * What decides is core's (may WAL be taken, does an ack count, what is the quorum);
 * the order of the checks is that of src/wal/stream.c, release.c, link.c and receiver.c.
 * A connection keeps the order of what is sent; a partition holds it back.
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

#define MAX_CONNECTIONS		64
#define MAX_MESSAGES		64		/* under way, one direction */
#define BATCH				12
#define TICK_US				(10 * SIM_MS)
#define STREAMER_TICK_US	(40 * SIM_MS)
#define RETRY_US			(20 * SIM_MS)
#define GREETING_US			(100 * SIM_MS)

typedef enum MessageKind
{
	MESSAGE_HELLO,
	MESSAGE_WELCOME,
	MESSAGE_START,
	MESSAGE_WAL,
	MESSAGE_ACK,
	MESSAGE_CLOSED
}			MessageKind;

typedef struct Message
{
	MessageKind kind;
	QdbAckName	name;
	uint64		member;
	uint64		membership;
	TimeLineID	timeline;
	uint32		from;			/* records */
	uint32		n;
	uint32		apply;
	SimRecord	rec[BATCH];
}			Message;

typedef struct Pipe
{
	Message		ring[MAX_MESSAGES];
	uint32		head;
	uint32		tail;
	int64		arrival_us;
}			Pipe;

typedef struct Connection
{
	uint64		serial;			/* 0: unused */
	int			receiver;
	int			source;
	bool		receiver_gone;
	bool		source_gone;
	Pipe		down;			/* to the receiver */
	Pipe		up;
}			Connection;

static Connection connections[MAX_CONNECTIONS];

static Connection *
find_connection(uint64 serial)
{
	Connection *c = &connections[serial % MAX_CONNECTIONS];

	return serial != 0 && c->serial == serial ? c : NULL;
}

static void take_up(SimNode * node, uint64 serial, uint64 unused);
static void take_down(SimNode * node, uint64 serial, uint64 unused);

static void
post(Connection * c, bool down, const Message * message)
{
	Pipe	   *pipe = down ? &c->down : &c->up;
	int			from = down ? c->source : c->receiver;
	int			to = down ? c->receiver : c->source;
	int64		delay = Max(sim_delay(from, to), 100);

	if (pipe->head - pipe->tail == MAX_MESSAGES)
		return;					/* only acks and keepalives come to that */
	pipe->ring[pipe->head++ % MAX_MESSAGES] = *message;
	if (sim.now_us + delay < pipe->arrival_us)
		delay = pipe->arrival_us - sim.now_us;
	pipe->arrival_us = sim.now_us + delay;
	sim_at(delay, down ? take_down : take_up, sim.nodes[to], c->serial, 0);
}

/* The next message that has arrived; false: none, or it waits for the partition's end. */
static bool
arrived(Connection * c, bool down, Message * message)
{
	Pipe	   *pipe = down ? &c->down : &c->up;
	int			from = down ? c->source : c->receiver;
	int			to = down ? c->receiver : c->source;

	if (pipe->head == pipe->tail)
		return false;
	if (sim_is_cut(SIM_STREAMS, from, to) || sim.nodes[to]->stopped)
	{
		sim_at(RETRY_US, down ? take_down : take_up, sim.nodes[to], c->serial, 0);
		return false;
	}
	*message = pipe->ring[pipe->tail++ % MAX_MESSAGES];
	return true;
}

static void
close_end(Connection * c, bool receiver, bool tell)
{
	Message		message = {.kind = MESSAGE_CLOSED};

	if (receiver)
		c->receiver_gone = true;
	else
		c->source_gone = true;
	if (c->receiver_gone && c->source_gone)
		c->serial = 0;
	else if (tell)
		post(c, !receiver, &message);
}

/* ---- the streamer ---- */

static SimStream *
find_stream(SimNode * node, uint64 serial)
{
	for (int i = 0; i < SIM_MAX_NODES; i++)
	{
		if (node->streams[i].used && node->streams[i].serial == serial)
			return &node->streams[i];
	}
	return NULL;
}

static void
close_stream(SimStream * stream, bool tell)
{
	Connection *c = find_connection(stream->serial);

	memset(stream, 0, sizeof(*stream));
	if (c != NULL)
		close_end(c, false, tell);
}

/* What the streamer shows to the coordinator. */
static void
publish_streams(SimNode * node)
{
	for (int i = 0; i < SIM_MAX_NODES; i++)
	{
		QdbStreamStatus *status = &node->shared->streams[i];
		const		SimStream *stream = &node->streams[i];

		memset(status, 0, sizeof(*status));
		if (!stream->used || stream->member == 0)
			continue;
		status->member = stream->member;
		status->streaming = stream->streaming;
		status->flush = stream->flush;
		status->apply = stream->apply;
	}
}

/* As look_at_seat in src/wal/streamer.c. */
static uint64
current_seat(SimNode * node, uint64 *taker)
{
	const QdbShared *shared = node->shared;

	*taker = 0;
	if (shared->donate_epoch != 0 && shared->promised == shared->donate_epoch &&
		shared->promising == shared->donate_epoch && node->in_recovery)
	{
		*taker = shared->donate_taker;
		return shared->donate_epoch;
	}
	if (shared->seat_epoch == 0 || shared->promised != shared->seat_epoch ||
		shared->promising != shared->seat_epoch || node->in_recovery ||
		node->timeline != shared->seat_timeline ||
		sim_lsn(node->disk.log.flushed) < shared->epoch_record_end)
		return 0;
	return shared->seat_epoch;
}

static void
refuse(SimNode * node, Connection * c)
{
	SimStream  *stream = find_stream(node, c->serial);

	if (stream != NULL)
		memset(stream, 0, sizeof(*stream));
	close_end(c, false, true);
}

/* I3, as check_history in src/wal/stream.c. */
static bool
history_fits(SimNode * node, TimeLineID timeline, uint32 n)
{
	uint32		limit;

	if (!SIM_KEEPS(SIM_RULE_MATCH))
		return true;
	if (!sim_switch_point(node, timeline, &limit))
		return n == 0;
	if (node->seat_taker != 0)
		limit = Min(limit, sim_index(node->shared->donate_end));
	else if (timeline == node->timeline)
		limit = node->disk.log.flushed;
	return n <= limit;
}

static void
take_hello(SimNode * node, Connection * c, const Message * hello)
{
	const QdbState *state = &node->shared->state;
	const QdbMember *member = qdb_member_by_id(state, hello->member);
	SimStream  *stream = NULL;
	Message		welcome = {.kind = MESSAGE_WELCOME};

	if (node->seat_epoch == 0 || hello->name.epoch != node->seat_epoch ||
		(node->seat_taker != 0 && node->seat_taker != hello->member) ||
		member == NULL || member->incarnation != hello->name.incarnation ||
		!history_fits(node, hello->timeline, hello->from))
	{
		sim_trace(node, "refuses a stream to h%d: epoch %llu, WAL up to %u of timeline %u", c->receiver,
				  (unsigned long long) hello->name.epoch, hello->from, hello->timeline);
		refuse(node, c);
		return;
	}
	for (int i = 0; i < SIM_MAX_NODES; i++)
	{
		SimStream  *other = &node->streams[i];

		if (other->used && other->member == hello->member)
		{
			if (other->boot > hello->name.boot)
			{
				refuse(node, c);
				return;
			}
			close_stream(other, true);
		}
	}
	for (int i = 0; i < SIM_MAX_NODES && stream == NULL; i++)
	{
		if (!node->streams[i].used)
			stream = &node->streams[i];
	}
	if (stream == NULL)
	{
		refuse(node, c);
		return;
	}
	*stream = (SimStream)
	{
		.used = true,.node = c->receiver,.serial = c->serial,.member = hello->member,
			.incarnation = hello->name.incarnation,.boot = hello->name.boot,
			.verified = sim_lsn(hello->from),.connection = ++node->last_connection
	};
	welcome.name.epoch = node->seat_epoch;
	welcome.name.connection = stream->connection;
	post(c, true, &welcome);
}

/* As handle_reply in src/wal/stream.c. */
static void
take_ack(SimNode * node, SimStream * stream, const Message * ack)
{
	QdbAckName	name = {node->seat_epoch, stream->incarnation, stream->boot, stream->connection};
	XLogRecPtr	limit = Max(sim_lsn(stream->sent), stream->verified);

	if (!qdb_ack_counts(&ack->name, ack->membership, &name, node->shared->state.membership))
		return;
	stream->flush = Max(stream->flush, Min(sim_lsn(ack->n), limit));
	stream->apply = Max(stream->apply, Min(sim_lsn(ack->apply), limit));
}

static void
take_up(SimNode * node, uint64 serial, uint64 unused)
{
	Connection *c = find_connection(serial);
	SimStream  *stream;
	Message		message;

	if (c == NULL || !node->machine_up || !arrived(c, false, &message))
		return;
	if (c->source_gone && node->server_up && message.kind == MESSAGE_ACK)
	{
		/* As if it had come on the member's newer connection: its names tell. */
		sim_streamer_turn(node);
		for (int i = 0; i < SIM_MAX_NODES; i++)
			if (node->streams[i].used && node->streams[i].member == message.member)
				take_ack(node, &node->streams[i], &message);
	}
	if (c->source_gone || !node->server_up)
	{
		/* Nobody takes it: the answer is a reset. */
		message = (Message)
		{
			.kind = MESSAGE_CLOSED
		};
		post(c, true, &message);
		return;
	}
	sim_streamer_turn(node);
	stream = find_stream(node, serial);
	if (find_connection(serial) == NULL || (stream == NULL && message.kind != MESSAGE_HELLO))
		return;
	switch (message.kind)
	{
		case MESSAGE_HELLO:
			take_hello(node, c, &message);
			break;
		case MESSAGE_START:
			if (history_fits(node, message.timeline, message.from))
			{
				stream->sent = message.from;
				stream->streaming = true;
			}
			else
				refuse(node, c);
			break;
		case MESSAGE_ACK:
			take_ack(node, stream, &message);
			break;
		case MESSAGE_CLOSED:
			close_stream(stream, false);
			break;
		default:
			break;
	}
	sim_streamer_turn(node);
}

static void
send_wal(SimNode * node, SimStream * stream)
{
	const		SimLog *log = &node->disk.log;
	uint32		upto = SIM_KEEPS(SIM_RULE_FLUSHED_ONLY) ? log->flushed : log->n;	/* I4 */
	Connection *c = find_connection(stream->serial);

	if (node->seat_taker != 0)
		upto = sim_index(node->shared->donate_end);
	while (c != NULL && stream->sent < upto && c->down.head - c->down.tail < MAX_MESSAGES / 2)
	{
		Message		message = {.kind = MESSAGE_WAL,.from = stream->sent};

		message.n = Min(upto - stream->sent, BATCH);
		memcpy(message.rec, &log->rec[stream->sent], sizeof(SimRecord) * message.n);
		stream->sent += message.n;
		post(c, true, &message);
	}
}

/* As count_acks and qdb_count_and_release in src/wal/release.c. */
static void
count_and_release(SimNode * node)
{
	QdbShared  *shared = node->shared;
	const QdbState *state = &shared->state;
	QdbAck		acks[SIM_MAX_NODES + 1];
	size_t		n = 0;
	XLogRecPtr	own = sim_lsn(node->disk.log.flushed);
	XLogRecPtr	flush;
	uint64		membership = state->membership;
	QdbQuorum	quorum = {
		pg_atomic_read_u64(&shared->quorum_epoch),
		pg_atomic_read_u64(&shared->quorum_lsn),
		pg_atomic_read_u64(&shared->quorum_membership)
	};
	QdbQuorum	before = quorum;

	if (!qdb_counts_by(state, node->seat_epoch))
		return;
	acks[n++] = (QdbAck)
	{
		shared->identity.member, own
	};
	for (int i = 0; i < SIM_MAX_NODES; i++)
	{
		const		SimStream *stream = &node->streams[i];
		const QdbMember *member;

		if (!stream->used || stream->member == 0 || stream->flush == 0)
			continue;
		member = qdb_member_by_id(state, stream->member);
		if (member != NULL && member->incarnation == stream->incarnation)
			acks[n++] = (QdbAck)
		{
			stream->member, stream->flush
		};
	}
	flush = qdb_quorum_lsn(state, acks, n);
	if (!state->settings.async && flush < node->released)
		membership = before.membership;
	qdb_quorum_advance(&quorum, node->seat_epoch, flush, membership);
	pg_atomic_write_u64(&shared->quorum_epoch, quorum.epoch);
	pg_atomic_write_u64(&shared->quorum_lsn, quorum.lsn);
	pg_atomic_write_u64(&shared->quorum_membership, quorum.membership);
	if (quorum.membership != before.membership || quorum.lsn != before.lsn)
		sim_process_wake(node, 50);
	if (quorum.lsn < shared->epoch_record_end)
		return;
	node->released_async = state->settings.async;
	node->released = Max(node->released, node->released_async ? own : quorum.lsn);
	sim_released(node);
}

void
sim_streamer_turn(SimNode * node)
{
	uint64		epoch;
	uint64		taker;

	if (!node->server_up || node->stopped)
		return;
	epoch = current_seat(node, &taker);
	if (epoch != node->seat_epoch || taker != node->seat_taker)
	{
		for (int i = 0; i < SIM_MAX_NODES; i++)
			if (node->streams[i].used)
				close_stream(&node->streams[i], true);
		node->seat_epoch = epoch;
		node->seat_taker = taker;
		publish_streams(node);
	}
	if (epoch == 0)
		return;
	if (taker == 0)
		count_and_release(node);
	for (int i = 0; i < SIM_MAX_NODES; i++)
		if (node->streams[i].used && node->streams[i].streaming)
			send_wal(node, &node->streams[i]);
	publish_streams(node);
}

/* I11: before a member's data is replaced its acks are forgotten. */
void
sim_streams_forget(SimNode * node, uint64 member)
{
	for (int i = 0; i < SIM_MAX_NODES && SIM_KEEPS(SIM_RULE_FORGET_ACKS); i++)
		if (node->streams[i].used && node->streams[i].member == member)
			close_stream(&node->streams[i], true);
}

static void
streamer_tick(SimNode * node, uint64 unused, uint64 unused2)
{
	sim_streamer_turn(node);
	sim_later(STREAMER_TICK_US, streamer_tick, node, 0, 0);
}

/* ---- the walreceiver ---- */

/* As read_target in src/wal/link.c. */
static bool
target_valid(const SimNode * node)
{
	const QdbShared *shared = node->shared;

	return shared->target_epoch != 0 && shared->promising == shared->target_epoch &&
		shared->promised == shared->target_epoch && shared->target_member != shared->identity.member;
}

/* It flushes what it wrote, then lets go. */
static void
disconnect(SimNode * node, bool tell)
{
	SimReceiver *r = &node->receiver;
	SimLog	   *log = &node->disk.log;
	Connection *c = find_connection(r->serial);

	if (r->state == SIM_LINK_UP)
	{
		log->flushed = Max(log->flushed, Min(r->written, log->n));
		node->shared->receiver_epoch = 0;
		sim_process_wake(node, 50);
	}
	if (c != NULL)
		close_end(c, true, tell);
	memset(r, 0, sizeof(*r));
	r->retry_us = sim.now_us + 5 * SIM_MS + sim_below(RETRY_US);
}

static bool
may_take(const SimNode * node)
{
	return qdb_may_take_wal(node->receiver.epoch, node->shared->receiver_epoch,
							node->shared->promised, node->shared->promising);	/* I2 */
}

static void
start_connection(SimNode * node)
{
	SimReceiver *r = &node->receiver;
	uint64		serial = ++sim.next_serial;
	Connection *c = &connections[serial % MAX_CONNECTIONS];
	Message		hello = {.kind = MESSAGE_HELLO};

	if (c->serial != 0)
	{
		/* An end that nobody will hear of any more. */
		SimStream  *stream = find_stream(sim.nodes[c->source], c->serial);

		if (stream != NULL || sim.nodes[c->receiver]->receiver.serial == c->serial)
			return;
	}
	memset(c, 0, sizeof(*c));
	c->serial = serial;
	c->receiver = node->index;
	c->source = node->shared->target_port % 100;
	r->state = SIM_LINK_GREETING;
	r->serial = serial;
	r->epoch = node->shared->target_epoch;
	r->source = c->source;
	r->source_member = node->shared->target_member;
	r->start = sim_lsn(node->applied);
	r->retry_us = sim.now_us + GREETING_US;
	hello.name.epoch = r->epoch;
	hello.name.incarnation = node->shared->identity.incarnation;
	hello.name.boot = node->shared->identity.boot;
	hello.member = node->shared->identity.member;
	hello.membership = node->shared->state.membership;
	hello.timeline = sim_replay_timeline(node);
	hello.from = node->applied;
	post(c, false, &hello);
}

static void
take_welcome(SimNode * node, Connection * c, const Message * welcome)
{
	SimReceiver *r = &node->receiver;
	Message		start = {.kind = MESSAGE_START};

	/* I2: the step that makes the link one that WAL may come through. */
	if (r->state != SIM_LINK_GREETING || !target_valid(node) || r->parking ||
		node->shared->target_epoch != r->epoch ||
		node->shared->target_member != r->source_member || welcome->name.epoch != r->epoch)
	{
		disconnect(node, true);
		return;
	}
	node->shared->receiver_epoch = r->epoch;
	node->shared->receiver_member = r->source_member;
	r->state = SIM_LINK_UP;
	r->connection = welcome->name.connection;
	r->written = sim_index(r->start);
	r->flushed = node->applied;
	start.from = r->written;
	start.timeline = r->written > 0 ? node->disk.log.rec[r->written - 1].timeline : 1;
	post(c, false, &start);
	sim_trace(node, "streams from h%d in epoch %llu from %u", c->source, (unsigned long long) r->epoch, r->written);
}

/* ---- acks that come late ---- */

static struct
{
	int			node;
	int			source;
	Message		ack;
}			kept[64];
static uint32 nkept;

static void
keep_ack(const SimNode * node, int source, const Message * ack)
{
	kept[nkept % lengthof(kept)].node = node->index;
	kept[nkept % lengthof(kept)].source = source;
	kept[nkept++ % lengthof(kept)].ack = *ack;
}

void
sim_streams_begin(void)
{
	nkept = 0;
}

/* As if they had come on the member's connection of now: their names tell. */
void
sim_old_acks(const SimNode * from, SimNode * source)
{
	if (!source->server_up || source->stopped)
		return;
	for (uint32 k = 0; k < Min(nkept, lengthof(kept)); k++)
	{
		if (kept[k].node != from->index || kept[k].source != source->index)
			continue;
		for (int i = 0; i < SIM_MAX_NODES; i++)
			if (source->streams[i].used && source->streams[i].member == kept[k].ack.member)
				take_ack(source, &source->streams[i], &kept[k].ack);
	}
	sim_streamer_turn(source);
}

static void
send_ack(SimNode * node)
{
	SimReceiver *r = &node->receiver;
	Connection *c = find_connection(r->serial);
	Message		ack = {.kind = MESSAGE_ACK};

	if (c == NULL || r->state != SIM_LINK_UP)
		return;
	if (!may_take(node))
	{
		disconnect(node, true);
		return;
	}
	ack.name = (QdbAckName)
	{
		r->epoch, node->shared->identity.incarnation, node->shared->identity.boot, r->connection
	};
	ack.member = node->shared->identity.member;
	ack.membership = node->shared->state.membership;
	ack.n = r->flushed;
	ack.apply = Min(node->applied, r->flushed);
	sim_check_ack(node, sim.nodes[c->source], Min(r->flushed, r->written));
	post(c, false, &ack);
	if (sim.profile.family == SIM_OLD_ACKS)
		keep_ack(node, c->source, &ack);
}

static void
receiver_flushed(SimNode * node, uint64 n, uint64 serial)
{
	SimReceiver *r = &node->receiver;
	SimLog	   *log = &node->disk.log;

	if (r->serial != serial || r->state != SIM_LINK_UP)
		return;
	r->flushing = false;
	if (node->disk.full)
	{
		/* A PANIC: nothing was acknowledged. */
		sim_server_cycle(node);
		return;
	}
	r->flushed = Max(r->flushed, (uint32) n);
	log->flushed = Max(log->flushed, Min((uint32) n, log->n));
	send_ack(node);
	if (r->state == SIM_LINK_UP && r->written > r->flushed)
	{
		r->flushing = true;
		sim_later(200 + node->fsync_us + sim_below(500), receiver_flushed, node, r->written, serial);
	}
}

static void
write_wal(SimNode * node, const Message * wal)
{
	SimReceiver *r = &node->receiver;
	SimLog	   *log = &node->disk.log;

	for (uint32 k = 0; k < wal->n; k++)
	{
		uint32		i = wal->from + k;

		if (i != r->written)
			continue;
		if (i < log->n && log->rec[i].id != wal->rec[k].id)
			sim_log_cut(node, i, "other WAL takes its place");
		if (i > log->n)
		{
			sim_violation("I3", "%s gets WAL from %u, its log ends at %u", node->host, i, log->n);
			return;
		}
		if (i < node->applied && node->data[i] != wal->rec[k].id)
			sim_violation("I3", "%s has replayed other WAL at %u than it gets now", node->host, i);
		log->rec[i] = wal->rec[k];
		log->n = Max(log->n, i + 1);
		log->written = Max(log->written, i + 1);
		r->written = i + 1;
	}
	sim_replay_soon(node);
	if (!r->flushing && r->written > r->flushed)
	{
		r->flushing = true;
		sim_later(200 + node->fsync_us + sim_below(500), receiver_flushed, node, r->written, r->serial);
	}
}

static void
take_down(SimNode * node, uint64 serial, uint64 unused)
{
	Connection *c = find_connection(serial);
	SimReceiver *r = &node->receiver;
	Message		message;

	if (c == NULL || c->receiver_gone || !node->server_up || r->serial != serial ||
		!arrived(c, true, &message))
		return;
	if (message.kind == MESSAGE_CLOSED)
		disconnect(node, false);
	else if (message.kind == MESSAGE_WELCOME)
		take_welcome(node, c, &message);
	else if (message.kind == MESSAGE_WAL && r->state == SIM_LINK_UP)
	{
		if (may_take(node))
			write_wal(node, &message);
		else
			disconnect(node, true);
	}
}

static void
receiver_tick(SimNode * node, uint64 unused, uint64 unused2)
{
	SimReceiver *r = &node->receiver;

	sim_later(TICK_US + sim_below(TICK_US), receiver_tick, node, 0, 0);
	if (!node->in_recovery || node->stopped)
		return;
	if (node->wal_removed && target_valid(node))
	{
		/* What the refusal of the primary's streamer says. */
		disconnect(node, true);
		node->wal_removed = false;
		strlcpy(node->shared->receiver_refusal, "WAL has been removed; re-clone this node", QDB_REASON_SIZE);
		return;
	}
	if (r->parking)
		disconnect(node, true);
	else if (r->state == SIM_LINK_UP && qdb_rule_off[QDB_RULE_TAKE_WAL])
		return;
	else if (r->state == SIM_LINK_NONE)
	{
		if (target_valid(node) && sim.now_us >= r->retry_us)
			start_connection(node);
	}
	else if (!target_valid(node) || node->shared->target_epoch != r->epoch ||
			 (r->state == SIM_LINK_GREETING && sim.now_us > r->retry_us))
		disconnect(node, true);
	else if (r->state == SIM_LINK_UP && sim_chance(10))
		send_ack(node);
}

bool
sim_receiver_park(SimNode * node)
{
	if (node->shared->receiver_epoch == 0 || qdb_rule_off[QDB_RULE_TAKE_WAL])
		return true;
	node->receiver.parking = true;
	return false;
}

void
sim_receiver_begin(SimNode * node)
{
	memset(&node->receiver, 0, sizeof(node->receiver));
	sim_later(TICK_US, receiver_tick, node, 0, 0);
	sim_later(STREAMER_TICK_US, streamer_tick, node, 0, 0);
}

/* A promotion ends it. */
void
sim_receiver_shut_down(SimNode * node)
{
	if (node->receiver.state == SIM_LINK_NONE)
		return;
	disconnect(node, true);
}

/* The server has died. */
void
sim_close_streams(SimNode * node)
{
	Connection *c = find_connection(node->receiver.serial);

	if (c != NULL)
		close_end(c, true, node->machine_up);
	for (int i = 0; i < SIM_MAX_NODES; i++)
		if (node->streams[i].used)
			close_stream(&node->streams[i], node->machine_up);
}
