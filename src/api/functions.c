/*-------------------------------------------------------------------------
 *
 * functions.c
 *		SQL functions that change the cluster, and LSN functions of sessions.
 *
 * A change of the replicated state is a command that the coordinator commits in
 * Raft, wherever its leader is.  A function returns when the command was
 * applied; where no answer came in time the outcome is unknown and the error
 * says so.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "executor/execdesc.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "api/hooks.h"
#include "api/sql.h"

#define PROPOSE_TIMEOUT_MS		15000
#define PROMOTE_TIMEOUT_MS		60000
#define WISH_TIMEOUT_MS			30000

PG_FUNCTION_INFO_V1(qdb_sql_check_loaded);
PG_FUNCTION_INFO_V1(qdb_sql_join_token);
PG_FUNCTION_INFO_V1(qdb_sql_promote);
PG_FUNCTION_INFO_V1(qdb_sql_set_role);
PG_FUNCTION_INFO_V1(qdb_sql_remove);
PG_FUNCTION_INFO_V1(qdb_sql_recover);
PG_FUNCTION_INFO_V1(qdb_sql_pause);
PG_FUNCTION_INFO_V1(qdb_sql_resume);
PG_FUNCTION_INFO_V1(qdb_sql_set);
PG_FUNCTION_INFO_V1(qdb_sql_last_commit_lsn);
PG_FUNCTION_INFO_V1(qdb_sql_wait_for_lsn);

void
qdb_require_loaded(void)
{
	if (qdb_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("quantadb must be loaded via \"shared_preload_libraries\""),
				 errhint("Add quantadb to shared_preload_libraries in postgresql.conf and restart the server.")));
}

void
qdb_require_member(void)
{
	qdb_require_loaded();
	if (!qdb_shared->member)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is not a member of a cluster"),
				 errdetail("It behaves as without the library until it is one."),
				 errhint("Create a cluster with quantadb_init(), or join one with quantadb_join().")));
}

static const char *
result_hint(QdbResult result)
{
	switch (result)
	{
		case QDB_NO_MEMBER:
			return "The members are listed in the view quantadb_nodes.";
		case QDB_STALE:
		case QDB_CHANGE_OPEN:
			return "The cluster is changing now. Try again in a few seconds.";
		case QDB_LAST_VOTER:
			return "Move the primary with quantadb_promote(), or make another member a voter, first.";
		case QDB_BAD_TOKEN:
			return "The HTTP tokens are listed in the view quantadb_api_tokens.";
		case QDB_BAD_VALUE:
			return "The settings and their values are listed in the view quantadb_settings.";
		case QDB_TOO_MANY:
			return "Remove members that are gone with quantadb_remove().";
		case QDB_NO_MAJORITY:
			return "A majority of the voters must be reachable.";
		default:
			return "The view quantadb_journal shows what the cluster decided lately.";
	}
}

/* What helps after a refusal that says nothing of it itself. */
static const char *
refusal_hint(const QdbRequest *request)
{
	if (request->hint[0] != '\0')
		return request->hint;
	if (request->kind == QDB_REQ_JOIN)
		return "A token of quantadb_join_token() is good for one use, within its time; the peer must be a voter.";
	return result_hint(request->result);
}

/* Raises the error of a refused request; who refuses says which it is, and why. */
static void
raise_refusal(const QdbRequest *request, const char *what)
{
	ereport(ERROR,
			(errcode(request->sqlstate),
			 errmsg("could not %s", what),
			 errdetail("%s", request->message),
			 errhint("%s", refusal_hint(request))));
}

void
qdb_run_request(QdbRequest *request, int timeout_ms, const char *what)
{
	if (!qdb_request(request, timeout_ms))
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("could not %s: no answer from the cluster in time", what),
				 errdetail("The outcome is unknown: it may still happen."),
				 errhint("See quantadb_status() and the view quantadb_journal, then try again.")));
	if (!request->ok)
		raise_refusal(request, what);
}

/* Commits a command in Raft. */
void
qdb_run_command(QdbCommand *command, const char *what)
{
	QdbRequest *request = palloc0(sizeof(QdbRequest));
	size_t		length = sizeof(request->command);

	command->time_us = qdb_unix_us();
	request->kind = QDB_REQ_PROPOSE;
	if (!qdb_command_encode(command, request->command, &length))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("could not %s: the command is too long", what)));
	request->length = (uint32) length;
	qdb_run_request(request, PROPOSE_TIMEOUT_MS, what);
	pfree(request);
}

