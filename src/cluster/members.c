/*-------------------------------------------------------------------------
 *
 * members.c
 *		quantadb_set_role() and quantadb_remove(): asked of any member, answered there.
 *
 * What is asked for may take several commands, one closed change after the other
 * (core/membership.c).  Each is made from this node's own state and repeated where it
 * met another change; the caller gets his answer when the last change is closed, or
 * when it will come by itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "core/membership.h"

#include "cluster/internal.h"

#define WISH_US				(20 * 1000 * 1000)
#define RETRY_US			(50 * 1000)
#define CATCH_UP_US			(5 * 1000 * 1000)

/* By the number of its request's slot. */
typedef struct Waiter
{
	bool		used;
	bool		proposed;		/* a command is under way */
	bool		changed;		/* one of ours was applied */
	QdbMemberWish wish;
	int64		next_us;
	int64		catch_up_us;
	int64		deadline_us;
	char		warning[QDB_REASON_SIZE];
} Waiter;

static Waiter waiters[QDB_MAX_REQUESTS];

static int
sqlstate_of(QdbResult result)
{
	switch (result)
	{
		case QDB_NO_MEMBER:
			return ERRCODE_UNDEFINED_OBJECT;
		case QDB_CHANGE_OPEN:
		case QDB_STALE:
			return ERRCODE_OBJECT_IN_USE;
		default:
			return ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	}
}

static void
fail(int slot, int sqlstate, const char *why, const char *hint)
{
	waiters[slot].used = false;
	qdb_refuse_request(slot, sqlstate, why, hint);
}

static void
succeed(int slot, const char *note)
{
	Waiter	   *waiter = &waiters[slot];
	char		text[QDB_REQUEST_TEXT];

	waiter->used = false;
	/* The caller will look at the state next: it must show the change. */
	qdb_publish_state();
	snprintf(text, sizeof(text), "%s%s%s", waiter->warning,
			 waiter->warning[0] != '\0' && note[0] != '\0' ? "; " : "", note);
	qdb_answer_request(slot, qdb_co.state->membership, text);
}

static void
command_done(uint64 number, uint64 unused, bool known, QdbResult result)
{
	int			slot = (int) number;
	Waiter	   *waiter = &waiters[slot];

	if (!waiter->used)
		return;
	waiter->proposed = false;
	waiter->next_us = qdb_now_us() + RETRY_US;
	if (!known)
		return;					/* made again, from what the state is then */
	if (result == QDB_OK || result == QDB_UNCHANGED)
		waiter->changed = true;
	else if (result != QDB_STALE && result != QDB_CHANGE_OPEN)
		fail(slot, sqlstate_of(result), qdb_result_text(result),
			 "The view quantadb_journal shows what the cluster decided lately.");
}

static void
propose(int slot)
{
	Waiter	   *waiter = &waiters[slot];
	char		why[QDB_REASON_SIZE];
	char		hint[QDB_REASON_SIZE];
	char		warning[QDB_REASON_SIZE];
	QdbCommand	command;
	QdbResult	result;
	const QdbMember *member = qdb_member_by_id(qdb_co.state, waiter->wish.member);

	/*
	 * Its vote in Raft goes first: once it has left, those who still count on
	 * it could decide nothing, not even that.
	 */
	if (waiter->wish.remove && member != NULL && member->role != QDB_ROLE_VOTER &&
		qdb_raft_votes(qdb_co.raft, member->id))
	{
		waiter->next_us = qdb_co.now_us + RETRY_US;
		return;
	}
	waiter->wish.connected = waiter->wish.member == qdb_co.self.member ||
		qdb_peer_connected(qdb_mesh_peer(waiter->wish.member));
	result = qdb_plan_wish(qdb_co.state, &waiter->wish, &command, why, hint, warning);
	if (result == QDB_UNCHANGED)
		return;
	if (result != QDB_OK)
	{
		fail(slot, sqlstate_of(result), why, hint);
		return;
	}
	if (warning[0] != '\0')
		strlcpy(waiter->warning, warning, sizeof(waiter->warning));
	strlcpy(command.text, waiter->wish.remove ? "asked for with quantadb_remove" :
			"asked for with quantadb_set_role", sizeof(command.text));
	waiter->proposed = true;
	waiter->catch_up_us = qdb_co.now_us + CATCH_UP_US;
	if (!qdb_propose(&command, command_done, slot, 0))
		waiter->proposed = false;
}

/* It is a learner that votes once it has caught up, without anybody's help. */
static bool
catches_up(const Waiter *waiter)
{
	const QdbMember *member = qdb_member_by_id(qdb_co.state, waiter->wish.member);

	return !waiter->wish.remove && waiter->wish.role == QDB_ROLE_VOTER && member != NULL &&
		member->role == QDB_ROLE_LEARNER && member->alone && qdb_co.now_us > waiter->catch_up_us;
}

static void
turn(int slot)
{
	Waiter	   *waiter = &waiters[slot];

	if (qdb_wish_is_done(qdb_co.state, &waiter->wish))
		succeed(slot, "");
	else if (waiter->proposed || qdb_co.now_us < waiter->next_us)
		return;
	else if (catches_up(waiter))
		succeed(slot, "it votes once it has caught up");
	else if (qdb_co.now_us > waiter->deadline_us)
		fail(slot, ERRCODE_T_R_STATEMENT_COMPLETION_UNKNOWN,
			 waiter->changed ? "the change is not closed yet: the primary does not count by it" :
			 "the cluster could not decide in time",
			 "See quantadb_nodes and the view quantadb_journal; a majority of the voters must be there.");
	else
	{
		waiter->next_us = qdb_co.now_us + RETRY_US;
		propose(slot);
	}
}

void
qdb_start_wish(int slot, const QdbRequest *request)
{
	const QdbMember *member = qdb_member_by_name(qdb_co.state, request->text);
	Waiter	   *waiter = &waiters[slot];

	if (member == NULL)
	{
		char		why[QDB_REASON_SIZE];

		snprintf(why, sizeof(why), "node \"%.100s\" does not exist", request->text);
		qdb_refuse_request(slot, ERRCODE_UNDEFINED_OBJECT, why,
						   "The members are listed in the view quantadb_nodes.");
		return;
	}
	*waiter = (Waiter)
	{
		.used = true,.wish.member = member->id,.wish.remove = request->kind == QDB_REQ_REMOVE,
			.wish.role = (int) request->number,.deadline_us = qdb_co.now_us + WISH_US
	};
	waiter->catch_up_us = qdb_co.now_us + CATCH_UP_US;
	turn(slot);
}

void
qdb_wishes_turn(void)
{
	for (int slot = 0; slot < QDB_MAX_REQUESTS; slot++)
		if (waiters[slot].used)
			turn(slot);
}

/* This node takes no part any more: what was asked of it has an end. */
void
qdb_end_wishes(void)
{
	for (int slot = 0; slot < QDB_MAX_REQUESTS; slot++)
	{
		if (!waiters[slot].used)
			continue;
		if (waiters[slot].wish.remove && waiters[slot].wish.member == qdb_co.self.member)
			succeed(slot, "");
		else
			fail(slot, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
				 "this node was removed from the cluster", "Ask another member.");
	}
}
