/*-------------------------------------------------------------------------
 *
 * rewind.h
 *		What a rewind has to know and to change, as plain functions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_REWIND_H
#define QDB_CORE_REWIND_H

#include <stdbool.h>
#include <stdint.h>

/* A timeline in a history, oldest first; the newest one has no end. */
typedef struct QdbTimelinePart
{
	uint32_t	timeline;
	uint64_t	begin;			/* LSN; 0 on the first */
	uint64_t	end;			/* UINT64_MAX on the newest */
} QdbTimelinePart;

/*
 * Where two histories leave each other: the end of what they have in common, and the
 * timeline that it lies on.  False: they have nothing in common.
 */
extern bool qdb_rewind_fork(const QdbTimelinePart *own, int nown,
							const QdbTimelinePart *source, int nsource,
							uint32_t *timeline, uint64_t *fork);

typedef struct QdbCheckpointView
{
	uint64_t	end;			/* of its record */
	uint64_t	redo;
	bool		full_page_writes;
	uint64_t	next_xid;		/* full transaction id */
} QdbCheckpointView;

typedef struct QdbRewindLimits
{
	uint64_t	fork;
	uint64_t	own_redo;		/* in this node's control file */
	uint64_t	source_redo;	/* in the source's */
	uint64_t	oldest_xid;		/* full transaction id of the oldest one that
								 * may have left a hint; 0: none */
} QdbRewindLimits;

/*
 * May replay start at this checkpoint?  It is common, and no later than
 * what either node's files need (I12).
 */
extern bool qdb_rewind_may_start(const QdbCheckpointView *checkpoint, const QdbRewindLimits *limits);

#define QDB_NO_BLOCK	UINT32_MAX

/* One segment file of a relation's main fork. */
typedef struct QdbSegmentView
{
	bool		exists;			/* here */
	uint64_t	local_size;
	uint64_t	source_size;
	bool		recreated;		/* made or dropped here after the fork */
	uint32_t	cut_block;		/* cut here after the fork, in this segment;
								 * QDB_NO_BLOCK: not */
} QdbSegmentView;

typedef struct QdbSegmentChange
{
	bool		whole;			/* get all of it */
	bool		truncate;		/* to source_size */
	uint32_t	tail_from;		/* get all blocks from here on, QDB_NO_BLOCK:
								 * none */
	uint32_t	nblocks;		/* that the source has */
} QdbSegmentChange;

extern QdbSegmentChange qdb_rewind_segment(const QdbSegmentView *view, uint32_t block_size);

/* ---- the ladder ---- */
typedef enum QdbRung
{
	QDB_RUNG_WAIT = 0,
	QDB_RUNG_REWIND,
	QDB_RUNG_CLONE
} QdbRung;

#define QDB_REWIND_TRIES	3	/* applied in an epoch, then a clone */
#define QDB_REWIND_FAILURES	8	/* before that, then a clone */

typedef struct QdbLadder
{
	bool		diverged;		/* has replayed past the fork */
	bool		lacks_wal;		/* the primary has not what comes next */
	bool		rewind_useless; /* the last one said that it cannot work */
	uint32_t	rewinds;		/* applied under this epoch */
	uint32_t	failures;		/* not for want of a source */
	int64_t		now_us;
	int64_t		not_before_us;	/* after a failure */
} QdbLadder;

/* What brings a node back that can neither follow nor trim. */
extern QdbRung qdb_ladder_rung(const QdbLadder *ladder);

#endif							/* QDB_CORE_REWIND_H */
