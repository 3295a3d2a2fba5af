/*-------------------------------------------------------------------------
 *
 * raft_storage.c
 *		Log, metadata and snapshot files of a Raft node.
 *
 * The log is synced batch by batch: a crash can tear the last one only, and
 * that one was never acknowledged.  So a batch that fails its checks and
 * reaches to the end of the file is cut off; anything else is damage, and then
 * opening refuses rather than continue with a hole.
 *
 * Snapshots come before the shortening of the log that they allow, so a crash
 * between the two leaves a log that is too long, never one that is too short.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/raft_storage.h"
#include "core/frame.h"

#define LOG_NAME		"raft.log"
#define META_NAME		"raft.meta"
#define SNAP_NAME		"raft.snap"

#define LOG_MAGIC		0x4c424451	/* "QDBL" */
#define BATCH_MAGIC		0x42424451	/* "QDBB" */
#define META_MAGIC		0x4d424451	/* "QDBM" */
#define SNAP_MAGIC		0x53424451	/* "QDBS" */

#define LOG_HEADER		28		/* magic, format, id, first, crc */
#define BATCH_HEADER	28		/* magic, length, count, first, crc, header
								 * crc */
#define ENTRY_HEADER	13		/* term, type, length */
#define META_SIZE		36		/* magic, format, id, term, vote, crc */
#define SNAP_HEADER		48		/* magic, format, id, index, term, conf index,
								 * conf length, data length */
#define MAX_FILE		(256 * 1024 * 1024)

static bool
__attribute__((format(printf, 2, 3)))
storage_fail(QdbRaftStorage *s, const char *format,...)
{
	va_list		args;

	if (!s->failed)
	{
		va_start(args, format);
		vsnprintf(s->why, sizeof(s->why), format, args);
		va_end(args);
		s->failed = true;
	}
	return false;
}

static bool
write_at(int fd, const uint8_t *buf, size_t len, uint64_t offset)
{
	while (len > 0)
	{
		ssize_t		n = pwrite(fd, buf, len, (off_t) offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			if (n == 0)
				errno = ENOSPC;
			return false;
		}
		buf += n;
		len -= (size_t) n;
		offset += (uint64_t) n;
	}
	return true;
}

static bool
read_at(int fd, uint8_t *buf, size_t len, uint64_t offset)
{
	while (len > 0)
	{
		ssize_t		n = pread(fd, buf, len, (off_t) offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			if (n == 0)
				errno = EIO;
			return false;
		}
		buf += n;
		len -= (size_t) n;
		offset += (uint64_t) n;
	}
	return true;
}

/* The whole file, malloc'd; NULL with errno (ENOENT: there is none). */
static uint8_t *
read_file(int dir_fd, const char *name, size_t *len)
{
	struct stat st;
	uint8_t    *buf;
	int			fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) != 0 || st.st_size > MAX_FILE)
	{
		close(fd);
		errno = EFBIG;
		return NULL;
	}
	*len = (size_t) st.st_size;
	buf = malloc(*len + 1);
	if (buf != NULL && !read_at(fd, buf, *len, 0))
	{
		free(buf);
		buf = NULL;
		errno = EIO;
	}
	close(fd);
	return buf;
}

/* Replaces a file: after a crash there is the old one or the new one. */
static bool
replace_file(int dir_fd, const char *name, const uint8_t *buf, size_t len)
{
	char		tmp[64];
	int			save;
	int			fd;

	snprintf(tmp, sizeof(tmp), "%s.tmp", name);
	fd = openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	if (!write_at(fd, buf, len, 0) || fsync(fd) != 0)
	{
		save = errno;
		close(fd);
		unlinkat(dir_fd, tmp, 0);
		errno = save;
		return false;
	}
	close(fd);
	return renameat(dir_fd, tmp, dir_fd, name) == 0 && fsync(dir_fd) == 0;
}

static bool
write_meta(int dir_fd, uint64_t id, uint64_t term, uint64_t vote)
{
	uint8_t		buf[META_SIZE];
	QdbWriter	w = {buf, sizeof(buf), 0, false};

	qdb_put_u32(&w, META_MAGIC);
	qdb_put_u32(&w, QDB_RAFT_META_FORMAT);
	qdb_put_u64(&w, id);
	qdb_put_u64(&w, term);
	qdb_put_u64(&w, vote);
	qdb_put_u32(&w, qdb_crc32c(0, buf, META_SIZE - 4));
	return replace_file(dir_fd, META_NAME, buf, sizeof(buf));
}

