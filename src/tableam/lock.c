/*-------------------------------------------------------------------------
 *
 * lock.c
 *		Row locks: FOR KEY SHARE, FOR SHARE, FOR NO KEY UPDATE, FOR UPDATE.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/change.h"

#include "access/visibilitymap.h"
#include "miscadmin.h"
#include "storage/procarray.h"

static inline bool
keyshr_locked(uint16 mask)
{
	return (mask & QDB_X_SHR) == QDB_X_KEYSHR;
}

static inline bool
excl_locked(uint16 mask)
{
	return (mask & QDB_X_SHR) == QDB_X_EXCL;
}

/*
 * Makes new the xmax of the row, which is locked and has room for it.  An
 * update that the row has already had keeps its link.
 */
void
qdb_set_lock(QdbChange *c, QdbXmax new)
{
	QdbXact		want;
	QdbAlloc	a;
	QdbEntry	e;
	bool		vm_cleared = false;

	QdbXactInit(&want, new.xid, FirstCommandId, new.mask);
	if (!(new.mask & QDB_X_LOCK_ONLY) && c->row.xx != NULL)
	{
		want.mask |= c->row.xx->mask & (QDB_X_UPDATED | QDB_X_HOT | QDB_X_MOVED);
		want.next = c->row.xx->next;
		want.cid = c->row.xx->cid;
	}
	qdb_plan_xx(c, &a, &want, &e);

	START_CRIT_SECTION();
	/* Who sees the row does not change, but it is not frozen any more. */
	if (PageIsAllVisible(c->view.page))
		vm_cleared = visibilitymap_clear(c->rel, c->blk, c->vmbuffer, VISIBILITYMAP_ALL_FROZEN);
	qdb_change_set_xx(c, &a, &e);
	if (RelationNeedsWAL(c->rel))
		qdb_log_xx(c, XLOG_QDB_LOCK, &e, vm_cleared);
	END_CRIT_SECTION();

	/* Looking at the row may lock the overflow page itself. */
	qdb_overflow_unlock(c);
	qdb_change_refresh(c);
}

/* Waits for a transaction as the policy says; false: LockWaitSkip, and it runs. */
bool
qdb_lock_wait_xid(TransactionId xid, LockWaitPolicy policy, Relation rel, ItemPointer tid, XLTW_Oper oper)
{
	switch (policy)
	{
		case LockWaitBlock:
			XactLockTableWait(xid, rel, tid, oper);
			break;
		case LockWaitSkip:
			return ConditionalXactLockTableWait(xid);
		case LockWaitError:
			if (!ConditionalXactLockTableWait(xid))
				ereport(ERROR,
						(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
						 errmsg("could not obtain lock on row in relation \"%s\"",
								RelationGetRelationName(rel))));
			break;
	}
	return true;
}

typedef struct Locker
{
	QdbChange	c;
	LockWaitPolicy policy;
	bool		follow;			/* lock newer versions, too */
	bool		first;
	bool		skip_tuplock;
	/* of this round: the xmax as it was before the page was unlocked */
	QdbXmax		held;
	bool		has_next;
	ItemPointerData next;
	TM_Result	result;
} Locker;

typedef enum
{
	LOCK_AGAIN,					/* page locked: look at the row again */
	LOCK_HAVE,					/* page unlocked: we have the lock already */
	LOCK_FAIL,					/* page locked: result says why */
	LOCK_TAKE,					/* page locked: no need to wait */
	LOCK_WAITED					/* page locked: the holder has ended */
} LockStep;

/*
 * Does a subtransaction of ours hold a lock that is strong enough?  Then we must
 * not queue, or we wait for who waits for us.
 */
static bool
own_lock_suffices(Locker *l)
{
	LockTupleMode mode = l->c.mode;
	MultiXactMember *members;
	bool		suffices = false;
	int			n;

	if (!(l->held.mask & QDB_X_MULTI))
	{
		uint16		mask = l->held.mask;

		if (!TransactionIdIsCurrentTransactionId(l->held.xid))
			return false;
		switch (mode)
		{
			case LockTupleKeyShare:
				return true;
			case LockTupleShare:
				return (mask & QDB_X_SHR) == QDB_X_SHR || excl_locked(mask);
			case LockTupleNoKeyExclusive:
				return excl_locked(mask);
			case LockTupleExclusive:
				return excl_locked(mask) && (mask & QDB_X_KEYS_UPDATED);
		}
		return false;
	}
	n = GetMultiXactIdMembers(l->held.xid, &members, false, (l->held.mask & QDB_X_LOCK_ONLY) != 0);
	for (int i = 0; i < n; i++)
	{
		if (!TransactionIdIsCurrentTransactionId(members[i].xid))
			continue;
		if (qdb_mode_of_status(members[i].status) >= mode)
			suffices = true;
		else
			l->skip_tuplock = true;
	}
	if (n > 0)
		pfree(members);
	return suffices;
}

