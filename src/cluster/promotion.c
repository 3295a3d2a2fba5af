/*-------------------------------------------------------------------------
 *
 * promotion.c
 *		quantadb_promote(): asked of any member, answered there.
 *
 * The wish is judged here, then committed as a MOVE, which the holder and the Raft
 * leader act upon.  Whoever asked waits for the next open seat, or for the MOVE
 * that says why it was given up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cluster/internal.h"

#define PROMOTE_US			(30 * 1000 * 1000)

/* A request that waits for its target to open; by the number of its slot. */
typedef struct Waiter
{
	bool		used;
	bool		repeated;		/* an earlier MOVE of it may be committed */
	bool		force;
	uint64		target;
	uint64		after_epoch;
	int64		deadline_us;
} Waiter;

static Waiter waiters[QDB_MAX_REQUESTS];

static int
sqlstate_of(QdbResult result)
{
	switch (result)
	{
		case QDB_NO_MEMBER:
			return ERRCODE_UNDEFINED_OBJECT;
		case QDB_NO_MAJORITY:
			return ERRCODE_CANNOT_CONNECT_NOW;
		case QDB_MOVE_OPEN:
		case QDB_CHANGE_OPEN:
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

static void move_done(uint64 slot, uint64 unused, bool known, QdbResult result);

static bool
propose_move(int slot)
{
	const Waiter *waiter = &waiters[slot];
	const QdbMember *member = qdb_member_by_id(qdb_co.state, waiter->target);
	QdbCommand	command;

	memset(&command, 0, sizeof(command));
	command.type = QDB_CMD_MOVE;
	command.epoch = waiter->after_epoch;
	command.member.id = waiter->target;
	command.flag = waiter->force;
	if (member != NULL)
		strlcpy(command.node, member->name, sizeof(command.node));
	return qdb_propose(&command, move_done, slot, 0);
}

/*
 * Without an answer it is repeated: a MOVE fits its epoch only, so a second one
 * changes nothing.  What the repetition then finds may be the work of the first.
 */
static void
move_done(uint64 number, uint64 unused, bool known, QdbResult result)
{
	int			slot = (int) number;
	Waiter	   *waiter = &waiters[slot];

	if (!waiter->used || (known && result == QDB_OK))
		return;
	if (!known && qdb_now_us() < waiter->deadline_us)
	{
		waiter->repeated = true;
		if (propose_move(slot))
			return;
	}
	if (!known)
		fail(slot, ERRCODE_T_R_STATEMENT_COMPLETION_UNKNOWN,
			 "no answer from the Raft leader in time, the outcome is unknown",
			 "The view quantadb_journal shows whether the promotion was begun.");
	else if (waiter->repeated && (result == QDB_STALE || result == QDB_CHANGE_OPEN))
		return;
	else if (result == QDB_UNCHANGED)
	{
		waiter->used = false;
		qdb_answer_request(slot, qdb_co.state->epoch, "");
	}
	else
		fail(slot, sqlstate_of(result), qdb_result_text(result),
			 "The cluster is changing now. Look at quantadb_status() and try again.");
}

/* NULL: the name is not known. */
static const QdbMember *
find_target(const QdbRequest *request)
{
	return request->text[0] != '\0' ?
		qdb_member_by_name(qdb_co.state, request->text) : qdb_self_member();
}

void
qdb_start_promote(int slot, const QdbRequest *request)
{
	QdbState   *state = qdb_co.state;
	const QdbMember *member = find_target(request);
	char		why[QDB_REASON_SIZE];
	char		hint[QDB_REASON_SIZE];
	QdbLeaderView view;
	QdbResult	result;

	qdb_build_view(&view);
	result = qdb_judge_move(state, &view, member == NULL ? 0 : member->id, request->flag, why, hint);
	if (result == QDB_UNCHANGED)
		qdb_answer_request(slot, state->epoch, "");
	else if (result != QDB_OK)
		qdb_refuse_request(slot, sqlstate_of(result), why, hint);
	if (result != QDB_OK)
		return;

	waiters[slot] = (Waiter)
	{
		.used = true,.force = request->flag,.target = member->id,.after_epoch = state->epoch,
			.deadline_us = qdb_co.now_us + PROMOTE_US
	};
	if (!propose_move(slot))
		fail(slot, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, "too many commands are under way", "Try again.");
}

/* A MOVE to nobody was applied. */
void
qdb_promotion_given_up(const char *why)
{
	for (int slot = 0; slot < QDB_MAX_REQUESTS; slot++)
	{
		if (waiters[slot].used && waiters[slot].after_epoch == qdb_co.state->epoch)
			fail(slot, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, why,
				 "The primary is as before. The column why_not of quantadb_nodes, and the journal, say more.");
	}
}

static void
take_outcome(int slot, const QdbGrant *grant)
{
	char		text[QDB_REASON_SIZE] = "";

	if (grant->holder != waiters[slot].target)
	{
		fail(slot, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "another node became primary",
			 "The view quantadb_journal says why.");
		return;
	}
	if (waiters[slot].force)
		qdb_tell_loss(qdb_co.state, grant, text, sizeof(text));
	/* The caller will look at the state next: it must show the change. */
	qdb_publish_state();
	waiters[slot].used = false;
	qdb_answer_request(slot, grant->epoch, text);
}

/* Open for everybody to see; what another node shows comes with its heartbeats. */
static bool
shows_open(const QdbGrant *grant)
{
	const QdbPeer *peer = qdb_mesh_peer(grant->holder);

	if (qdb_grant_is_ours(grant))
		return qdb_may_write() && qdb_shared->node_state == QDB_NODE_PRIMARY;
	return peer == NULL || peer->gate_epoch == grant->epoch;
}

void
qdb_promotion_turn(void)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);

	for (int slot = 0; slot < QDB_MAX_REQUESTS; slot++)
	{
		Waiter	   *waiter = &waiters[slot];

		if (!waiter->used)
			continue;
		if (grant != NULL && grant->epoch > waiter->after_epoch && grant->opened && shows_open(grant))
			take_outcome(slot, grant);
		else if (qdb_co.now_us > waiter->deadline_us)
			fail(slot, ERRCODE_T_R_STATEMENT_COMPLETION_UNKNOWN,
				 "the promotion did not finish in time, and may still do",
				 "The view quantadb_journal shows how far it came.");
	}
}
