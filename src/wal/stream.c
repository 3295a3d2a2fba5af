/*-------------------------------------------------------------------------
 *
 * stream.c
 *		One stream to a replica: greeting, history files, WAL, acks.
 *
 * A stream belongs to the seat's epoch; it is closed, and its acks forgotten,
 * when the seat changes, the connection breaks, or the same member connects
 * again.  What a frame says is checked before it is used; a frame that does not
 * fit closes the stream and nothing else.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "port/pg_bswap.h"
#include "replication/walsender.h"
#include "storage/fd.h"

#include "wal/serve.h"
#include "wal/streamer.h"

#define KEEPALIVE_US			INT64CONST(1000000)
#define GREETING_TIMEOUT_US		INT64CONST(10000000)
#define CLOSING_TIMEOUT_US		INT64CONST(2000000)
#define QUEUE_LIMIT_BYTES		(256 * 1024)	/* beside the shared frames */
#define HISTORY_MAX_BYTES		(60 * 1024)
#define STANDBY_REPLY_BYTES		34	/* 'r', four integers, a flag */

static uint64 last_connection = 0;

void
qdb_stream_start(QdbStream *stream, QdbChannel *channel)
{
	memset(stream, 0, sizeof(*stream));
	stream->channel = channel;
	stream->walsnd = -1;
	qdb_lag_reset(&stream->flush_lag);
	qdb_lag_reset(&stream->apply_lag);
	stream->event_position = -1;
	qdb_channel_set_queue_limit(channel, QUEUE_LIMIT_BYTES);
	qdb_channel_set_send_buffer(channel, (size_t) qdb_replication_buffer_kb * 1024);
}

static void
release_frame(QdbStream *stream)
{
	if (stream->frame != NULL)
		stream->frame->refs--;
	stream->frame = NULL;
	stream->frame_sent = 0;
}

void
qdb_stream_close(QdbStream *stream, const char *why)
{
	if (stream->member != 0 && why != NULL)
		ereport(LOG,
				(errmsg("[replication] Stream to %s closed: %s",
						qdb_member_label(stream->member), why)));
	release_frame(stream);
	qdb_serve_end(stream);
	qdb_walsnd_free(stream->walsnd);
	qdb_channel_close(stream->channel);
	qdb_wait_set_stale = true;
	memset(stream, 0, sizeof(*stream));
	stream->walsnd = -1;
}

bool
qdb_stream_has_member(uint64 member, const QdbStream *except)
{
	for (int i = 0; i < QDB_MAX_STREAMS; i++)
	{
		if (&qdb_streams[i] != except && qdb_streams[i].channel != NULL &&
			qdb_streams[i].member == member)
			return true;
	}
	return false;
}

void
qdb_stream_refuse(QdbStream *stream, bool retry, const char *fmt,...)
{
	QdbStreamRefusal refusal = {.retry = retry};
	uint8		buf[QDB_REASON_SIZE + 16];
	uint32		len = sizeof(buf);
	va_list		args;

	va_start(args, fmt);
	vsnprintf(refusal.text, sizeof(refusal.text), fmt, args);
	va_end(args);
	if (stream->member != 0 || !retry)
		ereport(LOG,
				(errmsg("[replication] Refused %s: %s",
						stream->member != 0 ? qdb_member_label(stream->member) : "a connection", refusal.text)));
	/* A frame that is under way has to end first. */
	if (stream->frame != NULL)
		(void) qdb_channel_queue_rest(stream->channel, stream->frame->bytes + stream->frame_sent,
									  stream->frame->length - stream->frame_sent);
	release_frame(stream);
	if (qdb_refusal_encode(&refusal, buf, &len))
		qdb_channel_send(stream->channel, QDB_FRAME_STREAM_REFUSED, buf, len);
	/* Its acks end here; the connection once the refusal is out. */
	stream->member = 0;
	stream->flush = stream->apply = InvalidXLogRecPtr;
	stream->streaming = false;
	stream->closing = true;
	stream->closing_us = qdb_now_us();
}

