/*-------------------------------------------------------------------------
 *
 * frame.h
 *		Frames on ports 7432 and 6432: a fixed header, then a payload whose
 *		length is capped by its type before anything is allocated.
 *
 *	offset	bytes
 *	0		4		magic "QDB1"
 *	4		1		protocol version
 *	5		1		type
 *	6		2		reserved, zero
 *	8		4		payload length, little endian
 *	12		4		CRC-32C of bytes 0-11 and the payload
 *
 * Integers in payloads are little endian; strings are a 16-bit length and
 * bytes without a zero.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_FRAME_H
#define QDB_CORE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QDB_FRAME_HEADER_SIZE	16
#define QDB_PROTOCOL_VERSION	1

typedef enum QdbFrameType
{
	/* 7432: peers */
	QDB_FRAME_HELLO = 1,		/* first frame of either side */
	QDB_FRAME_HEARTBEAT,		/* also carries lease request and grant */
	QDB_FRAME_RAFT,				/* one encoded raft_message */
	QDB_FRAME_PROPOSE,			/* request id, encoded QdbCommand */
	QDB_FRAME_PROPOSE_RESULT,	/* request id, QdbResult or unknown */
	QDB_FRAME_JOIN,				/* token and member, from a stranger */
	QDB_FRAME_JOIN_RESULT,		/* member id and peers, or a refusal */
	QDB_FRAME_GOODBYE,			/* postmaster died or node shuts down */
	QDB_FRAME_CA_KEY_REQUEST,	/* a voter asks for the authority's key */
	QDB_FRAME_CA_KEY,			/* PEM */
	QDB_FRAME_CERT_REQUEST,		/* a public key to be signed, DER */
	QDB_FRAME_CERT,				/* PEM */
	QDB_FRAME_READ_REQUEST,		/* ticket, epoch: how far is the quorum? */
	QDB_FRAME_READ_ANSWER,		/* ticket, epoch, 1 under a live lease, LSN */
	QDB_FRAME_REMOVED,			/* answer to a HELLO: member, incarnation */

	/* 6432: streaming */
	QDB_FRAME_STREAM_HELLO = 32,	/* receiver: who, history, epoch */
	QDB_FRAME_STREAM_WELCOME,	/* streamer: system, epoch, timeline, flush */
	QDB_FRAME_STREAM_REFUSED,	/* text: why, and what helps */
	QDB_FRAME_HISTORY_REQUEST,	/* timeline */
	QDB_FRAME_HISTORY,			/* file name, contents */
	QDB_FRAME_START,			/* timeline, LSN */
	QDB_FRAME_WAL,				/* flags, codec, length, then walsender
								 * messages (u32 length, bytes) as they are or
								 * compressed */
	QDB_FRAME_END_OF_TIMELINE,	/* next timeline, its start */
	QDB_FRAME_REPLY,			/* standby reply or feedback, with the ack's
								 * names */

	/* 6432: files, blocks and WAL for a node that resynchronises; transfer.h */
	QDB_FRAME_FILES_HELLO = 48, /* who, for what, epoch */
	QDB_FRAME_FILES_WELCOME,	/* what has to fit; a refusal is
								 * STREAM_REFUSED */
	QDB_FRAME_FILES_REQUEST,
	QDB_FRAME_FILES_DATA		/* answers, in the order of the requests */
} QdbFrameType;

typedef struct QdbFrameHeader
{
	uint8_t		type;
	uint32_t	length;
	uint32_t	crc;
} QdbFrameHeader;

/* Cap on the payload of a type, in bytes; 0 for an unknown type. */
extern uint32_t qdb_frame_max_length(uint8_t type);
extern uint32_t qdb_crc32c(uint32_t crc, const void *data, size_t len);

/* Writes QDB_FRAME_HEADER_SIZE bytes for the given payload. */
extern void qdb_frame_encode_header(uint8_t *buf, uint8_t type, const void *payload, uint32_t length);

/* False: bad magic, version, type, reserved bits or length; *why is a literal. */
extern bool qdb_frame_decode_header(const uint8_t *buf, QdbFrameHeader *header, const char **why);
extern bool qdb_frame_check(const uint8_t *header_bytes, const void *payload, uint32_t length);

/* Bounded writer and reader; overflow sets failed and later calls do nothing. */
typedef struct QdbWriter
{
	uint8_t    *buf;
	size_t		size;
	size_t		used;
	bool		failed;
} QdbWriter;

typedef struct QdbReader
{
	const uint8_t *buf;
	size_t		size;
	size_t		pos;
	bool		failed;
} QdbReader;

extern void qdb_put_u8(QdbWriter *w, uint8_t v);
extern void qdb_put_u16(QdbWriter *w, uint16_t v);
extern void qdb_put_u32(QdbWriter *w, uint32_t v);
extern void qdb_put_u64(QdbWriter *w, uint64_t v);
extern void qdb_put_bytes(QdbWriter *w, const void *data, size_t len);
extern void qdb_put_string(QdbWriter *w, const char *s);

/* Into a buffer whose size *len was: *len becomes what was written.  False: no room. */
extern bool qdb_writer_done(const QdbWriter *w, uint32_t *len);

extern uint8_t qdb_get_u8(QdbReader *r);
extern bool qdb_get_bool(QdbReader *r); /* 0 or 1; fails on others */
extern uint16_t qdb_get_u16(QdbReader *r);
extern uint32_t qdb_get_u32(QdbReader *r);
extern uint64_t qdb_get_u64(QdbReader *r);
extern const uint8_t *qdb_get_bytes(QdbReader *r, size_t len);	/* NULL on failure */

/* Copies with a terminating zero; fails if it has an inner zero or no room. */
extern void qdb_get_string(QdbReader *r, char *out, size_t out_size);

/* All read, nothing failed. */
extern bool qdb_reader_done(const QdbReader *r);

#endif							/* QDB_CORE_FRAME_H */
