/*-------------------------------------------------------------------------
 *
 * receiver.c
 *		Transport of PostgreSQL's walreceiver on a member.
 *
 * The walreceiver calls a table of functions that libpqwalreceiver fills.  We
 * load that library first and put our own table in front: connections that are
 * not a member's stream (logical ones, or a server that is no member) go on
 * to libpq's.  Ours speaks the frames of messages.h with the streamer of the
 * member that holds the seat.
 *
 * Where to connect stands in shared memory; connecting waits there, holding
 * nothing, until there is a target under the promised epoch.  From
 * receiver_epoch's setting, the last step of connecting, to disconnect, WAL
 * may arrive.  The coordinator never fsyncs a promise while it is set (I2), and
 * every message in either direction is checked against promising under the
 * same mutex.
 *
 * Process: walreceiver (and whoever uses libpq's table).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/pg_bswap.h"
#include "replication/walreceiver.h"
#include "utils/memutils.h"

#include "base/base.h"
#include "base/channel.h"
#include "wal/compress.h"
#include "wal/messages.h"
#include "wal/receiver.h"
#include "wal/wal.h"

/* After this many bytes the walreceiver is made to flush and ack. */
#define FLUSH_AFTER_BYTES		(1024 * 1024)
/* A history request that is not answered. */
#define ANSWER_TIMEOUT_US		INT64CONST(10000000)
#define KEEPALIVE_BYTES			18
#define STANDBY_REPLY_BYTES		34	/* 'r', four integers, a flag */
#define STATUS_INTERVAL_US		INT64CONST(1000000)
/* Replies with no news but of apply: so many in each window. */
#define APPLY_WINDOW_US			100000
#define APPLY_REPLIES			5

typedef struct MemberConn
{
	QdbReceiverLink link;		/* what the handshake left */
	bool		announced;		/* "Stream connected" is in the log */
	bool		ended;			/* END_OF_TIMELINE arrived */
	TimeLineID	next_timeline;
	/* Rest of the current WAL frame, inside the channel's buffer. */
	const uint8_t *rest;
	uint32		rest_length;
	size_t		since_pause;	/* bytes handed out since the last 0 */

	/* What was said last, and a reply that may wait a little. */
	uint64		said_flush;
	uint64		said_apply;
	int64		said_us;
	int64		window_us;		/* begin of the window for replies about apply
								 * alone */
	int			window_replies;
	bool		apply_wanted;	/* the primary has commits that wait for it */
	bool		asked;			/* a keepalive wants an answer */
	int			postponed_length;
	char		postponed[QDB_RAW_REPLY_MAX];
} MemberConn;

static WalReceiverFunctionsType *libpq_functions = NULL;
static uint8 *unpacked = NULL;	/* messages of a compressed frame */

/* The one connection of this process; memory is kept for the next one. */
static MemberConn member_conn;

static bool
is_ours(const WalReceiverConn *conn)
{
	return (const void *) conn == (const void *) &member_conn;
}

/*
 * Ends this connection unless it stands under the promised epoch (I2).
 * Handing over WAL or an ack that passed just before promising rose is safe:
 * the promise becomes durable only after this process has let go.
 */
static void
check_epoch(void)
{
	uint64		promised;
	uint64		promising;
	uint64		held;

	SpinLockAcquire(&qdb_shared->mutex);
	promised = qdb_shared->promised;
	promising = qdb_shared->promising;
	held = qdb_shared->receiver_epoch;
	SpinLockRelease(&qdb_shared->mutex);

	if (!qdb_may_take_wal(member_conn.link.epoch, held, promised, promising))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("terminating replication connection of epoch " UINT64_FORMAT,
						member_conn.link.epoch),
				 errdetail("This node is promising epoch " UINT64_FORMAT ".", promising)));
}

static void
report_broken_channel(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("could not receive WAL from the primary: %s",
					qdb_channel_error(member_conn.link.channel))));
}

static void
report_protocol_violation(int type)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("unexpected or malformed frame of type %d from the primary", type)));
}

static void
report_refusal(const QdbFrame *frame)
{
	QdbStreamRefusal refusal;

	if (!qdb_refusal_decode(frame->payload, frame->length, &refusal))
		report_protocol_violation(frame->type);
	qdb_note_refusal(refusal.text);
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("the primary ended the stream: %s", refusal.text)));
}

