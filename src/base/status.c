/*-------------------------------------------------------------------------
 *
 * status.c
 *		What a node says about itself and its cluster.
 *
 * Plain getters over shared memory: no request to a worker, no database.  What
 * other nodes do is what the coordinator and the streamer last heard of them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"

#include "base/status.h"

const char *
qdb_node_state_text(int node_state)
{
	switch (node_state)
	{
		case QDB_NODE_INERT:
			return "inert";
		case QDB_NODE_FOLLOWER:
			return "follower";
		case QDB_NODE_REPLICA:
			return "replica";
		case QDB_NODE_PRIMARY:
			return "primary";
		case QDB_NODE_STANDBY:
			return "standby";
		case QDB_NODE_FENCED:
			return "fenced";
	}
	return "unknown";
}

/* The numbers are libraft's enum raft_state. */
const char *
qdb_raft_state_text(int raft_state)
{
	switch (raft_state)
	{
		case 1:
			return "follower";
		case 2:
			return "candidate";
		case 3:
			return "leader";
	}
	return "unavailable";
}

const char *
qdb_role_text(int role)
{
	switch (role)
	{
		case QDB_ROLE_VOTER:
			return "voter";
		case QDB_ROLE_LEARNER:
			return "learner";
	}
	return "replica";
}

bool
qdb_parse_role(const char *text, int *role)
{
	if (strcmp(text, "voter") == 0)
		*role = QDB_ROLE_VOTER;
	else if (strcmp(text, "replica") == 0)
		*role = QDB_ROLE_REPLICA;
	else
		return false;
	return true;
}

/* End of this node's durable WAL as far as it is known now. */
static XLogRecPtr
own_wal_end(XLogRecPtr noted)
{
	XLogRecPtr	replayed;

	if (!RecoveryInProgress())
		return GetFlushRecPtr(NULL);
	replayed = GetXLogReplayRecPtr(NULL);
	return Max(noted, replayed);
}

static const QdbStreamStatus *
find_stream(const QdbStreamStatus *streams, uint64 member)
{
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		if (streams[i].member == member)
			return &streams[i];
	}
	return NULL;
}

static const QdbPeerStatus *
find_peer(const QdbPeerStatus *peers, uint64 member)
{
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		if (peers[i].member == member)
			return &peers[i];
	}
	return NULL;
}

static void
fill_node(QdbNodeStatus *node, const QdbStatus *status, const QdbMember *member,
		  const QdbPeerStatus *peer, const char *own_why_not)
{
	node->member = member;
	node->self = (member->id == status->self);
	node->primary = (status->primary == member);
	node->role = qdb_role_text(member->role);
	node->seen_ago_us = -1;
	node->lag_bytes = -1;
	node->lag_us = -1;
	node->kept_bytes = -1;
	if (node->self)
	{
		node->connected = true;
		node->wal_end = status->wal_end;
		strlcpy(node->state, qdb_node_state_text(status->node_state), sizeof(node->state));
		strlcpy(node->why_not, own_why_not, sizeof(node->why_not));
		node->progress = status->progress;
		node->upstream = qdb_member_by_id(status->state, status->upstream);
	}
	else if (peer != NULL)
	{
		node->connected = peer->connected;
		node->wal_end = peer->wal_end;
		if (peer->heard_us != 0)
			node->seen_ago_us = Max(qdb_now_us() - peer->heard_us, 0);
		strlcpy(node->state, peer->state, sizeof(node->state));
		strlcpy(node->why_not, peer->why_not, sizeof(node->why_not));
		node->progress = peer->progress;
		if (peer->connected)
			node->upstream = qdb_member_by_id(status->state, peer->upstream);
	}
	if (node->state[0] == '\0')
		strlcpy(node->state, "unknown", sizeof(node->state));
	if (node->why_not[0] == '\0')
	{
		if (member->role != QDB_ROLE_VOTER)
			snprintf(node->why_not, sizeof(node->why_not), "is no voter but a %s", node->role);
		else if (member->priority == 0)
			strlcpy(node->why_not, "has priority 0", sizeof(node->why_not));
		else if (!node->connected)
			strlcpy(node->why_not, "is not connected", sizeof(node->why_not));
	}
	node->eligible = (node->why_not[0] == '\0');
}

