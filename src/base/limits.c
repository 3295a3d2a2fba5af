/*-------------------------------------------------------------------------
 *
 * limits.c
 *		The five settings that a standby needs at least as high as its primary.
 *
 * They size what replay keeps of the primary's transactions.  A standby with less pauses at the
 * WAL record that says so and can never be promoted; one that starts so does not start.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "access/twophase.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "replication/walsender.h"
#include "storage/lock.h"

const char *const qdb_limit_names[QDB_NLIMITS] = {
	"max_connections", "max_worker_processes", "max_wal_senders",
	"max_prepared_transactions", "max_locks_per_transaction"
};

void
qdb_own_limits(int32 *limits)
{
	limits[0] = MaxConnections;
	limits[1] = max_worker_processes;
	limits[2] = max_wal_senders;
	limits[3] = max_prepared_xacts;
	limits[4] = max_locks_per_xact;
}

bool
qdb_limits_suffice(const int32 *limits, const int32 *wanted, char *why)
{
	why[0] = '\0';
	for (int i = 0; i < QDB_NLIMITS; i++)
	{
		if (limits[i] >= wanted[i])
			continue;
		snprintf(why, QDB_REASON_SIZE, "its %s is below the cluster's %d", qdb_limit_names[i], wanted[i]);
		return false;
	}
	return true;
}
