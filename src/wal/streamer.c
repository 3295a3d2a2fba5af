/*-------------------------------------------------------------------------
 *
 * streamer.c
 *		The worker that sends WAL to all replicas and releases commits.
 *
 * It listens whenever this node is a member, and serves only while this boot
 * holds the seat: promoted, epoch record flushed, nothing newer promised; or hands WAL over
 * (donation), or passes on what it streams from the holder (relay).  Any change of
 * that closes every stream.  One loop: wait for the latch (XLogFlush sets it),
 * listeners and streams; take acks; release; send what is flushed.
 *
 * It never writes WAL and takes no lock but state_lock (shared), the mutexes
 * and SyncRepLock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/timeline.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "base/door.h"
#include "wal/serve.h"
#include "wal/streamer.h"

#define LISTEN_RETRY_US			INT64CONST(1000000)
#define IDLE_WAIT_MS			1000	/* no member */
#define TURN_WAIT_MS			200
#define SHOW_US					20000	/* what users see is no older */
#define APPLY_WANTED_US			INT64CONST(10000000)
#define SHUTDOWN_WAIT_MS		10
#define SHUTDOWN_US				INT64CONST(5000000)

QdbSeat		qdb_seat;
QdbStream	qdb_streams[QDB_MAX_STREAMS];
bool		qdb_wait_set_stale = true;

static QdbDoor *door = NULL;
static int64 listen_failed_us = 0;
static WaitEventSet *wait_set = NULL;
static int64 shown_us = 0;
static bool show_due = false;	/* something has changed since */

static void
start_listening(void)
{
	char		why[QDB_REASON_SIZE] = "";
	int64		now = qdb_now_us();

	if (door != NULL || (listen_failed_us != 0 && now - listen_failed_us < LISTEN_RETRY_US))
		return;
	door = qdb_door_open(qdb_listen_addresses, qdb_replication_port, QDB_DOOR_MEMBERS, why, sizeof(why));
	if (door == NULL)
	{
		if (listen_failed_us == 0)
			ereport(LOG,
					(errmsg("[replication] %s", why),
					 errhint("Is another server running on that port? Set quantadb.replication_port or quantadb.listen_addresses, and restart; it is tried again all the time.")));
		listen_failed_us = now;
		return;
	}
	listen_failed_us = 0;
	qdb_wait_set_stale = true;
	ereport(LOG,
			(errmsg("[replication] Listening on port %d", qdb_replication_port)));
}

/* What shared memory and PostgreSQL say about the seat at this moment. */
static void
look_at_seat(QdbSeat *seat)
{
	uint64		promised;
	uint64		promising;
	uint64		donate_epoch;
	QdbSeat		donor = {0};
	TimeLineID	timeline;

	memset(seat, 0, sizeof(*seat));
	SpinLockAcquire(&qdb_shared->mutex);
	seat->epoch = qdb_shared->seat_epoch;
	seat->timeline = qdb_shared->seat_timeline;
	seat->record_end = qdb_shared->epoch_record_end;
	promised = qdb_shared->promised;
	promising = qdb_shared->promising;
	donate_epoch = qdb_shared->donate_epoch;
	donor.epoch = donate_epoch;
	donor.taker = qdb_shared->donate_taker;
	donor.timeline = qdb_shared->donate_timeline;
	donor.flush = qdb_shared->donate_end;
	SpinLockRelease(&qdb_shared->mutex);

	/*
	 * The end of a report is of fsynced WAL (I4), and no receiver writes past
	 * it.
	 */
	if (donate_epoch != 0 && promised == donate_epoch && promising == donate_epoch &&
		RecoveryInProgress())
	{
		*seat = donor;
		return;
	}

	/* I2 for the primary's own ack: it too stands under its promise. */
	if (seat->epoch == 0 || promised != seat->epoch || promising != seat->epoch ||
		RecoveryInProgress())
	{
		seat->epoch = 0;
		return;
	}
	seat->flush = GetFlushRecPtr(&timeline);
	if (timeline != seat->timeline || seat->flush < seat->record_end)
		seat->epoch = 0;
}

/*
 * A replica that streams from the holder itself passes on what it has, under the promise
 * that it has given (I2, I3): all of it the holder had flushed (I4).
 */
