/*-------------------------------------------------------------------------
 *
 * leader.c
 *		What the Raft leader sees, and the carrying out of its decisions.
 *
 * The decision itself is qdb_failover_decide, a plain function.  One proposal is
 * under way at a time; a decision that did not take effect is made again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cluster/internal.h"

#define TRANSFER_US			(1000 * 1000)
#define DEAD_US				(500 * 1000)
#define RETRY_US			(50 * 1000)

static bool pending = false;
static int64 next_decision_us = 0;
static int64 next_transfer_us = 0;

/* Who leads Raft may be the one that rewinds. */
static int64
own_rewind_moved_us(void)
{
	static QdbResyncWatch watch;
	QdbProgress progress;

	SpinLockAcquire(&qdb_shared->mutex);
	progress = qdb_shared->progress;
	SpinLockRelease(&qdb_shared->mutex);
	qdb_resync_note(&watch, qdb_co.state->epoch, qdb_co.self.boot, progress.step, progress.done, qdb_co.now_us);
	return watch.moved_us;
}

static void
view_self(QdbPeerView *view, const QdbGrant *last)
{
	view->connected = true;
	view->heard_us = qdb_co.now_us;
	view->able = qdb_co.why_not[0] == '\0' && !qdb_co.handing_over;
	view->wal_end = qdb_co.wal_end;
	view->why_not = qdb_co.why_not;
	view->boot = qdb_co.self.boot;
	view->rewound_us = own_rewind_moved_us();
	view->quorum_epoch = qdb_shared->open_epoch;
	if (pg_atomic_read_u64(&qdb_shared->quorum_epoch) == qdb_shared->open_epoch)
		view->closed_membership = pg_atomic_read_u64(&qdb_shared->quorum_membership);
	if (last != NULL && qdb_grant_is_ours(last))
		view->primary_heard_us = qdb_co.now_us;
	else if (last != NULL)
	{
		const QdbPeer *holder = qdb_mesh_peer(last->holder);

		if (holder != NULL && holder->boot == last->boot)
			view->primary_heard_us = holder->heard_us;
	}
}

static void
view_peer(QdbPeerView *view, const QdbPeer *peer)
{
	if (peer == NULL)
		return;
	view->connected = qdb_peer_connected(peer);
	view->gone = peer->gone;
	view->heard_us = peer->heard_us;
	view->primary_heard_us = peer->primary_heard_us;
	view->able = peer->able;
	view->wal_end = peer->wal_end;
	view->why_not = peer->why_not;
	view->boot = peer->boot;
	view->rewound_us = peer->rewound.epoch == qdb_co.state->epoch ? peer->rewound.moved_us : 0;
	view->quorum_epoch = peer->gate_epoch;
	view->closed_membership = peer->closed_membership;
}

/* Has the seat's holder seen this learner at its own flush position? */
static bool
is_caught_up(const QdbGrant *last, uint64 member)
{
	const QdbPeer *holder = last != NULL ? qdb_mesh_peer(last->holder) : NULL;
	bool		found = false;

	if (last != NULL && qdb_grant_is_ours(last))
	{
		XLogRecPtr	end = pg_atomic_read_u64(&qdb_shared->quorum_lsn);

		SpinLockAcquire(&qdb_shared->mutex);
		for (int i = 0; i < QDB_MAX_MEMBERS; i++)
		{
			if (qdb_shared->streams[i].member == member && qdb_shared->streams[i].streaming &&
				qdb_shared->streams[i].flush >= end)
				found = true;
		}
		SpinLockRelease(&qdb_shared->mutex);
		return found;
	}
	for (uint32 i = 0; holder != NULL && i < holder->ncaught_up; i++)
		found = found || holder->caught_up[i] == member;
	return found;
}

void
qdb_build_view(QdbLeaderView *view)
{
	const QdbState *state = qdb_co.state;
	const QdbGrant *last = state->ngrants > 0 ? &state->grants[state->ngrants - 1] : NULL;

	memset(view, 0, sizeof(*view));
	view->now_us = qdb_co.now_us;
	view->leader_since_us = qdb_co.leader_since_us;
	view->self = qdb_co.self.member;
	view->epoch_seen_us = qdb_co.epoch_seen_us;
	view->move_seen_us = qdb_co.move_seen_us;
	view->unix_us = qdb_unix_us();
	for (uint32 i = 0; i < state->nmembers; i++)
	{
		QdbPeerView *peer = &view->peers[view->npeers++];

		peer->member = state->members[i].id;
		if (peer->member == qdb_co.self.member)
			view_self(peer, last);
		else
			view_peer(peer, qdb_mesh_peer(peer->member));
		peer->caught_up = is_caught_up(last, peer->member);
	}
}

static void
decision_done(uint64 a, uint64 b, bool known, QdbResult result)
{
	pending = false;
	next_decision_us = qdb_now_us() + (known && result == QDB_OK ? 0 : RETRY_US);
	if (known && result != QDB_OK && result != QDB_UNCHANGED)
		ereport(LOG, (errmsg("[failover] a decision was refused: %s", qdb_result_text(result))));
}

static const char *
member_name(uint64 id)
{
	const QdbMember *member = qdb_member_by_id(qdb_co.state, id);

	return member != NULL ? member->name : "";
}

