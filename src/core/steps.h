/*-------------------------------------------------------------------------
 *
 * steps.h
 *		What one node may do: its next step, the WAL it takes, the acks that
 *		it counts, the leases that it gives.  Plain functions of their arguments.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_STEPS_H
#define QDB_CORE_STEPS_H

#include "core/state.h"

/* One life of a node: a data directory and a start of its server. */
typedef struct QdbBoot
{
	uint64_t	member;
	uint64_t	incarnation;
	uint64_t	boot;
} QdbBoot;

extern bool qdb_grant_is_of(const QdbGrant *grant, const QdbBoot *boot);

/*
 * Does WAL on the grant's timeline count for self without the epoch record?  True for its
 * holder, in a later boot, whose promotion ended before it wrote the record.
 */
extern bool qdb_start_counts(const QdbGrant *grant, const QdbBoot *self);

/* May its reports count, under either number of an open change (I13)? */
extern bool qdb_counts_as_voter(const QdbState *state, uint64_t member);

/* ---- the next step ---- */
typedef enum QdbNodeStep
{
	QDB_STEP_NONE = 0,			/* what the state says is the past, or wait */
	QDB_STEP_LEAVE,				/* removed from the cluster */
	QDB_STEP_STOP,				/* writable without the seat: demote (I15) */
	QDB_STEP_ANSWER,			/* promise, and report where it votes */
	QDB_STEP_FOLLOW,			/* promise, match histories, stream */
	QDB_STEP_PROMOTE,			/* in recovery, and the seat is ours */
	QDB_STEP_TAKE_SEAT,			/* promoted: write the epoch record */
	QDB_STEP_PROPOSE_GATE,		/* the record is on a quorum (I8) */
	QDB_STEP_OPEN_GATE
} QdbNodeStep;

typedef struct QdbNodeView
{
	QdbBoot		self;
	bool		in_recovery;
	bool		promoting;		/* in recovery, and will end it by itself */
	uint64_t	promised;		/* durable */
	uint64_t	seat_epoch;		/* its epoch record is written and flushed */
	uint64_t	open_epoch;
	uint64_t	record_end;		/* LSN */
	uint64_t	quorum_epoch;	/* that quorum_lsn was counted under */
	uint64_t	quorum_lsn;
} QdbNodeView;

extern QdbNodeStep qdb_node_step(const QdbState *state, const QdbNodeView *view);

/*
 * Where the history of a grant leaves a timeline: *limit, UINT64_MAX on the
 * grant's own.  False: it has no part of that timeline.
 */
extern bool qdb_history_limit(const QdbState *state, const QdbGrant *grant,
							  uint32_t timeline, uint64_t *limit);

/* ---- WAL and acks ---- */

/*
 * May WAL be taken or acknowledged on a connection of this epoch (I2)?  held
 * is the epoch under which the receiver announced itself.
 */
extern bool qdb_may_take_wal(uint64_t epoch, uint64_t held, uint64_t promised, uint64_t promising);

/* What an ack and a stream carry to tell whose they are. */
typedef struct QdbAckName
{
	uint64_t	epoch;
	uint64_t	incarnation;
	uint64_t	boot;
	uint64_t	connection;
} QdbAckName;

/* Does an ack belong to the stream that it came on?  (I5) */
extern bool qdb_ack_counts(const QdbAckName *ack, uint64_t ack_membership,
						   const QdbAckName *stream, uint64_t membership);

/*
 * May the holder of this epoch count by this state?  The members of a later epoch
 * acknowledged to somebody else: one that has been cut off learns of the epoch that
 * deposed it and of the changes after it at once, and for as long as it cannot stop
 * (a postmaster that hangs) both would be acknowledging (I5, I13).
 */
extern bool qdb_counts_by(const QdbState *state, uint64_t epoch);

/* The quorum as a holder publishes it. */
typedef struct QdbQuorum
{
	uint64_t	epoch;
	uint64_t	lsn;
	uint64_t	membership;		/* number that it was counted under */
} QdbQuorum;

/*
 * Takes in a count.  Within an epoch the LSN never goes back, and a
 * membership is switched to only where nothing does (I5, I13).
 */
extern void qdb_quorum_advance(QdbQuorum *quorum, uint64_t epoch,
							   uint64_t counted, uint64_t membership);

/* ---- leases (I9) ---- */

/* What a voter remembers of the leases it gave; its process's monotonic clock. */
typedef struct QdbLeaseBook
{
	int64_t		started_us;		/* when its process began */
	int64_t		until_us;		/* the latest end; 0 none */
	uint64_t	member;			/* the last one went to this boot; 0 none */
	uint64_t	boot;
} QdbLeaseBook;

/* May self grant asker a lease of this epoch now? */
extern bool qdb_lease_may_grant(const QdbState *state, uint64_t self, const QdbBoot *asker,
								uint64_t epoch, uint64_t promised, uint64_t promising);
extern void qdb_lease_note(QdbLeaseBook *book, const QdbGrant *grant, int64_t now_us);

/* How long the holder counts a lease, from before its asking. */
extern int64_t qdb_lease_counted_us(const QdbGrant *grant);

/*
 * Does a lease that self gave, or may have given before its process began, keep it from
 * reporting?  released: the epoch whose RELEASE was applied; goodbye: the boot that the
 * last holder said goodbye in, member 0 none.
 */
extern bool qdb_lease_blocks(const QdbState *state, uint64_t self, const QdbLeaseBook *book,
							 uint64_t released, const QdbBoot *goodbye, int64_t now_us);

#endif							/* QDB_CORE_STEPS_H */