static void
look_at_relay(QdbSeat *seat)
{
	uint64		target;
	uint64		target_epoch;
	bool		direct;

	seat->epoch = qdb_followed_epoch(&seat->timeline);
	if (seat->epoch == 0)
		return;
	SpinLockAcquire(&qdb_shared->mutex);
	target = qdb_shared->target_member;
	target_epoch = qdb_shared->target_epoch;
	SpinLockRelease(&qdb_shared->mutex);
	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	direct = qdb_may_relay(qdb_current_grant(&qdb_shared->state), seat->epoch, target_epoch, target);
	LWLockRelease(qdb_shared->state_lock);
	if (!direct)
		seat->epoch = 0;
	seat->relay = direct;
	seat->taker = 0;
	seat->record_end = InvalidXLogRecPtr;
	seat->flush = qdb_followed_flush();
}

static void
refresh_seat(void)
{
	QdbSeat		now;
	MemoryContext old;

	look_at_seat(&now);
	if (now.epoch == 0)
		look_at_relay(&now);
	if (now.epoch == qdb_seat.epoch && now.taker == qdb_seat.taker && now.relay == qdb_seat.relay)
	{
		qdb_seat.flush = now.flush;
		qdb_seat.record_end = now.record_end;
		return;
	}
	for (int i = 0; i < QDB_MAX_STREAMS; i++)
	{
		if (qdb_streams[i].channel != NULL &&
			(qdb_streams[i].member != 0 || qdb_streams[i].serve != NULL))
			qdb_stream_refuse(&qdb_streams[i], true, "the seat of this node has changed");
	}
	qdb_forget_frames();
	list_free_deep(qdb_seat.history);
	qdb_seat = now;
	qdb_seat.history = NIL;
	if (qdb_seat.epoch == 0)
	{
		qdb_walsnd_keep_latch(false);
		return;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	qdb_seat.history = readTimeLineHistory(qdb_seat.timeline);
	MemoryContextSwitchTo(old);
	if (qdb_seat.relay)
		return;
	if (qdb_seat.taker != 0)
		ereport(LOG, (errmsg("[replication] Handing WAL up to %X/%X of timeline %u to %s",
							 LSN_FORMAT_ARGS(qdb_seat.flush), qdb_seat.timeline,
							 qdb_member_label(qdb_seat.taker))));
	else
		ereport(LOG,
				(errmsg("[replication] Serving epoch " UINT64_FORMAT " on timeline %u",
						qdb_seat.epoch, qdb_seat.timeline)));
}

/* By its certificate alone: what it then says it is must fit, too. */
static bool
is_member_now(const QdbChannel *channel)
{
	const QdbPeerCert *cert = qdb_channel_peer(channel);
	const char *why;

	if (cert == NULL || qdb_company_certificates())
		return true;
	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	why = qdb_judge_certificate(&qdb_shared->state, cert, qdb_shared->identity.cluster_id,
								cert->name.member, cert->name.incarnation, cert->name.name);
	LWLockRelease(qdb_shared->state_lock);
	if (why != NULL)
		ereport(LOG, (errmsg("[replication] Refused a connection: %s", why)));
	return why == NULL;
}

/* What was shown of streams to who is no member any more. */
static void
forget_removed(void)
{
	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	SpinLockAcquire(&qdb_shared->mutex);
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		QdbStreamStatus *status = &qdb_shared->streams[i];

		if (status->member != 0 && status->member < qdb_shared->state.next_member_id &&
			qdb_member_by_id(&qdb_shared->state, status->member) == NULL)
			memset(status, 0, sizeof(*status));
	}
	SpinLockRelease(&qdb_shared->mutex);
	LWLockRelease(qdb_shared->state_lock);
}

/*
 * A membership that has lost somebody ends his streams at once, whatever they carry: his
 * certificate is worth nothing any more.
 */
static void
drop_removed(void)
{
	static uint32 known_members = 0;
	static uint64 known_next = 0;
	uint32		nmembers;
	uint64		next;

	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	nmembers = qdb_shared->state.nmembers;
	next = qdb_shared->state.next_member_id;
	LWLockRelease(qdb_shared->state_lock);
	if (nmembers == known_members && next == known_next)
		return;
	known_members = nmembers;
	known_next = next;
	forget_removed();
	for (int i = 0; i < QDB_MAX_STREAMS; i++)
	{
		QdbStream  *stream = &qdb_streams[i];
		bool		gone;

		if (stream->channel == NULL || stream->closing || (stream->member == 0 && stream->serve == NULL))
			continue;
		LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
		gone = stream->member != 0 && stream->member < next &&
			qdb_member_by_id(&qdb_shared->state, stream->member) == NULL;
		LWLockRelease(qdb_shared->state_lock);
		if (gone || !is_member_now(stream->channel))
			qdb_stream_refuse(stream, false, "it was removed from the cluster");
	}
}

