/*-------------------------------------------------------------------------
 *
 * raft_node.h
 *		One Raft node: libraft's core over our own raft_io.
 *
 * Single-threaded and non-blocking apart from fsync.  Log, metadata and
 * snapshot live in one directory; messages leave through a callback as bytes of our
 * own versioned format and come back through qdb_raft_receive.  The replicated
 * state is the caller's QdbState, changed only by committed entries.
 * No function raises errors; memory is malloc'd.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CLUSTER_RAFT_NODE_H
#define QDB_CLUSTER_RAFT_NODE_H

#include "core/state.h"

typedef struct QdbRaft QdbRaft;

typedef struct QdbRaftCallbacks
{
	void	   *arg;
	/* Send bytes to a member; may drop them. */
	void		(*send) (void *arg, uint64_t member, const uint8_t *data, uint32_t len);

	/*
	 * After an entry was applied to *state, or a snapshot restored (command
	 * NULL).
	 */
	void		(*applied) (void *arg, uint64_t index, const QdbCommand *command, QdbResult result);

	/*
	 * While opening: an entry of the log names this member's address.  A
	 * hint, since the entry may never be committed; without it members that
	 * all start again before the first snapshot would not find each other,
	 * and so commit nothing.  May be NULL.
	 */
	void		(*named) (void *arg, const QdbMember *member);
	/* Answer to qdb_raft_propose.  known false: the outcome is unknown. */
	void		(*proposed) (void *arg, uint64_t request, bool known, QdbResult result);
	/* Diagnostics: level as elog's (LOG, DEBUG1, WARNING). */
	void		(*log) (void *arg, int level, const char *message);
} QdbRaftCallbacks;

/* Writes a first log with the one server as its voter.  False with why. */
extern bool qdb_raft_bootstrap(const char *dir, uint64_t id, char *why, size_t why_size);

/*
 * After a bootstrap, before the first opening: the log begins with this state
 * instead of an empty one.  False with why.
 */
extern bool qdb_raft_begin_with(const char *dir, uint64_t id, const QdbState *state,
								char *why, size_t why_size);

/* Prepares an empty directory for a joiner that will receive the log. */
extern bool qdb_raft_prepare(const char *dir, uint64_t id, char *why, size_t why_size);

/* Opens and starts; applies what is there.  NULL with why (corrupt: says so). */
extern QdbRaft *qdb_raft_open(const char *dir, uint64_t id, QdbState *state,
							  const QdbRaftCallbacks *callbacks,
							  unsigned election_ms, unsigned heartbeat_ms,
							  char *why, size_t why_size);
extern void qdb_raft_close(QdbRaft *raft);

/*
 * Runs completions and timers; call at least every 10 ms and after each
 * receive or propose.  Returns ms until it wants to be called again.
 */
extern int	qdb_raft_turn(QdbRaft *raft);

/* Something was begun since the last turn: the next one should come at once. */
extern bool qdb_raft_has_work(QdbRaft *raft);

/* A message that a member sent.  Malformed bytes are dropped and logged. */
extern void qdb_raft_receive(QdbRaft *raft, uint64_t from, const uint8_t *data, uint32_t len);

/* Leader only; false: not leader (nothing will be called back). */
extern bool qdb_raft_propose(QdbRaft *raft, const QdbCommand *command, uint64_t request);

extern int	qdb_raft_state(QdbRaft *raft);	/* enum raft_state */
extern uint64_t qdb_raft_term(QdbRaft *raft);
extern uint64_t qdb_raft_leader(QdbRaft *raft); /* member id, 0 unknown */
extern uint64_t qdb_raft_last_index(QdbRaft *raft);
extern uint64_t qdb_raft_applied_index(QdbRaft *raft);

/* Broken for good (disk full, EIO): end the worker with exit code 1. */
extern bool qdb_raft_failed(QdbRaft *raft);

extern bool qdb_raft_transfer(QdbRaft *raft, uint64_t member);

/*
 * Leader: makes Raft's configuration follow the state's members, one change at a time
 * (voter: voter; learner and replica: standby; gone: removed).  Call each turn.
 */
extern void qdb_raft_reconcile(QdbRaft *raft);

/* Is it a voter of Raft's configuration, as far as this node's log says? */
extern bool qdb_raft_votes(const QdbRaft *raft, uint64_t member);

/*
 * The state as it would be if all of this log were committed: without a majority
 * a node that has started again knows no more than its last snapshot.  False: the
 * log cannot be read.
 */
extern bool qdb_raft_foresee(QdbRaft *raft, QdbState *state);

/*
 * The leader's process is known dead (connection reset and its port refuses):
 * the fast path of an election.  rank: number of live voters with a smaller id.
 */
extern void qdb_raft_leader_dead(QdbRaft *raft, uint64_t leader, int rank);

#endif							/* QDB_CLUSTER_RAFT_NODE_H */
