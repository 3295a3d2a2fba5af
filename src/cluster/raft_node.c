/*-------------------------------------------------------------------------
 *
 * raft_node.c
 *		One Raft node: libraft's core, our raft_io, the cluster's state.
 *
 * Everything runs from qdb_raft_turn, qdb_raft_receive and qdb_raft_propose,
 * and from there the callbacks.  Inside a callback a proposal is only queued,
 * and a message is dropped, so libraft is never entered twice.  Before libraft
 * gets a message all earlier writes are completed: it relies on no reference to
 * a truncated entry being left.
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

#include "cluster/raft_io.h"
#include "cluster/raft_wire.h"

#define SNAPSHOT_THRESHOLD	512
#define SNAPSHOT_TRAILING	128
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

struct QdbRaft
{
	struct raft raft;
	struct raft_fsm fsm;
	QdbRaftIo	io;
	QdbRaftCallbacks callbacks;
	QdbState   *state;
	unsigned	election_ms;
	raft_time	next_tick;
	int			depth;			/* > 0: inside libraft or a callback */
	Proposal   *first;			/* proposed inside a callback */
	Proposal  **last;
	uint8_t    *snapshot;		/* buffer for an encoded state */

	struct raft_transfer transfer;
	bool		transferring;
	struct raft_change change;
	struct raft_barrier barrier;
	bool		changing;		/* a barrier or a change is under way */
	uint64_t	barrier_term;	/* a barrier of this term is done, 0 none */

	uint64_t	dead;			/* leader known dead, 0 none */
	int			rank;
	int			jumps;
	raft_time	next_jump;
};

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

static void
drain(QdbRaft *r)
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
	drain(r);
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
	drain(r);
	submit_queued(r);
	if (!r->io.failed && now_ms(r) >= r->next_tick)
		tick(r);
	drain(r);
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

/*
 * receive_entries
 *		Hands entries [from, to) of m to libraft, as a message of their own.
 */
static void
receive_entries(QdbRaft *r, const struct raft_message *m, unsigned from, unsigned to)
{
	const struct raft_append_entries *all = &m->append_entries;
	struct raft_message part = *m;
	struct raft_append_entries *ae = &part.append_entries;
	size_t		size = 8;
	uint8_t    *batch;
	unsigned	i;

	ae->prev_log_index = all->prev_log_index + from;
	if (from > 0)
		ae->prev_log_term = all->entries[from - 1].term;
	ae->n_entries = to - from;
	ae->entries = NULL;
	if (ae->n_entries > 0)
	{
		for (i = from; i < to; i++)
			size += all->entries[i].buf.len;
		batch = raft_malloc(size);
		ae->entries = raft_calloc(ae->n_entries, sizeof(struct raft_entry));
		if (batch == NULL || ae->entries == NULL)
		{
			raft_free(batch);
			raft_free(ae->entries);
			return;
		}
		size = 0;
		for (i = from; i < to; i++)
		{
			struct raft_entry *e = &ae->entries[i - from];

			*e = all->entries[i];
			e->batch = batch;
			e->buf.base = batch + size;
			memcpy(e->buf.base, all->entries[i].buf.base, e->buf.len);
			size += e->buf.len;
		}
	}
	r->io.recv(&r->io.io, &part);
}

/*
 * libraft notes the index of a configuration change in a message as if it were
 * the first new entry, so it gets none with a change further back.
 */
static void
receive_append(QdbRaft *r, const struct raft_message *m)
{
	const struct raft_append_entries *ae = &m->append_entries;
	uint64_t	term = ae->term;
	unsigned	from = 0;
	unsigned	to;

	do
	{
		for (to = from + 1; to < ae->n_entries; to++)
			if (ae->entries[to].type == RAFT_CHANGE)
				break;
		if (to > ae->n_entries)
			to = ae->n_entries;
		r->depth++;
		receive_entries(r, m, from, to);
		r->depth--;
		drain(r);
		from = to;
	} while (from < ae->n_entries && !r->io.failed && raft_current_term(&r->raft) == term &&
			 qdb_storage_term_of(r->io.storage, ae->prev_log_index + from) ==
			 ae->entries[from - 1].term);
}

static bool
snapshot_decodes(QdbRaft *r, const struct raft_buffer *data)
{
	QdbState   *copy = malloc(sizeof(QdbState));
	bool		ok = copy != NULL && qdb_state_decode(data->base, data->len, copy);

	free(copy);
	return ok;
}

void
qdb_raft_receive(QdbRaft *r, uint64_t from, const uint8_t *data, uint32_t len)
{
	struct raft_message m;
	char		address[32];
	const char *why = "it came inside a callback";
	bool		ok;

	if (r->io.failed)
		return;
	if (r->depth == 0)
		drain(r);
	ok = r->depth == 0 && !r->io.failed && from != r->raft.id;
	if (!ok || !qdb_wire_decode(data, len, from, &m, &why))
	{
		qdb_io_log(&r->callbacks, QDB_LOG_DEBUG1, "[raft] message from member %llu dropped: %s",
				   (unsigned long long) from, why);
		return;
	}
	if (!qdb_io_accepts(&r->io, &r->raft, &m, &why) ||
		(m.type == RAFT_INSTALL_SNAPSHOT && !snapshot_decodes(r, &m.install_snapshot.data)))
	{
		qdb_io_log(&r->callbacks, QDB_LOG_LOG, "[raft] message of type %d from member %llu dropped: %s",
				   (int) m.type, (unsigned long long) from, why);
		qdb_wire_release(&m);
		return;
	}
	snprintf(address, sizeof(address), "%llu", (unsigned long long) from);
	m.server_address = address;
	if (from == r->dead && m.type == RAFT_APPEND_ENTRIES)
		r->dead = 0;
	if (m.type == RAFT_REQUEST_VOTE && r->dead != 0 && r->dead == qdb_raft_leader(r))
		m.request_vote.disrupt_leader = true;
	if (m.type == RAFT_APPEND_ENTRIES)
	{
		receive_append(r, &m);
		qdb_wire_release(&m);
		return;
	}
	/* libraft takes over what a snapshot's message owns */
	r->depth++;
	r->io.recv(&r->io.io, &m);
	r->depth--;
	drain(r);
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
	qdb_io_log(&r->callbacks, QDB_LOG_LOG, "[raft] configuration change %s",
			   status == 0 ? "done" : raft_strerror(status));
}

typedef struct Change
{
	enum
	{
		CHANGE_NONE, CHANGE_ADD, CHANGE_ASSIGN, CHANGE_REMOVE, CHANGE_LEAVE
	}			kind;
	uint64_t	id;
	int			role;
}			Change;

static const struct raft_server *
server_of(const QdbRaft *r, uint64_t id)
{
	unsigned	i;

	for (i = 0; i < r->raft.configuration.n; i++)
		if (r->raft.configuration.servers[i].id == id)
			return &r->raft.configuration.servers[i];
	return NULL;
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
start_change(QdbRaft *r, const Change * change)
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
