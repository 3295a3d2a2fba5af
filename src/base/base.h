/*-------------------------------------------------------------------------
 *
 * base.h
 *		Settings, shared memory, identity, epoch record and the seam between
 *		the folders.
 *
 * The workers meet in one struct, QdbShared.  Each field says who writes it.
 * Lock order: QdbShared.state_lock, then QdbShared.mutex, then anything of
 * PostgreSQL's (SyncRepLock).  Nothing blocks under the spinlock.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_BASE_H
#define QDB_BASE_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "port/atomics.h"
#include "storage/block.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#include "core/failover.h"
#include "core/frame.h"
#include "core/plan.h"
#include "core/quorum.h"
#include "core/resync.h"
#include "core/state.h"
#include "core/transfer.h"
#include "core/steps.h"
#include "base/stats.h"


#define QDB_RMGR_ID				128
#define QDB_DIR					"quantadb"	/* below $PGDATA */

/* ---- settings.c ---- */
extern char *qdb_node_name;
extern char *qdb_listen_addresses;
extern char *qdb_advertise_host;	/* never NULL or empty after startup */
extern int	qdb_raft_port;
extern int	qdb_replication_port;
extern int	qdb_http_port;
extern int	qdb_heartbeat_ms;
extern int	qdb_replication_buffer_kb;
extern int	qdb_replication_compression;	/* QdbCodec of wal/compress.h */
extern int	qdb_priority;
extern char *qdb_tls_cert_file; /* empty: the cluster's own certificates */
extern char *qdb_tls_key_file;
extern char *qdb_tls_ca_file;
extern char *qdb_key_passphrase_command;
extern int	qdb_certificate_lifetime_s;
extern bool qdb_http_tls;
extern bool qdb_development_plaintext;
extern int	qdb_read_consistency;	/* QdbReadConsistency, per session */
extern char *qdb_min_lsn;
extern int	qdb_read_timeout_ms;	/* 0: none */
extern int64 qdb_max_lag_bytes; /* of quantadb.max_replica_lag; -1 off */
extern int64 qdb_max_lag_us;
extern char *qdb_upstream;		/* a member to stream from; "": the primary */
extern int	qdb_clone_rate_kb;	/* per second; 0: unlimited */
extern int	qdb_lost_wal_limit_mb;	/* of WAL kept below quantadb/lost */
extern int	qdb_wal_retention_limit_mb; /* of WAL kept for members */
extern int	qdb_stall_timeout_ms;	/* 0: for ever */
extern int	qdb_min_free_space_mb;	/* 0: never too little */
extern int	qdb_debug_apply_stop;	/* point at which the application of
									 * staged work dies; -1: none */

typedef enum QdbReadConsistency
{
	QDB_READ_EVENTUAL,
	QDB_READ_SESSION,
	QDB_READ_STRICT
} QdbReadConsistency;

extern void qdb_define_settings(void);

/*
 * Owned settings of a member (hazards 30): overridden in _PG_init, so that
 * every child inherits them.  Sets *problem to a message where a setting that
 * needs a restart forbids membership (max_wal_senders = 0, ...), else NULL.
 */
extern void qdb_own_settings(void);

/* What no stock walsender satisfies: commits wait until this library releases them. */
#define QDB_SYNC_STANDBY_NAMES	"ANY 1000 (quantadb)"
extern bool qdb_is_owned_setting(const char *name);

/* ---- limits.c ---- */
#define QDB_NLIMITS			5

extern const char *const qdb_limit_names[QDB_NLIMITS];
extern void qdb_own_limits(int32 *limits);

/* Is each at least what is wanted?  If not, why (QDB_REASON_SIZE bytes) names the first. */
extern bool qdb_limits_suffice(const int32 *limits, const int32 *wanted, char *why);

/* ---- identity.c: $PGDATA/quantadb/identity and promise, fsynced ---- */
typedef struct QdbIdentity
{
	char		cluster_id[QDB_CLUSTER_ID_SIZE];
	uint64		member;			/* Raft id */
	uint64		system_identifier;
	uint64		inode;			/* of $PGDATA */
	uint64		incarnation;
	uint64		boot;			/* raised and fsynced at every postmaster
								 * start and crash cycle */
	char		name[QDB_NAME_SIZE];
} QdbIdentity;

