/*-------------------------------------------------------------------------
 *
 * raft_node.c
 *		One Raft node: libraft's core, our raft_io, the cluster's state.
 *
 * Everything runs from qdb_raft_turn, qdb_raft_receive and qdb_raft_propose,
 * and from there the callbacks.  Inside a callback a proposal is only queued,
 * and a message is dropped, so libraft is never entered twice.
 *
 * The fast path: when the leader's process is known dead, its followers need
 * not wait for their timers.  The one of the lowest rank lets its clock jump
 * beyond the timeout and so asks for votes now; the others answer on the merits,
 * because what they know of the dead leader no longer makes them refuse.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/raft_inner.h"

#ifndef SNAPSHOT_THRESHOLD		/* the simulator has short lives */
#define SNAPSHOT_THRESHOLD	512
#define SNAPSHOT_TRAILING	128
#endif
#define RANK_STEP_MS		30	/* between the candidacies of two ranks */
#define MAX_JUMPS			5	/* candidacies per dead leader */

typedef struct Proposal
{
	struct raft_apply req;
	struct Proposal *next;
	QdbRaft    *raft;
	uint64_t	request;
	struct raft_buffer buf;
} Proposal;

static raft_time
now_ms(QdbRaft *r)
{
	return r->io.io.time(&r->io.io);
}

/*
 * fire_requests
 *		Calls back what libraft has completed.
 *
 * Its own back ends do this with a function that the library does not export,
 * so we walk the public list.
 */
static void
fire_requests(QdbRaft *r)
{
	void	  **head = (void **) r->raft.legacy.requests;

	while (head[0] != (void *) head)
	{
		void	  **element = head[0];
		struct raft_apply *req = (struct raft_apply *)
		((char *) element - offsetof(struct raft_apply, queue));

		((void **) element[1])[0] = element[0];
		((void **) element[0])[1] = element[1];
		if ((void *) req == (void *) &r->transfer)
			r->transfer.cb(&r->transfer);
		else if ((void *) req == (void *) &r->change)
			r->change.cb(&r->change, req->status);
		else if ((void *) req == (void *) &r->barrier)
			r->barrier.cb(&r->barrier, req->status);
		else
			req->cb(req, req->status, req->result);
	}
}

void
qdb_raft_drain(QdbRaft *r)
{
	r->depth++;
	do
	{
		qdb_io_drain(&r->io);
		fire_requests(r);
	} while (!r->io.failed && qdb_io_pending(&r->io));
	r->depth--;
}

static int
fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
	QdbRaft    *r = fsm->data;
	uint64_t	index = raft_last_applied(&r->raft) + 1;
	QdbCommand	command;
	QdbResult	res = QDB_MALFORMED;
	bool		known = qdb_command_decode(buf->base, buf->len, &command);

	if (known)
		res = qdb_state_apply(r->state, &command);
	else
		qdb_io_log(&r->callbacks, QDB_LOG_WARNING, "[raft] entry %llu is malformed and has no effect",
				   (unsigned long long) index);
	*result = (void *) (intptr_t) res;
	r->callbacks.applied(r->callbacks.arg, index, known ? &command : NULL, res);
	return 0;
}

static int
fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
	QdbRaft    *r = fsm->data;
	size_t		len = QDB_STATE_MAX_BYTES;

	if (!qdb_state_encode(r->state, r->snapshot, &len))
	{
		qdb_io_log(&r->callbacks, QDB_LOG_WARNING, "[raft] state does not fit a snapshot");
		return RAFT_TOOBIG;
	}
	*bufs = raft_malloc(sizeof(struct raft_buffer));
	if (*bufs == NULL)
		return RAFT_NOMEM;
	(*bufs)[0].len = len;
	(*bufs)[0].base = raft_malloc(len);
	if ((*bufs)[0].base == NULL)
	{
		raft_free(*bufs);
		return RAFT_NOMEM;
	}
	memcpy((*bufs)[0].base, r->snapshot, len);
	*n_bufs = 1;
	return 0;
}

