/*-------------------------------------------------------------------------
 *
 * raft_io.c
 *		libraft's raft_io over raft_storage and a send callback.
 *
 * libraft asserts that none of its I/O fails while it handles a message or a
 * tick.  So no function here reports an error to it.  After the first failure
 * this node is mute instead: nothing is sent, nothing that was asked for is
 * reported as done, and nothing is received, until the process ends.  What its
 * peers have been told is then durable (a vote, an acknowledgement), because
 * every send and completion is preceded by the sync of what it promises.
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cluster/raft_io.h"
#include "cluster/raft_wire.h"

typedef enum DoneKind
{
	DONE_SEND,
	DONE_APPEND,
	DONE_PUT,
	DONE_GET
} DoneKind;

struct QdbDone
{
	QdbDone    *next;
	DoneKind	kind;
	union
	{
		struct raft_io_send *send;
		struct raft_io_append *append;
		struct raft_io_snapshot_put *put;
		struct raft_io_snapshot_get *get;
	};
};

void
qdb_io_log(const QdbRaftCallbacks *callbacks, int level, const char *format,...)
{
	char		message[512];
	va_list		args;

	va_start(args, format);
	vsnprintf(message, sizeof(message), format, args);
	va_end(args);
	if (callbacks->log != NULL)
		callbacks->log(callbacks->arg, level, message);
}

void
qdb_io_fail(QdbRaftIo *io, const char *why)
{
	if (io->failed)
		return;
	io->failed = true;
	qdb_io_log(io->callbacks, QDB_LOG_WARNING, "[raft] node stops: %s", why);
}

bool
qdb_io_storage_ok(QdbRaftIo *io, bool ok)
{
	if (!ok)
		qdb_io_fail(io, io->storage->why);
	return !io->failed;
}

static QdbDone *
push_done(QdbRaftIo *io, DoneKind kind)
{
	QdbDone    *done = calloc(1, sizeof(QdbDone));

	if (done == NULL)
	{
		qdb_io_fail(io, "out of memory");
		return NULL;
	}
	done->kind = kind;
	*io->last = done;
	io->last = &done->next;
	return done;
}

static int
io_init(struct raft_io *raft_io, raft_id id, const char *address)
{
	return 0;
}

static int
io_start(struct raft_io *raft_io, unsigned msecs, raft_io_tick_cb tick, raft_io_recv_cb recv)
{
	QdbRaftIo  *io = raft_io->impl;

	io->tick_ms = msecs;
	io->tick = tick;
	io->recv = recv;
	return 0;
}

static int
io_bootstrap(struct raft_io *raft_io, const struct raft_configuration *conf)
{
	return RAFT_CANTBOOTSTRAP;
}

static int
io_set_term(struct raft_io *raft_io, raft_term term)
{
	QdbRaftIo  *io = raft_io->impl;

	qdb_storage_set_term(io->storage, term);
	return 0;
}

static int
io_set_vote(struct raft_io *raft_io, raft_id server_id)
{
	QdbRaftIo  *io = raft_io->impl;

	qdb_storage_set_vote(io->storage, server_id);
	return 0;
}

static int
io_send(struct raft_io *raft_io, struct raft_io_send *req,
		const struct raft_message *message, raft_io_send_cb cb)
{
	QdbRaftIo  *io = raft_io->impl;
	struct raft_message m = *message;
	QdbDone    *done = push_done(io, DONE_SEND);
	uint8_t    *data;
	uint32_t	len = 0;

	req->cb = cb;
	if (done != NULL)
		done->send = req;

	/*
	 * The term and vote that the message speaks of are durable before it
	 * goes.
	 */
	if (io->failed || !qdb_io_storage_ok(io, qdb_storage_sync_meta(io->storage)))
		return 0;

	/*
	 * libraft 0.22 refuses a pre-vote in the term that was asked for. So a
	 * candidate would never hear that this node's is later: two voters, one
	 * with the later term and one with the longer log, would refuse each
	 * other for ever.
	 */
	if (m.type == RAFT_REQUEST_VOTE_RESULT && m.request_vote_result.pre_vote &&
		!m.request_vote_result.vote_granted && m.request_vote_result.term < io->storage->term)
		m.request_vote_result.term = io->storage->term;

	/* libraft leaves it unset, and that leader looks at the term only */
	if (m.type == RAFT_APPEND_ENTRIES_RESULT && io->answers_older)
		m.append_entries_result.last_log_index = 0;

	/* libraft updates only the index if the snapshot is newer than it thought */
	if (m.type == RAFT_INSTALL_SNAPSHOT &&
		m.install_snapshot.last_index == io->storage->snap_index)
		m.install_snapshot.last_term = io->storage->snap_term;
	data = qdb_wire_encode(&m, &len);
	if (data != NULL)
		io->callbacks->send(io->callbacks->arg, m.server_id, data, len);
	free(data);
	return 0;
}