/* What a member needs is kept from there on, or from where the slot is. */
static void
fill_kept(QdbStatus *status, const QdbPeerStatus *peers, XLogRecPtr kept_from)
{
	for (int i = 0; i < status->nnodes; i++)
	{
		QdbNodeStatus *node = &status->nodes[i];
		const QdbPeerStatus *peer = find_peer(peers, node->member->id);
		XLogRecPtr	from = kept_from;

		if (!node->self)
			from = peer != NULL && peer->needs != InvalidXLogRecPtr ? Max(kept_from, peer->needs) : InvalidXLogRecPtr;
		if (from != InvalidXLogRecPtr && kept_from != InvalidXLogRecPtr)
			node->kept_bytes = status->wal_end > from ? (int64) (status->wal_end - from) : 0;
	}
}

/* How far each node is behind the primary, as this node can know it. */
static void
fill_lags(QdbStatus *status, const QdbStreamStatus *streams)
{
	XLogRecPtr	primary_end = InvalidXLogRecPtr;

	for (int i = 0; i < status->nnodes; i++)
	{
		if (status->nodes[i].primary)
			primary_end = status->nodes[i].wal_end;
	}
	for (int i = 0; i < status->nnodes; i++)
	{
		QdbNodeStatus *node = &status->nodes[i];
		const QdbStreamStatus *stream = find_stream(streams, node->member->id);

		if (stream != NULL && stream->streaming)
		{
			node->lag_us = stream->apply_lag_us;
			node->wal_end = Max(node->wal_end, stream->flush);
		}
		if (node->primary)
			node->lag_us = 0;
		if (primary_end != InvalidXLogRecPtr && node->wal_end != InvalidXLogRecPtr)
			node->lag_bytes = primary_end > node->wal_end ? (int64) (primary_end - node->wal_end) : 0;
	}
}

/*
 * The member that holds the current seat.  The grant outlives its holder, so
 * a holder that released it is none.
 */
static const QdbMember *
current_primary(const QdbState *state)
{
	const QdbGrant *grant = qdb_current_grant(state);

	if (grant == NULL || !grant->opened || state->seat_released)
		return NULL;
	return qdb_member_by_id(state, grant->holder);
}

/*
 * Would this voter's copy count if another one were lost now?  It has to be the primary or
 * stream from it; between primaries, to be at the end of what it can have.
 */
static bool
is_sound(const QdbStatus *status, const QdbNodeStatus *node)
{
	if (!node->connected)
		return false;
	return strcmp(node->state, "primary") == 0 || strcmp(node->state, "replica") == 0 ||
		(status->primary == NULL && (strcmp(node->state, "follower") == 0 ||
									 strcmp(node->state, "fenced") == 0));
}

/*
 * How many losses the cluster survives now: copies that do not stream are none, and
 * without anybody who could follow the primary it survives no loss.
 */
static int
count_can_lose(const QdbStatus *status)
{
	uint64		sound[QDB_MAX_MEMBERS];
	size_t		n = 0;
	int			able = 0;

	for (int i = 0; i < status->nnodes; i++)
	{
		if (!is_sound(status, &status->nodes[i]))
			continue;
		sound[n++] = status->nodes[i].member->id;
		able += status->nodes[i].eligible;
	}
	return able < 2 ? 0 : qdb_can_lose(status->state, sound, n);
}

/* The short fields of shared memory that change at once; the caller holds mutex. */
static void
copy_short_fields(QdbStatus *status)
{
	status->fenced = qdb_shared->fenced;
	status->seat_epoch = qdb_shared->seat_epoch;
	status->open_epoch = qdb_shared->open_epoch;
	status->timeline = qdb_shared->seat_timeline;
	status->node_state = qdb_shared->node_state;
	status->raft_state = qdb_shared->raft_state;
	status->raft_term = qdb_shared->raft_term;
	status->raft_leader = qdb_shared->raft_leader;
	status->raft_last_index = qdb_shared->raft_last_index;
	status->wal_end = qdb_shared->wal_end;
	status->progress = qdb_shared->progress;
	status->upstream = qdb_streaming_from();
	memcpy(status->why_not, qdb_shared->why_not, sizeof(status->why_not));
	status->why_not[sizeof(status->why_not) - 1] = '\0';
}

