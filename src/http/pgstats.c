/*-------------------------------------------------------------------------
 *
 * pgstats.c
 *		What PostgreSQL counts, read without a database connection.
 *
 * Cumulative statistics are in shared memory, by database; their keys are not
 * listed anywhere, so the table of all of them is walked, and not more often
 * than every few seconds, because it also holds an entry a relation.
 *
 *-------------------------------------------------------------------------
 */
#include "http/http.h"

#include "lib/dshash.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/proc.h"
#include "utils/dsa.h"
#include "utils/pgstat_internal.h"

#define KEEP_US			(2 * INT64CONST(1000000))

static void
add_database(QdbServerStats *sum, const PgStat_StatDBEntry *db)
{
	sum->commits += db->n_xact_commit;
	sum->rollbacks += db->n_xact_rollback;
	sum->rows_read += db->n_tuples_returned;
	sum->rows_written += db->n_tuples_inserted + db->n_tuples_updated + db->n_tuples_deleted;
	sum->deadlocks += db->n_deadlocks;
	sum->temp_bytes += db->n_temp_bytes;
}

/* An entry is not freed while its partition is locked, which the scan does. */
static void
walk(QdbServerStats *sum)
{
	dshash_seq_status scan;
	PgStatShared_HashEntry *entry;

	dshash_seq_init(&scan, pgStatLocal.shared_hash, false);
	while ((entry = dshash_seq_next(&scan)) != NULL)
	{
		PgStatShared_Database *shared;

		if (entry->dropped || entry->key.kind != PGSTAT_KIND_DATABASE)
			continue;
		shared = dsa_get_address(pgStatLocal.dsa, entry->body);
		LWLockAcquire(&shared->header.lock, LW_SHARED);
		add_database(sum, &shared->stats);
		LWLockRelease(&shared->header.lock);
	}
	dshash_seq_term(&scan);
}

void
qdb_read_server_stats(QdbServerStats *stats)
{
	static QdbServerStats kept;
	static int64 read_us = 0;
	int64		now = qdb_now_us();

	if (read_us == 0 || now - read_us > KEEP_US)
	{
		QdbServerStats sum = {0};

		walk(&sum);
		kept = sum;
		read_us = now;
	}
	*stats = kept;
}

int
qdb_count_waiting_commits(void)
{
	int			n = 0;

	LWLockAcquire(SyncRepLock, LW_SHARED);
	for (int mode = 0; mode < NUM_SYNC_REP_WAIT_MODE; mode++)
	{
		SHM_QUEUE  *queue = &WalSndCtl->SyncRepQueue[mode];
		PGPROC	   *proc = (PGPROC *) SHMQueueNext(queue, queue, offsetof(PGPROC, syncRepLinks));

		while (proc != NULL)
		{
			n++;
			proc = (PGPROC *) SHMQueueNext(queue, &proc->syncRepLinks, offsetof(PGPROC, syncRepLinks));
		}
	}
	LWLockRelease(SyncRepLock);
	return n;
}
