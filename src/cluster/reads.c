/*-------------------------------------------------------------------------
 *
 * reads.c
 *		Strict reads on replicas: what the holder's quorum LSN is now; and how
 *		far this replica is behind.
 *
 * Backends draw tickets.  One question to the holder answers every ticket that
 * was drawn before it left, so many sessions cost one round trip.  The holder
 * answers only while its lease lives, and reads its quorum LSN before it looks
 * at the lease: no later primary has acknowledged anything by then (I9, I14).
 *
 * Process: coordinator.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"

#include "cluster/internal.h"
#include "core/lag.h"

#define ASK_AGAIN_US		(50 * 1000)

static uint64 asked = 0;		/* newest ticket that was sent */
static int64 asked_us = 0;

/* The holder's side. */
void
qdb_receive_read_request(QdbPeer *peer, const QdbFrame *frame)
{
	XLogRecPtr	lsn = pg_atomic_read_u64(&qdb_shared->quorum_lsn);
	QdbRead		read;
	uint8		buf[QDB_PEER_MAX_BYTES];
	uint32		length = sizeof(buf);

	if (!qdb_read_request_decode(frame->payload, frame->length, &read) || !peer->out_up)
		return;
	pg_memory_barrier();		/* the LSN before the lease */
	read.lsn = lsn;
	read.ok = qdb_shared->open_epoch == read.epoch && read.epoch != 0 &&
		pg_atomic_read_u64(&qdb_shared->quorum_epoch) == read.epoch && qdb_lease_alive();
	if (qdb_read_answer_encode(&read, buf, &length))
		(void) qdb_channel_send(peer->out, QDB_FRAME_READ_ANSWER, buf, length);
}

void
qdb_receive_read_answer(QdbPeer *peer, const QdbFrame *frame)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);
	QdbRead		read;

	/* From the holder, of this epoch, and not to a question never asked. */
	if (!qdb_read_answer_decode(frame->payload, frame->length, &read) ||
		grant == NULL || grant->holder != peer->member ||
		grant->boot != peer->boot || grant->epoch != read.epoch || read.ticket > asked)
		return;
	SpinLockAcquire(&qdb_shared->mutex);
	if (read.ticket > qdb_shared->read_answered)
	{
		qdb_shared->read_answered = read.ticket;
		qdb_shared->read_epoch = read.ok ? read.epoch : 0;
		qdb_shared->read_lsn = read.lsn;
	}
	SpinLockRelease(&qdb_shared->mutex);
	if (read.ticket == asked)
		asked_us = 0;
	ConditionVariableBroadcast(&qdb_shared->read_done);
}

static void
ask_holder(void)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);
	uint64		ticket = pg_atomic_read_u64(&qdb_shared->read_ticket);
	uint64		answered;
	QdbRead		read = {.ticket = ticket};
	uint8		buf[QDB_PEER_MAX_BYTES];
	uint32		length = sizeof(buf);

	SpinLockAcquire(&qdb_shared->mutex);
	answered = qdb_shared->read_answered;
	SpinLockRelease(&qdb_shared->mutex);
	if (grant == NULL || ticket <= answered ||
		(asked_us != 0 && qdb_now_us() - asked_us < ASK_AGAIN_US))
		return;
	read.epoch = grant->epoch;
	if (!qdb_read_request_encode(&read, buf, &length) ||
		!qdb_mesh_send(grant->holder, QDB_FRAME_READ_REQUEST, buf, length))
		return;
	asked = ticket;
	asked_us = qdb_now_us();
}

/*
 * Lag against what the holder's heartbeats say.  They come every
 * heartbeat_interval, so time has that resolution; without them it grows.
 */
static void
measure_lag(void)
{
	static QdbLagTracker tracker;
	static uint64 holder = 0;
	static int64 noted_us = 0;
	static int64 level_us = 0;	/* when replay was last level with a heartbeat */
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);
	const QdbPeer *peer = grant != NULL ? qdb_mesh_peer(grant->holder) : NULL;
	XLogRecPtr	replayed = GetXLogReplayRecPtr(NULL);
	int64		now = qdb_now_us();

	if (level_us == 0 || (peer != NULL && holder != peer->member))
	{
		qdb_lag_reset(&tracker);
		holder = peer != NULL ? peer->member : 0;
		level_us = level_us == 0 ? now : level_us;
	}
	if (peer != NULL && peer->heard_us > noted_us && peer->wal_end != 0)
	{
		noted_us = peer->heard_us;
		qdb_lag_sent(&tracker, peer->wal_end, noted_us);
	}
	if (tracker.n > 0 && tracker.samples[0].lsn <= replayed)
	{
		/* The newest of those that replay has come to. */
		for (uint32 i = 0; i < tracker.n && tracker.samples[i].lsn <= replayed; i++)
			level_us = tracker.samples[i].time_us;
		qdb_lag_reached(&tracker, replayed, now);
	}
	if (peer != NULL)
		pg_atomic_write_u64(&qdb_shared->replica_lag_bytes,
							peer->wal_end > replayed ? peer->wal_end - replayed : 0);
	pg_atomic_write_u64(&qdb_shared->replica_level_us, (uint64) level_us);
}

void
qdb_reads_turn(void)
{
	if (!RecoveryInProgress())
		return;
	measure_lag();
	ask_holder();
}
