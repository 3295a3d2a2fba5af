/*-------------------------------------------------------------------------
 *
 * mesh.c
 *		Connections between the members.
 *
 * A connection that breaks is opened again at once.  If its port then refuses,
 * the process is gone, and who waits for it may act without a timeout.  A host
 * that swallows packets looks different: nothing is heard, and after a while
 * the connection is replaced so that a healed network is found quickly.
 *
 * A peer is known from the replicated state, or from its HELLO: a member whose
 * own log is still empty learns so where its leader is.
 *
 * Process: coordinator.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <errno.h>
#include <unistd.h>

#include "base/door.h"
#include "cluster/hello.h"
#include "cluster/internal.h"

#define CONNECT_DEADLINE_US		(2 * 1000 * 1000)
#define SILENCE_US				(3 * 1000 * 1000)
#define RETRY_US				(100 * 1000)
#define REFUSED_US				(20 * 1000)
#define WALLED_US				(1000 * 1000)
#define STRANGER_DEADLINE_US	(5 * 1000 * 1000)
#define JOIN_DEADLINE_US		(20 * 1000 * 1000)

static QdbPeer peers[QDB_MAX_MEMBERS];
static QdbStranger strangers[QDB_MAX_STRANGERS];
static QdbDoor *door = NULL;
static uint64 next_serial = 1;

/* Tried with each turn, and logged when it fails for another reason than before. */
bool
qdb_mesh_start(void)
{
	static char logged[QDB_REASON_SIZE] = "";
	char		why[QDB_REASON_SIZE] = "";

	if (door != NULL)
		return true;
	door = qdb_door_open(qdb_listen_addresses, qdb_raft_port, QDB_DOOR_STRANGERS, why, sizeof(why));
	if (door != NULL)
		return true;
	if (strcmp(why, logged) != 0)
		ereport(LOG,
				(errmsg("[raft] %s", why),
				 errhint("Is another server running on that port? Set quantadb.raft_port or quantadb.listen_addresses, and restart; it is tried again all the time.")));
	strlcpy(logged, why, sizeof(logged));
	return false;
}

static void
close_channel(QdbChannel **channel)
{
	if (*channel != NULL)
		qdb_channel_close(*channel);
	*channel = NULL;
}

static void
close_out(QdbPeer *peer)
{
	close_channel(&peer->out);
	peer->out_up = false;
	peer->hello_sent = false;
}

void
qdb_mesh_stop(void)
{
	qdb_door_close(door);
	door = NULL;
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		close_out(&peers[i]);
		close_channel(&peers[i].in);
		peers[i].member = 0;
	}
	for (int i = 0; i < QDB_MAX_STRANGERS; i++)
		close_channel(&strangers[i].channel);
}

QdbPeer *
qdb_mesh_peer(uint64 member)
{
	for (int i = 0; member != 0 && i < QDB_MAX_MEMBERS; i++)
	{
		if (peers[i].member == member)
			return &peers[i];
	}
	return NULL;
}

QdbPeer *
qdb_mesh_slot(int i)
{
	return &peers[i];
}

QdbStranger *
qdb_mesh_stranger(int i, uint64 serial)
{
	if (i < 0 || i >= QDB_MAX_STRANGERS || strangers[i].channel == NULL ||
		strangers[i].serial != serial)
		return NULL;
	return &strangers[i];
}

int
qdb_mesh_stranger_number(const QdbStranger *stranger)
{
	return (int) (stranger - strangers);
}

bool
qdb_peer_connected(const QdbPeer *peer)
{
	return peer != NULL && peer->out_up && peer->in != NULL;
}

bool
qdb_mesh_send(uint64 member, uint8 type, const void *data, uint32 length)
{
	QdbPeer    *peer = qdb_mesh_peer(member);

	return peer != NULL && peer->out_up && qdb_channel_send(peer->out, type, data, length);
}