/*
 * Reads the identity.  False: no member.  A folder that does not fit this data
 * directory (a copy), or that a restored backup has brought, is renamed to
 * quantadb.stranger.N and counts as none.
 */
extern bool qdb_identity_load(QdbIdentity *identity);

/*
 * A node that joins by a clone is known to the cluster before it has its data.  Until
 * the data directory has the cluster's system identifier, its identity is stored as a
 * pending one; qdb_identity_load makes it the identity as soon as they fit.
 */
extern bool qdb_pending_load(QdbIdentity *identity);
extern bool qdb_pending_store(const QdbIdentity *identity); /* false: logged */
extern bool qdb_pending_remove(void);

/*
 * A node that the others have removed keeps its identity, and with it all that holds a
 * member back from writing, until it joins again; a mark says that it takes no part.
 */
extern bool qdb_removed_load(const QdbIdentity *identity);
extern bool qdb_removed_store(const QdbIdentity *identity); /* false: logged */
extern void qdb_identity_store(const QdbIdentity *identity);	/* ereport(ERROR) on
																 * failure */

/* Durable promise; 0 when there is none. */
extern uint64 qdb_promise_load(void);
extern bool qdb_promise_store(uint64 epoch);	/* false: not durable, logged */

/* Atomic, fsynced replacement of a small file below $PGDATA/quantadb; false: logged. */
extern bool qdb_write_file(const char *path, const void *data, size_t len);

/* ---- epoch_record.c ---- */
typedef struct xl_qdb_epoch
{
	uint32		format;			/* 1 */
	TimeLineID	timeline;
	uint64		epoch;
	uint64		incarnation;
	uint64		boot;
	uint64		cluster_hash;	/* first 8 bytes of the cluster id's UUID */
} xl_qdb_epoch;

#define XLOG_QDB_EPOCH			0x00	/* xl_info of the epoch record */
#define QDB_EPOCH_FORMAT		1

/* The whole content of a history file that only fills a gap in the numbers. */
#define QDB_PLACEHOLDER			"# quantadb placeholder\n"

#define QDB_RMGR_OPMASK			0x70	/* of xl_info: the operation */

/* The storage access method's part of the resource manager. */
struct XLogReaderState;
struct StringInfoData;
struct LogicalDecodingContext;
struct XLogRecordBuffer;
typedef struct QdbTableRecords
{
	void		(*redo) (struct XLogReaderState *record);
	void		(*desc) (struct StringInfoData *buf, struct XLogReaderState *record);
	const char *(*identify) (uint8 info);
	void		(*mask) (char *page, BlockNumber blkno);
	void		(*decode) (struct LogicalDecodingContext *ctx, struct XLogRecordBuffer *buf);
} QdbTableRecords;

extern void qdb_register_rmgr(const QdbTableRecords *records);

/* Writes and flushes the record; returns its start, *end its end. */
extern XLogRecPtr qdb_write_epoch_record(const xl_qdb_epoch *record, XLogRecPtr *end);
extern uint64 qdb_cluster_hash(const char *cluster_id);

/* ---- shared memory ---- */

/* A request from a backend or the http worker to the coordinator. */
typedef enum QdbRequestKind
{
	QDB_REQ_PROPOSE = 1,		/* encoded QdbCommand: commit it in Raft,
								 * wherever the leader is */
	QDB_REQ_INIT,				/* text: cluster name; the node is no member
								 * yet */
	QDB_REQ_JOIN,				/* text: "host:port token" */
	QDB_REQ_PROMOTE,			/* text: node name or empty; flag: force */
	QDB_REQ_TOKEN,				/* text: role; number: ttl seconds; the
								 * answer's text is the token */
	QDB_REQ_ROLE,				/* text: node name; number: QdbRole; the
								 * answer's text is a warning or empty */
	QDB_REQ_REMOVE,				/* text: node name; the same */
	QDB_REQ_RECOVER				/* text: cluster name; the answer's text: the
								 * new id, a space, what may be lost */
} QdbRequestKind;

