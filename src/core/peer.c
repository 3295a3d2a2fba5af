/*-------------------------------------------------------------------------
 *
 * peer.c
 *		Encode and decode what members tell each other.
 *
 *-------------------------------------------------------------------------
 */
#include "core/peer.h"

#include <stdio.h>
#include <string.h>

#include "core/walk.h"

#define URI_FORMAT	"quantadb:%s:%llu:%llu:%llu"

static void
walk_hello(QdbWalker *w, void *fields)
{
	QdbHello   *hello = fields;

	qdb_walk_text(w, hello->cluster_id, sizeof(hello->cluster_id));
	qdb_walk_u64(w, &hello->member);
	qdb_walk_text(w, hello->name, sizeof(hello->name));
	qdb_walk_u64(w, &hello->incarnation);
	qdb_walk_u64(w, &hello->boot);
	qdb_walk_u64(w, &hello->system_identifier);
	qdb_walk_text(w, hello->host, sizeof(hello->host));
	qdb_walk_u16(w, &hello->raft_port);
}

bool
qdb_peer_hello_encode(const QdbHello *hello, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_hello, hello, buf, len);
}

bool
qdb_peer_hello_decode(const uint8_t *buf, uint32_t len, QdbHello *hello)
{
	return qdb_decode(walk_hello, buf, len, hello, sizeof(*hello));
}

static void
walk_goodbye(QdbWalker *w, void *fields)
{
	QdbGoodbye *goodbye = fields;

	qdb_walk_u64(w, &goodbye->incarnation);
	qdb_walk_u64(w, &goodbye->boot);
	qdb_walk_u8(w, &goodbye->reason);
}

bool
qdb_goodbye_encode(const QdbGoodbye *goodbye, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_goodbye, goodbye, buf, len);
}

bool
qdb_goodbye_decode(const uint8_t *buf, uint32_t len, QdbGoodbye *goodbye)
{
	return qdb_decode(walk_goodbye, buf, len, goodbye, sizeof(*goodbye));
}

static void
walk_removed(QdbWalker *w, void *fields)
{
	QdbRemoved *removed = fields;

	qdb_walk_u64(w, &removed->member);
	qdb_walk_u64(w, &removed->incarnation);
}

bool
qdb_removed_encode(const QdbRemoved *removed, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_removed, removed, buf, len);
}

bool
qdb_removed_decode(const uint8_t *buf, uint32_t len, QdbRemoved *removed)
{
	return qdb_decode(walk_removed, buf, len, removed, sizeof(*removed));
}

static void
walk_heartbeat(QdbWalker *w, void *fields)
{
	QdbHeartbeat *beat = fields;
	uint32_t	n;

	qdb_walk_u8(w, &beat->flags);
	qdb_walk_u64(w, &beat->wal_end);
	qdb_walk_text(w, beat->state, sizeof(beat->state));
	qdb_walk_text(w, beat->why_not, sizeof(beat->why_not));
	qdb_walk_text(w, beat->step, sizeof(beat->step));
	qdb_walk_u64(w, &beat->done);
	qdb_walk_u64(w, &beat->total);
	qdb_walk_u64(w, &beat->upstream);
	qdb_walk_u64(w, &beat->redo);
	qdb_walk_u64(w, &beat->promised);
	qdb_walk_u64(w, &beat->gate_epoch);
	qdb_walk_u64(w, &beat->primary_age_us);
	qdb_walk_u64(w, &beat->closed_membership);
	qdb_walk_u64(w, &beat->archived);
	qdb_walk_u32(w, &beat->archived_timeline);
	qdb_walk_u64(w, &beat->lease_epoch);
	qdb_walk_u64(w, &beat->lease_sent);
	for (int i = 0; i < QDB_NLIMITS; i++)
		qdb_walk_i32(w, &beat->limits[i]);
	n = qdb_walk_short_count(w, &beat->ncaught_up, QDB_MAX_MEMBERS);
	for (uint32_t i = 0; i < n; i++)
		qdb_walk_u64(w, &beat->caught_up[i]);
}

