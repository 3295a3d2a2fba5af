/*-------------------------------------------------------------------------
 *
 * quorum.c
 *		Majorities, the quorum LSN, leases, and who gets the seat.
 *
 * All counting goes through one list: the voters under a membership number.
 * Under an open change every answer is that of both numbers, the weaker one
 * (I13).  Nobody is taken out of a denominator because he is absent.
 *
 *-------------------------------------------------------------------------
 */
#include "core/quorum.h"

#include <stdio.h>
#include <string.h>

#include "core/rules.h"

/* Members and one that was removed. */
#define MAX_VOTERS	(QDB_MAX_MEMBERS + 1)

/*
 * The voters under the current number, or under the one before it; returns how
 * many there are.
 */
static size_t
list_voters(const QdbState *state, bool previous, uint64_t *ids)
{
	size_t		n = 0;

	for (uint32_t i = 0; i < state->nmembers; i++)
		if ((previous ? state->previous_roles[i] : state->members[i].role) == QDB_ROLE_VOTER)
			ids[n++] = state->members[i].id;
	if (previous && state->has_removed && state->removed.role == QDB_ROLE_VOTER)
		ids[n++] = state->removed.id;
	return n;
}

static bool
contains(const uint64_t *ids, size_t n, uint64_t id)
{
	for (size_t i = 0; i < n; i++)
		if (ids[i] == id)
			return true;
	return false;
}

/* How many more of the voters are in ids than a majority takes; < 0: none. */
static int
majority_margin(const QdbState *state, bool previous, const uint64_t *ids, size_t n)
{
	uint64_t	voters[MAX_VOTERS];
	size_t		nvoters = list_voters(state, previous, voters);
	int			present = 0;

	for (size_t i = 0; i < nvoters; i++)
		present += contains(ids, n, voters[i]);
	return present - (int) (nvoters / 2 + 1);
}

bool
qdb_is_majority(const QdbState *state, const uint64_t *ids, size_t n)
{
	return majority_margin(state, false, ids, n) >= 0 &&
		!QDB_KEEPS(QDB_RULE_BOTH_NUMBERS,
				   state->change_open && majority_margin(state, true, ids, n) < 0);
}

int
qdb_can_lose(const QdbState *state, const uint64_t *live, size_t n)
{
	int			margin = majority_margin(state, false, live, n);

	if (state->change_open)
	{
		int			previous = majority_margin(state, true, live, n);

		if (previous < margin)
			margin = previous;
	}
	return margin < 0 ? 0 : margin;
}

/* The least of what a member's entries say; 0 without an entry. */
static uint64_t
value_of(const QdbAck *values, size_t n, uint64_t member)
{
	uint64_t	value = 0;
	bool		found = false;

	for (size_t i = 0; i < n; i++)
		if (values[i].member == member && (!found || values[i].lsn < value))
		{
			value = values[i].lsn;
			found = true;
		}
	return value;
}

/* The greatest value that a majority of one number's voters has reached. */
static uint64_t
majority_value(const QdbState *state, bool previous, const QdbAck *values, size_t n)
{
	uint64_t	voters[MAX_VOTERS];
	uint64_t	sorted[MAX_VOTERS]; /* descending */
	size_t		nvoters = list_voters(state, previous, voters);

	if (nvoters == 0)
		return 0;
	for (size_t i = 0; i < nvoters; i++)
	{
		uint64_t	value = value_of(values, n, voters[i]);
		size_t		j = i;

		for (; j > 0 && sorted[j - 1] < value; j--)
			sorted[j] = sorted[j - 1];
		sorted[j] = value;
	}
	return sorted[nvoters / 2];
}

uint64_t
qdb_quorum_lsn(const QdbState *state, const QdbAck *acks, size_t n)
{
	uint64_t	lsn = majority_value(state, false, acks, n);	/* I5 */

	if (QDB_KEEPS(QDB_RULE_BOTH_NUMBERS, state->change_open))
	{
		uint64_t	previous = majority_value(state, true, acks, n);

		if (previous < lsn)
			lsn = previous;
	}
	return lsn;
}

/* The same count as for LSNs, over times. */
int64_t
qdb_lease_until(const QdbState *state, const QdbLeaseGrant *grants, size_t n)
{
	QdbAck		values[MAX_VOTERS];
	size_t		used = 0;

	for (size_t i = 0; i < n && used < MAX_VOTERS; i++)
	{
		values[used].member = grants[i].member;
		values[used++].lsn = grants[i].until_us > 0 ? (uint64_t) grants[i].until_us : 0;
	}
	return (int64_t) qdb_quorum_lsn(state, values, used);	/* I9 */
}

