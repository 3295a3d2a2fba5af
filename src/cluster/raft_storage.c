/*-------------------------------------------------------------------------
 *
 * raft_storage.c
 *		Log, metadata and snapshot files of a Raft node.
 *
 * Snapshots come before the shortening of the log that they allow, so a crash
 * between the two leaves a log that is too long, never one that is too short.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/raft_disk.h"

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
	qdb_raft_put_log_header(buf, id, 1);
	if (entry != NULL)
	{
		qdb_raft_put_entry(buf + LOG_HEADER + BATCH_HEADER, 1, type, entry, len);
		qdb_raft_put_batch_header(buf + LOG_HEADER, ENTRY_HEADER + len, 1, 1);
		size += BATCH_HEADER + ENTRY_HEADER + (size_t) len;
	}

	/* The log comes last: what has one is complete. */
	ok = qdb_raft_write_meta(dir_fd, id, entry != NULL ? 1 : 0, 0) &&
		qdb_raft_replace_file(dir_fd, LOG_NAME, buf, size);
	if (!ok)
		snprintf(why, why_size, "could not write Raft files in \"%s\": %s", dir, strerror(errno));
	free(buf);
	close(dir_fd);
	return ok;
}

/* Opens the log for writing, without its torn end. */
static bool
open_log(QdbRaftStorage *s)
{
	if (s->log_fd >= 0)
		close(s->log_fd);
	s->log_fd = openat(s->dir_fd, LOG_NAME, O_RDWR | O_CLOEXEC);
	if (s->log_fd < 0 ||
		(s->torn && ftruncate(s->log_fd, (off_t) s->log_end) != 0))
		return qdb_raft_storage_fail(s, "could not open Raft log \"%s/%s\": %s",
									 s->dir, LOG_NAME, strerror(errno));
	return true;
}

/*
 * settle
 *		Makes sure of what a new process has read.
 *
 * The one before may have died or failed between a write and its sync: then the machine's memory
 * has it and the disk has not, and from now on it would count as acknowledged.  Only
 * the last batch can be such a one.  It is written again, since a sync that fails leaves
 * its pages as if they were on the disk.  For files that were replaced, the folder.
 */
static bool
settle(QdbRaftStorage *s)
{
	size_t		len = (size_t) (s->log_end - s->last_batch);
	uint8_t    *buf = malloc(len + 1);
	bool		ok;

	if (buf == NULL)
		return qdb_raft_storage_fail(s, "out of memory for the Raft log");
	ok = qdb_raft_read_at(s->log_fd, buf, len, s->last_batch) &&
		qdb_raft_write_at(s->log_fd, buf, len, s->last_batch) &&
		fsync(s->log_fd) == 0 && fsync(s->dir_fd) == 0;
	free(buf);
	return ok || qdb_raft_storage_fail(s, "could not make Raft log \"%s/%s\" durable: %s",
									   s->dir, LOG_NAME, strerror(errno));
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
		return qdb_raft_storage_fail(s, "out of memory for the Raft log");
	for (i = 0; i < n; i++)
	{
		QdbLogEntry *e = &s->entries[skip + i];
		uint8_t    *payload = buf + pos + ENTRY_HEADER;

		if (!qdb_raft_read_at(s->log_fd, payload, e->len, e->offset))
		{
			free(buf);
			return qdb_raft_storage_fail(s, "could not read Raft log: %s", strerror(errno));
		}
		/* the payload is in its place already */
		qdb_raft_put_entry(buf + pos, e->term, e->type, payload, 0);
		buf[pos + 9] = (uint8_t) e->len;
		buf[pos + 10] = (uint8_t) (e->len >> 8);
		buf[pos + 11] = (uint8_t) (e->len >> 16);
		buf[pos + 12] = (uint8_t) (e->len >> 24);
		e->offset = pos + ENTRY_HEADER;
		pos += ENTRY_HEADER + e->len;
	}
	qdb_raft_put_log_header(buf, s->id, first);
	if (n > 0)
		qdb_raft_put_batch_header(buf + LOG_HEADER, (uint32_t) len, (uint32_t) n, first);
	else
		pos = LOG_HEADER;
	if (!qdb_raft_replace_file(s->dir_fd, LOG_NAME, buf, pos))
	{
		free(buf);
		return qdb_raft_storage_fail(s, "could not rewrite Raft log: %s", strerror(errno));
	}
	free(buf);
	if (n > 0)
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
	uint8_t    *buf = qdb_raft_read_file(s->dir_fd, SNAP_NAME, &len);
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
		return qdb_raft_storage_fail(s, "could not read Raft snapshot \"%s/%s\": %s",
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
		qdb_raft_storage_fail(s, "Raft snapshot \"%s/%s\" is corrupt or of another version or member",
							  s->dir, SNAP_NAME);
	else
	{
		snap->conf = malloc((size_t) snap->conf_len + 1);
		snap->data = malloc((size_t) snap->data_len + 1);
		if (snap->conf == NULL || snap->data == NULL)
		{
			free(snap->conf);
			free(snap->data);
			qdb_raft_storage_fail(s, "out of memory for a Raft snapshot");
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
			qdb_raft_storage_fail(s, "Raft log \"%s\" is corrupt: it begins at %llu, without a snapshot",
								  s->dir, (unsigned long long) s->first);
	if (s->first > snap.index + 1)
		return qdb_raft_storage_fail(s, "Raft log \"%s\" is corrupt: it begins at %llu, after snapshot %llu",
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
		return qdb_raft_storage_fail(s, "Raft log \"%s\" is corrupt: terms go back after the snapshot",
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
		qdb_raft_storage_fail(s, "could not open directory \"%s\": %s", dir, strerror(errno));
	else if (qdb_raft_load_meta(s) && qdb_raft_load_log(s) && open_log(s) && settle(s))
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

	if (s->failed || !qdb_raft_reserve_entries(s, 1))
		return false;
	if (len > QDB_RAFT_MAX_ENTRY)
		return qdb_raft_storage_fail(s, "Raft log entry of %u bytes is too long", len);
	if (need > s->batch_cap)
	{
		uint8_t    *batch = realloc(s->batch, need * 2);

		if (batch == NULL)
			return qdb_raft_storage_fail(s, "out of memory for the Raft log");
		s->batch = batch;
		s->batch_cap = need * 2;
	}
	qdb_raft_put_entry(s->batch + used, term, type, data, len);
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
	if (!qdb_raft_write_meta(s->dir_fd, s->id, s->term, s->vote))
		return qdb_raft_storage_fail(s, "could not write Raft metadata: %s", strerror(errno));
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
	qdb_raft_put_batch_header(s->batch, (uint32_t) (s->batch_used - BATCH_HEADER),
							  (uint32_t) s->npending, s->first + s->n - s->npending);
	if (!qdb_raft_write_at(s->log_fd, s->batch, s->batch_used, s->log_end) ||
		fdatasync(s->log_fd) != 0)
		return qdb_raft_storage_fail(s, "could not write Raft log: %s", strerror(errno));
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
		return qdb_raft_storage_fail(s, "out of memory for a Raft snapshot");
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
	ok = !w.failed && qdb_raft_replace_file(s->dir_fd, SNAP_NAME, buf, size);
	free(buf);
	if (!ok)
		return qdb_raft_storage_fail(s, "could not write Raft snapshot: %s", strerror(errno));
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

	if (!qdb_raft_read_at(s->log_fd, buf, e->len, e->offset))
		return qdb_raft_storage_fail(s, "could not read Raft log: %s", strerror(errno));
	return true;
}
