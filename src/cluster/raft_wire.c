/*-------------------------------------------------------------------------
 *
 * raft_wire.c
 *		Raft messages as bytes.
 *
 * libraft asserts what it expects of a message.  A peer is authenticated but
 * may be old, broken or damaged, so whatever an assertion depends on is checked
 * here first, and a message that fails is dropped as if it had been lost.
 *
 *	u8 format, u8 type, u8 libraft's version of the message, u64 term, then the
 *	fields of the type; entries are u64 term, u8 type, u32 length, bytes.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "cluster/raft_storage.h"
#include "cluster/raft_wire.h"
#include "core/frame.h"
#include "core/state.h"

#define FIXED_SIZE		128		/* more than the fixed fields of any type */
#define ENTRY_SIZE		13
#define MAX_SERVERS		(2 * QDB_MAX_MEMBERS)

/* libraft leaves unset what the entry of a barrier carries: 8 bytes of our memory. */
static void
put_payload(QdbWriter *w, const struct raft_entry *e)
{
	if (e->type != RAFT_BARRIER)
		qdb_put_bytes(w, e->buf.base, e->buf.len);
	else
		for (size_t i = 0; i < e->buf.len; i++)
			qdb_put_u8(w, 0);
}

static void
put_entries(QdbWriter *w, const struct raft_append_entries *m)
{
	unsigned	i;

	qdb_put_u64(w, m->prev_log_index);
	qdb_put_u64(w, m->prev_log_term);
	qdb_put_u64(w, m->leader_commit);
	qdb_put_u32(w, m->n_entries);
	for (i = 0; i < m->n_entries; i++)
	{
		const struct raft_entry *e = &m->entries[i];

		qdb_put_u64(w, e->term);
		qdb_put_u8(w, (uint8_t) e->type);
		qdb_put_u32(w, (uint32_t) e->buf.len);
		put_payload(w, e);
	}
}

static void
put_snapshot(QdbWriter *w, const struct raft_install_snapshot *m, const struct raft_buffer *conf)
{
	qdb_put_u64(w, m->last_index);
	qdb_put_u64(w, m->last_term);
	qdb_put_u64(w, m->conf_index);
	qdb_put_u32(w, (uint32_t) conf->len);
	qdb_put_bytes(w, conf->base, conf->len);
	qdb_put_u32(w, (uint32_t) m->data.len);
	qdb_put_bytes(w, m->data.base, m->data.len);
}

/*
 * libraft leaves the last index unset in what it answers to a leader of an older
 * term.  The receiver bounds it by what was rejected, but only after we have
 * refused a number that cannot be: the leader would not learn of the term.
 */
static uint64_t
last_index(const struct raft_append_entries_result *result)
{
	if (result->rejected > 0 && result->last_log_index >= result->rejected)
		return result->rejected - 1;
	return result->last_log_index <= QDB_RAFT_MAX_NUMBER ? result->last_log_index : 0;
}

static void
put_start(QdbWriter *w, const struct raft_message *m, uint8_t version, uint64_t term)
{
	qdb_put_u8(w, QDB_RAFT_WIRE_FORMAT);
	qdb_put_u8(w, (uint8_t) m->type);
	qdb_put_u8(w, version);
	qdb_put_u64(w, term);
}

static void
put_message(QdbWriter *w, const struct raft_message *m, const struct raft_buffer *conf)
{
	switch (m->type)
	{
		case RAFT_APPEND_ENTRIES:
			put_start(w, m, m->append_entries.version, m->append_entries.term);
			put_entries(w, &m->append_entries);
			break;
		case RAFT_APPEND_ENTRIES_RESULT:
			put_start(w, m, m->append_entries_result.version, m->append_entries_result.term);
			qdb_put_u64(w, m->append_entries_result.rejected);
			qdb_put_u64(w, last_index(&m->append_entries_result));
			qdb_put_u16(w, m->append_entries_result.features);
			qdb_put_u16(w, m->append_entries_result.capacity);
			break;
		case RAFT_REQUEST_VOTE:
			put_start(w, m, m->request_vote.version, m->request_vote.term);
			qdb_put_u64(w, m->request_vote.candidate_id);
			qdb_put_u64(w, m->request_vote.last_log_index);
			qdb_put_u64(w, m->request_vote.last_log_term);
			qdb_put_u8(w, m->request_vote.disrupt_leader);
			qdb_put_u8(w, m->request_vote.pre_vote);
			break;
		case RAFT_REQUEST_VOTE_RESULT:
			put_start(w, m, m->request_vote_result.version, m->request_vote_result.term);
			qdb_put_u8(w, m->request_vote_result.vote_granted);
			qdb_put_u8(w, m->request_vote_result.pre_vote);
			qdb_put_u16(w, m->request_vote_result.features);
			qdb_put_u16(w, m->request_vote_result.capacity);
			break;
		case RAFT_INSTALL_SNAPSHOT:
			put_start(w, m, m->install_snapshot.version, m->install_snapshot.term);
			put_snapshot(w, &m->install_snapshot, conf);
			break;
		case RAFT_TIMEOUT_NOW:
			put_start(w, m, m->timeout_now.version, m->timeout_now.term);
			qdb_put_u64(w, m->timeout_now.last_log_index);
			qdb_put_u64(w, m->timeout_now.last_log_term);
			break;
		default:
			w->failed = true;
	}
}

