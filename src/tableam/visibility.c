/*-------------------------------------------------------------------------
 *
 * visibility.c
 *		Which rows a snapshot sees, which a transaction may change, and which
 *		none can see any more.
 *
 * The rules are heap's, on the entries of a page's transaction table.  The
 * order of the tests is not a matter of taste: whether a transaction is our
 * own, then whether it runs (or did for the snapshot), and only then whether it
 * committed.  Each command's number has its place beside the xid, once for the
 * inserter and once for the updater, so that nothing like combo CIDs is needed.
 *
 * A hint of an entry serves all rows that name it.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/internal.h"

#include "access/subtrans.h"
#include "access/xlog.h"
#include "storage/predicate.h"
#include "storage/procarray.h"

/*
 * Remembers how a transaction ended.  That it committed may be said only when
 * its commit record is flushed or will be before this page.  xid is invalid
 * where that needs no check.
 */
void
qdb_set_hint(QdbRow *r, QdbXact *x, uint16 bit, TransactionId xid)
{
	Buffer		buf = r->view->buf;

	if (buf == InvalidBuffer)
		return;
	if (x == r->xx && x != r->xi && !r->xx_local)
	{
		x->mask |= bit;			/* our copy of an overflow entry */
		return;
	}
	if (TransactionIdIsValid(xid))
	{
		XLogRecPtr	lsn = TransactionIdGetCommitLSN(xid);

		if (BufferIsPermanent(buf) && XLogNeedsFlush(lsn) && BufferGetLSNAtomic(buf) < lsn)
			return;
	}
	x->mask |= bit;

	/*
	 * With checksums the first hint on a page after a checkpoint has a record
	 * of its own.  Where a change follows that is not needed; if it does not
	 * after all, the hint is in memory only, and may be set again.
	 */
	if (!r->view->changing)
		MarkBufferDirtyHint(buf, true);
}

/* The member of a multixact that updated the row, or the xmax itself. */
TransactionId
qdb_row_update_xid(const QdbRow *r)
{
	if (!QdbRowNoXmax(r) && (r->xx->mask & (QDB_X_MULTI | QDB_X_LOCK_ONLY)) == QDB_X_MULTI)
		return qdb_multi_update_xid(r->xx->xid);
	return QdbRowRawXmax(r);
}

/* Did the xmax, if it is done, leave the row as it was? */
bool
qdb_row_only_locked(QdbRow *r)
{
	TransactionId xmax;

	if (QdbRowNoXmax(r) || (r->xx->mask & QDB_X_LOCK_ONLY))
		return true;
	if (!TransactionIdIsValid(r->xx->xid))
		return true;
	if (!(r->xx->mask & QDB_X_MULTI))
		return false;
	xmax = qdb_multi_update_xid(r->xx->xid);
	return !(TransactionIdIsCurrentTransactionId(xmax) || TransactionIdIsInProgress(xmax) ||
			 TransactionIdDidCommit(xmax));
}

/*
 * Is a row that our own transaction inserted still there for the command?
 * InvalidCommandId: for one that sees all commands so far.
 */
static bool
own_row_visible(QdbRow *r, CommandId curcid)
{
	TransactionId xmax;

	if (QdbRowNoXmax(r) || (r->xx->mask & QDB_X_LOCK_ONLY))
		return true;
	if (r->xx->mask & QDB_X_MULTI)
	{
		xmax = qdb_multi_update_xid(r->xx->xid);
		if (!TransactionIdIsCurrentTransactionId(xmax))
			return true;		/* the subtransaction aborted */
	}
	else if (!TransactionIdIsCurrentTransactionId(r->xx->xid))
	{
		qdb_set_hint(r, r->xx, QDB_X_ABORTED, InvalidTransactionId);
		return true;
	}
	return r->xx->cid >= curcid;
}

#define own_row_left(r) own_row_visible(r, InvalidCommandId)

typedef enum
{
	XMIN_OWN,
	XMIN_RUNS,
	XMIN_COMMITTED,
	XMIN_ABORTED
} XminState;

