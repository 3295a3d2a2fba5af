/*-------------------------------------------------------------------------
 *
 * move.c
 *		A promotion that somebody asks for: may it be tried, and what did it
 *		cost.
 *
 * Judged from any node's view of the cluster, so that a user gets an answer
 * where he asks.  What is refused here costs nothing; what passes may still fail,
 * since the state decides when the MOVE is applied, and the reports after it.
 *
 *-------------------------------------------------------------------------
 */
#include "core/failover.h"

#include <stdio.h>
#include <string.h>

static const QdbPeerView *
find_peer(const QdbLeaderView *view, uint64_t member)
{
	for (size_t i = 0; i < view->npeers && i < QDB_MAX_MEMBERS; i++)
		if (view->peers[i].member == member)
			return &view->peers[i];
	return NULL;
}

static bool
is_connected(const QdbLeaderView *view, uint64_t member)
{
	const QdbPeerView *peer = find_peer(view, member);

	return member == view->self || (peer != NULL && peer->connected);
}

static bool
has_majority(const QdbState *state, const QdbLeaderView *view)
{
	uint64_t	ids[QDB_MAX_MEMBERS];
	size_t		n = 0;

	for (size_t i = 0; i < view->npeers && i < QDB_MAX_MEMBERS; i++)
		if (is_connected(view, view->peers[i].member))
			ids[n++] = view->peers[i].member;
	return qdb_is_majority(state, ids, n);
}

static void
say(char *why, char *hint, const char *why_text, const char *hint_text)
{
	snprintf(why, QDB_REASON_SIZE, "%s", why_text);
	snprintf(hint, QDB_REASON_SIZE, "%s", hint_text);
}

/* What no force changes. */
static QdbResult
judge_target(const QdbState *state, const QdbLeaderView *view, const QdbMember *target,
			 char *why, char *hint)
{
	const QdbPeerView *peer = find_peer(view, target->id);

	if (target->role != QDB_ROLE_VOTER)
	{
		snprintf(why, QDB_REASON_SIZE, "node \"%s\" is no voter but a %s", target->name,
				 target->role == QDB_ROLE_LEARNER ? "learner" : "replica");
		snprintf(hint, QDB_REASON_SIZE, "%s", target->role == QDB_ROLE_LEARNER ?
				 "It becomes a voter when it has caught up, in a pair with another learner." :
				 "Make it a voter first: quantadb_set_role().");
		return QDB_NOT_VOTER;
	}
	if (target->priority <= 0)
	{
		say(why, hint, "its priority is 0, which means never primary",
			"Set quantadb.priority on that node above 0 and reload.");
		return QDB_PRIORITY_ZERO;
	}
	if (!has_majority(state, view))
	{
		say(why, hint, "no majority of the voters can be reached from here, so nothing can be decided; nothing was changed",
			"Bring voters back. If they are gone for good, see quantadb_recover().");
		return QDB_NO_MAJORITY;
	}
	if (!is_connected(view, target->id))
	{
		snprintf(why, QDB_REASON_SIZE, "node \"%s\" is not connected", target->name);
		snprintf(hint, QDB_REASON_SIZE, "%s", "Start it, or promote another one; the view quantadb_nodes shows them.");
		return QDB_NO_MAJORITY;
	}
	if (peer != NULL && !peer->able)
	{
		snprintf(why, QDB_REASON_SIZE, "node \"%s\" cannot be primary: %s", target->name,
				 peer->why_not != NULL && peer->why_not[0] != '\0' ? peer->why_not : "it does not say why");
		snprintf(hint, QDB_REASON_SIZE, "%s", "The column why_not of quantadb_nodes shows it for every node.");
		return QDB_BAD_VALUE;
	}
	return QDB_OK;
}

static QdbResult
judge_planned(const QdbState *state, const QdbMember *target, char *why, char *hint)
{
	const QdbGrant *grant = qdb_current_grant(state);

	if (!state->settings.auto_failover &&
		(state->ngrants == 0 || state->grants[state->ngrants - 1].holder != target->id))
	{
		say(why, hint, "the cluster is paused, and then only the last primary gets the seat",
			"Call quantadb_resume() first, or use force.");
		return QDB_PAUSED;
	}
	if (grant == NULL || !grant->opened || state->seat_released)
	{
		say(why, hint, "a failover is under way",
			"Wait until quantadb_status() shows a primary; force does not wait.");
		return QDB_CHANGE_OPEN;
	}
	if (state->change_open)
	{
		say(why, hint, "a change of the membership is under way", "Try again in a few seconds.");
		return QDB_CHANGE_OPEN;
	}
	if (state->move.target != 0 && state->move.target != target->id)
	{
		say(why, hint, "the promotion of another node is under way",
			"The view quantadb_journal shows it. Try again in a few seconds.");
		return QDB_MOVE_OPEN;
	}
	return QDB_OK;
}

QdbResult
qdb_judge_move(const QdbState *state, const QdbLeaderView *view, uint64_t id,
			   bool force, char *why, char *hint)
{
	const QdbGrant *grant = qdb_current_grant(state);
	const QdbMember *target = qdb_member_by_id(state, id);
	QdbResult	result;

	why[0] = hint[0] = '\0';
	if (target == NULL)
	{
		say(why, hint, "there is no such node", "The members are listed in the view quantadb_nodes.");
		return QDB_NO_MEMBER;
	}
	if (grant != NULL && grant->opened && !state->seat_released && grant->holder == id &&
		is_connected(view, id))
		return QDB_UNCHANGED;
	result = judge_target(state, view, target, why, hint);
	if (result == QDB_OK && !force)
		result = judge_planned(state, target, why, hint);
	return result;
}

void
qdb_tell_loss(const QdbState *state, const QdbGrant *grant, char *text, size_t size)
{
	const QdbReport *won = qdb_report_of(state, grant->holder);
	const QdbReport *most = NULL;
	const QdbMember *member;

	text[0] = '\0';

	for (uint32_t i = 0; i < state->nreports; i++)
		if (most == NULL || qdb_report_compare(&state->reports[i], most) > 0)
			most = &state->reports[i];
	if (won == NULL || grant->epoch != state->epoch || qdb_report_compare(most, won) <= 0)
		return;
	member = qdb_member_by_id(state, most->member);
	if (most->last_timeline == won->last_timeline)
		snprintf(text, size, "%llu bytes of WAL are given up: %s has it up to %X/%X, the new primary up to %X/%X",
				 (unsigned long long) (most->end_lsn - won->end_lsn), member == NULL ? "?" : member->name,
				 (unsigned) (most->end_lsn >> 32), (unsigned) most->end_lsn,
				 (unsigned) (won->end_lsn >> 32), (unsigned) won->end_lsn);
	else
		snprintf(text, size, "WAL is given up: %s has it in epoch %llu up to %X/%X, the new primary in epoch %llu up to %X/%X",
				 member == NULL ? "?" : member->name, (unsigned long long) most->last_epoch,
				 (unsigned) (most->end_lsn >> 32), (unsigned) most->end_lsn,
				 (unsigned long long) won->last_epoch,
				 (unsigned) (won->end_lsn >> 32), (unsigned) won->end_lsn);
}