/* libraft leaves unset what the entry of a barrier carries, and would have it written to disks. */
static void
clear_barrier(const struct raft_entry *entry)
{
	if (entry->type == RAFT_BARRIER && entry->buf.base != NULL)
		memset(entry->buf.base, 0, entry->buf.len);
}

static int
io_append(struct raft_io *raft_io, struct raft_io_append *req,
		  const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
	QdbRaftIo  *io = raft_io->impl;
	QdbDone    *done = push_done(io, DONE_APPEND);
	unsigned	i;

	req->cb = cb;
	if (done != NULL)
		done->append = req;
	for (i = 0; i < n && !io->failed; i++)
	{
		clear_barrier(&entries[i]);
		qdb_io_storage_ok(io, qdb_storage_append(io->storage, entries[i].term,
												 (uint8_t) entries[i].type, entries[i].buf.base,
												 (uint32_t) entries[i].buf.len));
	}
	return 0;
}

static int
io_truncate(struct raft_io *raft_io, raft_index index)
{
	QdbRaftIo  *io = raft_io->impl;

	if (!io->failed)
		qdb_io_storage_ok(io, qdb_storage_truncate(io->storage, index));
	return 0;
}

/*
 * cover_configuration
 *		Puts the newest configuration that a snapshot covers into it.
 *
 * libraft 0.22 may take a snapshot in the step that commits a change of the configuration,
 * with the configuration before. A node that starts from it takes the change
 * for one that is not committed yet, for ever, and allows no other one while it leads; and
 * one that gets it counts by voters of the past. *bytes is to be freed.
 */
static bool
cover_configuration(QdbRaftIo *io, QdbRaftSnapshot *snap, uint8_t **bytes)
{
	QdbRaftStorage *s = io->storage;
	uint64_t	index = snap->index;

	*bytes = NULL;

	/* A log that the snapshot contradicts or goes beyond says nothing of it. */
	if (index < s->first || qdb_storage_term_of(s, index) != snap->term)
		return true;
	if (!qdb_io_storage_ok(io, qdb_storage_sync(s)))
		return false;
	while (index >= s->first && index > snap->conf_index && s->entries[index - s->first].type != RAFT_CHANGE)
		index--;
	if (index < s->first || index <= snap->conf_index)
		return true;
	*bytes = malloc(s->entries[index - s->first].len);
	if (*bytes == NULL)
	{
		qdb_io_fail(io, "out of memory");
		return false;
	}
	if (!qdb_io_storage_ok(io, qdb_storage_read(s, index, *bytes)))
		return false;
	snap->conf_index = index;
	snap->conf = *bytes;
	snap->conf_len = s->entries[index - s->first].len;
	return true;
}

