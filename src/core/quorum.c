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

/* The greatest report; NULL without any. */
static const QdbReport *
find_maximum(const QdbState *state)
{
	const QdbReport *maximum = NULL;

	for (uint32_t i = 0; i < state->nreports; i++)
		if (maximum == NULL || qdb_report_compare(&state->reports[i], maximum) > 0)
			maximum = &state->reports[i];
	return maximum;
}

/* May this reporter hold the seat, and does it win over the one found so far? */
static bool
is_better(const QdbState *state, const QdbMember *member, const QdbMember *best)
{
	if (member == NULL || member->role != QDB_ROLE_VOTER || member->priority <= 0)
		return false;

	/* Paused: nobody but the last holder. */
	if (!state->settings.auto_failover && state->ngrants > 0 &&
		state->grants[state->ngrants - 1].holder != member->id)
		return false;
	if (best == NULL || member->priority != best->priority)
		return best == NULL || member->priority > best->priority;
	return member->id < best->id;
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
	const QdbReport *maximum = find_maximum(state);
	const QdbMember *best = NULL;

	for (uint32_t i = 0; i < state->nreports; i++)
		ids[i] = state->reports[i].member;
	if (!state->epoch_open || maximum == NULL || QDB_KEEPS(QDB_RULE_REPORT_MAJORITY, !qdb_is_majority(state, ids, state->nreports)))
	{
		snprintf(why, why_size, "%s", state->epoch_open ?
				 "a majority of the voters has not reported yet" : "no epoch is open");
		return false;
	}
	for (uint32_t i = 0; i < state->nreports && maximum->last_epoch > 0; i++)
	{
		const QdbMember *member = qdb_member_by_id(state, ids[i]);

		if (!QDB_KEEPS(QDB_RULE_MAXIMUM,
					   qdb_report_compare(&state->reports[i], maximum) != 0) && /* I6 */
			is_better(state, member, best) && eligible(member->id, arg))
			best = member;
	}
	if (best == NULL)
	{
		snprintf(why, why_size, "no member whose WAL is the greatest of a majority can be primary now");
		return false;
	}
	fill_grant(state, qdb_report_of(state, best->id), grant);
	if (why_size > 0)
		why[0] = '\0';
	return true;
}
