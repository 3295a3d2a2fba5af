/*-------------------------------------------------------------------------
 *
 * quantadb.c
 *		Entry point: wires the folders, which do not know each other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"

#include "api/api.h"
#include "base/base.h"
#include "base/keys.h"
#include "failover/failover.h"
#include "failover/stage.h"
#include "failover/wal_files.h"
#include "tableam/tableam.h"
#include "wal/wal.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

QdbEffects	qdb_effects = {
	.end_of_wal = qdb_end_of_wal,
	.park_receiver = qdb_park_receiver,
	.promote = qdb_promote,
	.promoting = qdb_is_promoting,
	.promotion_done = qdb_promotion_done,
	.demote = qdb_demote,
	.match_history = qdb_match_history,
	.secure_boot = qdb_secure_boot,
	.end_blocking_queries = qdb_end_blocking_queries,
	.limits_demanded = qdb_limits_demanded,
};

static const QdbTableRecords table_records = {
	.redo = qdb_table_redo,
	.desc = qdb_table_desc,
	.identify = qdb_table_identify,
	.mask = qdb_table_mask,
	.decode = qdb_table_decode,
};

static void
shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	qdb_shmem_request();
}

/*
 * Runs in the postmaster at start and again in each crash cycle, before the
 * startup process is forked: the moment to make sure that the server comes up
 * as a standby (I15).
 */
static void
shmem_startup(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	qdb_shmem_startup();
	if (!IsUnderPostmaster)
	{
		qdb_apply_register();
		qdb_register_ending();
	}
	if (!IsUnderPostmaster && qdb_shared->member)
	{
		/*
		 * A node that became a member since the postmaster started owns them
		 * now.
		 */
		qdb_own_settings();
		qdb_boot_as_standby();
	}
}

void
_PG_init(void)
{
	/*
	 * CREATE EXTENSION or LOAD in a server without the preload: SQL functions
	 * say so.
	 */
	if (!process_shared_preload_libraries_in_progress)
		return;

	qdb_define_settings();
	qdb_read_passphrase();
	qdb_register_rmgr(&table_records);

	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;

	qdb_boot_prepare();
	qdb_install_receiver();
	qdb_install_archive();
	qdb_install_hooks();
	qdb_table_install_hooks();
	qdb_register_workers();
}