static void
put_log_header(uint8_t *buf, uint64_t id, uint64_t first)
{
	QdbWriter	w = {buf, LOG_HEADER, 0, false};

	qdb_put_u32(&w, LOG_MAGIC);
	qdb_put_u32(&w, QDB_RAFT_LOG_FORMAT);
	qdb_put_u64(&w, id);
	qdb_put_u64(&w, first);
	qdb_put_u32(&w, qdb_crc32c(0, buf, LOG_HEADER - 4));
}

/* buf has BATCH_HEADER bytes and then the len bytes of count entries. */
static void
put_batch_header(uint8_t *buf, uint32_t len, uint32_t count, uint64_t first)
{
	QdbWriter	w = {buf, BATCH_HEADER, 0, false};

	qdb_put_u32(&w, BATCH_MAGIC);
	qdb_put_u32(&w, len);
	qdb_put_u32(&w, count);
	qdb_put_u64(&w, first);
	qdb_put_u32(&w, qdb_crc32c(0, buf + BATCH_HEADER, len));
	qdb_put_u32(&w, qdb_crc32c(0, buf, BATCH_HEADER - 4));
}

static void
put_entry(uint8_t *buf, uint64_t term, uint8_t type, const void *data, uint32_t len)
{
	QdbWriter	w = {buf, ENTRY_HEADER + (size_t) len, 0, false};

	qdb_put_u64(&w, term);
	qdb_put_u8(&w, type);
	qdb_put_u32(&w, len);
	qdb_put_bytes(&w, data, len);
}

bool
qdb_storage_create(const char *dir, uint64_t id, uint8_t type,
				   const uint8_t *entry, uint32_t len,
				   char *why, size_t why_size)
{
	uint8_t    *buf;
	size_t		size = LOG_HEADER;
	bool		ok;
	int			dir_fd;

	if (id == 0 || len > QDB_RAFT_MAX_ENTRY)
	{
		snprintf(why, why_size, "member id or first log entry is not valid");
		return false;
	}
	if (mkdir(dir, 0700) != 0 && errno != EEXIST)
	{
		snprintf(why, why_size, "could not create directory \"%s\": %s", dir, strerror(errno));
		return false;
	}
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0)
	{
		snprintf(why, why_size, "could not open directory \"%s\": %s", dir, strerror(errno));
		return false;
	}
	if (faccessat(dir_fd, LOG_NAME, F_OK, 0) == 0)
	{
		snprintf(why, why_size, "directory \"%s\" has a Raft log already", dir);
		close(dir_fd);
		return false;
	}
	buf = malloc(LOG_HEADER + BATCH_HEADER + ENTRY_HEADER + (size_t) len);
	if (buf == NULL)
	{
		snprintf(why, why_size, "out of memory");
		close(dir_fd);
		return false;
	}
	put_log_header(buf, id, 1);
	if (entry != NULL)
	{
		put_entry(buf + LOG_HEADER + BATCH_HEADER, 1, type, entry, len);
		put_batch_header(buf + LOG_HEADER, ENTRY_HEADER + len, 1, 1);
		size += BATCH_HEADER + ENTRY_HEADER + (size_t) len;
	}

	/* The log comes last: what has one is complete. */
	ok = write_meta(dir_fd, id, entry != NULL ? 1 : 0, 0) &&
		replace_file(dir_fd, LOG_NAME, buf, size);
	if (!ok)
		snprintf(why, why_size, "could not write Raft files in \"%s\": %s", dir, strerror(errno));
	free(buf);
	close(dir_fd);
	return ok;
}

