/*-------------------------------------------------------------------------
 *
 * rehearse.h
 *		What a failover to a member would cost now, from what a node knows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_REHEARSE_H
#define QDB_CORE_REHEARSE_H

#include "core/quorum.h"

/* One member as this node sees it. */
typedef struct QdbRehearsalNode
{
	uint64_t	member;
	bool		connected;
	const char *why_not;		/* why it cannot be primary; "" it can */
	uint64_t	wal_end;		/* 0 unknown */
	int64_t		lag_us;			/* of what it shows; -1 unknown */
} QdbRehearsalNode;

typedef struct QdbRehearsal
{
	uint64_t	chosen;			/* whom a failover without a wish would take;
								 * 0 nobody */
	char		why_not[QDB_REASON_SIZE];	/* why not the member; "" it is
											 * the one */
	int64_t		bytes_behind;	/* the primary; -1 unknown */
	int64_t		replay_lag_us;	/* -1 unknown */
	int64_t		failover_us;	/* waits at most before it promotes, when the
								 * primary falls silent; -1 unknown */
	int64_t		switchover_us;	/* the same when it is asked for; -1 unknown */
	int64_t		loss_bytes;		/* of acknowledged WAL that a failover to it
								 * loses; -1 unknown */
} QdbRehearsal;

/* target is a member of state. */
extern void qdb_rehearse(const QdbState *state, const QdbRehearsalNode *nodes, size_t n,
						 uint64_t target, QdbRehearsal *rehearsal);

#endif							/* QDB_CORE_REHEARSE_H */