uint8_t *
qdb_wire_encode(const struct raft_message *message, uint32_t *len)
{
	struct raft_buffer conf = {NULL, 0};
	QdbWriter	w = {NULL, FIXED_SIZE, 0, false};
	unsigned	i;

	if (message->type == RAFT_APPEND_ENTRIES)
		for (i = 0; i < message->append_entries.n_entries; i++)
			w.size += ENTRY_SIZE + message->append_entries.entries[i].buf.len;
	if (message->type == RAFT_INSTALL_SNAPSHOT)
	{
		if (message->install_snapshot.conf.n == 0 ||
			raft_configuration_encode(&message->install_snapshot.conf, &conf) != 0)
			return NULL;
		w.size += conf.len + message->install_snapshot.data.len;
	}
	w.buf = malloc(w.size);
	if (w.buf != NULL)
		put_message(&w, message, &conf);
	raft_free(conf.base);
	if (w.buf == NULL || w.failed)
	{
		free(w.buf);
		return NULL;
	}
	*len = (uint32_t) w.used;
	return w.buf;
}

/* byte 1, u64 count, then u64 id, address with zero, u8 role; padded with zeros */
bool
qdb_wire_check_configuration(const uint8_t *buf, size_t len)
{
	QdbReader	r = {buf, len, 0, false};
	uint64_t	ids[MAX_SERVERS];
	uint64_t	n;
	uint64_t	i;
	uint64_t	j;

	if (qdb_get_u8(&r) != 1)
		return false;
	n = qdb_get_u64(&r);
	if (r.failed || n == 0 || n > MAX_SERVERS)
		return false;
	for (i = 0; i < n; i++)
	{
		const uint8_t *end;

		ids[i] = qdb_get_u64(&r);
		if (r.failed || ids[i] == 0)
			return false;
		for (j = 0; j < i; j++)
			if (ids[j] == ids[i])
				return false;
		end = memchr(buf + r.pos, 0, len - r.pos);
		if (end == NULL)
			return false;
		/* the address is the id, so unequal ids have unequal addresses */
		if (strtoull((const char *) buf + r.pos, NULL, 10) != ids[i])
			return false;
		r.pos = (size_t) (end - buf) + 1;
		if (qdb_get_u8(&r) > RAFT_SPARE || r.failed)
			return false;
	}
	return len - r.pos < 8 && len % 8 == 0;
}

static bool
check_entry(const struct raft_entry *e, uint64_t previous_term, uint64_t term)
{
	if (e->term == 0 || e->term > term || e->term < previous_term)
		return false;
	if (e->buf.len == 0 || e->buf.len % 8 != 0 || e->buf.len > QDB_RAFT_MAX_ENTRY)
		return false;
	switch (e->type)
	{
		case RAFT_COMMAND:
		case RAFT_BARRIER:
			return true;
		case RAFT_CHANGE:
			return qdb_wire_check_configuration(e->buf.base, e->buf.len);
		default:
			return false;
	}
}

static bool
get_entries(QdbReader *r, struct raft_append_entries *m, const char **why)
{
	uint64_t	previous_term;
	unsigned	i;

	m->prev_log_index = qdb_get_u64(r);
	m->prev_log_term = qdb_get_u64(r);
	m->leader_commit = qdb_get_u64(r);
	m->n_entries = qdb_get_u32(r);
	*why = "indexes or terms are not consistent";
	if (r->failed || m->prev_log_index > QDB_RAFT_MAX_NUMBER ||
		m->leader_commit > QDB_RAFT_MAX_NUMBER || m->prev_log_term > m->term ||
		(m->prev_log_index == 0) != (m->prev_log_term == 0))
		return false;
	*why = "too many entries";
	if (m->n_entries > QDB_RAFT_MAX_ENTRIES ||
		m->n_entries > (r->size - r->pos) / ENTRY_SIZE)
		return false;
	if (m->n_entries == 0)
		return true;
	m->entries = calloc(m->n_entries, sizeof(struct raft_entry));
	*why = "an entry is not valid";
	if (m->entries == NULL)
		return false;
	previous_term = m->prev_log_term;
	for (i = 0; i < m->n_entries; i++)
	{
		struct raft_entry *e = &m->entries[i];

		e->term = qdb_get_u64(r);
		e->type = qdb_get_u8(r);
		e->buf.len = qdb_get_u32(r);
		e->buf.base = (void *) qdb_get_bytes(r, e->buf.len);
		if (r->failed || !check_entry(e, previous_term, m->term))
			return false;
		previous_term = e->term;
	}
	return true;
}

