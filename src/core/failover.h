/*-------------------------------------------------------------------------
 *
 * failover.h
 *		What the Raft leader does next: one table from what it sees to one
 *		action.  Every action may be repeated until it has taken effect.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_FAILOVER_H
#define QDB_CORE_FAILOVER_H

#include "core/quorum.h"

/* What a peer's last heartbeat said, and when; times monotonic us. */
typedef struct QdbPeerView
{
	uint64_t	member;
	bool		connected;		/* a channel is up, or it is this node */
	bool		gone;			/* its port refuses: the process is dead */
	int64_t		heard_us;		/* last frame from it; 0 never */
	int64_t		primary_heard_us;	/* when *it* last heard the primary, in
									 * our clock; 0 never */
	bool		able;			/* may hold a seat (why_not is empty) */
	const char *why_not;		/* for the journal; may be NULL */
	uint64_t	boot;
	uint64_t	quorum_epoch;	/* epoch whose gate it says is open */
	uint64_t	closed_membership;	/* holder only: number it has switched to,
									 * quorum LSN not behind */
	bool		caught_up;		/* learner: has reached the primary's flush
								 * position */
	uint64_t	wal_end;		/* as its last heartbeat said; 0 unknown */
	int64_t		rewound_us;		/* when it last came further in a rewind of
								 * this epoch (resync.h); 0 never */
} QdbPeerView;

typedef struct QdbLeaderView
{
	int64_t		now_us;			/* monotonic */
	int64_t		leader_since_us;	/* when this node became Raft leader */
	uint64_t	self;
	int64_t		epoch_seen_us;	/* when the current epoch was opened or
								 * seated, in our clock */
	int64_t		move_seen_us;	/* when the MOVE was applied, in our clock:
								 * its own time is of another one */
	int64_t		unix_us;		/* now, to compare with times in the state */
	size_t		npeers;			/* one entry per member, self included */
	QdbPeerView peers[QDB_MAX_MEMBERS];
	int64_t		reports_seen_us;	/* when this node first saw reports of a
									 * majority for the open epoch; 0 unknown:
									 * then nobody waits for further reports */
} QdbLeaderView;

typedef enum QdbActionKind
{
	QDB_ACT_NONE = 0,
	QDB_ACT_OPEN_EPOCH,			/* propose OPEN_EPOCH, reason */
	QDB_ACT_SEAT,				/* propose SEAT, grant, reason */
	QDB_ACT_TRANSFER,			/* move Raft leadership to member */
	QDB_ACT_PROMOTE_LEARNER,	/* propose MEMBER_ROLE voter for member */
	QDB_ACT_CLOSE_CHANGE,		/* propose MEMBERSHIP_CLOSE */
	QDB_ACT_DONATE,				/* propose DONATE from donor to member */
	QDB_ACT_GIVE_UP_MOVE		/* propose MOVE to nobody, reason */
} QdbActionKind;

typedef struct QdbAction
{
	QdbActionKind kind;
	uint64_t	member;
	uint64_t	donor;
	uint64_t	epoch;
	bool		suspicion;		/* OPEN_EPOCH: silence is all there is */
	uint64_t	held_back;		/* async: a failover would lose so many bytes,
								 * too many; 0 no */
	QdbGrant	grant;
	char		reason[QDB_REASON_SIZE];
} QdbAction;

extern QdbAction qdb_failover_decide(const QdbState *state, const QdbLeaderView *view);

/* ---- move.c: a promotion that somebody asks for ---- */

/*
 * May it be tried now?  QDB_OK, or a refusal with why and a hint (both
 * QDB_REASON_SIZE bytes; "" where the result says it all).  Any node's view will do:
 * what only the state can refuse is refused again when the MOVE is applied.
 */
extern QdbResult qdb_judge_move(const QdbState *state, const QdbLeaderView *view, uint64_t target,
								bool force, char *why, char *hint);

/* What the forced seat of the current epoch gave up; "" nothing. */
extern void qdb_tell_loss(const QdbState *state, const QdbGrant *grant, char *text, size_t size);

#endif							/* QDB_CORE_FAILOVER_H */
