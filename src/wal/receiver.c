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
#include "replication/walreceiver.h"
#include "utils/memutils.h"

#include "base/base.h"
#include "base/channel.h"
#include "wal/messages.h"
#include "wal/receiver.h"
#include "wal/wal.h"

/* After this many bytes the walreceiver is made to flush and ack. */
#define FLUSH_AFTER_BYTES		(1024 * 1024)
/* A history request that is not answered. */
#define ANSWER_TIMEOUT_US		INT64CONST(10000000)

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
} MemberConn;

static WalReceiverFunctionsType *libpq_functions = NULL;

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
	QdbWriter	w = {.buf = request,.size = sizeof(request)};
	QdbFrame	frame;
	QdbReader	r;
	char		name[QDB_HISTORY_NAME_SIZE];
	uint32		length;
	const uint8_t *bytes;

	if (!is_ours(conn))
	{
		(libpq_functions->walrcv_readtimelinehistoryfile) (conn, tli, filename, content, size);
		return;
	}
	qdb_put_u32(&w, tli);
	send_frame(QDB_FRAME_HISTORY_REQUEST, request, w.used);
	wait_for_frame(QDB_FRAME_HISTORY, &frame);

	r = (QdbReader)
	{
		.buf = frame.payload,.size = frame.length
	};
	qdb_get_string(&r, name, sizeof(name));
	length = qdb_get_u32(&r);
	bytes = qdb_get_bytes(&r, length);
	if (bytes == NULL || !qdb_reader_done(&r))
		report_protocol_violation(frame.type);
	check_epoch();				/* I2: a history file steers recovery too */
	*filename = pstrdup(name);
	*content = palloc(length + 1);
	memcpy(*content, bytes, length);
	(*content)[length] = '\0';
	*size = length;
}

static bool
receiver_startstreaming(WalReceiverConn *conn, const WalRcvStreamOptions *options)
{
	uint8		buf[16];
	uint32		len = sizeof(buf);

	if (!is_ours(conn))
		return (libpq_functions->walrcv_startstreaming) (conn, options);

	check_epoch();
	member_conn.ended = false;
	member_conn.next_timeline = 0;
	member_conn.rest_length = 0;
	member_conn.since_pause = 0;
	if (!qdb_position_encode(options->proto.physical.startpointTLI, options->startpoint, buf, &len))
		elog(ERROR, "could not encode a start position");
	send_frame(QDB_FRAME_START, buf, len);

	/* No slot: the primary keeps WAL for its members itself. */
	if (!member_conn.announced)
	{
		member_conn.announced = true;
		qdb_note_refusal("");
		ereport(LOG,
				(errmsg("[replication] Stream connected to primary"),
				 errdetail("Member " UINT64_FORMAT " at %s:%d, epoch " UINT64_FORMAT
						   ", timeline %u, from %X/%X.",
						   member_conn.link.member, member_conn.link.host, member_conn.link.port,
						   member_conn.link.epoch, options->proto.physical.startpointTLI,
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
	QdbReader	r = {.buf = member_conn.rest,.size = member_conn.rest_length};
	uint32		length;
	const uint8_t *bytes;

	if (member_conn.rest_length == 0)
		return 0;
	length = qdb_get_u32(&r);
	bytes = (r.failed || length == 0) ? NULL : qdb_get_bytes(&r, length);
	if (bytes == NULL)
		report_protocol_violation(QDB_FRAME_WAL);
	member_conn.rest += r.pos;
	member_conn.rest_length -= r.pos;
	member_conn.since_pause += length;
	*buffer = (char *) bytes;
	return (int) length;
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
			member_conn.rest = frame.payload;
			member_conn.rest_length = frame.length;
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

static uint64
current_membership(void)
{
	uint64		membership;

	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	membership = qdb_shared->state.membership;
	LWLockRelease(qdb_shared->state_lock);
	return membership;
}

static void
receiver_send(WalReceiverConn *conn, const char *buffer, int nbytes)
{
	QdbStreamReply reply;
	uint8		buf[QDB_REPLY_MAX_BYTES];
	uint32		len = sizeof(buf);

	if (!is_ours(conn))
	{
		(libpq_functions->walrcv_send) (conn, buffer, nbytes);
		return;
	}
	if (nbytes <= 0 || nbytes > QDB_RAW_REPLY_MAX)
		elog(ERROR, "standby message of %d bytes does not fit", nbytes);

	reply.epoch = member_conn.link.epoch;
	reply.membership = current_membership();
	reply.incarnation = qdb_shared->identity.incarnation;
	reply.boot = qdb_shared->identity.boot;
	reply.connection = member_conn.link.welcome.connection;
	reply.length = nbytes;
	memcpy(reply.raw, buffer, nbytes);
	if (!qdb_reply_encode(&reply, buf, &len))
		elog(ERROR, "could not encode a standby message");
	check_epoch();				/* I2 */
	send_frame(QDB_FRAME_REPLY, buf, len);
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
