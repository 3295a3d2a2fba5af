/*-------------------------------------------------------------------------
 *
 * raft_disk.h
 *		What raft_storage.c, raft_load.c and raft_disk.c share.
 *
 * For these files only; raft_storage.h is the interface.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CLUSTER_RAFT_DISK_H
#define QDB_CLUSTER_RAFT_DISK_H

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
#define MAX_FILE		(256 * 1024 * 1024)
#define BATCH_HEADER	28		/* magic, length, count, first, crc, header
								 * crc */
#define ENTRY_HEADER	13		/* term, type, length */
#define META_SIZE		36		/* magic, format, id, term, vote, crc */
#define SNAP_HEADER		48		/* magic, format, id, index, term, conf index,
								 * conf length, data length */

/* Sets failed and why, if they are not set yet; returns false. */
extern bool qdb_raft_storage_fail(QdbRaftStorage *s, const char *format,...)
			__attribute__((format(printf, 2, 3)));

/* All len bytes, or false with errno. */
extern bool qdb_raft_write_at(int fd, const uint8_t *buf, size_t len, uint64_t offset);
extern bool qdb_raft_read_at(int fd, uint8_t *buf, size_t len, uint64_t offset);

/* The whole file, malloc'd; NULL with errno (ENOENT: there is none). */
extern uint8_t *qdb_raft_read_file(int dir_fd, const char *name, size_t *len);

/* Durable on return; false with errno, and then the old file is there. */
extern bool qdb_raft_replace_file(int dir_fd, const char *name, const uint8_t *buf, size_t len);
extern bool qdb_raft_write_meta(int dir_fd, uint64_t id, uint64_t term, uint64_t vote);

extern void qdb_raft_put_log_header(uint8_t *buf, uint64_t id, uint64_t first);

/* buf has BATCH_HEADER bytes and then the len bytes of count entries. */
extern void qdb_raft_put_batch_header(uint8_t *buf, uint32_t len, uint32_t count, uint64_t first);
extern void qdb_raft_put_entry(uint8_t *buf, uint64_t term, uint8_t type, const void *data, uint32_t len);

/* Room for so many entries more in memory. */
extern bool qdb_raft_reserve_entries(QdbRaftStorage *s, size_t more);

/* Fill s from the files; false with failed and why. */
extern bool qdb_raft_load_meta(QdbRaftStorage *s);
extern bool qdb_raft_load_log(QdbRaftStorage *s);

#endif							/* QDB_CLUSTER_RAFT_DISK_H */