static void
send_frame(uint8 type, const void *payload, uint32 length)
{
	if (!qdb_channel_send(member_conn.link.channel, type, payload, length))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("could not send to the primary: %s",
						qdb_channel_state(member_conn.link.channel) == QDB_CHANNEL_FAILED ?
						qdb_channel_error(member_conn.link.channel) : "send queue is full")));
}

static WalReceiverConn *
receiver_connect(const char *conninfo, bool logical, const char *appname, char **err)
{
	if (logical || qdb_shared == NULL || !qdb_shared->member)
		return (libpq_functions->walrcv_connect) (conninfo, logical, appname, err);

	memset(&member_conn, 0, sizeof(member_conn));
	if (!qdb_link_connect(&member_conn.link, err))
		return NULL;
	return (WalReceiverConn *) &member_conn;
}

static void
receiver_check_conninfo(const char *conninfo)
{
	/* Only subscriptions come here. */
	(libpq_functions->walrcv_check_conninfo) (conninfo);
}

static char *
receiver_get_conninfo(WalReceiverConn *conn)
{
	if (!is_ours(conn))
		return (libpq_functions->walrcv_get_conninfo) (conn);
	return psprintf("quantadb host=%s port=%d", member_conn.link.host, member_conn.link.port);
}

static void
receiver_get_senderinfo(WalReceiverConn *conn, char **sender_host, int *sender_port)
{
	if (!is_ours(conn))
	{
		(libpq_functions->walrcv_get_senderinfo) (conn, sender_host, sender_port);
		return;
	}
	*sender_host = pstrdup(member_conn.link.host);
	*sender_port = member_conn.link.port;
}

static char *
receiver_identify_system(WalReceiverConn *conn, TimeLineID *primary_tli)
{
	if (!is_ours(conn))
		return (libpq_functions->walrcv_identify_system) (conn, primary_tli);
	*primary_tli = member_conn.link.welcome.timeline;
	return psprintf(UINT64_FORMAT, member_conn.link.welcome.system_identifier);
}

static int
receiver_server_version(WalReceiverConn *conn)
{
	if (!is_ours(conn))
		return (libpq_functions->walrcv_server_version) (conn);
	return PG_VERSION_NUM;
}

/*
 * Waits, interruptibly, for a frame outside of streaming.  Keepalives and late
 * WAL of a stream that has ended are dropped.
 */
static void
wait_for_frame(uint8 wanted, QdbFrame *frame)
{
	QdbChannel *channel = member_conn.link.channel;
	int64		deadline = qdb_now_us() + ANSWER_TIMEOUT_US;

	for (;;)
	{
		ProcessWalRcvInterrupts();
		qdb_channel_drive(channel);
		while (qdb_channel_receive(channel, frame))
		{
			if (frame->type == wanted)
				return;
			if (frame->type == QDB_FRAME_STREAM_REFUSED)
				report_refusal(frame);
			if (frame->type != QDB_FRAME_WAL)
				report_protocol_violation(frame->type);
		}
		if (qdb_channel_state(channel) == QDB_CHANNEL_FAILED)
			report_broken_channel();
		if (qdb_now_us() > deadline)
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("the primary did not answer in time")));
		qdb_link_wait(channel, 100);
	}
}

static void
receiver_readtimelinehistoryfile(WalReceiverConn *conn, TimeLineID tli,
								 char **filename, char **content, int *size)
{
	uint8		request[4];
	uint32		request_length = sizeof(request);
	QdbFrame	frame;
	QdbHistoryFile history;

	if (!is_ours(conn))
	{
		(libpq_functions->walrcv_readtimelinehistoryfile) (conn, tli, filename, content, size);
		return;
	}
	if (!qdb_history_request_encode(tli, request, &request_length))
		elog(ERROR, "could not encode a request");
	send_frame(QDB_FRAME_HISTORY_REQUEST, request, request_length);
	wait_for_frame(QDB_FRAME_HISTORY, &frame);

	if (!qdb_history_decode(frame.payload, frame.length, &history))
		report_protocol_violation(frame.type);
	check_epoch();				/* I2: a history file steers recovery too */
	*filename = pstrdup(history.name);
	*content = palloc(history.length + 1);
	memcpy(*content, history.content, history.length);
	(*content)[history.length] = '\0';
	*size = history.length;
}

