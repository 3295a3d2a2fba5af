/*-------------------------------------------------------------------------
 *
 * token.c
 *		One-use tokens for joining: "ID.SECRET", both in hex.
 *
 * The replicated state keeps only the SHA-256 of the secret.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"

#include "base/status.h"
#include "cluster/internal.h"

/* The text that is handed out once the token is committed; by request slot. */
static char texts[QDB_MAX_REQUESTS][64];

bool
qdb_hash_secret(const uint8 *secret, uint8 *hash)
{
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);
	bool		ok;

	if (ctx == NULL)
		return false;
	ok = pg_cryptohash_init(ctx) >= 0 &&
		pg_cryptohash_update(ctx, secret, QDB_SECRET_SIZE) >= 0 &&
		pg_cryptohash_final(ctx, hash, QDB_SECRET_HASH_SIZE) >= 0;
	pg_cryptohash_free(ctx);
	return ok;
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

bool
qdb_parse_token(const char *text, uint64 *id, uint8 *secret)
{
	const char *p = text;

	*id = 0;
	for (; hex_digit(*p) >= 0 && p - text <16; p++)
		*id = *id * 16 + hex_digit(*p);
	if (p == text ||*p++ != '.' || strlen(p) != 2 * QDB_SECRET_SIZE)
		return false;
	for (int i = 0; i < QDB_SECRET_SIZE; i++)
	{
		int			high = hex_digit(p[2 * i]);
		int			low = hex_digit(p[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		secret[i] = (uint8) (high << 4 | low);
	}
	return *id != 0;
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
	uint8		secret[QDB_SECRET_SIZE];
	int			role = QDB_ROLE_VOTER;
	char	   *text = texts[slot];
	int			used;

	memset(&command, 0, sizeof(command));
	if (request->text[0] != '\0' && !qdb_parse_role(request->text, &role))
	{
		qdb_refuse_request(slot, ERRCODE_INVALID_PARAMETER_VALUE, "no such role",
						   "Roles are voter and replica.");
		return;
	}
	if (!pg_strong_random(&command.token.id, sizeof(command.token.id)) ||
		!pg_strong_random(secret, sizeof(secret)) ||
		!qdb_hash_secret(secret, command.token.secret_hash))
	{
		qdb_refuse_request(slot, ERRCODE_INTERNAL_ERROR, "could not make random numbers", NULL);
		return;
	}
	command.type = QDB_CMD_TOKEN_ADD;
	command.token.id |= 1;
	command.token.role = (uint8) role;
	command.token.expires_us = qdb_unix_us() +
		(request->number > 0 ? request->number : 3600) * INT64CONST(1000000);
	used = snprintf(text, sizeof(texts[slot]), "%llx.", (unsigned long long) command.token.id);
	for (int i = 0; i < QDB_SECRET_SIZE; i++)
		used += snprintf(text +used, sizeof(texts[slot]) - used, "%02x", secret[i]);
	if (!qdb_propose(&command, token_done, slot, 0))
		qdb_refuse_request(slot, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
						   "too many commands are under way", "Try again.");
}
