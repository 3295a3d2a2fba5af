/*-------------------------------------------------------------------------
 *
 * fetch.h
 *		Files, blocks and WAL of the primary, for a clone or a rewind.
 *
 * Used by one process at a time that may wait (the resync worker).  Everything
 * waits with a deadline and CHECK_FOR_INTERRUPTS; what goes wrong is a false
 * result and qdb_fetch_error(), never an ERROR.  After a false result only close is
 * left.  Requests are sent ahead: their answers come in the same order, each
 * through the function given with it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_FETCH_H
#define QDB_FETCH_H

#include "postgres.h"

#include "base/base.h"
#include "catalog/pg_control.h"
#include "core/transfer.h"

typedef struct QdbFetch QdbFetch;

/* False ends the fetch: qdb_fetch_fail has said why. */
typedef bool (*QdbFetchTake) (QdbFetch *fetch, const QdbTransferRequest *request,
							  const QdbTransferAnswer *answer, void *arg);

/*
 * Greets the holder of the seat, which is member source.  NULL: *why (QDB_REASON_SIZE) says why, *retry whether it
 * may pass by itself.  palloc'd in the current context.  welcome->flush is named after
 * the holder has forgotten this node's acks (I11).
 */
extern QdbFetch *qdb_fetch_open(uint64 source, const char *host, int port, const QdbFilesHello *hello,
								QdbFilesWelcome *welcome, char *why, bool *retry);
extern void qdb_fetch_close(QdbFetch *fetch);
extern const char *qdb_fetch_error(const QdbFetch *fetch);
extern bool qdb_fetch_fail(QdbFetch *fetch, const char *fmt,...) pg_attribute_printf(2, 3);

/* Calls report with the bytes so far, now and after each answer from here on. */
typedef void (*QdbFetchReport) (uint64 bytes, void *arg);
extern void qdb_fetch_report(QdbFetch *fetch, QdbFetchReport report, void *arg);

/* Sends a request; takes answers where too many are under way. */
extern bool qdb_fetch_ask(QdbFetch *fetch, const QdbTransferRequest *request, QdbFetchTake take, void *arg);

/* Takes all answers that are under way. */
extern bool qdb_fetch_finish(QdbFetch *fetch);

/*
 * One request, its answer copied into buf, *length bytes.  A missing file is
 * true with *gone.
 */
extern bool qdb_fetch_one(QdbFetch *fetch, const QdbTransferRequest *request, void *buf, size_t size,
						  size_t *length, bool *gone);

/* The requests by name. */
extern bool qdb_fetch_prepare(QdbFetch *fetch, bool checkpoint, XLogRecPtr resume, QdbManifestInfo *info);
extern bool qdb_fetch_position(QdbFetch *fetch, QdbSourcePosition *position);
extern bool qdb_fetch_control(QdbFetch *fetch, ControlFileData *control);

/* *length bytes of the history file; *gone: there is none. */
extern bool qdb_fetch_history(QdbFetch *fetch, TimeLineID timeline, char *buf, size_t size,
							  size_t *length, bool *gone);

/* The entries of the manifest that qdb_fetch_prepare has made, END included. */
typedef bool (*QdbEntryTake) (QdbFetch *fetch, const QdbManifestEntry *entry, void *arg);
extern bool qdb_fetch_manifest(QdbFetch *fetch, const QdbManifestInfo *info, QdbEntryTake take, void *arg);

/* Asks for a range of WAL of a timeline in pieces; qdb_fetch_finish takes the rest. */
extern bool qdb_fetch_wal(QdbFetch *fetch, TimeLineID timeline, XLogRecPtr start, XLogRecPtr end,
						  QdbFetchTake take, void *arg);

#endif							/* QDB_FETCH_H */