/* What follows from them, and what PostgreSQL says of itself. */
static void
fill_own(QdbStatus *status)
{
	int64		now;
	uint64		lease_until;

	status->in_recovery = RecoveryInProgress();
	status->may_write = status->member && qdb_may_write();
	status->lease_alive = status->member && qdb_lease_alive();
	status->wal_end = own_wal_end(status->wal_end);
	if (status->in_recovery)
		GetXLogReplayRecPtr(&status->timeline);
	else
		status->timeline = GetWALInsertionTimeLine();
	now = qdb_now_us();
	lease_until = pg_atomic_read_u64(&qdb_shared->lease_until);
	status->lease_left_us = (int64) lease_until > now ? (int64) lease_until - now : 0;
	status->quorum_lsn = pg_atomic_read_u64(&qdb_shared->quorum_lsn);
}

void
qdb_refresh_own_status(QdbStatus *status)
{
	SpinLockAcquire(&qdb_shared->mutex);
	copy_short_fields(status);
	SpinLockRelease(&qdb_shared->mutex);
	fill_own(status);
}

QdbStatus *
qdb_collect_status(void)
{
	QdbStatus  *status = palloc0(sizeof(QdbStatus));
	QdbPeerStatus *peers = palloc(sizeof(qdb_shared->peers));
	QdbStreamStatus *streams = palloc(sizeof(qdb_shared->streams));
	uint64		live[QDB_MAX_MEMBERS];
	size_t		nlive = 0;
	XLogRecPtr	kept_from;

	status->state = qdb_copy_state();
	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	status->member = qdb_shared->member;
	status->self = qdb_shared->member ? qdb_shared->identity.member : 0;
	memcpy(peers, qdb_shared->peers, sizeof(qdb_shared->peers));
	LWLockRelease(qdb_shared->state_lock);
	SpinLockAcquire(&qdb_shared->mutex);
	copy_short_fields(status);
	kept_from = qdb_shared->kept_from;
	memcpy(streams, qdb_shared->streams, sizeof(qdb_shared->streams));
	SpinLockRelease(&qdb_shared->mutex);
	fill_own(status);
	status->primary = current_primary(status->state);

	status->nnodes = Min(status->state->nmembers, QDB_MAX_MEMBERS);
	for (int i = 0; i < status->nnodes; i++)
	{
		const QdbMember *member = &status->state->members[i];

		fill_node(&status->nodes[i], status, member, find_peer(peers, member->id), status->why_not);
		if (status->nodes[i].connected)
			live[nlive++] = member->id;
	}
	fill_lags(status, streams);
	fill_kept(status, peers, kept_from);
	if (status->member && status->nnodes > 0)
	{
		status->majority = qdb_is_majority(status->state, live, nlive);
		status->can_lose = count_can_lose(status);
	}
	pfree(peers);
	pfree(streams);
	return status;
}

bool
qdb_rehearse_now(const QdbStatus *status, const char *name, QdbRehearsal *rehearsal)
{
	const QdbMember *target = qdb_member_by_name(status->state, name);
	QdbRehearsalNode nodes[QDB_MAX_MEMBERS];

	if (target == NULL)
		return false;
	for (int i = 0; i < status->nnodes; i++)
		nodes[i] = (QdbRehearsalNode)
	{
		.member = status->nodes[i].member->id,
			.connected = status->nodes[i].connected,
			.why_not = status->nodes[i].why_not,
			.wal_end = status->nodes[i].wal_end,
			.lag_us = status->nodes[i].lag_us
	};
	qdb_rehearse(status->state, nodes, status->nnodes, target->id, rehearsal);
	return true;
}

char *
qdb_primary_hint(void)
{
	QdbState   *state = qdb_copy_state();
	const QdbMember *primary = current_primary(state);
	char	   *hint;

	if (primary == NULL || primary->id == qdb_shared->identity.member)
		hint = pstrdup("There is no primary now. Try again shortly.");
	else
		hint = psprintf(strchr(primary->host, ':') ?
						"The primary is node \"%s\" at [%s]:%u." :
						"The primary is node \"%s\" at %s:%u.",
						primary->name, primary->host, primary->sql_port);
	pfree(state);
	return hint;
}
