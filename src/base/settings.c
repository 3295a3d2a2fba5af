/*-------------------------------------------------------------------------
 *
 * settings.c
 *		Our settings, and PostgreSQL's settings that a member owns.
 *
 * Owned settings are set with source OVERRIDE in the postmaster: children
 * inherit them, and neither a reload nor a command line changes them.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include <unistd.h>

#include "access/xlog.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "replication/walsender.h"
#include "utils/guc.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

char	   *qdb_node_name = NULL;
char	   *qdb_listen_addresses = NULL;
char	   *qdb_advertise_host = NULL;
int			qdb_raft_port = 7432;
int			qdb_replication_port = 6432;
int			qdb_http_port = 8432;
int			qdb_heartbeat_ms = 100;
int			qdb_replication_buffer_kb = 1024;
int			qdb_replication_compression = 1;
int			qdb_priority = 100;
char	   *qdb_tls_cert_file = NULL;
char	   *qdb_tls_key_file = NULL;
char	   *qdb_tls_ca_file = NULL;
char	   *qdb_key_passphrase_command = NULL;
int			qdb_certificate_lifetime_s = 90 * SECS_PER_DAY;
bool		qdb_http_tls = true;
bool		qdb_development_plaintext = false;
int			qdb_read_consistency = QDB_READ_EVENTUAL;
char	   *qdb_min_lsn = NULL;
int			qdb_read_timeout_ms = 10000;
static char *max_replica_lag = NULL;
int64		qdb_max_lag_bytes = -1;
int64		qdb_max_lag_us = -1;
char	   *qdb_upstream = NULL;
int			qdb_clone_rate_kb = 0;
int			qdb_lost_wal_limit_mb = 1024;
int			qdb_wal_retention_limit_mb = 4096;
int			qdb_stall_timeout_ms = 10000;
int			qdb_min_free_space_mb = 64;
int			qdb_debug_apply_stop = -1;

static const struct config_enum_entry consistency_options[] = {
	{"eventual", QDB_READ_EVENTUAL, false},
	{"session", QDB_READ_SESSION, false},
	{"strict", QDB_READ_STRICT, false},
	{NULL, 0, false}
};

/* The codecs on the wire, and their numbers there. */
static const struct config_enum_entry compression_options[] = {
	{"off", 0, false},
	{"lz4", 1, false},
	{"zstd", 2, false},
	{NULL, 0, false}
};

typedef struct OwnedSetting
{
	const char *name;
	const char *value;			/* NULL: refused in ALTER SYSTEM, not
								 * overridden */
} OwnedSetting;

#define KEEP_WAL			"1GB"
#define MIN_SENDERS		32

static const OwnedSetting owned_settings[] = {
	{"primary_conninfo", "quantadb=member"},	/* where to is in shared
												 * memory */
	{"primary_slot_name", ""},
	{"restore_command", ""},	/* I2: no WAL past our stream */
	{"recovery_end_command", ""},
	{"promote_trigger_file", ""},
	{"recovery_target", ""},	/* see clear_setting for all five */
	{"recovery_target_lsn", ""},
	{"recovery_target_name", ""},
	{"recovery_target_time", ""},
	{"recovery_target_xid", ""},
	{"archive_library", NULL},	/* ours comes first, see wal/archive.c */
	{"recovery_target_action", NULL},
	{"recovery_target_inclusive", NULL},
	{"recovery_target_timeline", "latest"},
	{"synchronous_standby_names", QDB_SYNC_STANDBY_NAMES},
	{"restart_after_crash", "on"},
	{"wal_log_hints", "on"},
	{"fsync", "on"},			/* I3: an ack says that it is on the disk */
	{"full_page_writes", "on"},
	{"hot_standby", "on"},
	{"wal_retrieve_retry_interval", "100ms"},
	{"recovery_init_sync_method", "syncfs"},
	{"recovery_min_apply_delay", "0"},
	{"wal_receiver_create_temp_slot", "off"},
	{"wal_receiver_status_interval", "1s"},
};

