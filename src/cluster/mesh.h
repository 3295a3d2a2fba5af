/*-------------------------------------------------------------------------
 *
 * mesh.h
 *		Connections between the members, on raft_port.
 *
 * Every node sends on the connection that it opened and receives on the ones
 * that it accepted, so two nodes that connect at once need no tie-break.  Both
 * sides begin with HELLO; on an outgoing connection the peer's HELLO is all
 * that is ever read.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CLUSTER_MESH_H
#define QDB_CLUSTER_MESH_H

#include "base/base.h"
#include "base/channel.h"

typedef struct QdbPeer
{
	uint64		member;			/* 0: slot unused */
	char		host[QDB_HOST_SIZE];
	int			port;

	/*
	 * Where it said it is, in the HELLO of its latest boot, and what the
	 * state said then; said_port 0: nothing that the state does not say.
	 */
	char		said_host[QDB_HOST_SIZE];
	int			said_port;
	char		state_host[QDB_HOST_SIZE];
	int			state_port;

	QdbChannel *out;			/* ours: HELLO and all we send */
	bool		hello_sent;
	bool		out_up;			/* it has answered our HELLO */
	int64		next_connect_us;
	QdbChannel *in;				/* its: all it sends */

	/* The greatest seen; anything smaller is refused (I16). */
	uint64		incarnation;
	uint64		boot;

	bool		gone;			/* its port refuses connections: no process */
	int64		refused_us;		/* since when it does; 0: it does not */
	uint64		goodbye_boot;	/* this boot said goodbye; 0 none */
	uint8		goodbye_reason; /* QDB_GOODBYE_... */
	int64		heard_us;		/* monotonic, last frame; 0 never */

	/* Its last heartbeat. */
	int64		primary_heard_us;	/* when it heard the primary, in our clock */
	XLogRecPtr	wal_end;
	char		state[16];
	char		why_not[QDB_REASON_SIZE];
	QdbProgress progress;
	QdbResyncWatch rewound;
	uint64		upstream;		/* member that it streams from; 0 none */
	XLogRecPtr	redo;			/* of its last checkpoint; 0 unknown */
	bool		able;
	bool		wants_upstream; /* so it passes no WAL on */
	uint64		promised;
	uint64		gate_epoch;
	uint64		closed_membership;
	int32		limits[QDB_NLIMITS];
	uint32		ncaught_up;
	uint64		caught_up[QDB_MAX_MEMBERS];

	/* retention.c */
	XLogRecPtr	needs;			/* WAL from here on; 0 unknown */
	bool		released;		/* the journal says that it is not kept */

	/* Lease that it granted to us. */
	uint64		lease_epoch;
	int64		lease_until_us;
} QdbPeer;

/* An accepted connection before its first frame, or of a joiner. */
typedef struct QdbStranger
{
	QdbChannel *channel;		/* NULL: slot unused */
	uint64		serial;			/* tells users of the slot apart */
	bool		joining;
	bool		vouched;		/* showed a good token, and has no answer yet */
	bool		dismissed;		/* a member that was removed, and told so */
	uint64		incarnation;	/* of the joiner */
	bool		added;			/* committed, but not yet in our own state */
	QdbCommand	command;		/* MEMBER_ADD */
	int64		follow_until_us;	/* what our own log may lack is waited for */
	int64		retry_us;		/* when to propose it again; 0 not */
} QdbStranger;

#define QDB_MAX_STRANGERS		32
#define QDB_GOODBYE_DEAD		1	/* its postmaster died */
#define QDB_GOODBYE_SHUTDOWN	2	/* orderly; fenced before */

/* Listens; false: logged, try again later. */
extern bool qdb_mesh_start(void);
extern void qdb_mesh_stop(void);

/* An address to try until the replicated state tells. */
extern void qdb_mesh_expect(const QdbMember *member);

/* Accepts, connects, reads and dispatches. */
extern void qdb_mesh_turn(void);

/* NULL: unknown. */
extern QdbPeer *qdb_mesh_peer(uint64 member);

/* The i-th slot, i < QDB_MAX_MEMBERS; may be unused. */
extern QdbPeer *qdb_mesh_slot(int i);
extern QdbStranger *qdb_mesh_stranger(int i, uint64 serial);
extern int	qdb_mesh_stranger_number(const QdbStranger *stranger);

/* False: not connected, or its queue is full. */
extern bool qdb_mesh_send(uint64 member, uint8 type, const void *data, uint32 length);
extern bool qdb_peer_connected(const QdbPeer *peer);

/* Tells all peers, and waits briefly until the bytes have left. */
extern void qdb_mesh_goodbye(uint8 reason);

/* Sockets to wait for; at most QDB_MESH_MAX_LISTEN for new connections. */
#define QDB_MESH_MAX_LISTEN		1
extern int	qdb_mesh_listeners(int *fds);
extern int	qdb_mesh_channels(QdbChannel **channels);	/* room for
														 * QDB_MESH_MAX_CHANNELS */
#define QDB_MESH_MAX_CHANNELS	(2 * QDB_MAX_MEMBERS + QDB_MAX_STRANGERS)

#endif							/* QDB_CLUSTER_MESH_H */
