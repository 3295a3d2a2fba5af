/*-------------------------------------------------------------------------
 *
 * walk.h
 *		Structs as bytes and back, over the bounded writer and reader of frame.h.
 *
 * One function a struct walks over its fields, for writing and for reading
 * alike, so that the two cannot drift apart.  Reading is strict: whatever
 * writing would not have produced is refused.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_WALK_H
#define QDB_CORE_WALK_H

#include "core/frame.h"

/*
 * Either a writer or a reader; bad is set by what must not be.  A writer never
 * stores into what it walks over: that may be in memory that others read.
 */
typedef struct QdbWalker
{
	bool		writing;
	bool		bad;
	QdbWriter	writer;
	QdbReader	reader;
} QdbWalker;

/* Fields in the order of their bytes; called with the struct that it is for. */
typedef void (*QdbWalk) (QdbWalker *w, void *fields);

/* Into a buffer of *len bytes; *len becomes what was written.  False: no room, or a value that must not be. */
extern bool qdb_encode(QdbWalk walk, const void *fields, uint8_t *buf, uint32_t *len);

/* Sets all size bytes of the struct.  False: len bytes that are not exactly such a one. */
extern bool qdb_decode(QdbWalk walk, const uint8_t *buf, uint32_t len, void *fields, size_t size);

extern void qdb_walk_u8(QdbWalker *w, uint8_t *v);
extern void qdb_walk_u16(QdbWalker *w, uint16_t *v);
extern void qdb_walk_u32(QdbWalker *w, uint32_t *v);
extern void qdb_walk_u64(QdbWalker *w, uint64_t *v);
extern void qdb_walk_i32(QdbWalker *w, int32_t *v);
extern void qdb_walk_i64(QdbWalker *w, int64_t *v);
extern void qdb_walk_bool(QdbWalker *w, bool *v);	/* 0 or 1 */

/* A count in one byte or in four; what it returns is at most max, and 0 when *n was more. */
extern uint32_t qdb_walk_short_count(QdbWalker *w, uint32_t *n, uint32_t max);
extern uint32_t qdb_walk_count(QdbWalker *w, uint32_t *n, uint32_t max);

/* A string in an array of size bytes, with its terminating zero. */
extern void qdb_walk_text(QdbWalker *w, char *text, size_t size);

/* Bytes whose number both sides know, or all that is left; the latter stay where they were read. */
extern void qdb_walk_bytes(QdbWalker *w, uint8_t *bytes, size_t size);
extern void qdb_walk_rest(QdbWalker *w, const uint8_t **bytes, uint32_t *length);

#endif							/* QDB_CORE_WALK_H */
