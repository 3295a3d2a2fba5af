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
 * promotion, durable before the gate opens.  Boot never yields a writable server; only a seat does (I15).
 *
 * With recovery.signal the server is restored to a point in time: that must be
 * able to end, so it is no member then (identity.c).
 *
 * Process: postmaster.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "failover/failover.h"
#include "failover/stage.h"
#include "failover/wal_files.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "replication/syncrep.h"
#include "utils/guc.h"

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
		!qdb_drop_foreign_histories() || !qdb_drop_torn_segments() || !qdb_secure_boot())	/* I15 */
		ereport(FATAL,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("[failover] could not make sure that this member of a cluster boots as a standby"),
				 errhint("Make the data directory writable; the log names the file.")));
}

/* Without the line of it that says so; false: logged. */
static bool
drop_line(const char *path, const char *unwanted)
{
	FILE	   *file = fopen(path, "r");
	char		line[1024];
	StringInfoData kept;
	bool		found = false;
	bool		ok;

	if (file == NULL)
		return errno == ENOENT;
	initStringInfo(&kept);
	while (fgets(line, sizeof(line), file) != NULL)
	{
		if (strcmp(line, unwanted) == 0)
			found = true;
		else
			appendStringInfoString(&kept, line);
	}
	ok = ferror(file) == 0;
	fclose(file);
	if (ok && found)
		ok = qdb_place_file(path, kept.data);
	pfree(kept.data);
	return ok;
}

/*
 * A stranger that was a member, or a copy of one: the setting that quantadb_init has
 * left would let each of its commits wait for ever.
 */
static void
disown_settings(void)
{
	if (SyncRepStandbyNames == NULL || strcmp(SyncRepStandbyNames, QDB_SYNC_STANDBY_NAMES) != 0)
		return;
	if (!drop_line(PG_AUTOCONF_FILENAME, "synchronous_standby_names = '" QDB_SYNC_STANDBY_NAMES "'\n"))
		ereport(LOG, (errmsg("[failover] \"%s\" still names synchronous standbys that there are only in a cluster",
							 PG_AUTOCONF_FILENAME),
					  errhint("ALTER SYSTEM RESET synchronous_standby_names, and reload.")));
	SetConfigOption("synchronous_standby_names", "", PGC_POSTMASTER, PGC_S_FILE);
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
	{
		disown_settings();
		return;
	}
	if (strcmp(identity.name, qdb_node_name) != 0)
		ereport(LOG,
				(errmsg("[cluster] quantadb.node_name \"%s\" is ignored: this member is \"%s\"",
						qdb_node_name, identity.name),
				 errhint("A member keeps the name that it has joined with. For another one, remove it from the cluster and join it anew.")));
	qdb_own_settings();
	qdb_raise_to_demand();
	prepare_files();
}

void
qdb_boot_as_standby(void)
{
	prepare_files();
}
