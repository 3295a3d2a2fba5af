/*-------------------------------------------------------------------------
 *
 * chain.c
 *		From a row to its newer versions.
 *
 * A link is followed only if the version's inserter is the old one's updater.
 * A version whose inserter all see has no inserter any more; that is no match,
 * and cannot be one: who follows a link has a snapshot that does not see the
 * update, and so the update is not one that all see.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/change.h"

#include "miscadmin.h"
#include "storage/procarray.h"

/*
 * Someone holds a version in the given status: may it be locked in our mode?
 * TM_SelfModified: our own transaction holds it.  *wait: not yet.
 */
static TM_Result
check_holder(QdbRow *r, MultiXactStatus status, TransactionId xid, LockTupleMode mode, bool *wait)
{
	bool		conflict = qdb_statuses_conflict(status, qdb_status_of_mode(mode, false));

	*wait = false;
	if (TransactionIdIsCurrentTransactionId(xid))
		return TM_SelfModified;
	if (TransactionIdIsInProgress(xid))
	{
		*wait = conflict;
		return TM_Ok;
	}
	/* Locks end with their transaction; updates that committed stay. */
	if (TransactionIdDidCommit(xid) && ISUPDATE_from_mxstatus(status) && conflict)
		return qdb_gone_result(r);
	return TM_Ok;
}

/* The same for all holders; *wait: whom to wait for. */
static TM_Result
check_holders(QdbRow *r, LockTupleMode mode, TransactionId *wait_for)
{
	QdbXmax		held = QdbRowXmax(r);
	MultiXactMember *members;
	TM_Result	result = TM_Ok;
	bool		wait = false;
	int			n;

	*wait_for = InvalidTransactionId;
	if (!(held.mask & QDB_X_MULTI))
	{
		result = check_holder(r, qdb_status_of_mask(held.mask), held.xid, mode, &wait);
		*wait_for = wait ? held.xid : InvalidTransactionId;
		return result;
	}
	n = GetMultiXactIdMembers(held.xid, &members, false, (held.mask & QDB_X_LOCK_ONLY) != 0);
	for (int i = 0; i < n && result == TM_Ok && !wait; i++)
	{
		result = check_holder(r, members[i].status, members[i].xid, mode, &wait);
		if (wait)
			*wait_for = members[i].xid;
	}
	if (n > 0)
		pfree(members);
	return result;
}

/*
 * Locks one version.  *next_xmax: the update that leads on, or invalid at the
 * end of the chain.
 */
static TM_Result
lock_one(QdbChange *c, TransactionId prior_xmax, TransactionId *next_xmax, ItemPointer next)
{
	TM_Result	result = TM_Ok;
	TransactionId wait_for;
	QdbXmax		new;

	*next_xmax = InvalidTransactionId;
	for (bool exists = true;; exists = qdb_change_lock(c))
	{
		CHECK_FOR_INTERRUPTS();
		if (!exists)
			return TM_Ok;
		if (qdb_change_pin_vm(c))
			continue;
		if ((TransactionIdIsValid(prior_xmax) && QdbRowXmin(&c->row) != prior_xmax) ||
			TransactionIdDidAbort(QdbRowXmin(&c->row)))
			return TM_Ok;
		if (!QdbRowNoXmax(&c->row))
		{
			result = check_holders(&c->row, c->mode, &wait_for);
			if (TransactionIdIsValid(wait_for))
			{
				qdb_change_unlock(c);
				XactLockTableWait(wait_for, c->rel, &c->tid, XLTW_LockUpdated);
				continue;
			}
			if (result != TM_Ok && result != TM_SelfModified)
				return result;
		}
		/* What we hold already need not be written again. */
		if (result == TM_SelfModified || !qdb_change_make_room(c, 1))
			break;
	}
	if (result != TM_SelfModified)
	{
		qdb_compute_xmax(QdbRowXmax(&c->row), c->xid, c->mode, false, &new);
		qdb_set_lock(c, new);
	}
	if (!QdbRowNoXmax(&c->row) && !QdbRowXmaxIs(&c->row, QDB_X_MOVED) &&
		QdbRowNext(&c->row, next) && !qdb_row_only_locked(&c->row))
		*next_xmax = qdb_row_update_xid(&c->row);
	return TM_Ok;
}

/*
 * Locks all versions from next on.  Who locks an old version because its key did
 * not change protects the newer ones, too.
 */
