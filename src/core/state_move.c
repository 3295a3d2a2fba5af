/*-------------------------------------------------------------------------
 *
 * state_move.c
 *		Commands about moves of the seat that somebody asked for, and about
 *		handing WAL from a voter that cannot hold the seat to one that can.
 *
 * A MOVE is only a wish that every node can read: the holder gives its seat up
 * for it where it lives, the Raft leader opens an epoch where it does not.  The
 * next SEAT ends it, whoever gets that.  It is part of the state so that
 * neither a new Raft leader nor a restart forgets what was promised to a user.
 *
 *-------------------------------------------------------------------------
 */
#include "core/state_internal.h"

#include <stdio.h>
#include <string.h>

#include "core/quorum.h"

#define MOVE_LASTS_US	(30 * 1000000LL)

void
qdb_clear_move(QdbState *state)
{
	memset(&state->move, 0, sizeof(state->move));
}

static QdbResult
give_up_move(QdbState *state, const QdbCommand *command)
{
	const QdbMember *target = qdb_member_by_id(state, state->move.target);

	if (state->move.target == 0)
		return QDB_UNCHANGED;
	qdb_add_journal(state, command, "switchover_failed", target == NULL ? "" : target->name,
					"the switchover was given up");
	qdb_clear_move(state);
	return QDB_OK;
}

/* What no force changes: who may hold a seat at all. */
static QdbResult
check_target(const QdbMember *target)
{
	if (target == NULL)
		return QDB_NO_MEMBER;
	if (target->role != QDB_ROLE_VOTER)
		return QDB_NOT_VOTER;
	return target->priority <= 0 ? QDB_PRIORITY_ZERO : QDB_OK;
}

/* What a planned move respects, and a forced one does not. */
static QdbResult
check_planned(const QdbState *state, const QdbCommand *command)
{
	const QdbGrant *grant = qdb_current_grant(state);
	bool		last = state->ngrants > 0 &&
	state->grants[state->ngrants - 1].holder == command->member.id;

	if (state->move.target != 0 && state->move.target != command->member.id &&
		command->time_us - state->move.time_us < MOVE_LASTS_US)
		return QDB_MOVE_OPEN;
	if (!state->settings.auto_failover && !last)
		return QDB_PAUSED;
	if (state->change_open || grant == NULL || !grant->opened || state->seat_released)
		return QDB_CHANGE_OPEN;
	return QDB_OK;
}

QdbResult
qdb_apply_move(QdbState *state, const QdbCommand *command)
{
	const QdbGrant *grant = qdb_current_grant(state);
	const QdbMember *target = qdb_member_by_id(state, command->member.id);
	QdbResult	result;

	if (command->epoch != state->epoch)
		return QDB_STALE;
	if (command->member.id == 0)
		return give_up_move(state, command);
	result = check_target(target);
	if (result != QDB_OK)
		return result;
	if (grant != NULL && grant->holder == target->id && grant->opened && !state->seat_released)
		return QDB_UNCHANGED;
	if (!command->flag && (result = check_planned(state, command)) != QDB_OK)
		return result;

	state->move.target = target->id;
	state->move.epoch = state->epoch;
	state->move.force = command->flag;
	state->move.time_us = command->time_us;
	qdb_add_journal(state, command, command->flag ? "force" : "switchover", target->name,
					command->flag ? "a promotion was asked for, with force" : "a promotion was asked for");
	return QDB_OK;
}

/* Both have promised the open epoch, and the taker's log is a prefix of the donor's. */
QdbResult
qdb_apply_donate(QdbState *state, const QdbCommand *command)
{
	const QdbReport *donor = qdb_report_of(state, command->grant.holder);
	const QdbReport *taker = qdb_report_of(state, command->member.id);
	const QdbMember *member = qdb_member_by_id(state, command->member.id);
	QdbDonation wanted = {command->epoch, command->grant.holder, command->member.id};
	char		text[QDB_REASON_SIZE];

	if (!state->epoch_open || command->epoch != state->epoch)
		return QDB_STALE;
	if (donor == NULL || taker == NULL || member == NULL)
		return QDB_NO_MEMBER;
	if (donor == taker || !qdb_report_is_prefix(state, taker, donor))
		return QDB_BAD_VALUE;	/* I3 */
	if (memcmp(&state->donation, &wanted, sizeof(wanted)) == 0)
		return QDB_UNCHANGED;
	state->donation = wanted;
	snprintf(text, sizeof(text), "it takes the WAL that it lacks from %s",
			 qdb_member_by_id(state, wanted.donor) != NULL ?
			 qdb_member_by_id(state, wanted.donor)->name : "a node that was removed");
	qdb_add_journal(state, command, "donate", member->name, text);
	return QDB_OK;
}
