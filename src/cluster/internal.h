/*-------------------------------------------------------------------------
 *
 * internal.h
 *		What the files of the coordinator share.
 *
 * The coordinator is one thread with one loop (coordinator.c).  Each turn it
 * drives the peer mesh (mesh.c, heartbeat.c, lease.c), Raft (raft_node.h), proposals
 * (proposals.c), the mailbox (requests.c, init.c, join.c, handover.c), this node's own
 * steps (role.c, seat.c) and, where it leads Raft, the decisions (leader.c).
 * Nothing here blocks longer than an fsync or a scan of local WAL.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CLUSTER_INTERNAL_H
#define QDB_CLUSTER_INTERNAL_H

#include "base/base.h"
#include "base/channel.h"
#include "cluster/mesh.h"
#include "cluster/raft_node.h"
#include "core/token_text.h"

#define QDB_RAFT_DIR		QDB_DIR "/raft"

typedef struct QdbCoordinator
{
	QdbIdentity self;
	QdbRaft    *raft;			/* NULL: no member (yet) */
	QdbState   *state;			/* changed only by Raft's applies */
	bool		state_changed;	/* since it was published */
	int64		started_us;		/* when this process began */
	int64		now_us;			/* at the start of this turn */

	/* For decisions. */
	bool		was_leader;
	int64		leader_since_us;
	int64		epoch_seen_us;
	int64		move_seen_us;

	uint64		released_epoch; /* a RELEASE of this epoch was applied */
	bool		handing_over;	/* fenced for a switchover or a shutdown */
	int64		fenced_unix_us; /* when, Unix time */

	char		why_not[QDB_REASON_SIZE];	/* why no seat may come here */
	XLogRecPtr	wal_end;
} QdbCoordinator;

extern QdbCoordinator qdb_co;

/* ---- coordinator.c ---- */
/* Opens Raft for qdb_co.self.  False with why. */
extern bool qdb_open_raft(char *why, size_t why_size);
extern void qdb_close_raft(void);

/* Copies the applied state into shared memory. */
extern void qdb_publish_state(void);

/* This node in the replicated state; NULL: not (yet, or any more) in it. */
extern const QdbMember *qdb_self_member(void);
extern bool qdb_is_raft_leader(void);

/* This life of this node. */
extern QdbBoot qdb_self_boot(void);

/* The seat is this boot's, by the replicated state. */
extern bool qdb_grant_is_ours(const QdbGrant *grant);

/* ---- proposals.c ---- */
typedef void (*QdbProposalDone) (uint64 a, uint64 b, bool known, QdbResult result);

/*
 * Commits a command wherever the leader is.  done (may be NULL) is called from
 * the loop, never from a Raft callback, exactly once: known false when the outcome is unknown.
 * False: too many are under way, done is not called.
 */
extern bool qdb_propose(QdbCommand *command, QdbProposalDone done, uint64 a, uint64 b);
extern void qdb_proposals_turn(void);

/* Raft's answer; only noted, since a callback may neither raise errors nor close Raft. */
extern void qdb_proposal_finished(uint64 id, bool known, QdbResult result);

/* PROPOSE and PROPOSE_RESULT frames. */
extern void qdb_receive_propose(QdbPeer *peer, const QdbFrame *frame);
extern void qdb_receive_propose_result(QdbPeer *peer, const QdbFrame *frame);

/* ---- heartbeat.c ---- */
extern void qdb_heartbeat_turn(void);
extern void qdb_receive_heartbeat(QdbPeer *peer, const QdbFrame *frame);
extern void qdb_publish_peers(void);
extern void qdb_wanted_limits(int32 *wanted);

/* ---- lease.c ---- */
/* Epoch of the lease that this node asks for now; 0 none. */
extern uint64 qdb_lease_request(void);

/* A peer asks: true when granted and remembered (I9). */
extern bool qdb_lease_grant(QdbPeer *peer, uint64 epoch);

/* A peer granted what was asked for at sent_us. */
extern void qdb_lease_take(QdbPeer *peer, uint64 epoch, int64 sent_us);

