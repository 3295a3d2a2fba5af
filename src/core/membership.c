/*-------------------------------------------------------------------------
 *
 * membership.c
 *		From a wish about a member to the commands that bring it about.
 *
 *	replica -> voter		learner, alone; the leader makes it a voter once it has caught
 *							up (I11), whether or not that leaves an even number
 *	voter -> replica		one numbered change
 *	voter, here -> gone		replica first; removed when that change is closed
 *	anything else -> gone	removed
 *
 * A voter that lives hands its vote back before it is removed: while a change is
 * open the primary counts under both numbers (I13), and a node that is gone acks
 * nothing.  Of two voters neither could leave otherwise.
 *
 *-------------------------------------------------------------------------
 */
#include "core/membership.h"

#include <stdio.h>
#include <string.h>

static QdbResult
refuse(QdbResult result, char *why, char *hint, const char *why_text, const char *hint_text)
{
	snprintf(why, QDB_REASON_SIZE, "%s", why_text);
	snprintf(hint, QDB_REASON_SIZE, "%s", hint_text);
	return result;
}

static uint32_t
count_role(const QdbState *state, uint8_t role)
{
	uint32_t	n = 0;

	for (uint32_t i = 0; i < state->nmembers; i++)
		n += state->members[i].role == role;
	return n;
}

/* Learners that will vote without waiting for a second one. */
static uint32_t
count_alone(const QdbState *state, uint64_t except)
{
	uint32_t	n = 0;

	for (uint32_t i = 0; i < state->nmembers; i++)
		n += state->members[i].role == QDB_ROLE_LEARNER && state->members[i].alone &&
			state->members[i].id != except;
	return n;
}

/* Learners without a partner fill an even number up, so only what stays even is told. */
static void
warn_even(const QdbState *state, const QdbMember *member, bool joins, char *warning)
{
	uint32_t	voters = count_role(state, QDB_ROLE_VOTER) + count_alone(state, member->id);
	uint32_t	waiting = count_role(state, QDB_ROLE_LEARNER) - count_alone(state, 0);

	if (member->role == QDB_ROLE_LEARNER && !member->alone)
		waiting--;
	voters = joins ? voters + 1 : voters - (member->role == QDB_ROLE_VOTER);
	if (voters == 0 || voters % 2 == 1 || waiting > 0)
		return;
	snprintf(warning, QDB_REASON_SIZE, "the cluster will have %u voters, which survive the loss of %u, as %u would",
			 (unsigned) voters, (unsigned) (voters - 1) / 2, (unsigned) voters - 1);
}

/* What no voter that holds the seat, or is the last one, may do. */
static QdbResult
check_leaving(const QdbState *state, const QdbMember *member, char *why, char *hint)
{
	const QdbGrant *grant = qdb_current_grant(state);

	if (grant != NULL && grant->holder == member->id && count_role(state, QDB_ROLE_VOTER) > 1)
		return refuse(QDB_HOLDS_SEAT, why, hint, qdb_result_text(QDB_HOLDS_SEAT),
					  "Switch over first: quantadb_promote() with the name of another voter.");
	if (count_role(state, QDB_ROLE_VOTER) <= 1)
		return refuse(QDB_LAST_VOTER, why, hint, qdb_result_text(QDB_LAST_VOTER),
					  "Make another member a voter first: quantadb_join(), or quantadb_set_role().");
	return QDB_OK;
}

static void
fill_role(QdbCommand *command, uint8_t role, bool alone)
{
	command->type = QDB_CMD_MEMBER_ROLE;
	command->member.role = role;
	command->flag = alone;
}

static QdbResult
plan_role(const QdbState *state, const QdbMember *member, int role, QdbCommand *command,
		  char *why, char *hint, char *warning)
{
	if (role == QDB_ROLE_VOTER)
	{
		if (member->role == QDB_ROLE_VOTER || (member->role == QDB_ROLE_LEARNER && member->alone))
			return QDB_UNCHANGED;
		fill_role(command, QDB_ROLE_LEARNER, true);
		warn_even(state, member, true, warning);
		return QDB_OK;
	}
	if (member->role == QDB_ROLE_REPLICA)
		return QDB_UNCHANGED;
	fill_role(command, QDB_ROLE_REPLICA, false);
	warn_even(state, member, false, warning);
	return member->role == QDB_ROLE_VOTER ? check_leaving(state, member, why, hint) : QDB_OK;
}

static QdbResult
plan_removal(const QdbState *state, const QdbMember *member, bool connected, QdbCommand *command,
			 char *why, char *hint, char *warning)
{
	QdbResult	result;

	if (member->role != QDB_ROLE_VOTER)
	{
		command->type = QDB_CMD_MEMBER_REMOVE;
		return QDB_OK;
	}
	result = check_leaving(state, member, why, hint);
	if (result != QDB_OK)
		return result;
	warn_even(state, member, false, warning);
	/* Of two, one cannot close a change without the other. */
	if (connected || count_role(state, QDB_ROLE_VOTER) == 2)
		fill_role(command, QDB_ROLE_REPLICA, false);
	else
		command->type = QDB_CMD_MEMBER_REMOVE;
	return QDB_OK;
}

QdbResult
qdb_plan_wish(const QdbState *state, const QdbMemberWish *wish, QdbCommand *command,
			  char *why, char *hint, char *warning)
{
	const QdbMember *member = qdb_member_by_id(state, wish->member);

	memset(command, 0, sizeof(*command));
	why[0] = hint[0] = warning[0] = '\0';
	if (member == NULL)
		return wish->remove ? QDB_UNCHANGED :
			refuse(QDB_NO_MEMBER, why, hint, "the node was removed meanwhile",
				   "The members are listed in the view quantadb_nodes.");
	command->member = *member;
	command->membership = state->membership;
	memcpy(command->node, member->name, sizeof(command->node));
	return wish->remove ?
		plan_removal(state, member, wish->connected, command, why, hint, warning) :
		plan_role(state, member, wish->role, command, why, hint, warning);
}

bool
qdb_wish_is_done(const QdbState *state, const QdbMemberWish *wish)
{
	const QdbMember *member = qdb_member_by_id(state, wish->member);

	if (state->change_open)
		return false;
	return wish->remove ? member == NULL : member != NULL && member->role == wish->role;
}
