/*-------------------------------------------------------------------------
 *
 * membership.c
 *		quantadb_init() and quantadb_join(): how a server becomes a member.
 *
 * init adopts a running primary.  What makes its commits wait must be in force
 * before the first epoch is: a setting that only some processes have seen
 * would let the next reload wake every waiting commit as successful.  So the
 * settings are written, reloaded, and awaited in shared memory, where the
 * checkpointer publishes them; only then the coordinator is asked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <curl/curl.h>
#include <signal.h>

#include "access/xlog.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/wait_event.h"

#include "api/sql.h"
#include "base/tls.h"
#include "core/token_text.h"

#define INIT_TIMEOUT_MS			60000
#define JOIN_TIMEOUT_MS			60000
#define RELOAD_TIMEOUT_US		(30 * INT64CONST(1000000))
#define PEER_TIMEOUT_MS			10000
#define PEER_MAX_BYTES			(256 * 1024)

PG_FUNCTION_INFO_V1(qdb_sql_init);
PG_FUNCTION_INFO_V1(qdb_sql_join);

/*
 * What init writes; a boot as a member overrides the same.  The last three are on here
 * (require_settings): written, an edited postgresql.conf and a reload cannot
 * switch them off on a server that has not started as a member yet.
 */
static const struct
{
	const char *name;
	const char *value;
}			adopted[] = {
	{"synchronous_standby_names", QDB_SYNC_STANDBY_NAMES},
	{"wal_retrieve_retry_interval", "100ms"},
	{"wal_keep_size", "1GB"},
	{"fsync", "on"},
	{"full_page_writes", "on"},
	{"restart_after_crash", "on"},
};

/* value NULL: reset. */
static void
alter_system(const char *name, const char *value)
{
	AlterSystemStmt *stmt = makeNode(AlterSystemStmt);

	stmt->setstmt = makeNode(VariableSetStmt);
	stmt->setstmt->name = pstrdup(name);
	if (value == NULL)
		stmt->setstmt->kind = VAR_RESET;
	else
	{
		A_Const    *constant = makeNode(A_Const);

		constant->val.sval.type = T_String;
		constant->val.sval.sval = pstrdup(value);
		constant->location = -1;
		stmt->setstmt->kind = VAR_SET_VALUE;
		stmt->setstmt->args = list_make1(constant);
	}
	AlterSystemSetConfigFile(stmt);
}

/* A wal_keep_size that somebody has chosen stays. */
static void
adopt_settings(bool adopt)
{
	static bool keep_size_is_ours = false;

	if (adopt)
		keep_size_is_ours = wal_keep_size_mb == 0;
	for (int i = 0; i < lengthof(adopted); i++)
		if (keep_size_is_ours || strcmp(adopted[i].name, "wal_keep_size") != 0)
			alter_system(adopted[i].name, adopt ? adopted[i].value : NULL);
	if (kill(PostmasterPid, SIGHUP) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not signal the server to reload its configuration: %m"),
				 errhint("See whether the server still runs, then try again.")));
}

static bool
commits_wait(void)
{
	bool		defined;

	LWLockAcquire(SyncRepLock, LW_SHARED);
	defined = (WalSndCtl->sync_standbys_status & SYNC_STANDBY_DEFINED) != 0;
	LWLockRelease(SyncRepLock);
	return defined;
}

/* Until the postmaster has reloaded, and the checkpointer after it. */
static bool
await_settings(void)
{
	int64		deadline = qdb_now_us() + RELOAD_TIMEOUT_US;

	while (!commits_wait())
	{
		if (qdb_now_us() > deadline)
			return false;
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	return true;
}

static void
require_superuser(const char *what)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to %s", what),
				 errdetail("It gives the whole server to the cluster."),
				 errhint("Let a superuser call it.")));
}

static void
require_setting(bool good, const char *name, const char *wanted)
{
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("\"%s\" must be %s on a cluster member", name, wanted),
				 errhint("Change it in postgresql.conf and restart the server.")));
}

static void
require_stranger(bool or_removed)
{
	qdb_require_loaded();
	if (qdb_shared->member && !(or_removed && qdb_shared->removed))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is a member of a cluster already"),
				 errdetail("A server is a member of one cluster at most."),
				 errhint("See quantadb_status().")));
}