static int
fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
	QdbRaft    *r = fsm->data;

	if (!qdb_state_decode(buf->base, buf->len, r->state))
		return RAFT_CORRUPT;
	raft_free(buf->base);
	r->callbacks.applied(r->callbacks.arg, r->io.storage->snap_index, NULL, QDB_OK);
	return 0;
}

bool
qdb_raft_bootstrap(const char *dir, uint64_t id, char *why, size_t why_size)
{
	struct raft_configuration conf;
	struct raft_buffer buf = {NULL, 0};
	char		address[32];
	bool		ok;

	snprintf(address, sizeof(address), "%llu", (unsigned long long) id);
	raft_configuration_init(&conf);
	ok = id != 0 && raft_configuration_add(&conf, id, address, RAFT_VOTER) == 0 &&
		raft_configuration_encode(&conf, &buf) == 0;
	if (!ok)
		snprintf(why, why_size, "could not make the first Raft configuration");
	else
		ok = qdb_storage_create(dir, id, RAFT_CHANGE, buf.base, (uint32_t) buf.len,
								why, why_size);
	raft_free(buf.base);
	raft_configuration_close(&conf);
	return ok;
}

bool
qdb_raft_begin_with(const char *dir, uint64_t id, const QdbState *state, char *why, size_t why_size)
{
	struct raft_configuration conf;
	struct raft_buffer buf = {NULL, 0};

	/*
	 * Not at index 1: libraft then takes the first entry for one that it
	 * still has, and never sends the snapshot to a new server.
	 */
	QdbRaftSnapshot snap = {.index = 2,.term = 1,.conf_index = 1};
	QdbRaftStorage *storage = NULL;
	size_t		len = QDB_STATE_MAX_BYTES;
	char		address[32];
	bool		ok;

	snprintf(address, sizeof(address), "%llu", (unsigned long long) id);
	raft_configuration_init(&conf);
	snap.data = malloc(len);
	ok = snap.data != NULL && qdb_state_encode(state, snap.data, &len) &&
		raft_configuration_add(&conf, id, address, RAFT_VOTER) == 0 &&
		raft_configuration_encode(&conf, &buf) == 0;
	if (!ok)
		snprintf(why, why_size, "could not make the first Raft snapshot");
	else
		storage = qdb_storage_open(dir, id, why, why_size);
	if (storage != NULL)
	{
		snap.conf = buf.base;
		snap.conf_len = (uint32_t) buf.len;
		snap.data_len = (uint32_t) len;
		ok = qdb_storage_put_snapshot(storage, &snap, 0);
		if (!ok)
			snprintf(why, why_size, "%s", storage->why);
		qdb_storage_close(storage);
	}
	else
		ok = false;
	raft_free(buf.base);
	free(snap.data);
	raft_configuration_close(&conf);
	return ok;
}

bool
qdb_raft_prepare(const char *dir, uint64_t id, char *why, size_t why_size)
{
	return qdb_storage_create(dir, id, 0, NULL, 0, why, why_size);
}

static void
closed(struct raft *raft)
{
}

void
qdb_raft_close(QdbRaft *r)
{
	r->depth++;
	raft_close(&r->raft, closed);
	fire_requests(r);
	while (r->first != NULL)
	{
		Proposal   *p = r->first;

		r->first = p->next;
		r->callbacks.proposed(r->callbacks.arg, p->request, false, QDB_OK);
		raft_free(p->buf.base);
		free(p);
	}
	qdb_storage_close(r->io.storage);
	free(r->snapshot);
	free(r);
}

