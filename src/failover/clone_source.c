/*-------------------------------------------------------------------------
 *
 * clone_source.c
 *		Whom a clone asks.
 *
 * Always the holder of the seat: it forgets this node's acks, names the flush position
 * that the new data has to reach, and says what a quorum has (I11).  The data comes from a
 * replica where one is fit, to spare the holder, and from the holder where none is, or
 * where a clone from it has failed.
 *
 * Which replica is only a question of load: what may be taken from it, it says itself
 * (wal/store.c), and what was taken counts only when its WAL has reached that flush
 * position and a quorum has all of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "failover/clone.h"
#include "miscadmin.h"

#define LISTEN_US		INT64CONST(3000000) /* for all members to be heard */
#define MAX_BEHIND		((uint64) 128 * 1024 * 1024)	/* bytes of WAL */

static bool
is_spurned(const QdbClone *clone, uint64 member)
{
	for (uint32 i = 0; i < clone->nspurned; i++)
	{
		if (clone->spurned[i] == member)
			return true;
	}
	return false;
}

/* Streams, and is not far behind; under state_lock. */
static bool
is_fit(const QdbPeerStatus *peer, XLogRecPtr most)
{
	return peer->connected && strcmp(peer->state, "replica") == 0 && peer->progress.step[0] == '\0' &&
		peer->wal_end != InvalidXLogRecPtr && peer->wal_end + MAX_BEHIND >= most;
}

/* Those without a vote first: no commit waits for them.  Then whom a failover would miss least. */
static bool
is_better(const QdbMember *a, const QdbMember *b)
{
	if (b == NULL || (a->role == QDB_ROLE_REPLICA) != (b->role == QDB_ROLE_REPLICA))
		return b == NULL || a->role == QDB_ROLE_REPLICA;
	return a->priority != b->priority ? a->priority < b->priority : a->id > b->id;
}

/*
 * NULL: none but the holder.  *unheard: a member that may be better has not been heard of, as
 * when this process has just begun to listen.
 */
static const QdbMember *
choose_replica(const QdbClone *clone, const QdbState *state, uint64 holder, bool *unheard)
{
	const QdbMember *best = NULL;
	XLogRecPtr	most = InvalidXLogRecPtr;
	uint32		heard = 0;

	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
		most = Max(most, qdb_shared->peers[i].wal_end);
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		const QdbPeerStatus *peer = &qdb_shared->peers[i];
		const QdbMember *member = peer->member != 0 ? qdb_member_by_id(state, peer->member) : NULL;

		if (member == NULL || member->id == clone->self.member)
			continue;
		heard += peer->state[0] != '\0' ? 1 : 0;
		if (member->id != holder && !is_spurned(clone, member->id) && is_fit(peer, most) &&
			is_better(member, best))
			best = member;
	}
	LWLockRelease(qdb_shared->state_lock);
	*unheard = heard + 1 < state->nmembers;
	return best;
}

static void
take_address(QdbCloneAddress *address, const QdbMember *member)
{
	address->member = member->id;
	address->port = member->replication_port;
	strlcpy(address->host, member->host, sizeof(address->host));
}

bool
qdb_clone_find_source(QdbClone *clone)
{
	QdbState   *state = qdb_copy_state();
	const QdbGrant *grant = qdb_current_grant(state);
	const QdbMember *holder = grant != NULL ? qdb_member_by_id(state, grant->holder) : NULL;
	bool		found = holder != NULL && grant->opened && !state->seat_released &&
	holder->id != clone->self.member;

	if (found)
	{
		const QdbMember *replica;
		bool		unheard;

		if (clone->epoch != grant->epoch)
			clone->nspurned = 0;
		clone->epoch = grant->epoch;
		replica = choose_replica(clone, state, holder->id, &unheard);
		if (replica == NULL && unheard && qdb_now_us() - clone->begun_us < LISTEN_US)
		{
			pfree(state);
			return false;
		}
		take_address(&clone->holder, holder);
		take_address(&clone->source, replica != NULL ? replica : holder);
		SpinLockAcquire(&qdb_shared->mutex);
		qdb_shared->clone.source = clone->source.member;
		qdb_shared->clone.epoch = grant->epoch;
		SpinLockRelease(&qdb_shared->mutex);
	}
	pfree(state);
	return found;
}

static QdbFetch *
open_fetch(const QdbClone *clone, const QdbCloneAddress *address, QdbFilesWelcome *welcome, char *why, bool *retry)
{
	QdbFilesHello hello = {.version = QDB_TRANSFER_VERSION,.purpose = QDB_FILES_CLONE};

	strlcpy(hello.cluster_id, clone->self.cluster_id, sizeof(hello.cluster_id));
	hello.member = clone->self.member;
	hello.incarnation = clone->self.incarnation;
	hello.boot = clone->self.boot;
	hello.epoch = clone->epoch;
	return qdb_fetch_open(address->member, address->host, address->port, &hello, welcome, why, retry);
}

/* The replica serves the holder's timeline, or nothing is taken from it. */
static bool
open_replica(QdbClone *clone, char *why)
{
	QdbFilesWelcome welcome;
	bool		retry;

	clone->fetch = open_fetch(clone, &clone->source, &welcome, why, &retry);
	if (clone->fetch == NULL)
		return false;
	if (welcome.epoch != clone->welcome.epoch || welcome.timeline != clone->welcome.timeline ||
		welcome.system_identifier != clone->welcome.system_identifier)
		return qdb_fetch_fail(clone->fetch, "it serves other data than the primary has");
	return true;
}

bool
qdb_clone_connect(QdbClone *clone, char *why)
{
	bool		retry;

	qdb_clone_set_phase(QDB_CLONE_CONNECTING, "", "", 0);
	clone->primary = open_fetch(clone, &clone->holder, &clone->welcome, why, &retry);
	if (clone->primary == NULL)
	{
		clone->fatal = !retry;
		return false;
	}
	clone->fetch = clone->primary;
	return clone->source.member == clone->holder.member || open_replica(clone, why);
}

void
qdb_clone_blame(QdbClone *clone, char *why)
{
	bool		holder_failed = qdb_fetch_error(clone->primary)[0] != '\0';

	if (clone->fetch != NULL && qdb_fetch_error(clone->fetch)[0] != '\0')
		strlcpy(why, qdb_fetch_error(clone->fetch), QDB_REASON_SIZE);
	else if (holder_failed)
		strlcpy(why, qdb_fetch_error(clone->primary), QDB_REASON_SIZE);
	if (!holder_failed && clone->fetch != clone->primary && clone->nspurned < lengthof(clone->spurned))
		clone->spurned[clone->nspurned++] = clone->source.member;
}

void
qdb_clone_disconnect(QdbClone *clone)
{
	if (clone->fetch != clone->primary)
		qdb_fetch_close(clone->fetch);
	qdb_fetch_close(clone->primary);
	clone->fetch = clone->primary = NULL;
}