/*
 * PostgreSQL asks for a segment from its begin on, lest a file have a hole.  Where a new
 * timeline begins in the middle of one, up to a whole segment that everybody has would
 * be sent, written and fsynced before the epoch record can be acked, with the gate
 * closed.  What the coordinator has copied from own WAL and matched is left out (I3).
 */
static XLogRecPtr
first_missing(TimeLineID timeline, XLogRecPtr wanted)
{
	XLogRecPtr	upto;

	SpinLockAcquire(&qdb_shared->mutex);
	upto = qdb_shared->begun_timeline == timeline ? qdb_shared->begun_upto : InvalidXLogRecPtr;
	SpinLockRelease(&qdb_shared->mutex);
	return upto > wanted && upto / wal_segment_size == wanted / wal_segment_size ? upto : wanted;
}

static bool
receiver_startstreaming(WalReceiverConn *conn, const WalRcvStreamOptions *options)
{
	uint8		buf[16];
	uint32		len = sizeof(buf);
	TimeLineID	timeline = options->proto.physical.startpointTLI;

	if (!is_ours(conn))
		return (libpq_functions->walrcv_startstreaming) (conn, options);

	check_epoch();
	member_conn.ended = false;
	member_conn.next_timeline = 0;
	member_conn.rest_length = 0;
	member_conn.since_pause = 0;
	if (!qdb_position_encode(timeline, first_missing(timeline, options->startpoint), buf, &len))
		elog(ERROR, "could not encode a start position");
	send_frame(QDB_FRAME_START, buf, len);

	/* No slot: the primary keeps WAL for its members itself. */
	if (!member_conn.announced)
	{
		member_conn.announced = true;
		qdb_note_refusal("");
		ereport(LOG,
				(errmsg("[replication] Stream connected to primary"),
				 errdetail("From %s at %s:%d, epoch " UINT64_FORMAT
						   ", timeline %u, from %X/%X.",
						   qdb_member_label(member_conn.link.member), member_conn.link.host, member_conn.link.port,
						   member_conn.link.epoch, timeline,
						   LSN_FORMAT_ARGS(options->startpoint))));
	}
	return true;
}

static void
receiver_endstreaming(WalReceiverConn *conn, TimeLineID *next_tli)
{
	if (!is_ours(conn))
	{
		(libpq_functions->walrcv_endstreaming) (conn, next_tli);
		return;
	}
	*next_tli = member_conn.next_timeline;
}

/* The next walsender message of the current WAL frame; 0 when it is used up. */
static int
take_message(char **buffer)
{
	uint32		length;
	const uint8_t *bytes;

	if (member_conn.rest_length == 0)
		return 0;
	if (!qdb_wal_message_take(&member_conn.rest, &member_conn.rest_length, &bytes, &length))
		report_protocol_violation(QDB_FRAME_WAL);
	member_conn.since_pause += length;
	if (bytes[0] == 'k' && length == KEEPALIVE_BYTES && bytes[KEEPALIVE_BYTES - 1] != 0)
		member_conn.asked = true;
	*buffer = (char *) bytes;
	return (int) length;
}

/* Length and codec are checked before anything is unpacked, into a fixed buffer. */
static void
open_wal_frame(const QdbFrame *frame)
{
	QdbWalPrefix prefix;

	if (!qdb_wal_prefix_decode(frame->payload, frame->length, &prefix))
		report_protocol_violation(frame->type);
	member_conn.apply_wanted = (prefix.flags & QDB_WAL_APPLY_WANTED) != 0;
	member_conn.rest = prefix.data;
	member_conn.rest_length = prefix.raw_length;
	if (prefix.codec == QDB_CODEC_NONE)
		return;
	if (unpacked == NULL)
		unpacked = MemoryContextAlloc(TopMemoryContext, QDB_WAL_RAW_MAX);
	if (!qdb_decompress(prefix.codec, prefix.data, prefix.data_length, unpacked, prefix.raw_length))
		report_protocol_violation(frame->type);
	member_conn.rest = unpacked;
}