static XminState
hint_xmin_end(QdbRow *r)
{
	if (TransactionIdDidCommit(r->xi->xid))
	{
		qdb_set_hint(r, r->xi, QDB_X_COMMITTED, r->xi->xid);
		return XMIN_COMMITTED;
	}
	qdb_set_hint(r, r->xi, QDB_X_ABORTED, InvalidTransactionId);
	return XMIN_ABORTED;
}

/* State of the inserter now. */
static XminState
xmin_state(QdbRow *r)
{
	if (r->xi == NULL || (r->xi->mask & QDB_X_COMMITTED))
		return XMIN_COMMITTED;
	if (r->xi->mask & QDB_X_ABORTED)
		return XMIN_ABORTED;
	if (TransactionIdIsCurrentTransactionId(r->xi->xid))
		return XMIN_OWN;
	if (TransactionIdIsInProgress(r->xi->xid))
		return XMIN_RUNS;
	return hint_xmin_end(r);
}

static bool
visible_mvcc(QdbRow *r, Snapshot snapshot)
{
	TransactionId xmax;

	if (r->xi == NULL)
		;
	else if (r->xi->mask & QDB_X_COMMITTED)
	{
		if (XidInMVCCSnapshot(r->xi->xid, snapshot))
			return false;
	}
	else if (r->xi->mask & QDB_X_ABORTED)
		return false;
	else if (TransactionIdIsCurrentTransactionId(r->xi->xid))
		return r->xi->cid < snapshot->curcid && own_row_visible(r, snapshot->curcid);
	else if (XidInMVCCSnapshot(r->xi->xid, snapshot))
		return false;
	else if (hint_xmin_end(r) == XMIN_ABORTED)
		return false;

	/* The inserter has committed. */
	if (QdbRowNoXmax(r) || (r->xx->mask & QDB_X_LOCK_ONLY))
		return true;
	if (r->xx->mask & QDB_X_MULTI)
	{
		xmax = qdb_multi_update_xid(r->xx->xid);
		if (TransactionIdIsCurrentTransactionId(xmax))
			return r->xx->cid >= snapshot->curcid;
		return XidInMVCCSnapshot(xmax, snapshot) || !TransactionIdDidCommit(xmax);
	}
	xmax = r->xx->xid;
	if (r->xx->mask & QDB_X_COMMITTED)
		return XidInMVCCSnapshot(xmax, snapshot);
	if (TransactionIdIsCurrentTransactionId(xmax))
		return r->xx->cid >= snapshot->curcid;
	if (XidInMVCCSnapshot(xmax, snapshot))
		return true;
	if (!TransactionIdDidCommit(xmax))
	{
		qdb_set_hint(r, r->xx, QDB_X_ABORTED, InvalidTransactionId);
		return true;
	}
	qdb_set_hint(r, r->xx, QDB_X_COMMITTED, xmax);
	return false;
}

/*
 * The second half of SnapshotSelf and SnapshotDirty.  running: receives an
 * updater that runs, which does not hide the row.
 */
static bool
visible_now(QdbRow *r, TransactionId *running)
{
	TransactionId xmax;

	if (QdbRowNoXmax(r) || (r->xx->mask & QDB_X_LOCK_ONLY))
		return true;
	if (r->xx->mask & QDB_X_COMMITTED)
		return false;
	xmax = (r->xx->mask & QDB_X_MULTI) ? qdb_multi_update_xid(r->xx->xid) : r->xx->xid;
	if (TransactionIdIsCurrentTransactionId(xmax))
		return false;
	if (TransactionIdIsInProgress(xmax))
	{
		*running = xmax;
		return true;
	}
	if (TransactionIdDidCommit(xmax))
	{
		if (!(r->xx->mask & QDB_X_MULTI))
			qdb_set_hint(r, r->xx, QDB_X_COMMITTED, xmax);
		return false;
	}
	if (!(r->xx->mask & QDB_X_MULTI))
		qdb_set_hint(r, r->xx, QDB_X_ABORTED, InvalidTransactionId);
	return true;
}

