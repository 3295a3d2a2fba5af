/*-------------------------------------------------------------------------
 *
 * raft_load.c
 *		Reading the Raft files at the start.
 *
 * The log is synced batch by batch: a crash can tear the last one only, and
 * that one was never acknowledged.  So a batch that fails its checks and
 * reaches to the end of the file is cut off; anything else is damage, and then
 * opening refuses rather than continue with a hole.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/raft_disk.h"

bool
qdb_raft_load_meta(QdbRaftStorage *s)
{
	size_t		len = 0;
	uint8_t    *buf = qdb_raft_read_file(s->dir_fd, META_NAME, &len);
	QdbReader	r = {buf, len, 0, false};
	uint32_t	magic;
	uint32_t	format;
	uint64_t	id;

	if (buf == NULL)
		return qdb_raft_storage_fail(s, "could not read Raft metadata \"%s/%s\": %s",
									 s->dir, META_NAME, strerror(errno));
	magic = qdb_get_u32(&r);
	format = qdb_get_u32(&r);
	id = qdb_get_u64(&r);
	s->term = qdb_get_u64(&r);
	s->vote = qdb_get_u64(&r);
	if (magic == META_MAGIC && format != QDB_RAFT_META_FORMAT && !r.failed)
		qdb_raft_storage_fail(s, "Raft metadata has format %u, this version knows %u",
							  format, QDB_RAFT_META_FORMAT);
	else if (qdb_get_u32(&r) != qdb_crc32c(0, buf, META_SIZE - 4 < len ? META_SIZE - 4 : len) ||
			 magic != META_MAGIC || !qdb_reader_done(&r) || s->term > QDB_RAFT_MAX_NUMBER)
		qdb_raft_storage_fail(s, "Raft metadata \"%s/%s\" is corrupt", s->dir, META_NAME);
	else if (id != s->id)
		qdb_raft_storage_fail(s, "Raft metadata belongs to member %llu, not %llu",
							  (unsigned long long) id, (unsigned long long) s->id);
	free(buf);
	return !s->failed;
}

typedef struct BatchHeader
{
	uint32_t	len;
	uint32_t	count;
	uint64_t	first;
	uint32_t	crc;
} BatchHeader;

static bool
get_batch_header(const uint8_t *buf, size_t len, BatchHeader *h)
{
	QdbReader	r = {buf, len, 0, false};
	uint32_t	magic = qdb_get_u32(&r);

	h->len = qdb_get_u32(&r);
	h->count = qdb_get_u32(&r);
	h->first = qdb_get_u64(&r);
	h->crc = qdb_get_u32(&r);
	return qdb_get_u32(&r) == qdb_crc32c(0, buf, len < BATCH_HEADER - 4 ? len : BATCH_HEADER - 4) &&
		!r.failed && magic == BATCH_MAGIC;
}

/* Is there a whole batch header anywhere in here? */
static bool
find_batch(const uint8_t *buf, size_t len)
{
	BatchHeader h;
	size_t		i;

	for (i = 0; i + BATCH_HEADER <= len; i++)
		if (buf[i] == (BATCH_MAGIC & 0xff) && get_batch_header(buf + i, len - i, &h))
			return true;
	return false;
}

/* Entries of a batch whose CRC is right; file_offset is that of buf. */
static bool
load_batch(QdbRaftStorage *s, const BatchHeader *h, const uint8_t *buf, uint64_t file_offset)
{
	QdbReader	r = {buf, h->len, 0, false};
	uint32_t	i;

	if (h->first != s->first + s->n || h->count > h->len / ENTRY_HEADER ||
		!qdb_raft_reserve_entries(s, h->count))
		return false;
	for (i = 0; i < h->count; i++)
	{
		QdbLogEntry *e = &s->entries[s->n];

		e->term = qdb_get_u64(&r);
		e->type = qdb_get_u8(&r);
		e->len = qdb_get_u32(&r);
		e->offset = file_offset + r.pos;
		if (e->len > QDB_RAFT_MAX_ENTRY || qdb_get_bytes(&r, e->len) == NULL ||
			e->term == 0 || e->term > s->term || e->type < 1 || e->type > 3 ||
			(s->n > 0 && e->term < s->entries[s->n - 1].term))
			return false;
		s->n++;
	}
	return qdb_reader_done(&r);
}

/*
 * scan_log
 *		Reads all batches of the log in buf.  log_end is where the good part
 *		ends; what follows it may be cut off.
 */
static bool
scan_log(QdbRaftStorage *s, const uint8_t *buf, size_t len)
{
	size_t		pos = LOG_HEADER;

	s->last_batch = pos;
	while (pos < len)
	{
		BatchHeader h;
		size_t		left = len - pos;

		if (!get_batch_header(buf + pos, left, &h))
		{
			/* a torn header is followed by nothing that was written later */
			if (find_batch(buf + pos + 1, left - 1))
				return qdb_raft_storage_fail(s, "Raft log \"%s/%s\" is corrupt at offset %zu: "
											 "damaged before its end", s->dir, LOG_NAME, pos);
			break;
		}
		left -= BATCH_HEADER;
		if (h.len > left)
			break;
		if (h.crc != qdb_crc32c(0, buf + pos + BATCH_HEADER, h.len))
		{
			if (h.len == left)
				break;
			return qdb_raft_storage_fail(s, "Raft log \"%s/%s\" is corrupt at offset %zu: "
										 "wrong checksum before its end", s->dir, LOG_NAME, pos);
		}
		if (!load_batch(s, &h, buf + pos + BATCH_HEADER, pos + BATCH_HEADER))
			return qdb_raft_storage_fail(s, "Raft log \"%s/%s\" is corrupt at offset %zu: "
										 "entries are not consistent", s->dir, LOG_NAME, pos);
		s->last_batch = pos;
		pos += BATCH_HEADER + h.len;
	}
	s->log_end = pos;
	s->torn = pos < len;
	return true;
}

bool
qdb_raft_load_log(QdbRaftStorage *s)
{
	size_t		len = 0;
	uint8_t    *buf = qdb_raft_read_file(s->dir_fd, LOG_NAME, &len);
	QdbReader	r = {buf, len, 0, false};
	uint32_t	magic;
	uint32_t	format;
	uint64_t	id;

	if (buf == NULL)
		return qdb_raft_storage_fail(s, "could not read Raft log \"%s/%s\": %s",
									 s->dir, LOG_NAME, strerror(errno));
	magic = qdb_get_u32(&r);
	format = qdb_get_u32(&r);
	id = qdb_get_u64(&r);
	s->first = qdb_get_u64(&r);
	if (magic == LOG_MAGIC && format != QDB_RAFT_LOG_FORMAT && !r.failed)
		qdb_raft_storage_fail(s, "Raft log has format %u, this version knows %u",
							  format, QDB_RAFT_LOG_FORMAT);
	else if (qdb_get_u32(&r) != qdb_crc32c(0, buf, len < LOG_HEADER - 4 ? len : LOG_HEADER - 4) ||
			 r.failed || magic != LOG_MAGIC ||
			 s->first == 0 || s->first > QDB_RAFT_MAX_NUMBER)
		qdb_raft_storage_fail(s, "Raft log \"%s/%s\" is corrupt: bad header", s->dir, LOG_NAME);
	else if (id != s->id)
		qdb_raft_storage_fail(s, "Raft log belongs to member %llu, not %llu",
							  (unsigned long long) id, (unsigned long long) s->id);
	else
		scan_log(s, buf, len);
	free(buf);
	return !s->failed;
}
