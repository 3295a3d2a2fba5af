/*-------------------------------------------------------------------------
 *
 * serve.h
 *		Files, blocks and WAL for nodes that resynchronise: the part of the
 *		streamer (serve.c) and its helper process (source.c).
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_WAL_SERVE_H
#define QDB_WAL_SERVE_H

#include "wal/streamer.h"

/* A first frame that asks for files; may refuse. */
extern void qdb_serve_hello(QdbStream *stream, const QdbFrame *frame);
extern void qdb_serve_request(QdbStream *stream, const QdbFrame *frame);

/* Answers at most one chunk; true: there is more to do at once. */
extern bool qdb_serve_turn(QdbStream *stream, int64 now);

/* Frees what the connection holds. */
extern void qdb_serve_end(QdbStream *stream);

/* Where the helper of a source writes. */
#define QDB_SOURCE_MANIFEST		QDB_DIR "/serve.%d.manifest"
#define QDB_SOURCE_NAMES		QDB_DIR "/serve.%d.names"

/* ---- manifest.c ---- */
/* Writes both, and counts what is in them; raises errors. */
extern void qdb_make_manifest(int slot, QdbManifestInfo *info);

#endif							/* QDB_WAL_SERVE_H */