static bool
get_snapshot(QdbReader *r, struct raft_install_snapshot *m, const char **why)
{
	struct raft_buffer conf;
	const uint8_t *data;

	m->last_index = qdb_get_u64(r);
	m->last_term = qdb_get_u64(r);
	m->conf_index = qdb_get_u64(r);
	conf.len = qdb_get_u32(r);
	conf.base = (void *) qdb_get_bytes(r, conf.len);
	m->data.len = qdb_get_u32(r);
	data = qdb_get_bytes(r, m->data.len);
	*why = "snapshot is not valid";
	if (r->failed || m->last_index == 0 || m->last_index > QDB_RAFT_MAX_NUMBER ||
		m->last_term == 0 || m->last_term > m->term ||
		m->conf_index == 0 || m->conf_index > m->last_index ||
		m->data.len == 0 || m->data.len > QDB_STATE_MAX_BYTES ||
		!qdb_wire_check_configuration(conf.base, conf.len))
		return false;
	m->data.base = raft_malloc(m->data.len);
	if (m->data.base == NULL)
		return false;
	memcpy(m->data.base, data, m->data.len);
	if (raft_configuration_decode(&conf, &m->conf) != 0)
	{
		raft_configuration_init(&m->conf);
		return false;
	}
	return true;
}

static bool
get_vote(QdbReader *r, struct raft_message *m, uint64_t from, const char **why)
{
	struct raft_request_vote *v = &m->request_vote;

	v->candidate_id = qdb_get_u64(r);
	v->last_log_index = qdb_get_u64(r);
	v->last_log_term = qdb_get_u64(r);
	v->disrupt_leader = qdb_get_u8(r) != 0;
	v->pre_vote = qdb_get_u8(r) != 0;
	*why = "vote request is not valid";
	return v->candidate_id == from && v->last_log_index <= QDB_RAFT_MAX_NUMBER &&
		v->last_log_term <= v->term;
}

static bool
get_fields(QdbReader *r, struct raft_message *m, uint8_t version, uint64_t term,
		   uint64_t from, const char **why)
{
	switch (m->type)
	{
		case RAFT_APPEND_ENTRIES:
			m->append_entries.version = version;
			m->append_entries.term = term;
			return get_entries(r, &m->append_entries, why);
		case RAFT_APPEND_ENTRIES_RESULT:
			m->append_entries_result.version = version;
			m->append_entries_result.term = term;
			m->append_entries_result.rejected = qdb_get_u64(r);
			m->append_entries_result.last_log_index = qdb_get_u64(r);
			m->append_entries_result.features = qdb_get_u16(r);
			m->append_entries_result.capacity = qdb_get_u16(r);
			*why = "result is not valid";
			return m->append_entries_result.rejected <= QDB_RAFT_MAX_NUMBER &&
				m->append_entries_result.last_log_index <= QDB_RAFT_MAX_NUMBER;
		case RAFT_REQUEST_VOTE:
			m->request_vote.version = version;
			m->request_vote.term = term;
			return get_vote(r, m, from, why);
		case RAFT_REQUEST_VOTE_RESULT:
			m->request_vote_result.version = version;
			m->request_vote_result.term = term;
			m->request_vote_result.vote_granted = qdb_get_u8(r) != 0;
			m->request_vote_result.pre_vote = qdb_get_u8(r) != 0;
			m->request_vote_result.features = qdb_get_u16(r);
			m->request_vote_result.capacity = qdb_get_u16(r);
			return true;
		case RAFT_INSTALL_SNAPSHOT:
			m->install_snapshot.version = version;
			m->install_snapshot.term = term;
			return get_snapshot(r, &m->install_snapshot, why);
		case RAFT_TIMEOUT_NOW:
			m->timeout_now.version = version;
			m->timeout_now.term = term;
			m->timeout_now.last_log_index = qdb_get_u64(r);
			m->timeout_now.last_log_term = qdb_get_u64(r);
			return true;
		default:
			*why = "unknown type";
			return false;
	}
}

bool
qdb_wire_decode(const uint8_t *data, uint32_t len, uint64_t from,
				struct raft_message *message, const char **why)
{
	QdbReader	r = {data, len, 0, false};
	uint8_t		format = qdb_get_u8(&r);
	uint8_t		type = qdb_get_u8(&r);
	uint8_t		version = qdb_get_u8(&r);
	uint64_t	term = qdb_get_u64(&r);

	memset(message, 0, sizeof(*message));
	message->type = type;
	message->server_id = from;
	*why = "unknown format";
	if (r.failed || format != QDB_RAFT_WIRE_FORMAT)
		return false;
	*why = "term or sender is not valid";
	if (term == 0 || term > QDB_RAFT_MAX_NUMBER || from == 0)
		return false;
	*why = "not valid";
	if (!get_fields(&r, message, version, term, from, why))
	{
		qdb_wire_release(message);
		return false;
	}
	*why = "wrong length";
	if (!qdb_reader_done(&r))
	{
		qdb_wire_release(message);
		return false;
	}
	return true;
}

void
qdb_wire_release(struct raft_message *message)
{
	if (message->type == RAFT_APPEND_ENTRIES)
	{
		free(message->append_entries.entries);
		message->append_entries.entries = NULL;
	}
	else if (message->type == RAFT_INSTALL_SNAPSHOT)
	{
		raft_configuration_close(&message->install_snapshot.conf);
		raft_free(message->install_snapshot.data.base);
		message->install_snapshot.data.base = NULL;
	}
}
