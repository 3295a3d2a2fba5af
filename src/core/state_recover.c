/*-------------------------------------------------------------------------
 *
 * state_recover.c
 *		A new cluster from what one survivor knows of the old one.
 *
 * The members and all that was open between them go; the grants stay, because they say which
 * epoch owns the survivor's WAL, and with them the settings and the journal.  The new
 * state begins with an open epoch, in which the survivor is the only voter: from
 * there all goes its usual way.
 *
 * Members of the old cluster that were thought lost may have gone on together.  They are
 * kept out by the cluster id; so that not even their files can be mistaken for the new
 * cluster's, it leaves some timeline numbers out (I1).
 *
 *-------------------------------------------------------------------------
 */
#include "core/state_internal.h"

#include <string.h>

QdbResult
qdb_state_recover(QdbState *state, const QdbRecovery *recovery)
{
	int			i = qdb_member_index(state, recovery->member);
	QdbCommand	command;

	if (state->cluster_id[0] == '\0')
		return QDB_NOT_INITIALIZED;
	if (i < 0)
		return QDB_NO_MEMBER;
	if (state->members[i].priority <= 0)
		return QDB_PRIORITY_ZERO;
	if (!qdb_is_filled_text(recovery->cluster_id, QDB_CLUSTER_ID_SIZE) ||
		!qdb_is_filled_text(recovery->cluster_name, QDB_NAME_SIZE) ||
		state->greatest_timeline > UINT32_MAX - recovery->skip_timelines - 1)
		return QDB_BAD_VALUE;

	qdb_copy_text(state->cluster_id, sizeof(state->cluster_id), recovery->cluster_id, QDB_CLUSTER_ID_SIZE);
	qdb_copy_text(state->cluster_name, sizeof(state->cluster_name), recovery->cluster_name, QDB_NAME_SIZE);
	state->members[0] = state->members[i];
	memset(&state->members[1], 0, sizeof(state->members) - sizeof(state->members[0]));
	state->members[0].role = QDB_ROLE_VOTER;
	state->members[0].alone = false;
	memcpy(state->members[0].key_hash, recovery->key_hash, QDB_KEY_HASH_SIZE);
	memset(state->members[0].previous_key_hash, 0, QDB_KEY_HASH_SIZE);
	state->nmembers = 1;

	state->membership++;
	state->change_open = false;
	state->settings.async_before = false;
	memset(state->previous_roles, 0, sizeof(state->previous_roles));
	state->has_removed = false;
	memset(&state->removed, 0, sizeof(state->removed));
	memset(state->lost, 0, sizeof(state->lost));
	memset(state->tokens, 0, sizeof(state->tokens));

	state->epoch = (state->epoch > recovery->promised ? state->epoch : recovery->promised) + 1;
	state->epoch_open = true;
	state->epoch_time_us = recovery->time_us;
	state->seat_released = false;
	state->nreports = 0;
	memset(state->reports, 0, sizeof(state->reports));
	memset(&state->donation, 0, sizeof(state->donation));
	qdb_clear_move(state);
	state->greatest_timeline += recovery->skip_timelines;
	state->settings.auto_failover = true;	/* paused, it would wait for the
											 * old holder */

	memset(&command, 0, sizeof(command));
	command.time_us = recovery->time_us;
	qdb_add_journal(state, &command, "recover", state->members[0].name,
					"a new cluster of this node alone; a majority of the old one's voters was given up");
	return QDB_OK;
}
