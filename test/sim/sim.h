/*-------------------------------------------------------------------------
 *
 * sim.h
 *		The deterministic simulator: nodes, their disks, the network, time.
 *
 * One process and one thread.  Every node runs the real coordinator (src/cluster
 * with libraft and src/core) in an image of its own: a copy of one shared object,
 * so that each has its own static data, which a restart puts back to what it was at
 * load time.  The coordinator is a coroutine; where it waits, the simulator goes
 * on with the next event.  PostgreSQL is modelled: WAL as a list of records,
 * replay, promotion, crash cycles, the walreceiver and the streamer.
 *
 * Everything random comes from the seed, so a seed replays exactly.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_SIM_H
#define QDB_SIM_H

#include "postgres.h"

#include <setjmp.h>
#include <ucontext.h>

#include "postmaster/postmaster.h"

#include "base/base.h"
#include "core/rules.h"
#include "core/steps.h"

#define SIM_MAX_NODES		6
#define SIM_MAX_RECORDS		400
#define SIM_MAX_EPOCHS		200
#define SIM_UNIT			(UINT64CONST(1) << 18)	/* bytes of a record */
#define SIM_BASE			(UINT64CONST(1) << 24)	/* LSN of the first one */
#define SIM_MS				INT64CONST(1000)
#define SIM_SECOND			INT64CONST(1000000)
#define SIM_UNIX			INT64CONST(1700000000000000)
#define SIM_TRUE_START		(100 * SIM_SECOND)

/* Rules that the model of the server keeps; core's are in core/rules.h. */
typedef enum SimRule
{
	SIM_RULE_MATCH = QDB_NCORE_RULES,	/* I3: histories are compared before
										 * WAL is taken */
	SIM_RULE_DURABLE_PROMISE,	/* I2: a promise survives a crash */
	SIM_RULE_TRUE_REPORT,		/* I6: a report is a scan to the true end */
	SIM_RULE_FLUSHED_ONLY,		/* I4: only flushed WAL is sent */
	SIM_RULE_FORGET_ACKS,		/* I11: acks are forgotten before a clone */
	SIM_RULE_WIPED_VOTER,		/* I11, I16: who lost its disk votes no more */
	SIM_RULE_MIN_RECOVERY,		/* I11: no report before the minimum recovery
								 * point */
	SIM_NRULES
}			SimRule;

typedef enum SimKind
{
	SIM_DATA = 1,				/* a commit of a client */
	SIM_EPOCH,					/* an epoch record */
	SIM_RECOVERY				/* what a promotion writes before that */
}			SimKind;

typedef struct SimRecord
{
	uint32		id;				/* tells the bytes of any two writes apart */
	uint16		timeline;
	uint8		kind;			/* SimKind */
}			SimRecord;

typedef struct SimLog
{
	uint32		n;				/* inserted */
	uint32		written;		/* survives the death of processes */
	uint32		flushed;		/* survives the loss of the machine */
	SimRecord	rec[SIM_MAX_RECORDS];
}			SimLog;

typedef struct SimRaftEntry
{
	uint64_t	term;
	uint32_t	len;
	uint8_t		type;
	uint8_t    *data;
}			SimRaftEntry;

/* What is durable of a Raft folder. */
typedef struct SimRaftDisk
{
	uint64_t	id;				/* 0: no folder */
	uint64_t	term;
	uint64_t	vote;
	uint64_t	first;
	size_t		n;
	size_t		cap;
	SimRaftEntry *entries;
	uint64_t	snap_index;
	uint64_t	snap_term;
	uint64_t	snap_conf_index;
	uint8_t    *snap_conf;
	uint32_t	snap_conf_len;
	uint8_t    *snap_data;
	uint32_t	snap_data_len;
}			SimRaftDisk;

typedef struct SimNode SimNode;

/* A process: a coroutine on its own stack. */
typedef struct SimProcess
{
	bool		alive;
	bool		started;		/* its stack is in use */
	int64		wake_us;		/* when it is to go on; true time */
	uint32		wake_serial;	/* of the event that will do it */
	bool		runnable;		/* such an event is queued */
	jmp_buf		context;
	char	   *stack;
	void	   *fake_stack;		/* of the address sanitizer */
}			SimProcess;

