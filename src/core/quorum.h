/*-------------------------------------------------------------------------
 *
 * quorum.h
 *		Arithmetic of majorities, the quorum LSN, leases and the choice of a
 *		new primary.  Plain functions of their arguments.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_QUORUM_H
#define QDB_CORE_QUORUM_H

#include "core/state.h"

/*
 * Is the set of member ids (n of them) a majority of the voters?  While a
 * membership change is open: of the voters under both numbers (I13).
 */
extern bool qdb_is_majority(const QdbState *state, const uint64_t *ids, size_t n);

/* One voter's acknowledged flush position, as the primary counts it. */
typedef struct QdbAck
{
	uint64_t	member;
	uint64_t	lsn;			/* 0: none */
} QdbAck;

/*
 * The greatest LSN that a majority of the voters has acknowledged, 0 if none
 * (I5); under an open change, of both memberships.
 */
extern uint64_t qdb_quorum_lsn(const QdbState *state, const QdbAck *acks, size_t n);

/* A lease grant as the primary counts it, from before its request was sent. */
typedef struct QdbLeaseGrant
{
	uint64_t	member;
	int64_t		until_us;		/* monotonic */
} QdbLeaseGrant;

/* Until when a majority's grants last, monotonic us; 0 if never (I9). */
extern int64_t qdb_lease_until(const QdbState *state, const QdbLeaseGrant *grants, size_t n);

/*
 * Compare two reports by (epoch of last byte, LSN); < 0, 0, > 0.
 */
extern int	qdb_report_compare(const QdbReport *a, const QdbReport *b);

/*
 * Is the log of a a prefix of that of b?  By the grants: a's last byte lies on
 * the history of b's, and not past the point where that leaves a's timeline (I3).
 */
extern bool qdb_report_is_prefix(const QdbState *state, const QdbReport *a, const QdbReport *b);

/* May this member hold a seat at all: voter, priority, and while paused the last holder only. */
extern bool qdb_may_hold_seat(const QdbState *state, uint64_t member);

/*
 * Is this report the maximum of a majority's (I6)?  Those that report more
 * count against it, unless a majority does without them.
 */
extern bool qdb_is_maximum(const QdbState *state, const QdbReport *report);

/* The move that is asked for is a forced one to this member: then I6 is given up. */
extern bool qdb_is_forced(const QdbState *state, uint64_t member);

/*
 * The seat of the open epoch from the reports in the state (I6): fills the
 * grant with holder, timeline, parent and fork.  False while the reports are no
 * majority or no reporter may hold the seat; then why says so.  eligible is
 * asked for each member that may: connected and able now.  A member that is asked
 * for with force comes first; then the greatest WAL; ties go to the member asked for,
 * then by priority, then by smaller id; priority 0 never wins.
 */
typedef bool (*QdbEligible) (uint64_t member, void *arg);
extern bool qdb_choose_seat(const QdbState *state, QdbEligible eligible, void *arg,
							QdbGrant *grant, char *why, size_t why_size);

/* How many losses of voters the given live voters survive. */
extern int	qdb_can_lose(const QdbState *state, const uint64_t *live, size_t n);

#endif							/* QDB_CORE_QUORUM_H */