/* The slot of a member, made where it is new; NULL: no room. */
static QdbPeer *
make_peer(uint64 member)
{
	QdbPeer    *peer = qdb_mesh_peer(member);

	for (int i = 0; peer == NULL && i < QDB_MAX_MEMBERS; i++)
	{
		if (peers[i].member == 0)
		{
			peer = &peers[i];
			memset(peer, 0, sizeof(*peer));
			peer->member = member;
		}
	}
	return peer;
}

static void
set_address(QdbPeer *peer, const char *host, int port)
{
	if (peer->port == port && strcmp(peer->host, host) == 0)
		return;
	strlcpy(peer->host, host, sizeof(peer->host));
	peer->port = port;
	close_out(peer);
	peer->next_connect_us = 0;
}

void
qdb_mesh_expect(const QdbMember *member)
{
	QdbPeer    *peer;

	if (member->id == 0 || member->id == qdb_co.self.member)
		return;
	peer = make_peer(member->id);
	if (peer == NULL)
		return;
	if (peer->state_port != member->raft_port || strcmp(peer->state_host, member->host) != 0)
		peer->said_port = 0;
	if (peer->said_port != 0)
		set_address(peer, peer->said_host, peer->said_port);
	else
		set_address(peer, member->host, member->raft_port);
}

/*
 * A member that was restarted elsewhere cannot say so through Raft before it is reached: its
 * HELLO, which its certificate vouches for, says it to each peer.  The state's word counts again when
 * it changes, which is a later one.
 */
static void
note_address(QdbPeer *peer, const QdbHello *hello)
{
	const QdbMember *member = qdb_member_by_id(qdb_co.state, hello->member);

	if (member != NULL)
	{
		strlcpy(peer->state_host, member->host, sizeof(peer->state_host));
		peer->state_port = member->raft_port;
		strlcpy(peer->said_host, hello->host, sizeof(peer->said_host));
		peer->said_port = hello->raft_port;
	}
	set_address(peer, hello->host, hello->raft_port);
}

/* Peers follow the replicated state; one that was removed is dropped. */
static void
follow_state(void)
{
	const QdbState *state = qdb_co.state;

	for (uint32 i = 0; i < state->nmembers; i++)
		qdb_mesh_expect(&state->members[i]);
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		QdbPeer    *peer = &peers[i];

		if (peer->member != 0 && peer->member < state->next_member_id &&
			qdb_member_by_id(state, peer->member) == NULL)
		{
			close_out(peer);
			close_channel(&peer->in);
			peer->member = 0;
		}
	}
}

/* Notes (incarnation, boot) of a peer that was let in. */
static void
note_boot(QdbPeer *peer, const QdbHello *hello)
{
	if (peer->boot != hello->boot)
		peer->refused_us = 0;
	peer->incarnation = hello->incarnation;
	peer->boot = hello->boot;
	peer->gone = false;
}

static const char *const already_here = "another connection of it is alive";

/* A stranger's HELLO: it becomes the incoming channel of its peer, or is refused. */
static void
admit_peer(QdbStranger *stranger, const QdbFrame *frame)
{
	QdbHello	hello = {0};
	const char *why = "its HELLO is malformed";
	QdbPeer    *peer = NULL;

	if (qdb_read_hello(frame, &hello))
		why = qdb_judge_hello(&hello, stranger->channel);
	if (why == NULL)
	{
		peer = make_peer(hello.member);
		if (peer == NULL)
			why = "there are too many peers";
		else if (peer->in != NULL && peer->boot == hello.boot &&
				 qdb_co.now_us - peer->heard_us < 2000L * qdb_heartbeat_ms)
			why = already_here;
	}
	if (why != NULL)
	{
		qdb_log_refusal(&hello, stranger->channel, why, why == already_here);
		/* It closes the connection when it has read that. */
		stranger->dismissed = qdb_was_removed(&hello) && qdb_send_removed(stranger->channel, &hello);
		if (!stranger->dismissed)
			close_channel(&stranger->channel);
		return;
	}
	if (peer->in != NULL)
		qdb_channel_close(peer->in);
	peer->in = stranger->channel;
	stranger->channel = NULL;
	peer->heard_us = qdb_co.now_us;
	note_boot(peer, &hello);
	note_address(peer, &hello);
	if (peer->out == NULL)
		peer->next_connect_us = 0;
	(void) qdb_send_hello(peer->in);
}