bool
qdb_heartbeat_encode(const QdbHeartbeat *beat, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_heartbeat, beat, buf, len);
}

bool
qdb_heartbeat_decode(const uint8_t *buf, uint32_t len, QdbHeartbeat *beat)
{
	return qdb_decode(walk_heartbeat, buf, len, beat, sizeof(*beat));
}

static void
walk_read_request(QdbWalker *w, void *fields)
{
	QdbRead    *read = fields;

	qdb_walk_u64(w, &read->ticket);
	qdb_walk_u64(w, &read->epoch);
}

bool
qdb_read_request_encode(const QdbRead *read, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_read_request, read, buf, len);
}

bool
qdb_read_request_decode(const uint8_t *buf, uint32_t len, QdbRead *read)
{
	return qdb_decode(walk_read_request, buf, len, read, sizeof(*read));
}

static void
walk_read_answer(QdbWalker *w, void *fields)
{
	QdbRead    *read = fields;

	qdb_walk_u64(w, &read->ticket);
	qdb_walk_u64(w, &read->epoch);
	qdb_walk_bool(w, &read->ok);
	qdb_walk_u64(w, &read->lsn);
}

bool
qdb_read_answer_encode(const QdbRead *read, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_read_answer, read, buf, len);
}

bool
qdb_read_answer_decode(const uint8_t *buf, uint32_t len, QdbRead *read)
{
	return qdb_decode(walk_read_answer, buf, len, read, sizeof(*read));
}

static void
walk_proposal(QdbWalker *w, void *fields)
{
	QdbProposal *proposal = fields;

	qdb_walk_u64(w, &proposal->id);
	qdb_walk_rest(w, &proposal->command, &proposal->length);
	w->bad |= proposal->length == 0 || proposal->length > QDB_COMMAND_MAX_BYTES;
}

bool
qdb_proposal_encode(const QdbProposal *proposal, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_proposal, proposal, buf, len);
}

bool
qdb_proposal_decode(const uint8_t *buf, uint32_t len, QdbProposal *proposal)
{
	return qdb_decode(walk_proposal, buf, len, proposal, sizeof(*proposal));
}

static void
walk_proposal_result(QdbWalker *w, void *fields)
{
	QdbProposalResult *result = fields;

	qdb_walk_u64(w, &result->id);
	qdb_walk_u8(w, &result->status);
	qdb_walk_u8(w, &result->result);
	qdb_walk_u64(w, &result->applied);
	w->bad |= result->result > QDB_MALFORMED;
}

bool
qdb_proposal_result_encode(const QdbProposalResult *result, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_proposal_result, result, buf, len);
}

bool
qdb_proposal_result_decode(const uint8_t *buf, uint32_t len, QdbProposalResult *result)
{
	return qdb_decode(walk_proposal_result, buf, len, result, sizeof(*result));
}

void
qdb_cert_uri_format(const QdbCertName *name, char *uri, size_t size)
{
	snprintf(uri, size, URI_FORMAT, name->cluster_id, (unsigned long long) name->member,
			 (unsigned long long) name->incarnation, (unsigned long long) name->rotation);
}

bool
qdb_cert_uri_parse(const uint8_t *uri, size_t len, QdbCertName *name)
{
	char		text[QDB_CERT_URI_SIZE];
	char		again[QDB_CERT_URI_SIZE];
	unsigned long long member;
	unsigned long long incarnation;
	unsigned long long rotation;

	if (len == 0 || len >= sizeof(text))
		return false;
	memcpy(text, uri, len);
	text[len] = '\0';
	if (sscanf(text, "quantadb:%36[0-9a-f-]:%llu:%llu:%llu", name->cluster_id, &member,
			   &incarnation, &rotation) != 4)
		return false;
	name->member = member;
	name->incarnation = incarnation;
	name->rotation = rotation;
	/* Strict: the text must be what we would have written, to its last byte. */
	qdb_cert_uri_format(name, again, sizeof(again));
	return strlen(again) == len && memcmp(text, again, len) == 0 && member != 0;
}