typedef enum QdbRequestState
{
	QDB_REQUEST_FREE,
	QDB_REQUEST_FILLED,			/* written by the caller */
	QDB_REQUEST_TAKEN,			/* the coordinator works on it */
	QDB_REQUEST_DONE,			/* the answer is there; the caller frees it */
	QDB_REQUEST_ABANDONED		/* the caller has gone; the coordinator frees
								 * it */
} QdbRequestState;

#define QDB_MAX_REQUESTS		16
#define QDB_REQUEST_TEXT		1024

typedef struct QdbRequest
{
	QdbRequestState state;
	int			pid;			/* of the caller */
	QdbRequestKind kind;
	bool		flag;
	int64		number;
	uint32		length;
	uint8		command[QDB_COMMAND_MAX_BYTES];
	char		text[QDB_REQUEST_TEXT];
	/* the answer */
	bool		ok;
	QdbResult	result;
	int			sqlstate;		/* of a refusal, ERRCODE_* */
	uint64		answer;			/* e.g. the new epoch */
	char		message[QDB_REQUEST_TEXT];	/* of a refusal, or the answer's
											 * text */
	char		hint[QDB_REASON_SIZE];
} QdbRequest;

/* One stream as the streamer sees it. */
typedef struct QdbStreamStatus
{
	uint64		member;			/* 0: slot unused */
	bool		streaming;
	XLogRecPtr	sent;
	XLogRecPtr	write;
	XLogRecPtr	flush;
	XLogRecPtr	apply;
	int64		reply_us;		/* monotonic */
	int64		apply_lag_us;	/* -1 unknown */
	uint64		bytes_raw;
	uint64		bytes_wire;
	uint64		reconnects;
} QdbStreamStatus;

/* A clone, rewind or other resynchronisation of a node. */
typedef struct QdbProgress
{
	char		step[16];		/* "clone", or of a rewind (core/resync.h);
								 * empty: none */
	uint64		done;			/* bytes */
	uint64		total;			/* bytes; 0 unknown */
} QdbProgress;

/* One peer as the coordinator sees it. */
typedef struct QdbPeerStatus
{
	uint64		member;			/* 0: slot unused */
	bool		connected;
	int64		heard_us;		/* monotonic; 0 never */
	XLogRecPtr	wal_end;
	char		state[16];		/* as quantadb_nodes shows it */
	char		why_not[QDB_REASON_SIZE];	/* empty: may become primary */
	QdbProgress progress;
	XLogRecPtr	needs;			/* WAL from here on; 0 unknown */
	uint64		upstream;		/* member that it streams from; 0 none */
} QdbPeerStatus;

/*
 * A source of a clone: the helper process that makes a checkpoint and a manifest for
 * one connection of the streamer, and keeps WAL from the checkpoint on for as
 * long as it lives.
 */
#define QDB_MAX_SOURCES			4

typedef enum QdbSourceState
{
	QDB_SOURCE_FREE,
	QDB_SOURCE_WANTED,			/* streamer: asked for; the helper starts */
	QDB_SOURCE_READY,			/* helper */
	QDB_SOURCE_FAILED			/* helper; reason says why */
} QdbSourceState;

typedef struct QdbSource
{
	int			state;			/* QdbSourceState */
	uint64		serial;			/* of this use of the slot; streamer */
	bool		stop;			/* streamer: the helper shall end */
	bool		checkpoint;		/* streamer: keep WAL from a checkpoint on */
	uint64		member;			/* streamer: for whom */
	XLogRecPtr	resume;			/* streamer: redo to take up again from, or 0 */
	pid_t		streamer;		/* process that asked */
	pid_t		pid;			/* helper */
	QdbManifestInfo info;		/* helper */
	char		reason[QDB_REASON_SIZE];	/* helper */
} QdbSource;

