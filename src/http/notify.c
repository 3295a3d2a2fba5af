/*-------------------------------------------------------------------------
 *
 * notify.c
 *		NOTIFY quantadb, for sessions on the primary.
 *
 * Notifications belong to a database, and the http worker has none.  So for
 * each database that has client sessions it starts a short-lived worker, which
 * notifies what the journal got since the last time and ends.  Entries from before
 * this node opened as primary are not repeated: nobody could listen here.
 *
 *-------------------------------------------------------------------------
 */
#include "http/http.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "commands/async.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#define LOOK_US			(200 * INT64CONST(1000))
#define MAX_DATABASES	32

/* What the worker is told, in bgw_extra: entries first to last. */
typedef struct Range
{
	uint64		first;
	uint64		last;
} Range;

extern PGDLLEXPORT void qdb_notify_main(Datum arg);

static uint64 notified = 0;		/* journal number */

static int
list_databases(Oid *databases)
{
	int			n = 0;

	pgstat_clear_backend_activity_snapshot();
	for (int i = 1; i <= pgstat_fetch_stat_numbackends() && n < MAX_DATABASES; i++)
	{
		const PgBackendStatus *backend = pgstat_fetch_stat_beentry(i);
		bool		known = false;

		if (backend == NULL || backend->st_backendType != B_BACKEND || !OidIsValid(backend->st_databaseid))
			continue;
		for (int j = 0; j < n; j++)
			known = known || databases[j] == backend->st_databaseid;
		if (!known)
			databases[n++] = backend->st_databaseid;
	}
	return n;
}

/* False: no slot is free (max_worker_processes). */
static bool
start_worker(Oid database, const Range *range)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	strlcpy(worker.bgw_name, "quantadb notify", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "quantadb notify", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "quantadb", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "qdb_notify_main", BGW_MAXLEN);
	memcpy(worker.bgw_extra, range, sizeof(*range));
	return RegisterDynamicBackgroundWorker(&worker, NULL);
}

/* What cannot be started now is dropped: a notification is a hint, the journal has it all. */
void
qdb_notify_turn(void)
{
	static int64 next_look_us = 0;
	Oid			databases[MAX_DATABASES];
	Range		range;
	int			n;

	if (qdb_now_us() < next_look_us)
		return;
	next_look_us = qdb_now_us() + LOOK_US;
	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	range.last = qdb_shared->state.journal_next - 1;
	LWLockRelease(qdb_shared->state_lock);
	range.first = notified + 1;
	if (range.first > range.last)
		return;
	notified = range.last;
	if (!qdb_shared->member || RecoveryInProgress() || !qdb_may_write())
		return;
	n = list_databases(databases);
	for (int i = 0; i < n; i++)
	{
		if (!start_worker(databases[i], &range))
			ereport(DEBUG1, (errmsg_internal("[http] no background worker is free for NOTIFY quantadb")));
	}
}

static char *
make_payload(const QdbJournalEntry *entry)
{
	StringInfoData payload;

	initStringInfo(&payload);
	appendStringInfoChar(&payload, '{');
	qdb_put_int(&payload, "number", entry->number);
	qdb_put_time(&payload, "time", entry->time_us);
	qdb_put_int(&payload, "epoch", entry->epoch);
	qdb_put_text(&payload, "event", entry->event);
	qdb_put_text(&payload, "node", entry->node);
	qdb_put_text(&payload, "reason", entry->reason);
	appendStringInfoChar(&payload, '}');
	return payload.data;
}

void
qdb_notify_main(Datum arg)
{
	Range		range;
	QdbState   *state;

	memcpy(&range, MyBgworkerEntry->bgw_extra, sizeof(range));
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	state = qdb_copy_state();
	SetConfigOption("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION);
	StartTransactionCommand();
	for (uint64 number = range.first; number <= range.last; number++)
	{
		const QdbJournalEntry *entry = &state->journal[(number - 1) % QDB_MAX_JOURNAL];

		if (entry->number == number)
			Async_Notify("quantadb", make_payload(entry));
	}
	CommitTransactionCommand();
	proc_exit(0);
}
