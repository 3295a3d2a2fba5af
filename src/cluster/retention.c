/*-------------------------------------------------------------------------
 *
 * retention.c
 *		Which WAL this node keeps for the other members.
 *
 * Every node does, not only the primary: after a failover the new one must have what
 * a slow member lacks.  Peers say in their heartbeats where their last checkpoint
 * begins; the arithmetic is core/retain.c's.  The streamer holds the WAL by a slot
 * (wal/retain.c).
 *
 * A member that this boot has not heard yet may need anything: the slot stays where it
 * is.  Past quantadb.wal_retention_limit it moves on all the same, and the journal says whom
 * that costs a clone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "core/retain.h"
#include "miscadmin.h"

#include "base/status.h"
#include "cluster/internal.h"

#define TURN_US				(1000 * 1000)
#define CONTROL_US			(3 * 1000 * 1000)

/* Of the last checkpoint or restartpoint that is complete; what memory says may not be. */
XLogRecPtr
qdb_own_redo(void)
{
	static XLogRecPtr redo = InvalidXLogRecPtr;
	static int64 next_us = 0;
	MemoryContext old = CurrentMemoryContext;

	if (qdb_co.now_us < next_us)
		return redo;
	next_us = qdb_co.now_us + CONTROL_US;
	PG_TRY();
	{
		bool		crc_ok;
		ControlFileData *control = get_controlfile(DataDir, &crc_ok);

		if (crc_ok)
			redo = control->checkPointCopy.redo;
		pfree(control);
	}
	PG_CATCH();
	{
		/* What was read before still holds. */
		MemoryContextSwitchTo(old);
		FlushErrorState();
	}
	PG_END_TRY();
	return redo;
}

static bool
follows_epoch(const QdbPeer *peer, const QdbGrant *grant)
{
	return grant != NULL && qdb_peer_connected(peer) && peer->promised == grant->epoch &&
		(strcmp(peer->state, qdb_node_state_text(QDB_NODE_REPLICA)) == 0 ||
		 strcmp(peer->state, qdb_node_state_text(QDB_NODE_PRIMARY)) == 0);
}

/* Once for each time that a member falls behind so far; the holder tells. */
static void
note_released(QdbPeer *peer, const QdbMember *member, XLogRecPtr from)
{
	char		reason[QDB_REASON_SIZE];

	if (peer->released || peer->needs == InvalidXLogRecPtr || peer->needs >= from ||
		qdb_shared->seat_epoch == 0)
		return;
	peer->released = true;
	snprintf(reason, sizeof(reason),
			 "needs WAL from %X/%X on, which is past quantadb.wal_retention_limit: a clone is due",
			 LSN_FORMAT_ARGS(peer->needs));
	qdb_note_event("wal_released", member->name, reason);
}

void
qdb_retention_turn(void)
{
	static int64 next_us = 0;
	const QdbState *state = qdb_co.state;
	const QdbGrant *grant = qdb_current_grant(state);
	uint64		needs[QDB_MAX_MEMBERS];
	bool		at_home;
	QdbPeer    *peers[QDB_MAX_MEMBERS];
	int			n;
	XLogRecPtr	from;

	if (qdb_co.now_us < next_us || state->epoch == 0 || qdb_self_member() == NULL)
		return;
	next_us = qdb_co.now_us + TURN_US;
	for (n = 0; n < state->nmembers; n++)
	{
		bool		self = state->members[n].id == qdb_co.self.member;
		QdbPeer    *peer = self ? NULL : qdb_mesh_peer(state->members[n].id);

		peers[n] = peer;
		needs[n] = self ? qdb_own_redo() : InvalidXLogRecPtr;
		if (peer == NULL)
			continue;
		needs[n] = peer->needs = qdb_retain_needs(peer->needs, peer->redo, follows_epoch(peer, grant),
												  grant != NULL ? grant->fork : 0);
		if (follows_epoch(peer, grant))
			peer->released = false;
	}

	/*
	 * A node that has left the history keeps what it has: where its own
	 * rewind will begin is not known yet.
	 */
	SpinLockAcquire(&qdb_shared->mutex);
	at_home = grant != NULL &&
		(qdb_shared->seat_epoch == grant->epoch || qdb_shared->receiver_epoch == grant->epoch);
	SpinLockRelease(&qdb_shared->mutex);
	if (!at_home)
		return;
	from = qdb_retain_from(needs, n, qdb_co.wal_end, (uint64) qdb_wal_retention_limit_mb * 1024 * 1024);
	for (int i = 0; i < n; i++)
	{
		if (peers[i] != NULL)
			note_released(peers[i], qdb_member_by_id(state, peers[i]->member), from);
	}
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->keep_mode = QDB_KEEP_MEMBERS;
	qdb_shared->keep_from = from;
	SpinLockRelease(&qdb_shared->mutex);
}
