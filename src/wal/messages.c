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

#include "core/walk.h"
#include "wal/compress.h"

static void
walk_hello(QdbWalker *w, void *fields)
{
	QdbStreamHello *hello = fields;

	qdb_walk_u32(w, &hello->version);
	qdb_walk_text(w, hello->cluster_id, sizeof(hello->cluster_id));
	qdb_walk_u64(w, &hello->member);
	qdb_walk_u64(w, &hello->incarnation);
	qdb_walk_u64(w, &hello->boot);
	qdb_walk_u64(w, &hello->epoch);
	qdb_walk_u64(w, &hello->membership);
	qdb_walk_u64(w, &hello->system_identifier);
	qdb_walk_u32(w, &hello->replay_timeline);
	qdb_walk_u64(w, &hello->replay_lsn);
	qdb_walk_u64(w, &hello->wal_end);
}

bool
qdb_hello_encode(const QdbStreamHello *hello, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_hello, hello, buf, len);
}

bool
qdb_hello_decode(const uint8_t *buf, uint32_t len, QdbStreamHello *hello)
{
	return qdb_decode(walk_hello, buf, len, hello, sizeof(*hello));
}

static void
walk_welcome(QdbWalker *w, void *fields)
{
	QdbStreamWelcome *welcome = fields;

	qdb_walk_u64(w, &welcome->system_identifier);
	qdb_walk_u64(w, &welcome->epoch);
	qdb_walk_u32(w, &welcome->timeline);
	qdb_walk_u64(w, &welcome->flush);
	qdb_walk_u64(w, &welcome->connection);
}

bool
qdb_welcome_encode(const QdbStreamWelcome *welcome, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_welcome, welcome, buf, len);
}

bool
qdb_welcome_decode(const uint8_t *buf, uint32_t len, QdbStreamWelcome *welcome)
{
	return qdb_decode(walk_welcome, buf, len, welcome, sizeof(*welcome));
}

static void
walk_reply(QdbWalker *w, void *fields)
{
	QdbStreamReply *reply = fields;
	uint32_t	n;

	qdb_walk_u64(w, &reply->epoch);
	qdb_walk_u64(w, &reply->membership);
	qdb_walk_u64(w, &reply->incarnation);
	qdb_walk_u64(w, &reply->boot);
	qdb_walk_u64(w, &reply->connection);
	n = qdb_walk_count(w, &reply->length, sizeof(reply->raw));
	w->bad |= n == 0;
	qdb_walk_bytes(w, reply->raw, n);
}

bool
qdb_reply_encode(const QdbStreamReply *reply, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_reply, reply, buf, len);
}

bool
qdb_reply_decode(const uint8_t *buf, uint32_t len, QdbStreamReply *reply)
{
	return qdb_decode(walk_reply, buf, len, reply, sizeof(*reply));
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

static void
walk_history(QdbWalker *w, void *fields)
{
	QdbHistoryFile *history = fields;
	uint32_t	length = history->length;

	qdb_walk_text(w, history->name, sizeof(history->name));
	qdb_walk_u32(w, &length);
	qdb_walk_rest(w, &history->content, &history->length);
	w->bad |= length != history->length;
}

bool
qdb_history_encode(const QdbHistoryFile *history, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_history, history, buf, len);
}

bool
qdb_history_decode(const uint8_t *buf, uint32_t len, QdbHistoryFile *history)
{
	return qdb_decode(walk_history, buf, len, history, sizeof(*history));
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