TM_Result
qdb_lock_chain(Relation rel, TransactionId prior_xmax, ItemPointerData next, TransactionId xid,
			   LockTupleMode mode)
{
	TM_Result	result = TM_Ok;

	MultiXactIdSetOldestMember();
	while (result == TM_Ok)
	{
		QdbChange	c = {.xid = xid,.mode = mode,.oper = XLTW_LockUpdated};
		ItemPointerData tid = next;
		bool		exists = qdb_change_open(&c, rel, &tid);

		if (exists)
			result = lock_one(&c, prior_xmax, &prior_xmax, &next);
		qdb_change_unlock(&c);
		qdb_change_close(&c);
		if (!exists || !TransactionIdIsValid(prior_xmax))
			break;
	}
	return result;
}

typedef struct Version
{
	bool		exists;
	bool		visible;
	TransactionId xmin;
	CommandId	cmin;
	bool		has_next;
	bool		moved;
	ItemPointerData next;
	TransactionId update_xid;
} Version;

static void
look_at(Relation rel, ItemPointer tid, Snapshot snapshot, Version *v)
{
	Buffer		buf = qdb_read_buffer(rel, ItemPointerGetBlockNumber(tid), NULL);
	QdbView		view;
	QdbRow		row;

	LockBuffer(buf, BUFFER_LOCK_SHARE);
	qdb_view_init(&view, rel, buf);
	TestForOldSnapshot(snapshot, rel, view.page);
	memset(v, 0, sizeof(*v));
	v->exists = qdb_view_row(&view, ItemPointerGetOffsetNumber(tid), &row);
	if (v->exists)
	{
		v->visible = qdb_row_visible(&row, snapshot);
		qdb_check_conflict_out(v->visible, &row, snapshot);
		if (v->visible)
			qdb_predicate_lock(&row, snapshot);
		v->xmin = QdbRowXmin(&row);
		v->cmin = row.xi == NULL ? FirstCommandId : row.xi->cid;
		v->has_next = QdbRowNext(&row, &v->next);
		v->moved = QdbRowXmaxIs(&row, QDB_X_MOVED);
		v->update_xid = qdb_row_update_xid(&row);
		if (QdbRowNoXmax(&row) || qdb_row_only_locked(&row))
			v->has_next = v->moved = false;
	}
	qdb_view_done(&view);
	UnlockReleaseBuffer(buf);
}

static void
refuse_moved(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("tuple to be locked was already moved to another partition due to concurrent update")));
}

/*
 * Moves *tid from a version that tmfd says was updated to the one to lock.
 * Anything but TM_Ok: there is none.
 */
TM_Result
qdb_find_last_version(Relation rel, ItemPointer tid, CommandId cid, LockWaitPolicy policy,
					  TM_FailureData *tmfd)
{
	TransactionId prior = tmfd->xmax;
	SnapshotData dirty;

	*tid = tmfd->ctid;
	tmfd->traversed = true;
	InitDirtySnapshot(dirty);
	for (;;)
	{
		Version		v;

		if (ItemPointerIndicatesMovedPartitions(tid))
			refuse_moved();
		look_at(rel, tid, &dirty, &v);

		/* Nothing there, or another row by now: the last version is deleted. */
		if (!v.exists || v.xmin != prior)
			return TM_Deleted;
		if (v.visible)
		{
			if (TransactionIdIsValid(dirty.xmin))
				ereport(ERROR,
						(errcode(ERRCODE_DATA_CORRUPTED),
						 errmsg_internal("xmin %u is uncommitted in row (%u,%u) to be updated in table \"%s\"",
										 dirty.xmin, ItemPointerGetBlockNumber(tid),
										 ItemPointerGetOffsetNumber(tid), RelationGetRelationName(rel))));
			if (TransactionIdIsValid(dirty.xmax))
			{
				if (!qdb_lock_wait_xid(dirty.xmax, policy, rel, tid, XLTW_FetchUpdated))
					return TM_WouldBlock;
				continue;
			}
			if (TransactionIdIsCurrentTransactionId(prior) && v.cmin >= cid)
			{
				tmfd->xmax = prior;
				tmfd->cmax = v.cmin;
				return TM_SelfModified;
			}
			return TM_Ok;
		}
		if (v.moved)
			refuse_moved();
		if (!v.has_next)
			return TM_Deleted;
		*tid = v.next;
		prior = v.update_xid;
	}
}

/* Moves *tid to the newest version that the scan's snapshot sees. */
void
qdb_tuple_get_latest_tid(TableScanDesc sscan, ItemPointer tid)
{
	ItemPointerData ctid = *tid;
	TransactionId prior = InvalidTransactionId;

	for (;;)
	{
		Version		v;

		look_at(sscan->rs_rd, &ctid, sscan->rs_snapshot, &v);
		if (!v.exists || (TransactionIdIsValid(prior) && v.xmin != prior))
			return;
		if (v.visible)
			*tid = ctid;
		if (!v.has_next)
			return;
		ctid = v.next;
		prior = v.update_xid;
	}
}