static int
io_snapshot_put(struct raft_io *raft_io, unsigned trailing, struct raft_io_snapshot_put *req,
				const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
	QdbRaftIo  *io = raft_io->impl;
	QdbDone    *done = push_done(io, DONE_PUT);
	QdbRaftSnapshot snap = {0};
	struct raft_buffer conf;
	uint8_t    *newer;

	req->cb = cb;
	if (done != NULL)
		done->put = req;
	if (io->failed)
		return 0;
	if (raft_configuration_encode(&snapshot->configuration, &conf) != 0)
	{
		qdb_io_fail(io, "out of memory");
		return 0;
	}
	snap.index = snapshot->index;
	snap.term = snapshot->term;
	snap.conf_index = snapshot->configuration_index;
	snap.conf = conf.base;
	snap.conf_len = (uint32_t) conf.len;
	snap.data = snapshot->bufs[0].base;
	snap.data_len = (uint32_t) snapshot->bufs[0].len;
	if (cover_configuration(io, &snap, &newer))
		qdb_io_storage_ok(io, qdb_storage_put_snapshot(io->storage, &snap, trailing));
	free(newer);
	raft_free(conf.base);
	return 0;
}

static int
io_snapshot_get(struct raft_io *raft_io, struct raft_io_snapshot_get *req,
				raft_io_snapshot_get_cb cb)
{
	QdbRaftIo  *io = raft_io->impl;
	QdbDone    *done = push_done(io, DONE_GET);

	req->cb = cb;
	if (done != NULL)
		done->get = req;
	return 0;
}

static raft_time
io_time(struct raft_io *raft_io)
{
	QdbRaftIo  *io = raft_io->impl;
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (raft_time) now.tv_sec * 1000 + (raft_time) now.tv_nsec / 1000000 + io->jump;
}

static int
io_random(struct raft_io *raft_io, int min, int max)
{
	QdbRaftIo  *io = raft_io->impl;

	return min + (int) (io->seed % (unsigned) (max - min));
}

/* The first send, or the first that waits for the disk; NULL: there is no such. */
static QdbDone *
take_done(QdbRaftIo *io, bool send)
{
	QdbDone   **link = &io->first;
	QdbDone    *done;

	while (*link != NULL && ((*link)->kind == DONE_SEND) != send)
		link = &(*link)->next;
	done = *link;
	if (done == NULL)
		return NULL;
	*link = done->next;
	if (*link == NULL)
		io->last = link;
	return done;
}

static void
deliver(QdbRaftIo *io, QdbDone *done, int status)
{
	struct raft_snapshot *snapshot = NULL;

	switch (done->kind)
	{
		case DONE_SEND:
			done->send->cb(done->send, status);
			break;
		case DONE_APPEND:
			done->append->cb(done->append, status);
			break;
		case DONE_PUT:
			done->put->cb(done->put, status);
			break;
		case DONE_GET:
			/* libraft cannot take a failure here: then it hears nothing */
			if (qdb_io_load_snapshot(io, &snapshot) == 0 && snapshot != NULL)
				done->get->cb(done->get, snapshot, 0);
			else
				qdb_io_fail(io, "could not load the Raft snapshot to send");
			break;
	}
	free(done);
}

/*
 * Sends come first: they went out when they were asked for.  A message holds some
 * entries of libraft's log, perhaps not all that were allocated together; where a
 * snapshot then drops the others, libraft takes the memory for unused and frees it under
 * the message.  Of what waits for the disk no more is delivered than was queued before the
 * sync: what these cause to be queued is synced before it is delivered.
 */
void
qdb_io_drain(QdbRaftIo *io)
{
	while (!io->failed && (io->first != NULL || io->storage->meta_dirty))
	{
		QdbDone    *done;
		int			synced = 0;

		for (done = io->first; done != NULL; done = done->next)
			synced += done->kind != DONE_SEND;
		if (!qdb_io_storage_ok(io, qdb_storage_sync(io->storage)))
			return;
		while (!io->failed && ((done = take_done(io, true)) != NULL ||
							   (synced-- > 0 && (done = take_done(io, false)) != NULL)))
			deliver(io, done, 0);
	}
}

bool
qdb_io_pending(const QdbRaftIo *io)
{
	return io->first != NULL || io->storage->meta_dirty;
}

static void
io_close(struct raft_io *raft_io, raft_io_close_cb cb)
{
	QdbRaftIo  *io = raft_io->impl;
	QdbDone    *done;

	io->failed = true;
	while ((done = take_done(io, true)) != NULL || (done = take_done(io, false)) != NULL)
		deliver(io, done, RAFT_CANCELED);
	cb(raft_io);
}

