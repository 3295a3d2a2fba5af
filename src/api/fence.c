/*-------------------------------------------------------------------------
 *
 * fence.c
 *		Writes are default-deny on members (I15).
 *
 * The rule is qdb_check_commit: no transaction with an xid commits or prepares
 * while this node may not write.  The other checks refuse earlier and say
 * more: queries by what their plan does, utility commands by a list of those
 * that change nothing.  Even a commit that slips in between check and record
 * is not acknowledged, because it cannot reach a quorum (I5).
 *
 * On a standby PostgreSQL itself refuses; here it only gets the hint that
 * names the primary.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "nodes/parsenodes.h"
#include "utils/guc.h"

#include "api/hooks.h"
#include "base/status.h"

QdbGate
qdb_check_gate(void)
{
	uint64		open_epoch;

	if (qdb_shared == NULL || !qdb_shared->member)
		return QDB_GATE_INERT;
	if (RecoveryInProgress())
		return QDB_GATE_STANDBY;
	if (qdb_may_write())
		return QDB_GATE_OPEN;
	SpinLockAcquire(&qdb_shared->mutex);
	open_epoch = qdb_shared->open_epoch;
	SpinLockRelease(&qdb_shared->mutex);
	return open_epoch == 0 ? QDB_GATE_CLOSED : QDB_GATE_FENCED;
}

void
qdb_refuse_write(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
			 errmsg("cannot write: this node is not the primary"),
			 errhint("%s", qdb_primary_hint())));
}

void
qdb_refuse_closed(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CANNOT_CONNECT_NOW),
			 errmsg("the new primary is not open yet"),
			 errdetail("This node serves nothing until its epoch is on a quorum."),
			 errhint("%s", qdb_primary_hint())));
}

/* In PRE_COMMIT and PRE_PREPARE; standbys have no xids. */
void
qdb_check_commit(void)
{
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()) && !qdb_may_write())
		qdb_refuse_write();
}

/*
 * A query, before it starts.  A closed node answers only what reads no table:
 * status functions work, data stays unseen (I8).
 */
void
qdb_check_query(QdbGate gate, const PlannedStmt *plan)
{
	bool		writes = plan->commandType != CMD_SELECT || plan->hasModifyingCTE || plan->rowMarks != NIL;

	if (gate == QDB_GATE_INERT || gate == QDB_GATE_OPEN)
		return;
	if (gate == QDB_GATE_CLOSED && (writes || plan->relationOids != NIL))
		qdb_refuse_closed();
	if (writes)
		qdb_refuse_write();
}

/*
 * Utility commands that write nothing, or whose queries come through
 * qdb_check_query themselves.
 */
static bool
is_harmless(Node *parsetree)
{
	switch (nodeTag(parsetree))
	{
		case T_TransactionStmt:
			switch (((TransactionStmt *) parsetree)->kind)
			{
				case TRANS_STMT_PREPARE:
				case TRANS_STMT_COMMIT_PREPARED:
				case TRANS_STMT_ROLLBACK_PREPARED:
					return false;
				default:
					return true;
			}
		case T_CopyStmt:
			return !((CopyStmt *) parsetree)->is_from;
		case T_AlterSystemStmt:
		case T_CallStmt:
		case T_CheckPointStmt:
		case T_ClosePortalStmt:
		case T_ConstraintsSetStmt:
		case T_DeallocateStmt:
		case T_DeclareCursorStmt:
		case T_DiscardStmt:
		case T_DoStmt:
		case T_ExecuteStmt:
		case T_ExplainStmt:
		case T_FetchStmt:
		case T_ListenStmt:
		case T_LoadStmt:
		case T_LockStmt:
		case T_PrepareStmt:
		case T_UnlistenStmt:
		case T_VariableSetStmt:
		case T_VariableShowStmt:
			return true;
		default:
			return false;
	}
}

/* RESET ALL is refused too: it would take ours with it. */
static void
check_alter_system(AlterSystemStmt *stmt)
{
	VariableSetStmt *set = stmt->setstmt;

	if (set->kind != VAR_RESET_ALL && !qdb_is_owned_setting(set->name))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 set->kind == VAR_RESET_ALL ?
			 errmsg("cannot reset all settings of a cluster member") :
			 errmsg("cannot change \"%s\" on a cluster member", set->name),
			 errdetail("QuantaDB sets what replication and failover depend on by itself."),
			 errhint("Reset or change other settings by name; use quantadb_set() for what the cluster does.")));
}

void
qdb_check_utility(QdbGate gate, Node *parsetree)
{
	if (gate == QDB_GATE_INERT)
		return;
	if (IsA(parsetree, AlterSystemStmt))
		check_alter_system((AlterSystemStmt *) parsetree);
	if (gate == QDB_GATE_CLOSED && (!is_harmless(parsetree) || IsA(parsetree, CopyStmt)))
		qdb_refuse_closed();
	if (gate == QDB_GATE_FENCED && !is_harmless(parsetree))
		qdb_refuse_write();
}
