/*-------------------------------------------------------------------------
 *
 * rehearse.c
 *		What a failover to a member would cost now.
 *
 * The choice follows the rules of qdb_choose_seat, with the positions that were last
 * heard in the place of reports: a scan may still find more.
 *
 *-------------------------------------------------------------------------
 */
#include "core/rehearse.h"

#include <stdio.h>

static const QdbRehearsalNode *
find_node(const QdbRehearsalNode *nodes, size_t n, uint64_t member)
{
	for (size_t i = 0; i < n; i++)
		if (nodes[i].member == member)
			return &nodes[i];
	return NULL;
}

/* Would it be there, and vote, without the primary? */
static bool
survives(const QdbState *state, const QdbRehearsalNode *node, uint64_t primary)
{
	const QdbMember *member = qdb_member_by_id(state, node->member);

	return member != NULL && member->role == QDB_ROLE_VOTER && node->connected && node->member != primary;
}

static bool
is_better(const QdbState *state, const QdbRehearsalNode *a, const QdbRehearsalNode *b)
{
	const QdbMember *ma = qdb_member_by_id(state, a->member);
	const QdbMember *mb = qdb_member_by_id(state, b->member);

	if (a->wal_end != b->wal_end)
		return a->wal_end > b->wal_end;
	if (ma->priority != mb->priority)
		return ma->priority > mb->priority;
	return ma->id < mb->id;
}

static const QdbRehearsalNode *
choose(const QdbState *state, const QdbRehearsalNode *nodes, size_t n, uint64_t primary)
{
	const QdbRehearsalNode *best = NULL;
	uint64_t	ids[QDB_MAX_MEMBERS];
	size_t		nids = 0;

	for (size_t i = 0; i < n && i < QDB_MAX_MEMBERS; i++)
	{
		if (!survives(state, &nodes[i], primary))
			continue;
		ids[nids++] = nodes[i].member;
		if (nodes[i].why_not[0] == '\0' && nodes[i].wal_end != 0 &&
			qdb_member_by_id(state, nodes[i].member)->priority > 0 &&
			(best == NULL || is_better(state, &nodes[i], best)))
			best = &nodes[i];
	}
	return qdb_is_majority(state, ids, nids) ? best : NULL;
}

static void
explain(const QdbState *state, const QdbRehearsalNode *target, const QdbRehearsalNode *chosen,
		uint64_t primary, QdbRehearsal *r)
{
	const QdbMember *winner = chosen != NULL ? qdb_member_by_id(state, chosen->member) : NULL;

	if (target->member == primary)
		snprintf(r->why_not, sizeof(r->why_not), "it is the primary");
	else if (target->why_not[0] != '\0')
		snprintf(r->why_not, sizeof(r->why_not), "%s", target->why_not);
	else if (chosen == NULL)
		snprintf(r->why_not, sizeof(r->why_not), "without the primary no majority of the voters would be left");
	else if (!state->settings.auto_failover)
		snprintf(r->why_not, sizeof(r->why_not), "the cluster is paused: there is no failover");
	else if (r->loss_bytes > 0 && (uint64_t) r->loss_bytes > state->settings.max_lag_bytes)
		snprintf(r->why_not, sizeof(r->why_not), "it would lose %lld bytes, max_lag_on_failover is %llu",
				 (long long) r->loss_bytes, (unsigned long long) state->settings.max_lag_bytes);
	else if (chosen->member != target->member && chosen->wal_end > target->wal_end)
		snprintf(r->why_not, sizeof(r->why_not), "%s has %llu bytes more", winner->name,
				 (unsigned long long) (chosen->wal_end - target->wal_end));
	else if (chosen->member != target->member)
		snprintf(r->why_not, sizeof(r->why_not), "%s has as much WAL and comes first by priority or number", winner->name);
}

void
qdb_rehearse(const QdbState *state, const QdbRehearsalNode *nodes, size_t n,
			 uint64_t target, QdbRehearsal *r)
{
	const QdbGrant *grant = qdb_current_grant(state);
	uint64_t	primary = grant != NULL && grant->opened && !state->seat_released ? grant->holder : 0;
	const QdbRehearsalNode *node = find_node(nodes, n, target);
	const QdbRehearsalNode *holder = find_node(nodes, n, primary);
	const QdbRehearsalNode *chosen = choose(state, nodes, n, primary);
	int64_t		silence = (int64_t) state->settings.failover_ms * 1000;

	*r = (QdbRehearsal)
	{
		.chosen = chosen != NULL ? chosen->member : 0,
			.bytes_behind = -1,.replay_lag_us = -1,.failover_us = -1,.switchover_us = -1,.loss_bytes = -1
	};
	if (node == NULL)
	{
		snprintf(r->why_not, sizeof(r->why_not), "it is not known here");
		return;
	}
	if (holder != NULL && holder->wal_end != 0 && node->wal_end != 0)
		r->bytes_behind = holder->wal_end > node->wal_end ? (int64_t) (holder->wal_end - node->wal_end) : 0;
	r->replay_lag_us = target == primary ? 0 : node->lag_us;
	/* Under quorum whoever may win has all that was acknowledged (I7). */
	r->loss_bytes = qdb_is_async(state) ? r->bytes_behind : 0;
	if (grant != NULL && r->replay_lag_us >= 0 && target != primary)
	{
		/* Its lease ends within the silence, or is waited for. */
		if ((int64_t) grant->lease_ms * 1000 > silence)
			silence = (int64_t) grant->lease_ms * 1000;
		r->failover_us = silence + r->replay_lag_us;
		r->switchover_us = r->replay_lag_us;
	}
	explain(state, node, chosen, primary, r);
}