static void
accept_streams(void)
{
	QdbChannel *channel;

	qdb_door_turn(door);
	while ((channel = qdb_door_take(door)) != NULL)
	{
		QdbStream  *stream = NULL;

		if (!is_member_now(channel))
		{
			qdb_channel_close(channel);
			continue;
		}
		for (int i = 0; i < QDB_MAX_STREAMS && stream == NULL; i++)
		{
			if (qdb_streams[i].channel == NULL)
				stream = &qdb_streams[i];
		}
		if (stream == NULL)
		{
			qdb_channel_close(channel);
			return;
		}
		qdb_stream_start(stream, channel);
		qdb_wait_set_stale = true;
		/* What came with the end of the handshake wakes nobody again. */
		qdb_stream_read(stream);
	}
}

static uint32
wanted_events(const QdbStream *stream)
{
	return WL_SOCKET_READABLE |
		(stream->frame != NULL || qdb_channel_wants_write(stream->channel) ? WL_SOCKET_WRITEABLE : 0);
}

/* PostgreSQL 15 cannot take a socket out of a set, so a change makes a new one. */
static void
prepare_wait_set(void)
{
	if (!qdb_wait_set_stale)
	{
		for (int i = 0; i < QDB_MAX_STREAMS; i++)
		{
			QdbStream  *stream = &qdb_streams[i];
			uint32		events;

			if (stream->channel == NULL)
				continue;
			events = wanted_events(stream);
			if (events != stream->events)
				ModifyWaitEvent(wait_set, stream->event_position, events, NULL);
			stream->events = events;
		}
		return;
	}
	if (wait_set != NULL)
		FreeWaitEventSet(wait_set);
	wait_set = CreateWaitEventSet(TopMemoryContext, 3 + QDB_MAX_STREAMS);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	if (door != NULL)
		AddWaitEventToSet(wait_set, WL_SOCKET_READABLE, qdb_door_fd(door), NULL, &door);
	for (int i = 0; i < QDB_MAX_STREAMS; i++)
	{
		QdbStream  *stream = &qdb_streams[i];

		if (stream->channel == NULL)
			continue;
		stream->events = wanted_events(stream);
		stream->event_position = AddWaitEventToSet(wait_set, stream->events,
												   qdb_channel_fd(stream->channel), NULL, stream);
	}
	qdb_wait_set_stale = false;
}

static void
handle_events(const WaitEvent *events, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (events[i].events & WL_LATCH_SET)
			continue;
		if (events[i].user_data == &door)
			continue;
		if (((QdbStream *) events[i].user_data)->channel != NULL)
			qdb_stream_read(events[i].user_data);
	}
	/* Also without an event, since deadlines pass. */
	if (door != NULL)
		accept_streams();
}

/* The entry of a member; one of a stream that is gone may be taken over. */
static QdbStreamStatus *
find_status(uint64 member)
{
	QdbStreamStatus *spare = NULL;

	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		QdbStreamStatus *status = &qdb_shared->streams[i];

		if (status->member == member)
			return status;
		if (status->member == 0 && (spare == NULL || spare->member != 0))
			spare = status;
		else if (spare == NULL && !status->streaming)
			spare = status;
	}
	if (spare != NULL)
	{
		memset(spare, 0, sizeof(*spare));
		spare->member = member;
	}
	return spare;
}

/* A connection goes on counting where the member's last one ended. */
static void
count_connection(QdbStream *stream, QdbStreamStatus *status)
{
	if (stream->counted)
		return;
	stream->counted = true;
	stream->earlier_raw = status->bytes_raw;
	stream->earlier_wire = status->bytes_wire;
	if (status->reply_us != 0)
		status->reconnects++;
}

/* Entries outlive their streams, so that reconnects can be counted. */
static void
publish_streams(int64 now)
{
	SpinLockAcquire(&qdb_shared->mutex);
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
		qdb_shared->streams[i].streaming = false;
	for (int i = 0; i < QDB_MAX_STREAMS; i++)
	{
		QdbStream  *stream = &qdb_streams[i];
		QdbStreamStatus *status;

		if (stream->channel == NULL || stream->member == 0)
			continue;
		status = find_status(stream->member);
		if (status == NULL)
			continue;
		count_connection(stream, status);
		status->streaming = stream->streaming;
		status->sent = stream->sent;
		status->write = stream->write;
		status->flush = stream->flush;
		status->apply = stream->apply;
		status->reply_us = stream->reply_us;
		status->apply_lag_us = qdb_lag_now(&stream->apply_lag, now);
		status->bytes_raw = stream->earlier_raw + stream->bytes_raw;
		status->bytes_wire = stream->earlier_wire + qdb_channel_bytes_sent(stream->channel);
	}
	SpinLockRelease(&qdb_shared->mutex);
}

