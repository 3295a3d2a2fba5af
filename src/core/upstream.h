/*-------------------------------------------------------------------------
 *
 * upstream.h
 *		From whom a replica without a vote streams, and who passes WAL on.
 *
 * The holder of the seat, or the member that quantadb.upstream names, to spare the holder.
 * The upstream has to stream from the holder itself: a chain of one link has no loops, and
 * what it passes on is WAL of the epoch that both have promised.  Acks of a member without
 * a vote count nowhere, so nobody misses them; a voter's would be missed, so no relay
 * serves one (I5).
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_UPSTREAM_H
#define QDB_CORE_UPSTREAM_H

#include "core/state.h"

#define QDB_UPSTREAM_SETTLE_US		INT64_C(1000000)	/* it has to be fit for
														 * so long */
#define QDB_UPSTREAM_PATIENCE_US	INT64_C(2000000)	/* without a stream from
														 * it */
#define QDB_UPSTREAM_AVOID_US		INT64_C(15000000)	/* one that seemed fit,
														 * and failed */
#define QDB_UPSTREAM_SILENT_BEATS	10	/* one that hangs keeps its
										 * connections */

/* What is known now; times monotonic us. */
typedef struct QdbUpstreamView
{
	int64_t		now_us;
	int64_t		beat_us;		/* time from one heartbeat to the next */
	uint64_t	self;
	uint64_t	epoch;			/* of the seat, the epoch that is promised
								 * here */
	uint64_t	holder;
	bool		opened;			/* the seat */

	/*
	 * The receiver of this node is connected to that member for that epoch; 0
	 * none.
	 */
	uint64_t	receiver_epoch;
	uint64_t	receiver_member;

	/* The member that is named; 0: none is, or this node may not use it. */
	uint64_t	named;
	bool		connected;		/* this and what follows as heard from it */
	int64_t		heard_us;
	bool		wants_upstream; /* so it passes nothing on */
	bool		streaming;		/* from the holder, as it says */
	uint64_t	promised;
} QdbUpstreamView;

/* Zeroed at first. */
typedef struct QdbUpstream
{
	uint64_t	named;			/* whom the times are of */
	uint64_t	epoch;
	bool		chosen;
	int64_t		fit_since_us;	/* 0: it is not */
	int64_t		streamed_us;	/* when a stream from it was seen, or it was
								 * chosen */
	int64_t		avoid_until_us;
} QdbUpstream;

/*
 * Whom to stream from now: holder or named.  *left: why the upstream was left in this
 * call, else NULL.
 */
extern uint64_t qdb_upstream_choose(QdbUpstream *upstream, const QdbUpstreamView *view, const char **left);

/* A receiver whose connection goes elsewhere than the target has to end. */
extern bool qdb_receiver_is_elsewhere(uint64_t receiver_epoch, uint64_t receiver_member,
									  uint64_t target_epoch, uint64_t target_member);

/* May a node that follows that epoch, with that target, pass its WAL on? */
extern bool qdb_may_relay(const QdbGrant *grant, uint64_t followed_epoch,
						  uint64_t target_epoch, uint64_t target_member);

/* Whom a relay of that epoch serves: NULL is nobody it knows. */
extern bool qdb_relay_serves(uint64_t epoch, uint64_t asked_epoch, const QdbMember *member);

#endif							/* QDB_CORE_UPSTREAM_H */
