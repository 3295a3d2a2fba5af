/*-------------------------------------------------------------------------
 *
 * health.h
 *		Is this node well enough to hold the seat?
 *
 * Failures that kill nothing: a disk that does not finish a write, a disk that
 * fills up, a postmaster that hangs.  Heartbeats go on, so nobody else sees them.
 * The node itself looks at signs of them, with thresholds, and once it is sick it
 * stays so until it has been well for a while.
 *
 * A sick node does not take the seat, and gives it up where another voter can take
 * it; how is the coordinator's part (health.c there).
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_HEALTH_H
#define QDB_CORE_HEALTH_H

#include "core/failover.h"

#define QDB_HEALTHY_US		INT64_C(10000000)	/* well for so long: fit again */

typedef enum QdbSickness
{
	QDB_WELL = 0,
	QDB_SICK_WAL,				/* WAL does not reach the disk */
	QDB_SICK_DISK,				/* no room */
	QDB_SICK_POSTMASTER			/* does not answer */
} QdbSickness;

/* What is seen at one moment; times monotonic us. */
typedef struct QdbSigns
{
	int64_t		now_us;
	bool		writing;		/* somebody is inside a write or sync of WAL */
	uint64_t	flush;			/* flush position of WAL */
	uint64_t	free_bytes;		/* for WAL and data, the lesser; UINT64_MAX
								 * unknown */
	int64_t		asked_us;		/* since when the postmaster owes an answer; 0
								 * it does not */
} QdbSigns;

typedef struct QdbSignLimits
{
	int64_t		stall_us;		/* a write, or an answer, may take so long; 0
								 * for ever */
	uint64_t	free_bytes;		/* less is too little; 0 never */
} QdbSignLimits;

/* Zeroed at first. */
typedef struct QdbHealth
{
	QdbSickness sickness;
	int64_t		seen_us;		/* the last look */
	int64_t		well_since_us;

	bool		stuck;			/* writing, and flush as before */
	uint64_t	flush;
	int64_t		stuck_since_us;
	int64_t		stuck_sum_us;	/* grows while stuck, shrinks when not */
	int64_t		deaf_us;		/* time since asked_us that was watched */
	int64_t		full_us;		/* too little room for so long */
} QdbHealth;

/* Takes a look into account; the sickness now. */
extern QdbSickness qdb_health_look(QdbHealth *health, const QdbSigns *signs, const QdbSignLimits *limits);

/* For why_not and the journal; "" when well. */
extern void qdb_health_text(const QdbHealth *health, const QdbSigns *signs, const QdbSignLimits *limits,
							char *text, size_t size);

/*
 * Should the holder, sick, give its open seat up now?  Only where another voter can
 * take it: better a sick primary than none.  quorum_has_all: all WAL that is
 * flushed here is on a quorum; under async it must be, since what is acknowledged is
 * not there by itself.
 */
extern bool qdb_health_gives_up(const QdbState *state, const QdbLeaderView *view, bool quorum_has_all);

#endif							/* QDB_CORE_HEALTH_H */