/* Takes the next frame; false when none is there. */
static bool
next_stream_frame(void)
{
	QdbChannel *channel = member_conn.link.channel;
	QdbFrame	frame;
	uint32		timeline;
	uint64		lsn;

	if (!qdb_channel_receive(channel, &frame))
	{
		qdb_channel_drive(channel);
		if (!qdb_channel_receive(channel, &frame))
		{
			if (qdb_channel_state(channel) == QDB_CHANNEL_FAILED)
				report_broken_channel();
			return false;
		}
	}
	switch (frame.type)
	{
		case QDB_FRAME_WAL:
			open_wal_frame(&frame);
			break;
		case QDB_FRAME_END_OF_TIMELINE:
			if (!qdb_position_decode(frame.payload, frame.length, &timeline, &lsn))
				report_protocol_violation(frame.type);
			member_conn.ended = true;
			member_conn.next_timeline = timeline;
			break;
		case QDB_FRAME_STREAM_REFUSED:
			report_refusal(&frame);
			break;
		default:
			report_protocol_violation(frame.type);
	}
	return true;
}

static uint64
current_membership(void)
{
	uint64		membership;

	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	membership = qdb_shared->state.membership;
	LWLockRelease(qdb_shared->state_lock);
	return membership;
}

static uint64
get_int64(const char *p)
{
	uint64		v;

	memcpy(&v, p, sizeof(v));
	return pg_ntoh64(v);
}

/*
 * The walreceiver replies when it has written, when it has flushed, and when
 * startup has applied what there is.  Each costs the primary a wake-up, so one
 * that only says "written" waits for the flush that comes next, and those that
 * only say "applied" are few unless a commit waits for them.
 */
static bool
is_news(const char *reply, int nbytes)
{
	int64		now = qdb_now_us();

	if (reply[0] != 'r' || nbytes != STANDBY_REPLY_BYTES ||
		member_conn.asked || reply[STANDBY_REPLY_BYTES - 1] != 0 ||
		get_int64(reply + 9) != member_conn.said_flush ||
		now - member_conn.said_us >= STATUS_INTERVAL_US)
		return true;
	if (get_int64(reply + 17) == member_conn.said_apply)
		return false;
	if (member_conn.apply_wanted)
		return true;
	if (now - member_conn.window_us >= APPLY_WINDOW_US)
	{
		member_conn.window_us = now;
		member_conn.window_replies = 0;
	}
	return ++member_conn.window_replies <= APPLY_REPLIES;
}

static void
send_reply(const char *raw, int length)
{
	QdbStreamReply reply;
	uint8		buf[QDB_REPLY_MAX_BYTES];
	uint32		len = sizeof(buf);

	reply.epoch = member_conn.link.epoch;
	reply.membership = current_membership();
	reply.incarnation = qdb_shared->identity.incarnation;
	reply.boot = qdb_shared->identity.boot;
	reply.connection = member_conn.link.welcome.connection;
	reply.length = length;
	memcpy(reply.raw, raw, length);
	if (!qdb_reply_encode(&reply, buf, &len))
		elog(ERROR, "could not encode a standby message");
	check_epoch();				/* I2 */
	if (raw[0] == 'r' && length == STANDBY_REPLY_BYTES)
	{
		member_conn.said_flush = get_int64(raw + 9);
		member_conn.said_apply = get_int64(raw + 17);
		member_conn.said_us = qdb_now_us();
		member_conn.asked = false;
		member_conn.postponed_length = 0;
	}
	send_frame(QDB_FRAME_REPLY, buf, len);
}

static int
receiver_receive(WalReceiverConn *conn, char **buffer, pgsocket *wait_fd)
{
	if (!is_ours(conn))
		return (libpq_functions->walrcv_receive) (conn, buffer, wait_fd);

	check_epoch();				/* I2 */
	*wait_fd = qdb_channel_fd(member_conn.link.channel);

	/*
	 * The walreceiver flushes and acks only when nothing more can be read.
	 * Under a steady load that would let acks lag, so pause now and then; the
	 * latch brings it back at once.
	 */
	if (member_conn.since_pause >= FLUSH_AFTER_BYTES)
	{
		member_conn.since_pause = 0;
		SetLatch(MyLatch);
		return 0;
	}
	if (member_conn.postponed_length > 0 &&
		qdb_now_us() - member_conn.window_us >= APPLY_WINDOW_US)
		send_reply(member_conn.postponed, member_conn.postponed_length);
	for (;;)
	{
		int			length = take_message(buffer);

		if (length > 0)
			return length;
		if (member_conn.ended)
			return -1;
		if (!next_stream_frame())
		{
			member_conn.since_pause = 0;
			return 0;
		}
	}
}