/* What users see is brought up to date now and then, not with every commit. */
static void
show_streams(int64 now)
{
	shown_us = now;
	show_due = false;
	for (int i = 0; i < QDB_MAX_STREAMS; i++)
	{
		if (qdb_streams[i].channel != NULL)
			qdb_walsnd_update(&qdb_streams[i], now);
	}
	publish_streams(now);
}

/* A commit that wants it says so before its WAL is flushed. */
bool
qdb_apply_is_wanted(void)
{
	int64		wanted = (int64) pg_atomic_read_u64(&qdb_shared->apply_wanted_us);

	return wanted != 0 && qdb_now_us() - wanted < APPLY_WANTED_US;
}

/* Sends and ticks all streams; true: go on without waiting. */
static bool
serve_streams(int64 now)
{
	bool		more = false;

	for (int i = 0; i < QDB_MAX_STREAMS; i++)
	{
		QdbStream  *stream = &qdb_streams[i];

		if (stream->channel == NULL)
			continue;
		if (qdb_stream_send(stream))
			more = true;
		if (stream->serve != NULL && qdb_serve_turn(stream, now))
			more = true;
		if (qdb_channel_state(stream->channel) == QDB_CHANNEL_FAILED)
			qdb_stream_close(stream, qdb_channel_error(stream->channel));
		else
			qdb_stream_tick(stream, now);
	}
	return more;
}

/* A relay that nobody streams from need not be woken for each flush. */
static bool
passes_on(void)
{
	for (int i = 0; i < QDB_MAX_STREAMS; i++)
	{
		if (qdb_streams[i].channel != NULL && qdb_streams[i].streaming)
			return true;
	}
	return false;
}

/* One turn, after waiting.  Returns ms to wait at most. */
static int
take_turn(const WaitEvent *events, int n)
{
	int64		now = qdb_now_us();
	bool		stale = qdb_wait_set_stale;
	uint64		epoch = qdb_seat.epoch;
	bool		more;

	/* The seat first: acks that have come are for it or for nothing. */
	refresh_seat();
	qdb_store_refresh();
	drop_removed();
	handle_events(events, n);
	qdb_count_and_release();
	more = serve_streams(now);
	qdb_walsnd_keep_latch(qdb_seat.epoch != 0 && qdb_seat.taker == 0 &&
						  (!qdb_seat.relay || passes_on()));
	qdb_retain_turn(now);

	show_due |= n > 0 || more;
	stale |= qdb_wait_set_stale || epoch != qdb_seat.epoch;
	/* A coordinator that hands over waits for the target's last ack. */
	stale |= show_due && qdb_shared->fenced;
	if (stale || now - shown_us >= (show_due ? SHOW_US : TURN_WAIT_MS * 1000))
		show_streams(now);
	if (more)
		return 0;
	return show_due ? SHOW_US / 1000 : TURN_WAIT_MS;
}

/*
 * At a shutdown all workers are told to end at once, but what the primary has still to hand
 * over goes through here: as long as the coordinator works on it.
 */
static bool
hands_over(void)
{
	static int64 since_us = 0;
	pid_t		coordinator;

	if (since_us == 0)
		since_us = qdb_now_us();
	SpinLockAcquire(&qdb_shared->mutex);
	coordinator = qdb_shared->coordinator_pid;
	SpinLockRelease(&qdb_shared->mutex);
	return qdb_seat.epoch != 0 && qdb_seat.taker == 0 && !qdb_seat.relay && coordinator != 0 && qdb_now_us() - since_us < SHUTDOWN_US;
}

void
qdb_streamer_main(Datum arg)
{
	WaitEvent	events[16];
	int			wait_ms = 0;

	qdb_worker_begin(&qdb_shared->streamer_latch, &qdb_shared->streamer_pid);
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	/*
	 * Postmaster starts this worker when recovery is consistent: WAL can be
	 * scanned now.
	 */
	qdb_wake_coordinator();
	for (int i = 0; i < QDB_MAX_STREAMS; i++)
		qdb_streams[i].walsnd = -1;

	while (!qdb_worker_shutdown_requested() || hands_over())
	{
		int			n;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (qdb_shared->member)
			start_listening();
		prepare_wait_set();
		if (qdb_worker_shutdown_requested())
			wait_ms = Min(wait_ms, SHUTDOWN_WAIT_MS);
		n = WaitEventSetWait(wait_set, qdb_shared->member ? wait_ms : IDLE_WAIT_MS,
							 events, lengthof(events), PG_WAIT_EXTENSION);

		/*
		 * Before the flush position is read, or a flush in between is slept
		 * over.
		 */
		ResetLatch(MyLatch);
		wait_ms = take_turn(events, n);
	}
	qdb_worker_end();
}