/* How far a node has come that gets its data anew. */
typedef enum QdbClonePhase
{
	QDB_CLONE_NONE,
	QDB_CLONE_CONNECTING,
	QDB_CLONE_PREPARING,		/* the source makes a checkpoint and its
								 * manifest */
	QDB_CLONE_COPYING,
	QDB_CLONE_STAGED,			/* all is there; the coordinator decides when
								 * it counts */
	QDB_CLONE_FAILED			/* for good; reason says why */
} QdbClonePhase;

typedef struct QdbCloneStatus
{
	int			phase;			/* QdbClonePhase */
	uint64		epoch;			/* of the source's seat */
	uint64		source;			/* member id */
	uint64		bytes_done;
	uint64		bytes_total;
	uint32		attempts;
	pid_t		worker;			/* that clones; 0 none */
	int			sqlstate;		/* of a failure */
	char		reason[QDB_REASON_SIZE];	/* why the last attempt ended */
	char		hint[QDB_REASON_SIZE];
} QdbCloneStatus;

typedef enum QdbNodeState
{
	QDB_NODE_INERT,				/* loaded, no member */
	QDB_NODE_FOLLOWER,			/* no primary to stream from yet */
	QDB_NODE_REPLICA,			/* streaming */
	QDB_NODE_PRIMARY,			/* seat, open, lease alive */
	QDB_NODE_STANDBY,			/* resynchronising, not eligible */
	QDB_NODE_FENCED				/* seat without a live lease, or not open yet */
} QdbNodeState;

/* What the slot of the streamer does. */
typedef enum QdbKeepMode
{
	QDB_KEEP_ALL,				/* it stays where it is: nothing is known yet */
	QDB_KEEP_MEMBERS,			/* it moves up to keep_from */
	QDB_KEEP_NOTHING			/* there is none */
} QdbKeepMode;

/* How the last rewind ended that did not lead to the crash cycle. */
typedef struct QdbRewindStatus
{
	uint32		failed;			/* how many have */
	bool		useless;		/* it never will work */
	bool		unreachable;	/* there was nobody to get data from */
	char		reason[QDB_REASON_SIZE];
} QdbRewindStatus;