/* Settings that only a restart changes, and that membership needs. */
static void
require_settings(void)
{
	require_setting(wal_level >= WAL_LEVEL_REPLICA, "wal_level", "\"replica\" or \"logical\"");
	require_setting(max_wal_senders > 0, "max_wal_senders", "greater than 0");
	require_setting(EnableHotStandby, "hot_standby", "on");
	require_setting(enableFsync, "fsync", "on");
	require_setting(fullPageWrites, "full_page_writes", "on");
	require_setting(restart_after_crash, "restart_after_crash", "on");
	require_setting(XLogArchiveMode != ARCHIVE_MODE_ALWAYS, "archive_mode", "\"on\" or \"off\"");
}

/*
 * Asks the coordinator for epoch 1.  Refused: the settings go back, or every
 * commit would wait for ever.  No answer: they stay, because the server may
 * be a member a moment later, and a commit must then wait.
 */
static void
request_init(QdbRequest *request)
{
	if (!qdb_request(request, INIT_TIMEOUT_MS))
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("could not create the cluster: no answer in time"),
				 errdetail("The outcome is unknown, and commits wait for a quorum already."),
				 errhint("If quantadb_status() stays \"inert\", run ALTER SYSTEM RESET synchronous_standby_names and reload.")));
	if (request->ok)
		return;
	adopt_settings(false);
	ereport(ERROR,
			(errcode(request->sqlstate != 0 ? request->sqlstate : ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("could not create the cluster"),
			 errdetail("%s", request->message[0] != '\0' ? request->message : qdb_result_text(request->result)),
			 request->hint[0] != '\0' ? errhint("%s", request->hint) : 0));
}

/* What cannot be changed in a running server, and costs something until it is. */
static void
tell_about_hints(void)
{
	if (DataChecksumsEnabled() || wal_log_hints)
		return;
	ereport(NOTICE,
			(errmsg("this server has no data checksums and logs no hint bits until its next start"),
			 errdetail("Until then its way back after a failover is a whole copy of the data, not only of the blocks that differ."),
			 errhint("Restart it when that is convenient.")));
}

Datum
qdb_sql_init(PG_FUNCTION_ARGS)
{
	char	   *name = qdb_utf8_argument(PG_GETARG_TEXT_PP(0));
	QdbRequest *request = palloc0(sizeof(QdbRequest));
	QdbState   *state;

	require_superuser("create a cluster");
	require_stranger(false);
	qdb_check_cluster_name(name);
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot create a cluster on a standby"),
				 errhint("Run quantadb_init() on the primary, then quantadb_join() here.")));
	require_settings();

	adopt_settings(true);
	if (!await_settings())
	{
		adopt_settings(false);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not create the cluster: the server did not take over its settings"),
				 errhint("Look for errors after \"parameter\" or \"reloading\" in the server log.")));
	}
	request->kind = QDB_REQ_INIT;
	strlcpy(request->text, name, sizeof(request->text));
	request_init(request);
	tell_about_hints();
	state = qdb_copy_state();
	PG_RETURN_TEXT_P(cstring_to_text(state->cluster_id[0] != '\0' ? state->cluster_id : request->message));
}

/* An answer of bounded size; no allocation, because libcurl is above us. */
typedef struct Answer
{
	size_t		length;
	char		data[PEER_MAX_BYTES];
} Answer;

static size_t
receive_answer(char *data, size_t size, size_t count, void *arg)
{
	Answer	   *answer = arg;
	size_t		bytes = size * count;

	if (bytes >= sizeof(answer->data) - answer->length)
		return 0;				/* too long: libcurl gives up */
	memcpy(answer->data + answer->length, data, bytes);
	answer->length += bytes;
	answer->data[answer->length] = '\0';
	return bytes;
}

/* The authority is known by the hash in the token, before anything is believed. */
static CURLcode
trust_token(CURL *curl, void *context, void *token)
{
	return qdb_tls_trust_hash(context, ((QdbTokenText *) token)->ca_hash) ? CURLE_OK : CURLE_SSL_CERTPROBLEM;
}

