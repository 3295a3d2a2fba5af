/*-------------------------------------------------------------------------
 *
 * reads.c
 *		What a read may show: eventual, session and strict.
 *
 * A session read shows at least quantadb.min_lsn.  The snapshot of a query is
 * taken before its ExecutorStart, so a wait there comes too late for it: the
 * caller takes a new one when qdb_session_lsn says that it has to wait.
 *
 * A strict read on the primary checks the lease after its snapshot: what the
 * snapshot shows was then committed on a quorum, and no later primary can have
 * opened (I9, I14).  On a replica see strict.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/transam.h"
#include "access/xlogrecovery.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "utils/guc.h"
#include "utils/pg_lsn.h"
#include "utils/wait_event.h"

#include "api/hooks.h"
#include "base/status.h"

/*
 * Replay position seen before any snapshot that is taken from now on.  Replay
 * never goes back in the life of a backend.
 */
static XLogRecPtr seen_replay = InvalidXLogRecPtr;

void
qdb_note_replay(XLogRecPtr lsn)
{
	seen_replay = lsn;
}

/*
 * What a session read that begins now has to wait for; its snapshot must then be taken
 * anew.  Invalid: nothing.
 */
XLogRecPtr
qdb_session_lsn(QdbGate gate)
{
	XLogRecPtr	lsn;
	bool		bad = false;

	if (gate == QDB_GATE_INERT || qdb_read_consistency != QDB_READ_SESSION ||
		qdb_min_lsn == NULL || qdb_min_lsn[0] == '\0' || strcmp(qdb_min_lsn, "none") == 0)
		return InvalidXLogRecPtr;
	lsn = pg_lsn_in_internal(qdb_min_lsn, &bad);
	if (bad)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for \"%s\": \"%s\"", "quantadb.min_lsn", qdb_min_lsn),
				 errhint("Use what quantadb_last_commit_lsn() returned on the primary.")));
	if (gate == QDB_GATE_STANDBY)
		return seen_replay >= lsn ? InvalidXLogRecPtr : lsn;
	if (lsn > GetXLogInsertRecPtr())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"%s\" %s is past the end of the primary's WAL", "quantadb.min_lsn", qdb_min_lsn),
				 errhint("It is of another cluster, or of writes that were never acknowledged.")));
	return InvalidXLogRecPtr;
}

/* xmin as for qdb_wait_for_replay. */
void
qdb_wait_for_session(XLogRecPtr lsn, TransactionId xmin)
{
	if (lsn == InvalidXLogRecPtr ||
		qdb_wait_for_replay(lsn, xmin, qdb_read_timeout_ms == 0 ? -1 : qdb_read_timeout_ms * INT64CONST(1000)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this node does not show \"%s\" %s yet", "quantadb.min_lsn", qdb_min_lsn),
			 errdetail("It has waited for %d ms and shows %X/%X.", qdb_read_timeout_ms,
					   LSN_FORMAT_ARGS(GetXLogReplayRecPtr(NULL))),
			 errhint("Try again, raise quantadb.read_timeout, or read elsewhere. %s", qdb_primary_hint())));
}

int64
qdb_read_deadline(void)
{
	return qdb_read_timeout_ms == 0 ? PG_INT64_MAX :
		qdb_now_us() + qdb_read_timeout_ms * INT64CONST(1000);
}

/* Does the query read what a user has stored, as opposed to catalogs and our views? */
static bool
reads_user_data(const PlannedStmt *plan)
{
	ListCell   *cell;

	foreach(cell, plan->relationOids)
	{
		Oid			relation = lfirst_oid(cell);

		if (relation >= FirstNormalObjectId &&
			!OidIsValid(getExtensionOfObject(RelationRelationId, relation)))
			return true;
	}
	return false;
}

/*
 * A replica that is further behind than quantadb.max_replica_lag answers no
 * query about user data; plan NULL: a COPY.
 */
void
qdb_check_lag(QdbGate gate, const PlannedStmt *plan)
{
	int64		lag_bytes;
	int64		lag_us;

	if (gate != QDB_GATE_STANDBY || (qdb_max_lag_bytes < 0 && qdb_max_lag_us < 0) ||
		!qdb_replica_lag_exceeded(&lag_bytes, &lag_us) ||
		(plan != NULL && !reads_user_data(plan)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this replica is too far behind to answer"),
			 errdetail("It is " INT64_FORMAT " bytes and " INT64_FORMAT " ms behind; quantadb.max_replica_lag is %s.",
					   lag_bytes, lag_us < 0 ? -1 : lag_us / 1000,
					   GetConfigOption("quantadb.max_replica_lag", false, false)),
			 errhint("Read on another node. %s", qdb_primary_hint())));
}

/*
 * Under async a snapshot can show commits that are on no quorum yet; a strict
 * read waits until they are.  False: not in time.
 */
static bool
wait_for_own_quorum(void)
{
	int64		deadline = qdb_read_deadline();
	XLogRecPtr	shown;
	bool		async;

	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	async = qdb_is_async(&qdb_shared->state);
	LWLockRelease(qdb_shared->state_lock);
	if (!async)
		return true;
	shown = GetFlushRecPtr(NULL);
	while (pg_atomic_read_u64(&qdb_shared->quorum_lsn) < shown)
	{
		if (qdb_now_us() >= deadline)
			return false;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(1000);
	}
	return true;
}

/* After the snapshot, on a node that is not a standby. */
void
qdb_check_strict(QdbGate gate)
{
	if (gate == QDB_GATE_INERT || gate == QDB_GATE_STANDBY ||
		qdb_read_consistency != QDB_READ_STRICT)
		return;
	if (gate == QDB_GATE_OPEN && wait_for_own_quorum() && qdb_lease_alive())
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot answer a strict read: this node has no live lease"),
			 errdetail("The session has quantadb.read_consistency = 'strict'."),
			 errhint("Try again when a majority of the voters can be reached, or read with quantadb.read_consistency = 'eventual'.")));
}

/*
 * After the snapshot.  When the postmaster dies, waits for a quorum end and
 * their commits become visible in the processes that are left; none of them
 * may answer.  The flag that signals set is too late, so ask the pipe.
 */
void
qdb_check_postmaster(void)
{
	if (IsUnderPostmaster && !PostmasterIsAliveInternal())
	{
		/* Also at its end, the process must say nothing but this. */
		ereport(FATAL,
				(errcode(ERRCODE_ADMIN_SHUTDOWN),
				 errmsg("terminating connection because the server has died")));
	}
}
