/*-------------------------------------------------------------------------
 *
 * hooks.c
 *		Where backends meet the cluster: transactions, queries, utility
 *		commands, new sessions.
 *
 * On a server that is no member every hook passes on at once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/parallel.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "executor/executor.h"
#include "libpq/auth.h"
#include "libpq/libpq-be.h"
#include "miscadmin.h"
#include "replication/walsender.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "api/api.h"
#include "api/hooks.h"
#include "base/status.h"

static ExecutorStart_hook_type prev_executor_start = NULL;
static ExecutorRun_hook_type prev_executor_run = NULL;
static ProcessUtility_hook_type prev_process_utility = NULL;
static ClientAuthentication_hook_type prev_client_authentication = NULL;

/* Of the transaction that commits now, if it writes; else 0. */
static int64 commit_began_us = 0;

/* This session reports itself read-only because it began on a fenced node. */
static bool forced_read_only = false;

/* How many queries are running inside of each other. */
static int	depth = 0;

/* The snapshot of this transaction was taken for strict reads on a replica. */
static bool strict_snapshot = false;

/*
 * A session that began on a node that was not writable gets its own default
 * back when the node is.  Only after a commit: an abort would undo it.
 */
static void
lift_read_only(void)
{
	if (!qdb_may_write())
		return;
	forced_read_only = false;
	SetConfigOption("default_transaction_read_only", NULL, PGC_USERSET, PGC_S_SESSION);
}

static void
on_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (qdb_shared == NULL || !qdb_shared->member)
				return;
			commit_began_us = TransactionIdIsValid(GetTopTransactionIdIfAny()) ? qdb_now_us() : 0;
			/* Later steps can still assign an xid (NOTIFY), so always hold. */
			qdb_hold_signals();
			qdb_check_commit();
			/* Replicas shall say at once what they have applied. */
			if (synchronous_commit == SYNCHRONOUS_COMMIT_REMOTE_APPLY)
				pg_atomic_write_u64(&qdb_shared->apply_wanted_us, (uint64) qdb_now_us());
			break;
		case XACT_EVENT_COMMIT:
			strict_snapshot = false;
			qdb_release_signals();
			if (commit_began_us != 0)
				qdb_observe(&qdb_shared->counters.commits, qdb_now_us() - commit_began_us);
			commit_began_us = 0;
			if (forced_read_only)
				lift_read_only();
			break;
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			strict_snapshot = false;
			commit_began_us = 0;
			qdb_release_signals();
			break;
		default:
			break;				/* parallel workers wait for no quorum */
	}
}

/*
 * The snapshot of a query that had to wait for replay.  A transaction with one
 * snapshot for all its queries cannot change it any more.
 */
static void
refuse_old_snapshot(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("the snapshot of this transaction is older than \"%s\"", "quantadb.min_lsn"),
			 errhint("Retry the transaction: this node shows the LSN now.")));
}

/*
 * A query of the client, not one inside of a function or a command: its snapshot is of
 * use to nobody else, and PortalStart takes what is on top of the stack off it.
 */
static bool
has_own_snapshot(const QueryDesc *query)
{
	return ActivePortal != NULL && ActivePortal->status == PORTAL_DEFINED &&
		ActivePortal->strategy == PORTAL_ONE_SELECT &&
		query->snapshot != InvalidSnapshot && query->snapshot == GetActiveSnapshot() &&
		!IsolationUsesXactSnapshot();
}

/* Before a wait for replay, which waits for snapshots itself.  Returns what its xmin was. */
static TransactionId
give_snapshot_back(QueryDesc *query)
{
	TransactionId xmin = MyProc->xmin;

	PopActiveSnapshot();
	UnregisterSnapshot(query->snapshot);
	query->snapshot = InvalidSnapshot;
	InvalidateCatalogSnapshot();
	return xmin;
}

static void
renew_snapshot(QueryDesc *query, bool given_back)
{
	if (given_back)
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		query->snapshot = RegisterSnapshot(GetActiveSnapshot());
		return;
	}
	if (query->snapshot == InvalidSnapshot)
		return;
	if (IsolationUsesXactSnapshot() || IsInParallelMode())
		refuse_old_snapshot();
	UnregisterSnapshot(query->snapshot);
	query->snapshot = RegisterSnapshot(GetTransactionSnapshot());
}

/* Does a read that begins now have to ask the primary? */
static bool
is_strict_on_standby(QdbGate gate)
{
	if (gate != QDB_GATE_STANDBY || qdb_read_consistency != QDB_READ_STRICT || strict_snapshot)
		return false;
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the snapshot of this transaction was not taken for strict reads"),
				 errhint("Set quantadb.read_consistency before BEGIN, and begin the transaction with BEGIN.")));
	return true;
}

