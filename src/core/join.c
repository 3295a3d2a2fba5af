/*-------------------------------------------------------------------------
 *
 * join.c
 *		Encode and decode JOIN and JOIN_RESULT.
 *
 * JOIN is the one message that somebody without a certificate can send.
 *
 *-------------------------------------------------------------------------
 */
#include "core/join.h"

#include <string.h>

#include "core/frame.h"

bool
qdb_join_encode(const QdbJoin *join, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};
	const QdbMember *member = &join->member;

	qdb_put_u32(&w, join->command_format);
	qdb_put_u32(&w, join->state_format);
	qdb_put_u64(&w, join->token_id);
	qdb_put_bytes(&w, join->secret, sizeof(join->secret));
	qdb_put_u64(&w, join->system_identifier);
	qdb_put_u8(&w, join->in_recovery ? 1 : 0);
	qdb_put_u64(&w, member->incarnation);
	qdb_put_string(&w, member->name);
	qdb_put_string(&w, member->host);
	qdb_put_u16(&w, member->sql_port);
	qdb_put_u16(&w, member->raft_port);
	qdb_put_u16(&w, member->replication_port);
	qdb_put_u16(&w, member->http_port);
	qdb_put_u32(&w, (uint32_t) member->priority);
	for (int i = 0; i < QDB_NLIMITS; i++)
		qdb_put_u32(&w, (uint32_t) join->limits[i]);
	*len = (uint32_t) w.used;
	return !w.failed;
}

bool
qdb_join_decode(const uint8_t *buf, uint32_t len, QdbJoin *join)
{
	QdbReader	r = {.buf = buf,.size = len};
	QdbMember  *member = &join->member;
	const uint8_t *secret;
	uint8_t		in_recovery;

	memset(join, 0, sizeof(*join));
	join->command_format = qdb_get_u32(&r);
	join->state_format = qdb_get_u32(&r);
	join->token_id = qdb_get_u64(&r);
	secret = qdb_get_bytes(&r, sizeof(join->secret));
	if (secret != NULL)
		memcpy(join->secret, secret, sizeof(join->secret));
	join->system_identifier = qdb_get_u64(&r);
	in_recovery = qdb_get_u8(&r);
	join->in_recovery = in_recovery == 1;
	member->incarnation = qdb_get_u64(&r);
	qdb_get_string(&r, member->name, sizeof(member->name));
	qdb_get_string(&r, member->host, sizeof(member->host));
	member->sql_port = qdb_get_u16(&r);
	member->raft_port = qdb_get_u16(&r);
	member->replication_port = qdb_get_u16(&r);
	member->http_port = qdb_get_u16(&r);
	member->priority = (int32_t) qdb_get_u32(&r);
	for (int i = 0; i < QDB_NLIMITS; i++)
		join->limits[i] = (int32_t) qdb_get_u32(&r);
	return qdb_reader_done(&r) && in_recovery <= 1;
}

bool
qdb_join_result_encode(const QdbJoinResult *result, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u64(&w, result->member);
	qdb_put_string(&w, result->why);
	qdb_put_string(&w, result->cert);
	qdb_put_string(&w, result->ca);
	if (result->state_length > 0)
		qdb_put_bytes(&w, result->state, result->state_length);
	*len = (uint32_t) w.used;
	return !w.failed;
}

bool
qdb_join_result_decode(const uint8_t *buf, uint32_t len, QdbJoinResult *result)
{
	QdbReader	r = {.buf = buf,.size = len};

	memset(result, 0, sizeof(*result));
	result->member = qdb_get_u64(&r);
	qdb_get_string(&r, result->why, sizeof(result->why));
	qdb_get_string(&r, result->cert, sizeof(result->cert));
	qdb_get_string(&r, result->ca, sizeof(result->ca));
	if (r.failed)
		return false;
	result->state_length = r.size - r.pos;
	if (result->state_length > 0)
		result->state = qdb_get_bytes(&r, result->state_length);
	/* A member gets the state, and only a member. */
	return (result->member != 0) == (result->state_length > 0);
}
