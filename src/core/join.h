/*-------------------------------------------------------------------------
 *
 * join.h
 *		What a stranger that wants to become a member sends, and its answer.
 *
 *	JOIN		-> JOIN_RESULT
 *
 * Both begin a connection of peers that know nothing of each other, so JOIN starts
 * with the formats of its sender: they are known also where the rest is not
 * understood.  Encoders return false when the buffer is too small, decoders
 * when the bytes are not exactly such a thing.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_JOIN_H
#define QDB_CORE_JOIN_H

#include "core/state.h"
#include "core/token_text.h"
#include "core/transfer.h"

#define QDB_JOIN_MAX		1024
#define QDB_PEM_MAX			4096	/* of a certificate, with the terminating
									 * zero */

typedef struct QdbJoin
{
	uint32_t	command_format;
	uint32_t	state_format;
	uint64_t	token_id;
	uint8_t		secret[QDB_SECRET_SIZE];
	uint64_t	system_identifier;
	bool		in_recovery;
	QdbMember	member;			/* incarnation, name, host, ports, priority */
	int32_t		limits[QDB_NLIMITS];
} QdbJoin;

typedef struct QdbJoinResult
{
	uint64_t	member;			/* 0: refused */
	char		why[QDB_REASON_SIZE];
	char		cert[QDB_PEM_MAX];	/* of the new member; "": a company's are
									 * used */
	char		ca[QDB_PEM_MAX];
	const uint8_t *state;		/* in the bytes that were decoded; a member's
								 * only */
	size_t		state_length;
} QdbJoinResult;

extern bool qdb_join_encode(const QdbJoin *join, uint8_t *buf, uint32_t *len);

/* False: the formats are set all the same, zero when not even they came. */
extern bool qdb_join_decode(const uint8_t *buf, uint32_t len, QdbJoin *join);

extern bool qdb_join_result_encode(const QdbJoinResult *result, uint8_t *buf, uint32_t *len);
extern bool qdb_join_result_decode(const uint8_t *buf, uint32_t len, QdbJoinResult *result);

#endif							/* QDB_CORE_JOIN_H */
