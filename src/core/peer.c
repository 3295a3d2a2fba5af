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

#define URI_FORMAT	"quantadb:%s:%llu:%llu:%llu"

bool
qdb_peer_hello_encode(const QdbHello *hello, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_string(&w, hello->cluster_id);
	qdb_put_u64(&w, hello->member);
	qdb_put_string(&w, hello->name);
	qdb_put_u64(&w, hello->incarnation);
	qdb_put_u64(&w, hello->boot);
	qdb_put_u64(&w, hello->system_identifier);
	qdb_put_string(&w, hello->host);
	qdb_put_u16(&w, hello->raft_port);
	return qdb_writer_done(&w, len);
}

bool
qdb_peer_hello_decode(const uint8_t *buf, uint32_t len, QdbHello *hello)
{
	QdbReader	r = {.buf = buf,.size = len};

	memset(hello, 0, sizeof(*hello));
	qdb_get_string(&r, hello->cluster_id, sizeof(hello->cluster_id));
	hello->member = qdb_get_u64(&r);
	qdb_get_string(&r, hello->name, sizeof(hello->name));
	hello->incarnation = qdb_get_u64(&r);
	hello->boot = qdb_get_u64(&r);
	hello->system_identifier = qdb_get_u64(&r);
	qdb_get_string(&r, hello->host, sizeof(hello->host));
	hello->raft_port = qdb_get_u16(&r);
	return qdb_reader_done(&r);
}

bool
qdb_goodbye_encode(const QdbGoodbye *goodbye, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u64(&w, goodbye->incarnation);
	qdb_put_u64(&w, goodbye->boot);
	qdb_put_u8(&w, goodbye->reason);
	return qdb_writer_done(&w, len);
}

bool
qdb_goodbye_decode(const uint8_t *buf, uint32_t len, QdbGoodbye *goodbye)
{
	QdbReader	r = {.buf = buf,.size = len};

	goodbye->incarnation = qdb_get_u64(&r);
	goodbye->boot = qdb_get_u64(&r);
	goodbye->reason = qdb_get_u8(&r);
	return qdb_reader_done(&r);
}

bool
qdb_removed_encode(const QdbRemoved *removed, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u64(&w, removed->member);
	qdb_put_u64(&w, removed->incarnation);
	return qdb_writer_done(&w, len);
}

bool
qdb_removed_decode(const uint8_t *buf, uint32_t len, QdbRemoved *removed)
{
	QdbReader	r = {.buf = buf,.size = len};

	removed->member = qdb_get_u64(&r);
	removed->incarnation = qdb_get_u64(&r);
	return qdb_reader_done(&r);
}

bool
qdb_heartbeat_encode(const QdbHeartbeat *beat, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u8(&w, beat->flags);
	qdb_put_u64(&w, beat->wal_end);
	qdb_put_string(&w, beat->state);
	qdb_put_string(&w, beat->why_not);
	qdb_put_string(&w, beat->step);
	qdb_put_u64(&w, beat->done);
	qdb_put_u64(&w, beat->total);
	qdb_put_u64(&w, beat->upstream);
	qdb_put_u64(&w, beat->redo);
	qdb_put_u64(&w, beat->promised);
	qdb_put_u64(&w, beat->gate_epoch);
	qdb_put_u64(&w, beat->primary_age_us);
	qdb_put_u64(&w, beat->closed_membership);
	qdb_put_u64(&w, beat->archived);
	qdb_put_u32(&w, beat->archived_timeline);
	qdb_put_u64(&w, beat->lease_epoch);
	qdb_put_u64(&w, beat->lease_sent);
	for (int i = 0; i < QDB_NLIMITS; i++)
		qdb_put_u32(&w, (uint32_t) beat->limits[i]);
	qdb_put_u8(&w, (uint8_t) beat->ncaught_up);
	for (uint32_t i = 0; i < beat->ncaught_up && i < QDB_MAX_MEMBERS; i++)
		qdb_put_u64(&w, beat->caught_up[i]);
	return qdb_writer_done(&w, len);
}