/* Who it is, against the replicated state; false: refused. */
static bool
check_identity(QdbStream *stream, const QdbStreamHello *hello)
{
	const QdbMember *member;
	const char *why;
	bool		same_cluster;
	bool		known;
	bool		relayed;		/* where this node passes WAL on */

	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	member = qdb_member_by_id(&qdb_shared->state, hello->member);
	why = qdb_judge_certificate(&qdb_shared->state, qdb_channel_peer(stream->channel),
								qdb_shared->identity.cluster_id, hello->member, hello->incarnation,
								member != NULL ? member->name : "");
	same_cluster = strcmp(hello->cluster_id, qdb_shared->state.cluster_id) == 0;
	known = member != NULL && member->incarnation == hello->incarnation &&
		hello->member != qdb_shared->identity.member;
	relayed = qdb_relay_serves(qdb_seat.epoch, hello->epoch, member);
	LWLockRelease(qdb_shared->state_lock);

	if (hello->version != QDB_STREAM_VERSION)
		qdb_stream_refuse(stream, false, "stream protocol version %u is not %d; run the same version",
						  hello->version, QDB_STREAM_VERSION);
	else if (why != NULL)
		qdb_stream_refuse(stream, false, "%s", why);
	else if (!same_cluster || hello->system_identifier != GetSystemIdentifier())
		qdb_stream_refuse(stream, false, "this node belongs to another cluster");
	else if (qdb_seat.epoch == 0)
		qdb_stream_refuse(stream, true, "this node is not the primary");
	else if (qdb_seat.relay && !relayed)
		qdb_stream_refuse(stream, true, "this node is not the primary and passes on WAL of epoch "
						  UINT64_FORMAT " only, to replicas without a vote", qdb_seat.epoch);
	else if (hello->epoch != qdb_seat.epoch)
		qdb_stream_refuse(stream, true, "this node is the primary of epoch " UINT64_FORMAT
						  ", not of " UINT64_FORMAT, qdb_seat.epoch, hello->epoch);
	else if (qdb_seat.taker != 0 && qdb_seat.taker != hello->member)
		qdb_stream_refuse(stream, true, "this node is not the primary");
	else if (!known)
		/* A membership that we have not applied yet may name it. */
		qdb_stream_refuse(stream, true, "no member " UINT64_FORMAT " with this incarnation",
						  hello->member);
	else
		return true;
	return false;
}

/*
 * I3: acks of this connection start at its replay position, so that has to lie
 * on our history.
 */
static bool
check_history(QdbStream *stream, TimeLineID timeline, XLogRecPtr lsn)
{
	XLogRecPtr	limit = qdb_seat.flush;

	if (!tliInHistory(timeline, qdb_seat.history))
	{
		qdb_stream_refuse(stream, false, "timeline %u is not in the history of timeline %u; rewind or re-clone",
						  timeline, qdb_seat.timeline);
		return false;
	}
	if (timeline != qdb_seat.timeline)
		limit = tliSwitchPoint(timeline, qdb_seat.history, NULL);
	if (lsn > limit && qdb_seat.relay)
	{
		/* It may have got that from the holder, and we get it too. */
		qdb_stream_refuse(stream, true, "%X/%X on timeline %u has not come to this node yet, it has %X/%X",
						  LSN_FORMAT_ARGS(lsn), timeline, LSN_FORMAT_ARGS(limit));
		return false;
	}
	if (lsn > limit)
	{
		qdb_stream_refuse(stream, false, "%X/%X on timeline %u is past the primary's %X/%X; rewind or re-clone",
						  LSN_FORMAT_ARGS(lsn), timeline, LSN_FORMAT_ARGS(limit));
		return false;
	}
	return true;
}

/* A member has one stream: the newer boot, or of the same boot the newer connection. */
static bool
replace_older(QdbStream *stream, const QdbStreamHello *hello)
{
	for (int i = 0; i < QDB_MAX_STREAMS; i++)
	{
		QdbStream  *other = &qdb_streams[i];

		if (other == stream || other->channel == NULL || other->member != hello->member)
			continue;
		if (other->boot > hello->boot)
		{
			qdb_stream_refuse(stream, false, "a later boot of this member is connected");
			return false;
		}
		qdb_stream_refuse(other, false, "replaced by a newer connection");
	}
	return true;
}

/*
 * Does this node get the seat of that epoch, as far as it knows?  Followers hear of a
 * seat before its holder has promoted.
 */
static bool
seat_is_coming(uint64 epoch)
{
	const QdbState *state = &qdb_shared->state;
	const QdbGrant *grant;
	bool		coming;

	if (qdb_seat.epoch != 0 && !qdb_seat.relay)
		return false;
	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	grant = qdb_current_grant(state);
	coming = epoch > state->epoch ||
		(epoch == state->epoch && grant != NULL && !grant->opened &&
		 grant->holder == qdb_shared->identity.member && grant->boot == qdb_shared->identity.boot);
	LWLockRelease(qdb_shared->state_lock);
	return coming;
}

