/*-------------------------------------------------------------------------
 *
 * raft_receive.c
 *		Messages of other Raft nodes, on their way into libraft.
 *
 * libraft asserts where a message is not what it expects, so each is decoded
 * and checked first.  Before libraft gets it all earlier writes are completed: it
 * relies on no reference to a truncated entry being left.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/raft_inner.h"
#include "cluster/raft_wire.h"

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

	/*
	 * libraft 0.22 takes the smaller one of the leader's commit index and the
	 * message's last entry for its own commit index, also where it knows of
	 * more: then it went back, and the next snapshot had the state of a later
	 * index than it said, and one that nobody accepts at that.
	 */
	if (ae->prev_log_index + ae->n_entries < raft_commit_index(&r->raft) &&
		ae->leader_commit > raft_commit_index(&r->raft))
		ae->leader_commit = raft_commit_index(&r->raft);
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
	r->io.answers_older = ae->term < raft_current_term(&r->raft);
	r->io.recv(&r->io.io, &part);
	r->io.answers_older = false;
}

/*
 * skip_compacted
 *		Where the entries begin that this node's snapshot does not cover.
 *
 * A leader whose answers were lost goes on from an entry that this node has since
 * compacted away.  libraft finds no term for it and denies it, which looks as if an
 * acknowledged entry were gone, so that leader would ignore it for ever.  What a
 * snapshot covers is committed, hence the same in every leader's log: the message is
 * taken as if it began there.  Returns the number of entries to skip, all of them
 * where nothing is new; -1: not a message of that kind.
 */
static int
skip_compacted(const QdbRaft *r, const struct raft_append_entries *ae)
{
	const QdbRaftStorage *s = r->io.storage;
	uint64_t	covered;

	if (ae->prev_log_index >= s->snap_index || ae->prev_log_index >= s->first)
		return -1;
	covered = s->snap_index - ae->prev_log_index;
	return covered < ae->n_entries ? (int) covered : (int) ae->n_entries;
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
	int			skip = skip_compacted(r, ae);
	unsigned	from = skip > 0 ? (unsigned) skip : 0;
	unsigned	to;

	if (skip >= 0 && from == ae->n_entries)
	{
		struct raft_message heartbeat = *m;

		heartbeat.append_entries.prev_log_index = r->io.storage->snap_index;
		heartbeat.append_entries.prev_log_term = r->io.storage->snap_term;
		r->depth++;
		receive_entries(r, &heartbeat, 0, 0);
		r->depth--;
		qdb_raft_drain(r);
		return;
	}
	if (from > 0 && ae->entries[from - 1].term != r->io.storage->snap_term)
		return;					/* contradicts what is committed */
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
		qdb_raft_drain(r);
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

static int *
own_role(QdbRaft *r)
{
	for (unsigned i = 0; i < r->raft.configuration.n; i++)
		if (r->raft.configuration.servers[i].id == r->raft.id)
			return &r->raft.configuration.servers[i].role;
	return NULL;
}

/*
 * receive_vote_request
 *		Votes also where this node does not know that it has a vote.
 *
 * A change of the configuration counts from when it is appended, so the entry that makes this
 * node a voter may be on other disks only.  Where its vote is needed to elect who would
 * send it that entry, and libraft 0.22 asks the node's own configuration (election.c), nobody
 * would ever lead.  Who may vote is the candidate's to say (Ongaro's thesis, 4.2.2); up to
 * date it has to be all the same.  A node without a vote never forgets a leader
 * either, so here that is silent when a voter would take it for silent.
 */
static void
receive_vote_request(QdbRaft *r, struct raft_message *m)
{
	int		   *role = own_role(r);
	int			own = role != NULL ? *role : RAFT_VOTER;

	if (own != RAFT_VOTER)
	{
		if (r->io.io.time(&r->io.io) - r->heard_ms >= r->election_ms)
			m->request_vote.disrupt_leader = true;
		*role = RAFT_VOTER;
	}
	r->depth++;
	r->io.recv(&r->io.io, m);
	r->depth--;
	role = own_role(r);
	if (role != NULL)
		*role = own;
	qdb_raft_drain(r);
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
		qdb_raft_drain(r);
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

	/*
	 * Whoever is no candidate ignores a result, but libraft 0.22 first looks
	 * at a candidate's state, which shares its memory with a follower's
	 * (recv_request_vote_result.c): a late pre-vote, whose term nobody has,
	 * would raise the term of a follower, and so depose its leader, or not,
	 * by a byte of an address.
	 */
	if (m.type == RAFT_REQUEST_VOTE_RESULT && raft_state(&r->raft) != RAFT_CANDIDATE)
	{
		qdb_wire_release(&m);
		return;
	}
	snprintf(address, sizeof(address), "%llu", (unsigned long long) from);
	m.server_address = address;
	if (from == r->dead && m.type == RAFT_APPEND_ENTRIES)
		r->dead = 0;
	if ((m.type == RAFT_APPEND_ENTRIES && m.append_entries.term >= raft_current_term(&r->raft)) ||
		(m.type == RAFT_INSTALL_SNAPSHOT && m.install_snapshot.term >= raft_current_term(&r->raft)))
		r->heard_ms = r->io.io.time(&r->io.io);
	if (m.type == RAFT_REQUEST_VOTE)
	{
		if (r->dead != 0 && r->dead == qdb_raft_leader(r))
			m.request_vote.disrupt_leader = true;
		receive_vote_request(r, &m);
		return;
	}
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
	qdb_raft_drain(r);
}
