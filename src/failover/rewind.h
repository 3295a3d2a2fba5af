/*-------------------------------------------------------------------------
 *
 * rewind.h
 *		Bring a node that has replayed past the fork back onto the primary's
 *		history, without copying what both have.
 *
 * rewind.c runs it, rewind_scan.c reads this node's own WAL, rewind_files.c compares
 * and fetches files, rewind_plan.c fetches WAL and writes the plan, lost.c keeps what is thrown
 * away.  Everything here runs in the resync worker, and raises errors: one with SQLSTATE
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE says that a rewind cannot work here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_REWIND_H
#define QDB_REWIND_H

#include "postgres.h"

#include "access/xlogreader.h"
#include "catalog/pg_control.h"
#include "failover/fetch.h"
#include "failover/lost.h"
#include "failover/own_wal.h"
#include "failover/stage.h"
#include "storage/relfilenode.h"
#include "utils/hsearch.h"

#define QDB_REWIND_DIR		QDB_STAGE_DIR "/rewind"
#define QDB_REWIND_WAL		QDB_REWIND_DIR "/wal"

/* A relation that this node's WAL past the fork names. */
typedef struct QdbDivergedRelation
{
	RelFileNode node;			/* key */
	bool		recreated;		/* its file was made or dropped there */
	BlockNumber cut;			/* least size that it was cut to; or
								 * InvalidBlockNumber */
} QdbDivergedRelation;

typedef struct QdbSegmentKey
{
	RelFileNode node;
	uint32		segment;
} QdbSegmentKey;

/* Blocks of the main fork that it names, in one segment. */
typedef struct QdbDivergedSegment
{
	QdbSegmentKey key;
	uint8	   *bits;			/* RELSEG_SIZE of them */
	uint32		nblocks;
} QdbDivergedSegment;

/* A database folder made or dropped there: all in it counts as recreated. */
typedef struct QdbDatabaseKey
{
	Oid			tablespace;
	Oid			database;
} QdbDatabaseKey;

typedef struct QdbRewind
{
	QdbIdentity self;
	uint64		epoch;			/* of the source */
	QdbState   *state;
	const QdbGrant *grant;
	QdbFetch   *fetch;
	QdbFilesWelcome welcome;
	ControlFileData source;		/* its control file, before the first block */
	ControlFileData own;

	/* rewind_scan.c */
	QdbWalPath *own_path;
	TimeLineID	own_timeline;	/* tip */
	TimeLineID	fork_timeline;
	XLogRecPtr	fork;
	XLogRecPtr	own_end;		/* true end of this node's WAL */
	XLogRecPtr	checkpoint_lsn;
	CheckPoint	checkpoint;		/* where replay starts */
	HTAB	   *relations;		/* QdbDivergedRelation */
	HTAB	   *segments;		/* QdbDivergedSegment */
	HTAB	   *databases;		/* QdbDatabaseKey */
	QdbLostWal	lost;

	/* rewind_files.c, rewind_plan.c */
	QdbHistory	history;		/* of the source's timeline */
	QdbSourcePosition end;		/* after the last block */
	XLogRecPtr	min_recovery;	/* end of the last whole record before it */
	QdbStage   *stage;
	uint64		bytes_total;
	uint32		next_file;		/* for names in the stage */
} QdbRewind;

/* Fails for good. */
#define qdb_rewind_impossible(...) \
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg(__VA_ARGS__)))

/* Raises what the fetch failed with. */
extern void qdb_rewind_need(QdbRewind *rewind, bool ok);

/* rewind_scan.c: fork, start of replay, what was changed past the fork. */
extern void qdb_rewind_find_fork(QdbRewind *rewind);
extern void qdb_rewind_find_checkpoint(QdbRewind *rewind);
extern void qdb_rewind_scan(QdbRewind *rewind);

/* rewind_files.c: everything but WAL and the control file. */
extern void qdb_rewind_files(QdbRewind *rewind);

/* rewind_plan.c */
extern void qdb_rewind_history(QdbRewind *rewind);
extern void qdb_rewind_wal(QdbRewind *rewind);
extern void qdb_rewind_control(QdbRewind *rewind);

/*
 * One rewind onto the WAL of whoever holds the seat.  Does not return when it works: the
 * crash cycle begins.  Else QdbShared.rewind says why not.
 */
extern void qdb_rewind_run(const QdbIdentity *self);

#endif							/* QDB_REWIND_H */
