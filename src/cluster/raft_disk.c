/*-------------------------------------------------------------------------
 *
 * raft_disk.c
 *		Bytes of the Raft files, and how they get onto the disk.
 *
 * Files that are replaced are there whole, in the old form or in the new one.
 * Nothing here knows what a log means.
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

#include "cluster/raft_disk.h"

bool
qdb_raft_storage_fail(QdbRaftStorage *s, const char *format,...)
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

bool
qdb_raft_write_at(int fd, const uint8_t *buf, size_t len, uint64_t offset)
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

bool
qdb_raft_read_at(int fd, uint8_t *buf, size_t len, uint64_t offset)
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
uint8_t *
qdb_raft_read_file(int dir_fd, const char *name, size_t *len)
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
	if (buf != NULL && !qdb_raft_read_at(fd, buf, *len, 0))
	{
		free(buf);
		buf = NULL;
		errno = EIO;
	}
	close(fd);
	return buf;
}

/* Replaces a file: after a crash there is the old one or the new one. */
bool
qdb_raft_replace_file(int dir_fd, const char *name, const uint8_t *buf, size_t len)
{
	char		tmp[64];
	int			save;
	int			fd;

	snprintf(tmp, sizeof(tmp), "%s.tmp", name);
	fd = openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	if (!qdb_raft_write_at(fd, buf, len, 0) || fsync(fd) != 0)
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

bool
qdb_raft_write_meta(int dir_fd, uint64_t id, uint64_t term, uint64_t vote)
{
	uint8_t		buf[META_SIZE];
	QdbWriter	w = {buf, sizeof(buf), 0, false};

	qdb_put_u32(&w, META_MAGIC);
	qdb_put_u32(&w, QDB_RAFT_META_FORMAT);
	qdb_put_u64(&w, id);
	qdb_put_u64(&w, term);
	qdb_put_u64(&w, vote);
	qdb_put_u32(&w, qdb_crc32c(0, buf, META_SIZE - 4));
	return qdb_raft_replace_file(dir_fd, META_NAME, buf, sizeof(buf));
}

void
qdb_raft_put_log_header(uint8_t *buf, uint64_t id, uint64_t first)
{
	QdbWriter	w = {buf, LOG_HEADER, 0, false};

	qdb_put_u32(&w, LOG_MAGIC);
	qdb_put_u32(&w, QDB_RAFT_LOG_FORMAT);
	qdb_put_u64(&w, id);
	qdb_put_u64(&w, first);
	qdb_put_u32(&w, qdb_crc32c(0, buf, LOG_HEADER - 4));
}

/* buf has BATCH_HEADER bytes and then the len bytes of count entries. */
void
qdb_raft_put_batch_header(uint8_t *buf, uint32_t len, uint32_t count, uint64_t first)
{
	QdbWriter	w = {buf, BATCH_HEADER, 0, false};

	qdb_put_u32(&w, BATCH_MAGIC);
	qdb_put_u32(&w, len);
	qdb_put_u32(&w, count);
	qdb_put_u64(&w, first);
	qdb_put_u32(&w, qdb_crc32c(0, buf + BATCH_HEADER, len));
	qdb_put_u32(&w, qdb_crc32c(0, buf, BATCH_HEADER - 4));
}

void
qdb_raft_put_entry(uint8_t *buf, uint64_t term, uint8_t type, const void *data, uint32_t len)
{
	QdbWriter	w = {buf, ENTRY_HEADER + (size_t) len, 0, false};

	qdb_put_u64(&w, term);
	qdb_put_u8(&w, type);
	qdb_put_u32(&w, len);
	qdb_put_bytes(&w, data, len);
}

bool
qdb_raft_reserve_entries(QdbRaftStorage *s, size_t more)
{
	QdbLogEntry *entries;
	size_t		cap = s->cap;

	if (s->n + more <= s->cap)
		return true;
	while (cap < s->n + more)
		cap = cap < 64 ? 64 : cap * 2;
	entries = realloc(s->entries, cap * sizeof(QdbLogEntry));
	if (entries == NULL)
		return qdb_raft_storage_fail(s, "out of memory for the Raft log");
	s->entries = entries;
	s->cap = cap;
	return true;
}
