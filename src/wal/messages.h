/*-------------------------------------------------------------------------
 *
 * messages.h
 *		Payloads of the frames on the replication port.
 *
 * A receiver says STREAM_HELLO and gets STREAM_WELCOME or STREAM_REFUSED.  It
 * may then ask for history files and START a timeline; WAL frames follow
 * until END_OF_TIMELINE, after which it may START the next one.  REPLY frames
 * carry PostgreSQL's standby messages and the names that make an ack count.
 *
 * Encoders return false when the buffer is too small, decoders when the bytes
 * are not exactly such a payload.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_WAL_MESSAGES_H
#define QDB_WAL_MESSAGES_H

#include "core/frame.h"
#include "core/state.h"
#include "core/transfer.h"

#define QDB_STREAM_VERSION		1	/* another one is refused in the handshake */
#define QDB_HELLO_MAX_BYTES		1024
#define QDB_REPLY_MAX_BYTES		256
#define QDB_RAW_REPLY_MAX		128
#define QDB_HISTORY_NAME_SIZE	64

/*
 * A WAL frame's payload: flags, codec (compress.h), length of the messages as
 * they are, and the messages, compressed or not.
 */
#define QDB_WAL_APPLY_WANTED	0x01	/* say at once what was applied */
#define QDB_WAL_PREFIX_BYTES	6
#define QDB_WAL_CHUNK_BYTES		(128 * 1024)	/* of WAL in a frame, at most */
#define QDB_WAL_RAW_MAX			(QDB_WAL_CHUNK_BYTES + 64)	/* with its header */

typedef struct QdbWalPrefix
{
	uint8_t		flags;
	uint8_t		codec;
	uint32_t	raw_length;		/* 1 to QDB_WAL_RAW_MAX */
	const uint8_t *data;
	uint32_t	data_length;
} QdbWalPrefix;

typedef struct QdbStreamHello
{
	uint32_t	version;
	char		cluster_id[QDB_CLUSTER_ID_SIZE];
	uint64_t	member;
	uint64_t	incarnation;
	uint64_t	boot;
	uint64_t	epoch;			/* promised */
	uint64_t	membership;
	uint64_t	system_identifier;
	uint32_t	replay_timeline;
	uint64_t	replay_lsn;		/* where this connection's acks start */
	uint64_t	wal_end;		/* as far as known, for the log */
} QdbStreamHello;

typedef struct QdbStreamWelcome
{
	uint64_t	system_identifier;
	uint64_t	epoch;
	uint32_t	timeline;
	uint64_t	flush;
	uint64_t	connection;
} QdbStreamWelcome;

typedef struct QdbStreamReply
{
	uint64_t	epoch;
	uint64_t	membership;
	uint64_t	incarnation;
	uint64_t	boot;
	uint64_t	connection;
	uint32_t	length;
	uint8_t		raw[QDB_RAW_REPLY_MAX]; /* 'r' or 'h' as walreceiver wrote it */
} QdbStreamReply;

typedef struct QdbHistoryFile
{
	char		name[QDB_HISTORY_NAME_SIZE];
	const uint8_t *content;		/* in the bytes that were decoded */
	uint32_t	length;
} QdbHistoryFile;

extern bool qdb_hello_encode(const QdbStreamHello *hello, uint8_t *buf, uint32_t *len);
extern bool qdb_hello_decode(const uint8_t *buf, uint32_t len, QdbStreamHello *hello);
extern bool qdb_welcome_encode(const QdbStreamWelcome *welcome, uint8_t *buf, uint32_t *len);
extern bool qdb_welcome_decode(const uint8_t *buf, uint32_t len, QdbStreamWelcome *welcome);
extern bool qdb_reply_encode(const QdbStreamReply *reply, uint8_t *buf, uint32_t *len);
extern bool qdb_reply_decode(const uint8_t *buf, uint32_t len, QdbStreamReply *reply);

extern bool qdb_history_request_encode(uint32_t timeline, uint8_t *buf, uint32_t *len);
extern bool qdb_history_request_decode(const uint8_t *buf, uint32_t len, uint32_t *timeline);
extern bool qdb_history_encode(const QdbHistoryFile *history, uint8_t *buf, uint32_t *len);
extern bool qdb_history_decode(const uint8_t *buf, uint32_t len, QdbHistoryFile *history);

/*
 * The next message of a WAL frame, which moves *rest behind it; call while *rest_length > 0.
 * False: malformed.
 */
extern bool qdb_wal_message_take(const uint8_t **rest, uint32_t *rest_length,
								 const uint8_t **message, uint32_t *length);

/* False: unknown flags or codec, or a length that does not fit. */
extern bool qdb_wal_prefix_decode(const uint8_t *buf, uint32_t len, QdbWalPrefix *prefix);

/* START and END_OF_TIMELINE: a timeline and a position. */
extern bool qdb_position_encode(uint32_t timeline, uint64_t lsn, uint8_t *buf, uint32_t *len);
extern bool qdb_position_decode(const uint8_t *buf, uint32_t len, uint32_t *timeline, uint64_t *lsn);

#endif							/* QDB_WAL_MESSAGES_H */