static bool
load_meta(QdbRaftStorage *s)
{
	size_t		len = 0;
	uint8_t    *buf = read_file(s->dir_fd, META_NAME, &len);
	QdbReader	r = {buf, len, 0, false};
	uint32_t	magic;
	uint32_t	format;
	uint64_t	id;

	if (buf == NULL)
		return storage_fail(s, "could not read Raft metadata \"%s/%s\": %s",
							s->dir, META_NAME, strerror(errno));
	magic = qdb_get_u32(&r);
	format = qdb_get_u32(&r);
	id = qdb_get_u64(&r);
	s->term = qdb_get_u64(&r);
	s->vote = qdb_get_u64(&r);
	if (magic == META_MAGIC && format != QDB_RAFT_META_FORMAT && !r.failed)
		storage_fail(s, "Raft metadata has format %u, this version knows %u",
					 format, QDB_RAFT_META_FORMAT);
	else if (qdb_get_u32(&r) != qdb_crc32c(0, buf, META_SIZE - 4 < len ? META_SIZE - 4 : len) ||
			 magic != META_MAGIC || !qdb_reader_done(&r) || s->term > QDB_RAFT_MAX_NUMBER)
		storage_fail(s, "Raft metadata \"%s/%s\" is corrupt", s->dir, META_NAME);
	else if (id != s->id)
		storage_fail(s, "Raft metadata belongs to member %llu, not %llu",
					 (unsigned long long) id, (unsigned long long) s->id);
	free(buf);
	return !s->failed;
}

static bool
reserve_entries(QdbRaftStorage *s, size_t more)
{
	QdbLogEntry *entries;
	size_t		cap = s->cap;

	if (s->n + more <= s->cap)
		return true;
	while (cap < s->n + more)
		cap = cap < 64 ? 64 : cap * 2;
	entries = realloc(s->entries, cap * sizeof(QdbLogEntry));
	if (entries == NULL)
		return storage_fail(s, "out of memory for the Raft log");
	s->entries = entries;
	s->cap = cap;
	return true;
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
		!reserve_entries(s, h->count))
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

	while (pos < len)
	{
		BatchHeader h;
		size_t		left = len - pos;

		if (!get_batch_header(buf + pos, left, &h))
		{
			/* a torn header is followed by nothing that was written later */
			if (find_batch(buf + pos + 1, left - 1))
				return storage_fail(s, "Raft log \"%s/%s\" is corrupt at offset %zu: "
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
			return storage_fail(s, "Raft log \"%s/%s\" is corrupt at offset %zu: "
								"wrong checksum before its end", s->dir, LOG_NAME, pos);
		}
		if (!load_batch(s, &h, buf + pos + BATCH_HEADER, pos + BATCH_HEADER))
			return storage_fail(s, "Raft log \"%s/%s\" is corrupt at offset %zu: "
								"entries are not consistent", s->dir, LOG_NAME, pos);
		pos += BATCH_HEADER + h.len;
	}
	s->log_end = pos;
	s->torn = pos < len;
	return true;
}

static bool
load_log(QdbRaftStorage *s)
{
	size_t		len = 0;
	uint8_t    *buf = read_file(s->dir_fd, LOG_NAME, &len);
	QdbReader	r = {buf, len, 0, false};
	uint32_t	magic;
	uint32_t	format;
	uint64_t	id;

	if (buf == NULL)
		return storage_fail(s, "could not read Raft log \"%s/%s\": %s",
							s->dir, LOG_NAME, strerror(errno));
	magic = qdb_get_u32(&r);
	format = qdb_get_u32(&r);
	id = qdb_get_u64(&r);
	s->first = qdb_get_u64(&r);
	if (magic == LOG_MAGIC && format != QDB_RAFT_LOG_FORMAT && !r.failed)
		storage_fail(s, "Raft log has format %u, this version knows %u",
					 format, QDB_RAFT_LOG_FORMAT);
	else if (qdb_get_u32(&r) != qdb_crc32c(0, buf, len < LOG_HEADER - 4 ? len : LOG_HEADER - 4) ||
			 r.failed || magic != LOG_MAGIC ||
			 s->first == 0 || s->first > QDB_RAFT_MAX_NUMBER)
		storage_fail(s, "Raft log \"%s/%s\" is corrupt: bad header", s->dir, LOG_NAME);
	else if (id != s->id)
		storage_fail(s, "Raft log belongs to member %llu, not %llu",
					 (unsigned long long) id, (unsigned long long) s->id);
	else
		scan_log(s, buf, len);
	free(buf);
	return !s->failed;
}

