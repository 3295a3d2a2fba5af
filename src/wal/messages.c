/*-------------------------------------------------------------------------
 *
 * messages.c
 *		Encode and decode the payloads of the replication port.
 *
 * Plain C over the bounded writer and reader of core/frame.h.
 *
 *-------------------------------------------------------------------------
 */
#include "wal/messages.h"

#include <string.h>

#include "wal/compress.h"

bool
qdb_hello_encode(const QdbStreamHello *hello, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u32(&w, hello->version);
	qdb_put_string(&w, hello->cluster_id);
	qdb_put_u64(&w, hello->member);
	qdb_put_u64(&w, hello->incarnation);
	qdb_put_u64(&w, hello->boot);
	qdb_put_u64(&w, hello->epoch);
	qdb_put_u64(&w, hello->membership);
	qdb_put_u64(&w, hello->system_identifier);
	qdb_put_u32(&w, hello->replay_timeline);
	qdb_put_u64(&w, hello->replay_lsn);
	qdb_put_u64(&w, hello->wal_end);
	return qdb_writer_done(&w, len);
}

bool
qdb_hello_decode(const uint8_t *buf, uint32_t len, QdbStreamHello *hello)
{
	QdbReader	r = {.buf = buf,.size = len};

	memset(hello, 0, sizeof(*hello));
	hello->version = qdb_get_u32(&r);
	qdb_get_string(&r, hello->cluster_id, sizeof(hello->cluster_id));
	hello->member = qdb_get_u64(&r);
	hello->incarnation = qdb_get_u64(&r);
	hello->boot = qdb_get_u64(&r);
	hello->epoch = qdb_get_u64(&r);
	hello->membership = qdb_get_u64(&r);
	hello->system_identifier = qdb_get_u64(&r);
	hello->replay_timeline = qdb_get_u32(&r);
	hello->replay_lsn = qdb_get_u64(&r);
	hello->wal_end = qdb_get_u64(&r);
	return qdb_reader_done(&r);
}

bool
qdb_welcome_encode(const QdbStreamWelcome *welcome, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u64(&w, welcome->system_identifier);
	qdb_put_u64(&w, welcome->epoch);
	qdb_put_u32(&w, welcome->timeline);
	qdb_put_u64(&w, welcome->flush);
	qdb_put_u64(&w, welcome->connection);
	return qdb_writer_done(&w, len);
}

bool
qdb_welcome_decode(const uint8_t *buf, uint32_t len, QdbStreamWelcome *welcome)
{
	QdbReader	r = {.buf = buf,.size = len};

	memset(welcome, 0, sizeof(*welcome));
	welcome->system_identifier = qdb_get_u64(&r);
	welcome->epoch = qdb_get_u64(&r);
	welcome->timeline = qdb_get_u32(&r);
	welcome->flush = qdb_get_u64(&r);
	welcome->connection = qdb_get_u64(&r);
	return qdb_reader_done(&r);
}

bool
qdb_reply_encode(const QdbStreamReply *reply, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u64(&w, reply->epoch);
	qdb_put_u64(&w, reply->membership);
	qdb_put_u64(&w, reply->incarnation);
	qdb_put_u64(&w, reply->boot);
	qdb_put_u64(&w, reply->connection);
	qdb_put_u32(&w, reply->length);
	qdb_put_bytes(&w, reply->raw, reply->length);
	return qdb_writer_done(&w, len);
}

bool
qdb_reply_decode(const uint8_t *buf, uint32_t len, QdbStreamReply *reply)
{
	QdbReader	r = {.buf = buf,.size = len};
	const uint8_t *raw;

	memset(reply, 0, sizeof(*reply));
	reply->epoch = qdb_get_u64(&r);
	reply->membership = qdb_get_u64(&r);
	reply->incarnation = qdb_get_u64(&r);
	reply->boot = qdb_get_u64(&r);
	reply->connection = qdb_get_u64(&r);
	reply->length = qdb_get_u32(&r);
	if (r.failed || reply->length == 0 || reply->length > sizeof(reply->raw))
		return false;
	raw = qdb_get_bytes(&r, reply->length);
	if (raw == NULL)
		return false;
	memcpy(reply->raw, raw, reply->length);
	return qdb_reader_done(&r);
}

bool
qdb_position_encode(uint32_t timeline, uint64_t lsn, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u32(&w, timeline);
	qdb_put_u64(&w, lsn);
	return qdb_writer_done(&w, len);
}

bool
qdb_position_decode(const uint8_t *buf, uint32_t len, uint32_t *timeline, uint64_t *lsn)
{
	QdbReader	r = {.buf = buf,.size = len};

	*timeline = qdb_get_u32(&r);
	*lsn = qdb_get_u64(&r);
	return qdb_reader_done(&r);
}

bool
qdb_history_request_encode(uint32_t timeline, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u32(&w, timeline);
	return qdb_writer_done(&w, len);
}

bool
qdb_history_request_decode(const uint8_t *buf, uint32_t len, uint32_t *timeline)
{
	QdbReader	r = {.buf = buf,.size = len};

	*timeline = qdb_get_u32(&r);
	return qdb_reader_done(&r);
}

bool
qdb_history_encode(const QdbHistoryFile *history, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_string(&w, history->name);
	qdb_put_u32(&w, history->length);
	qdb_put_bytes(&w, history->content, history->length);
	return qdb_writer_done(&w, len);
}

bool
qdb_history_decode(const uint8_t *buf, uint32_t len, QdbHistoryFile *history)
{
	QdbReader	r = {.buf = buf,.size = len};

	memset(history, 0, sizeof(*history));
	qdb_get_string(&r, history->name, sizeof(history->name));
	history->length = qdb_get_u32(&r);
	history->content = qdb_get_bytes(&r, history->length);
	return history->content != NULL && qdb_reader_done(&r);
}

bool
qdb_wal_prefix_decode(const uint8_t *buf, uint32_t len, QdbWalPrefix *prefix)
{
	QdbReader	r = {.buf = buf,.size = len};

	prefix->flags = qdb_get_u8(&r);
	prefix->codec = qdb_get_u8(&r);
	prefix->raw_length = qdb_get_u32(&r);
	if (r.failed || (prefix->flags & ~QDB_WAL_APPLY_WANTED) != 0 ||
		prefix->codec > QDB_CODEC_ZSTD ||
		prefix->raw_length == 0 || prefix->raw_length > QDB_WAL_RAW_MAX)
		return false;
	prefix->data = buf + r.pos;
	prefix->data_length = len - (uint32_t) r.pos;
	return prefix->codec != QDB_CODEC_NONE || prefix->data_length == prefix->raw_length;
}

bool
qdb_wal_message_take(const uint8_t **rest, uint32_t *rest_length, const uint8_t **message, uint32_t *length)
{
	QdbReader	r = {.buf = *rest,.size = *rest_length};

	*length = qdb_get_u32(&r);
	*message = (r.failed || *length == 0) ? NULL : qdb_get_bytes(&r, *length);
	if (*message == NULL)
		return false;
	*rest += r.pos;
	*rest_length -= (uint32_t) r.pos;
	return true;
}
