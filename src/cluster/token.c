/*-------------------------------------------------------------------------
 *
 * token.c
 *		One-use tokens for joining.
 *
 * The replicated state keeps only the SHA-256 of the secret.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/api_token.h"
#include "base/status.h"
#include "cluster/internal.h"

/* The text that is handed out once the token is committed; by request slot. */
static char texts[QDB_MAX_REQUESTS][QDB_TOKEN_TEXT_SIZE];

bool
qdb_parse_token(const char *text, QdbTokenText *token)
{
	return qdb_token_parse(text, token) && token->join;
}

static void
token_done(uint64 slot, uint64 unused, bool known, QdbResult result)
{
	qdb_publish_state();
	if (known && result == QDB_OK)
		qdb_answer_request((int) slot, 0, texts[slot]);
	else
		qdb_refuse_request((int) slot, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
						   known ? qdb_result_text(result) : "no answer from the Raft leader in time",
						   "Ask for a token again; an unused one expires.");
	memset(texts[slot], 0, sizeof(texts[slot]));
}

void
qdb_start_token(int slot, const QdbRequest *request)
{
	QdbCommand	command;
	QdbTokenText token = {.join = true};
	int			role = QDB_ROLE_VOTER;

	memset(&command, 0, sizeof(command));
	if (request->text[0] != '\0' && !qdb_parse_role(request->text, &role))
	{
		qdb_refuse_request(slot, ERRCODE_INVALID_PARAMETER_VALUE, "no such role",
						   "Roles are voter and replica.");
		return;
	}
	if (!qdb_new_secret(&token.id, token.secret) ||
		!qdb_hash_secret(token.secret, command.token.secret_hash))
	{
		qdb_refuse_request(slot, ERRCODE_INTERNAL_ERROR, "could not make random numbers", NULL);
		return;
	}
	command.type = QDB_CMD_TOKEN_ADD;
	command.token.id = token.id;
	command.token.role = (uint8) role;
	command.token.expires_us = qdb_unix_us() +
		(request->number > 0 ? request->number : 3600) * INT64CONST(1000000);
	if (!qdb_plaintext() && !qdb_authority_hash(token.ca_hash))
	{
		qdb_refuse_request(slot, ERRCODE_CONFIG_FILE_ERROR, qdb_keys_error(), NULL);
		return;
	}
	qdb_token_format(&token, texts[slot]);
	if (!qdb_propose(&command, token_done, slot, 0))
		qdb_refuse_request(slot, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
						   "too many commands are under way", "Try again.");
}