/* Locks the page again; sets the result where the row has gone. */
static bool
relock(Locker *l)
{
	if (qdb_change_lock(&l->c))
		return true;
	l->result = TM_Deleted;
	return false;
}

static LockStep
relock_unchanged(Locker *l)
{
	if (!relock(l))
		return LOCK_FAIL;
	return qdb_change_same_xmax(&l->c, &l->held) ? LOCK_TAKE : LOCK_AGAIN;
}

/* Locks the newer versions; the page is unlocked. */
static bool
lock_newer(Locker *l)
{
	TM_Result	result = TM_Ok;

	if (l->follow && !(l->held.mask & QDB_X_LOCK_ONLY) && l->has_next)
	{
		TransactionId prior = (l->held.mask & QDB_X_MULTI) ?
		qdb_multi_update_xid(l->held.xid) : l->held.xid;

		result = qdb_lock_chain(l->c.rel, prior, l->next, l->c.xid, l->c.mode);
	}
	if (result == TM_Ok)
		return true;
	if (relock(l))
		l->result = result;
	return false;
}

/* FOR KEY SHARE waits only for who changes the key. */
static LockStep
try_key_share(Locker *l)
{
	bool		updated = !(l->held.mask & QDB_X_LOCK_ONLY);

	if (!lock_newer(l) || !relock(l))
		return LOCK_FAIL;
	if (!qdb_row_only_locked(&l->c.row) &&
		(QdbRowXmaxIs(&l->c.row, QDB_X_KEYS_UPDATED) || !updated))
		return LOCK_AGAIN;
	return LOCK_TAKE;
}

/*
 * The page is unlocked.  Returns LOCK_WAITED if there is nothing for it but to
 * wait; then the page is still unlocked.
 */
static LockStep
try_without_wait(Locker *l)
{
	uint16		mask = l->held.mask;
	LockStep	step = LOCK_WAITED;

	switch (l->c.mode)
	{
		case LockTupleKeyShare:
			if (!(mask & QDB_X_KEYS_UPDATED))
				return try_key_share(l);
			break;
		case LockTupleShare:
			if ((mask & QDB_X_LOCK_ONLY) && !excl_locked(mask))
			{
				if (!relock(l))
					return LOCK_FAIL;
				mask = QdbRowXmaxMask(&l->c.row);
				if (!QdbRowNoXmax(&l->c.row) && (!(mask & QDB_X_LOCK_ONLY) || excl_locked(mask)))
					return LOCK_AGAIN;
				return LOCK_TAKE;
			}
			break;
		case LockTupleNoKeyExclusive:
			if ((mask & QDB_X_MULTI) ? !qdb_multi_conflicts(l->held.xid, mask, l->c.mode, NULL) :
				keyshr_locked(mask))
				step = relock_unchanged(l);
			break;
		case LockTupleExclusive:
			break;
	}
	/* Alone with it ourselves: whatever we hold, it does not stop us. */
	if (step == LOCK_WAITED && !(mask & QDB_X_MULTI) &&
		TransactionIdIsCurrentTransactionId(l->held.xid))
		step = relock_unchanged(l);
	return step;
}

static bool
sleep_on_holder(Locker *l)
{
	QdbChange  *c = &l->c;

	if (!(l->held.mask & QDB_X_MULTI))
		return qdb_lock_wait_xid(l->held.xid, l->policy, c->rel, &c->tid, c->oper);
	if (qdb_multi_wait(l->held.xid, qdb_status_of_mode(c->mode, false), l->held.mask,
					   l->policy != LockWaitBlock, c->rel, &c->tid, c->oper, NULL))
		return true;
	if (l->policy == LockWaitError)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not obtain lock on row in relation \"%s\"",
						RelationGetRelationName(c->rel))));
	return false;
}

