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

static QdbLeaseBook book;

uint64
qdb_lease_request(void)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);

	if (grant == NULL || !qdb_grant_is_ours(grant) || qdb_co.handing_over ||
		qdb_co.state->seat_released || qdb_shared->releasing_epoch == grant->epoch ||
		qdb_shared->seat_epoch != grant->epoch)
		return 0;
	return grant->epoch;
}

bool
qdb_lease_grant(QdbPeer *peer, uint64 epoch)
{
	QdbBoot		asker = {peer->member, peer->incarnation, peer->boot};

	if (!qdb_lease_may_grant(qdb_co.state, qdb_co.self.member, &asker, epoch,
							 qdb_shared->promised, qdb_shared->promising))
		return false;
	qdb_lease_note(&book, qdb_current_grant(qdb_co.state), qdb_now_us());
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
	until = sent_us + qdb_lease_counted_us(grant);
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
	grants[n++].until_us = qdb_now_us() + qdb_lease_counted_us(grant);
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

/*
 * A fence for want of a lease is one for want of a majority, so the journal
 * learns of it only when it is over.
 */
static void
tell_fence(bool fenced, bool was_fenced)
{
	static int64 since_us = 0;	/* 0: no such fence */
	char		text[QDB_REASON_SIZE];

	if (fenced && !was_fenced && !qdb_co.handing_over)
	{
		since_us = qdb_now_us();
		ereport(LOG, (errmsg("[failover] Fenced: the lease has run out, writes and strict reads are refused"),
					  errdetail("A majority of the voters does not answer this node.")));
	}
	else if (!fenced && was_fenced && since_us != 0)
	{
		snprintf(text, sizeof(text), "its lease had run out: it refused writes and strict reads for " INT64_FORMAT " ms",
				 (qdb_now_us() - since_us) / 1000);
		since_us = 0;
		ereport(LOG, (errmsg("[failover] The lease is alive again: writes are accepted")));
		qdb_note_event("fence", qdb_co.self.name, text);
	}
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
	if (qdb_shared->open_epoch != 0)
		tell_fence(fenced, was_fenced);
}

bool
qdb_lease_blocks_report(void)
{
	const QdbState *state = qdb_co.state;
	QdbPeer    *peer;
	QdbBoot		goodbye = {0};

	if (state->ngrants > 0)
	{
		peer = qdb_mesh_peer(state->grants[state->ngrants - 1].holder);
		if (peer != NULL && peer->goodbye_boot != 0)
			goodbye = (QdbBoot)
		{
			peer->member, peer->incarnation, peer->goodbye_boot
		};
	}
	book.started_us = qdb_co.started_us;
	return qdb_lease_blocks(state, qdb_co.self.member, &book, qdb_co.released_epoch,
							&goodbye, qdb_now_us());
}
