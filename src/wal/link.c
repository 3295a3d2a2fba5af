/*-------------------------------------------------------------------------
 *
 * link.c
 *		How a receiver finds and greets the primary.
 *
 * The target is looked up anew for each attempt, so that a new primary needs no
 * reload and no restart of the walreceiver.  What passes by itself (nobody
 * listens yet, the seat is not open yet) is tried again here: an ERROR would
 * cost wal_retrieve_retry_interval in the startup process.
 *
 * Until the handshake is done nothing is held: receiver_epoch is set as the last
 * step, under the mutex and only if target and promise are still the same (I2).
 * An interrupt before that leaves nothing behind but a socket of a dying process.
 *
 * Process: walreceiver.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/walreceiver.h"

#include "wal/receiver.h"

#define TARGET_POLL_MS			20	/* no target yet */
#define RETRY_MS				50	/* an attempt failed */
#define CONNECT_TIMEOUT_US		INT64CONST(5000000)

typedef enum LinkResult
{
	LINK_UP,
	LINK_AGAIN,					/* may pass by itself */
	LINK_REFUSED				/* will not */
} LinkResult;

void
qdb_note_refusal(const char *text)
{
	char		copy[QDB_REASON_SIZE];

	strlcpy(copy, text, sizeof(copy));
	SpinLockAcquire(&qdb_shared->mutex);
	memcpy(qdb_shared->receiver_refusal, copy, sizeof(copy));
	SpinLockRelease(&qdb_shared->mutex);
}

void
qdb_link_wait(QdbChannel *channel, int timeout_ms)
{
	int			events = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH;
	int			fd = channel != NULL ? qdb_channel_fd(channel) : PGINVALID_SOCKET;

	if (fd != PGINVALID_SOCKET)
	{
		events |= WL_SOCKET_READABLE;
		if (qdb_channel_wants_write(channel))
			events |= WL_SOCKET_WRITEABLE;
	}
	if (WaitLatchOrSocket(MyLatch, events, fd, timeout_ms, PG_WAIT_EXTENSION) & WL_LATCH_SET)
		ResetLatch(MyLatch);
}

/* Copies the target; false when there is none under the promised epoch. */
static bool
read_target(QdbReceiverLink *link)
{
	bool		valid;

	SpinLockAcquire(&qdb_shared->mutex);
	valid = qdb_shared->target_epoch != 0 &&
		qdb_shared->promising == qdb_shared->target_epoch &&
		qdb_shared->promised == qdb_shared->target_epoch;
	link->epoch = qdb_shared->target_epoch;
	link->member = qdb_shared->target_member;
	link->port = qdb_shared->target_port;
	memcpy(link->host, qdb_shared->target_host, sizeof(link->host));
	SpinLockRelease(&qdb_shared->mutex);
	link->host[sizeof(link->host) - 1] = '\0';
	return valid && link->member != qdb_shared->identity.member && link->host[0] != '\0';
}

/* Is the target still the one that this link was started for? */
static bool
same_target(const QdbReceiverLink *link)
{
	QdbReceiverLink now;

	return read_target(&now) && now.epoch == link->epoch && now.member == link->member;
}

/* I2: the step that makes the link one that WAL may come through. */
static bool
hold_link(const QdbReceiverLink *link)
{
	bool		held;

	SpinLockAcquire(&qdb_shared->mutex);
	held = qdb_shared->target_epoch == link->epoch &&
		qdb_shared->target_member == link->member &&
		qdb_shared->promising == link->epoch &&
		qdb_shared->promised == link->epoch;
	if (held)
	{
		qdb_shared->receiver_epoch = link->epoch;
		qdb_shared->receiver_member = link->member;
	}
	SpinLockRelease(&qdb_shared->mutex);
	return held;
}

/* Is this the member that we want, by its certificate? */
static bool
is_target(const QdbReceiverLink *link, char *why)
{
	const QdbMember *member;
	const char *complaint = "it is no member any more";

	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	member = qdb_member_by_id(&qdb_shared->state, link->member);
	if (member != NULL)
		complaint = qdb_judge_certificate(&qdb_shared->state, qdb_channel_peer(link->channel),
										  qdb_shared->identity.cluster_id, link->member,
										  member->incarnation, member->name);
	LWLockRelease(qdb_shared->state_lock);
	if (complaint != NULL)
		strlcpy(why, complaint, QDB_REASON_SIZE);
	return complaint == NULL;
}

