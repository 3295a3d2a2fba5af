/*-------------------------------------------------------------------------
 *
 * token_text.h
 *		Tokens as people copy them.
 *
 *	qdbapi.ID.SECRET			control over HTTP
 *	qdbjoin.ID.SECRET.CA		one use, for quantadb_join()
 *
 * ID is 16 hex digits, SECRET 32, CA 64: the SHA-256 of the certificate of the
 * cluster's authority, by which a joiner knows whom it talks to before it shows
 * the secret.  The prefix lets people and scanners see what a leaked one is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_TOKEN_TEXT_H
#define QDB_CORE_TOKEN_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QDB_SECRET_SIZE			16
#define QDB_CA_HASH_SIZE		32
#define QDB_TOKEN_TEXT_SIZE		128 /* with the terminating zero */

typedef struct QdbTokenText
{
	bool		join;			/* else for HTTP, without ca_hash */
	uint64_t	id;				/* never 0 */
	uint8_t		secret[QDB_SECRET_SIZE];
	uint8_t		ca_hash[QDB_CA_HASH_SIZE];
} QdbTokenText;

/* text has QDB_TOKEN_TEXT_SIZE bytes. */
extern void qdb_token_format(const QdbTokenText *token, char *text);

/* False for anything that qdb_token_format would not have written. */
extern bool qdb_token_parse(const char *text, QdbTokenText *token);

#endif							/* QDB_CORE_TOKEN_TEXT_H */
