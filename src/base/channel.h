/*-------------------------------------------------------------------------
 *
 * channel.h
 *		Non-blocking framed connections; the one place where bytes enter and
 *		leave, and where TLS lives.
 *
 * A channel owns a socket, a receive buffer for one frame and a send queue
 * with a cap.  It never blocks and never raises errors: a failed channel says
 * so and keeps its reason.  Memory is malloc'd, because library callbacks may
 * run above us.  Single-threaded.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_BASE_CHANNEL_H
#define QDB_BASE_CHANNEL_H

#include <sys/socket.h>

#include "base/tls.h"
#include "core/frame.h"

typedef struct QdbChannel QdbChannel;

typedef enum QdbChannelState
{
	QDB_CHANNEL_CONNECTING,		/* TCP or TLS is not through yet */
	QDB_CHANNEL_UP,
	QDB_CHANNEL_FAILED			/* qdb_channel_error says why; only close is
								 * left */
} QdbChannelState;

typedef struct QdbFrame
{
	uint8_t		type;
	uint32_t	length;
	const uint8_t *payload;		/* valid until the next qdb_channel_receive */
} QdbFrame;

/*
 * Listening sockets (up to max) for a comma separated list of addresses.
 * Returns how many, or -1 with *why.
 */
extern int	qdb_listen(const char *addresses, int port, int *fds, int max, char *why, size_t why_size);

/* host: numeric address or name.  Never NULL except out of memory. */
extern QdbChannel *qdb_channel_connect(const char *host, int port);

/* The same for a joiner, which has a key, and the hash of the authority to trust. */
extern QdbChannel *qdb_channel_join(const char *host, int port, EVP_PKEY *key, const uint8 *ca_hash);

/* On an accepted socket, which it takes over; NULL: no memory or no keys, closed. */
extern QdbChannel *qdb_channel_accepted(int fd, bool strangers);

/* Who the peer is by its certificate; NULL in plaintext and before UP. */
extern const QdbPeerCert *qdb_channel_peer(const QdbChannel *channel);
extern bool qdb_is_loopback(const struct sockaddr *address);
extern void qdb_channel_close(QdbChannel *channel);

extern int	qdb_channel_fd(const QdbChannel *channel);
extern QdbChannelState qdb_channel_state(const QdbChannel *channel);
extern const char *qdb_channel_error(const QdbChannel *channel);

/* errno of a failed connect (ECONNREFUSED: nobody listens), else 0. */
extern int	qdb_channel_errno(const QdbChannel *channel);

/* Wants POLLOUT: connecting, or bytes are queued. */
extern bool qdb_channel_wants_write(const QdbChannel *channel);
extern size_t qdb_channel_queued(const QdbChannel *channel);
extern void qdb_channel_set_queue_limit(QdbChannel *channel, size_t bytes); /* default 4 MB */

/* Call when the socket is ready for either; completes connects, flushes, reads. */
extern void qdb_channel_drive(QdbChannel *channel);

/* Queues a frame and tries to send; false: queue full or failed. */
extern bool qdb_channel_send(QdbChannel *channel, uint8_t type, const void *payload, uint32_t length);

/*
 * For a frame that its caller has encoded and keeps, because many channels send
 * the same: writes what the connection takes now, past the queue, and returns
 * how many bytes that was (0 while anything is queued).  Until the rest has
 * followed, by this call or qdb_channel_queue_rest, nothing else may be sent.
 */
extern size_t qdb_channel_write(QdbChannel *channel, const void *bytes, size_t length);

/* The rest of such a frame goes into the queue; false: no room, or failed. */
extern bool qdb_channel_queue_rest(QdbChannel *channel, const void *bytes, size_t length);

/* At most so many unsent bytes wait in the kernel. */
extern void qdb_channel_set_send_buffer(QdbChannel *channel, size_t bytes);

/* The next complete frame that has arrived; false: none (or failed). */
extern bool qdb_channel_receive(QdbChannel *channel, QdbFrame *frame);
extern uint64_t qdb_channel_bytes_sent(const QdbChannel *channel);
extern uint64_t qdb_channel_bytes_received(const QdbChannel *channel);

/* Monotonic us of creation: for deadlines on half-open connections. */
extern int64_t qdb_channel_created_us(const QdbChannel *channel);

#endif							/* QDB_BASE_CHANNEL_H */
