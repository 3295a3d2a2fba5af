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

#include "core/walk.h"

static void
walk_join(QdbWalker *w, void *fields)
{
	QdbJoin    *join = fields;
	QdbMember  *member = &join->member;

	qdb_walk_u32(w, &join->command_format);
	qdb_walk_u32(w, &join->state_format);
	qdb_walk_u64(w, &join->token_id);
	qdb_walk_bytes(w, join->secret, sizeof(join->secret));
	qdb_walk_u64(w, &join->system_identifier);
	qdb_walk_bool(w, &join->in_recovery);
	qdb_walk_u64(w, &member->incarnation);
	qdb_walk_text(w, member->name, sizeof(member->name));
	qdb_walk_text(w, member->host, sizeof(member->host));
	qdb_walk_u16(w, &member->sql_port);
	qdb_walk_u16(w, &member->raft_port);
	qdb_walk_u16(w, &member->replication_port);
	qdb_walk_u16(w, &member->http_port);
	qdb_walk_i32(w, &member->priority);
	for (int i = 0; i < QDB_NLIMITS; i++)
		qdb_walk_i32(w, &join->limits[i]);
}

bool
qdb_join_encode(const QdbJoin *join, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_join, join, buf, len);
}

bool
qdb_join_decode(const uint8_t *buf, uint32_t len, QdbJoin *join)
{
	return qdb_decode(walk_join, buf, len, join, sizeof(*join));
}

static void
walk_join_result(QdbWalker *w, void *fields)
{
	QdbJoinResult *result = fields;
	uint32_t	length = (uint32_t) result->state_length;

	qdb_walk_u64(w, &result->member);
	qdb_walk_text(w, result->why, sizeof(result->why));
	qdb_walk_text(w, result->cert, sizeof(result->cert));
	qdb_walk_text(w, result->ca, sizeof(result->ca));
	qdb_walk_rest(w, &result->state, &length);
	if (!w->writing)
		result->state_length = length;
	/* A member gets the state, and only a member. */
	w->bad |= (result->member != 0) != (length > 0);
}

bool
qdb_join_result_encode(const QdbJoinResult *result, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_join_result, result, buf, len);
}

bool
qdb_join_result_decode(const uint8_t *buf, uint32_t len, QdbJoinResult *result)
{
	return qdb_decode(walk_join_result, buf, len, result, sizeof(*result));
}
