/*-------------------------------------------------------------------------
 *
 * lease.c
 *		The primary's lease, on both sides (I9).
 *
 * A voter that grants says: until this runs out I report for no newer epoch.
 * The primary counts from before it asked, the voter from when it was asked,
 * so the primary's idea of the end is never the later one.  Commit safety does
 * not depend on any of this; strict reads do, and the fence of a primary that
 * was cut off.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cluster/internal.h"

static int64 granted_until_us = 0;
static uint64 granted_to = 0;	/* member */
static uint64 granted_boot = 0;

/*
 * Voters grant, and learners: their grants count for nothing until they vote,
 * but then the primary's lease must not wait for a round trip.
 */
static bool
may_grant(void)
{
	const QdbMember *self = qdb_member_by_id(qdb_co.state, qdb_co.self.member);

	return (self != NULL && self->role == QDB_ROLE_LEARNER) ||
		qdb_counts_as_voter(qdb_co.state, qdb_co.self.member);
}

uint64
qdb_lease_request(void)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);

	if (grant == NULL || !qdb_grant_is_ours(grant) || qdb_co.handing_over ||
		qdb_co.state->seat_released ||
		qdb_shared->seat_epoch != grant->epoch)
		return 0;
	return grant->epoch;
}

bool
qdb_lease_grant(QdbPeer *peer, uint64 epoch)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);
	int64		until;

	if (grant == NULL || grant->epoch != epoch || grant->holder != peer->member ||
		grant->boot != peer->boot || grant->incarnation != peer->incarnation ||
		qdb_shared->promised != epoch || qdb_shared->promising != epoch ||
		!may_grant())
		return false;
	until = qdb_now_us() + grant->lease_ms * INT64CONST(1000);
	granted_until_us = Max(granted_until_us, until);
	granted_to = peer->member;
	granted_boot = peer->boot;
	return true;
}

void
qdb_lease_take(QdbPeer *peer, uint64 epoch, int64 sent_us)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);
	int64		until;

	/*
	 * The echo is bytes from outside: a time that has not been cannot be
	 * ours.
	 */
	if (grant == NULL || grant->epoch != epoch || !qdb_grant_is_ours(grant) ||
		sent_us <= qdb_co.started_us || sent_us > qdb_now_us())
		return;
	until = sent_us + grant->lease_ms * INT64CONST(1000);
	if (peer->lease_epoch != epoch || until > peer->lease_until_us)
		peer->lease_until_us = until;
	peer->lease_epoch = epoch;
}

static int64
count_lease(const QdbGrant *grant)
{
	QdbLeaseGrant grants[QDB_MAX_MEMBERS + 1];
	size_t		n = 0;

	grants[n].member = qdb_co.self.member;
	grants[n++].until_us = qdb_now_us() + grant->lease_ms * INT64CONST(1000);
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		const QdbPeer *peer = qdb_mesh_slot(i);

		if (peer->member == 0 || peer->lease_epoch != grant->epoch)
			continue;
		grants[n].member = peer->member;
		grants[n++].until_us = peer->lease_until_us;
	}
	return qdb_lease_until(qdb_co.state, grants, n);
}

void
qdb_lease_turn(void)
{
	uint64		epoch = qdb_lease_request();
	int64		until = 0;
	bool		fenced;
	bool		was_fenced;

	if (epoch != 0)
		until = count_lease(qdb_grant_of_epoch(qdb_co.state, epoch));
	pg_atomic_write_u64(&qdb_shared->lease_until, (uint64) Max(until, 0));

	fenced = qdb_co.handing_over || (qdb_shared->seat_epoch != 0 && until <= qdb_now_us());
	SpinLockAcquire(&qdb_shared->mutex);
	was_fenced = qdb_shared->fenced;
	qdb_shared->fenced = fenced;
	SpinLockRelease(&qdb_shared->mutex);
	if (fenced && !was_fenced && qdb_shared->open_epoch != 0 && !qdb_co.handing_over)
		ereport(LOG, (errmsg("[failover] the lease has run out: writes and strict reads are refused")));
	else if (!fenced && was_fenced && qdb_shared->open_epoch != 0)
		ereport(LOG, (errmsg("[failover] the lease is alive again")));
}

/* The longest lease that could have been granted before this process began. */
static int64
longest_lease_us(void)
{
	uint32		longest = qdb_co.state->settings.lease_ms;

	for (uint32 i = 0; i < qdb_co.state->ngrants; i++)
		longest = Max(longest, qdb_co.state->grants[i].lease_ms);
	return longest * INT64CONST(1000);
}

/*
 * The holder that a grant went to needs no wait where it cannot answer a strict
 * read any more: it is this node, it gave its seat up, or it said goodbye.
 * A refused port is no such proof: a backend may live longer than its coordinator.
 */
bool
qdb_lease_blocks_report(void)
{
	const QdbState *state = qdb_co.state;
	const QdbGrant *last = state->ngrants > 0 ? &state->grants[state->ngrants - 1] : NULL;
	QdbPeer    *peer;
	int64		until = Max(granted_until_us, qdb_co.started_us + longest_lease_us());

	if (last == NULL || last->holder == qdb_co.self.member)
		return false;
	if (qdb_co.released_epoch == last->epoch)
		return false;
	peer = qdb_mesh_peer(last->holder);
	if (peer != NULL && peer->goodbye_boot == last->boot && peer->incarnation == last->incarnation &&
		(granted_to == 0 || (granted_to == last->holder && granted_boot == last->boot)))
		return false;
	return qdb_now_us() <= until;
}
