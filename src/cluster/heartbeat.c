/*-------------------------------------------------------------------------
 *
 * heartbeat.c
 *		What a node tells every other one, and what it remembers of them.
 *
 * A heartbeat of the primary asks for a lease; the answer is a heartbeat too,
 * sent at once, which echoes the time of the asking.  That time is of the
 * primary's own clock, so no two clocks are ever compared (I9).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"

#include "base/status.h"
#include "cluster/internal.h"

#define CAUGHT_UP_BYTES		(1024 * 1024)

static int64 next_beat_us = 0;

/* When this node last heard the seat's holder; 0 never. */
static int64
primary_heard(void)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);
	QdbPeer    *peer;

	if (qdb_co.state->ngrants > 0 && grant == NULL)
		grant = &qdb_co.state->grants[qdb_co.state->ngrants - 1];
	if (grant == NULL)
		return 0;
	if (qdb_grant_is_ours(grant))
		return qdb_co.now_us;
	peer = qdb_mesh_peer(grant->holder);
	return peer != NULL && peer->boot == grant->boot ? peer->heard_us : 0;
}

/* Learners whose flush position is near the primary's; the holder knows. */
static uint32
collect_caught_up(uint64 *ids)
{
	uint32		n = 0;
	XLogRecPtr	end;

	if (qdb_shared->seat_epoch == 0 || RecoveryInProgress())
		return 0;
	end = GetFlushRecPtr(NULL);
	SpinLockAcquire(&qdb_shared->mutex);
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		const QdbStreamStatus *stream = &qdb_shared->streams[i];

		if (stream->member != 0 && stream->streaming && stream->flush + CAUGHT_UP_BYTES >= end)
			ids[n++] = stream->member;
	}
	SpinLockRelease(&qdb_shared->mutex);
	return n;
}

/* The membership that this holder has switched to, its gate open (I13). */
static uint64
closed_membership(void)
{
	uint64		epoch = qdb_shared->open_epoch;

	if (epoch == 0 || epoch != qdb_co.state->epoch ||
		pg_atomic_read_u64(&qdb_shared->quorum_epoch) != epoch)
		return 0;
	return pg_atomic_read_u64(&qdb_shared->quorum_membership);
}

static uint64
own_upstream(void)
{
	uint64		member;

	SpinLockAcquire(&qdb_shared->mutex);
	member = qdb_streaming_from();
	SpinLockRelease(&qdb_shared->mutex);
	return member;
}

static void
fill_heartbeat(QdbHeartbeat *beat)
{
	int64		heard = primary_heard();
	QdbProgress progress;
	XLogRecPtr	archived;
	TimeLineID	archived_timeline;

	SpinLockAcquire(&qdb_shared->mutex);
	progress = qdb_shared->progress;
	SpinLockRelease(&qdb_shared->mutex);
	qdb_read_archived(&archived, &archived_timeline);
	if (qdb_co.why_not[0] == '\0')
		beat->flags |= QDB_BEAT_ABLE;
	if (qdb_wants_upstream())
		beat->flags |= QDB_BEAT_WANTS_UPSTREAM;
	beat->wal_end = qdb_co.wal_end;
	strlcpy(beat->state, qdb_node_state_text(qdb_shared->node_state), sizeof(beat->state));
	strlcpy(beat->why_not, qdb_co.why_not, sizeof(beat->why_not));
	strlcpy(beat->step, progress.step, sizeof(beat->step));
	beat->done = progress.done;
	beat->total = progress.total;
	beat->upstream = own_upstream();
	beat->redo = qdb_own_redo();
	beat->promised = qdb_shared->promised;
	beat->gate_epoch = qdb_shared->open_epoch;
	beat->primary_age_us = heard == 0 ? QDB_BEAT_NEVER : (uint64) Max(qdb_co.now_us - heard, 0);
	beat->closed_membership = closed_membership();
	beat->archived = archived;
	beat->archived_timeline = archived_timeline;
	qdb_own_limits(beat->limits);
	beat->ncaught_up = collect_caught_up(beat->caught_up);
}

static void
send_heartbeat(QdbPeer *peer, uint8 flags, uint64 lease_epoch, int64 lease_sent)
{
	QdbHeartbeat beat = {.flags = flags,.lease_epoch = lease_epoch,.lease_sent = (uint64) lease_sent};
	uint8		buf[QDB_PEER_MAX_BYTES];
	uint32		length = sizeof(buf);

	fill_heartbeat(&beat);
	if (qdb_heartbeat_encode(&beat, buf, &length))
		(void) qdb_channel_send(peer->out, QDB_FRAME_HEARTBEAT, buf, length);
}