static void
greet(QdbStream *stream, const QdbStreamHello *hello)
{
	QdbStreamWelcome welcome;
	uint8		buf[64];
	uint32		len = sizeof(buf);

	if (!check_identity(stream, hello) ||
		!check_history(stream, hello->replay_timeline, hello->replay_lsn) ||
		!replace_older(stream, hello))
		return;

	if (last_connection == 0)
		last_connection = (uint64) qdb_unix_us();
	stream->member = hello->member;
	stream->incarnation = hello->incarnation;
	stream->boot = hello->boot;
	stream->verified = hello->replay_lsn;
	stream->connection = ++last_connection;

	welcome.system_identifier = GetSystemIdentifier();
	welcome.epoch = qdb_seat.epoch;
	welcome.timeline = qdb_seat.timeline;
	welcome.flush = qdb_seat.flush;
	welcome.connection = stream->connection;
	if (qdb_welcome_encode(&welcome, buf, &len))
		qdb_channel_send(stream->channel, QDB_FRAME_STREAM_WELCOME, buf, len);
}

/* One that is early waits, or the next attempt costs what the first one did. */
static void
handle_hello(QdbStream *stream, const QdbFrame *frame)
{
	QdbStreamHello hello;

	if (stream->member != 0 || stream->early || stream->serve != NULL ||
		!qdb_hello_decode(frame->payload, frame->length, &hello))
		qdb_stream_refuse(stream, false, "malformed greeting");
	else if (hello.version == QDB_STREAM_VERSION && seat_is_coming(hello.epoch))
	{
		stream->early = true;
		stream->hello = hello;
	}
	else
		greet(stream, &hello);
}

/* Reads a history file whole; -1: errno says why not. */
static int
read_history_file(TimeLineID timeline, char *buf, size_t size)
{
	char		path[MAXPGPATH];
	int			fd;
	int			got;
	int			save_errno;

	TLHistoryFilePath(path, timeline);
	fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		return -1;
	got = read(fd, buf, size);
	save_errno = errno;
	close(fd);
	errno = save_errno;
	return got;
}

/*
 * handle_history_request
 *		Answers with a history file, or with a placeholder for a number that was
 *		never part of our history.
 *
 * A walreceiver asks for every number between its own timeline and ours.  The
 * grant of an epoch that nobody opened leaves one that has no file, and whoever
 * still has one from that epoch must not spread it.
 */
static void
handle_history_request(QdbStream *stream, const QdbFrame *frame)
{
	static char content[HISTORY_MAX_BYTES + 1];
	static uint8 buf[HISTORY_MAX_BYTES + 256];
	QdbHistoryFile history = {.content = (const uint8 *) content};
	TimeLineID	timeline;
	uint32		size = sizeof(buf);
	int			length;

	if (!qdb_history_request_decode(frame->payload, frame->length, &timeline) || timeline <= 1 || timeline > qdb_seat.timeline)
	{
		qdb_stream_refuse(stream, false, "no history file of timeline %u", timeline);
		return;
	}
	if (tliInHistory(timeline, qdb_seat.history))
		length = read_history_file(timeline, content, sizeof(content));
	else
		length = snprintf(content, sizeof(content), "%s", QDB_PLACEHOLDER);
	if (length < 0 || length > HISTORY_MAX_BYTES)
	{
		qdb_stream_refuse(stream, false, "could not read the history file of timeline %u: %s",
						  timeline, length < 0 ? strerror(errno) : "too long");
		return;
	}
	TLHistoryFileName(history.name, timeline);
	history.length = (uint32) length;
	if (!qdb_history_encode(&history, buf, &size) || !qdb_channel_send(stream->channel, QDB_FRAME_HISTORY, buf, size))
		qdb_stream_refuse(stream, true, "could not send the history file of timeline %u", timeline);
}

static void
end_timeline(QdbStream *stream)
{
	uint8		buf[16];
	uint32		len = sizeof(buf);

	if (qdb_position_encode(stream->next_timeline, stream->valid_upto, buf, &len) &&
		qdb_channel_send(stream->channel, QDB_FRAME_END_OF_TIMELINE, buf, len))
		stream->streaming = false;
}

