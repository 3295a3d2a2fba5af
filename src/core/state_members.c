/*-------------------------------------------------------------------------
 *
 * state_members.c
 *		Commands about members and the numbered set of voters.
 *
 * Only a change of the set of voters is numbered: it takes one voter in or
 * out, and stays open until the seat holder counts by the new number (I13).
 * While it is open, previous_roles (and removed) say who voted under the
 * number before, since a failover then needs majorities of both.  Members that
 * do not vote come and go freely.
 *
 *-------------------------------------------------------------------------
 */
#include "core/state_internal.h"

#include <string.h>

#include "core/rules.h"

QdbResult
qdb_apply_member_add(QdbState *state, const QdbCommand *command)
{
	const QdbMember *member = &command->member;
	const QdbMember *same;
	QdbMember  *added;
	QdbToken   *token;

	if (!qdb_is_filled_text(member->name, QDB_NAME_SIZE) ||
		memchr(member->host, '\0', QDB_HOST_SIZE) == NULL || member->priority < 0)
		return QDB_BAD_VALUE;
	same = qdb_member_by_name(state, member->name);
	if (same != NULL && same->id == member->id && same->incarnation == member->incarnation)
		return QDB_UNCHANGED;
	token = (QdbToken *) qdb_find_token(state, &command->token, command->time_us);
	if (token == NULL)
		return QDB_BAD_TOKEN;
	if (same != NULL)
		return QDB_DUPLICATE_NAME;
	if (member->id != state->next_member_id)
		return QDB_STALE;
	if (state->nmembers == QDB_MAX_MEMBERS)
		return QDB_TOO_MANY;

	/* It votes only after it has caught up (I11): not a numbered change. */
	added = &state->members[state->nmembers];
	*added = *member;
	added->role = token->role == QDB_ROLE_REPLICA ? QDB_ROLE_REPLICA : QDB_ROLE_LEARNER;
	added->alone = false;
	state->previous_roles[state->nmembers] = QDB_ROLE_REPLICA;
	state->nmembers++;
	state->next_member_id++;
	memset(token, 0, sizeof(*token));	/* one use */
	qdb_add_journal(state, command, "join", added->name,
					added->role == QDB_ROLE_LEARNER ? "joined as a learner" : "joined as a replica");
	return QDB_OK;
}

QdbResult
qdb_apply_member_update(QdbState *state, const QdbCommand *command)
{
	const QdbMember *member = &command->member;
	int			i = qdb_member_index(state, member->id);
	QdbMember  *stored;

	if (i < 0)
		return QDB_NO_MEMBER;
	stored = &state->members[i];
	if (member->incarnation != 0 && member->incarnation != stored->incarnation)
		return QDB_STALE;
	if (memchr(member->host, '\0', QDB_HOST_SIZE) == NULL || member->priority < 0)
		return QDB_BAD_VALUE;
	if (strcmp(stored->host, member->host) == 0 && stored->priority == member->priority &&
		stored->sql_port == member->sql_port && stored->raft_port == member->raft_port &&
		stored->replication_port == member->replication_port && stored->http_port == member->http_port)
		return QDB_UNCHANGED;

	qdb_copy_text(stored->host, sizeof(stored->host), member->host, sizeof(member->host));
	stored->sql_port = member->sql_port;
	stored->raft_port = member->raft_port;
	stored->replication_port = member->replication_port;
	stored->http_port = member->http_port;
	stored->priority = member->priority;
	qdb_add_journal(state, command, "update", stored->name, "address or priority changed");
	return QDB_OK;
}

uint32_t
qdb_count_voters(const QdbState *state)
{
	uint32_t	n = 0;

	for (uint32_t i = 0; i < state->nmembers; i++)
		n += state->members[i].role == QDB_ROLE_VOTER;
	return n;
}

/*
 * May the set of voters change now, by taking this member in or out?
 */
static QdbResult
check_voter_change(const QdbState *state, const QdbCommand *command, bool leaves)
{
	const QdbGrant *grant = qdb_current_grant(state);

	if (command->membership != state->membership)
		return QDB_STALE;

	/*
	 * I13.  Nor before the gate: its record would be on a quorum of the old
	 * voters, and the seat open under the new number.
	 */
	if (QDB_KEEPS(QDB_RULE_ONE_CHANGE, state->change_open || state->epoch_open ||
				  (grant != NULL && !grant->opened)))
		return QDB_CHANGE_OPEN;
	if (leaves && qdb_count_voters(state) <= 1)
		return QDB_LAST_VOTER;
	if (leaves && grant != NULL && grant->holder == command->member.id)
		return QDB_HOLDS_SEAT;
	return QDB_OK;
}

