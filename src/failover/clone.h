/*-------------------------------------------------------------------------
 *
 * clone.h
 *		Get all data anew, beside the running server.
 *
 * clone.c runs it, clone_source.c chooses and connects, clone_files.c receives files,
 * clone_plan.c receives WAL and writes the plan that puts it all in place.  Everything here runs in the resync
 * worker, which may wait and raise errors.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CLONE_H
#define QDB_CLONE_H

#include "failover/fetch.h"
#include "failover/stage.h"

#define QDB_CLONE_DIR			QDB_STAGE_DIR "/new"
#define QDB_CLONE_OLD			QDB_STAGE_DIR "/old"
#define QDB_CLONE_RELATIONS		QDB_STAGE_DIR "/clone.relations"
#define QDB_CLONE_STATE			QDB_STAGE_DIR "/clone.state"
#define QDB_CLONE_GARBAGE		QDB_STAGE_DIR "/clone.garbage"


/*
 * How far an interrupted clone has come; kept in QDB_CLONE_STATE.  It may go on from
 * another primary if nothing that is here can show what that one has not: pages come
 * from WAL that the source has flushed by reach, and so they are within the history of every
 * later primary once a quorum has it up to there.  Only then it is saved.
 */
typedef struct QdbCloneState
{
	uint64		system_identifier;	/* 0: nothing is there */
	TimeLineID	timeline;		/* of the redo point */
	XLogRecPtr	redo;
	XLogRecPtr	checkpoint;
	uint64		bytes_total;
	uint64		offset;			/* in QDB_CLONE_RELATIONS: all before is here */
	uint64		piece;			/* bytes of the entry there that are here too */
	uint64		bytes_done;		/* of all that is here */
	TimeLineID	reach_timeline;
	XLogRecPtr	reach;			/* what is here shows no later WAL */
} QdbCloneState;

typedef struct QdbCloneAddress
{
	uint64		member;
	uint16		port;
	char		host[QDB_HOST_SIZE];
} QdbCloneAddress;

typedef struct QdbClone
{
	QdbIdentity self;
	bool		joining;		/* no member yet: nothing here is to be kept */
	int64		begun_us;
	uint64		epoch;
	QdbCloneAddress holder;		/* of the seat */
	QdbCloneAddress source;		/* of the data: a replica, or the holder */
	uint64		spurned[QDB_MAX_MEMBERS];	/* replicas that failed in this
											 * epoch */
	uint32		nspurned;
	QdbFetch   *primary;		/* the holder: acks, quorum */
	QdbFetch   *fetch;			/* the source; the same connection where it is
								 * the holder */
	QdbFilesWelcome welcome;	/* the holder's */
	QdbManifestInfo info;
	QdbCloneState state;
	bool		resumed;		/* relations before state.offset are here */
	bool		fatal;			/* a failure that will not pass by itself */
	char		hint[QDB_REASON_SIZE];
	QdbSourcePosition end;		/* of the staged WAL */
	XLogRecPtr	min_recovery;	/* end of its last whole record */
} QdbClone;

/* Fails the fetch for good. */
extern bool qdb_clone_refuse(QdbClone *clone, const char *hint, const char *fmt,...) pg_attribute_printf(3, 4);

/* What can be wrong with this server has been looked at: who waits for that goes on. */
extern void qdb_clone_copies(void);
extern void qdb_clone_progress(QdbClone *clone, uint64 done);
extern void qdb_clone_save(const QdbCloneState *state);

extern void qdb_clone_set_phase(QdbClonePhase phase, const char *reason, const char *hint, int sqlstate);

/* quorum: until one has lsn; otherwise until the source has. */
extern bool qdb_clone_await(QdbClone *clone, bool quorum, XLogRecPtr lsn);

/* clone_source.c */
/* False: nobody holds an open seat now, or others may still be heard. */
extern bool qdb_clone_find_source(QdbClone *clone);

/* Holder and source; false with *why.  Disconnect is due in any case. */
extern bool qdb_clone_connect(QdbClone *clone, char *why);

/* Why the attempt failed; a replica that it is the fault of is not asked again. */
extern void qdb_clone_blame(QdbClone *clone, char *why);
extern void qdb_clone_disconnect(QdbClone *clone);

/* clone_files.c: folders, tablespaces, relations, other files. */
extern bool qdb_clone_files(QdbClone *clone);

/* clone_plan.c */
extern bool qdb_clone_wal(QdbClone *clone);
extern bool qdb_clone_control(QdbClone *clone);
extern QdbStage *qdb_clone_plan(QdbClone *clone);

/*
 * Clones under whoever holds the seat until all is staged and committed, with bounded
 * retries, and begins the crash cycle: does not return when it works.  False with *why
 * when it was given up.  joining: self is of a node that is no member yet.
 */
extern bool qdb_clone_run(const QdbIdentity *self, bool joining, char *why);

#endif							/* QDB_CLONE_H */
