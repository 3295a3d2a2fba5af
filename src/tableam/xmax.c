/*-------------------------------------------------------------------------
 *
 * xmax.c
 *		Who holds a row: single transactions and multixacts as xmax.
 *
 * heap's rules (README.tuplock) on our bits.  The four lock modes, what updates
 * and deletions need, and who waits for whom are the same.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/change.h"

#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/procarray.h"

static const struct
{
	LOCKMODE	hwlock;
	int			lockstatus;
	int			updstatus;
}			modes[MaxLockTupleMode + 1] =

{
	[LockTupleKeyShare] = {AccessShareLock, MultiXactStatusForKeyShare, -1},
	[LockTupleShare] = {RowShareLock, MultiXactStatusForShare, -1},
	[LockTupleNoKeyExclusive] = {ExclusiveLock, MultiXactStatusForNoKeyUpdate, MultiXactStatusNoKeyUpdate},
	[LockTupleExclusive] = {AccessExclusiveLock, MultiXactStatusForUpdate, MultiXactStatusUpdate},
};

LockTupleMode
qdb_mode_of_status(MultiXactStatus status)
{
	switch (status)
	{
		case MultiXactStatusForKeyShare:
			return LockTupleKeyShare;
		case MultiXactStatusForShare:
			return LockTupleShare;
		case MultiXactStatusForNoKeyUpdate:
		case MultiXactStatusNoKeyUpdate:
			return LockTupleNoKeyExclusive;
		case MultiXactStatusForUpdate:
		case MultiXactStatusUpdate:
			break;
	}
	return LockTupleExclusive;
}

MultiXactStatus
qdb_status_of_mode(LockTupleMode mode, bool is_update)
{
	int			status = is_update ? modes[mode].updstatus : modes[mode].lockstatus;

	if (status == -1)
		elog(ERROR, "invalid lock tuple mode %d/%s", mode, is_update ? "true" : "false");
	return (MultiXactStatus) status;
}

/* The status that a plain xid has by the bits that go with it. */
MultiXactStatus
qdb_status_of_mask(uint16 mask)
{
	if (!(mask & QDB_X_LOCK_ONLY))
		return (mask & QDB_X_KEYS_UPDATED) ? MultiXactStatusUpdate : MultiXactStatusNoKeyUpdate;
	switch (mask & QDB_X_SHR)
	{
		case QDB_X_KEYSHR:
			return MultiXactStatusForKeyShare;
		case QDB_X_SHR:
			return MultiXactStatusForShare;
		case QDB_X_EXCL:
			return (mask & QDB_X_KEYS_UPDATED) ? MultiXactStatusForUpdate : MultiXactStatusForNoKeyUpdate;
	}
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("row lock of unknown mode 0x%04X", mask)));
	return MultiXactStatusForUpdate;
}

bool
qdb_statuses_conflict(MultiXactStatus a, MultiXactStatus b)
{
	return DoLockModesConflict(modes[qdb_mode_of_status(a)].hwlock, modes[qdb_mode_of_status(b)].hwlock);
}

/* ---- queueing for a row with the heavyweight lock ---- */

/* False only with LockWaitSkip. */
bool
qdb_acquire_tuplock(Relation rel, ItemPointer tid, LockTupleMode mode, LockWaitPolicy policy, bool *have)
{
	if (*have)
		return true;
	switch (policy)
	{
		case LockWaitBlock:
			LockTuple(rel, tid, modes[mode].hwlock);
			break;
		case LockWaitSkip:
			if (!ConditionalLockTuple(rel, tid, modes[mode].hwlock))
				return false;
			break;
		case LockWaitError:
			if (!ConditionalLockTuple(rel, tid, modes[mode].hwlock))
				ereport(ERROR,
						(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
						 errmsg("could not obtain lock on row in relation \"%s\"",
								RelationGetRelationName(rel))));
			break;
	}
	*have = true;
	return true;
}

void
qdb_release_tuplock(Relation rel, ItemPointer tid, LockTupleMode mode)
{
	UnlockTuple(rel, tid, modes[mode].hwlock);
}

/* ---- multixacts ---- */

/* The member that updated or deleted the row; invalid if all only lock it. */
TransactionId
qdb_multi_update_xid(MultiXactId multi)
{
	TransactionId xid = InvalidTransactionId;
	MultiXactMember *members;
	int			n = GetMultiXactIdMembers(multi, &members, false, false);

	for (int i = 0; i < n; i++)
		if (ISUPDATE_from_mxstatus(members[i].status))
			xid = members[i].xid;
	if (n > 0)
		pfree(members);
	return xid;
}

/* Bits for a multixact that is not older than the oldest one running. */
uint16
qdb_multi_mask(MultiXactId multi)
{
	MultiXactMember *members;
	int			n = GetMultiXactIdMembers(multi, &members, false, false);
	LockTupleMode strongest = LockTupleKeyShare;
	uint16		mask = QDB_X_MULTI;
	bool		update = false;

	for (int i = 0; i < n; i++)
	{
		MultiXactStatus status = members[i].status;

		strongest = Max(strongest, qdb_mode_of_status(status));
		if (status == MultiXactStatusForUpdate || status == MultiXactStatusUpdate)
			mask |= QDB_X_KEYS_UPDATED;
		if (ISUPDATE_from_mxstatus(status))
			update = true;
	}
	if (n > 0)
		pfree(members);
	if (strongest >= LockTupleNoKeyExclusive)
		mask |= QDB_X_EXCL;
	else
		mask |= strongest == LockTupleShare ? QDB_X_SHR : QDB_X_KEYSHR;
	if (!update)
		mask |= QDB_X_LOCK_ONLY;
	return mask;
}