typedef struct QdbShared
{
	/*
	 * Written by the postmaster in shmem_startup; constant until a crash
	 * cycle, except that a join or init (coordinator) makes the node a
	 * member.
	 */
	bool		member;
	bool		removed;		/* a member that was removed: it takes no part
								 * and may join again; coordinator */
	QdbIdentity identity;

	LWLock	   *state_lock;
	QdbState	state;			/* coordinator; under state_lock */
	QdbPeerStatus peers[QDB_MAX_MEMBERS];	/* coordinator; under state_lock */

	pg_atomic_uint32 key_generation;	/* raised when key files were replaced */

	slock_t		mutex;			/* short fields below */

	/*
	 * The promise as it is durable.  Coordinator only.  promising is set,
	 * under mutex, before the receiver is parked: from then on no WAL of an
	 * epoch below it is taken or acked (I2), though it is not durable yet.
	 */
	uint64		promised;
	uint64		promising;

	/*
	 * Where the walreceiver shall connect; coordinator, under mutex.
	 * target_epoch 0: nowhere, connect waits.
	 */
	uint64		target_epoch;
	uint64		target_member;
	bool		target_donor;	/* not the seat's holder: it hands WAL over
								 * while the epoch is open */
	char		target_host[QDB_HOST_SIZE];
	uint16		target_port;

	/*
	 * This node's file of that timeline's first segment has all bytes before
	 * begun_upto, matched with the grant's history: they need not be sent.
	 * Coordinator, receiver parked; under mutex.
	 */
	TimeLineID	begun_timeline;
	XLogRecPtr	begun_upto;

	/*
	 * Receiver transport, under mutex: it holds a connection under this
	 * epoch; 0 parked
	 */
	uint64		receiver_epoch;
	uint64		receiver_member;	/* to whom */
	char		receiver_refusal[QDB_REASON_SIZE];	/* last STREAM_REFUSED */

	/*
	 * The seat; coordinator, under mutex.  seat_epoch is the epoch whose
	 * grant this very boot holds (promoted, epoch record flushed), else 0.
	 * open_epoch is set from it once its gate is open.  The node may write
	 * iff open_epoch != 0 && open_epoch == promised && promising == promised,
	 * and strict reads additionally need now < lease_until.
	 */
	uint64		seat_epoch;
	uint64		open_epoch;
	bool		fenced;			/* writes and strict reads refused (lease
								 * gone, handing over) */

	/*
	 * This node hands its WAL up to donate_end to one member, under the
	 * promise of an open epoch; 0: it does not.  Coordinator, under mutex.
	 */
	uint64		donate_epoch;
	uint64		donate_taker;
	TimeLineID	donate_timeline;
	XLogRecPtr	donate_end;

	/*
	 * A RELEASE of this epoch may be under way: the holder asks for no lease,
	 * also after a restart of its coordinator (I9).
	 */
	uint64		releasing_epoch;
	XLogRecPtr	epoch_record_end;
	TimeLineID	seat_timeline;
	pg_atomic_uint64 lease_until;	/* monotonic us; coordinator */
	pg_atomic_uint64 quorum_lsn;	/* streamer, under seat_epoch; never back
									 * within it */
	pg_atomic_uint64 quorum_epoch;	/* epoch that quorum_lsn belongs to */
	pg_atomic_uint64 quorum_membership; /* membership number it was counted
										 * under */

	/*
	 * Strict reads on a replica: backends draw tickets, the coordinator
	 * answers all up to read_answered, under mutex.  read_epoch 0: refused.
	 */
	pg_atomic_uint64 read_ticket;
	uint64		read_answered;
	uint64		read_epoch;
	XLogRecPtr	read_lsn;
	ConditionVariable read_done;

	/* A replica's lag; coordinator. */
	pg_atomic_uint64 replica_lag_bytes;
	pg_atomic_uint64 replica_level_us;	/* when it last showed all there was,
										 * monotonic; 0 unknown */

	pg_atomic_uint64 apply_wanted_us;	/* backends: when a commit last wanted
										 * remote_apply, monotonic */

	/* Written by startup's redo of an epoch record; under mutex. */
	uint64		replayed_epoch;
	XLogRecPtr	replayed_epoch_lsn;

	bool		handed_over;	/* coordinator: the server ends as it was
								 * asked to, the seat is given away */

	/*
	 * The archive has all WAL up to here, and the histories up to this
	 * timeline.  Archiver, and coordinator from the peers; never back, under
	 * mutex
	 */
	XLogRecPtr	archived_lsn;
	TimeLineID	archived_timeline;

	int			node_state;		/* QdbNodeState; coordinator, under mutex */
	char		why_not[QDB_REASON_SIZE];	/* coordinator, under mutex */
	XLogRecPtr	wal_end;		/* last scanned or streamed end; coordinator,
								 * under mutex */

	int			keep_mode;		/* QdbKeepMode; coordinator, under mutex */
	XLogRecPtr	keep_from;		/* coordinator, under mutex */
	XLogRecPtr	kept_from;		/* where the slot is, 0 none; streamer, under
								 * mutex */

	QdbRewindStatus rewind;		/* resync worker, under mutex */
	QdbProgress progress;		/* of this node; who resynchronises, under
								 * mutex */

	QdbCounters counters;

	/* Raft as users see it; coordinator, under mutex. */
	int			raft_state;		/* enum raft_state */
	uint64		raft_term;
	uint64		raft_leader;	/* member id, 0 unknown */
	uint64		raft_last_index;

	QdbStreamStatus streams[QDB_MAX_MEMBERS];	/* streamer; under mutex */
	QdbSource	sources[QDB_MAX_SOURCES];	/* streamer and helpers; under
											 * mutex */

	/*
	 * This node is being cloned, by the process that writes it; under mutex.
	 * joining: it has been added to a cluster and is no member yet.
	 */
	bool		joining;
	QdbCloneStatus clone;

	QdbRequest	requests[QDB_MAX_REQUESTS]; /* under state_lock */
	ConditionVariable request_done;

	/* Set by each worker at start, under mutex; NULL when it is not running. */
	Latch	   *coordinator_latch;
	Latch	   *streamer_latch;
	Latch	   *http_latch;
	pid_t		coordinator_pid;
	pid_t		streamer_pid;
	pid_t		http_pid;
	int64		coordinator_beat_us;	/* monotonic, each turn of its loop */
} QdbShared;