/* A text argument into a field of fixed size; too long is an error. */
static void
copy_argument(char *field, size_t size, const char *value, const char *name)
{
	if (strlcpy(field, value, size) >= size)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("value for \"%s\" is too long", name),
				 errdetail("It has %zu bytes, the limit is %zu.", strlen(value), size - 1),
				 errhint("Give a shorter one.")));
}

static int
role_argument(const char *text)
{
	int			role;

	if (!qdb_parse_role(text, &role))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid role: \"%s\"", text),
				 errdetail("A voter counts in majorities; a replica has no vote."),
				 errhint("Roles are \"voter\" and \"replica\".")));
	return role;
}

void
qdb_check_cluster_name(const char *name)
{
	if (name[0] == '\0' || strlen(name) >= QDB_NAME_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid name of a cluster"),
				 errdetail("It must have 1 to %d bytes.", QDB_NAME_SIZE - 1),
				 errhint("Give a short name, for example 'shop'.")));
}

int64
qdb_interval_us(const Interval *interval)
{
	return interval->time +
		((int64) interval->month * DAYS_PER_MONTH + interval->day) * USECS_PER_DAY;
}

/* Called by the extension's script, so that CREATE EXTENSION says what is missing. */
Datum
qdb_sql_check_loaded(PG_FUNCTION_ARGS)
{
	qdb_require_loaded();
	PG_RETURN_VOID();
}

Datum
qdb_sql_join_token(PG_FUNCTION_ARGS)
{
	char	   *role = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int64		ttl = qdb_interval_us(PG_GETARG_INTERVAL_P(1)) / USECS_PER_SEC;
	QdbRequest *request = palloc0(sizeof(QdbRequest));

	qdb_require_member();
	(void) role_argument(role);
	if (ttl < 1 || ttl > 30 * SECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid lifetime of a token"),
				 errdetail("It must be between 1 second and 30 days."),
				 errhint("Give an interval, for example '1 hour'.")));
	request->kind = QDB_REQ_TOKEN;
	request->number = ttl;
	strlcpy(request->text, role, sizeof(request->text));
	qdb_run_request(request, PROPOSE_TIMEOUT_MS, "create a join token");
	PG_RETURN_TEXT_P(cstring_to_text(request->message));
}

Datum
qdb_sql_promote(PG_FUNCTION_ARGS)
{
	QdbRequest *request = palloc0(sizeof(QdbRequest));

	qdb_require_member();
	request->kind = QDB_REQ_PROMOTE;
	if (!PG_ARGISNULL(0))
	{
		copy_argument(request->text, QDB_NAME_SIZE, qdb_utf8_argument(PG_GETARG_TEXT_PP(0)), "node");
		/* For the request it would be this node. */
		if (request->text[0] == '\0')
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("there is no node \"\""),
					 errdetail("The name is empty."),
					 errhint("Name a member of the view quantadb_nodes, or none for this node.")));
	}
	request->flag = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	qdb_run_request(request, PROMOTE_TIMEOUT_MS, "promote the node");
	if (request->message[0] != '\0')
		ereport(NOTICE,
				(errmsg("the promotion was forced"),
				 errdetail("%s.", request->message),
				 errhint("What was given up is saved where the old primary rejoins: see quantadb_lost_writes.")));
	PG_RETURN_INT64((int64) request->answer);
}

/* A change of one member; where the answer has a text, it is a warning. */
static void
run_wish(QdbRequestKind kind, const struct varlena *name, int role, const char *what)
{
	QdbRequest *request = palloc0(sizeof(QdbRequest));

	request->kind = kind;
	request->number = role;
	copy_argument(request->text, QDB_NAME_SIZE, qdb_utf8_argument(name), "node");
	qdb_run_request(request, WISH_TIMEOUT_MS, what);
	if (request->message[0] != '\0')
		ereport(WARNING,
				(errmsg("%s", request->message),
				 errhint("quantadb_status().can_lose says how many losses the cluster survives now.")));
	pfree(request);
}