static bool
visible_self(QdbRow *r)
{
	TransactionId running;

	switch (xmin_state(r))
	{
		case XMIN_OWN:
			return own_row_left(r);
		case XMIN_COMMITTED:
			return visible_now(r, &running);
		default:
			return false;
	}
}

static bool
visible_dirty(QdbRow *r, Snapshot snapshot)
{
	snapshot->xmin = snapshot->xmax = InvalidTransactionId;
	snapshot->speculativeToken = 0;

	switch (xmin_state(r))
	{
		case XMIN_OWN:
			return own_row_left(r);
		case XMIN_RUNS:
			/* The inserter may still back down without an abort. */
			if (r->xi->mask & QDB_X_SPECULATIVE)
				snapshot->speculativeToken = ItemPointerGetBlockNumberNoCheck(&r->xi->next);
			snapshot->xmin = r->xi->xid;
			return true;
		case XMIN_COMMITTED:
			return visible_now(r, &snapshot->xmax);
		default:
			return false;
	}
}

/*
 * Live, dead, or dead once no snapshot needs *dead_after any more: heap's
 * HeapTupleSatisfiesVacuumHorizon.
 */
HTSV_Result
qdb_row_satisfies_vacuum_horizon(QdbRow *r, TransactionId *dead_after)
{
	TransactionId xmax;

	*dead_after = InvalidTransactionId;
	switch (xmin_state(r))
	{
		case XMIN_OWN:
			if (QdbRowNoXmax(r) || qdb_row_only_locked(r))
				return HEAPTUPLE_INSERT_IN_PROGRESS;
			return TransactionIdIsCurrentTransactionId(qdb_row_update_xid(r)) ?
				HEAPTUPLE_DELETE_IN_PROGRESS : HEAPTUPLE_INSERT_IN_PROGRESS;
		case XMIN_RUNS:
			return HEAPTUPLE_INSERT_IN_PROGRESS;
		case XMIN_ABORTED:
			return HEAPTUPLE_DEAD;
		case XMIN_COMMITTED:
			break;
	}

	if (QdbRowNoXmax(r))
		return HEAPTUPLE_LIVE;
	if (r->xx->mask & QDB_X_LOCK_ONLY)
	{
		if (!((r->xx->mask & QDB_X_MULTI) ? MultiXactIdIsRunning(r->xx->xid, true) :
			  TransactionIdIsInProgress(r->xx->xid)))
			qdb_set_hint(r, r->xx, QDB_X_ABORTED, InvalidTransactionId);
		return HEAPTUPLE_LIVE;
	}
	if (r->xx->mask & QDB_X_MULTI)
	{
		xmax = qdb_multi_update_xid(r->xx->xid);
		if (TransactionIdIsInProgress(xmax))
			return HEAPTUPLE_DELETE_IN_PROGRESS;
		if (TransactionIdDidCommit(xmax))
		{
			/* Lockers that still run are in the newer version, too. */
			*dead_after = xmax;
			return HEAPTUPLE_RECENTLY_DEAD;
		}
		if (!MultiXactIdIsRunning(r->xx->xid, false))
			qdb_set_hint(r, r->xx, QDB_X_ABORTED, InvalidTransactionId);
		return HEAPTUPLE_LIVE;
	}
	xmax = r->xx->xid;
	if (!(r->xx->mask & QDB_X_COMMITTED))
	{
		if (TransactionIdIsInProgress(xmax))
			return HEAPTUPLE_DELETE_IN_PROGRESS;
		if (!TransactionIdDidCommit(xmax))
		{
			qdb_set_hint(r, r->xx, QDB_X_ABORTED, InvalidTransactionId);
			return HEAPTUPLE_LIVE;
		}
		qdb_set_hint(r, r->xx, QDB_X_COMMITTED, xmax);
	}
	*dead_after = xmax;
	return HEAPTUPLE_RECENTLY_DEAD;
}