extern QdbShared *qdb_shared;	/* NULL without the preload */

extern void qdb_shmem_request(void);	/* shmem_request_hook body */
extern void qdb_shmem_startup(void);	/* shmem_startup_hook body; also runs
										 * in a crash cycle */

/* Monotonic microseconds, comparable between the processes of one machine. */
extern int64 qdb_now_us(void);
extern int64 qdb_unix_us(void);

/* The member whose WAL comes in now, 0 none; the caller holds mutex. */
static inline uint64
qdb_streaming_from(void)
{
	return qdb_shared->target_epoch != 0 && qdb_shared->receiver_epoch == qdb_shared->target_epoch ?
		qdb_shared->receiver_member : 0;
}

/* True when this node may write at this moment (I15). */
extern bool qdb_may_write(void);

/* True when strict reads may be answered: qdb_may_write, lease and postmaster alive. */
extern bool qdb_lease_alive(void);

/* True on a replica that is further behind than quantadb.max_replica_lag allows. */
extern bool qdb_replica_lag_exceeded(int64 *lag_bytes, int64 *lag_us);

/* How far the archive is complete: takes note of it, if it is news. */
extern void qdb_note_archived(XLogRecPtr lsn, TimeLineID timeline);
extern void qdb_read_archived(XLogRecPtr *lsn, TimeLineID *timeline);

/* Wakes; safe from any process and when the worker does not run. */
extern void qdb_wake_coordinator(void);
extern void qdb_wake_streamer(void);

/*
 * Says how far this node has come; step "" when it is done or given up.  From
 * any process; peers see it with the next heartbeat.
 */
extern void qdb_set_progress(const char *step, uint64 done, uint64 total);

/*
 * How messages name a member: 'node "n2"', or 'member 5' where the state does not
 * know it (any more).  Static memory of this process; takes state_lock.
 */
extern const char *qdb_member_label(uint64 member);

/* A copy of the replicated state, palloc'd in the current context. */
extern QdbState *qdb_copy_state(void);

/*
 * Puts a request into the mailbox and waits (interruptibly, at most timeout_ms)
 * for the answer, copied into *request.  False: no answer in time or no
 * coordinator; the outcome is then unknown.  Backends only.
 */
extern bool qdb_request(QdbRequest *request, int timeout_ms);

/* Does this backend wait for a promotion that it has asked for? */
extern bool qdb_awaits_promotion(int pid);

/* For a loop that may not wait (http): slot number or -1, then poll. */
extern int	qdb_request_post(const QdbRequest *request);
extern bool qdb_request_poll(int slot, QdbRequest *answer); /* true: done, slot
															 * freed */
extern void qdb_request_abandon(int slot);

/* ---- ending.c ---- */
/* shmem_startup of the postmaster: a planned end without a checkpoint exits with 0. */
extern void qdb_register_ending(void);

/* ---- worker.c ---- */
extern void qdb_register_workers(void);

/*
 * Common start of a worker: signals, and the latch published in *latch_slot.
 * qdb_worker_shutdown_requested() is true after SIGTERM.
 */
extern void qdb_worker_begin(Latch **latch_slot, pid_t *pid_slot);
extern bool qdb_worker_shutdown_requested(void);

/* Does the postmaster shut down, or was only this worker told to end? */
extern bool qdb_server_is_stopping(void);
extern void qdb_worker_end(void) pg_attribute_noreturn();

/* Entry points, each in its folder. */
extern PGDLLEXPORT void qdb_coordinator_main(Datum arg);
extern PGDLLEXPORT void qdb_streamer_main(Datum arg);
extern PGDLLEXPORT void qdb_http_main(Datum arg);

/* A helper that the streamer starts for a clone's source; arg: index in sources. */
extern PGDLLEXPORT void qdb_source_main(Datum arg);