static void
require_certificate(CURL *curl, QdbTokenText *token)
{
	if (qdb_company_certificates())
		curl_easy_setopt(curl, CURLOPT_CAINFO, qdb_tls_ca_file);
	else
	{
		/*
		 * Members are known by their keys, not by the names of their hosts,
		 * and not by who else is trusted on this machine.
		 */
		curl_easy_setopt(curl, CURLOPT_CAINFO, NULL);
		curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
		curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
		curl_easy_setopt(curl, CURLOPT_SSL_CTX_DATA, token);
		curl_easy_setopt(curl, CURLOPT_SSL_CTX_FUNCTION, trust_token);
	}
}

/* NULL, or why there is no answer. */
static const char *
get_peer_status(const char *peer, QdbTokenText *token, Answer *answer)
{
	char		url[QDB_HOST_SIZE + 64];
	CURL	   *curl = curl_easy_init();
	CURLcode	code;

	if (curl == NULL)
		return "out of memory";
	snprintf(url, sizeof(url), "%s://%s/cluster/status", qdb_plaintext() ? "http" : "https", peer);
	if (!qdb_plaintext())
		require_certificate(curl, token);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, qdb_plaintext() ? "http" : "https");
	curl_easy_setopt(curl, CURLOPT_PROXY, "");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long) PEER_TIMEOUT_MS);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long) PEER_TIMEOUT_MS);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive_answer);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
	code = curl_easy_perform(curl);
	curl_easy_cleanup(curl);
	if (code == CURLE_PEER_FAILED_VERIFICATION)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the server at \"%s\" is not of the cluster that the token is for", peer),
				 errdetail("Its certificate is not by the authority that the token names."),
				 errhint("Call quantadb_join_token() on a member of the cluster to join, and give the address of one.")));
	return code == CURLE_OK ? NULL : curl_easy_strerror(code);
}

/* Splits "host:port" or "[v6]:port"; the host must not smuggle a path into a URL. */
static char *
peer_host(const char *peer)
{
	const char *colon = strrchr(peer, ':');
	size_t		length = colon ? colon - peer : 0;

	if (length == 0 || length >= QDB_HOST_SIZE || colon[1] == '\0' ||
		strspn(colon + 1, "0123456789") != strlen(colon + 1) || strlen(colon + 1) > 5 ||
		strspn(peer, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]") != strlen(peer))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid peer: \"%s\"", peer),
				 errhint("Write the address and HTTP port of a member, for example '10.0.0.1:8432'.")));
	return pnstrdup(peer, length);
}

static JsonbValue *
json_field(Jsonb *json, const char *name)
{
	if (!JB_ROOT_IS_OBJECT(json))
		return NULL;
	return getKeyJsonValueFromContainer(&json->root, name, strlen(name), NULL);
}

/*
 * Has this database cluster anything that a user made?  The catalogs of other databases
 * cannot be read from here: of those that initdb makes, a file with a number that
 * initdb does not give counts (a rewritten catalog too: better asked than dropped).
 *
 * The superuser who asks may have a schema in his search_path in which others make
 * operators.
 */
static bool
has_user_data(void)
{
	bool		found;
	int			nest = NewGUCNestLevel();

	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	if (SPI_execute("SELECT 1 FROM pg_catalog.pg_class c"
					" WHERE c.oid >= 16384 AND c.relkind IN ('r', 'm', 'p')"
					" AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d"
					" WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
					" AND d.objid = c.oid AND d.deptype = 'e')"
					" UNION ALL SELECT 1 FROM pg_catalog.pg_database"
					" WHERE datname NOT IN ('postgres', 'template0', 'template1', pg_catalog.current_database())"
					" UNION ALL SELECT 1 FROM pg_catalog.pg_tablespace WHERE oid >= 16384"
					" UNION ALL SELECT 1 FROM pg_catalog.pg_database d, pg_catalog.pg_ls_dir('base/' || d.oid) f"
					" WHERE d.datname IN ('postgres', 'template0', 'template1')"
					" AND d.datname <> pg_catalog.current_database()"
					" AND CASE WHEN f ~ '^[0-9]+$' THEN f::pg_catalog.int8 >= 16384 END",
					true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not look for user tables");
	found = SPI_processed > 0;
	SPI_finish();
	AtEOXact_GUC(true, nest);
	return found;
}

/* A copy of the cluster's own data has nothing to lose. */
static void
check_discard(Jsonb *json, bool discard)
{
	JsonbValue *identifier = json_field(json, "system_identifier");
	char	   *own = psprintf(UINT64_FORMAT, GetSystemIdentifier());

	if (identifier != NULL && identifier->type == jbvString &&
		identifier->val.string.len == strlen(own) &&
		memcmp(identifier->val.string.val, own, strlen(own)) == 0)
		return;

	/*
	 * It keeps what a member has until it is one again (I15): no place for a
	 * clone.
	 */
	if (qdb_shared->removed)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot join: this server has the data of another cluster, which has removed it"),
				 errhint("Stop it, move \"%s\" out of its data directory, start it and join again.", QDB_DIR)));
	if (discard)
		return;
	if (has_user_data())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot join: this server has user tables, and its data would be replaced"),
				 errdetail("Tables, databases or tablespaces were made here, in any of its databases."),
				 errhint("Call quantadb_join() with discard_local_data => true if they are not needed.")));
}

