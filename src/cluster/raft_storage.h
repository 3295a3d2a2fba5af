/*-------------------------------------------------------------------------
 *
 * raft_storage.h
 *		What a Raft node keeps on disk: log, term and vote, one snapshot.
 *
 * Three files in one directory, each with a magic number, a format version,
 * the member's id and CRC-32Cs:
 *
 *	raft.log	header, then batches; a batch is written and synced as a whole,
 *				and never before the one in front of it is durable
 *	raft.meta	term and vote, replaced by rename
 *	raft.snap	state at an index, with Raft's configuration; by rename
 *
 * Functions that return false have set failed and why; after that nothing is
 * written any more.  Payloads are bytes; this file knows no libraft.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CLUSTER_RAFT_STORAGE_H
#define QDB_CLUSTER_RAFT_STORAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Formats on disk; another version is refused. */
#define QDB_RAFT_LOG_FORMAT		1
#define QDB_RAFT_META_FORMAT	1
#define QDB_RAFT_SNAP_FORMAT	1

/* Terms and indexes beyond this are taken for damage or nonsense. */
#define QDB_RAFT_MAX_NUMBER		(UINT64_C(1) << 60)
#define QDB_RAFT_MAX_ENTRY		(64 * 1024)

typedef struct QdbLogEntry
{
	uint64_t	term;
	uint64_t	offset;			/* of the payload; in the batch while pending */
	uint32_t	len;
	uint8_t		type;
} QdbLogEntry;

typedef struct QdbRaftSnapshot
{
	uint64_t	index;			/* 0: none */
	uint64_t	term;
	uint64_t	conf_index;
	uint8_t    *conf;			/* encoded configuration */
	uint32_t	conf_len;
	uint8_t    *data;
	uint32_t	data_len;
} QdbRaftSnapshot;

typedef struct QdbRaftStorage
{
	char		dir[1024];
	uint64_t	id;
	int			dir_fd;
	int			log_fd;

	uint64_t	term;
	uint64_t	vote;
	bool		meta_dirty;

	uint64_t	first;			/* index of entries[0] */
	size_t		n;				/* pending ones included */
	size_t		cap;
	QdbLogEntry *entries;
	uint64_t	log_end;		/* end of the last durable batch */
	uint64_t	last_batch;		/* where it begins, while opening; log_end:
								 * none */

	uint8_t    *batch;			/* header and entries not yet written */
	size_t		batch_used;
	size_t		batch_cap;
	size_t		npending;

	uint64_t	snap_index;		/* 0: none */
	uint64_t	snap_term;

	bool		torn;			/* opening cut off a torn last batch */
	bool		failed;
	char		why[256];
} QdbRaftStorage;

/*
 * Creates the directory's files; entry NULL: an empty log and term 0, otherwise
 * one entry of term 1.  Refuses a directory that has a log.
 */
extern bool qdb_storage_create(const char *dir, uint64_t id, uint8_t type,
							   const uint8_t *entry, uint32_t len,
							   char *why, size_t why_size);

/* NULL with why for anything that is not what was written, but for a torn end. */
extern QdbRaftStorage *qdb_storage_open(const char *dir, uint64_t id,
										char *why, size_t why_size);
extern void qdb_storage_close(QdbRaftStorage *s);

/* Remembered now, durable after qdb_storage_sync. */
extern void qdb_storage_set_term(QdbRaftStorage *s, uint64_t term);
extern void qdb_storage_set_vote(QdbRaftStorage *s, uint64_t vote);
extern bool qdb_storage_append(QdbRaftStorage *s, uint64_t term, uint8_t type,
							   const void *data, uint32_t len);
extern bool qdb_storage_sync_meta(QdbRaftStorage *s);
extern bool qdb_storage_sync(QdbRaftStorage *s);

/* Durable on return. */
extern bool qdb_storage_truncate(QdbRaftStorage *s, uint64_t index);

/* Keeps trailing entries before the snapshot's; 0 empties the log. */
extern bool qdb_storage_put_snapshot(QdbRaftStorage *s, const QdbRaftSnapshot *snap,
									 unsigned trailing);

extern uint64_t qdb_storage_last_index(const QdbRaftStorage *s);

/* 0: neither in the log nor the snapshot's index. */
extern uint64_t qdb_storage_term_of(const QdbRaftStorage *s, uint64_t index);

/* Copies the payload of a durable entry; buf has room for its len. */
extern bool qdb_storage_read(QdbRaftStorage *s, uint64_t index, void *buf);

/* malloc'd conf and data. */
extern bool qdb_storage_get_snapshot(QdbRaftStorage *s, QdbRaftSnapshot *snap);

#endif							/* QDB_CLUSTER_RAFT_STORAGE_H */
