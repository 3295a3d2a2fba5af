/*-------------------------------------------------------------------------
 *
 * plan.h
 *		The journal of staged work: its header, its steps, and which paths they
 *		may touch.
 *
 *	header, 48 bytes
 *	0		8		magic "QDBPLAN\n"
 *	8		4		format
 *	12		4		number of steps
 *	16		8		bytes of steps after the header
 *	24		8		inode of the data directory it is for
 *	32		4		CRC-32C of the steps
 *	36		8		zero
 *	44		4		CRC-32C of bytes 0-43
 *
 *	step
 *	0		1		kind
 *	1		8		number
 *	9		2+n		path
 *	..		2+n		other: staged file, or where a symbolic link points
 *
 * Integers are little endian.  All paths are relative to the data directory,
 * except where a symbolic link points.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_PLAN_H
#define QDB_CORE_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/frame.h"

#define QDB_PLAN_FORMAT			1	/* another one is refused */
#define QDB_PLAN_HEADER_SIZE	48
#define QDB_PLAN_PATH_SIZE		512 /* with the terminating zero */
#define QDB_PLAN_STEP_MAX		(1 + 8 + 2 * (2 + QDB_PLAN_PATH_SIZE))

#define QDB_STAGE_DIR			"quantadb/stage"

typedef enum QdbStepKind
{
	QDB_STEP_PUT = 1,			/* the staged file replaces path; parents are
								 * made */
	QDB_STEP_BLOCKS,			/* blocks of the staged file go into the
								 * relation file path; number: how many */
	QDB_STEP_TRUNCATE,			/* cut path to number bytes if it is longer */
	QDB_STEP_REMOVE,			/* a file or symbolic link; missing is fine */
	QDB_STEP_EMPTY_DIR,			/* everything in path, not path */
	QDB_STEP_MKDIR,				/* and its parents; there already is fine */
	QDB_STEP_RENAME,			/* other becomes path, which must not exist */
	QDB_STEP_REMOVE_TREE,		/* missing is fine */
	QDB_STEP_SYMLINK			/* path, in pg_tblspc, points to other */
} QdbStepKind;

typedef struct QdbStep
{
	uint8_t		kind;			/* QdbStepKind */
	uint64_t	number;
	char		path[QDB_PLAN_PATH_SIZE];
	char		other[QDB_PLAN_PATH_SIZE];
} QdbStep;

typedef struct QdbPlanHeader
{
	uint32_t	nsteps;
	uint64_t	length;
	uint64_t	inode;
	uint32_t	crc;
} QdbPlanHeader;

/*
 * May a step change this path?  It stays inside the data directory and is not
 * empty, and neither configuration, the lock file, nor anything of ours but the
 * stage itself.
 */
extern bool qdb_plan_path_ok(const char *path);

/* The path is below QDB_STAGE_DIR, where staged files lie. */
extern bool qdb_plan_is_staged(const char *path);

/* NULL, or what is wrong with the step. */
extern const char *qdb_step_problem(const QdbStep *step);

extern void qdb_step_encode(const QdbStep *step, QdbWriter *w);

/* Reads one step; r->failed for what is malformed or not allowed. */
extern void qdb_step_decode(QdbReader *r, QdbStep *step);

extern void qdb_plan_header_encode(const QdbPlanHeader *header, uint8_t *buf);
extern bool qdb_plan_header_decode(const uint8_t *buf, QdbPlanHeader *header);

#endif							/* QDB_CORE_PLAN_H */
