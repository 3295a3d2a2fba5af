/*-------------------------------------------------------------------------
 *
 * boot.c
 *		A member always boots as a standby.
 *
 * Staged work comes first: until it is done the data directory is nobody's.
 *
 * PostgreSQL unlinks standby.signal in the middle of a promotion, before it has
 * written the new timeline; a server killed in between would boot read-write
 * on the old one.  So the file is made before every recovery: by the postmaster
 * in _PG_init, again in shmem_startup of each crash cycle, and right after each
 * promotion.  Boot never yields a writable server; only a seat does (I15).
 *
 * With recovery.signal the server is restored to a point in time: that must be
 * able to end, so nothing is done.
 *
 * Process: postmaster, except qdb_secure_boot (coordinator).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "failover/failover.h"
#include "failover/stage.h"
#include "failover/wal_files.h"
#include "miscadmin.h"

bool
qdb_secure_boot(void)
{
	if (qdb_file_exists(STANDBY_SIGNAL_FILE))
		return qdb_fsync_path(STANDBY_SIGNAL_FILE, false) && qdb_fsync_path(".", true);
	return qdb_place_file(STANDBY_SIGNAL_FILE, "");
}

/*
 * A promote file that outlived its server would promote the next one at any
 * SIGUSR1 to the postmaster, without a grant.
 */
static void
prepare_files(void)
{
	if (qdb_file_exists(RECOVERY_SIGNAL_FILE))
		return;
	if (!qdb_remove_file(PROMOTE_SIGNAL_FILE) || !qdb_sweep_placeholders() ||
		!qdb_secure_boot())		/* I15 */
		ereport(FATAL,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("[failover] could not make sure that this member of a cluster boots as a standby"),
				 errhint("Make the data directory writable; the log names the file.")));
}

void
qdb_boot_prepare(void)
{
	QdbIdentity identity;

	if (!IsPostmasterEnvironment || IsUnderPostmaster)
		return;

	/* The control file was read before the libraries were loaded. */
	if (qdb_apply_pending())
		LocalProcessControlFile(true);
	if (!qdb_identity_load(&identity))
		return;
	if (qdb_file_exists(RECOVERY_SIGNAL_FILE))
	{
		ereport(LOG, (errmsg("[failover] \"%s\" is there: this server takes no part in its cluster",
							 RECOVERY_SIGNAL_FILE)));
		return;
	}
	qdb_own_settings();
	prepare_files();
}

void
qdb_boot_as_standby(void)
{
	prepare_files();
}