/* Opens the log for writing, without its torn end. */
static bool
open_log(QdbRaftStorage *s)
{
	if (s->log_fd >= 0)
		close(s->log_fd);
	s->log_fd = openat(s->dir_fd, LOG_NAME, O_RDWR | O_CLOEXEC);
	if (s->log_fd < 0 ||
		(s->torn && (ftruncate(s->log_fd, (off_t) s->log_end) != 0 || fsync(s->log_fd) != 0)))
		return storage_fail(s, "could not open Raft log \"%s/%s\": %s",
							s->dir, LOG_NAME, strerror(errno));
	return true;
}

/*
 * rewrite_log
 *		Replaces the log by one that begins at index first.
 */
static bool
rewrite_log(QdbRaftStorage *s, uint64_t first)
{
	size_t		skip = (size_t) (first - s->first) < s->n ? (size_t) (first - s->first) : s->n;
	size_t		n = s->n - skip;
	size_t		len = 0;
	size_t		pos = LOG_HEADER + BATCH_HEADER;
	uint8_t    *buf;
	size_t		i;

	for (i = skip; i < s->n; i++)
		len += ENTRY_HEADER + s->entries[i].len;
	buf = malloc(pos + len);
	if (buf == NULL)
		return storage_fail(s, "out of memory for the Raft log");
	for (i = 0; i < n; i++)
	{
		QdbLogEntry *e = &s->entries[skip + i];
		uint8_t    *payload = buf + pos + ENTRY_HEADER;

		if (!read_at(s->log_fd, payload, e->len, e->offset))
		{
			free(buf);
			return storage_fail(s, "could not read Raft log: %s", strerror(errno));
		}
		/* the payload is in its place already */
		put_entry(buf + pos, e->term, e->type, payload, 0);
		buf[pos + 9] = (uint8_t) e->len;
		buf[pos + 10] = (uint8_t) (e->len >> 8);
		buf[pos + 11] = (uint8_t) (e->len >> 16);
		buf[pos + 12] = (uint8_t) (e->len >> 24);
		e->offset = pos + ENTRY_HEADER;
		pos += ENTRY_HEADER + e->len;
	}
	put_log_header(buf, s->id, first);
	if (n > 0)
		put_batch_header(buf + LOG_HEADER, (uint32_t) len, (uint32_t) n, first);
	else
		pos = LOG_HEADER;
	if (!replace_file(s->dir_fd, LOG_NAME, buf, pos))
	{
		free(buf);
		return storage_fail(s, "could not rewrite Raft log: %s", strerror(errno));
	}
	free(buf);
	memmove(s->entries, s->entries + skip, n * sizeof(QdbLogEntry));
	s->n = n;
	s->first = first;
	s->log_end = pos;
	s->torn = false;
	return open_log(s);
}

bool
qdb_storage_get_snapshot(QdbRaftStorage *s, QdbRaftSnapshot *snap)
{
	size_t		len = 0;
	uint8_t    *buf = read_file(s->dir_fd, SNAP_NAME, &len);
	QdbReader	r = {buf, len, 0, false};
	uint32_t	magic;
	uint32_t	format;
	uint64_t	id;
	const uint8_t *conf;
	const uint8_t *data;

	memset(snap, 0, sizeof(*snap));
	if (buf == NULL && errno == ENOENT)
		return true;
	if (buf == NULL)
		return storage_fail(s, "could not read Raft snapshot \"%s/%s\": %s",
							s->dir, SNAP_NAME, strerror(errno));
	magic = qdb_get_u32(&r);
	format = qdb_get_u32(&r);
	id = qdb_get_u64(&r);
	snap->index = qdb_get_u64(&r);
	snap->term = qdb_get_u64(&r);
	snap->conf_index = qdb_get_u64(&r);
	snap->conf_len = qdb_get_u32(&r);
	snap->data_len = qdb_get_u32(&r);
	conf = qdb_get_bytes(&r, snap->conf_len);
	data = qdb_get_bytes(&r, snap->data_len);
	if (r.failed || magic != SNAP_MAGIC || format != QDB_RAFT_SNAP_FORMAT || id != s->id ||
		qdb_get_u32(&r) != qdb_crc32c(0, buf, len - 4) || !qdb_reader_done(&r) ||
		snap->index == 0 || snap->index > QDB_RAFT_MAX_NUMBER ||
		snap->term == 0 || snap->term > s->term ||
		snap->conf_index == 0 || snap->conf_index > snap->index)
		storage_fail(s, "Raft snapshot \"%s/%s\" is corrupt or of another version or member",
					 s->dir, SNAP_NAME);
	else
	{
		snap->conf = malloc((size_t) snap->conf_len + 1);
		snap->data = malloc((size_t) snap->data_len + 1);
		if (snap->conf == NULL || snap->data == NULL)
		{
			free(snap->conf);
			free(snap->data);
			storage_fail(s, "out of memory for a Raft snapshot");
		}
		else
		{
			memcpy(snap->conf, conf, snap->conf_len);
			memcpy(snap->data, data, snap->data_len);
		}
	}
	free(buf);
	return !s->failed;
}