static bool
start(QdbRaft *r, uint64_t id, unsigned heartbeat_ms, char *why, size_t why_size)
{
	char		address[32];
	int			rv;

	snprintf(address, sizeof(address), "%llu", (unsigned long long) id);
	rv = raft_init(&r->raft, &r->io.io, &r->fsm, id, address);
	if (rv != 0)
	{
		snprintf(why, why_size, "could not start Raft: %s", raft_strerror(rv));
		qdb_storage_close(r->io.storage);
		free(r->snapshot);
		free(r);
		return false;
	}
	raft_set_election_timeout(&r->raft, r->election_ms);
	raft_set_heartbeat_timeout(&r->raft, heartbeat_ms);
	raft_set_install_snapshot_timeout(&r->raft, 2000);
	raft_set_pre_vote(&r->raft, true);
	raft_set_snapshot_threshold(&r->raft, SNAPSHOT_THRESHOLD);
	raft_set_snapshot_trailing(&r->raft, SNAPSHOT_TRAILING);
	/* its refusals for want of space would meet its own assertions */
	raft_set_capacity_threshold(&r->raft, 0);
	r->depth++;
	rv = raft_start(&r->raft);
	r->depth--;
	if (rv != 0)
	{
		snprintf(why, why_size, "could not start Raft: %s (%s)", raft_strerror(rv),
				 raft_errmsg(&r->raft));
		qdb_raft_close(r);
		return false;
	}
	return true;
}

/* Tells who is named in the log; what cannot be read is libraft's to refuse. */
static void
name_members(QdbRaft *r)
{
	QdbRaftStorage *s = r->io.storage;
	uint8_t    *buf = malloc(QDB_COMMAND_MAX_BYTES);

	for (size_t i = 0; buf != NULL && r->callbacks.named != NULL && i < s->n; i++)
	{
		QdbCommand	command;

		if (s->entries[i].type != RAFT_COMMAND || s->entries[i].len > QDB_COMMAND_MAX_BYTES ||
			!qdb_storage_read(s, s->first + i, buf) ||
			!qdb_command_decode(buf, s->entries[i].len, &command))
			continue;
		if (command.type == QDB_CMD_INIT || command.type == QDB_CMD_MEMBER_ADD ||
			command.type == QDB_CMD_MEMBER_UPDATE)
			r->callbacks.named(r->callbacks.arg, &command.member);
	}
	free(buf);
}

bool
qdb_raft_foresee(QdbRaft *r, QdbState *state)
{
	QdbRaftStorage *s = r->io.storage;
	uint8_t    *buf = malloc(QDB_COMMAND_MAX_BYTES);
	uint64_t	index = raft_last_applied(&r->raft) + 1;
	bool		ok = buf != NULL;

	memcpy(state, r->state, sizeof(*state));
	if (index < s->first)
		index = s->first;
	for (; ok && index < s->first + s->n; index++)
	{
		const QdbLogEntry *entry = &s->entries[index - s->first];
		QdbCommand	command;

		if (entry->type != RAFT_COMMAND)
			continue;
		ok = entry->len <= QDB_COMMAND_MAX_BYTES && qdb_storage_read(s, index, buf) &&
			qdb_command_decode(buf, entry->len, &command);
		if (ok)
			(void) qdb_state_apply(state, &command);
	}
	free(buf);
	return ok;
}

QdbRaft *
qdb_raft_open(const char *dir, uint64_t id, QdbState *state,
			  const QdbRaftCallbacks *callbacks,
			  unsigned election_ms, unsigned heartbeat_ms,
			  char *why, size_t why_size)
{
	QdbRaftStorage *storage = qdb_storage_open(dir, id, why, why_size);
	QdbRaft    *r;

	if (storage == NULL)
		return NULL;
	r = calloc(1, sizeof(*r));
	if (r != NULL)
		r->snapshot = malloc(QDB_STATE_MAX_BYTES);
	if (r == NULL || r->snapshot == NULL || election_ms <= heartbeat_ms || heartbeat_ms == 0)
	{
		snprintf(why, why_size, "out of memory, or Raft timeouts are not valid");
		free(r);
		qdb_storage_close(storage);
		return NULL;
	}
	r->callbacks = *callbacks;
	r->state = state;
	r->election_ms = election_ms;
	r->heartbeat_ms = heartbeat_ms;
	r->last = &r->first;
	r->fsm.version = 1;
	r->fsm.data = r;
	r->fsm.apply = fsm_apply;
	r->fsm.snapshot = fsm_snapshot;
	r->fsm.restore = fsm_restore;
	qdb_io_init(&r->io, storage, &r->callbacks);
	if (storage->torn)
		qdb_io_log(&r->callbacks, QDB_LOG_LOG, "[raft] cut off a batch that a crash had torn");
	name_members(r);
	if (!start(r, id, heartbeat_ms, why, why_size))
		return NULL;
	r->next_tick = now_ms(r) + r->io.tick_ms;
	return r;
}

