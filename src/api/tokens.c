/*-------------------------------------------------------------------------
 *
 * tokens.c
 *		Tokens for control over HTTP: create, revoke, list; new keys for all.
 *
 * The secret is made here, shown once, and forgotten: the cluster keeps its
 * hash.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "api/sql.h"
#include "base/api_token.h"
#include "base/tls.h"
#include "core/token_text.h"

#define MAX_TTL_US		(3660 * USECS_PER_DAY)

PG_FUNCTION_INFO_V1(qdb_sql_api_token);
PG_FUNCTION_INFO_V1(qdb_sql_revoke_api_token);
PG_FUNCTION_INFO_V1(qdb_sql_api_tokens);
PG_FUNCTION_INFO_V1(qdb_sql_rotate_certificates);

static const char *
role_text(int role)
{
	return role == QDB_API_ADMIN ? "admin" : "monitor";
}

static int
role_argument(const char *text)
{
	if (strcmp(text, "admin") == 0)
		return QDB_API_ADMIN;
	if (strcmp(text, "monitor") == 0)
		return QDB_API_MONITOR;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid role: \"%s\"", text),
			 errdetail("A token of role \"monitor\" may only read."),
			 errhint("Roles of HTTP tokens are \"admin\" and \"monitor\".")));
	return QDB_API_NONE;
}

Datum
qdb_sql_api_token(PG_FUNCTION_ARGS)
{
	char	   *creator;
	QdbCommand	command = {.type = QDB_CMD_API_TOKEN_ADD};
	QdbApiToken *stored = &command.api_token;
	int64		ttl = qdb_interval_us(PG_GETARG_INTERVAL_P(1));
	QdbTokenText token = {0};
	char		shown[QDB_TOKEN_TEXT_SIZE];

	qdb_require_member();
	stored->role = role_argument(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (ttl < USECS_PER_SEC || ttl > MAX_TTL_US)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid lifetime of a token"),
				 errdetail("It must be between 1 second and 10 years."),
				 errhint("Give an interval, for example '90 days'.")));
	if (!qdb_new_secret(&token.id, token.secret) ||
		!qdb_hash_secret(token.secret, stored->secret_hash))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not make random numbers"),
				 errhint("Try again.")));
	stored->id = token.id;
	stored->expires_us = qdb_unix_us() + ttl;
	creator = qdb_utf8(GetUserNameFromId(GetUserId(), false));
	strlcpy(stored->creator, creator,
			pg_encoding_mbcliplen(PG_UTF8, creator, strlen(creator), sizeof(stored->creator) - 1) + 1);
	qdb_run_command(&command, "create an HTTP token");
	qdb_token_format(&token, shown);
	PG_RETURN_TEXT_P(cstring_to_text(shown));
}

Datum
qdb_sql_revoke_api_token(PG_FUNCTION_ARGS)
{
	QdbCommand	command = {.type = QDB_CMD_API_TOKEN_REVOKE};
	char	   *id = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *end;

	qdb_require_member();
	/* The whole token may be pasted too. */
	if (strncmp(id, "qdbapi.", 7) == 0)
	{
		id += 7;
		id[strcspn(id, ".")] = '\0';
	}
	command.api_token.id = strtou64(id, &end, 16);
	if (*id == '\0' || *end != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid id of an HTTP token: \"%s\"", id),
				 errdetail("It must be a number of up to 16 hexadecimal digits."),
				 errhint("The ids are listed in the view quantadb_api_tokens.")));
	qdb_run_command(&command, "revoke the HTTP token");
	PG_RETURN_VOID();
}

static Datum
unix_timestamp(int64 unix_us)
{
	return TimestampTzGetDatum(unix_us - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY);
}

/* Expired ones are not shown: they are good for nothing. */
Datum
qdb_sql_api_tokens(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	QdbState   *state;

	qdb_require_loaded();
	InitMaterializedSRF(fcinfo, 0);
	state = qdb_copy_state();
	for (int i = 0; i < QDB_MAX_API_TOKENS; i++)
	{
		const QdbApiToken *token = &state->api_tokens[i];
		Datum		values[5];
		bool		nulls[5] = {false};

		if (token->id == 0 || token->expires_us <= qdb_unix_us())
			continue;
		values[0] = CStringGetTextDatum(psprintf("%016llx", (unsigned long long) token->id));
		values[1] = CStringGetTextDatum(role_text(token->role));
		values[2] = qdb_text_datum(token->creator);
		values[3] = unix_timestamp(token->created_us);
		values[4] = unix_timestamp(token->expires_us);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* Returns when the members know; each then makes a new key within seconds. */
Datum
qdb_sql_rotate_certificates(PG_FUNCTION_ARGS)
{
	QdbCommand	command = {.type = QDB_CMD_ROTATE_KEYS};

	qdb_require_member();
	if (qdb_company_certificates())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot rotate certificates that the cluster has not issued"),
				 errhint("Replace the files that quantadb.tls_cert_file and its like name, and reload.")));
	qdb_run_command(&command, "rotate the certificates");
	PG_RETURN_VOID();
}