/* The image of a node: the real coordinator. */
typedef struct SimImage
{
	void	   *handle;
	uint8	   *data;			/* its writable memory */
	size_t		size;
	uint8	   *pristine;

	QdbShared **shared;
	void		(*shmem_startup) (void);
	void		(*coordinator_main) (Datum arg);
	bool		(*may_write) (void);
	bool		(*lease_alive) (void);
	const QdbState *(*state) (void);
	void		(*bind) (void *node);
	size_t		(*configuration) (const uint64_t *ids, int n, uint8_t *buf, size_t size);
}			SimImage;

/* The streamer's view of one receiver. */
typedef struct SimStream
{
	bool		used;
	int			node;			/* of the receiver */
	uint64		serial;			/* of the connection in the simulator */
	uint64		member;
	uint64		incarnation;
	uint64		boot;
	uint64		connection;
	XLogRecPtr	verified;
	uint32		sent;			/* records */
	XLogRecPtr	flush;
	XLogRecPtr	apply;
	bool		streaming;
	bool		posted;			/* WAL is on its way */
}			SimStream;

typedef enum SimLinkState
{
	SIM_LINK_NONE,
	SIM_LINK_GREETING,
	SIM_LINK_UP
}			SimLinkState;

/* The walreceiver. */
typedef struct SimReceiver
{
	SimLinkState state;
	uint64		serial;			/* of its connection */
	uint64		epoch;
	int			source;			/* node */
	uint64		source_member;
	uint64		connection;
	XLogRecPtr	start;			/* replay position of the greeting */
	uint32		written;		/* records received on this connection, up to */
	uint32		flushed;
	bool		parking;
	bool		flushing;
	int64		retry_us;
}			SimReceiver;

/* Work on the data: a rewind or a clone. */
typedef struct SimResync
{
	bool		running;
	int			task;			/* QdbResyncTask */
	int			source;			/* node */
	uint64		source_boot;
	uint64		epoch;
	uint32		goal;			/* flush position of the welcome, in records */
	int			polls;
}			SimResync;

/* A plan that is applied in the next crash cycle, or boot. */
typedef struct SimPlan
{
	bool		staged;
	uint32		n;				/* records of the new log */
	uint32		applied;		/* replay starts there */
	uint32		min_recovery;
	SimRecord	rec[SIM_MAX_RECORDS];
}			SimPlan;

/* What survives a crash. */
typedef struct SimDisk
{
	bool		member;
	bool		wiped;			/* lost everything, not replaced yet */
	uint64		removed;		/* incarnation that was removed; 0 none */
	QdbIdentity identity;
	uint64		promised;
	uint64		rewinds_epoch;
	uint32		rewinds;
	SimRaftDisk raft;
	SimLog		log;
	uint32		redo;			/* replay starts here */
	uint32		min_recovery;	/* consistent past it */
	bool		full;
	SimPlan		plan;
}			SimDisk;

struct SimNode
{
	int			index;
	char		host[16];
	SimImage   *image;
	SimProcess	coordinator;
	void	   *allocations;	/* of its coordinator */

	/* Machine and server. */
	bool		machine_up;
	bool		server_up;
	uint32		life;			/* of the server; events of an older one are
								 * void */
	int64		clock_base;		/* node time when rate was set */
	int64		clock_true;		/* true time then */
	double		clock_rate;
	int64		unix_offset;
	bool		clock_sane;		/* has kept within the drift bound */
	int64		fsync_us;		/* how long one takes */
	bool		stopped;		/* SIGSTOP of all processes */
	bool		shutdown;		/* SIGTERM was sent */
	bool		wal_removed;	/* refuses streams for want of WAL */

	SimDisk		disk;
	QdbIdentity lost;			/* of a disk that was lost */
	uint64		joining;		/* incarnation it joins with; 0: it does not */
	int			join_role;		/* -1: either */