static void
tick(QdbRaft *r)
{
	r->depth++;
	r->io.tick(&r->io.io);
	r->depth--;
	r->next_tick = now_ms(r) + r->io.tick_ms;
}

/*
 * announce_commits
 *		Tells the followers at once what is committed.
 *
 * libraft does so with the next heartbeat, and each step of a failover would
 * wait for one.  A tick with no time between heartbeats sends one now.
 */
static void
announce_commits(QdbRaft *r)
{
	uint64_t	commit = raft_commit_index(&r->raft);
	uint64_t	term = raft_current_term(&r->raft);

	if (raft_state(&r->raft) != RAFT_LEADER ||
		(r->announced == commit && r->announced_term == term))
		return;
	r->announced = commit;
	r->announced_term = term;
	raft_set_heartbeat_timeout(&r->raft, 0);
	tick(r);
	raft_set_heartbeat_timeout(&r->raft, r->heartbeat_ms);
	qdb_raft_drain(r);
}

/*
 * run_fast_path
 *		Becomes a candidate now if it is this rank's turn.
 *
 * Ends when another leader is known.  Only while all entries are durable: else
 * libraft would just restart its timer.
 */
static void
run_fast_path(QdbRaft *r)
{
	uint64_t	leader = qdb_raft_leader(r);
	int			state = raft_state(&r->raft);

	if (r->dead == 0)
		return;
	if (state == RAFT_LEADER || (leader != 0 && leader != r->dead) || r->jumps >= MAX_JUMPS)
	{
		r->dead = 0;
		return;
	}
	if (now_ms(r) < r->next_jump || qdb_io_pending(&r->io))
		return;
	r->jumps++;
	r->io.jump += 2 * r->election_ms + 1;
	r->next_jump = now_ms(r) + 60 + RANK_STEP_MS * r->rank;
	tick(r);
	qdb_raft_drain(r);
}

static void
finish_proposal(struct raft_apply *req, int status, void *result)
{
	Proposal   *p = req->data;

	p->raft->callbacks.proposed(p->raft->callbacks.arg, p->request, status == 0,
								status == 0 ? (QdbResult) (intptr_t) result : QDB_OK);
	free(p);
}

/* False: not accepted, p is the caller's still. */
static bool
submit(QdbRaft *r, Proposal *p)
{
	int			rv;

	p->req.data = p;
	r->depth++;
	rv = raft_state(&r->raft) == RAFT_LEADER ?
		raft_apply(&r->raft, &p->req, &p->buf, 1, finish_proposal) : RAFT_NOTLEADER;
	r->depth--;
	return rv == 0;
}

static void
submit_queued(QdbRaft *r)
{
	while (r->first != NULL && !r->io.failed)
	{
		Proposal   *p = r->first;

		r->first = p->next;
		if (r->first == NULL)
			r->last = &r->first;
		if (!submit(r, p))
		{
			r->depth++;
			r->callbacks.proposed(r->callbacks.arg, p->request, false, QDB_OK);
			r->depth--;
			raft_free(p->buf.base);
			free(p);
		}
	}
}