/* Unix time when the holder was last heard, for whoever asks how long nobody could write. */
static int64
silent_since(const QdbGrant *grant)
{
	const QdbPeer *holder = grant != NULL ? qdb_mesh_peer(grant->holder) : NULL;

	if (holder == NULL || holder->heard_us == 0 || holder->boot != grant->boot)
		return 0;
	return qdb_unix_us() - Max(qdb_co.now_us - holder->heard_us, 0);
}

static void
propose_action(const QdbAction *action)
{
	const QdbState *state = qdb_co.state;
	const QdbMember *member = qdb_member_by_id(state, action->member);
	QdbCommand	command;

	memset(&command, 0, sizeof(command));
	strlcpy(command.text, action->reason, sizeof(command.text));
	command.epoch = action->epoch;
	command.membership = state->membership;
	switch (action->kind)
	{
		case QDB_ACT_OPEN_EPOCH:
			command.type = QDB_CMD_OPEN_EPOCH;
			command.epoch = state->epoch + 1;
			command.since_us = silent_since(qdb_current_grant(state));
			command.flag = action->suspicion;
			break;
		case QDB_ACT_SEAT:
			command.type = QDB_CMD_SEAT;
			command.grant = action->grant;
			command.epoch = action->grant.epoch;
			strlcpy(command.node, member_name(action->grant.holder), sizeof(command.node));
			break;
		case QDB_ACT_PROMOTE_LEARNER:
			if (member == NULL)
				return;
			command.type = QDB_CMD_MEMBER_ROLE;
			command.member = *member;
			command.member.role = QDB_ROLE_VOTER;
			strlcpy(command.node, member->name, sizeof(command.node));
			break;
		case QDB_ACT_CLOSE_CHANGE:
			command.type = QDB_CMD_MEMBERSHIP_CLOSE;
			break;
		case QDB_ACT_DONATE:
			command.type = QDB_CMD_DONATE;
			command.member.id = action->member;
			command.grant.holder = action->donor;
			break;
		case QDB_ACT_GIVE_UP_MOVE:
			command.type = QDB_CMD_MOVE;
			command.epoch = state->epoch;
			break;
		default:
			return;
	}
	/* Set before: the answer may come at once. */
	pending = true;
	if (!qdb_propose(&command, decision_done, 0, 0))
		pending = false;
	if (action->reason[0] != '\0')
		ereport(LOG, (errmsg("[failover] %s", action->reason)));
}

/* The quick election where the Raft leader's process is known to be dead. */
static void
replace_dead_leader(void)
{
	static int64 next_us = 0;
	uint64		leader = qdb_raft_leader(qdb_co.raft);
	const QdbPeer *peer = qdb_mesh_peer(leader);
	int			rank = 0;

	if (peer == NULL || !peer->gone || qdb_co.now_us < next_us)
		return;
	next_us = qdb_co.now_us + DEAD_US;
	for (uint32 i = 0; i < qdb_co.state->nmembers; i++)
	{
		const QdbMember *member = &qdb_co.state->members[i];

		if (member->role == QDB_ROLE_VOTER && member->id < qdb_co.self.member &&
			member->id != leader && qdb_peer_connected(qdb_mesh_peer(member->id)))
			rank++;
	}
	qdb_raft_leader_dead(qdb_co.raft, leader, rank);
}

/* Async keeps the cluster without a primary: say so, once for an epoch. */
static void
note_held_back(uint64 bytes)
{
	static uint64 noted_epoch = 0;
	char		text[QDB_REASON_SIZE];

	if (bytes == 0 || noted_epoch == qdb_co.state->epoch)
		return;
	noted_epoch = qdb_co.state->epoch;
	if (bytes == UINT64_MAX)
		snprintf(text, sizeof(text), "no failover: how much the lost primary was ahead is unknown; bring it back, or use quantadb_promote");
	else
		snprintf(text, sizeof(text), "no failover: %llu bytes would be lost, max_lag_on_failover is %llu; bring the primary back, or use quantadb_promote",
				 (unsigned long long) bytes, (unsigned long long) qdb_co.state->settings.max_lag_bytes);
	qdb_note_event("held_back", "", text);
	ereport(LOG, (errmsg("[failover] %s", text)));
}

void
qdb_leader_turn(void)
{
	QdbLeaderView view;
	QdbAction	action;
	bool		leads = qdb_is_raft_leader();

	if (leads && !qdb_co.was_leader)
	{
		ereport(LOG, (errmsg("[raft] Transitioning to LEADER state")));
		qdb_co.leader_since_us = qdb_co.now_us;
	}
	else if (!leads && qdb_co.was_leader)
		ereport(LOG, (errmsg("[raft] Transitioning to FOLLOWER state")));
	qdb_co.was_leader = leads;
	if (!leads)
	{
		replace_dead_leader();
		return;
	}
	qdb_raft_reconcile(qdb_co.raft);
	if (pending || qdb_co.now_us < next_decision_us || qdb_co.state->epoch == 0)
		return;
	qdb_build_view(&view);
	action = qdb_failover_decide(qdb_co.state, &view);
	note_held_back(action.held_back);
	if (action.kind == QDB_ACT_TRANSFER)
	{
		if (qdb_co.now_us < next_transfer_us)
			return;
		next_transfer_us = qdb_co.now_us + TRANSFER_US;
		(void) qdb_raft_transfer(qdb_co.raft, action.member);
	}
	else if (action.kind != QDB_ACT_NONE)
		propose_action(&action);
}