/*
 * A transaction with one snapshot keeps the promise of strict reads where it
 * begins: it takes its snapshot there.
 */
static void
begin_strict_transaction(QdbGate gate)
{
	XLogRecPtr	quorum;

	if (gate != QDB_GATE_STANDBY || qdb_read_consistency != QDB_READ_STRICT || strict_snapshot ||
		!IsTransactionBlock() || !IsolationUsesXactSnapshot() || FirstSnapshotSet)
		return;
	quorum = qdb_begin_strict_read(InvalidTransactionId);
	PushActiveSnapshot(GetTransactionSnapshot());
	qdb_finish_strict_read(quorum);
	PopActiveSnapshot();
	strict_snapshot = true;
}

/*
 * What a query may show.  Queries inside of functions show no less than the
 * one around them, and only have to show nothing that can be taken back.
 */
static void
check_read(QdbGate gate, QueryDesc *query)
{
	bool		strict = is_strict_on_standby(gate);
	bool		asks = strict && depth == 0;
	XLogRecPtr	wanted = qdb_session_lsn(gate);
	XLogRecPtr	quorum = InvalidXLogRecPtr;

	qdb_check_lag(gate, query->plannedstmt);
	if (asks || wanted != InvalidXLogRecPtr)
	{
		bool		given_back = has_own_snapshot(query);
		TransactionId xmin = given_back ? give_snapshot_back(query) : InvalidTransactionId;

		qdb_wait_for_session(wanted, xmin);
		if (asks)
			quorum = qdb_begin_strict_read(xmin);
		renew_snapshot(query, given_back);
	}
	if (strict)
		qdb_finish_strict_read(quorum);
	qdb_check_strict(gate);
	qdb_check_postmaster();
}

static void
executor_start(QueryDesc *query, int eflags)
{
	QdbGate		gate = qdb_check_gate();

	if (qdb_shared != NULL && !IsParallelWorker())
		qdb_count(&qdb_shared->counters.queries);
	if (gate != QDB_GATE_INERT && !IsParallelWorker() && (eflags & EXEC_FLAG_EXPLAIN_ONLY) == 0)
	{
		qdb_check_query(gate, query->plannedstmt);
		check_read(gate, query);
	}
	if (prev_executor_start)
		prev_executor_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
}

/*
 * On a node that is not the primary PostgreSQL refuses what functions write (sequences,
 * large objects, messages in WAL) as late as its code does, at times as an internal
 * error.  Say what it is, and where the primary is.
 */
static void
explain_refusal(QdbGate gate, MemoryContext context)
{
	static const char suffix[] = " during recovery";
	MemoryContext error_context;
	ErrorData  *error;
	size_t		length;

	if (gate == QDB_GATE_INERT || gate == QDB_GATE_OPEN ||
		(geterrcode() != ERRCODE_READ_ONLY_SQL_TRANSACTION && geterrcode() != ERRCODE_INTERNAL_ERROR))
		return;
	error_context = MemoryContextSwitchTo(context);
	error = CopyErrorData();
	length = error->message != NULL ? strlen(error->message) : 0;
	if (error->sqlerrcode == ERRCODE_INTERNAL_ERROR &&
		(length < strlen(suffix) || strcmp(error->message + length - strlen(suffix), suffix) != 0))
	{
		FreeErrorData(error);
		MemoryContextSwitchTo(error_context);
		return;
	}
	FlushErrorState();
	error->sqlerrcode = ERRCODE_READ_ONLY_SQL_TRANSACTION;
	if (error->hint == NULL)
		error->hint = qdb_primary_hint();
	ReThrowError(error);
}

/* Knows queries of the client from those inside of functions. */
static void
executor_run(QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once)
{
	MemoryContext old_context = CurrentMemoryContext;

	depth++;
	PG_TRY();
	{
		if (prev_executor_run)
			prev_executor_run(query, direction, count, execute_once);
		else
			standard_ExecutorRun(query, direction, count, execute_once);
	}
	PG_CATCH();
	{
		depth--;
		explain_refusal(qdb_check_gate(), old_context);
		PG_RE_THROW();
	}
	PG_END_TRY();
	depth--;
}

static void
run_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
			ProcessUtilityContext context, ParamListInfo params,
			QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	if (prev_process_utility)
		prev_process_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
}

/* Both wait for a quorum inside of the command, which is a transaction of its own. */
static bool
ends_prepared(Node *parsetree)
{
	return IsA(parsetree, TransactionStmt) &&
		(((TransactionStmt *) parsetree)->kind == TRANS_STMT_COMMIT_PREPARED ||
		 ((TransactionStmt *) parsetree)->kind == TRANS_STMT_ROLLBACK_PREPARED);
}

