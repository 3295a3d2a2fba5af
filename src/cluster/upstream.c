/*-------------------------------------------------------------------------
 *
 * upstream.c
 *		From whom a replica without a vote streams: the holder of the seat, or the
 *		member that quantadb.upstream names, to spare the holder.
 *
 * The upstream has to stream from the holder itself: a chain of one link has no
 * loops, and what it passes on is WAL of the epoch that both have promised (wal/store.c).
 * Its heartbeats say whether it does.  Acks of a member without a vote count nowhere,
 * so nobody misses them.
 *
 * Where the upstream does not bring a stream within a moment, the holder is taken.  One
 * that seemed fit is not tried again for a while.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cluster/internal.h"

#define SETTLE_US			(1000 * 1000)	/* it has to be fit for so long */
#define PATIENCE_US			(2000 * 1000)	/* without a stream from it */
#define SILENT_BEATS		10	/* one that hangs keeps its connections */
#define AVOID_US			(15 * 1000 * 1000)

static uint64 chosen = 0;		/* the upstream that is the target; 0: the
								 * holder is */
static uint64 chosen_epoch = 0;
static int64 fit_since_us = 0;
static int64 streamed_us = 0;	/* when it last did, or was chosen */
static int64 avoid_until_us = 0;

/* This node would stream from an upstream, and so is none. */
bool
qdb_wants_upstream(void)
{
	const QdbMember *self = qdb_self_member();

	return qdb_upstream != NULL && qdb_upstream[0] != '\0' &&
		self != NULL && self->role == QDB_ROLE_REPLICA;
}

/* Streams it from the holder of this epoch, as far as it says? */
static bool
is_fit(const QdbMember *member, const QdbGrant *grant)
{
	const QdbPeer *peer = qdb_mesh_peer(member->id);

	return grant->opened && peer != NULL && qdb_peer_connected(peer) &&
		qdb_co.now_us - peer->heard_us < SILENT_BEATS * qdb_heartbeat_ms * INT64CONST(1000) &&
		!peer->wants_upstream &&
		peer->promised == grant->epoch && strcmp(peer->state, "replica") == 0;
}

/* One that is fit, and fails, is not tried again at once; one that went away may return. */
static void
leave_upstream(bool failed, const char *why)
{
	if (chosen == 0)
		return;
	ereport(LOG, (errmsg("[replication] Streaming from the primary instead of %s: %s",
						 qdb_member_label(chosen), why)));
	chosen = 0;
	fit_since_us = 0;
	avoid_until_us = failed ? qdb_co.now_us + AVOID_US : 0;
}

static bool
is_streaming(const QdbGrant *grant)
{
	bool		streaming;

	SpinLockAcquire(&qdb_shared->mutex);
	streaming = qdb_shared->receiver_epoch == grant->epoch && qdb_shared->receiver_member == chosen;
	SpinLockRelease(&qdb_shared->mutex);
	return streaming;
}

/*
 * Whom to stream from in this epoch.  Asked in each turn: the state, the settings and the
 * peers change.
 */
const QdbMember *
qdb_stream_source(const QdbGrant *grant, const QdbMember *holder)
{
	const QdbMember *upstream = qdb_wants_upstream() ?
	qdb_member_by_name(qdb_co.state, qdb_upstream) : NULL;

	if (upstream == NULL || upstream->id == holder->id || upstream->id == qdb_co.self.member)
	{
		chosen = 0;
		fit_since_us = avoid_until_us = 0;
		return holder;
	}
	if (chosen != upstream->id || chosen_epoch != grant->epoch)
	{
		chosen = 0;
		chosen_epoch = grant->epoch;
		if (!is_fit(upstream, grant) || qdb_co.now_us < avoid_until_us)
			fit_since_us = 0;
		else if (fit_since_us == 0)
			fit_since_us = qdb_co.now_us;
		if (fit_since_us == 0 || qdb_co.now_us - fit_since_us < SETTLE_US)
			return holder;
		chosen = upstream->id;
		streamed_us = qdb_co.now_us;
		return upstream;
	}
	if (is_fit(upstream, grant) && is_streaming(grant))
		streamed_us = qdb_co.now_us;
	else if (qdb_co.now_us - streamed_us > PATIENCE_US)
	{
		bool		fit = is_fit(upstream, grant);

		leave_upstream(fit, fit ? "it does not bring WAL" : "it does not stream itself");
	}
	return chosen != 0 ? upstream : holder;
}

/* A receiver that still has a connection to the earlier source ends; the next one asks anew. */
void
qdb_leave_other_source(void)
{
	bool		other;

	SpinLockAcquire(&qdb_shared->mutex);
	other = qdb_shared->receiver_epoch != 0 && qdb_shared->target_epoch != 0 &&
		qdb_shared->receiver_member != qdb_shared->target_member;
	SpinLockRelease(&qdb_shared->mutex);
	if (other)
		(void) qdb_effects.park_receiver();
}