static void
receive_goodbye(QdbPeer *peer, const QdbFrame *frame)
{
	QdbGoodbye	goodbye;

	if (!qdb_goodbye_decode(frame->payload, frame->length, &goodbye) ||
		goodbye.incarnation != peer->incarnation || goodbye.boot != peer->boot)
		return;
	peer->goodbye_boot = goodbye.boot;
	peer->goodbye_reason = goodbye.reason;
	peer->gone = true;
}

static void
dispatch(QdbPeer *peer, const QdbFrame *frame)
{
	switch (frame->type)
	{
		case QDB_FRAME_HEARTBEAT:
			qdb_receive_heartbeat(peer, frame);
			break;
		case QDB_FRAME_RAFT:
			if (qdb_co.raft != NULL)
				qdb_raft_receive(qdb_co.raft, peer->member, frame->payload, frame->length);
			break;
		case QDB_FRAME_PROPOSE:
			qdb_receive_propose(peer, frame);
			break;
		case QDB_FRAME_PROPOSE_RESULT:
			qdb_receive_propose_result(peer, frame);
			break;
		case QDB_FRAME_GOODBYE:
			receive_goodbye(peer, frame);
			break;
		case QDB_FRAME_CA_KEY_REQUEST:
		case QDB_FRAME_CA_KEY:
		case QDB_FRAME_CERT_REQUEST:
		case QDB_FRAME_CERT:
			qdb_receive_certificate_frame(peer, frame);
			break;
		case QDB_FRAME_READ_REQUEST:
			qdb_receive_read_request(peer, frame);
			break;
		case QDB_FRAME_READ_ANSWER:
			qdb_receive_read_answer(peer, frame);
			break;
		default:
			break;
	}
}

static void
drive_in(QdbPeer *peer)
{
	QdbFrame	frame;

	if (peer->in == NULL)
		return;
	qdb_channel_drive(peer->in);
	/* A handler may close the channel, hence the check in each round. */
	while (peer->in != NULL && qdb_channel_receive(peer->in, &frame))
	{
		peer->heard_us = qdb_co.now_us;
		dispatch(peer, &frame);
	}
	if (peer->in != NULL && qdb_channel_state(peer->in) == QDB_CHANNEL_FAILED)
		close_channel(&peer->in);
}

/* The answer to our HELLO: only the member that we meant may get our frames. */
static void
take_answer(QdbPeer *peer)
{
	QdbFrame	frame;
	QdbHello	hello;

	while (peer->out != NULL && qdb_channel_receive(peer->out, &frame))
	{
		if (frame.type == QDB_FRAME_REMOVED && qdb_says_removed(peer, &frame))
			qdb_learn_removal();
		if (frame.type != QDB_FRAME_HELLO || !qdb_read_hello(&frame, &hello) ||
			hello.member != peer->member || qdb_judge_hello(&hello, peer->out) != NULL)
		{
			close_out(peer);
			peer->next_connect_us = qdb_co.now_us + 10 * RETRY_US;
			return;
		}
		if (!peer->out_up)
			ereport(LOG, (errmsg("[cluster] Connected to node %s", hello.name)));
		peer->out_up = true;
		peer->refused_us = 0;
		note_boot(peer, &hello);
	}
}

static const char *
peer_name(const QdbPeer *peer)
{
	const QdbMember *member = qdb_member_by_id(qdb_co.state, peer->member);

	return member != NULL ? member->name : "?";
}