Datum
qdb_sql_set_role(PG_FUNCTION_ARGS)
{
	int			role;

	qdb_require_member();
	role = role_argument(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	run_wish(QDB_REQ_ROLE, PG_GETARG_TEXT_PP(0), role, "change the role");
	PG_RETURN_VOID();
}

Datum
qdb_sql_remove(PG_FUNCTION_ARGS)
{
	qdb_require_member();
	run_wish(QDB_REQ_REMOVE, PG_GETARG_TEXT_PP(0), 0, "remove the node");
	PG_RETURN_VOID();
}

/* The new cluster is a matter of this node alone: nothing is forwarded. */
Datum
qdb_sql_recover(PG_FUNCTION_ARGS)
{
	char	   *name = qdb_utf8_argument(PG_GETARG_TEXT_PP(0));
	QdbRequest *request = palloc0(sizeof(QdbRequest));
	char	   *loss;

	qdb_require_member();
	qdb_check_cluster_name(name);
	request->kind = QDB_REQ_RECOVER;
	strlcpy(request->text, name, sizeof(request->text));
	qdb_run_request(request, PROPOSE_TIMEOUT_MS, "recover the cluster");
	loss = strchr(request->message, ' ');
	if (loss == NULL)
		elog(ERROR, "malformed answer of the coordinator");
	*loss++ = '\0';
	ereport(NOTICE,
			(errmsg("this node begins a new cluster, of which it is the only voter"),
			 errdetail("%s", loss),
			 errhint("The members of the old cluster are refused: give each new data, and join it. See quantadb_status() for when this node takes writes.")));
	PG_RETURN_TEXT_P(cstring_to_text(request->message));
}

static void
set_cluster(const char *name, const char *value)
{
	QdbCommand	command = {.type = QDB_CMD_SETTING};
	char		why[QDB_REASON_SIZE];

	copy_argument(command.node, sizeof(command.node), name, "name");
	copy_argument(command.value, sizeof(command.value), value, "value");
	if (!qdb_check_setting(name, value, why, sizeof(why)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("could not change the setting"),
				 errdetail("%s", why),
				 errhint("%s", result_hint(QDB_BAD_VALUE))));
	qdb_run_command(&command, "change the setting");
}

Datum
qdb_sql_pause(PG_FUNCTION_ARGS)
{
	qdb_require_member();
	set_cluster("auto_failover", "off");
	PG_RETURN_VOID();
}

Datum
qdb_sql_resume(PG_FUNCTION_ARGS)
{
	qdb_require_member();
	set_cluster("auto_failover", "on");
	PG_RETURN_VOID();
}

/* The replicated state checks name and value again. */
Datum
qdb_sql_set(PG_FUNCTION_ARGS)
{
	qdb_require_member();
	set_cluster(qdb_utf8_argument(PG_GETARG_TEXT_PP(0)), qdb_utf8_argument(PG_GETARG_TEXT_PP(1)));
	PG_RETURN_VOID();
}

/*
 * What another node must show so that this session sees its own writes there:
 * the end of its last commit, or without one, all that was acknowledged.
 */
Datum
qdb_sql_last_commit_lsn(PG_FUNCTION_ARGS)
{
	if (RecoveryInProgress())
		PG_RETURN_LSN(GetXLogReplayRecPtr(NULL));
	if (XactLastCommitEnd != InvalidXLogRecPtr)
		PG_RETURN_LSN(XactLastCommitEnd);
	PG_RETURN_LSN(GetFlushRecPtr(NULL));
}

/* Is the client's query this call and nothing else, in a transaction of its own? */
static bool
is_whole_query(FunctionCallInfo fcinfo)
{
	const PlannedStmt *statement;
	const Plan *plan;

	if (ActivePortal == NULL || ActivePortal->queryDesc == NULL || IsTransactionBlock())
		return false;
	statement = ActivePortal->queryDesc->plannedstmt;
	plan = statement->planTree;
	return IsA(plan, Result) && plan->lefttree == NULL && statement->subplans == NIL &&
		list_length(plan->targetlist) == 1 &&
		(Node *) linitial_node(TargetEntry, plan->targetlist)->expr == fcinfo->flinfo->fn_expr;
}

/*
 * Replay waits for snapshots, so one that nothing is read with any more must not be what
 * it waits for.  Returns what its xmin was, or invalid.
 */
static TransactionId
give_snapshot_up(FunctionCallInfo fcinfo)
{
	TransactionId xmin = MyProc->xmin;

	InvalidateCatalogSnapshot();
	if (!RecoveryInProgress() || !is_whole_query(fcinfo) || !ThereAreNoPriorRegisteredSnapshots())
		return InvalidTransactionId;
	MyProc->xmin = InvalidTransactionId;
	return xmin;
}

Datum
qdb_sql_wait_for_lsn(PG_FUNCTION_ARGS)
{
	XLogRecPtr	lsn = PG_GETARG_LSN(0);
	int64		timeout = qdb_interval_us(PG_GETARG_INTERVAL_P(1));

	qdb_require_loaded();
	PG_RETURN_BOOL(qdb_wait_for_replay(lsn, give_snapshot_up(fcinfo), Max(timeout, 0)));
}
