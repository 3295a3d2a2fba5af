/*-------------------------------------------------------------------------
 *
 * reads.c
 *		What a read may show: eventual, session and strict.
 *
 * A session read shows at least quantadb.min_lsn.  The snapshot of a query is
 * taken before its ExecutorStart, so a wait there comes too late for it: the
 * caller takes a new one when qdb_wait_for_session says that it must.
 *
 * A strict read checks the lease after its snapshot: what the snapshot shows
 * was then committed on a quorum, and no later primary can have opened (I9,
 * I14).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/pmsignal.h"
#include "utils/pg_lsn.h"
#include "utils/wait_event.h"

#include "api/hooks.h"
#include "base/status.h"

#define MIN_POLL_MS		1
#define MAX_POLL_MS		10

/*
 * Replay position seen before any snapshot that is taken from now on.  Replay
 * never goes back in the life of a backend.
 */
static XLogRecPtr seen_replay = InvalidXLogRecPtr;

/*
 * Waits until this node shows the LSN; false when the time is over (< 0: no
 * limit but statement_timeout).  A primary shows all that it has.
 */
bool
qdb_wait_for_replay(XLogRecPtr lsn, int64 timeout_us)
{
	int64		deadline = timeout_us < 0 ? PG_INT64_MAX : qdb_now_us() + timeout_us;
	int			poll_ms = MIN_POLL_MS;

	for (;;)
	{
		bool		recovery = RecoveryInProgress();
		XLogRecPtr	shown = recovery ? GetXLogReplayRecPtr(NULL) : GetXLogInsertRecPtr();

		if (shown >= lsn)
		{
			if (recovery)
				seen_replay = shown;
			return true;
		}
		if (qdb_now_us() >= deadline)
			return false;
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 poll_ms, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		poll_ms = Min(poll_ms * 2, MAX_POLL_MS);
	}
}

/*
 * Keeps the promise of session reads.  True: the caller's snapshot may be too
 * old and must be taken anew.
 */
bool
qdb_wait_for_session(QdbGate gate)
{
	XLogRecPtr	lsn;
	bool		bad = false;

	if (gate != QDB_GATE_STANDBY || qdb_read_consistency != QDB_READ_SESSION ||
		qdb_min_lsn == NULL || qdb_min_lsn[0] == '\0' || strcmp(qdb_min_lsn, "none") == 0)
		return false;
	lsn = pg_lsn_in_internal(qdb_min_lsn, &bad);
	if (bad)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid value for \"%s\": \"%s\"", "quantadb.min_lsn", qdb_min_lsn),
				 errhint("Use what quantadb_last_commit_lsn() returned on the primary.")));
	if (seen_replay >= lsn)
		return false;
	(void) qdb_wait_for_replay(lsn, -1);
	return true;
}

/* After the snapshot. */
void
qdb_check_strict(QdbGate gate)
{
	if (gate == QDB_GATE_INERT || qdb_read_consistency != QDB_READ_STRICT)
		return;
	if (gate == QDB_GATE_OPEN && qdb_lease_alive())
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 gate == QDB_GATE_STANDBY ?
			 errmsg("cannot answer a strict read: strict reads are answered by the primary") :
			 errmsg("cannot answer a strict read: this node has no live lease"),
			 errdetail("The session has quantadb.read_consistency = 'strict'."),
			 gate == QDB_GATE_STANDBY ? errhint("%s", qdb_primary_hint()) :
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
