/*-------------------------------------------------------------------------
 *
 * limits.c
 *		What this node's own WAL demands of its settings (hazards 34).
 *
 * The control file has what the last record about it demanded.  A running standby that
 * has less pauses there: a node that cannot be primary, and to end the pause would end the
 * server.  A start is the moment to mend that: the settings are raised before shared
 * memory is sized.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "failover/failover.h"
#include "miscadmin.h"
#include "utils/guc.h"

/* False: the control file cannot be read.  Raises no errors. */
static bool
read_demand(int32 *wanted)
{
	MemoryContext old = CurrentMemoryContext;
	ControlFileData *volatile control = NULL;
	bool		crc_ok = false;

	PG_TRY();
	{
		control = get_controlfile(DataDir, &crc_ok);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		FlushErrorState();
	}
	PG_END_TRY();
	if (control == NULL)
		return false;
	wanted[0] = control->MaxConnections;
	wanted[1] = control->max_worker_processes;
	wanted[2] = control->max_wal_senders;
	wanted[3] = control->max_prepared_xacts;
	wanted[4] = control->max_locks_per_xact;
	pfree(control);
	return crc_ok;
}

bool
qdb_limits_demanded(char *why)
{
	int32		own[QDB_NLIMITS];
	int32		wanted[QDB_NLIMITS];

	why[0] = '\0';
	qdb_own_limits(own);
	return !read_demand(wanted) || qdb_limits_suffice(own, wanted, why);
}

void
qdb_raise_to_demand(void)
{
	int32		own[QDB_NLIMITS];
	int32		wanted[QDB_NLIMITS];
	char		value[16];

	qdb_own_limits(own);
	if (!read_demand(wanted))
		return;
	for (int i = 0; i < QDB_NLIMITS; i++)
	{
		if (own[i] >= wanted[i])
			continue;
		snprintf(value, sizeof(value), "%d", wanted[i]);
		SetConfigOption(qdb_limit_names[i], value, PGC_POSTMASTER, PGC_S_OVERRIDE);
		ereport(LOG, (errmsg("[failover] %s is raised from %d to %d, which the cluster's WAL demands",
							 qdb_limit_names[i], own[i], wanted[i]),
					  errhint("Set it in the configuration of every node.")));
	}
}
