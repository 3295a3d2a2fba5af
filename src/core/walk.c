/*-------------------------------------------------------------------------
 *
 * walk.c
 *		Structs as bytes and back.
 *
 *-------------------------------------------------------------------------
 */
#include "core/walk.h"

#include <string.h>

/* A writing walker does not store, so the cast takes no promise back. */
bool
qdb_encode(QdbWalk walk, const void *fields, uint8_t *buf, uint32_t *len)
{
	QdbWalker	w = {.writing = true,.writer = {.buf = buf,.size = *len}};

	walk(&w, (void *) fields);
	return qdb_writer_done(&w.writer, len) && !w.bad;
}

bool
qdb_decode(QdbWalk walk, const uint8_t *buf, uint32_t len, void *fields, size_t size)
{
	QdbWalker	w = {.reader = {.buf = buf,.size = len}};

	memset(fields, 0, size);
	walk(&w, fields);
	return qdb_reader_done(&w.reader) && !w.bad;
}

void
qdb_walk_u8(QdbWalker *w, uint8_t *v)
{
	if (w->writing)
		qdb_put_u8(&w->writer, *v);
	else
		*v = qdb_get_u8(&w->reader);
}

void
qdb_walk_u16(QdbWalker *w, uint16_t *v)
{
	if (w->writing)
		qdb_put_u16(&w->writer, *v);
	else
		*v = qdb_get_u16(&w->reader);
}

void
qdb_walk_u32(QdbWalker *w, uint32_t *v)
{
	if (w->writing)
		qdb_put_u32(&w->writer, *v);
	else
		*v = qdb_get_u32(&w->reader);
}

void
qdb_walk_u64(QdbWalker *w, uint64_t *v)
{
	if (w->writing)
		qdb_put_u64(&w->writer, *v);
	else
		*v = qdb_get_u64(&w->reader);
}

void
qdb_walk_i32(QdbWalker *w, int32_t *v)
{
	uint32_t	u = (uint32_t) *v;

	qdb_walk_u32(w, &u);
	if (!w->writing)
		*v = (int32_t) u;
}

void
qdb_walk_i64(QdbWalker *w, int64_t *v)
{
	uint64_t	u = (uint64_t) *v;

	qdb_walk_u64(w, &u);
	if (!w->writing)
		*v = (int64_t) u;
}

void
qdb_walk_bool(QdbWalker *w, bool *v)
{
	uint8_t		u = *v ? 1 : 0;

	qdb_walk_u8(w, &u);
	w->bad |= u > 1;
	if (!w->writing)
		*v = u == 1;
}

static uint32_t
limit_count(QdbWalker *w, uint32_t *n, uint32_t max)
{
	if (*n <= max)
		return *n;
	w->bad = true;
	if (!w->writing)
		*n = 0;
	return 0;
}

uint32_t
qdb_walk_short_count(QdbWalker *w, uint32_t *n, uint32_t max)
{
	uint8_t		u = (uint8_t) *n;

	qdb_walk_u8(w, &u);
	if (!w->writing)
		*n = u;
	return limit_count(w, n, max < UINT8_MAX ? max : UINT8_MAX);
}

uint32_t
qdb_walk_count(QdbWalker *w, uint32_t *n, uint32_t max)
{
	qdb_walk_u32(w, n);
	return limit_count(w, n, max);
}

void
qdb_walk_text(QdbWalker *w, char *text, size_t size)
{
	if (!w->writing)
		qdb_get_string(&w->reader, text, size);
	else if (memchr(text, '\0', size) == NULL)
		w->bad = true;
	else
		qdb_put_string(&w->writer, text);
}

void
qdb_walk_bytes(QdbWalker *w, uint8_t *bytes, size_t size)
{
	const uint8_t *read;

	if (w->writing)
		qdb_put_bytes(&w->writer, bytes, size);
	else if ((read = qdb_get_bytes(&w->reader, size)) != NULL)
		memcpy(bytes, read, size);
}

void
qdb_walk_rest(QdbWalker *w, const uint8_t **bytes, uint32_t *length)
{
	if (w->writing)
		qdb_put_bytes(&w->writer, *bytes, *length);
	else
	{
		*length = w->reader.failed ? 0 : (uint32_t) (w->reader.size - w->reader.pos);
		*bytes = qdb_get_bytes(&w->reader, *length);
	}
}