HTSV_Result
qdb_row_satisfies_vacuum(QdbRow *r, TransactionId oldest_xmin)
{
	TransactionId dead_after;
	HTSV_Result result = qdb_row_satisfies_vacuum_horizon(r, &dead_after);

	if (result == HEAPTUPLE_RECENTLY_DEAD && TransactionIdPrecedes(dead_after, oldest_xmin))
		result = HEAPTUPLE_DEAD;
	return result;
}

static bool
visible_non_vacuumable(QdbRow *r, Snapshot snapshot)
{
	TransactionId dead_after;
	HTSV_Result result = qdb_row_satisfies_vacuum_horizon(r, &dead_after);

	if (result == HEAPTUPLE_RECENTLY_DEAD)
		return !GlobalVisTestIsRemovableXid(snapshot->vistest, dead_after);
	return result != HEAPTUPLE_DEAD;
}

/*
 * Is the row dead for everyone, as far as hints say?  For a row that was just
 * tested, so that what can be known is in the hints.
 */
bool
qdb_row_surely_dead(QdbRow *r, GlobalVisState *vistest)
{
	if (r->xi != NULL && !(r->xi->mask & QDB_X_COMMITTED))
		return (r->xi->mask & QDB_X_ABORTED) != 0;
	if (QdbRowNoXmax(r) || (r->xx->mask & (QDB_X_LOCK_ONLY | QDB_X_MULTI)) ||
		!(r->xx->mask & QDB_X_COMMITTED))
		return false;
	return GlobalVisTestIsRemovableXid(vistest, r->xx->xid);
}

bool
qdb_row_visible(QdbRow *r, Snapshot snapshot)
{
	switch (snapshot->snapshot_type)
	{
		case SNAPSHOT_MVCC:
			return visible_mvcc(r, snapshot);
		case SNAPSHOT_SELF:
			return visible_self(r);
		case SNAPSHOT_ANY:
			return true;
		case SNAPSHOT_DIRTY:
			return visible_dirty(r, snapshot);
		case SNAPSHOT_NON_VACUUMABLE:
			return visible_non_vacuumable(r, snapshot);
		case SNAPSHOT_TOAST:
		case SNAPSHOT_HISTORIC_MVCC:
			break;
	}
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("tables of access method quantadb do not support logical decoding")));
	return false;
}

static TM_Result
gone_result(const QdbRow *r)
{
	return QdbRowXmaxIs(r, QDB_X_UPDATED | QDB_X_MOVED) ? TM_Updated : TM_Deleted;
}

/* The row is our own: may this command change it? */
static TM_Result
own_satisfies_update(QdbRow *r, CommandId curcid)
{
	TransactionId xmax;

	if (r->xi->cid >= curcid)
		return TM_Invisible;
	if (QdbRowNoXmax(r))
		return TM_Ok;
	if (r->xx->mask & QDB_X_LOCK_ONLY)
	{
		/* Others may hold a lock that they had on the version before. */
		if (r->xx->mask & QDB_X_MULTI)
			return MultiXactIdIsRunning(r->xx->xid, true) ? TM_BeingModified : TM_Ok;
		return TransactionIdIsInProgress(r->xx->xid) ? TM_BeingModified : TM_Ok;
	}
	if (r->xx->mask & QDB_X_MULTI)
	{
		xmax = qdb_multi_update_xid(r->xx->xid);
		if (!TransactionIdIsCurrentTransactionId(xmax))
			return MultiXactIdIsRunning(r->xx->xid, false) ? TM_BeingModified : TM_Ok;
	}
	else if (!TransactionIdIsCurrentTransactionId(r->xx->xid))
	{
		qdb_set_hint(r, r->xx, QDB_X_ABORTED, InvalidTransactionId);
		return TM_Ok;
	}
	return r->xx->cid >= curcid ? TM_SelfModified : TM_Invisible;
}