/*
 * Must someone who wants the row in this mode wait for the multixact?
 * *current_is_member: is our own transaction one of its members?
 */
bool
qdb_multi_conflicts(MultiXactId multi, uint16 mask, LockTupleMode mode, bool *current_is_member)
{
	MultiXactMember *members;
	int			n = GetMultiXactIdMembers(multi, &members, false, (mask & QDB_X_LOCK_ONLY) != 0);
	bool		result = false;

	for (int i = 0; i < n; i++)
	{
		TransactionId xid = members[i].xid;

		if (TransactionIdIsCurrentTransactionId(xid))
		{
			if (current_is_member != NULL)
				*current_is_member = true;
			continue;
		}
		if (result ||
			!DoLockModesConflict(modes[qdb_mode_of_status(members[i].status)].hwlock, modes[mode].hwlock))
			continue;
		if (ISUPDATE_from_mxstatus(members[i].status) ?
			!TransactionIdDidAbort(xid) : TransactionIdIsInProgress(xid))
			result = true;
	}
	if (n > 0)
		pfree(members);
	return result;
}

/*
 * Waits for the members that conflict, or with nowait returns false if that
 * would block.  *remaining: how many run still, our own transaction included.
 */
bool
qdb_multi_wait(MultiXactId multi, MultiXactStatus status, uint16 mask, bool nowait,
			   Relation rel, ItemPointer tid, XLTW_Oper oper, int *remaining)
{
	MultiXactMember *members;
	int			n = GetMultiXactIdMembers(multi, &members, false, (mask & QDB_X_LOCK_ONLY) != 0);
	bool		result = true;
	int			remain = 0;

	for (int i = 0; i < n && result; i++)
	{
		TransactionId xid = members[i].xid;

		if (TransactionIdIsCurrentTransactionId(xid))
			remain++;
		else if (!qdb_statuses_conflict(members[i].status, status))
		{
			if (remaining != NULL && TransactionIdIsInProgress(xid))
				remain++;
		}
		else if (nowait)
			result = ConditionalXactLockTableWait(xid);
		else
			XactLockTableWait(xid, rel, tid, oper);
	}
	if (n > 0)
		pfree(members);
	if (remaining != NULL)
		*remaining = remain;
	return result;
}

/* ---- the new xmax ---- */

static void
add_to_free_row(TransactionId xid, LockTupleMode mode, bool is_update, QdbXmax *new)
{
	new->xid = xid;
	if (is_update)
	{
		new->mask = mode == LockTupleExclusive ? QDB_X_KEYS_UPDATED : 0;
		return;
	}
	new->mask = QDB_X_LOCK_ONLY;
	switch (mode)
	{
		case LockTupleKeyShare:
			new->mask |= QDB_X_KEYSHR;
			break;
		case LockTupleShare:
			new->mask |= QDB_X_SHR;
			break;
		case LockTupleNoKeyExclusive:
			new->mask |= QDB_X_EXCL;
			break;
		case LockTupleExclusive:
			new->mask |= QDB_X_EXCL | QDB_X_KEYS_UPDATED;
			break;
	}
}

static void
make_multi(TransactionId old, MultiXactStatus old_status, TransactionId xid, MultiXactStatus status,
		   QdbXmax *new)
{
	new->xid = MultiXactIdCreate(old, old_status, xid, status);
	new->mask = qdb_multi_mask(new->xid);
}

/*
 * The xmax of a row that has one, when xid takes it in the mode, or updates it.
 * May make a multixact.  Callers have found that xid need not wait.
 */
void
qdb_compute_xmax(QdbXmax old, TransactionId xid, LockTupleMode mode, bool is_update, QdbXmax *new)
{
	MultiXactStatus status;
	MultiXactStatus old_status;

	if (old.mask & QDB_X_ABORTED)
	{
		add_to_free_row(xid, mode, is_update, new);
		return;
	}
	if (old.mask & QDB_X_MULTI)
	{
		bool		lock_only = (old.mask & QDB_X_LOCK_ONLY) != 0;

		/* All gone, and no update to keep: as if there had been no one. */
		if (!MultiXactIdIsRunning(old.xid, lock_only) &&
			(lock_only || !TransactionIdDidCommit(qdb_multi_update_xid(old.xid))))
		{
			add_to_free_row(xid, mode, is_update, new);
			return;
		}
		new->xid = MultiXactIdExpand(old.xid, xid, qdb_status_of_mode(mode, is_update));
		new->mask = qdb_multi_mask(new->xid);
		return;
	}
	if (old.mask & QDB_X_COMMITTED)
	{
		make_multi(old.xid, qdb_status_of_mask(old.mask & ~QDB_X_LOCK_ONLY), xid,
				   qdb_status_of_mode(mode, is_update), new);
		return;
	}
	if (TransactionIdIsInProgress(old.xid))
	{
		old_status = qdb_status_of_mask(old.mask);
		if (old.xid == xid)
		{
			/* One lock of ours, the stronger of both. */
			mode = Max(mode, qdb_mode_of_status(old_status));
			add_to_free_row(xid, mode, is_update, new);
			return;
		}
		status = qdb_status_of_mode(mode, is_update);
		make_multi(old.xid, old_status, xid, status, new);
		return;
	}
	if (!(old.mask & QDB_X_LOCK_ONLY) && TransactionIdDidCommit(old.xid))
	{
		make_multi(old.xid, qdb_status_of_mask(old.mask), xid, qdb_status_of_mode(mode, is_update), new);
		return;
	}
	add_to_free_row(xid, mode, is_update, new);
}
