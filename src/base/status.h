/*-------------------------------------------------------------------------
 *
 * status.h
 *		What a node says about itself and its cluster, in one place.
 *
 * SQL functions, error hints and HTTP answers show the same facts; they all
 * take them from one QdbStatus.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_BASE_STATUS_H
#define QDB_BASE_STATUS_H

#include "base/base.h"
#include "core/rehearse.h"

typedef struct QdbNodeStatus
{
	const QdbMember *member;	/* points into QdbStatus.state */
	bool		self;
	bool		primary;		/* holds the current seat */
	bool		connected;
	int64		seen_ago_us;	/* -1: never, or self */
	const char *role;
	char		state[16];
	XLogRecPtr	wal_end;		/* 0 unknown */
	int64		lag_bytes;		/* -1 unknown */
	int64		lag_us;			/* -1 unknown */
	bool		eligible;
	char		why_not[QDB_REASON_SIZE];
	QdbProgress progress;
	const QdbMember *upstream;	/* that it streams from now; NULL: none, or
								 * unknown */
	int64		kept_bytes;		/* of WAL that this node keeps for it, self:
								 * for all; -1 unknown */
} QdbNodeStatus;

/* A consistent enough picture: each part is copied under its own lock. */
typedef struct QdbStatus
{
	bool		member;
	bool		in_recovery;
	bool		may_write;
	bool		lease_alive;
	bool		fenced;
	uint64		self;			/* member id, 0 when no member */
	uint64		seat_epoch;
	uint64		open_epoch;
	TimeLineID	timeline;
	int			node_state;		/* QdbNodeState */
	int			raft_state;
	uint64		raft_term;
	uint64		raft_leader;
	uint64		raft_last_index;
	XLogRecPtr	quorum_lsn;
	XLogRecPtr	wal_end;
	QdbProgress progress;		/* of this node */
	uint64		upstream;		/* of this node; 0 none */
	char		why_not[QDB_REASON_SIZE];	/* of this node; empty: nothing */
	int64		lease_left_us;	/* 0: none */
	bool		majority;		/* live voters are a majority */
	int			can_lose;
	const QdbState *state;		/* never NULL; a private copy */
	const QdbMember *primary;	/* NULL: there is none */
	int			nnodes;
	QdbNodeStatus nodes[QDB_MAX_MEMBERS];
} QdbStatus;

/* palloc'd in the current context.  qdb_shared must be set; takes both locks. */
extern QdbStatus *qdb_collect_status(void);

/*
 * Brings up to date what this node knows of itself at once: gate, lease, recovery, role.  The
 * replicated state and the other nodes stay as they were collected.  Takes no lock that
 * the coordinator waits for.
 */
extern void qdb_refresh_own_status(QdbStatus *status);

/* What a failover to that member would cost; false: no such member. */
extern bool qdb_rehearse_now(const QdbStatus *status, const char *name, QdbRehearsal *rehearsal);

extern const char *qdb_node_state_text(int node_state);
extern const char *qdb_raft_state_text(int raft_state);
extern const char *qdb_role_text(int role);

/* False: no such role. */
extern bool qdb_parse_role(const char *text, int *role);

/* Where the primary is, as a sentence for hints; palloc'd. */
extern char *qdb_primary_hint(void);

#endif							/* QDB_BASE_STATUS_H */