	/* Shared memory and processes of the server. */
	QdbShared  *shared;
	bool		in_recovery;
	TimeLineID	timeline;		/* it writes on; 0 in recovery */
	uint32		applied;		/* records */
	uint32		data[SIM_MAX_RECORDS];	/* ids that its data pages have */
	bool		replaying;		/* an event for it is queued */
	bool		replay_held;	/* a query is in the way */
	bool		promoting;
	bool		promotion_held; /* startup is busy with something */
	int64		wal_fsync_us;	/* more than fsync_us, of WAL alone */
	bool		postmaster_hangs;
	bool		sick;			/* its coordinator sees that it cannot be
								 * primary */
	QdbGrant	promote_grant;
	bool		frozen;
	bool		flushing;
	XLogRecPtr	released;		/* commits up to here were let go */
	bool		released_async;
	uint64		seen_open;		/* epoch whose opening was checked */
	SimReceiver receiver;
	SimResync	resync;

	/* Streamer. */
	uint64		seat_epoch;		/* that it serves; 0 none */
	uint64		seat_taker;		/* 0, or without a seat: WAL is handed to this
								 * member */
	uint64		last_connection;
	SimStream	streams[SIM_MAX_NODES];
};

typedef void (*SimHandler) (SimNode * node, uint64 a, uint64 b);

/* A client's write that waits. */
typedef struct SimWrite
{
	bool		used;
	int			node;
	uint32		life;
	uint32		index;
	uint32		id;
	uint64		epoch;
}			SimWrite;

#define SIM_MAX_WRITES		64
#define SIM_MAX_READS		4

typedef struct SimRead
{
	bool		used;
	uint64		serial;
	uint32		life;
	int			step;
	uint64		ticket;
	uint32		acked;			/* commits acknowledged when it began */
	XLogRecPtr	known;
	uint32		snapshot;
	int64		deadline_us;
}			SimRead;

/* What nobody in the cluster knows, and everything is checked against. */
typedef struct SimGhost
{
	uint32		next_id;
	uint32		committed[SIM_MAX_RECORDS]; /* id acknowledged, by index */
	uint64		committed_epoch[SIM_MAX_RECORDS];
	uint32		ncommitted;		/* one more than the greatest such index */
	uint32		acks;
	uint32		reads;
	uint32		opened;			/* seats that opened */
	uint64		membership;
	bool		change_open;
	int			wiped;			/* disks lost */
	bool		forced;			/* loss was allowed */
	bool		was_async;
	bool		was_wiped;
	QdbState	gate;			/* when the last gate was opened */
	QdbGrant	grants[SIM_MAX_EPOCHS];
	bool		released[SIM_MAX_EPOCHS];	/* by its holder, for good */
	struct
	{
		int			node;		/* writer, one more than its index; 0 none */
		uint64		boot;
		TimeLineID	timeline;
	}			writer[SIM_MAX_EPOCHS];
}			SimGhost;

/* What a directed schedule is about (directed.c). */
typedef enum SimFamily
{
	SIM_UNDIRECTED,
	SIM_OLD_PROMISE,			/* a voter loses its power after its report */
	SIM_LATE_REPLAY,			/* who has the commit has not replayed it */
	SIM_SLOW_FLUSH,				/* the primary flushes late */
	SIM_OLD_ACKS,				/* acks of an epoch come in a later one */
	SIM_SLOW_PROMOTION,			/* superseded before it ends */
	SIM_LOST_DISK,				/* of one of two that know of an epoch */
	SIM_OWN_NUMBERS,			/* growth that a cut off primary hears of late */
	SIM_BOTH_NUMBERS,			/* growth that it does not hear of */
	SIM_SICK,					/* who has most WAL, or the seat, is not fit */
	SIM_NFAMILIES
}			SimFamily;

/* What may happen in a schedule. */
typedef struct SimProfile
{
	int			voters;
	int			spares;			/* machines that may join */
	int64		length_us;
	bool		crashes;
	bool		power_loss;
	bool		partitions;
	bool		bad_network;
	bool		pauses;
	bool		clocks;			/* within the bound */
	bool		wild_clocks;	/* beyond it */
	bool		disks;
	bool		members;
	bool		moves;
	bool		force;
	bool		async;
	bool		wipes;
	bool		clones;
	int			steps;			/* percent of the protocol's steps that a fault
								 * follows */
	bool		held_replay;
	bool		long_leases;
	int			family;			/* SimFamily */
}			SimProfile;

