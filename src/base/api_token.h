/*-------------------------------------------------------------------------
 *
 * api_token.h
 *		Who may do what over HTTP.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_BASE_API_TOKEN_H
#define QDB_BASE_API_TOKEN_H

#include "base/base.h"

/* Fresh id and secret of a token; false: no random numbers. */
extern bool qdb_new_secret(uint64 *id, uint8 *secret);

/* SHA-256 of the secret; false: the library failed. */
extern bool qdb_hash_secret(const uint8 *secret, uint8 *hash);

/*
 * Judges the value of an Authorization header ("Bearer qdbapi..."; NULL: none)
 * against the tokens of the replicated state.  Returns what its bearer may do
 * and fills who for the journal, e.g. "HTTP token 0123456789abcdef of alice"; where
 * it is QDB_API_NONE, who says why.  Any process; no errors are raised.
 */
extern QdbApiRole qdb_api_token_check(const char *authorization, char *who, size_t who_size);

#endif							/* QDB_BASE_API_TOKEN_H */