/*
 * Log and snapshot must meet.  A snapshot from the leader that the log does
 * not contain was followed by a crash before the log was emptied.
 */
static bool
join_snapshot(QdbRaftStorage *s)
{
	QdbRaftSnapshot snap;
	uint64_t	at;

	if (!qdb_storage_get_snapshot(s, &snap))
		return false;
	free(snap.conf);
	free(snap.data);
	if (snap.index == 0)
		return s->first == 1 ||
			storage_fail(s, "Raft log \"%s\" is corrupt: it begins at %llu, without a snapshot",
						 s->dir, (unsigned long long) s->first);
	if (s->first > snap.index + 1)
		return storage_fail(s, "Raft log \"%s\" is corrupt: it begins at %llu, after snapshot %llu",
							s->dir, (unsigned long long) s->first,
							(unsigned long long) snap.index);
	at = s->first == snap.index + 1 ? snap.term : qdb_storage_term_of(s, snap.index);
	s->snap_index = snap.index;
	s->snap_term = snap.term;
	if (at != snap.term)
	{
		s->n = 0;
		return rewrite_log(s, snap.index + 1);
	}
	if (s->n > 0 && s->first == snap.index + 1 && s->entries[0].term < snap.term)
		return storage_fail(s, "Raft log \"%s\" is corrupt: terms go back after the snapshot",
							s->dir);
	return true;
}

QdbRaftStorage *
qdb_storage_open(const char *dir, uint64_t id, char *why, size_t why_size)
{
	QdbRaftStorage *s = calloc(1, sizeof(QdbRaftStorage));

	if (s == NULL)
	{
		snprintf(why, why_size, "out of memory");
		return NULL;
	}
	s->id = id;
	s->log_fd = -1;
	snprintf(s->dir, sizeof(s->dir), "%s", dir);
	s->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir_fd < 0)
		storage_fail(s, "could not open directory \"%s\": %s", dir, strerror(errno));
	else if (load_meta(s) && load_log(s) && open_log(s))
		join_snapshot(s);
	if (s->failed)
	{
		snprintf(why, why_size, "%s", s->why);
		qdb_storage_close(s);
		return NULL;
	}
	return s;
}

void
qdb_storage_close(QdbRaftStorage *s)
{
	if (s->log_fd >= 0)
		close(s->log_fd);
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	free(s->entries);
	free(s->batch);
	free(s);
}

void
qdb_storage_set_term(QdbRaftStorage *s, uint64_t term)
{
	s->term = term;
	s->vote = 0;
	s->meta_dirty = true;
}

void
qdb_storage_set_vote(QdbRaftStorage *s, uint64_t vote)
{
	s->vote = vote;
	s->meta_dirty = true;
}

bool
qdb_storage_append(QdbRaftStorage *s, uint64_t term, uint8_t type,
				   const void *data, uint32_t len)
{
	size_t		used = s->npending > 0 ? s->batch_used : BATCH_HEADER;
	size_t		need = used + ENTRY_HEADER + len;
	QdbLogEntry *e;

	if (s->failed || !reserve_entries(s, 1))
		return false;
	if (len > QDB_RAFT_MAX_ENTRY)
		return storage_fail(s, "Raft log entry of %u bytes is too long", len);
	if (need > s->batch_cap)
	{
		uint8_t    *batch = realloc(s->batch, need * 2);

		if (batch == NULL)
			return storage_fail(s, "out of memory for the Raft log");
		s->batch = batch;
		s->batch_cap = need * 2;
	}
	put_entry(s->batch + used, term, type, data, len);
	e = &s->entries[s->n++];
	e->term = term;
	e->type = type;
	e->len = len;
	e->offset = used + ENTRY_HEADER;
	s->batch_used = need;
	s->npending++;
	return true;
}

