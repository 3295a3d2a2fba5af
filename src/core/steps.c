/*-------------------------------------------------------------------------
 *
 * steps.c
 *		What one node may do, by what the replicated state says.
 *
 *	state				this node				step
 *	epoch open			not in recovery			stop
 *	epoch open			promoting				stop
 *	epoch open			in recovery				answer
 *	seated, ours		in recovery				promote
 *	seated, ours		promoted				take the seat, then the gate
 *	seated, another's	not in recovery			stop
 *	seated, another's	promoting				stop
 *	seated, another's	in recovery				follow
 *
 * Every step may be repeated.  A node whose log is behind its own promise, or
 * behind the seat that it has taken, does nothing: what it sees is the past.
 *
 *-------------------------------------------------------------------------
 */
#include "core/steps.h"

#include "core/rules.h"

/*
 * Two clocks that both count a lease may differ by one part in this many
 * (16 ms in a second; a machine that slews its clock stays below 1 ms).
 */
#define DRIFT_PART		64

bool
qdb_grant_is_of(const QdbGrant *grant, const QdbBoot *boot)
{
	return grant->holder == boot->member && grant->incarnation == boot->incarnation &&
		!QDB_KEEPS(QDB_RULE_NAMED_BOOT, grant->boot != boot->boot);
}

/*
 * Nobody else can have such WAL: it was written in one boot, and nothing of a
 * timeline is sent before its epoch record is flushed.  What comes before it is
 * the log that won the grant, so it holds every commit of an earlier epoch (I7).  If it did
 * not count, a holder that has replayed it could never be promoted from the fork
 * again, and where nobody else has as much the cluster would stay closed.
 */
bool
qdb_start_counts(const QdbGrant *grant, const QdbBoot *self)
{
	return QDB_KEEPS(QDB_RULE_OWN_START, grant->holder == self->member &&
					 grant->incarnation == self->incarnation && grant->boot <= self->boot);
}

bool
qdb_counts_as_voter(const QdbState *state, uint64_t member)
{
	for (uint32_t i = 0; i < state->nmembers; i++)
		if (state->members[i].id == member)
			return state->members[i].role == QDB_ROLE_VOTER ||
				(state->change_open && state->previous_roles[i] == QDB_ROLE_VOTER);
	return false;
}

/* The holder's own way from a grant to an open gate. */
static QdbNodeStep
seat_step(const QdbState *state, const QdbNodeView *view, const QdbGrant *grant)
{
	if (view->in_recovery)
		return QDB_STEP_PROMOTE;
	if (view->promised != grant->epoch)
		return QDB_STEP_NONE;
	if (view->seat_epoch != grant->epoch)
		return QDB_STEP_TAKE_SEAT;
	if (!grant->opened)
		return QDB_KEEPS(QDB_RULE_GATE, view->quorum_epoch != grant->epoch ||
						 view->quorum_lsn < view->record_end) ?
			QDB_STEP_NONE : QDB_STEP_PROPOSE_GATE;	/* I8 */
	if (view->open_epoch != grant->epoch && !state->seat_released)
		return QDB_STEP_OPEN_GATE;
	return QDB_STEP_NONE;
}

/*
 * A promotion that was begun for a seat which is superseded now.  Startup would
 * still end recovery, wherever it is by then: on a timeline of its own, past WAL
 * that was taken and acknowledged meanwhile, which then counts for nobody.
 */
static bool
ends_recovery(const QdbNodeView *view)
{
	return QDB_KEEPS(QDB_RULE_PROMOTING, view->promoting);
}

QdbNodeStep
qdb_node_step(const QdbState *state, const QdbNodeView *view)
{
	const QdbGrant *grant = qdb_current_grant(state);

	if (state->epoch == 0 || state->epoch < view->promised || state->epoch < view->seat_epoch)
		return QDB_STEP_NONE;
	if (qdb_member_by_id(state, view->self.member) == NULL)
		return view->self.member < state->next_member_id ? QDB_STEP_LEAVE : QDB_STEP_NONE;
	if (grant == NULL)
	{
		/* The seat of this very epoch is ours: a log that is applied again. */
		if (view->seat_epoch == state->epoch)
			return QDB_STEP_NONE;
		return view->in_recovery && !ends_recovery(view) ? QDB_STEP_ANSWER : QDB_STEP_STOP;
	}
	if (qdb_grant_is_of(grant, &view->self))
		return seat_step(state, view, grant);
	if (!view->in_recovery || ends_recovery(view))
		return QDB_STEP_STOP;
	/* Ours, of an earlier boot: the leader will open a new epoch (I1). */
	return grant->holder == view->self.member ? QDB_STEP_NONE : QDB_STEP_FOLLOW;
}

