/*-------------------------------------------------------------------------
 *
 * state_keys.c
 *		Commands about the members' public keys.
 *
 * A new key is announced before it is used, and the one in use stays valid until
 * its owner says that it uses the new one: a member that dies in between, and
 * has lost the new key with it, is not locked out.
 *
 *-------------------------------------------------------------------------
 */
#include "core/state_internal.h"

#include <string.h>

static bool
is_zero(const uint8_t *hash)
{
	uint8_t		any = 0;

	for (int i = 0; i < QDB_KEY_HASH_SIZE; i++)
		any |= hash[i];
	return any == 0;
}

static bool
is_same(const uint8_t *a, const uint8_t *b)
{
	return memcmp(a, b, QDB_KEY_HASH_SIZE) == 0;
}

QdbResult
qdb_apply_member_key(QdbState *state, const QdbCommand *command)
{
	const QdbMember *told = &command->member;
	int			i = qdb_member_index(state, told->id);
	QdbMember  *member;

	if (i < 0)
		return QDB_NO_MEMBER;
	member = &state->members[i];
	if (told->incarnation != member->incarnation)
		return QDB_STALE;
	if (is_zero(told->key_hash))
		return QDB_BAD_VALUE;
	if (is_zero(told->previous_key_hash))
	{
		if (!is_same(told->key_hash, member->key_hash))
			return QDB_STALE;
		if (is_zero(member->previous_key_hash))
			return QDB_UNCHANGED;
		memset(member->previous_key_hash, 0, QDB_KEY_HASH_SIZE);
		qdb_add_journal(state, command, "certificate", member->name, "its old key is worth nothing now");
		return QDB_OK;
	}
	if (is_same(told->key_hash, member->key_hash))
		return QDB_UNCHANGED;
	if (!is_same(told->previous_key_hash, member->key_hash) &&
		!is_same(told->previous_key_hash, member->previous_key_hash))
		return QDB_STALE;
	memcpy(member->previous_key_hash, told->previous_key_hash, QDB_KEY_HASH_SIZE);
	memcpy(member->key_hash, told->key_hash, QDB_KEY_HASH_SIZE);
	qdb_add_journal(state, command, "certificate", member->name, "has a new key");
	return QDB_OK;
}

QdbResult
qdb_apply_rotate_keys(QdbState *state, const QdbCommand *command)
{
	state->key_rotation++;
	qdb_add_journal(state, command, "certificate", command->node, "all members make new keys");
	return QDB_OK;
}