/* Start the next number; the caller then changes the one role, or the durability. */
void
qdb_open_change(QdbState *state)
{
	memset(state->previous_roles, 0, sizeof(state->previous_roles));
	for (uint32_t i = 0; i < state->nmembers; i++)
		state->previous_roles[i] = state->members[i].role;
	state->membership++;
	state->change_open = true;
	state->settings.async_before = state->settings.async;
}

/*
 * flag: a learner that becomes a voter without waiting for a second one.
 * member.incarnation may be 0.  A greater one than the stored is what a member
 * that lost its data comes back with, and only as something that does not vote
 * (I11, I16).
 */
QdbResult
qdb_apply_member_role(QdbState *state, const QdbCommand *command)
{
	static const char *const reasons[] = {"now a replica", "now a learner", "now a voter"};
	uint8_t		role = command->member.role;
	uint64_t	incarnation = command->member.incarnation;
	int			i = qdb_member_index(state, command->member.id);
	QdbMember  *member;
	bool		alone;

	if (role > QDB_ROLE_VOTER)
		return QDB_BAD_VALUE;
	if (i < 0)
		return QDB_NO_MEMBER;
	member = &state->members[i];
	if (incarnation == 0)
		incarnation = member->incarnation;
	if (incarnation < member->incarnation ||
		(role == QDB_ROLE_VOTER && incarnation != member->incarnation))
		return QDB_STALE;
	if (role == QDB_ROLE_VOTER && member->role == QDB_ROLE_REPLICA)
		return QDB_NOT_VOTER;	/* I11: it catches up as a learner first */
	alone = role == QDB_ROLE_LEARNER && command->flag;
	if (member->role == role && incarnation == member->incarnation && alone == member->alone)
		return QDB_UNCHANGED;

	if ((member->role == QDB_ROLE_VOTER) != (role == QDB_ROLE_VOTER))
	{
		QdbResult	result = check_voter_change(state, command, role != QDB_ROLE_VOTER);

		if (result != QDB_OK)
			return result;
		qdb_open_change(state);
	}
	member->role = role;
	member->incarnation = incarnation;
	member->alone = alone;
	qdb_add_journal(state, command, "role", member->name, reasons[role]);
	return QDB_OK;
}

QdbResult
qdb_apply_member_remove(QdbState *state, const QdbCommand *command)
{
	int			i = qdb_member_index(state, command->member.id);
	QdbMember	member;
	uint32_t	after;

	if (i < 0)
		return QDB_NO_MEMBER;
	member = state->members[i];
	if (member.role == QDB_ROLE_VOTER)
	{
		QdbResult	result = check_voter_change(state, command, true);

		if (result != QDB_OK)
			return result;

		/*
		 * Who is removed does nothing more; of two voters that one is needed
		 * to close the change, so it hands its vote back first.
		 */
		if (qdb_count_voters(state) == 2)
			return QDB_CHANGE_OPEN;
		qdb_open_change(state);
		state->has_removed = true;
		state->removed = member;
	}
	else if (state->change_open && state->previous_roles[i] == QDB_ROLE_VOTER)
		return QDB_CHANGE_OPEN; /* it still counts under the number before */

	after = state->nmembers - (uint32_t) i - 1;
	memmove(&state->members[i], &state->members[i + 1], after * sizeof(QdbMember));
	memmove(&state->previous_roles[i], &state->previous_roles[i + 1], after);
	state->nmembers--;
	memset(&state->members[state->nmembers], 0, sizeof(QdbMember));
	qdb_forget_presence(state, member.id);
	state->previous_roles[state->nmembers] = 0;
	qdb_add_journal(state, command, "remove", member.name, "removed from the cluster");
	return QDB_OK;
}

/*
 * Not while an epoch is open: the reports that are under way were asked of the
 * voters of both numbers (I13), and the next holder says it again.
 */
QdbResult
qdb_apply_membership_close(QdbState *state, const QdbCommand *command)
{
	if (command->membership != state->membership)
		return QDB_STALE;
	if (!state->change_open)
		return QDB_UNCHANGED;
	if (state->epoch_open)
		return QDB_CHANGE_OPEN;

	state->change_open = false;
	state->settings.async_before = false;
	memset(state->previous_roles, 0, sizeof(state->previous_roles));
	state->has_removed = false;
	memset(&state->removed, 0, sizeof(state->removed));
	qdb_add_journal(state, command, "membership_close", "", "the primary counts by the new membership");
	return QDB_OK;
}