static void
receiver_send(WalReceiverConn *conn, const char *buffer, int nbytes)
{
	if (!is_ours(conn))
	{
		(libpq_functions->walrcv_send) (conn, buffer, nbytes);
		return;
	}
	if (nbytes <= 0 || nbytes > QDB_RAW_REPLY_MAX)
		elog(ERROR, "standby message of %d bytes does not fit", nbytes);
	if (is_news(buffer, nbytes))
		send_reply(buffer, nbytes);
	else
	{
		memcpy(member_conn.postponed, buffer, nbytes);
		member_conn.postponed_length = nbytes;
	}
}

static char *
receiver_create_slot(WalReceiverConn *conn, const char *slotname, bool temporary,
					 bool two_phase, CRSSnapshotAction snapshot_action, XLogRecPtr *lsn)
{
	if (!is_ours(conn))
		return (libpq_functions->walrcv_create_slot) (conn, slotname, temporary, two_phase,
													  snapshot_action, lsn);
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot create a replication slot over a member's stream"),
			 errhint("Turn wal_receiver_create_temp_slot off.")));
	return NULL;
}

static pid_t
receiver_get_backend_pid(WalReceiverConn *conn)
{
	return is_ours(conn) ? 0 : (libpq_functions->walrcv_get_backend_pid) (conn);
}

static WalRcvExecResult *
receiver_exec(WalReceiverConn *conn, const char *query, const int nRetTypes, const Oid *retTypes)
{
	if (!is_ours(conn))
		return (libpq_functions->walrcv_exec) (conn, query, nRetTypes, retTypes);
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot run queries over a member's stream")));
	return NULL;
}

/*
 * Last act of the walreceiver, after it has flushed what it wrote: from now on
 * this process neither takes nor acks WAL.
 */
static void
receiver_disconnect(WalReceiverConn *conn)
{
	if (!is_ours(conn))
	{
		(libpq_functions->walrcv_disconnect) (conn);
		return;
	}
	if (member_conn.link.channel != NULL)
		qdb_channel_close(member_conn.link.channel);
	member_conn.link.channel = NULL;
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->receiver_epoch = 0;
	SpinLockRelease(&qdb_shared->mutex);
	qdb_wake_coordinator();
}

static WalReceiverFunctionsType member_functions = {
	receiver_connect,
	receiver_check_conninfo,
	receiver_get_conninfo,
	receiver_get_senderinfo,
	receiver_identify_system,
	receiver_server_version,
	receiver_readtimelinehistoryfile,
	receiver_startstreaming,
	receiver_endstreaming,
	receiver_receive,
	receiver_send,
	receiver_create_slot,
	receiver_get_backend_pid,
	receiver_exec,
	receiver_disconnect
};

/*
 * qdb_install_receiver
 *		In _PG_init of the postmaster.  libpqwalreceiver refuses to load once
 *		the pointer is set, so it comes first; its later load is a no-op.
 */
void
qdb_install_receiver(void)
{
	load_file("libpqwalreceiver", false);
	if (WalReceiverFunctions == NULL)
		elog(ERROR, "libpqwalreceiver didn't initialize correctly");
	libpq_functions = WalReceiverFunctions;
	WalReceiverFunctions = &member_functions;
}

/*
 * qdb_park_receiver
 *		Ask a walreceiver that holds a connection to end; true once none does.
 *
 * The caller has raised promising before, so that no new connection comes up.
 * A walreceiver without one waits in connect and is left alone: it will take
 * the next target at once, without a restart.
 */
bool
qdb_park_receiver(void)
{
	uint64		held;
	pid_t		pid;

	SpinLockAcquire(&qdb_shared->mutex);
	held = qdb_shared->receiver_epoch;
	SpinLockRelease(&qdb_shared->mutex);
	if (held == 0)
		return true;

	SpinLockAcquire(&WalRcv->mutex);
	pid = WalRcv->pid;
	SpinLockRelease(&WalRcv->mutex);
	if (pid != 0)
		kill(pid, SIGTERM);
	return false;
}