bool
qdb_history_limit(const QdbState *state, const QdbGrant *grant, uint32_t timeline, uint64_t *limit)
{
	*limit = UINT64_MAX;
	while (grant != NULL)
	{
		if (grant->timeline == timeline)
			return true;
		if (grant->parent_timeline == 0 || grant->parent_timeline >= grant->timeline)
			return false;
		if (grant->fork < *limit)
			*limit = grant->fork;
		if (grant->parent_timeline == timeline)
			return true;
		grant = qdb_grant_of_timeline(state, grant->parent_timeline);
	}
	return false;
}

bool
qdb_may_take_wal(uint64_t epoch, uint64_t held, uint64_t promised, uint64_t promising)
{
	return !QDB_KEEPS(QDB_RULE_TAKE_WAL,
					  promising != epoch || promised != epoch || held != epoch);	/* I2 */
}

bool
qdb_ack_counts(const QdbAckName *ack, uint64_t ack_membership,
			   const QdbAckName *stream, uint64_t membership)
{
	return !QDB_KEEPS(QDB_RULE_ACK_NAMES,
					  ack->epoch != stream->epoch || ack->incarnation != stream->incarnation ||
					  ack->boot != stream->boot || ack->connection != stream->connection ||
					  ack_membership > membership);
}

bool
qdb_counts_by(const QdbState *state, uint64_t epoch)
{
	return !QDB_KEEPS(QDB_RULE_OWN_NUMBERS, state->epoch != epoch);
}

void
qdb_quorum_advance(QdbQuorum *quorum, uint64_t epoch, uint64_t counted, uint64_t membership)
{
	if (quorum->epoch != epoch)
	{
		quorum->epoch = epoch;
		quorum->lsn = 0;
		quorum->membership = 0;
	}
	if (QDB_KEEPS(QDB_RULE_NEVER_BACK, counted < quorum->lsn))
		return;
	quorum->lsn = counted;
	if (counted != 0)
		quorum->membership = membership;
}

/*
 * Voters grant, and learners: their grants count for nothing until they vote,
 * but then the holder's lease must not wait for a round trip.
 */
bool
qdb_lease_may_grant(const QdbState *state, uint64_t self, const QdbBoot *asker,
					uint64_t epoch, uint64_t promised, uint64_t promising)
{
	const QdbGrant *grant = qdb_current_grant(state);
	const QdbMember *member = qdb_member_by_id(state, self);

	if (grant == NULL || grant->epoch != epoch || !qdb_grant_is_of(grant, asker) ||
		promised != epoch || promising != epoch)
		return false;
	if (QDB_KEEPS(QDB_RULE_LEASE_RELEASE, state->seat_released))
		return false;
	return (member != NULL && member->role == QDB_ROLE_LEARNER) || qdb_counts_as_voter(state, self);
}

void
qdb_lease_note(QdbLeaseBook *book, const QdbGrant *grant, int64_t now_us)
{
	int64_t		until = now_us + grant->lease_ms * INT64_C(1000);

	if (until > book->until_us)
		book->until_us = until;
	book->member = grant->holder;
	book->boot = grant->boot;
}

int64_t
qdb_lease_counted_us(const QdbGrant *grant)
{
	int64_t		us = grant->lease_ms * INT64_C(1000);

	return QDB_KEEPS(QDB_RULE_LEASE_DRIFT, true) ? us - us / DRIFT_PART : us;
}

/* The longest lease that could have been given before this process began. */
static int64_t
longest_lease_us(const QdbState *state)
{
	uint32_t	longest = state->settings.lease_ms;

	for (uint32_t i = 0; i < state->ngrants; i++)
		if (state->grants[i].lease_ms > longest)
			longest = state->grants[i].lease_ms;
	return longest * INT64_C(1000);
}

/*
 * The holder that a grant went to needs no wait where it cannot answer a strict read any
 * more: it is this node, it gave its seat up, or it said goodbye.  A refused
 * port is no such proof: a backend may live longer than its coordinator.
 */
bool
qdb_lease_blocks(const QdbState *state, uint64_t self, const QdbLeaseBook *book,
				 uint64_t released, const QdbBoot *goodbye, int64_t now_us)
{
	const QdbGrant *last = state->ngrants > 0 ? &state->grants[state->ngrants - 1] : NULL;
	int64_t		until = book->started_us + longest_lease_us(state);

	if (last == NULL || last->holder == self || released == last->epoch)
		return false;
	if (qdb_grant_is_of(last, goodbye) &&
		(book->member == 0 || (book->member == last->holder && book->boot == last->boot)))
		return false;
	if (!QDB_KEEPS(QDB_RULE_LEASE_RESTART, until > book->until_us))
		until = book->until_us;
	return QDB_KEEPS(QDB_RULE_LEASE_WAIT, now_us <= until);
}
