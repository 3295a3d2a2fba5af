/*-------------------------------------------------------------------------
 *
 * peer.h
 *		Payloads of the frames that members send to each other on raft_port,
 *		and the name in a member's certificate.
 *
 * Raft's own messages are in cluster/raft_wire.h, joins in join.h.  Encoders
 * return false when the buffer is too small, decoders when the bytes are not
 * exactly such a payload; what was read until then is in the struct all the same.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_PEER_H
#define QDB_CORE_PEER_H

#include "core/frame.h"
#include "core/state.h"
#include "core/transfer.h"

#define QDB_PEER_MAX_BYTES		1024	/* of any of these, but PROPOSE */
#define QDB_STATE_TEXT_SIZE		16
#define QDB_CERT_URI_SIZE		160

/* HELLO: the first frame of either side. */
typedef struct QdbHello
{
	char		cluster_id[QDB_CLUSTER_ID_SIZE];
	uint64_t	member;
	char		name[QDB_NAME_SIZE];
	uint64_t	incarnation;
	uint64_t	boot;
	uint64_t	system_identifier;
	char		host[QDB_HOST_SIZE];
	uint16_t	raft_port;
} QdbHello;

/* GOODBYE. */
typedef struct QdbGoodbye
{
	uint64_t	incarnation;
	uint64_t	boot;
	uint8_t		reason;
} QdbGoodbye;

/* REMOVED: whom the sender's state does not name any more. */
typedef struct QdbRemoved
{
	uint64_t	member;
	uint64_t	incarnation;
} QdbRemoved;

#define QDB_BEAT_ABLE			0x01
#define QDB_BEAT_LEASE_REQUEST	0x02
#define QDB_BEAT_LEASE_GRANT	0x04
#define QDB_BEAT_WANTS_UPSTREAM	0x08
#define QDB_BEAT_NEVER			UINT64_MAX

typedef struct QdbHeartbeat
{
	uint8_t		flags;			/* QDB_BEAT_...; others are ignored */
	uint64_t	wal_end;
	char		state[QDB_STATE_TEXT_SIZE];
	char		why_not[QDB_REASON_SIZE];
	char		step[QDB_STATE_TEXT_SIZE];	/* of a resynchronisation */
	uint64_t	done;
	uint64_t	total;
	uint64_t	upstream;		/* member that the sender streams from; 0 none */
	uint64_t	redo;
	uint64_t	promised;
	uint64_t	gate_epoch;
	uint64_t	primary_age_us; /* since the sender heard the primary, or
								 * QDB_BEAT_NEVER */
	uint64_t	closed_membership;
	uint64_t	archived;
	uint32_t	archived_timeline;
	uint64_t	lease_epoch;
	uint64_t	lease_sent;		/* of the asking primary's clock */
	int32_t		limits[QDB_NLIMITS];
	uint32_t	ncaught_up;
	uint64_t	caught_up[QDB_MAX_MEMBERS]; /* learners */
} QdbHeartbeat;

/* READ_REQUEST has no answer in it: ok and lsn are READ_ANSWER's. */
typedef struct QdbRead
{
	uint64_t	ticket;
	uint64_t	epoch;
	bool		ok;				/* under a live lease */
	uint64_t	lsn;
} QdbRead;

/* PROPOSE; the command stands in the bytes that were decoded. */
typedef struct QdbProposal
{
	uint64_t	id;
	const uint8_t *command;
	uint32_t	length;
} QdbProposal;

/* PROPOSE_RESULT. */
typedef struct QdbProposalResult
{
	uint64_t	id;
	uint8_t		status;
	uint8_t		result;			/* QdbResult */
	uint64_t	applied;		/* the sender's log, up to here */
} QdbProposalResult;

extern bool qdb_peer_hello_encode(const QdbHello *hello, uint8_t *buf, uint32_t *len);
extern bool qdb_peer_hello_decode(const uint8_t *buf, uint32_t len, QdbHello *hello);
extern bool qdb_goodbye_encode(const QdbGoodbye *goodbye, uint8_t *buf, uint32_t *len);
extern bool qdb_goodbye_decode(const uint8_t *buf, uint32_t len, QdbGoodbye *goodbye);
extern bool qdb_removed_encode(const QdbRemoved *removed, uint8_t *buf, uint32_t *len);
extern bool qdb_removed_decode(const uint8_t *buf, uint32_t len, QdbRemoved *removed);
extern bool qdb_heartbeat_encode(const QdbHeartbeat *beat, uint8_t *buf, uint32_t *len);
extern bool qdb_heartbeat_decode(const uint8_t *buf, uint32_t len, QdbHeartbeat *beat);
extern bool qdb_read_request_encode(const QdbRead *read, uint8_t *buf, uint32_t *len);
extern bool qdb_read_request_decode(const uint8_t *buf, uint32_t len, QdbRead *read);
extern bool qdb_read_answer_encode(const QdbRead *read, uint8_t *buf, uint32_t *len);
extern bool qdb_read_answer_decode(const uint8_t *buf, uint32_t len, QdbRead *read);
extern bool qdb_proposal_encode(const QdbProposal *proposal, uint8_t *buf, uint32_t *len);
extern bool qdb_proposal_decode(const uint8_t *buf, uint32_t len, QdbProposal *proposal);
extern bool qdb_proposal_result_encode(const QdbProposalResult *result, uint8_t *buf, uint32_t *len);
extern bool qdb_proposal_result_decode(const uint8_t *buf, uint32_t len, QdbProposalResult *result);

/* Whom a certificate names, as the URI that the authority has signed. */
typedef struct QdbCertName
{
	char		cluster_id[QDB_CLUSTER_ID_SIZE];	/* empty: no certificate
													 * of ours */
	uint64_t	member;
	uint64_t	incarnation;
	uint64_t	rotation;
	char		name[QDB_NAME_SIZE];	/* not in the URI */
	char		host[QDB_HOST_SIZE];	/* for signing only */
} QdbCertName;

extern void qdb_cert_uri_format(const QdbCertName *name, char *uri, size_t size);

/* False: not what qdb_cert_uri_format writes.  name and host are left alone. */
extern bool qdb_cert_uri_parse(const uint8_t *uri, size_t len, QdbCertName *name);

#endif							/* QDB_CORE_PEER_H */
