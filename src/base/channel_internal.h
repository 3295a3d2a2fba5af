/*-------------------------------------------------------------------------
 *
 * channel_internal.h
 *		What the parts of a channel share: framing and queue (channel.c), TLS
 *		(channel_tls.c), listening and connecting (channel_connect.c).
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_BASE_CHANNEL_INTERNAL_H
#define QDB_BASE_CHANNEL_INTERNAL_H

#include "base/channel.h"

#define QDB_CHANNEL_READ_CHUNK	(64 * 1024)
#define QDB_CHANNEL_READ_BUDGET	(1024 * 1024)
#define QDB_CHANNEL_QUEUE_LIMIT	(4 * 1024 * 1024)

struct QdbChannel
{
	int			fd;
	QdbChannelState state;
	char		error[160];
	int			connect_errno;
	int64_t		created_us;

	/* One frame: its header, then its payload. */
	uint8_t		header[QDB_FRAME_HEADER_SIZE];
	size_t		header_used;
	bool		header_checked;
	QdbFrameHeader frame;
	uint8_t    *payload;
	size_t		payload_size;
	size_t		payload_used;

	/* Bytes read from the socket and not yet looked at. */
	uint8_t    *input;
	size_t		input_start;
	size_t		input_end;
	size_t		budget;			/* what may still be read before the next
								 * drive */

	uint8_t    *queue;
	size_t		queue_size;
	size_t		queue_start;
	size_t		queue_end;
	size_t		queue_limit;

	/* NULL: in the clear (quantadb.development_plaintext). */
	SSL		   *ssl;
	bool		tcp_up;
	bool		handshaking;
	bool		handshake_writes;	/* it waits until the socket takes more */
	QdbPeerCert peer;			/* cert NULL: none */
	uint8_t    *raw;			/* received, not decrypted yet */
	size_t		raw_start;
	size_t		raw_end;
	bool		raw_eof;
	int			raw_errno;

	uint64_t	sent;
	uint64_t	received;
};

/* ---- channel.c ---- */
/* The channel is FAILED from now on; error is an errno or 0.  The first reason stays. */
extern void qdb_channel_fail(QdbChannel *channel, const char *what, int error);

/* ---- channel_connect.c ---- */
/* Has TCP come up?  Then TLS goes on. */
extern void qdb_channel_finish_connect(QdbChannel *channel);

/* ---- channel_tls.c ---- */
/* Takes the session over; ssl NULL: why says why there is none. */
extern void qdb_channel_start_tls(QdbChannel *channel, SSL *ssl, const char *why);

/* Goes on with the handshake; UP when both sides are satisfied. */
extern void qdb_channel_shake_hands(QdbChannel *channel);

/* Decrypts into input; false: nothing there now. */
extern bool qdb_channel_read_tls(QdbChannel *channel);

/* Like send(): bytes taken, or -1 with EAGAIN or another errno. */
extern ssize_t qdb_channel_send_tls(QdbChannel *channel, const uint8_t *data, size_t length);

#endif							/* QDB_BASE_CHANNEL_INTERNAL_H */
