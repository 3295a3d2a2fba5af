/* serve_internal.h - what serve.c and serve_answer.c share */
#ifndef QDB_WAL_SERVE_INTERNAL_H
#define QDB_WAL_SERVE_INTERNAL_H

#include "wal/serve.h"

#define QDB_MAX_QUEUED		64
#define QDB_ANSWER_SIZE		(QDB_TRANSFER_ANSWER_HEADER + QDB_TRANSFER_CHUNK)

typedef struct QdbServe
{
	uint64		member;
	QdbTransferRequest queue[QDB_MAX_QUEUED];
	uint32		head;
	uint32		tail;
	int64		heard_us;

	int			source;			/* -1: none */
	uint64		serial;
	bool		prepared;
	QdbManifestInfo info;
	int			manifest_fd;
	int			names_fd;

	int			fd;				/* of path */
	char		path[MAXPGPATH];
} QdbServe;

/* ---- serve.c ---- */
extern void qdb_serve_close_fd(int *fd);

/* Why there is no helper; NULL: one is on its way. */
extern const char *qdb_serve_want_source(QdbServe *serve, const QdbTransferRequest *request);
extern void qdb_serve_release_source(QdbServe *serve);

/* ---- serve_answer.c ---- */
/* Answers the oldest request of the connection, or leaves it for a later turn. */
extern void qdb_serve_answer(QdbStream *stream, const QdbTransferRequest *request);

#endif							/* QDB_WAL_SERVE_INTERNAL_H */