/*
 * Its port refuses us, and yet it speaks: a firewall does that.  With a process its
 * connections end, too, so the wait for that costs a death no more than a turn.  Once it
 * was heard after a refusal, a refusal says nothing any more, and only silence does.
 */
static bool
still_speaks(QdbPeer *peer)
{
	int64		silent_us = qdb_co.now_us - peer->heard_us;

	if (peer->refused_us == 0)
		peer->refused_us = qdb_co.now_us;
	if (peer->heard_us > peer->refused_us)
		return silent_us < WALLED_US;
	return peer->in != NULL && silent_us < 3 * qdb_heartbeat_ms * INT64CONST(1000);
}

/* A failed outgoing connection: refused means that no process is there. */
static void
lose_out(QdbPeer *peer)
{
	bool		was_up = peer->out_up;
	bool		refused = qdb_channel_errno(peer->out) == ECONNREFUSED;
	int64		pause_us = RETRY_US;

	if (was_up)
		ereport(LOG, (errmsg("[cluster] Lost the connection to node %s: %s",
							 peer_name(peer), qdb_channel_error(peer->out))));
	close_out(peer);
	if (refused && still_speaks(peer))
		pause_us = REFUSED_US;
	else if (refused)
	{
		peer->gone = true;
		close_channel(&peer->in);
	}
	/* After a loss at once: the answer tells whether its process is gone. */
	peer->next_connect_us = was_up ? 0 : qdb_co.now_us + pause_us;
}

static void
drive_out(QdbPeer *peer)
{
	int64		age;

	if (peer->out == NULL)
	{
		if (qdb_co.now_us < peer->next_connect_us || peer->port == 0)
			return;
		peer->out = qdb_channel_connect(peer->host, peer->port);
		if (peer->out == NULL)
		{
			peer->next_connect_us = qdb_co.now_us + RETRY_US;
			return;
		}
	}
	qdb_channel_drive(peer->out);
	if (qdb_channel_state(peer->out) == QDB_CHANNEL_UP && !peer->hello_sent)
		peer->hello_sent = qdb_send_hello(peer->out);
	take_answer(peer);
	if (peer->out == NULL)
		return;
	age = qdb_co.now_us - qdb_channel_created_us(peer->out);
	if (qdb_channel_state(peer->out) == QDB_CHANNEL_FAILED)
		lose_out(peer);
	else if ((!peer->out_up && age > CONNECT_DEADLINE_US) ||
			 (age > SILENCE_US && qdb_co.now_us - peer->heard_us > SILENCE_US))
	{
		close_out(peer);
		peer->next_connect_us = qdb_co.now_us + RETRY_US;
	}
}

/* One that has no certificate yet: there may be many, and they wait for nothing long. */
static bool
wants_to_join(const QdbStranger *stranger)
{
	const QdbPeerCert *cert = stranger->channel != NULL ? qdb_channel_peer(stranger->channel) : NULL;

	return cert != NULL && cert->stranger;
}

/*
 * A place for a connection that is through; members are never pushed out by joiners, and of
 * these none that has shown a good token.  Who only guesses makes room for the next one.
 */
static QdbStranger *
find_place(bool joiner)
{
	QdbStranger *spare = NULL;
	QdbStranger *oldest = NULL;
	int			njoiners = 0;

	for (int i = 0; i < QDB_MAX_STRANGERS; i++)
	{
		QdbStranger *stranger = &strangers[i];

		if (stranger->channel == NULL)
			spare = stranger;
		else if (wants_to_join(stranger))
		{
			njoiners++;
			if (!stranger->vouched && (oldest == NULL || stranger->serial < oldest->serial))
				oldest = stranger;
		}
	}
	if (spare == NULL || (joiner && njoiners >= QDB_MAX_STRANGERS / 2))
		spare = oldest;
	if (spare != NULL)
		close_channel(&spare->channel);
	return spare;
}