/* What the resync worker is started for; its argument. */
typedef enum QdbResyncTask
{
	QDB_RESYNC_JOIN = 1,		/* clone, for a node that is no member yet */
	QDB_RESYNC_CLONE,			/* clone, for a member */
	QDB_RESYNC_REWIND,
	QDB_RESYNC_CLEAN			/* remove what a clone, a rewind or a trim has
								 * left */
} QdbResyncTask;

extern PGDLLEXPORT void qdb_resync_main(Datum arg);

/*
 * How many rewinds were begun onto an epoch; outlives the crash cycles in which they are
 * applied, so that their number is bounded.
 */
extern uint32 qdb_rewinds_load(uint64 epoch);
extern bool qdb_rewinds_store(uint64 epoch, uint32 n);	/* false: logged */

/* Placed by the plan of a rewind: what the journal shall say after the boot. */
#define QDB_REWIND_DONE			QDB_STAGE_DIR "/rewind.done"

/* Placed by a trim: what the journal shall say. */
#define QDB_TRIM_DONE			QDB_DIR "/trim.done"

/* WAL files that were taken out of pg_wal in a hurry; QDB_RESYNC_CLEAN removes them. */
#define QDB_DISCARDED_DIR		QDB_DIR "/discarded"

/* Placed by the plan of a clone: says, after the boot, that one was applied. */
#define QDB_CLONE_DONE			QDB_STAGE_DIR "/clone.done"

/*
 * The seam: what the coordinator (cluster) makes the other folders do.
 * quantadb.c fills it, so that no folder includes another.
 */
typedef struct QdbEndOfWal
{
	uint64		epoch;			/* that owns the last counted byte */
	TimeLineID	timeline;
	XLogRecPtr	end;
	/* What startup has replayed; beyond end there is something to rewind. */
	XLogRecPtr	replayed;
	TimeLineID	replayed_timeline;
} QdbEndOfWal;

#define QDB_NEEDS_REWIND		"needs a rewind"

typedef struct QdbEffects
{
	/*
	 * Scans this node's WAL to its true end and fsyncs it (I6).  Only in
	 * recovery, with the receiver parked.  False with *why (QDB_REASON_SIZE
	 * bytes) when there is no answer, e.g. not consistent yet.
	 */
	bool		(*end_of_wal) (const QdbState *state, QdbEndOfWal *end, char *why);

	/* Asks a walreceiver to end; true once none holds a connection (I2). */
	bool		(*park_receiver) (void);

	/*
	 * Starts a promotion onto the grant's timeline: placeholders, promote
	 * file, signal.  Returns at once; poll promotion_done.
	 */
	bool		(*promote) (const QdbState *state, const QdbGrant *grant, char *why);

	/*
	 * 1: writable for PostgreSQL, on the grant's timeline, standby.signal in
	 * place again; 0 not yet; -1 failed, why.
	 */
	int			(*promotion_done) (const QdbGrant *grant, char *why);

	/*
	 * A promotion was begun in this life of the server and is not over.
	 * Nothing takes it back but a crash cycle.
	 */
	bool		(*promoting) (void);

	/* Makes this server a standby again: never returns when it works. */
	void		(*demote) (const char *reason);

	/*
	 * Is this node's WAL a prefix of what the grant's holder has?  1 yes; 0
	 * after an unreplayed tail was trimmed; -1 not now, why says what stands
	 * in the way; it begins with QDB_NEEDS_REWIND where nothing but a rewind
	 * helps.
	 */
	int			(*match_history) (const QdbState *state, const QdbEndOfWal *end, char *why);

	/*
	 * True when standby.signal and friends are in place for the next boot,
	 * durably.
	 */
	bool		(*secure_boot) (void);

	/* Ends queries that hold up replay on this standby. */
	void		(*end_blocking_queries) (void);

	/*
	 * Are this server's settings what its own WAL demands?  If not, why:
	 * replay pauses there, and a restart of recovery would end the server.
	 */
	bool		(*limits_demanded) (char *why);
} QdbEffects;

extern QdbEffects qdb_effects;

#endif							/* QDB_BASE_H */