/*
 * What a node needs to replay the cluster's WAL: this node's own limits, and those of the
 * seat's holder as it last said them.
 */
void
qdb_wanted_limits(int32 *wanted)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);
	const QdbPeer *holder = grant != NULL ? qdb_mesh_peer(grant->holder) : NULL;

	qdb_own_limits(wanted);
	for (int i = 0; holder != NULL && i < QDB_NLIMITS; i++)
		wanted[i] = Max(wanted[i], holder->limits[i]);
}

/* A lease shorter than a few heartbeats is asked for more often. */
static int64
beat_interval_us(uint64 lease_epoch)
{
	const QdbGrant *grant = qdb_grant_of_epoch(qdb_co.state, lease_epoch);
	int64		interval = qdb_heartbeat_ms * INT64CONST(1000);

	if (lease_epoch != 0 && grant != NULL)
		interval = Min(interval, grant->lease_ms * INT64CONST(250));
	return Max(interval, 1000);
}

void
qdb_heartbeat_turn(void)
{
	static uint64 last_epoch = 0;
	uint64		lease_epoch = qdb_lease_request();

	/* A new seat asks at once: its gate waits for nothing else. */
	if (qdb_co.now_us < next_beat_us && lease_epoch == last_epoch)
		return;
	last_epoch = lease_epoch;
	next_beat_us = qdb_co.now_us + beat_interval_us(lease_epoch);
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		QdbPeer    *peer = qdb_mesh_slot(i);

		if (peer->member != 0 && peer->out_up)
			send_heartbeat(peer, lease_epoch != 0 ? QDB_BEAT_LEASE_REQUEST : 0,
						   lease_epoch, qdb_now_us());
	}
}

static void
note_heartbeat(QdbPeer *peer, const QdbHeartbeat *beat)
{
	peer->wal_end = beat->wal_end;
	strlcpy(peer->state, beat->state, sizeof(peer->state));
	strlcpy(peer->why_not, beat->why_not, sizeof(peer->why_not));
	strlcpy(peer->progress.step, beat->step, sizeof(peer->progress.step));
	peer->progress.done = beat->done;
	peer->progress.total = beat->total;
	qdb_resync_note(&peer->rewound, qdb_co.state->epoch, peer->boot, beat->step, beat->done, qdb_co.now_us);
	peer->upstream = beat->upstream;
	peer->redo = beat->redo;
	peer->promised = beat->promised;
	peer->gate_epoch = beat->gate_epoch;
	peer->closed_membership = beat->closed_membership;
	memcpy(peer->limits, beat->limits, sizeof(peer->limits));
	peer->ncaught_up = beat->ncaught_up;
	memcpy(peer->caught_up, beat->caught_up, sizeof(peer->caught_up));
	peer->able = (beat->flags & QDB_BEAT_ABLE) != 0;
	peer->wants_upstream = (beat->flags & QDB_BEAT_WANTS_UPSTREAM) != 0;
	peer->primary_heard_us = beat->primary_age_us < (uint64) qdb_co.now_us ?
		qdb_co.now_us - (int64) beat->primary_age_us : 0;
}

void
qdb_receive_heartbeat(QdbPeer *peer, const QdbFrame *frame)
{
	QdbHeartbeat beat;

	if (!qdb_heartbeat_decode(frame->payload, frame->length, &beat))
		return;
	note_heartbeat(peer, &beat);
	qdb_note_archived(beat.archived, beat.archived_timeline);

	if ((beat.flags & QDB_BEAT_LEASE_GRANT) != 0)
		qdb_lease_take(peer, beat.lease_epoch, (int64) beat.lease_sent);
	if ((beat.flags & QDB_BEAT_LEASE_REQUEST) != 0 && peer->out_up && qdb_lease_grant(peer, beat.lease_epoch))
		send_heartbeat(peer, QDB_BEAT_LEASE_GRANT, beat.lease_epoch, (int64) beat.lease_sent);
}

/* What users see of the peers. */
void
qdb_publish_peers(void)
{
	LWLockAcquire(qdb_shared->state_lock, LW_EXCLUSIVE);
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		const QdbPeer *peer = qdb_mesh_slot(i);
		QdbPeerStatus *status = &qdb_shared->peers[i];

		status->member = peer->member;
		status->connected = qdb_peer_connected(peer);
		status->heard_us = peer->heard_us;
		status->wal_end = peer->wal_end;
		strlcpy(status->state, peer->state, sizeof(status->state));
		strlcpy(status->why_not, peer->why_not, sizeof(status->why_not));
		status->progress = peer->progress;
		status->needs = peer->needs;
		status->upstream = peer->upstream;
	}
	LWLockRelease(qdb_shared->state_lock);
}
