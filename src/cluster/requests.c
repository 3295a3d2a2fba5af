/*-------------------------------------------------------------------------
 *
 * requests.c
 *		The mailbox: what backends and the http worker ask for.
 *
 * A request is copied out, worked on, and answered in its slot.  Its caller may
 * have gone meanwhile; then the slot is freed instead.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cluster/internal.h"

/* What an earlier process of this worker took is not known to us. */
void
qdb_requests_begin(void)
{
	for (int slot = 0; slot < QDB_MAX_REQUESTS; slot++)
	{
		if (qdb_shared->requests[slot].state == QDB_REQUEST_TAKEN)
			qdb_refuse_request(slot, ERRCODE_T_R_STATEMENT_COMPLETION_UNKNOWN,
							   "the coordinator has started again, the outcome is unknown", NULL);
		LWLockAcquire(qdb_shared->state_lock, LW_EXCLUSIVE);
		if (qdb_shared->requests[slot].state == QDB_REQUEST_ABANDONED)
			qdb_shared->requests[slot].state = QDB_REQUEST_FREE;
		LWLockRelease(qdb_shared->state_lock);
	}
}

static void
finish(int slot, bool ok, QdbResult result, int sqlstate, uint64 answer,
	   const char *message, const char *hint)
{
	QdbRequest *request = &qdb_shared->requests[slot];

	LWLockAcquire(qdb_shared->state_lock, LW_EXCLUSIVE);
	if (request->state == QDB_REQUEST_ABANDONED)
		request->state = QDB_REQUEST_FREE;
	else if (request->state == QDB_REQUEST_TAKEN)
	{
		request->ok = ok;
		request->result = result;
		request->sqlstate = sqlstate;
		request->answer = answer;
		strlcpy(request->message, message != NULL ? message : "", sizeof(request->message));
		strlcpy(request->hint, hint != NULL ? hint : "", sizeof(request->hint));
		request->state = QDB_REQUEST_DONE;
	}
	LWLockRelease(qdb_shared->state_lock);
	ConditionVariableBroadcast(&qdb_shared->request_done);
}

void
qdb_refuse_request(int slot, int sqlstate, const char *message, const char *hint)
{
	finish(slot, false, QDB_MALFORMED, sqlstate, 0, message, hint);
}

void
qdb_answer_request(int slot, uint64 answer, const char *text)
{
	finish(slot, true, QDB_OK, 0, answer, text, NULL);
}

static int
sqlstate_of(QdbResult result)
{
	switch (result)
	{
		case QDB_NO_MEMBER:
		case QDB_BAD_TOKEN:
			return ERRCODE_UNDEFINED_OBJECT;
		case QDB_DUPLICATE_NAME:
			return ERRCODE_DUPLICATE_OBJECT;
		case QDB_TOO_MANY:
			return ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
		case QDB_BAD_VALUE:
		case QDB_MALFORMED:
			return ERRCODE_INVALID_PARAMETER_VALUE;
		default:
			return ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	}
}

static void
propose_done(uint64 slot, uint64 unused, bool known, QdbResult result)
{
	/* The caller will look at the state next: it must show the change. */
	qdb_publish_state();
	if (!known)
		qdb_refuse_request((int) slot, ERRCODE_T_R_STATEMENT_COMPLETION_UNKNOWN,
						   "no answer from the Raft leader in time, the outcome is unknown",
						   "Look at quantadb_status() and repeat the command.");
	else if (result == QDB_OK || result == QDB_UNCHANGED)
		finish((int) slot, true, result, 0, qdb_co.state->epoch, "", NULL);
	else
		finish((int) slot, false, result, sqlstate_of(result), 0, qdb_result_text(result), NULL);
}

static void
start_propose(int slot, const QdbRequest *request)
{
	QdbCommand	command;

	if (request->length > sizeof(request->command) ||
		!qdb_command_decode(request->command, request->length, &command))
		qdb_refuse_request(slot, ERRCODE_INVALID_PARAMETER_VALUE, "malformed command", NULL);
	else if (!qdb_propose(&command, propose_done, slot, 0))
		qdb_refuse_request(slot, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
						   "too many commands are under way", "Try again.");
}

static void
start(int slot, const QdbRequest *request)
{
	bool		for_strangers = request->kind == QDB_REQ_INIT || request->kind == QDB_REQ_JOIN;

	if (qdb_shared->removed && !for_strangers)
	{
		qdb_refuse_request(slot, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
						   "this node was removed from the cluster",
						   "Ask another member; quantadb_join() with a new token makes this one a member again.");
		return;
	}
	if (qdb_shared->member && for_strangers && !(qdb_shared->removed && request->kind == QDB_REQ_JOIN))
	{
		qdb_refuse_request(slot, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
						   "this server is a member of a cluster already", NULL);
		return;
	}
	if (!qdb_shared->member && !for_strangers)
	{
		qdb_refuse_request(slot, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
						   "this server is no member of a cluster",
						   "Use quantadb_init() or quantadb_join().");
		return;
	}
	switch (request->kind)
	{
		case QDB_REQ_PROPOSE:
			start_propose(slot, request);
			break;
		case QDB_REQ_INIT:
			qdb_start_init(slot, request);
			break;
		case QDB_REQ_JOIN:
			qdb_start_join(slot, request);
			break;
		case QDB_REQ_PROMOTE:
			qdb_start_promote(slot, request);
			break;
		case QDB_REQ_TOKEN:
			qdb_start_token(slot, request);
			break;
		case QDB_REQ_ROLE:
		case QDB_REQ_REMOVE:
			qdb_start_wish(slot, request);
			break;
		case QDB_REQ_RECOVER:
			qdb_start_recover(slot, request);
			break;
		default:
			qdb_refuse_request(slot, ERRCODE_FEATURE_NOT_SUPPORTED, "unknown request", NULL);
			break;
	}
}

void
qdb_requests_turn(void)
{
	for (int slot = 0; slot < QDB_MAX_REQUESTS; slot++)
	{
		static QdbRequest copy;
		bool		taken = false;

		LWLockAcquire(qdb_shared->state_lock, LW_EXCLUSIVE);
		if (qdb_shared->requests[slot].state == QDB_REQUEST_FILLED)
		{
			qdb_shared->requests[slot].state = QDB_REQUEST_TAKEN;
			copy = qdb_shared->requests[slot];
			taken = true;
		}
		LWLockRelease(qdb_shared->state_lock);
		if (!taken)
			continue;
		copy.text[sizeof(copy.text) - 1] = '\0';
		start(slot, &copy);
	}
}