/* What has ports of its own, so that a partition may cut it alone. */
typedef enum SimNet
{
	SIM_MESH,					/* between coordinators */
	SIM_STREAMS,				/* between streamers, receivers, resync workers */
	SIM_NNETS
}			SimNet;

typedef struct SimWorld
{
	uint64		seed;
	uint64		rng;
	int64		now_us;			/* true time */
	bool		trace;
	SimProfile	profile;
	int			nnodes;
	SimNode    *nodes[SIM_MAX_NODES];
	SimNode    *current;		/* whose process runs */
	jmp_buf		scheduler;
	int64		cut[SIM_NNETS][SIM_MAX_NODES][SIM_MAX_NODES];	/* until then; directed */
	int64		rest_us;		/* until then no client writes */
	int64		latency_us;
	int			loss;			/* percent */
	bool		reorder;
	bool		healed;
	uint64		next_serial;
	uint64		steps;
	const char *violation;
	char		detail[256];
	SimGhost	ghost;
	SimWrite	writes[SIM_MAX_WRITES];
	SimRead		readers[SIM_MAX_READS];
}			SimWorld;

/* From an event to the turn that handles it: what comes together is handled together. */
#define SIM_WAKE_US			(100 + sim_below(900))

extern SimWorld sim;
extern bool qdb_rule_off[];
extern int	sim_only_family;	/* SIM_NFAMILIES: as the seed says */

#define SIM_KEEPS(rule)		(!qdb_rule_off[rule])

/* ---- world.c ---- */
extern uint64 sim_random(void);
extern int64 sim_below(int64 n);	/* 0 .. n - 1 */
extern bool sim_chance(int percent);
extern void sim_at(int64 delay_us, SimHandler handler, SimNode * node, uint64 a, uint64 b);

/* The same, void if the node's server does not live as long. */
extern void sim_later(int64 delay_us, SimHandler handler, SimNode * node, uint64 a, uint64 b);
extern void sim_violation(const char *what, const char *format,...) pg_attribute_printf(2, 3);
extern void sim_trace(const SimNode * node, const char *format,...) pg_attribute_printf(2, 3);
extern void sim_events_begin(void);
extern bool sim_next_event(int64 until_us);

/* ---- schedule.c ---- */
/* Runs one; true: nothing was violated. */
extern bool sim_run(uint64 seed, bool trace);
extern void sim_first_raft_disk(SimRaftDisk * disk, uint64 id);

/* ---- process.c ---- */
extern void sim_images_load(const char *path, int n);
extern void sim_process_start(SimNode * node, int64 delay_us);
extern void sim_process_kill(SimNode * node);
extern void sim_process_free(SimNode * node);
extern void sim_process_wake(SimNode * node, int64 delay_us);

/* In a process: waits that long, or until it is woken. */
extern void sim_process_wait(int64 us);

/* In a process: ends it.  cycle: and with it a crash cycle begins. */
extern void sim_process_exit(bool cycle) pg_attribute_noreturn();
extern void sim_enter(SimNode * node);	/* image calls from outside of it */
extern int64 sim_node_time(const SimNode * node);
extern int64 sim_node_unix(const SimNode * node);

/* Would this node answer a strict read now? */
extern bool sim_lease_alive(SimNode * node);
extern void sim_set_clock(SimNode * node, double rate, int64 jump_us);

/* ---- net.c ---- */
extern void sim_net_begin(void);
extern void sim_net_node_died(SimNode * node);
extern bool sim_is_cut(SimNet net, int from, int to);
extern void sim_cut(SimNet net, int from, int to, int64 us);
extern int64 sim_delay(int from, int to);	/* of a message; -1: lost */
extern SimNode * sim_node_at(int port, bool replication);