/* Someone has or had the row; the page is locked. */
static LockStep
deal_with_holder(Locker *l)
{
	QdbChange  *c = &l->c;
	LockStep	step;

	l->held = QdbRowXmax(&c->row);
	l->has_next = QdbRowNext(&c->row, &l->next);
	qdb_change_unlock(c);
	if (l->first)
	{
		l->first = false;
		if (own_lock_suffices(l))
			return LOCK_HAVE;
	}
	step = try_without_wait(l);
	if (step != LOCK_WAITED)
		return step;
	if (l->result == TM_Updated || l->result == TM_Deleted)
	{
		/* It is done already: waiting changes nothing. */
		relock(l);
		return LOCK_FAIL;
	}
	if ((!l->skip_tuplock &&
		 !qdb_acquire_tuplock(c->rel, &c->tid, c->mode, l->policy, &c->have_tuplock)) ||
		!sleep_on_holder(l))
	{
		if (relock(l))
			l->result = TM_WouldBlock;
		return LOCK_FAIL;
	}
	if (!lock_newer(l))
		return LOCK_FAIL;
	step = relock_unchanged(l);
	if (step != LOCK_TAKE)
		return step;
	if (!(l->held.mask & QDB_X_MULTI))
		qdb_hint_xmax(&c->row, l->held.xid);
	return LOCK_WAITED;
}

/*
 * Locks one version.  Whatever the result, the page is locked at the end, and
 * c->row is the row if there is one.
 */
static TM_Result
lock_version(Locker *l, TM_FailureData *tmfd)
{
	QdbChange  *c = &l->c;
	QdbXmax		new;

	for (;;)
	{
		LockStep	step = LOCK_TAKE;

		l->result = qdb_row_satisfies_update(&c->row, c->cid);
		if (l->result == TM_Invisible)
			return TM_Invisible;
		if (l->result == TM_BeingModified || l->result == TM_Updated || l->result == TM_Deleted)
			step = deal_with_holder(l);
		else if (l->result == TM_SelfModified)
			step = LOCK_FAIL;
		if (step == LOCK_AGAIN)
			continue;
		if (step == LOCK_HAVE)
		{
			if (!relock(l))
				return TM_Deleted;
			return TM_Ok;
		}
		if (step == LOCK_WAITED && !QdbRowNoXmax(&c->row) && !qdb_row_only_locked(&c->row))
		{
			l->result = qdb_gone_result(&c->row);
			step = LOCK_FAIL;
		}
		if (step == LOCK_FAIL)
			return l->result;
		if (!qdb_change_pin_vm(c) && !qdb_change_make_room(c, 1))
			break;
		if (!relock(l))
			return TM_Deleted;
	}
	MultiXactIdSetOldestMember();
	qdb_compute_xmax(QdbRowXmax(&c->row), c->xid, c->mode, false, &new);
	qdb_set_lock(c, new);
	return TM_Ok;
}

/* One version, in the slot, too. */
static TM_Result
lock_tid(Relation rel, ItemPointer tid, TupleTableSlot *slot, CommandId cid, LockTupleMode mode,
		 LockWaitPolicy policy, bool follow, TM_FailureData *tmfd)
{
	Locker		l = {.policy = policy,.follow = follow,.first = true};
	TM_Result	result;
	QdbRow		row;

	l.c.xid = GetCurrentTransactionId();
	l.c.cid = cid;
	l.c.mode = mode;
	l.c.oper = XLTW_Lock;
	tmfd->ctid = *tid;
	tmfd->xmax = InvalidTransactionId;
	tmfd->cmax = InvalidCommandId;
	result = qdb_change_open(&l.c, rel, tid) ? lock_version(&l, tmfd) : TM_Deleted;
	if (qdb_view_row(&l.c.view, l.c.off, &row))
	{
		if (result != TM_Ok && result != TM_Invisible)
			qdb_change_failure(&l.c, result, tmfd);
		qdb_slot_store(slot, &row);
	}
	qdb_change_unlock(&l.c);
	qdb_change_close(&l.c);
	return result;
}

TM_Result
qdb_tuple_lock(Relation rel, ItemPointer tid, Snapshot snapshot, TupleTableSlot *slot, CommandId cid,
			   LockTupleMode mode, LockWaitPolicy wait_policy, uint8 flags, TM_FailureData *tmfd)
{
	bool		follow = (flags & TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS) != 0;
	TM_Result	result;

	tmfd->traversed = false;
	for (;;)
	{
		result = lock_tid(rel, tid, slot, cid, mode, wait_policy, follow, tmfd);
		if (result != TM_Updated || !(flags & TUPLE_LOCK_FLAG_FIND_LAST_VERSION))
			return result;
		if (ItemPointerEquals(&tmfd->ctid, tid))
			return TM_Deleted;
		result = qdb_find_last_version(rel, tid, cid, wait_policy, tmfd);
		if (result != TM_Ok)
			return result;
	}
}