int
qdb_raft_turn(QdbRaft *r)
{
	raft_time	now;
	raft_time	next;

	if (r->depth > 0)
		return 0;
	qdb_raft_drain(r);
	submit_queued(r);
	if (!r->io.failed && now_ms(r) >= r->next_tick)
		tick(r);
	qdb_raft_drain(r);
	if (!r->io.failed)
		announce_commits(r);
	if (!r->io.failed)
		run_fast_path(r);
	if (r->io.failed)
		return (int) r->io.tick_ms;
	now = now_ms(r);
	next = r->next_tick;
	if (r->dead != 0 && r->next_jump < next)
		next = r->next_jump;
	if (r->first != NULL)
		return 0;
	return next > now ? (int) (next - now) : 0;
}

bool
qdb_raft_propose(QdbRaft *r, const QdbCommand *command, uint64_t request)
{
	size_t		len = QDB_COMMAND_MAX_BYTES;
	Proposal   *p;

	if (r->io.failed || raft_state(&r->raft) != RAFT_LEADER || raft_transferee(&r->raft) != 0)
		return false;
	p = calloc(1, sizeof(Proposal));
	if (p == NULL)
		return false;
	p->raft = r;
	p->request = request;
	p->buf.base = raft_malloc(len);
	if (p->buf.base == NULL || !qdb_command_encode(command, p->buf.base, &len))
	{
		raft_free(p->buf.base);
		free(p);
		return false;
	}
	p->buf.len = len;
	if (r->depth > 0)
	{
		*r->last = p;
		r->last = &p->next;
		return true;
	}
	if (submit(r, p))
		return true;
	raft_free(p->buf.base);
	free(p);
	return false;
}

bool
qdb_raft_has_work(QdbRaft *r)
{
	return !r->io.failed &&
		(r->first != NULL || qdb_io_pending(&r->io) ||
		 (raft_state(&r->raft) == RAFT_LEADER && raft_commit_index(&r->raft) != r->announced));
}

int
qdb_raft_state(QdbRaft *r)
{
	return r->io.failed ? RAFT_UNAVAILABLE : (int) raft_state(&r->raft);
}

uint64_t
qdb_raft_term(QdbRaft *r)
{
	return raft_current_term(&r->raft);
}

uint64_t
qdb_raft_leader(QdbRaft *r)
{
	raft_id		id = 0;
	const char *address;

	raft_leader(&r->raft, &id, &address);
	return id;
}

uint64_t
qdb_raft_last_index(QdbRaft *r)
{
	return qdb_storage_last_index(r->io.storage);
}

uint64_t
qdb_raft_applied_index(QdbRaft *r)
{
	return raft_last_applied(&r->raft);
}

bool
qdb_raft_failed(QdbRaft *r)
{
	return r->io.failed;
}

static void
finish_transfer(struct raft_transfer *req)
{
	QdbRaft    *r = req->data;

	r->transferring = false;
}

bool
qdb_raft_transfer(QdbRaft *r, uint64_t member)
{
	int			rv;

	if (r->io.failed || r->depth > 0 || r->transferring || raft_state(&r->raft) != RAFT_LEADER)
		return false;
	memset(&r->transfer, 0, sizeof(r->transfer));
	r->transfer.data = r;
	r->depth++;
	rv = raft_transfer(&r->raft, &r->transfer, member, finish_transfer);
	r->depth--;
	r->transferring = rv == 0;
	return rv == 0;
}

void
qdb_raft_leader_dead(QdbRaft *r, uint64_t leader, int rank)
{
	if (r->io.failed || r->depth > 0 || leader == 0 || leader == r->dead ||
		raft_state(&r->raft) != RAFT_FOLLOWER || qdb_raft_leader(r) != leader)
		return;
	r->dead = leader;
	r->rank = rank < 0 ? 0 : rank;
	r->jumps = 0;
	r->next_jump = now_ms(r) + (raft_time) r->rank * RANK_STEP_MS;
}