int
qdb_report_compare(const QdbReport *a, const QdbReport *b)
{
	if (QDB_KEEPS(QDB_RULE_LAST_EPOCH, a->last_epoch != b->last_epoch))
		return a->last_epoch < b->last_epoch ? -1 : 1;
	if (a->end_lsn != b->end_lsn)
		return a->end_lsn < b->end_lsn ? -1 : 1;
	return 0;
}

bool
qdb_report_is_prefix(const QdbState *state, const QdbReport *a, const QdbReport *b)
{
	uint32_t	timeline = b->last_timeline;
	uint64_t	limit = b->end_lsn;

	while (timeline != a->last_timeline)
	{
		const QdbGrant *grant = qdb_grant_of_timeline(state, timeline);

		if (grant == NULL || grant->parent_timeline == 0 || grant->parent_timeline >= timeline)
			return false;
		timeline = grant->parent_timeline;
		if (grant->fork < limit)
			limit = grant->fork;
	}
	return a->end_lsn <= limit;
}

bool
qdb_may_hold_seat(const QdbState *state, uint64_t id)
{
	const QdbMember *member = qdb_member_by_id(state, id);

	if (member == NULL || member->role != QDB_ROLE_VOTER || member->priority <= 0)
		return false;
	/* Paused: nobody but the last holder, and who was asked for. */
	return state->settings.auto_failover || state->ngrants == 0 || state->move.target == id ||
		state->grants[state->ngrants - 1].holder == id;
}

bool
qdb_is_maximum(const QdbState *state, const QdbReport *report)
{
	uint64_t	ids[QDB_MAX_MEMBERS];
	size_t		n = 0;

	for (uint32_t i = 0; i < state->nreports; i++)
		if (qdb_report_compare(&state->reports[i], report) <= 0)
			ids[n++] = state->reports[i].member;
	return !QDB_KEEPS(QDB_RULE_MAXIMUM, n < state->nreports && !qdb_is_majority(state, ids, n));
}

bool
qdb_is_forced(const QdbState *state, uint64_t member)
{
	return member != 0 && state->move.force && state->move.target == member;
}

/* Is the first one to be preferred?  Both may hold the seat. */
static bool
is_better(const QdbState *state, const QdbReport *a, const QdbReport *b)
{
	const QdbMember *ma = qdb_member_by_id(state, a->member);
	const QdbMember *mb = qdb_member_by_id(state, b->member);
	int			order = qdb_report_compare(a, b);

	if (qdb_is_forced(state, a->member) || qdb_is_forced(state, b->member))
		return qdb_is_forced(state, a->member);
	if (order != 0)
		return order > 0;
	if (a->member == state->move.target || b->member == state->move.target)
		return a->member == state->move.target;
	if (ma->priority != mb->priority)
		return ma->priority > mb->priority;
	return ma->id < mb->id;
}

static void
fill_grant(const QdbState *state, const QdbReport *report, QdbGrant *grant)
{
	memset(grant, 0, sizeof(*grant));
	grant->epoch = state->epoch;
	grant->timeline = state->greatest_timeline + 1; /* I1 */
	grant->parent_timeline = report->last_timeline;
	grant->fork = report->end_lsn;
	grant->holder = report->member;
	grant->incarnation = report->incarnation;
	grant->boot = report->boot;
	grant->lease_ms = state->settings.lease_ms;
}

bool
qdb_choose_seat(const QdbState *state, QdbEligible eligible, void *arg,
				QdbGrant *grant, char *why, size_t why_size)
{
	uint64_t	ids[QDB_MAX_MEMBERS];
	const QdbReport *best = NULL;

	for (uint32_t i = 0; i < state->nreports; i++)
		ids[i] = state->reports[i].member;
	if (!state->epoch_open ||
		QDB_KEEPS(QDB_RULE_REPORT_MAJORITY, !qdb_is_majority(state, ids, state->nreports)))
	{
		snprintf(why, why_size, "%s", state->epoch_open ?
				 "a majority of the voters has not reported yet" : "no epoch is open");
		return false;
	}
	for (uint32_t i = 0; i < state->nreports; i++)
	{
		const QdbReport *report = &state->reports[i];

		if (report->last_epoch > 0 && qdb_may_hold_seat(state, report->member) &&
			(qdb_is_forced(state, report->member) || qdb_is_maximum(state, report)) &&	/* I6 */
			(best == NULL || is_better(state, report, best)) && eligible(report->member, arg))
			best = report;
	}
	if (best == NULL)
	{
		snprintf(why, why_size, "no member whose WAL is the greatest of a majority can be primary now");
		return false;
	}
	fill_grant(state, best, grant);
	if (why_size > 0)
		why[0] = '\0';
	return true;
}
