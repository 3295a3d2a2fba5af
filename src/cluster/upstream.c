/*-------------------------------------------------------------------------
 *
 * upstream.c
 *		What the choice of the member to stream from is made of (core/upstream.c):
 *		quantadb.upstream, the heartbeats of the member that it names, our receiver.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cluster/internal.h"
#include "core/upstream.h"

static QdbUpstream upstream;

/* This node would stream from an upstream, and so is none. */
bool
qdb_wants_upstream(void)
{
	const QdbMember *self = qdb_self_member();

	return qdb_upstream != NULL && qdb_upstream[0] != '\0' &&
		self != NULL && self->role == QDB_ROLE_REPLICA;
}

static void
look_at_peer(QdbUpstreamView *view)
{
	const QdbPeer *peer = qdb_mesh_peer(view->named);

	if (peer == NULL)
		return;
	view->connected = qdb_peer_connected(peer);
	view->heard_us = peer->heard_us;
	view->wants_upstream = peer->wants_upstream;
	view->streaming = strcmp(peer->state, "replica") == 0;
	view->promised = peer->promised;
}

/*
 * Whom to stream from in this epoch.  Asked in each turn: the state, the settings and the
 * peers change.
 */
const QdbMember *
qdb_stream_source(const QdbGrant *grant, const QdbMember *holder)
{
	const QdbMember *named = qdb_wants_upstream() ?
	qdb_member_by_name(qdb_co.state, qdb_upstream) : NULL;
	QdbUpstreamView view = {
		.now_us = qdb_co.now_us,
		.beat_us = qdb_heartbeat_ms * INT64CONST(1000),
		.self = qdb_co.self.member,
		.epoch = grant->epoch,
		.holder = holder->id,
		.opened = grant->opened,
		.named = named != NULL ? named->id : 0,
	};
	const char *left;
	uint64		source;

	SpinLockAcquire(&qdb_shared->mutex);
	view.receiver_epoch = qdb_shared->receiver_epoch;
	view.receiver_member = qdb_shared->receiver_member;
	SpinLockRelease(&qdb_shared->mutex);
	if (named != NULL)
		look_at_peer(&view);
	source = qdb_upstream_choose(&upstream, &view, &left);
	if (left != NULL)
		ereport(LOG, (errmsg("[replication] Streaming from the primary instead of %s: %s",
							 qdb_member_label(view.named), left)));
	return named != NULL && source == named->id ? named : holder;
}

/* A receiver that still has a connection to the earlier source ends; the next one asks anew. */
void
qdb_leave_other_source(void)
{
	bool		other;

	SpinLockAcquire(&qdb_shared->mutex);
	other = qdb_receiver_is_elsewhere(qdb_shared->receiver_epoch, qdb_shared->receiver_member,
									  qdb_shared->target_epoch, qdb_shared->target_member);
	SpinLockRelease(&qdb_shared->mutex);
	if (other)
		(void) qdb_effects.park_receiver();
}
