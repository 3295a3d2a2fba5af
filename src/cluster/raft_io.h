/*-------------------------------------------------------------------------
 *
 * raft_io.h
 *		libraft's raft_io over raft_storage and a send callback.
 *
 * Everything libraft asks for is done or queued at once; that it is done, it
 * hears later, from qdb_io_drain.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CLUSTER_RAFT_IO_H
#define QDB_CLUSTER_RAFT_IO_H

#include <raft.h>

#include "cluster/raft_node.h"
#include "cluster/raft_storage.h"

/* Levels as in elog.h, which this file does not include. */
#define QDB_LOG_DEBUG1		14
#define QDB_LOG_LOG			15
#define QDB_LOG_WARNING		19

typedef struct QdbDone QdbDone;

typedef struct QdbRaftIo
{
	struct raft_io io;
	QdbRaftStorage *storage;
	const QdbRaftCallbacks *callbacks;
	raft_io_tick_cb tick;
	raft_io_recv_cb recv;
	unsigned	tick_ms;
	raft_time	jump;			/* added to the clock, only grows */
	QdbDone    *first;			/* completions to deliver, in order */
	QdbDone   **last;
	unsigned	seed;
	bool		failed;
	bool		answers_older;	/* libraft has entries of a leader of the past */
} QdbRaftIo;

extern void qdb_io_init(QdbRaftIo *io, QdbRaftStorage *storage,
						const QdbRaftCallbacks *callbacks);

/* Makes durable what was queued, then delivers; repeats until nothing is left. */
extern void qdb_io_drain(QdbRaftIo *io);
extern bool qdb_io_pending(const QdbRaftIo *io);

/* Ends all effects of this node: nothing is sent or acknowledged any more. */
extern void qdb_io_fail(QdbRaftIo *io, const char *why);
extern void qdb_io_log(const QdbRaftCallbacks *callbacks, int level, const char *format,...)
			__attribute__((format(printf, 3, 4)));

/* False after a failure of the storage, which it notes. */
extern bool qdb_io_storage_ok(QdbRaftIo *io, bool ok);

/* *snapshot stays NULL if there is none. */
extern int	qdb_io_load_snapshot(QdbRaftIo *io, struct raft_snapshot **snapshot);

/* raft_io.load */
extern int	qdb_io_load(struct raft_io *raft_io, raft_term * term, raft_id * voted_for,
						struct raft_snapshot **snapshot, raft_index * start_index,
						struct raft_entry *entries[], size_t *n_entries);

/* May this decoded message be given to libraft as it stands now? */
extern bool qdb_io_accepts(QdbRaftIo *io, struct raft *raft,
						   const struct raft_message *message, const char **why);

#endif							/* QDB_CLUSTER_RAFT_IO_H */
