/*-------------------------------------------------------------------------
 *
 * mailbox.c
 *		Requests from backends and the http worker to the coordinator.
 *
 * A slot goes FREE -> FILLED (caller) -> TAKEN (coordinator) -> DONE -> FREE
 * (caller).  A caller that cannot wait any longer leaves it ABANDONED, and the
 * coordinator frees it; all under state_lock.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/wait_event.h"

int
qdb_request_post(const QdbRequest *request)
{
	int			slot = -1;

	LWLockAcquire(qdb_shared->state_lock, LW_EXCLUSIVE);
	for (int i = 0; i < QDB_MAX_REQUESTS && slot < 0; i++)
	{
		if (qdb_shared->requests[i].state != QDB_REQUEST_FREE)
			continue;
		qdb_shared->requests[i] = *request;
		qdb_shared->requests[i].pid = MyProcPid;
		qdb_shared->requests[i].state = QDB_REQUEST_FILLED;
		slot = i;
	}
	LWLockRelease(qdb_shared->state_lock);
	if (slot >= 0)
		qdb_wake_coordinator();
	return slot;
}

bool
qdb_request_poll(int slot, QdbRequest *answer)
{
	QdbRequest *request = &qdb_shared->requests[slot];
	bool		done;

	LWLockAcquire(qdb_shared->state_lock, LW_EXCLUSIVE);
	done = request->state == QDB_REQUEST_DONE;
	if (done)
	{
		*answer = *request;
		request->state = QDB_REQUEST_FREE;
	}
	LWLockRelease(qdb_shared->state_lock);
	return done;
}

void
qdb_request_abandon(int slot)
{
	QdbRequest *request = &qdb_shared->requests[slot];

	LWLockAcquire(qdb_shared->state_lock, LW_EXCLUSIVE);
	if (request->state == QDB_REQUEST_TAKEN)
		request->state = QDB_REQUEST_ABANDONED;
	else
		request->state = QDB_REQUEST_FREE;
	LWLockRelease(qdb_shared->state_lock);
}

bool
qdb_awaits_promotion(int pid)
{
	bool		found = false;

	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	for (int i = 0; i < QDB_MAX_REQUESTS; i++)
	{
		const QdbRequest *request = &qdb_shared->requests[i];

		if (request->state == QDB_REQUEST_TAKEN && request->kind == QDB_REQ_PROMOTE &&
			request->pid == pid)
			found = true;
	}
	LWLockRelease(qdb_shared->state_lock);
	return found;
}

/* Also for a terminated backend, whose FATAL no PG_CATCH sees. */
static void
abandon_at_exit(int code, Datum slot)
{
	ConditionVariableCancelSleep();
	qdb_request_abandon(DatumGetInt32(slot));
}

bool
qdb_request(QdbRequest *request, int timeout_ms)
{
	int64		deadline = qdb_now_us() + (int64) timeout_ms * 1000;
	int			slot;
	volatile bool done = false;

	while ((slot = qdb_request_post(request)) < 0)
	{
		CHECK_FOR_INTERRUPTS();
		if (qdb_now_us() > deadline)
			return false;
		pg_usleep(10000);
	}

	PG_ENSURE_ERROR_CLEANUP(abandon_at_exit, Int32GetDatum(slot));
	{
		ConditionVariablePrepareToSleep(&qdb_shared->request_done);
		for (;;)
		{
			int64		left = (deadline - qdb_now_us()) / 1000;

			done = qdb_request_poll(slot, request);
			if (done || left <= 0)
				break;

			/*
			 * Also look now and then: the coordinator may have been
			 * restarted.
			 */
			(void) ConditionVariableTimedSleep(&qdb_shared->request_done, Min(left, 100),
											   PG_WAIT_EXTENSION);
		}
		ConditionVariableCancelSleep();
	}
	PG_END_ENSURE_ERROR_CLEANUP(abandon_at_exit, Int32GetDatum(slot));

	if (!done)
		qdb_request_abandon(slot);
	return done;
}