static int
peer_raft_port(Jsonb *json, const char *peer)
{
	JsonbValue *port = json_field(json, "raft_port");
	int			number = 0;

	if (port != NULL && port->type == jbvNumeric)
		number = DatumGetInt32(DirectFunctionCall1(numeric_int4, NumericGetDatum(port->val.numeric)));
	if (number < 1 || number > 65535)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not join through \"%s\": its answer names no Raft port", peer),
				 errhint("Give the HTTP port (quantadb.http_port) of a member.")));
	return number;
}

/*
 * A clone goes on by itself once it copies; until then the caller waits, because
 * what can be wrong with this server is seen by then.
 */
static void
await_clone(void)
{
	int64		deadline = qdb_now_us() + JOIN_TIMEOUT_MS * INT64CONST(1000);
	QdbCloneStatus clone;

	for (;;)
	{
		SpinLockAcquire(&qdb_shared->mutex);
		clone = qdb_shared->clone;
		SpinLockRelease(&qdb_shared->mutex);
		if (clone.phase == QDB_CLONE_NONE)
			return;				/* a copy: its crash cycle begins now */
		if (clone.phase == QDB_CLONE_FAILED && !qdb_shared->joining)
			ereport(ERROR,
					(errcode(clone.sqlstate != 0 ? clone.sqlstate : ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("could not join the cluster"),
					 errdetail("%s", clone.reason),
					 errhint("%s", clone.hint[0] != '\0' ? clone.hint :
							 "Remove the cause, and join again with a new token.")));
		if (clone.phase == QDB_CLONE_COPYING || clone.phase == QDB_CLONE_STAGED ||
			qdb_now_us() > deadline)
			break;
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 20, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	ereport(NOTICE,
			(errmsg("the data of this server is being replaced by the cluster's"),
			 clone.phase < QDB_CLONE_COPYING && clone.reason[0] != '\0' ? errdetail("%s", clone.reason) : 0,
			 errhint("The server restarts when it is there; the view quantadb_nodes shows the progress.")));
}

Datum
qdb_sql_join(PG_FUNCTION_ARGS)
{
	char	   *peer = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *token = text_to_cstring(PG_GETARG_TEXT_PP(1));
	QdbRequest *request = palloc0(sizeof(QdbRequest));
	Answer	   *answer = palloc0(sizeof(Answer));
	QdbTokenText parsed;
	char	   *host;
	const char *why;
	Jsonb	   *json;

	require_superuser("join a cluster");
	require_stranger(true);
	host = peer_host(peer);
	if (!qdb_token_parse(token, &parsed) || !parsed.join)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid token"),
				 errhint("Use what quantadb_join_token() returned on a member.")));
	require_settings();
	why = get_peer_status(peer, &parsed, answer);
	if (why != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("could not ask \"%s\" about its cluster: %s", peer, why),
				 errhint("Give the address and HTTP port (quantadb.http_port) of a running member.")));
	json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(answer->data)));
	check_discard(json, PG_GETARG_BOOL(2));

	request->kind = QDB_REQ_JOIN;
	request->flag = PG_GETARG_BOOL(2);
	snprintf(request->text, sizeof(request->text), "%s:%d %s", host, peer_raft_port(json, peer), token);
	qdb_run_request(request, JOIN_TIMEOUT_MS, "join the cluster");
	await_clone();
	PG_RETURN_VOID();
}
