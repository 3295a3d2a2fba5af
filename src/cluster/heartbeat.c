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

#define FLAG_ABLE			0x01
#define FLAG_LEASE_REQUEST	0x02
#define FLAG_LEASE_GRANT	0x04
#define FLAG_WANTS_UPSTREAM	0x08
#define NEVER				UINT64_MAX
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

static void
put_progress(QdbWriter *w)
{
	QdbProgress progress;

	SpinLockAcquire(&qdb_shared->mutex);
	progress = qdb_shared->progress;
	SpinLockRelease(&qdb_shared->mutex);
	qdb_put_string(w, progress.step);
	qdb_put_u64(w, progress.done);
	qdb_put_u64(w, progress.total);
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
put_heartbeat(QdbWriter *w, uint8 flags, uint64 lease_epoch, int64 lease_sent)
{
	uint64		ids[QDB_MAX_MEMBERS];
	uint32		n = collect_caught_up(ids);
	int64		heard = primary_heard();
	XLogRecPtr	archived;
	TimeLineID	archived_timeline;
	int32		limits[QDB_NLIMITS];

	qdb_read_archived(&archived, &archived_timeline);
	if (qdb_co.why_not[0] == '\0')
		flags |= FLAG_ABLE;
	if (qdb_wants_upstream())
		flags |= FLAG_WANTS_UPSTREAM;
	qdb_put_u8(w, flags);
	qdb_put_u64(w, qdb_co.wal_end);
	qdb_put_string(w, qdb_node_state_text(qdb_shared->node_state));
	qdb_put_string(w, qdb_co.why_not);
	put_progress(w);
	qdb_put_u64(w, own_upstream());
	qdb_put_u64(w, qdb_own_redo());
	qdb_put_u64(w, qdb_shared->promised);
	qdb_put_u64(w, qdb_shared->open_epoch);
	qdb_put_u64(w, heard == 0 ? NEVER : (uint64) Max(qdb_co.now_us - heard, 0));
	qdb_put_u64(w, closed_membership());
	qdb_put_u64(w, archived);
	qdb_put_u32(w, archived_timeline);
	qdb_put_u64(w, lease_epoch);
	qdb_put_u64(w, (uint64) lease_sent);
	qdb_own_limits(limits);
	for (int i = 0; i < QDB_NLIMITS; i++)
		qdb_put_u32(w, (uint32) limits[i]);
	qdb_put_u8(w, (uint8) n);
	for (uint32 i = 0; i < n; i++)
		qdb_put_u64(w, ids[i]);
}

static void
send_heartbeat(QdbPeer *peer, uint8 flags, uint64 lease_epoch, int64 lease_sent)
{
	uint8		buf[1024];
	QdbWriter	w = {.buf = buf,.size = sizeof(buf)};

	put_heartbeat(&w, flags, lease_epoch, lease_sent);
	if (!w.failed)
		(void) qdb_channel_send(peer->out, QDB_FRAME_HEARTBEAT, buf, (uint32) w.used);
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
			send_heartbeat(peer, lease_epoch != 0 ? FLAG_LEASE_REQUEST : 0,
						   lease_epoch, qdb_now_us());
	}
}

void
qdb_receive_heartbeat(QdbPeer *peer, const QdbFrame *frame)
{
	QdbReader	r = {.buf = frame->payload,.size = frame->length};
	uint8		flags = qdb_get_u8(&r);
	QdbPeer		new = *peer;
	uint64		age,
				lease_epoch,
				lease_sent,
				archived;
	uint32		archived_timeline;

	new.wal_end = qdb_get_u64(&r);
	qdb_get_string(&r, new.state, sizeof(new.state));
	qdb_get_string(&r, new.why_not, sizeof(new.why_not));
	qdb_get_string(&r, new.progress.step, sizeof(new.progress.step));
	new.progress.done = qdb_get_u64(&r);
	new.progress.total = qdb_get_u64(&r);
	new.upstream = qdb_get_u64(&r);
	new.redo = qdb_get_u64(&r);
	new.promised = qdb_get_u64(&r);
	new.gate_epoch = qdb_get_u64(&r);
	age = qdb_get_u64(&r);
	new.closed_membership = qdb_get_u64(&r);
	archived = qdb_get_u64(&r);
	archived_timeline = qdb_get_u32(&r);
	lease_epoch = qdb_get_u64(&r);
	lease_sent = qdb_get_u64(&r);
	for (int i = 0; i < QDB_NLIMITS; i++)
		new.limits[i] = (int32) qdb_get_u32(&r);
	new.ncaught_up = qdb_get_u8(&r);
	for (uint32 i = 0; i < new.ncaught_up && i < QDB_MAX_MEMBERS; i++)
		new.caught_up[i] = qdb_get_u64(&r);
	if (!qdb_reader_done(&r) || new.ncaught_up > QDB_MAX_MEMBERS)
		return;
	new.able = (flags & FLAG_ABLE) != 0;
	new.wants_upstream = (flags & FLAG_WANTS_UPSTREAM) != 0;
	new.primary_heard_us = age < (uint64) qdb_co.now_us ? qdb_co.now_us - (int64) age : 0;
	*peer = new;
	qdb_note_archived(archived, archived_timeline);

	if ((flags & FLAG_LEASE_GRANT) != 0)
		qdb_lease_take(peer, lease_epoch, (int64) lease_sent);
	if ((flags & FLAG_LEASE_REQUEST) != 0 && peer->out_up && qdb_lease_grant(peer, lease_epoch))
		send_heartbeat(peer, FLAG_LEASE_GRANT, lease_epoch, (int64) lease_sent);
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