static bool
send_hello(const QdbReceiverLink *link)
{
	QdbStreamHello hello;
	uint8		buf[QDB_HELLO_MAX_BYTES];
	uint32		len = sizeof(buf);

	memset(&hello, 0, sizeof(hello));
	hello.version = QDB_STREAM_VERSION;
	strlcpy(hello.cluster_id, qdb_shared->identity.cluster_id, sizeof(hello.cluster_id));
	hello.member = qdb_shared->identity.member;
	hello.incarnation = qdb_shared->identity.incarnation;
	hello.boot = qdb_shared->identity.boot;
	hello.epoch = link->epoch;
	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	hello.membership = qdb_shared->state.membership;
	LWLockRelease(qdb_shared->state_lock);
	hello.system_identifier = GetSystemIdentifier();
	/* The walreceiver's first ack is the replay position. */
	hello.replay_lsn = GetXLogReplayRecPtr(&hello.replay_timeline);
	SpinLockAcquire(&qdb_shared->mutex);
	hello.wal_end = qdb_shared->wal_end;
	SpinLockRelease(&qdb_shared->mutex);
	return qdb_hello_encode(&hello, buf, &len) &&
		qdb_channel_send(link->channel, QDB_FRAME_STREAM_HELLO, buf, len);
}

/* The answer to the hello, from a frame that has arrived. */
static LinkResult
read_answer(QdbReceiverLink *link, const QdbFrame *frame, char *why)
{
	QdbStreamRefusal refusal;

	if (frame->type == QDB_FRAME_STREAM_REFUSED &&
		qdb_refusal_decode(frame->payload, frame->length, &refusal))
	{
		strlcpy(why, refusal.text, QDB_REASON_SIZE);
		return refusal.retry ? LINK_AGAIN : LINK_REFUSED;
	}
	if (frame->type != QDB_FRAME_STREAM_WELCOME ||
		!qdb_welcome_decode(frame->payload, frame->length, &link->welcome))
	{
		strlcpy(why, "unexpected answer to the greeting", QDB_REASON_SIZE);
		return LINK_REFUSED;
	}
	if (link->welcome.epoch != link->epoch)
	{
		snprintf(why, QDB_REASON_SIZE, "it is in epoch " UINT64_FORMAT, link->welcome.epoch);
		return LINK_AGAIN;
	}
	if (!hold_link(link))
	{
		strlcpy(why, "a newer epoch has begun", QDB_REASON_SIZE);
		return LINK_AGAIN;
	}
	return LINK_UP;
}

/* One attempt: connect, greet, wait for the answer. */
static LinkResult
try_link(QdbReceiverLink *link, char *why)
{
	int64		deadline = qdb_now_us() + CONNECT_TIMEOUT_US;
	bool		greeted = false;
	QdbFrame	frame;

	for (;;)
	{
		ProcessWalRcvInterrupts();
		if (!same_target(link))
		{
			strlcpy(why, "the target has changed", QDB_REASON_SIZE);
			return LINK_AGAIN;
		}
		qdb_channel_drive(link->channel);
		if (!greeted && qdb_channel_state(link->channel) == QDB_CHANNEL_UP && !is_target(link, why))
			return LINK_AGAIN;
		if (!greeted && qdb_channel_state(link->channel) == QDB_CHANNEL_UP)
			greeted = send_hello(link);
		if (greeted && qdb_channel_receive(link->channel, &frame))
			return read_answer(link, &frame, why);
		if (qdb_channel_state(link->channel) == QDB_CHANNEL_FAILED)
		{
			strlcpy(why, qdb_channel_error(link->channel), QDB_REASON_SIZE);
			return LINK_AGAIN;
		}
		if (qdb_now_us() > deadline)
		{
			strlcpy(why, "timed out", QDB_REASON_SIZE);
			return LINK_AGAIN;
		}
		qdb_link_wait(link->channel, 50);
	}
}

bool
qdb_link_connect(QdbReceiverLink *link, char **err)
{
	char		why[QDB_REASON_SIZE] = "";
	char		last[QDB_REASON_SIZE] = "";
	LinkResult	result;

	for (;;)
	{
		ProcessWalRcvInterrupts();
		if (read_target(link))
		{
			link->channel = qdb_channel_connect(link->host, link->port);
			if (link->channel == NULL)
			{
				*err = pstrdup("out of memory");
				return false;
			}
			result = try_link(link, why);
			if (result == LINK_UP)
				return true;
			qdb_channel_close(link->channel);
			link->channel = NULL;
			qdb_note_refusal(why);
			if (result == LINK_REFUSED)
			{
				*err = psprintf("%s at %s:%d: %s",
								qdb_member_label(link->member), link->host, link->port, why);
				return false;
			}
			if (strcmp(why, last) != 0)
				ereport(LOG,
						(errmsg("[replication] No stream yet from %s at %s:%d: %s",
								qdb_member_label(link->member), link->host, link->port, why)));
			strlcpy(last, why, sizeof(last));
		}
		qdb_link_wait(NULL, link->epoch != 0 && last[0] != '\0' ? RETRY_MS : TARGET_POLL_MS);
	}
}