void
qdb_io_init(QdbRaftIo *io, QdbRaftStorage *storage, const QdbRaftCallbacks *callbacks)
{
	struct timespec now;

	memset(io, 0, sizeof(*io));
	clock_gettime(CLOCK_REALTIME, &now);
	io->storage = storage;
	io->callbacks = callbacks;
	io->last = &io->first;
	io->seed = (unsigned) (now.tv_nsec ^ now.tv_sec) * 2654435761u + (unsigned) storage->id;
	io->io.version = 1;
	io->io.impl = io;
	io->io.init = io_init;
	io->io.close = io_close;
	io->io.load = qdb_io_load;
	io->io.start = io_start;
	io->io.bootstrap = io_bootstrap;
	io->io.recover = io_bootstrap;
	io->io.set_term = io_set_term;
	io->io.set_vote = io_set_vote;
	io->io.send = io_send;
	io->io.append = io_append;
	io->io.truncate = io_truncate;
	io->io.snapshot_put = io_snapshot_put;
	io->io.snapshot_get = io_snapshot_get;
	io->io.time = io_time;
	io->io.random = io_random;
}

static bool
accepts_entries(QdbRaftIo *io, struct raft *raft, const struct raft_append_entries *m,
				const char **why)
{
	uint64_t	commit = raft_commit_index(raft);
	uint64_t	local = 0;
	unsigned	i;

	*why = "comes from a second leader of this term";
	if (raft_state(raft) == RAFT_LEADER && m->term == raft_current_term(raft))
		return false;
	*why = "starts before this log";
	if (m->prev_log_index == 0 && m->n_entries > 0 && io->storage->first > 1)
		return false;
	*why = "begins a log without its configuration";
	if (m->prev_log_index == 0 && m->n_entries > 0 && m->entries[0].type != RAFT_CHANGE)
		return false;
	*why = "contradicts a committed entry";
	if (m->prev_log_index > 0)
		local = qdb_storage_term_of(io->storage, m->prev_log_index);
	if (local != 0 && local != m->prev_log_term && m->prev_log_index <= commit)
		return false;
	for (i = 0; i < m->n_entries && m->prev_log_index + 1 + i <= commit; i++)
	{
		local = qdb_storage_term_of(io->storage, m->prev_log_index + 1 + i);
		if (local != 0 && local != m->entries[i].term)
			return false;
	}
	return true;
}

static bool
accepts_result(struct raft *raft, uint64_t from, const struct raft_append_entries_result *m,
			   const char **why)
{
	raft_index	match;

	*why = "denies an entry that the member had acknowledged";
	if (m->rejected == 0 || m->term != raft_current_term(raft) ||
		raft_match_index(raft, from, &match) != 0)
		return true;
	return m->rejected > match && m->last_log_index >= match;
}

bool
qdb_io_accepts(QdbRaftIo *io, struct raft *raft, const struct raft_message *m, const char **why)
{
	uint64_t	term;

	switch (m->type)
	{
		case RAFT_APPEND_ENTRIES:
			return accepts_entries(io, raft, &m->append_entries, why);
		case RAFT_APPEND_ENTRIES_RESULT:
			return accepts_result(raft, m->server_id, &m->append_entries_result, why);
		case RAFT_REQUEST_VOTE_RESULT:
			*why = "grants a vote of a later term";
			return !m->request_vote_result.vote_granted ||
				m->request_vote_result.term <= raft_current_term(raft) + 1;
		case RAFT_INSTALL_SNAPSHOT:
			*why = "comes from a second leader of this term";
			if (raft_state(raft) == RAFT_LEADER &&
				m->install_snapshot.term == raft_current_term(raft))
				return false;
			*why = "snapshot contradicts committed entries";
			term = qdb_storage_term_of(io->storage, m->install_snapshot.last_index);
			return m->install_snapshot.last_index > raft_commit_index(raft) ||
				m->install_snapshot.last_index <= io->storage->snap_index ||
				term == m->install_snapshot.last_term;
		default:
			return true;
	}
}
