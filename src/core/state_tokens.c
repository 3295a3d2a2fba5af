/*-------------------------------------------------------------------------
 *
 * state_tokens.c
 *		Commands about tokens: for joining, and for control over HTTP.
 *
 * The state keeps the SHA-256 of a secret, never the secret.  The secrets are
 * 128 random bits, so a fast hash without salt tells nothing about them.
 *
 *-------------------------------------------------------------------------
 */
#include "core/state_internal.h"

#include <stdio.h>
#include <string.h>

/* Takes the same time wherever the difference is. */
bool
qdb_same_bytes(const uint8_t *a, const uint8_t *b, size_t len)
{
	uint8_t		difference = 0;

	for (size_t i = 0; i < len; i++)
		difference |= a[i] ^ b[i];
	return difference == 0;
}

const QdbToken *
qdb_find_token(const QdbState *state, const QdbToken *token, int64_t now_us)
{
	for (int i = 0; token->id != 0 && i < QDB_MAX_TOKENS; i++)
	{
		const QdbToken *t = &state->tokens[i];

		if (t->id == token->id && now_us < t->expires_us &&
			qdb_same_bytes(t->secret_hash, token->secret_hash, QDB_SECRET_HASH_SIZE))
			return t;
	}
	return NULL;
}

QdbResult
qdb_apply_token_add(QdbState *state, const QdbCommand *command)
{
	const QdbToken *token = &command->token;
	QdbToken   *slot = NULL;

	if (token->id == 0 || token->role > QDB_ROLE_VOTER || token->expires_us <= command->time_us)
		return QDB_BAD_VALUE;
	for (int i = 0; i < QDB_MAX_TOKENS; i++)
	{
		QdbToken   *t = &state->tokens[i];

		if (t->id == token->id)
			return qdb_same_bytes(t->secret_hash, token->secret_hash, QDB_SECRET_HASH_SIZE) ?
				QDB_UNCHANGED : QDB_BAD_TOKEN;
		if (slot == NULL && (t->id == 0 || t->expires_us <= command->time_us))
			slot = t;
	}
	if (slot == NULL)
		return QDB_TOO_MANY;
	*slot = *token;
	qdb_add_journal(state, command, "token", command->node,
					token->role == QDB_ROLE_VOTER ? "join token for a voter" : "join token for a replica");
	return QDB_OK;
}

static QdbApiToken *
find_api_token(QdbState *state, uint64_t id)
{
	for (int i = 0; id != 0 && i < QDB_MAX_API_TOKENS; i++)
		if (state->api_tokens[i].id == id)
			return &state->api_tokens[i];
	return NULL;
}

QdbResult
qdb_apply_api_token_add(QdbState *state, const QdbCommand *command)
{
	const QdbApiToken *token = &command->api_token;
	QdbApiToken *slot = find_api_token(state, token->id);
	char		text[QDB_REASON_SIZE];

	if (token->id == 0 || (token->role != QDB_API_MONITOR && token->role != QDB_API_ADMIN) ||
		token->expires_us <= command->time_us || !qdb_is_filled_text(token->creator, QDB_NAME_SIZE))
		return QDB_BAD_VALUE;
	if (slot != NULL)
		return qdb_same_bytes(slot->secret_hash, token->secret_hash, QDB_SECRET_HASH_SIZE) ?
			QDB_UNCHANGED : QDB_BAD_TOKEN;
	for (int i = 0; slot == NULL && i < QDB_MAX_API_TOKENS; i++)
		if (state->api_tokens[i].id == 0 || state->api_tokens[i].expires_us <= command->time_us)
			slot = &state->api_tokens[i];
	if (slot == NULL)
		return QDB_TOO_MANY;
	*slot = *token;
	slot->created_us = command->time_us;
	qdb_copy_text(slot->creator, sizeof(slot->creator), token->creator, sizeof(token->creator));
	snprintf(text, sizeof(text), "HTTP token %016llx (%s) created by %s", (unsigned long long) token->id,
			 token->role == QDB_API_ADMIN ? "admin" : "monitor", slot->creator);
	qdb_add_journal(state, command, "api_token", "", text);
	return QDB_OK;
}

QdbResult
qdb_apply_api_token_revoke(QdbState *state, const QdbCommand *command)
{
	QdbApiToken *token = find_api_token(state, command->api_token.id);
	char		text[QDB_REASON_SIZE];

	if (token == NULL)
		return QDB_BAD_TOKEN;
	memset(token, 0, sizeof(*token));
	snprintf(text, sizeof(text), "HTTP token %016llx revoked", (unsigned long long) command->api_token.id);
	qdb_add_journal(state, command, "api_token", "", text);
	return QDB_OK;
}

/* Every slot is looked at and hashes are compared whole, so that time tells nothing. */
const QdbApiToken *
qdb_find_api_token(const QdbState *state, uint64_t id, const uint8_t *secret_hash, int64_t now_us)
{
	const QdbApiToken *found = NULL;

	for (int i = 0; i < QDB_MAX_API_TOKENS; i++)
	{
		const QdbApiToken *t = &state->api_tokens[i];
		bool		same = qdb_same_bytes(t->secret_hash, secret_hash, QDB_SECRET_HASH_SIZE);

		if (same && id != 0 && t->id == id && now_us < t->expires_us)
			found = t;
	}
	return found;
}