/* Recomputes lease_until and the fence. */
extern void qdb_lease_turn(void);

/* A grant given by this node may still be alive: no report yet (I9). */
extern bool qdb_lease_blocks_report(void);

/* ---- reads.c ---- */
extern void qdb_reads_turn(void);
extern void qdb_receive_read_request(QdbPeer *peer, const QdbFrame *frame);
extern void qdb_receive_read_answer(QdbPeer *peer, const QdbFrame *frame);

/* ---- role.c, seat.c ---- */
extern void qdb_role_turn(void);

/* The holder's steps, QDB_STEP_PROMOTE and what follows it; grant is ours. */
extern void qdb_seat_turn(QdbNodeStep step, const QdbGrant *grant);

/* Refuses writes from now on; sticky. */
extern void qdb_fence_seat(void);

/* This node's scanned end of WAL, of the promised epoch; NULL: not known (why_not is set). */
extern const QdbEndOfWal *qdb_own_end_of_wal(void);
extern void qdb_forget_end_of_wal(void);

/* What keeps this node from following or holding a seat; "" when nothing does. */
extern void qdb_set_problem(const char *problem);

/* Ends queries that hold up replay, now and then. */
extern void qdb_clear_replay(void);

/* ---- upstream.c ---- */
extern bool qdb_wants_upstream(void);
extern const QdbMember *qdb_stream_source(const QdbGrant *grant, const QdbMember *holder);
extern void qdb_leave_other_source(void);

/* ---- retention.c ---- */
extern void qdb_retention_turn(void);

/* Where this node's last complete checkpoint begins; 0 unknown. */
extern XLogRecPtr qdb_own_redo(void);

/* Where the receiver shall connect, under this epoch; donor: to somebody without the seat. */
extern void qdb_set_target(const QdbMember *member, uint64 epoch, bool donor);

/* Nowhere, if it is a donor now. */
extern void qdb_drop_donor(void);

/* ---- donation.c ---- */
extern void qdb_give_donation(const QdbState *state, const QdbEndOfWal *end);

/* True while WAL is coming: no scan, no report. */
extern bool qdb_take_donation(const QdbState *state);
extern void qdb_end_donation(void);

/* ---- watch.c ---- */
extern void qdb_watch_turn(void);

/* An entry of this node for the journal, as soon as there is a leader. */
extern void qdb_note_event(const char *event, const char *node, const char *reason);

/* ---- leader.c ---- */
extern void qdb_leader_turn(void);

/* What this node sees of the cluster; decisions are the leader's, judgements anyone's. */
extern void qdb_build_view(QdbLeaderView *view);

/* ---- requests.c ---- */
extern void qdb_requests_begin(void);
extern void qdb_requests_turn(void);

/* Fails a request; sqlstate as ERRCODE_*, hint may be NULL. */
extern void qdb_refuse_request(int slot, int sqlstate, const char *message, const char *hint);
extern void qdb_answer_request(int slot, uint64 answer, const char *text);

/* ---- init.c ---- */
extern void qdb_drop_folder(const char *path);
extern void qdb_start_init(int slot, const QdbRequest *request);

/* Room for QDB_CLUSTER_ID_SIZE bytes; false: no random numbers. */
extern bool qdb_make_cluster_id(char *cluster_id);

/* Makes this node a member in shared memory. */
extern void qdb_become_member(void);
extern bool qdb_make_folder(char *why, size_t why_size);

/* ---- join.c ---- */
extern void qdb_start_join(int slot, const QdbRequest *request);
extern void qdb_join_turn(void);
extern QdbChannel *qdb_join_channel(void);

/* A join is under way, its crash cycle included. */
extern bool qdb_join_pending(void);

/* The other side: a stranger's JOIN frame. */
extern void qdb_receive_join(QdbStranger *stranger, const QdbFrame *frame);
extern void qdb_stranger_turn(QdbStranger *stranger);

/* ---- certificates.c ---- */
/* Authority, key and certificate of a new cluster's first member.  False with why. */
extern bool qdb_make_certificates(uint8 *key_hash, char *why, size_t why_size);