static TM_Result
multi_satisfies_update(QdbRow *r, CommandId curcid)
{
	TransactionId xmax;

	if (r->xx->mask & QDB_X_LOCK_ONLY)
	{
		if (MultiXactIdIsRunning(r->xx->xid, true))
			return TM_BeingModified;
		qdb_set_hint(r, r->xx, QDB_X_ABORTED, InvalidTransactionId);
		return TM_Ok;
	}
	xmax = qdb_multi_update_xid(r->xx->xid);
	if (TransactionIdIsCurrentTransactionId(xmax))
		return r->xx->cid >= curcid ? TM_SelfModified : TM_Invisible;
	if (MultiXactIdIsRunning(r->xx->xid, false))
		return TM_BeingModified;
	if (TransactionIdDidCommit(xmax))
		return gone_result(r);
	/* The updater aborted; lockers may have come in between. */
	if (MultiXactIdIsRunning(r->xx->xid, false))
		return TM_BeingModified;
	qdb_set_hint(r, r->xx, QDB_X_ABORTED, InvalidTransactionId);
	return TM_Ok;
}

/* May this command update, delete or lock the row?  heap's HeapTupleSatisfiesUpdate. */
TM_Result
qdb_row_satisfies_update(QdbRow *r, CommandId curcid)
{
	TransactionId xmax;

	switch (xmin_state(r))
	{
		case XMIN_OWN:
			return own_satisfies_update(r, curcid);
		case XMIN_RUNS:
		case XMIN_ABORTED:
			return TM_Invisible;
		case XMIN_COMMITTED:
			break;
	}
	if (QdbRowNoXmax(r))
		return TM_Ok;
	if (r->xx->mask & QDB_X_COMMITTED)
		return (r->xx->mask & QDB_X_LOCK_ONLY) ? TM_Ok : gone_result(r);
	if (r->xx->mask & QDB_X_MULTI)
		return multi_satisfies_update(r, curcid);

	xmax = r->xx->xid;
	if (TransactionIdIsCurrentTransactionId(xmax))
	{
		if (r->xx->mask & QDB_X_LOCK_ONLY)
			return TM_BeingModified;
		return r->xx->cid >= curcid ? TM_SelfModified : TM_Invisible;
	}
	if (TransactionIdIsInProgress(xmax))
		return TM_BeingModified;
	if (!TransactionIdDidCommit(xmax) || (r->xx->mask & QDB_X_LOCK_ONLY))
	{
		qdb_set_hint(r, r->xx, QDB_X_ABORTED, InvalidTransactionId);
		return TM_Ok;
	}
	qdb_set_hint(r, r->xx, QDB_X_COMMITTED, xmax);
	return gone_result(r);
}

/* ---- serializable transactions ---- */

void
qdb_predicate_lock(QdbRow *r, Snapshot snapshot)
{
	ItemPointerData tid;

	ItemPointerSet(&tid, r->view->blk, r->off);
	PredicateLockTID(r->view->rel, &tid, snapshot, QdbRowXmin(r));
}

/* Reports a write that the reading transaction does not see. */
void
qdb_check_conflict_out(bool visible, QdbRow *r, Snapshot snapshot)
{
	TransactionId xid;

	if (!CheckForSerializableConflictOutNeeded(r->view->rel, snapshot))
		return;
	switch (qdb_row_satisfies_vacuum(r, TransactionXmin))
	{
		case HEAPTUPLE_LIVE:
			if (visible)
				return;
			xid = QdbRowXmin(r);
			break;
		case HEAPTUPLE_RECENTLY_DEAD:
		case HEAPTUPLE_DELETE_IN_PROGRESS:
			xid = visible ? qdb_row_update_xid(r) : QdbRowXmin(r);
			if (TransactionIdPrecedes(xid, TransactionXmin))
				return;
			break;
		case HEAPTUPLE_INSERT_IN_PROGRESS:
			xid = QdbRowXmin(r);
			break;
		default:
			return;
	}
	if (!TransactionIdIsNormal(xid))
		return;
	xid = SubTransGetTopmostTransaction(xid);
	if (TransactionIdPrecedes(xid, TransactionXmin))
		return;
	CheckForSerializableConflictOut(r->view->rel, xid, snapshot);
}