static void
accept_all(void)
{
	QdbChannel *channel;

	if (door == NULL)
		return;
	qdb_door_turn(door);
	while ((channel = qdb_door_take(door)) != NULL)
	{
		const QdbPeerCert *cert = qdb_channel_peer(channel);
		QdbStranger *stranger = find_place(cert != NULL && cert->stranger);

		if (stranger == NULL)
		{
			qdb_channel_close(channel);
			continue;
		}
		stranger->channel = channel;
		stranger->serial = next_serial++;
		stranger->joining = false;
		stranger->vouched = false;
		stranger->dismissed = false;
		stranger->added = false;
		stranger->retry_us = 0;
	}
}

static void
drive_stranger(QdbStranger *stranger)
{
	QdbFrame	frame;
	int64		age;

	if (stranger->channel == NULL)
		return;
	qdb_channel_drive(stranger->channel);
	if (!stranger->joining && !stranger->dismissed && qdb_channel_receive(stranger->channel, &frame))
	{
		if (frame.type == QDB_FRAME_HELLO)
			admit_peer(stranger, &frame);
		else if (frame.type == QDB_FRAME_JOIN)
			qdb_receive_join(stranger, &frame);
		else
			close_channel(&stranger->channel);
		if (stranger->channel == NULL)
			return;
	}
	qdb_stranger_turn(stranger);
	if (stranger->channel == NULL)
		return;
	age = qdb_co.now_us - qdb_channel_created_us(stranger->channel);
	if (qdb_channel_state(stranger->channel) == QDB_CHANNEL_FAILED ||
		age > (stranger->joining ? JOIN_DEADLINE_US : STRANGER_DEADLINE_US))
		close_channel(&stranger->channel);
}

void
qdb_mesh_turn(void)
{
	follow_state();
	accept_all();
	for (int i = 0; i < QDB_MAX_STRANGERS; i++)
		drive_stranger(&strangers[i]);
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		if (peers[i].member == 0)
			continue;
		drive_in(&peers[i]);
		drive_out(&peers[i]);
	}
}

void
qdb_mesh_goodbye(uint8 reason)
{
	QdbGoodbye	goodbye = {.incarnation = qdb_co.self.incarnation,.boot = qdb_co.self.boot,.reason = reason};
	uint8		buf[QDB_PEER_MAX_BYTES];
	uint32		length = sizeof(buf);

	if (!qdb_goodbye_encode(&goodbye, buf, &length))
		return;
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		if (peers[i].member != 0 && peers[i].out_up)
			(void) qdb_channel_send(peers[i].out, QDB_FRAME_GOODBYE, buf, length);
	}
	for (int round = 0; round < 20; round++)
	{
		bool		queued = false;

		for (int i = 0; i < QDB_MAX_MEMBERS; i++)
		{
			if (peers[i].member == 0 || !peers[i].out_up)
				continue;
			qdb_channel_drive(peers[i].out);
			if (qdb_channel_state(peers[i].out) == QDB_CHANNEL_UP &&
				qdb_channel_queued(peers[i].out) > 0)
				queued = true;
		}
		if (!queued)
			break;
		pg_usleep(5000);
	}
}

int
qdb_mesh_listeners(int *fds)
{
	if (door == NULL)
		return 0;
	fds[0] = qdb_door_fd(door);
	return 1;
}

int
qdb_mesh_channels(QdbChannel **channels)
{
	int			n = 0;

	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		if (peers[i].member != 0 && peers[i].out != NULL)
			channels[n++] = peers[i].out;
		if (peers[i].member != 0 && peers[i].in != NULL)
			channels[n++] = peers[i].in;
	}
	for (int i = 0; i < QDB_MAX_STRANGERS; i++)
	{
		if (strangers[i].channel != NULL)
			channels[n++] = strangers[i].channel;
	}
	return n;
}
