/*-------------------------------------------------------------------------
 *
 * health.c
 *		From signs to sickness and back.
 *
 * Time in which nobody looked counts as none: a node whose every process was stopped,
 * or that got no CPU, is slow but not sick.
 *
 * A write that does not end is one thing; writes that each take a second are
 * another, and cost as much.  So the time in which one was stuck for longer than
 * STUCK_US is summed up, and shrinks ten times slower.
 *
 * A disk without room at the first look counts at once: who has just demoted because of
 * it forgot that with its old coordinator, and must not be chosen in the meantime.
 *
 *-------------------------------------------------------------------------
 */
#include "core/health.h"

#include <stdio.h>

#define MAX_STEP_US		INT64_C(1000000)	/* more between two looks was not
											 * watched */
#define STUCK_US		INT64_C(500000) /* a write may take so long */
#define FULL_US			INT64_C(1000000)

static void
look_at_writes(QdbHealth *health, const QdbSigns *signs, int64_t step)
{
	bool		same = signs->writing && health->stuck && signs->flush == health->flush;

	if (!same)
		health->stuck_since_us = signs->now_us;
	else
	{
		/* What was not watched does not count. */
		health->stuck_since_us += signs->now_us - health->seen_us - step;
		if (signs->now_us - health->stuck_since_us > STUCK_US)
			health->stuck_sum_us += step;
	}
	if (!same || signs->now_us - health->stuck_since_us <= STUCK_US)
		health->stuck_sum_us -= step / 10;
	if (health->stuck_sum_us < 0)
		health->stuck_sum_us = 0;
	health->stuck = signs->writing;
	health->flush = signs->flush;
}

static QdbSickness
judge(const QdbHealth *health, const QdbSigns *signs, const QdbSignLimits *limits)
{
	if (limits->stall_us > 0 && health->stuck &&
		signs->now_us - health->stuck_since_us >= limits->stall_us)
		return QDB_SICK_WAL;
	if (limits->stall_us > 0 && health->stuck_sum_us >= 2 * limits->stall_us)
		return QDB_SICK_WAL;
	if (limits->free_bytes > 0 && health->full_us >= FULL_US)
		return QDB_SICK_DISK;
	if (limits->stall_us > 0 && health->deaf_us >= limits->stall_us)
		return QDB_SICK_POSTMASTER;
	return QDB_WELL;
}

/* A disk that gets room must get some more than it had when it was full. */
static bool
has_room(const QdbHealth *health, const QdbSigns *signs, const QdbSignLimits *limits)
{
	uint64_t	limit = limits->free_bytes;

	return signs->free_bytes == UINT64_MAX ||
		signs->free_bytes / (health->sickness == QDB_SICK_DISK ? 2 : 1) >= limit;
}

QdbSickness
qdb_health_look(QdbHealth *health, const QdbSigns *signs, const QdbSignLimits *limits)
{
	bool		first = health->seen_us == 0;
	int64_t		step = first ? 0 : signs->now_us - health->seen_us;
	QdbSickness now;

	if (step > MAX_STEP_US)
		step = 0;
	look_at_writes(health, signs, step);
	if (has_room(health, signs, limits))
		health->full_us = 0;
	else
		health->full_us = first ? FULL_US : health->full_us + step;
	health->deaf_us = signs->asked_us == 0 ? 0 : health->deaf_us + step;
	health->seen_us = signs->now_us;

	now = judge(health, signs, limits);
	if (now != QDB_WELL)
		health->well_since_us = 0;
	else if (health->well_since_us == 0)
		health->well_since_us = signs->now_us;
	if (now != QDB_WELL)
		health->sickness = now;
	else if (signs->now_us - health->well_since_us >= QDB_HEALTHY_US)
		health->sickness = QDB_WELL;
	return health->sickness;
}

void
qdb_health_text(const QdbHealth *health, const QdbSigns *signs, const QdbSignLimits *limits,
				char *text, size_t size)
{
	QdbSickness now = judge(health, signs, limits);
	long long	ms = (long long) (limits->stall_us / 1000);

	text[0] = '\0';

	if (health->sickness == QDB_WELL)
		return;
	if (now != health->sickness)
		snprintf(text, size, "%s, not long enough ago",
				 health->sickness == QDB_SICK_WAL ? "its WAL did not reach the disk in time" :
				 health->sickness == QDB_SICK_DISK ? "its disk was full" : "its postmaster did not answer");
	else if (now == QDB_SICK_WAL)
		snprintf(text, size, "its WAL does not reach the disk: a write takes more than %lld ms, or many are slow", ms);
	else if (now == QDB_SICK_DISK)
		snprintf(text, size, "its disk is full: %llu MB are left, %llu are wanted",
				 (unsigned long long) (signs->free_bytes >> 20), (unsigned long long) (limits->free_bytes >> 20));
	else
		snprintf(text, size, "its postmaster does not answer: no new session for %lld ms", ms);
}

bool
qdb_health_gives_up(const QdbState *state, const QdbLeaderView *view, bool quorum_has_all)
{
	const QdbGrant *grant = qdb_current_grant(state);
	uint64_t	ids[QDB_MAX_MEMBERS];
	size_t		n = 0;
	bool		found = false;

	if (grant == NULL || grant->holder != view->self || !grant->opened || state->seat_released ||
		!state->settings.auto_failover || state->change_open || state->move.target != 0 ||
		(qdb_is_async(state) && !quorum_has_all))
		return false;
	for (size_t i = 0; i < view->npeers && i < QDB_MAX_MEMBERS; i++)
	{
		const QdbPeerView *peer = &view->peers[i];
		const QdbMember *m = qdb_member_by_id(state, peer->member);

		if (peer->member == view->self || m == NULL || m->role != QDB_ROLE_VOTER ||
			!peer->connected || peer->gone)
			continue;
		ids[n++] = peer->member;
		found = found || (peer->able && m->priority > 0);
	}
	/* They must be able to decide without a word from this node. */
	return found && qdb_is_majority(state, ids, n);
}