static void
handle_start(QdbStream *stream, const QdbFrame *frame)
{
	uint32		timeline;
	uint64		lsn;

	if (!qdb_position_decode(frame->payload, frame->length, &timeline, &lsn) || lsn == 0)
	{
		qdb_stream_refuse(stream, false, "malformed start");
		return;
	}
	if (!check_history(stream, timeline, lsn))
		return;
	stream->timeline = timeline;
	stream->historic = timeline != qdb_seat.timeline;
	stream->next_timeline = 0;
	stream->valid_upto = InvalidXLogRecPtr;
	if (stream->historic)
		stream->valid_upto = tliSwitchPoint(timeline, qdb_seat.history, &stream->next_timeline);
	stream->sent = lsn;
	qdb_lag_reset(&stream->flush_lag);
	qdb_lag_reset(&stream->apply_lag);
	stream->streaming = true;
	stream->reply_us = qdb_now_us();
	if (stream->walsnd < 0 && qdb_seat.taker == 0)
		stream->walsnd = qdb_walsnd_claim();
	ereport(LOG,
			(errmsg("[replication] Streaming to %s from %X/%X on timeline %u",
					qdb_member_label(stream->member), LSN_FORMAT_ARGS(lsn), timeline)));

	/*
	 * It has replayed all of that timeline; the next one's first segment
	 * begins with the same bytes.  They would only be sent twice.
	 */
	if (stream->historic && stream->verified >= stream->valid_upto &&
		lsn / wal_segment_size == stream->valid_upto / wal_segment_size)
		end_timeline(stream);
}

static uint64
get_int64(const uint8 *p)
{
	uint64		v;

	memcpy(&v, p, sizeof(v));
	return pg_ntoh64(v);
}

static void
handle_reply(QdbStream *stream, const QdbFrame *frame)
{
	QdbStreamReply reply;
	QdbAckName	ack_name;
	QdbAckName	stream_name;
	XLogRecPtr	limit = Max(stream->sent, stream->verified);
	uint64		membership;
	int64		now = qdb_now_us();

	if (!qdb_reply_decode(frame->payload, frame->length, &reply) ||
		(reply.raw[0] == 'r' && reply.length != STANDBY_REPLY_BYTES))
	{
		qdb_stream_refuse(stream, false, "malformed reply");
		return;
	}
	if (reply.raw[0] != 'r')
		return;					/* feedback: replay on members is not held
								 * back for it */

	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	membership = qdb_shared->state.membership;
	LWLockRelease(qdb_shared->state_lock);

	/* Only what names this epoch, this boot and a membership that we know. */
	stream_name = (QdbAckName)
	{
		qdb_seat.epoch, stream->incarnation, stream->boot, stream->connection
	};
	ack_name = (QdbAckName)
	{
		reply.epoch, reply.incarnation, reply.boot, reply.connection
	};
	if (!qdb_ack_counts(&ack_name, reply.membership, &stream_name, membership))
		return;

	/* I3: nothing counts past what was sent or verified here. */
	stream->write = Max(stream->write, Min(get_int64(reply.raw + 1), limit));
	stream->flush = Max(stream->flush, Min(get_int64(reply.raw + 9), limit));
	stream->apply = Max(stream->apply, Min(get_int64(reply.raw + 17), limit));
	stream->reply_us = now;
	qdb_lag_reached(&stream->flush_lag, stream->flush, now);
	qdb_lag_reached(&stream->apply_lag, stream->apply, now);
	if (reply.raw[33] != 0)
		stream->keepalive_us = 0;
}

void
qdb_stream_read(QdbStream *stream)
{
	QdbFrame	frame;

	qdb_channel_drive(stream->channel);
	while (!stream->closing && qdb_channel_receive(stream->channel, &frame))
	{
		if (frame.type == QDB_FRAME_STREAM_HELLO)
			handle_hello(stream, &frame);
		else if (frame.type == QDB_FRAME_FILES_HELLO)
			qdb_serve_hello(stream, &frame);
		else if (frame.type == QDB_FRAME_FILES_REQUEST && stream->serve != NULL)
			qdb_serve_request(stream, &frame);
		else if (stream->member == 0)
			qdb_stream_refuse(stream, false, "greeting expected");
		else if (frame.type == QDB_FRAME_HISTORY_REQUEST)
			handle_history_request(stream, &frame);
		else if (frame.type == QDB_FRAME_START)
			handle_start(stream, &frame);
		else if (frame.type == QDB_FRAME_REPLY)
			handle_reply(stream, &frame);
		else
			qdb_stream_refuse(stream, false, "unexpected frame of type %d", frame.type);
	}
	if (qdb_channel_state(stream->channel) == QDB_CHANNEL_FAILED)
		qdb_stream_close(stream, qdb_channel_error(stream->channel));
}