static bool
check_node_name(char **newval, void **extra, GucSource source)
{
	const char *name = *newval;
	bool		good = strlen(name) < QDB_NAME_SIZE && strpbrk(name, "\"/") == NULL &&
	pg_encoding_verifymbstr(PG_UTF8, name, strlen(name)) == strlen(name);

	for (; good && *name != '\0'; name++)
		good = (unsigned char) *name >= ' ' && *name != 0x7f;
	if (!good)
		GUC_check_errdetail("A node name has at most %d bytes of UTF-8 and no quotes, slashes or control characters.",
							QDB_NAME_SIZE - 1);
	return good;
}

static bool
check_advertise_host(char **newval, void **extra, GucSource source)
{
	if (strlen(*newval) < QDB_HOST_SIZE && strpbrk(*newval, " ,\n\r\t\"/") == NULL)
		return true;
	GUC_check_errdetail("It is one host name or address of at most %d bytes.", QDB_HOST_SIZE - 1);
	return false;
}

static bool
check_min_lsn(char **newval, void **extra, GucSource source)
{
	bool		have_error = false;

	if (*newval == NULL || **newval == '\0' || strcmp(*newval, "none") == 0)
		return true;
	(void) pg_lsn_in_internal(*newval, &have_error);
	if (have_error)
		GUC_check_errdetail("It is a WAL position as quantadb_last_commit_lsn() returns it, or empty.");
	return !have_error;
}

typedef struct ReplicaLag
{
	int64		bytes;
	int64		us;
} ReplicaLag;

