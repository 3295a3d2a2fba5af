/*-------------------------------------------------------------------------
 *
 * change.h
 *		What DELETE, UPDATE and row locks share.
 *
 * A change holds pins of the row's page, of the page of the visibility map and
 * of an overflow page from its beginning to its end; locks come and go.  A pin
 * keeps no row in its place: after each time without the lock the row is looked
 * up again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_TABLEAM_CHANGE_H
#define QDB_TABLEAM_CHANGE_H

#include "tableam/wal.h"

#include "nodes/lockoptions.h"
#include "storage/lmgr.h"

typedef struct QdbXmax
{
	TransactionId xid;
	uint16		mask;			/* QDB_X_ABORTED: there is none */
} QdbXmax;

typedef struct QdbChange
{
	Relation	rel;
	ItemPointerData tid;
	BlockNumber blk;
	OffsetNumber off;
	TransactionId xid;
	CommandId	cid;
	LockTupleMode mode;
	XLTW_Oper	oper;
	Buffer		buf;
	Buffer		vmbuffer;
	Buffer		obuf;			/* overflow page */
	bool		olocked;
	bool		have_tuplock;
	bool		checked_lockers;
	bool		locker_remains;
	QdbView		view;
	QdbRow		row;
	bool		full;			/* no entry, and an overflow page, while the
								 * page stays locked */
	bool		have_refs;		/* ... */
	uint16		refs[QDB_REFS];
} QdbChange;

/* ---- change.c ---- */
extern bool qdb_change_open(QdbChange *c, Relation rel, ItemPointer tid);
extern bool qdb_change_lock(QdbChange *c);
extern bool qdb_change_refresh(QdbChange *c);
extern bool qdb_change_make_room(QdbChange *c, int entries);
extern TM_Result qdb_gone_result(const QdbRow *r);
extern void qdb_hint_xmax(QdbRow *r, TransactionId xid);
extern void qdb_change_unlock(QdbChange *c);
extern void qdb_change_close(QdbChange *c);
extern bool qdb_change_same_xmax(const QdbChange *c, const QdbXmax *xmax);
extern TM_Result qdb_change_check(QdbChange *c, Snapshot crosscheck, bool wait, int entries,
								  TM_FailureData *tmfd);
extern bool qdb_change_pin_vm(QdbChange *c);
extern void qdb_change_failure(QdbChange *c, TM_Result result, TM_FailureData *tmfd);
extern void qdb_change_alloc_init(QdbChange *c, QdbAlloc *a, Size row_len);
extern void qdb_plan_xx(QdbChange *c, QdbAlloc *a, const QdbXact *want, QdbEntry *e);
extern bool qdb_try_plan_xx(QdbChange *c, QdbAlloc *a, const QdbXact *want, QdbEntry *e);
extern void qdb_log_xx(QdbChange *c, uint8 op, const QdbEntry *e, bool vm_cleared);
extern void qdb_change_set_xx(QdbChange *c, const QdbAlloc *a, const QdbEntry *e);
extern TM_Result qdb_tuple_delete(Relation rel, ItemPointer tid, CommandId cid, Snapshot snapshot,
								  Snapshot crosscheck, bool wait, TM_FailureData *tmfd, bool changing_part);

static inline QdbXmax
QdbRowXmax(const QdbRow *r)
{
	QdbXmax		x = {QdbRowRawXmax(r), QdbRowXmaxMask(r)};

	return x;
}

/* ---- update.c ---- */
extern TM_Result qdb_tuple_update(Relation rel, ItemPointer otid, TupleTableSlot *slot, CommandId cid,
								  Snapshot snapshot, Snapshot crosscheck, bool wait, TM_FailureData *tmfd,
								  LockTupleMode *lockmode, bool *update_indexes);

/* ---- lock.c, chain.c ---- */
extern TM_Result qdb_tuple_lock(Relation rel, ItemPointer tid, Snapshot snapshot, TupleTableSlot *slot,
								CommandId cid, LockTupleMode mode, LockWaitPolicy wait_policy, uint8 flags,
								TM_FailureData *tmfd);
extern void qdb_set_lock(QdbChange *c, QdbXmax new);
extern bool qdb_lock_wait_xid(TransactionId xid, LockWaitPolicy policy, Relation rel, ItemPointer tid,
							  XLTW_Oper oper);
extern TM_Result qdb_lock_chain(Relation rel, TransactionId prior_xmax, ItemPointerData next, TransactionId xid,
								LockTupleMode mode);

extern TM_Result qdb_find_last_version(Relation rel, ItemPointer tid, CommandId cid, LockWaitPolicy policy,
									   TM_FailureData *tmfd);

/* ---- overflow.c ---- */
extern bool qdb_overflow_lock(QdbChange *c, int entries);
extern void qdb_overflow_pin_own(QdbChange *c);
extern void qdb_overflow_unlock(QdbChange *c);
extern void qdb_overflow_acquire(QdbChange *c, int entries);
extern int	qdb_overflow_find_free(Page opage, int other);

/* ---- xmax.c ---- */
extern LockTupleMode qdb_mode_of_status(MultiXactStatus status);
extern MultiXactStatus qdb_status_of_mode(LockTupleMode mode, bool is_update);
extern MultiXactStatus qdb_status_of_mask(uint16 mask);
extern bool qdb_statuses_conflict(MultiXactStatus a, MultiXactStatus b);
extern bool qdb_acquire_tuplock(Relation rel, ItemPointer tid, LockTupleMode mode, LockWaitPolicy policy,
								bool *have);
extern void qdb_release_tuplock(Relation rel, ItemPointer tid, LockTupleMode mode);
extern uint16 qdb_multi_mask(MultiXactId multi);
extern bool qdb_multi_conflicts(MultiXactId multi, uint16 mask, LockTupleMode mode, bool *current_is_member);
extern bool qdb_multi_wait(MultiXactId multi, MultiXactStatus status, uint16 mask, bool nowait,
						   Relation rel, ItemPointer tid, XLTW_Oper oper, int *remaining);
extern void qdb_compute_xmax(QdbXmax old, TransactionId xid, LockTupleMode mode, bool is_update, QdbXmax *new);

#endif							/* QDB_TABLEAM_CHANGE_H */
