/*-------------------------------------------------------------------------
 *
 * api_token.c
 *		Secrets of tokens, and bearer tokens of HTTP requests.
 *
 * Tokens are compared by the hash of their secret, over all slots and whole
 * hashes, so that the time of an answer does not help to guess.
 *
 *-------------------------------------------------------------------------
 */
#include "base/api_token.h"

#include <openssl/evp.h>

#include "core/token_text.h"

bool
qdb_new_secret(uint64 *id, uint8 *secret)
{
	if (!pg_strong_random(id, sizeof(*id)) || !pg_strong_random(secret, QDB_SECRET_SIZE))
		return false;
	*id |= 1;					/* 0 means none */
	return true;
}

bool
qdb_hash_secret(const uint8 *secret, uint8 *hash)
{
	return EVP_Digest(secret, QDB_SECRET_SIZE, hash, NULL, EVP_sha256(), NULL) == 1;
}

QdbApiRole
qdb_api_token_check(const char *authorization, char *who, size_t who_size)
{
	static const char scheme[] = "Bearer ";
	QdbTokenText token;
	uint8		hash[QDB_SECRET_HASH_SIZE];
	const QdbApiToken *found;
	QdbApiRole	role = QDB_API_NONE;

	if (authorization == NULL || pg_strncasecmp(authorization, scheme, sizeof(scheme) - 1) != 0)
	{
		strlcpy(who, "no bearer token was given", who_size);
		return QDB_API_NONE;
	}
	authorization += sizeof(scheme) - 1;
	authorization += strspn(authorization, " ");
	strlcpy(who, "the token is unknown, revoked or expired", who_size);
	if (!qdb_token_parse(authorization, &token) || token.join ||
		!qdb_hash_secret(token.secret, hash))
		return QDB_API_NONE;
	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	found = qdb_find_api_token(&qdb_shared->state, token.id, hash, qdb_unix_us());
	if (found != NULL)
	{
		role = (QdbApiRole) found->role;
		snprintf(who, who_size, "HTTP token %016llx of %s", (unsigned long long) found->id, found->creator);
	}
	LWLockRelease(qdb_shared->state_lock);
	return role;
}