/* A size or a duration, each with its unit: which of both it is must show. */
static bool
check_max_replica_lag(char **newval, void **extra, GucSource source)
{
	const char *text = *newval;
	ReplicaLag	lag = {-1, -1};
	double		value;

	if (pg_strcasecmp(text, "off") != 0)
	{
		if (strpbrk(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == NULL)
		{
			GUC_check_errdetail("It is \"off\", a size such as \"10MB\", or a duration such as \"5s\".");
			return false;
		}
		if (parse_real(text, &value, GUC_UNIT_BYTE, NULL) && value >= 0 && value < 1e18)
			lag.bytes = (int64) value;
		else if (parse_real(text, &value, GUC_UNIT_MS, NULL) && value >= 0 && value < 1e12)
			lag.us = (int64) (value * 1000);
		else
		{
			GUC_check_errdetail("It is \"off\", a size such as \"10MB\", or a duration such as \"5s\".");
			return false;
		}
	}
	*extra = malloc(sizeof(ReplicaLag));
	if (*extra == NULL)
		return false;
	memcpy(*extra, &lag, sizeof(lag));
	return true;
}

static void
assign_max_replica_lag(const char *newval, void *extra)
{
	const ReplicaLag *lag = extra;

	qdb_max_lag_bytes = lag->bytes;
	qdb_max_lag_us = lag->us;
}

/* An empty value in the configuration file outranks a default, hence the second try. */
static void
set_default(const char *name, char **variable, const char *value)
{
	if (*variable == NULL || **variable == '\0')
		SetConfigOption(name, value, PGC_POSTMASTER, PGC_S_DYNAMIC_DEFAULT);
	if (*variable == NULL || **variable == '\0')
		SetConfigOption(name, value, PGC_POSTMASTER, PGC_S_OVERRIDE);
}

static void
set_defaults(void)
{
	char		name[QDB_NAME_SIZE];
	char		host[QDB_HOST_SIZE];

	if (gethostname(name, sizeof(name)) != 0 || name[0] == '\0')
		strlcpy(name, "node", sizeof(name));
	name[sizeof(name) - 1] = '\0';
	set_default("quantadb.node_name", &qdb_node_name, name);

	/* Nobody can connect to a wildcard. */
	strlcpy(host, qdb_listen_addresses + strspn(qdb_listen_addresses, ", "), sizeof(host));
	host[strcspn(host, ", ")] = '\0';
	if (host[0] == '\0' || strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 ||
		strcmp(host, "::") == 0)
		strlcpy(host, name, sizeof(host));
	set_default("quantadb.advertise_host", &qdb_advertise_host, host);
}

static void
define_port(const char *name, const char *what, int *variable, int port)
{
	DefineCustomIntVariable(name, what, NULL, variable, port, 1, 65535,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
}

static void
define_file(const char *name, const char *what, char **variable)
{
	DefineCustomStringVariable(name, what, NULL, variable, "", PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
}

static void
define_security_settings(void)
{
	define_file("quantadb.tls_cert_file", "Certificate of this node, where it is not the cluster's own.",
				&qdb_tls_cert_file);
	define_file("quantadb.tls_key_file", "Its private key.", &qdb_tls_key_file);
	define_file("quantadb.tls_ca_file", "Authority that has signed the members' certificates.",
				&qdb_tls_ca_file);
	define_file("quantadb.key_passphrase_command", "Command that prints the passphrase of the private keys.",
				&qdb_key_passphrase_command);
	DefineCustomIntVariable("quantadb.certificate_lifetime", "Lifetime of certificates that this node issues.",
							"They are renewed after a third of it.",
							&qdb_certificate_lifetime_s, 90 * SECS_PER_DAY, 10, 3650 * SECS_PER_DAY,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomBoolVariable("quantadb.http_tls", "HTTP from other hosts only over TLS.",
							 "From loopback addresses plain HTTP is always answered.",
							 &qdb_http_tls, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("quantadb.development_plaintext", "No TLS between nodes, on loopback only.",
							 "For development and measurements; every node of the cluster must have the same value.",
							 &qdb_development_plaintext, false, PGC_POSTMASTER, GUC_NOT_IN_SAMPLE,
							 NULL, NULL, NULL);
}

/* All three files, or none. */
static void
check_company_files(void)
{
	int			given = (*qdb_tls_cert_file != '\0') + (*qdb_tls_key_file != '\0') + (*qdb_tls_ca_file != '\0');

	if (given != 0 && given != 3)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("quantadb.tls_cert_file, quantadb.tls_key_file and quantadb.tls_ca_file go together"),
				 errhint("Set all three, or none to use the cluster's own certificates.")));
}

/* Raise a setting of the postmaster to least, as if it were its default. */
static void
raise_to(const char *name, int current, int least)
{
	char		value[16];

	if (current >= least)
		return;
	snprintf(value, sizeof(value), "%d", least);
	SetConfigOption(name, value, PGC_POSTMASTER, PGC_S_OVERRIDE);
}

/*
 * They size shared memory, so a server that joins later by a crash cycle needs
 * them from the start: below the primary's it could not replay.
 */
static void
raise_limits(void)
{
	if (max_wal_senders > 0)
		raise_to("max_wal_senders", max_wal_senders, MIN_SENDERS);
	raise_to("max_replication_slots", max_replication_slots, MIN_SENDERS);
}

void
qdb_define_settings(void)
{
	DefineCustomStringVariable("quantadb.node_name", "Name of this node, unique in its cluster.",
							   NULL, &qdb_node_name, "", PGC_POSTMASTER, 0,
							   check_node_name, NULL, NULL);
	DefineCustomStringVariable("quantadb.listen_addresses", "Addresses on which the cluster's ports listen.",
							   NULL, &qdb_listen_addresses, "localhost", PGC_POSTMASTER, 0,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("quantadb.advertise_host", "Host that peers and clients are told.",
							   NULL, &qdb_advertise_host, "", PGC_POSTMASTER, 0,
							   check_advertise_host, NULL, NULL);
	define_port("quantadb.raft_port", "Port for Raft and peers.", &qdb_raft_port, 7432);
	define_port("quantadb.replication_port", "Port for WAL streams.", &qdb_replication_port, 6432);
	define_port("quantadb.http_port", "Port for health checks and status.", &qdb_http_port, 8432);
	DefineCustomIntVariable("quantadb.heartbeat_interval", "Time between heartbeats.",
							NULL, &qdb_heartbeat_ms, 100, 10, 10000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("quantadb.replication_buffer", "Batch and send buffer of a stream.",
							NULL, &qdb_replication_buffer_kb, 1024, 256, 65536,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomEnumVariable("quantadb.replication_compression", "Compression of the WAL stream.",
							 NULL, &qdb_replication_compression, 1, compression_options,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("quantadb.upstream", "Member that a replica without a vote streams from, to spare the primary.",
							   "Empty: the primary.", &qdb_upstream, "", PGC_SIGHUP, 0,
							   NULL, NULL, NULL);
	DefineCustomIntVariable("quantadb.clone_rate", "Most that a clone or rewind may read here or fetch, per second.",
							"0: unlimited.", &qdb_clone_rate_kb, 0, 0, MAX_KILOBYTES,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("quantadb.priority", "Higher wins ties; 0 never becomes primary.",
							NULL, &qdb_priority, 100, 0, 1000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("quantadb.read_consistency", "What reads of this session may miss.",
							 NULL, &qdb_read_consistency, QDB_READ_EVENTUAL, consistency_options,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("quantadb.min_lsn", "Position that session reads wait for.",
							   NULL, &qdb_min_lsn, "", PGC_USERSET, 0,
							   check_min_lsn, NULL, NULL);
	DefineCustomIntVariable("quantadb.lost_wal_limit", "Most WAL that is kept of what rewinds and trims have thrown away.",
							"Summaries are kept without.", &qdb_lost_wal_limit_mb, 1024, 0, MAX_KILOBYTES,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("quantadb.wal_retention_limit", "Most WAL that is kept for members that lack it.",
							"A member that lacks more gets its data anew.",
							&qdb_wal_retention_limit_mb, 4096, 64, MAX_KILOBYTES,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("quantadb.stall_timeout", "A write of WAL, or the postmaster, may be stuck for so long before this node gives its seat up.",
							"0: for ever.", &qdb_stall_timeout_ms, 10000, 0, 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("quantadb.min_free_space", "With less room on the disk this node gives its seat up.",
							"0: never.", &qdb_min_free_space_mb, 64, 0, MAX_KILOBYTES,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("quantadb.debug_apply_stop", "Kills the postmaster at this point of staged work.",
							"Three points a step: before, in the middle, after. For tests.",
							&qdb_debug_apply_stop, -1, -1, INT_MAX, PGC_SIGHUP,
							GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL, NULL, NULL, NULL);
	define_security_settings();
	DefineCustomIntVariable("quantadb.read_timeout", "How long a session or strict read may wait; 0 has no limit.",
							NULL, &qdb_read_timeout_ms, 10000, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable("quantadb.max_replica_lag",
							   "Lag, a size or a duration, beyond which a replica refuses reads.",
							   NULL, &max_replica_lag, "off", PGC_SUSET, 0,
							   check_max_replica_lag, assign_max_replica_lag, NULL);
	MarkGUCPrefixReserved("quantadb");
	check_company_files();
	set_defaults();
	raise_limits();
}

/*
 * To empty one recovery target while another one is set is an error in
 * PostgreSQL, and only one can be set: leave alone what is empty already.
 */
static void
clear_setting(const char *name)
{
	const char *value = GetConfigOption(name, false, false);

	if (value != NULL && *value != '\0')
		SetConfigOption(name, "", PGC_POSTMASTER, PGC_S_OVERRIDE);
}

void
qdb_own_settings(void)
{
	if (max_wal_senders == 0)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("[cluster] max_wal_senders must not be 0 on a member: commits would not wait for a quorum"),
				 errhint("Remove max_wal_senders from the configuration.")));
	if (wal_level < WAL_LEVEL_REPLICA)
		ereport(FATAL,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("[cluster] wal_level must be \"replica\" or \"logical\" on a member"),
				 errhint("Remove wal_level from the configuration.")));

	for (int i = 0; i < lengthof(owned_settings); i++)
	{
		const OwnedSetting *owned = &owned_settings[i];

		if (owned->value == NULL)
			continue;
		if (strncmp(owned->name, "recovery_target", 15) == 0 && *owned->value == '\0')
			clear_setting(owned->name);
		else
			SetConfigOption(owned->name, owned->value, PGC_POSTMASTER, PGC_S_OVERRIDE);
	}

	/*
	 * Only the primary archives (core/archive.h).  With "always" a replica
	 * would keep all that it receives until it is archived there.
	 */
	if (XLogArchiveMode == ARCHIVE_MODE_ALWAYS)
		SetConfigOption("archive_mode", "on", PGC_POSTMASTER, PGC_S_OVERRIDE);

	/*
	 * For nodes that are no members yet, unless the configuration says
	 * otherwise.
	 */
	if (wal_keep_size_mb == 0)
		SetConfigOption("wal_keep_size", KEEP_WAL, PGC_POSTMASTER, PGC_S_DYNAMIC_DEFAULT);
}

bool
qdb_is_owned_setting(const char *name)
{
	for (int i = 0; i < lengthof(owned_settings); i++)
		if (pg_strcasecmp(owned_settings[i].name, name) == 0)
			return true;
	return false;
}
