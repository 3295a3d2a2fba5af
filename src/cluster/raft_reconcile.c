/*-------------------------------------------------------------------------
 *
 * raft_reconcile.c
 *		Raft's configuration follows the members of the replicated state.
 *
 * One difference at a time, by the leader, and only when the state that it
 * compares with is that of its own term.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "cluster/raft_inner.h"

static void
finish_barrier(struct raft_barrier *req, int status)
{
	QdbRaft    *r = req->data;

	r->changing = false;
	r->barrier_term = status == 0 ? raft_current_term(&r->raft) : 0;
}

static void
finish_change(struct raft_change *req, int status)
{
	QdbRaft    *r = req->data;

	r->changing = false;
	if (status == 0)
		qdb_io_log(&r->callbacks, QDB_LOG_DEBUG1, "[raft] Raft's servers follow the members");
	else
		qdb_io_log(&r->callbacks, QDB_LOG_LOG, "[raft] could not change Raft's servers as the members have changed: %s",
				   raft_strerror(status));
}

typedef struct Change
{
	enum
	{
		CHANGE_NONE, CHANGE_ADD, CHANGE_ASSIGN, CHANGE_REMOVE, CHANGE_LEAVE
	}			kind;
	uint64_t	id;
	int			role;
} Change;

static const struct raft_server *
server_of(const QdbRaft *r, uint64_t id)
{
	unsigned	i;

	for (i = 0; i < r->raft.configuration.n; i++)
		if (r->raft.configuration.servers[i].id == id)
			return &r->raft.configuration.servers[i];
	return NULL;
}

bool
qdb_raft_votes(const QdbRaft *r, uint64_t member)
{
	const struct raft_server *server = server_of(r, member);

	return server != NULL && server->role == RAFT_VOTER;
}

/* The next difference between the state's members and Raft's servers. */
static Change
next_change(const QdbRaft *r)
{
	Change		change = {CHANGE_NONE, 0, 0};
	unsigned	i;

	for (i = 0; i < r->raft.configuration.n; i++)
	{
		change.id = r->raft.configuration.servers[i].id;
		if (qdb_member_by_id(r->state, change.id) == NULL)
		{
			change.kind = change.id == r->raft.id ? CHANGE_LEAVE : CHANGE_REMOVE;
			return change;
		}
	}
	for (i = 0; i < r->state->nmembers; i++)
	{
		const QdbMember *member = &r->state->members[i];
		const struct raft_server *server = server_of(r, member->id);
		int			role = member->role == QDB_ROLE_VOTER ? RAFT_VOTER : RAFT_STANDBY;

		change.id = member->id;
		change.kind = server == NULL ? CHANGE_ADD :
			server->role == role ? CHANGE_NONE :
			member->id == r->raft.id ? CHANGE_LEAVE : CHANGE_ASSIGN;
		/* a spare replicates nothing: first a standby, then a voter */
		change.role = server != NULL && server->role == RAFT_SPARE ? RAFT_STANDBY : role;
		if (change.kind != CHANGE_NONE)
			return change;
	}
	return change;
}

static int
start_change(QdbRaft *r, const Change *change)
{
	char		address[32];

	memset(&r->change, 0, sizeof(r->change));
	r->change.data = r;
	snprintf(address, sizeof(address), "%llu", (unsigned long long) change->id);
	switch (change->kind)
	{
		case CHANGE_ADD:
			return raft_add(&r->raft, &r->change, change->id, address, finish_change);
		case CHANGE_ASSIGN:
			return raft_assign(&r->raft, &r->change, change->id, change->role, finish_change);
		case CHANGE_REMOVE:
			return raft_remove(&r->raft, &r->change, change->id, finish_change);
		default:
			return RAFT_INVALID;
	}
}

void
qdb_raft_reconcile(QdbRaft *r)
{
	Change		change;
	int			rv;

	if (r->io.failed || r->depth > 0 || r->changing || raft_state(&r->raft) != RAFT_LEADER ||
		raft_transferee(&r->raft) != 0 || r->raft.configuration_uncommitted_index != 0 ||
		r->raft.leader_state.promotee_id != 0 || r->state->cluster_id[0] == '\0')
		return;
	change = next_change(r);
	if (change.kind == CHANGE_NONE)
		return;

	/* The state must be that of this term's leader before it is followed. */
	r->depth++;
	if (r->barrier_term != raft_current_term(&r->raft))
	{
		memset(&r->barrier, 0, sizeof(r->barrier));
		r->barrier.data = r;
		rv = raft_barrier(&r->raft, &r->barrier, finish_barrier);
		r->changing = rv == 0;
	}
	else if (change.kind == CHANGE_LEAVE)
	{
		r->depth--;
		qdb_raft_transfer(r, 0);
		return;
	}
	else
	{
		r->barrier_term = 0;
		rv = start_change(r, &change);
		r->changing = rv == 0;
		if (rv != 0)
			qdb_io_log(&r->callbacks, QDB_LOG_LOG, "[raft] could not change member %llu: %s",
					   (unsigned long long) change.id, raft_strerror(rv));
	}
	r->depth--;
}