/* Renews what is due, before any connection; then with each turn. */
extern void qdb_certificates_begin(void);
extern void qdb_certificates_turn(void);
extern void qdb_certificates_reload(void);
extern void qdb_receive_certificate_frame(QdbPeer *peer, const QdbFrame *frame);

/* Has this node the authority's key?  Also true where none is needed. */
extern bool qdb_can_sign(void);

/* The certificate of a member that was let in; PEM length, 0: failed. */
extern int	qdb_sign_joiner(const QdbMember *member, EVP_PKEY *public_key, char *pem, size_t size);

/* ---- clone.c ---- */
/* Join by a clone: self is stored as pending, Raft opened, the worker started. */
extern bool qdb_begin_joining(char *why, size_t why_size);

/* At the start of the coordinator: goes on with what a restart interrupted. */
extern void qdb_resume_joining(void);

/* A turn of a node that joins; and of a member, for its clone. */
extern void qdb_joining_turn(void);
extern void qdb_clone_turn(void);

/* The resync worker, one at a time, for one task. */
extern void qdb_start_resync(QdbResyncTask task);
extern bool qdb_resync_running(void);
extern bool qdb_resync_may_start(void);
extern bool qdb_clone_wanted(void);

/* ---- ladder.c ---- */
/* This node has replayed past the fork; or it can follow after all. */
extern void qdb_want_rewind(const char *reason);
extern void qdb_forget_rewind(void);

/* Puts into the journal what a trim has thrown away, if there is news. */
extern void qdb_note_trim(void);
extern void qdb_ladder_turn(void);

/* This member's data cannot follow the primary's. */
extern void qdb_want_clone(const char *reason);

/* Under the mutex: a clone is being committed, nothing is promised or followed (I11). */
#define qdb_clone_holds()	(qdb_shared->clone.phase == QDB_CLONE_STAGED)

/* ---- token.c ---- */
extern void qdb_start_token(int slot, const QdbRequest *request);

/* False: no join token. */
extern bool qdb_parse_token(const char *text, QdbTokenText *token);

/* ---- members.c ---- */
extern void qdb_start_wish(int slot, const QdbRequest *request);
extern void qdb_wishes_turn(void);
extern void qdb_end_wishes(void);

/* ---- removed.c ---- */
/* The others have removed this member; who says so was believed. */
extern void qdb_learn_removal(void);
extern bool qdb_removal_learned(void);

/* True: this node takes no part any more, nothing of this turn is left to do. */
extern bool qdb_removal_turn(void);

/* Instead of a member's turn: stays a standby that follows nobody. */
extern void qdb_removed_turn(void);

/* ---- recover.c ---- */
extern void qdb_start_recover(int slot, const QdbRequest *request);
extern bool qdb_recover_turn(void);
extern void qdb_finish_recovery(void);
extern void qdb_finish_exchange(void);

/* ---- promotion.c ---- */
extern void qdb_start_promote(int slot, const QdbRequest *request);
extern void qdb_promotion_turn(void);
extern void qdb_promotion_given_up(const char *why);

/* ---- freeze.c ---- */
/* WAL ends at *end and nothing more becomes durable; false: not yet, try again. */
extern bool qdb_freeze_wal(XLogRecPtr *end);
extern void qdb_thaw_wal(void);
extern void qdb_end_writers(void);

/* ---- health.c ---- */
extern void qdb_health_turn(void);

/* Why this node is too sick for a seat; "" when it is not. */
extern const char *qdb_sickness(void);

/* It does not answer now: a crash cycle would wait for it. */
extern bool qdb_postmaster_hangs(void);

/* ---- handover.c ---- */
extern void qdb_handover_turn(void);
extern void qdb_give_seat_up(const char *why, bool stuck);

/* The seat is given up, and this node waits with its demotion. */
extern bool qdb_handover_lingers(void);

/* SIGTERM: says goodbye, gives the seat back; does not return. */
extern void qdb_shut_down(void) pg_attribute_noreturn();

#endif							/* QDB_CLUSTER_INTERNAL_H */