/* ---- storage.c ---- */
extern void sim_raft_disk_clear(SimRaftDisk * disk);
extern void sim_raft_disk_begin(SimRaftDisk * disk, uint64 id);
extern void sim_raft_disk_add(SimRaftDisk * disk, uint64 term, uint8 type, const void *data, uint32 len);

/* ---- server.c ---- */
extern void sim_server_start(SimNode * node);	/* boots */

/* power: what is not flushed goes. */
extern void sim_server_kill(SimNode * node, bool power);
extern void sim_server_cycle(SimNode * node);	/* a crash cycle */
extern void sim_replay_soon(SimNode * node);
extern void sim_node_wipe(SimNode * node);

/* ---- log.c ---- */
extern XLogRecPtr sim_lsn(uint32 n);	/* end of n records */
extern uint32 sim_index(XLogRecPtr lsn);
extern void sim_log_cut(SimNode * node, uint32 n, const char *why);
extern bool sim_end_of_wal(const QdbState *state, QdbEndOfWal *end, char *why);
extern int	sim_match_history(const QdbState *state, const QdbEndOfWal *end, char *why);
extern TimeLineID sim_replay_timeline(const SimNode * node);

/* Where the log of the node leaves a timeline; false: it has none of it. */
extern bool sim_switch_point(const SimNode * node, TimeLineID timeline, uint32 *end);
extern void sim_insert(SimNode * node, SimKind kind, uint32 *index);
extern void sim_flush_soon(SimNode * node);

/* ---- stream.c ---- */
extern struct Latch sim_streamer_latch;
extern void sim_streamer_turn(SimNode * node);
extern void sim_receiver_begin(SimNode * node);
extern bool sim_receiver_park(SimNode * node);
extern void sim_streams_forget(SimNode * node, uint64 member);
extern void sim_close_streams(SimNode * node);
extern void sim_receiver_shut_down(SimNode * node);

/* Acks that were sent long ago come once more. */
extern void sim_old_acks(const SimNode * from, SimNode * source);
extern void sim_streams_begin(void);

/* ---- resync.c ---- */
extern void sim_resync_start(SimNode * node, int task);
extern void sim_apply_plan(SimNode * node);

/* ---- directed.c ---- */

/* The family of a seed; most have none. */
extern int	sim_family(uint64 seed);
extern int	sim_family_of_rule(int rule);
extern void sim_directed_profile(SimProfile * p);
extern void sim_directed_begin(void);
extern unsigned sim_snapshot_threshold(void);

/* ---- client.c ---- */
extern void sim_clients_begin(void);
extern void sim_released(SimNode * node);

/* Through the mailbox of a node, as a backend does; false: no room. */
extern bool sim_request(SimNode * node, const QdbCommand *command);
extern bool sim_request_named(SimNode * node, QdbRequestKind kind, const char *name, int64 value);

/* ---- operator.c ---- */

/* The node becomes a member, again or for the first time. */
extern void sim_join(SimNode * node, int role);

/* ---- check.c ---- */
extern void sim_check_node(SimNode * node);
extern void sim_check_applied(SimNode * node, const QdbCommand *command, QdbResult result, const QdbState *state);
extern void sim_check_commit(SimNode * node, uint32 index, uint32 id, uint64 epoch, bool async);
extern void sim_check_read(SimNode * node, uint32 n, uint32 acked, const char *how);
extern void sim_check_cut(SimNode * node, uint32 n, const char *why);
extern void sim_check_ack(SimNode * node, const SimNode * source, uint32 n);
extern void sim_check_written(SimNode * node, uint32 index);
extern void sim_check_kept(SimNode * node);
extern bool sim_check_healed(char *why, size_t size);

/* ---- fault.c ---- */
extern void sim_plan_profile(void);
extern void sim_set_member(QdbMember *member, int index, uint64 id, uint64 incarnation);
extern void sim_faults_begin(void);

/* A step of the protocol was made, about this member (0: about none). */
extern void sim_step_made(SimNode * node, uint8 command, uint64 member);
extern void sim_heal(void);

/* ---- operator.c ---- */
extern void sim_operators_begin(void);

#endif							/* QDB_SIM_H */