bool
qdb_heartbeat_decode(const uint8_t *buf, uint32_t len, QdbHeartbeat *beat)
{
	QdbReader	r = {.buf = buf,.size = len};

	memset(beat, 0, sizeof(*beat));
	beat->flags = qdb_get_u8(&r);
	beat->wal_end = qdb_get_u64(&r);
	qdb_get_string(&r, beat->state, sizeof(beat->state));
	qdb_get_string(&r, beat->why_not, sizeof(beat->why_not));
	qdb_get_string(&r, beat->step, sizeof(beat->step));
	beat->done = qdb_get_u64(&r);
	beat->total = qdb_get_u64(&r);
	beat->upstream = qdb_get_u64(&r);
	beat->redo = qdb_get_u64(&r);
	beat->promised = qdb_get_u64(&r);
	beat->gate_epoch = qdb_get_u64(&r);
	beat->primary_age_us = qdb_get_u64(&r);
	beat->closed_membership = qdb_get_u64(&r);
	beat->archived = qdb_get_u64(&r);
	beat->archived_timeline = qdb_get_u32(&r);
	beat->lease_epoch = qdb_get_u64(&r);
	beat->lease_sent = qdb_get_u64(&r);
	for (int i = 0; i < QDB_NLIMITS; i++)
		beat->limits[i] = (int32_t) qdb_get_u32(&r);
	beat->ncaught_up = qdb_get_u8(&r);
	if (beat->ncaught_up > QDB_MAX_MEMBERS)
	{
		beat->ncaught_up = 0;
		return false;
	}
	for (uint32_t i = 0; i < beat->ncaught_up; i++)
		beat->caught_up[i] = qdb_get_u64(&r);
	return qdb_reader_done(&r);
}

bool
qdb_read_request_encode(const QdbRead *read, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u64(&w, read->ticket);
	qdb_put_u64(&w, read->epoch);
	return qdb_writer_done(&w, len);
}

bool
qdb_read_request_decode(const uint8_t *buf, uint32_t len, QdbRead *read)
{
	QdbReader	r = {.buf = buf,.size = len};

	memset(read, 0, sizeof(*read));
	read->ticket = qdb_get_u64(&r);
	read->epoch = qdb_get_u64(&r);
	return qdb_reader_done(&r);
}

bool
qdb_read_answer_encode(const QdbRead *read, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u64(&w, read->ticket);
	qdb_put_u64(&w, read->epoch);
	qdb_put_u8(&w, read->ok ? 1 : 0);
	qdb_put_u64(&w, read->lsn);
	return qdb_writer_done(&w, len);
}

bool
qdb_read_answer_decode(const uint8_t *buf, uint32_t len, QdbRead *read)
{
	QdbReader	r = {.buf = buf,.size = len};

	read->ticket = qdb_get_u64(&r);
	read->epoch = qdb_get_u64(&r);
	read->ok = qdb_get_bool(&r);
	read->lsn = qdb_get_u64(&r);
	return qdb_reader_done(&r);
}

bool
qdb_proposal_encode(const QdbProposal *proposal, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u64(&w, proposal->id);
	qdb_put_bytes(&w, proposal->command, proposal->length);
	return qdb_writer_done(&w, len);
}

bool
qdb_proposal_decode(const uint8_t *buf, uint32_t len, QdbProposal *proposal)
{
	QdbReader	r = {.buf = buf,.size = len};

	proposal->id = qdb_get_u64(&r);
	proposal->length = r.failed ? 0 : (uint32_t) (r.size - r.pos);
	proposal->command = qdb_get_bytes(&r, proposal->length);
	return qdb_reader_done(&r) && proposal->length > 0 && proposal->length <= QDB_COMMAND_MAX_BYTES;
}

bool
qdb_proposal_result_encode(const QdbProposalResult *result, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u64(&w, result->id);
	qdb_put_u8(&w, result->status);
	qdb_put_u8(&w, result->result);
	qdb_put_u64(&w, result->applied);
	return qdb_writer_done(&w, len);
}

bool
qdb_proposal_result_decode(const uint8_t *buf, uint32_t len, QdbProposalResult *result)
{
	QdbReader	r = {.buf = buf,.size = len};

	result->id = qdb_get_u64(&r);
	result->status = qdb_get_u8(&r);
	result->result = qdb_get_u8(&r);
	result->applied = qdb_get_u64(&r);
	return qdb_reader_done(&r) && result->result <= QDB_MALFORMED;
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