static void
note_sent(QdbStream *stream, XLogRecPtr end)
{
	stream->bytes_raw += end - stream->sent;
	stream->sent = end;
	stream->keepalive_us = qdb_now_us();
	qdb_lag_sent(&stream->flush_lag, end, stream->keepalive_us);
	qdb_lag_sent(&stream->apply_lag, end, stream->keepalive_us);
}

/* Takes the frame at the stream's position; false: nothing to send, or refused. */
static bool
next_frame(QdbStream *stream)
{
	XLogRecPtr	upto = stream->historic ? stream->valid_upto : qdb_seat.flush;	/* I4 */
	char		why[QDB_REASON_SIZE] = "";

	if (!stream->streaming)
		return false;
	if (stream->sent >= upto)
	{
		if (stream->historic)
			end_timeline(stream);
		return false;
	}
	stream->frame = qdb_get_wal_frame(stream->timeline, stream->sent, upto, why);
	if (stream->frame == NULL && qdb_seat.relay)
	{
		/* The holder keeps WAL for all, this node need not have it. */
		qdb_stream_refuse(stream, true, "WAL from %X/%X on is not on this node", LSN_FORMAT_ARGS(stream->sent));
		return false;
	}
	if (stream->frame == NULL)
	{
		qdb_stream_refuse(stream, false, "%s", why);
		return false;
	}
	stream->frame->refs++;
	stream->frame_sent = 0;
	note_sent(stream, stream->frame->end);
	return true;
}

bool
qdb_stream_send(QdbStream *stream)
{
	size_t		budget = (size_t) qdb_replication_buffer_kb * 1024;
	size_t		taken = 0;

	while (taken < budget)
	{
		XLogRecPtr	before = stream->sent;

		if (qdb_channel_queued(stream->channel) > 0)
			return false;
		if (stream->frame == NULL && !next_frame(stream))
			return false;
		stream->frame_sent += qdb_channel_write(stream->channel,
												stream->frame->bytes + stream->frame_sent,
												stream->frame->length - stream->frame_sent);
		/* The connection is full; a failed one is closed by the caller. */
		if (stream->frame_sent < stream->frame->length)
			return false;
		release_frame(stream);
		taken += stream->sent - before;
	}
	return true;
}

/* Several within wal_sender_timeout, which counts from a reply: an idle stream has no others. */
static int64
keepalive_interval_us(void)
{
	int64		quarter = wal_sender_timeout * INT64CONST(250);

	return quarter > 0 ? Min(KEEPALIVE_US, quarter) : KEEPALIVE_US;
}

void
qdb_stream_tick(QdbStream *stream, int64 now)
{
	uint8		buf[64];

	if (stream->closing)
	{
		if (qdb_channel_queued(stream->channel) == 0 || now - stream->closing_us > CLOSING_TIMEOUT_US)
			qdb_stream_close(stream, NULL);
		return;
	}
	if (stream->serve != NULL)
		return;
	if (stream->early && !seat_is_coming(stream->hello.epoch))
	{
		stream->early = false;
		greet(stream, &stream->hello);
		return;
	}
	if (stream->member == 0)
	{
		if (now - qdb_channel_created_us(stream->channel) > GREETING_TIMEOUT_US)
			qdb_stream_close(stream, NULL);
		return;
	}
	if (!stream->streaming)
		return;
	if (wal_sender_timeout > 0 && now - stream->reply_us > (int64) wal_sender_timeout * 1000)
	{
		qdb_stream_close(stream, "no reply in time");
		return;
	}
	if (now - stream->keepalive_us >= keepalive_interval_us() && stream->frame == NULL &&
		qdb_channel_queued(stream->channel) == 0)
	{
		uint32		length = qdb_put_keepalive(buf, sizeof(buf), stream->sent, true);

		qdb_channel_send(stream->channel, QDB_FRAME_WAL, buf, length);
		stream->keepalive_us = now;
	}
}