/* Like give_snapshot_back, for a command of the client that has read nothing yet. */
static TransactionId
give_portal_snapshot_back(void)
{
	TransactionId xmin = MyProc->xmin;

	PopActiveSnapshot();
	ActivePortal->portalSnapshot = NULL;
	InvalidateCatalogSnapshot();
	return xmin;
}

/*
 * COPY TO reads without ExecutorStart, so its read rules are kept here.  True:
 * a new snapshot was pushed, which the caller pops.
 */
static bool
begin_copy(QdbGate gate, ProcessUtilityContext context)
{
	bool		strict = is_strict_on_standby(gate);
	XLogRecPtr	wanted = qdb_session_lsn(gate);
	bool		renewed = strict || wanted != InvalidXLogRecPtr;
	bool		given_back = false;
	XLogRecPtr	quorum = InvalidXLogRecPtr;

	qdb_check_lag(gate, NULL);
	if (renewed)
	{
		TransactionId xmin = InvalidTransactionId;

		given_back = context == PROCESS_UTILITY_TOPLEVEL && ActivePortal != NULL &&
			ActivePortal->portalSnapshot != NULL && ActivePortal->portalSnapshot == GetActiveSnapshot() &&
			!IsolationUsesXactSnapshot();
		if (given_back)
			xmin = give_portal_snapshot_back();
		qdb_wait_for_session(wanted, xmin);
		if (strict)
			quorum = qdb_begin_strict_read(xmin);
		if (IsolationUsesXactSnapshot())
			refuse_old_snapshot();
		if (given_back)
			EnsurePortalSnapshotExists();
		else
			PushActiveSnapshot(GetTransactionSnapshot());
	}
	if (strict)
		qdb_finish_strict_read(quorum);
	qdb_check_strict(gate);
	qdb_check_postmaster();
	return renewed && !given_back;
}

static void
process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *parsetree = pstmt->utilityStmt;
	QdbGate		gate = qdb_check_gate();
	bool		renewed = false;
	MemoryContext old_context = CurrentMemoryContext;

	qdb_check_utility(gate, parsetree);
	if (gate != QDB_GATE_INERT && IsA(parsetree, CopyStmt))
		renewed = begin_copy(gate, context);

	PG_TRY();
	{
		/*
		 * The end of the transaction releases: what is remembered until then
		 * does not make an error of what has been done.
		 */
		if (gate != QDB_GATE_INERT && ends_prepared(parsetree))
			qdb_hold_signals();
		run_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	}
	PG_CATCH();
	{
		explain_refusal(gate, old_context);
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (renewed)
		PopActiveSnapshot();
	if (gate == QDB_GATE_STANDBY && (IsA(parsetree, TransactionStmt) || IsA(parsetree, VariableSetStmt)))
		begin_strict_transaction(gate);
}

static bool
is_superuser_name(const char *name)
{
	HeapTuple	tuple = SearchSysCache1(AUTHNAME, CStringGetDatum(name));
	bool		super = false;

	if (HeapTupleIsValid(tuple))
	{
		super = ((Form_pg_authid) GETSTRUCT(tuple))->rolsuper;
		ReleaseSysCache(tuple);
	}
	return super;
}

/*
 * New sessions.  A closed node refuses all but superusers, as a server that
 * starts up would: libpq then tries its next host.  A fenced one reports
 * itself read-only, so that target_session_attrs=read-write passes it by.
 * Source "session" wins over every configured value and leaves the reset value
 * alone, which lift_read_only() returns to.  The session has no user yet whose
 * setting it could be.
 */
static void
client_authentication(Port *port, int status)
{
	QdbGate		gate;

	if (prev_client_authentication)
		prev_client_authentication(port, status);
	if (status != STATUS_OK || am_walsender)
		return;
	gate = qdb_check_gate();
	if (gate == QDB_GATE_CLOSED && !is_superuser_name(port->user_name))
		ereport(FATAL,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("the new primary is not open yet"),
				 errhint("%s", qdb_primary_hint())));
	if (gate != QDB_GATE_INERT && gate != QDB_GATE_OPEN)
	{
		(void) set_config_option_ext("default_transaction_read_only", "on", PGC_USERSET, PGC_S_SESSION,
									 BOOTSTRAP_SUPERUSERID, GUC_ACTION_SET, true, 0, false);
		forced_read_only = true;
	}
}

void
qdb_install_hooks(void)
{
	prev_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
	prev_executor_run = ExecutorRun_hook;
	ExecutorRun_hook = executor_run;
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	prev_client_authentication = ClientAuthentication_hook;
	ClientAuthentication_hook = client_authentication;
	qdb_watch_objects();
	RegisterXactCallback(on_transaction, NULL);
}