bool
qdb_storage_sync_meta(QdbRaftStorage *s)
{
	if (s->failed)
		return false;
	if (!s->meta_dirty)
		return true;
	if (!write_meta(s->dir_fd, s->id, s->term, s->vote))
		return storage_fail(s, "could not write Raft metadata: %s", strerror(errno));
	s->meta_dirty = false;
	return true;
}

bool
qdb_storage_sync(QdbRaftStorage *s)
{
	size_t		i;

	/* The term first: opening refuses a log that is ahead of it. */
	if (!qdb_storage_sync_meta(s))
		return false;
	if (s->npending == 0)
		return true;
	put_batch_header(s->batch, (uint32_t) (s->batch_used - BATCH_HEADER),
					 (uint32_t) s->npending, s->first + s->n - s->npending);
	if (!write_at(s->log_fd, s->batch, s->batch_used, s->log_end) ||
		fdatasync(s->log_fd) != 0)
		return storage_fail(s, "could not write Raft log: %s", strerror(errno));
	for (i = s->n - s->npending; i < s->n; i++)
		s->entries[i].offset += s->log_end;
	s->log_end += s->batch_used;
	s->npending = 0;
	return true;
}

/*
 * Entries share batches, so a cut inside one rewrites the log; conflicts are
 * rare and the log is short.
 */
bool
qdb_storage_truncate(QdbRaftStorage *s, uint64_t index)
{
	if (s->failed)
		return false;
	if (index >= s->first + s->n)
		return true;
	if (!qdb_storage_sync(s))
		return false;
	s->n = index <= s->first ? 0 : (size_t) (index - s->first);
	return rewrite_log(s, s->first);
}

bool
qdb_storage_put_snapshot(QdbRaftStorage *s, const QdbRaftSnapshot *snap, unsigned trailing)
{
	size_t		size = SNAP_HEADER + (size_t) snap->conf_len + snap->data_len + 4;
	uint8_t    *buf;
	QdbWriter	w = {NULL, size, 0, false};
	bool		ok;

	if (!qdb_storage_sync(s))
		return false;
	w.buf = buf = malloc(size);
	if (buf == NULL)
		return storage_fail(s, "out of memory for a Raft snapshot");
	qdb_put_u32(&w, SNAP_MAGIC);
	qdb_put_u32(&w, QDB_RAFT_SNAP_FORMAT);
	qdb_put_u64(&w, s->id);
	qdb_put_u64(&w, snap->index);
	qdb_put_u64(&w, snap->term);
	qdb_put_u64(&w, snap->conf_index);
	qdb_put_u32(&w, snap->conf_len);
	qdb_put_u32(&w, snap->data_len);
	qdb_put_bytes(&w, snap->conf, snap->conf_len);
	qdb_put_bytes(&w, snap->data, snap->data_len);
	qdb_put_u32(&w, qdb_crc32c(0, buf, size - 4));
	ok = !w.failed && replace_file(s->dir_fd, SNAP_NAME, buf, size);
	free(buf);
	if (!ok)
		return storage_fail(s, "could not write Raft snapshot: %s", strerror(errno));
	s->snap_index = snap->index;
	s->snap_term = snap->term;
	if (trailing == 0)
	{
		s->n = 0;
		return rewrite_log(s, snap->index + 1);
	}
	if (snap->index <= trailing || snap->index - trailing < s->first)
		return true;
	return rewrite_log(s, snap->index - trailing + 1);
}

uint64_t
qdb_storage_last_index(const QdbRaftStorage *s)
{
	return s->first + s->n - 1;
}

uint64_t
qdb_storage_term_of(const QdbRaftStorage *s, uint64_t index)
{
	if (index >= s->first && index - s->first < s->n)
		return s->entries[index - s->first].term;
	return index != 0 && index == s->snap_index ? s->snap_term : 0;
}

bool
qdb_storage_read(QdbRaftStorage *s, uint64_t index, void *buf)
{
	const QdbLogEntry *e = &s->entries[index - s->first];

	if (!read_at(s->log_fd, buf, e->len, e->offset))
		return storage_fail(s, "could not read Raft log: %s", strerror(errno));
	return true;
}
