/*-------------------------------------------------------------------------
 *
 * seat.c
 *		From a granted seat to an open gate.
 *
 *	in recovery			the log ends at the fork: promote onto the granted timeline
 *	promoted			write the epoch record: the seat is taken; secure the next boot
 *	record on a quorum	propose GATE_OPEN (I8)
 *	opened				serve
 *
 * Process: coordinator.  Writes the seat fields of QdbShared.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "postmaster/pgarch.h"

#include "cluster/internal.h"

#define PROMOTE_US			(500 * 1000)
#define GATE_US				(100 * 1000)
#define REPLAYED_BYTES		(16 * 1024 * 1024)

static uint64 secured_epoch = 0;	/* its holder's next boot is a standby's,
									 * durably */
static uint64 promoting_epoch = 0;
static int64 next_promote_us = 0;
static int64 next_gate_us = 0;

/* I6: opens only if the log ended exactly at the report that won. */
static bool
ends_at_fork(const QdbGrant *grant)
{
	const QdbEndOfWal *end = qdb_own_end_of_wal();
	char		why[QDB_REASON_SIZE];

	if (end == NULL)
		return false;
	if (end->end == grant->fork && end->timeline == grant->parent_timeline)
		return true;
	snprintf(why, sizeof(why), "its WAL ends at %X/%X, not at the fork %X/%X of its seat",
			 LSN_FORMAT_ARGS(end->end), LSN_FORMAT_ARGS((XLogRecPtr) grant->fork));
	qdb_set_problem(why);
	return false;
}

/*
 * A promotion that was begun and is superseded takes a crash cycle, and then replay
 * begins again at the last restartpoint: where there is more to replay than
 * open_timeout allows for, nobody would ever open.  So it is begun when replay is about
 * through, and what is replayed until then is replayed for the next seat too.
 */
static bool
is_replayed(const QdbGrant *grant)
{
	return GetXLogReplayRecPtr(NULL) + REPLAYED_BYTES >= grant->fork;
}

static void
promote(const QdbGrant *grant)
{
	char		why[QDB_REASON_SIZE] = "";

	qdb_clear_replay();
	if (promoting_epoch == grant->epoch)
	{
		if (qdb_effects.promotion_done(grant, why) < 0)
		{
			qdb_set_problem(why);
			promoting_epoch = 0;
			next_promote_us = qdb_co.now_us + PROMOTE_US;
		}
		return;
	}
	if (qdb_co.now_us < next_promote_us || qdb_shared->promised != grant->epoch ||
		!ends_at_fork(grant) || !is_replayed(grant))
		return;
	if (qdb_effects.promote(qdb_co.state, grant, why))
	{
		promoting_epoch = grant->epoch;
		qdb_set_problem("");
		return;
	}
	qdb_set_problem(why);
	next_promote_us = qdb_co.now_us + PROMOTE_US;
}

/* I15: before the gate opens, and while the others get the epoch record. */
static bool
secure_next_boot(const QdbGrant *grant)
{
	if (secured_epoch == grant->epoch)
		return true;
	if (!qdb_effects.secure_boot())
	{
		qdb_set_problem("standby.signal could not be written");
		return false;
	}
	secured_epoch = grant->epoch;
	qdb_set_problem("");
	return true;
}

/* PostgreSQL has ended recovery: the epoch record comes before anything is served. */
static void
take_seat(const QdbGrant *grant)
{
	xl_qdb_epoch record = {0};
	XLogRecPtr	end;
	char		why[QDB_REASON_SIZE] = "";
	int			done = qdb_effects.promotion_done(grant, why);

	if (done < 0)
		qdb_set_problem(why);
	if (done <= 0)
		return;

	record.format = QDB_EPOCH_FORMAT;
	record.timeline = grant->timeline;
	record.epoch = grant->epoch;
	record.incarnation = qdb_co.self.incarnation;
	record.boot = qdb_co.self.boot;
	record.cluster_hash = qdb_cluster_hash(qdb_co.self.cluster_id);
	(void) qdb_write_epoch_record(&record, &end);

	pg_atomic_write_u64(&qdb_shared->quorum_lsn, 0);
	pg_atomic_write_u64(&qdb_shared->quorum_epoch, grant->epoch);
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->epoch_record_end = end;
	qdb_shared->seat_timeline = grant->timeline;
	qdb_shared->seat_epoch = grant->epoch;
	SpinLockRelease(&qdb_shared->mutex);
	qdb_set_problem("");
	qdb_wake_streamer();
	(void) secure_next_boot(grant);
}

static void
propose_gate(const QdbGrant *grant)
{
	QdbCommand	command;

	if (qdb_co.now_us < next_gate_us)
		return;
	if (!secure_next_boot(grant))
	{
		next_gate_us = qdb_co.now_us + GATE_US;
		return;
	}
	next_gate_us = qdb_co.now_us + GATE_US;
	memset(&command, 0, sizeof(command));
	command.type = QDB_CMD_GATE_OPEN;
	command.epoch = grant->epoch;
	command.grant = *grant;
	(void) qdb_propose(&command, NULL, 0, 0);
}

static void
open_gate(const QdbGrant *grant)
{
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->open_epoch = grant->epoch;
	SpinLockRelease(&qdb_shared->mutex);
	ereport(LOG, (errmsg("[failover] primary of epoch %llu is open on timeline %u",
						 (unsigned long long) grant->epoch, grant->timeline)));
	qdb_wake_streamer();
	/* It has waited for this. */
	if (XLogArchivingActive())
		PgArchWakeup();
}

void
qdb_seat_turn(QdbNodeStep step, const QdbGrant *grant)
{
	switch (step)
	{
		case QDB_STEP_PROMOTE:
			promote(grant);
			break;
		case QDB_STEP_TAKE_SEAT:
			take_seat(grant);
			break;
		case QDB_STEP_PROPOSE_GATE:
			propose_gate(grant);
			break;
		case QDB_STEP_OPEN_GATE:
			open_gate(grant);
			break;
		default:
			break;
	}
}
