/*-------------------------------------------------------------------------
 *
 * shmem.c
 *		The struct in which the workers and backends meet.
 *
 * Made anew by the postmaster at start and in each crash cycle, when no child
 * exists; what must survive is on disk.  The identity's boot number is raised
 * and made durable here, before any worker can send a message (I16).
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include <time.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#define TRANCHE		"quantadb"

QdbShared  *qdb_shared = NULL;

void
qdb_shmem_request(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(QdbShared)));
	RequestNamedLWLockTranche(TRANCHE, 1);
}

/* Postmaster: who we are in this cycle. */
static void
load_identity(void)
{
	QdbIdentity *identity = &qdb_shared->identity;

	if (!qdb_identity_load(identity))
	{
		memset(identity, 0, sizeof(*identity));
		return;
	}
	identity->boot++;
	qdb_identity_store(identity);	/* an error here is fatal, in the
									 * postmaster */
	qdb_shared->promised = qdb_promise_load();
	qdb_shared->promising = qdb_shared->promised;
	qdb_shared->member = true;
	qdb_shared->removed = qdb_removed_load(identity);
	qdb_shared->node_state = QDB_NODE_FOLLOWER;
}

void
qdb_shmem_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	qdb_shared = ShmemInitStruct("quantadb", sizeof(QdbShared), &found);
	if (!found)
	{
		memset(qdb_shared, 0, sizeof(QdbShared));
		SpinLockInit(&qdb_shared->mutex);
		qdb_shared->state_lock = &GetNamedLWLockTranche(TRANCHE)->lock;
		qdb_state_init(&qdb_shared->state);
		pg_atomic_init_u32(&qdb_shared->key_generation, 1);
		pg_atomic_init_u64(&qdb_shared->lease_until, 0);
		pg_atomic_init_u64(&qdb_shared->quorum_lsn, 0);
		pg_atomic_init_u64(&qdb_shared->quorum_epoch, 0);
		pg_atomic_init_u64(&qdb_shared->quorum_membership, 0);
		qdb_init_counters(&qdb_shared->counters);
		pg_atomic_init_u64(&qdb_shared->apply_wanted_us, 0);
		pg_atomic_init_u64(&qdb_shared->read_ticket, 0);
		pg_atomic_init_u64(&qdb_shared->replica_lag_bytes, 0);
		pg_atomic_init_u64(&qdb_shared->replica_level_us, 0);
		ConditionVariableInit(&qdb_shared->read_done);
		ConditionVariableInit(&qdb_shared->request_done);
		qdb_shared->node_state = QDB_NODE_INERT;
		load_identity();
	}
	LWLockRelease(AddinShmemInitLock);
}

int64
qdb_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64
qdb_unix_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

const char *
qdb_member_label(uint64 id)
{
	static char label[QDB_NAME_SIZE + 16];
	const QdbMember *member;

	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	member = qdb_member_by_id(&qdb_shared->state, id);
	if (member != NULL)
		snprintf(label, sizeof(label), "node \"%s\"", member->name);
	else
		snprintf(label, sizeof(label), "member " UINT64_FORMAT, id);
	LWLockRelease(qdb_shared->state_lock);
	return label;
}

bool
qdb_may_write(void)
{
	bool		result;

	if (qdb_shared == NULL || !qdb_shared->member)
		return true;
	SpinLockAcquire(&qdb_shared->mutex);
	result = qdb_shared->open_epoch != 0 && /* I15 */
		qdb_shared->open_epoch == qdb_shared->promised &&
		qdb_shared->promising == qdb_shared->promised &&
		!qdb_shared->fenced;
	SpinLockRelease(&qdb_shared->mutex);
	return result;
}

bool
qdb_lease_alive(void)
{
	if (qdb_shared == NULL || !qdb_shared->member)
		return true;
	return qdb_may_write() &&
		qdb_now_us() < (int64) pg_atomic_read_u64(&qdb_shared->lease_until) &&
		PostmasterIsAliveInternal();
}

bool
qdb_replica_lag_exceeded(int64 *lag_bytes, int64 *lag_us)
{
	int64		level = (int64) pg_atomic_read_u64(&qdb_shared->replica_level_us);

	*lag_bytes = (int64) pg_atomic_read_u64(&qdb_shared->replica_lag_bytes);
	*lag_us = level == 0 ? -1 : Max(qdb_now_us() - level, 0);
	if (!qdb_shared->member || !RecoveryInProgress())
		return false;
	/* Nothing known yet counts as too far behind. */
	return (qdb_max_lag_bytes >= 0 && (level == 0 || *lag_bytes > qdb_max_lag_bytes)) ||
		(qdb_max_lag_us >= 0 && (level == 0 || *lag_us > qdb_max_lag_us));
}

void
qdb_note_archived(XLogRecPtr lsn, TimeLineID timeline)
{
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->archived_lsn = Max(qdb_shared->archived_lsn, lsn);
	qdb_shared->archived_timeline = Max(qdb_shared->archived_timeline, timeline);
	SpinLockRelease(&qdb_shared->mutex);
}

void
qdb_read_archived(XLogRecPtr *lsn, TimeLineID *timeline)
{
	SpinLockAcquire(&qdb_shared->mutex);
	*lsn = qdb_shared->archived_lsn;
	*timeline = qdb_shared->archived_timeline;
	SpinLockRelease(&qdb_shared->mutex);
}

static void
wake(Latch *volatile *slot)
{
	Latch	   *latch;

	if (qdb_shared == NULL)
		return;
	SpinLockAcquire(&qdb_shared->mutex);
	latch = *slot;
	if (latch)
		SetLatch(latch);		/* its owner cannot have gone: it withdraws
								 * under mutex */
	SpinLockRelease(&qdb_shared->mutex);
}

void
qdb_wake_coordinator(void)
{
	if (qdb_shared)
		wake(&qdb_shared->coordinator_latch);
}

void
qdb_wake_streamer(void)
{
	if (qdb_shared)
		wake(&qdb_shared->streamer_latch);
}

QdbState *
qdb_copy_state(void)
{
	QdbState   *copy = palloc(sizeof(QdbState));

	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	memcpy(copy, &qdb_shared->state, sizeof(QdbState));
	LWLockRelease(qdb_shared->state_lock);
	return copy;
}
