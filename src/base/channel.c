/*-------------------------------------------------------------------------
 *
 * channel.c
 *		Non-blocking framed connections over TLS.
 *
 * OpenSSL reads from a buffer of ours, never from the socket: whatever was
 * received is decrypted before anybody waits for the socket again, and READ_BUDGET
 * counts what came in.  It writes to the socket directly.
 *
 * Received bytes are kept until a frame is complete.  Its header is checked
 * before its payload gets any memory.  One drive reads at most READ_BUDGET
 * bytes, so that a peer which never stops sending cannot keep its caller busy.
 * Sent frames are appended to one queue with a cap; a peer that does not
 * read makes its channel refuse more, and the caller decides.
 *
 *-------------------------------------------------------------------------
 */
#include "base/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>

#define DEFAULT_QUEUE_LIMIT		(4 * 1024 * 1024)
#define READ_CHUNK				(64 * 1024)
#define READ_BUDGET				(1024 * 1024)
#define LISTEN_BACKLOG			128
#define USER_TIMEOUT_MS			10000

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

static void
fail(QdbChannel *channel, const char *what, int error)
{
	if (channel->state == QDB_CHANNEL_FAILED)
		return;
	if (channel->state == QDB_CHANNEL_CONNECTING)
		channel->connect_errno = error;
	channel->state = QDB_CHANNEL_FAILED;
	if (error != 0)
		snprintf(channel->error, sizeof(channel->error), "%s: %s", what, strerror(error));
	else
		snprintf(channel->error, sizeof(channel->error), "%s", what);
}

static void
set_option(int fd, int level, int name, int value)
{
	/* An option that the kernel does not take costs speed, not safety. */
	(void) setsockopt(fd, level, name, &value, sizeof(value));
}

static void
set_options(int fd)
{
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 5);
	set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 2);
	set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
	set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS);
}

static QdbChannel *
new_channel(int fd, QdbChannelState state)
{
	QdbChannel *channel = calloc(1, sizeof(QdbChannel));
	struct timespec ts;

	if (channel == NULL || (channel->input = malloc(READ_CHUNK)) == NULL)
	{
		free(channel);
		return NULL;
	}
	clock_gettime(CLOCK_MONOTONIC, &ts);
	channel->created_us = (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
	channel->fd = fd;
	channel->state = state;
	channel->queue_limit = DEFAULT_QUEUE_LIMIT;
	channel->budget = READ_BUDGET;
	return channel;
}

bool
qdb_is_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return (ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr) >> 24) == 127;
	if (address->sa_family == AF_INET6)
	{
		const struct in6_addr *a = &((const struct sockaddr_in6 *) address)->sin6_addr;

		return IN6_IS_ADDR_LOOPBACK(a) || (IN6_IS_ADDR_V4MAPPED(a) && a->s6_addr[12] == 127);
	}
	return false;
}

static int
listen_one(const struct addrinfo *address, const char *host, int port, char *why, size_t why_size)
{
	int			fd;

	if (qdb_plaintext() && !qdb_is_loopback(address->ai_addr))
	{
		snprintf(why, why_size,
				 "quantadb.development_plaintext is on, and address \"%s\" is not a loopback address", host);
		return -1;
	}
	fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
	{
		snprintf(why, why_size, "could not create a socket: %s", strerror(errno));
		return -1;
	}
	set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (address->ai_family == AF_INET6)
		set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (bind(fd, address->ai_addr, address->ai_addrlen) != 0 || listen(fd, LISTEN_BACKLOG) != 0)
	{
		snprintf(why, why_size, "could not listen on \"%s\" port %d: %s", host, port, strerror(errno));
		close(fd);
		return -1;
	}
	return fd;
}

int
qdb_listen(const char *addresses, int port, int *fds, int max, char *why, size_t why_size)
{
	char	   *copy = strdup(addresses);
	char	   *save = NULL;
	char		service[16];
	int			n = 0;

	snprintf(service, sizeof(service), "%d", port);
	snprintf(why, why_size, "no address to listen on");
	for (char *host = copy ? strtok_r(copy, ", ", &save) : NULL; host; host = strtok_r(NULL, ", ", &save))
	{
		struct addrinfo hints = {.ai_socktype = SOCK_STREAM,.ai_flags = AI_PASSIVE};
		struct addrinfo *list = NULL;
		int			before = n;
		int			rc = getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, service, &hints, &list);

		if (rc != 0)
			snprintf(why, why_size, "cannot resolve address \"%s\": %s", host, gai_strerror(rc));
		for (struct addrinfo *a = list; rc == 0 && a && n < max; a = a->ai_next)
		{
			int			fd = listen_one(a, host, port, why, why_size);

			if (fd >= 0)
				fds[n++] = fd;
		}
		if (list)
			freeaddrinfo(list);
		if (n == before)
		{
			if (n == max)
				snprintf(why, why_size, "more than %d addresses to listen on", max);
			while (n > 0)
				close(fds[--n]);
			break;
		}
	}
	free(copy);
	return n > 0 ? n : -1;
}

/* ---- TLS ---- */

/* What OpenSSL reads comes from raw. */
static int
bio_read(BIO *bio, char *out, int size)
{
	QdbChannel *channel = BIO_get_data(bio);
	size_t		n = channel->raw_end - channel->raw_start;

	BIO_clear_retry_flags(bio);
	if (n == 0)
	{
		if (channel->raw_eof)
			return 0;
		BIO_set_retry_read(bio);
		return -1;
	}
	if (n > (size_t) size)
		n = (size_t) size;
	memcpy(out, channel->raw + channel->raw_start, n);
	channel->raw_start += n;
	return (int) n;
}

static int
bio_write(BIO *bio, const char *data, int size)
{
	QdbChannel *channel = BIO_get_data(bio);
	ssize_t		n;

	BIO_clear_retry_flags(bio);
	do
		n = send(channel->fd, data, size, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		channel->sent += n;
	else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		BIO_set_retry_write(bio);
	return (int) n;
}

static long
bio_control(BIO *bio, int command, long number, void *pointer)
{
	QdbChannel *channel = BIO_get_data(bio);

	switch (command)
	{
		case BIO_CTRL_FLUSH:
			return 1;
		case BIO_CTRL_EOF:
			return channel->raw_eof;
		default:
			return 0;
	}
}

static BIO *
new_bio(QdbChannel *channel)
{
	static BIO_METHOD *method = NULL;
	BIO		   *bio;

	if (method == NULL)
	{
		BIO_METHOD *made = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "quantadb channel");

		if (made == NULL || !BIO_meth_set_read(made, bio_read) || !BIO_meth_set_write(made, bio_write) ||
			!BIO_meth_set_ctrl(made, bio_control))
		{
			BIO_meth_free(made);
			return NULL;
		}
		method = made;
	}
	bio = BIO_new(method);
	if (bio != NULL)
	{
		BIO_set_data(bio, channel);
		BIO_set_init(bio, 1);
	}
	return bio;
}

/* Takes the session over; NULL ssl: why says why there is none. */
static void
start_tls(QdbChannel *channel, SSL *ssl, const char *why)
{
	BIO		   *bio = ssl != NULL ? new_bio(channel) : NULL;

	channel->ssl = ssl;
	channel->raw = malloc(READ_CHUNK);
	if (bio == NULL || channel->raw == NULL)
	{
		BIO_free(bio);
		fail(channel, ssl == NULL ? why : "out of memory", 0);
		return;
	}
	SSL_set_bio(ssl, bio, bio);
	channel->handshaking = true;
}

/* Why did OpenSSL give up?  Names a certificate's fault where there was one. */
static void
fail_tls(QdbChannel *channel, const char *what)
{
	unsigned long code = ERR_peek_last_error();
	long		verify = SSL_get_verify_result(channel->ssl);
	const char *why = code != 0 ? ERR_reason_error_string(code) : NULL;
	char text[	160];

	if (channel->raw_errno != 0)
		fail(channel, what, channel->raw_errno);
	else if (channel->handshaking && verify != X509_V_OK)
	{
		snprintf(text, sizeof(text), "%s: %s", what, X509_verify_cert_error_string(verify));
		fail(channel, text, 0);
	}
	else if (channel->raw_eof && why == NULL)
		fail(channel, "connection closed by the peer", 0);
	else
	{
		snprintf(text, sizeof(text), "%s: %s", what, why != NULL ? why : "unknown TLS error");
		fail(channel, text, 0);
	}
	ERR_clear_error();
}

/* Refills raw when it is used up; false: nothing came. */
static bool
read_raw(QdbChannel *channel)
{
	ssize_t		n;

	if (channel->raw_start < channel->raw_end)
		return true;
	if (channel->budget == 0 || channel->raw_eof)
		return false;
	do
		n = recv(channel->fd, channel->raw, READ_CHUNK, 0);
	while (n < 0 && errno == EINTR);
	if (n > 0)
	{
		channel->raw_start = 0;
		channel->raw_end = n;
		channel->received += n;
		channel->budget -= (size_t) n < channel->budget ? (size_t) n : channel->budget;
		return true;
	}
	if (n == 0)
		channel->raw_eof = true;
	else if (errno != EAGAIN && errno != EWOULDBLOCK)
	{
		channel->raw_errno = errno;
		channel->raw_eof = true;
	}
	return channel->raw_eof;
}

/* Goes on with the handshake; UP when both sides are satisfied. */
static void
shake_hands(QdbChannel *channel)
{
	while (channel->state == QDB_CHANNEL_CONNECTING)
	{
		int			rc;
		int			error;

		ERR_clear_error();
		rc = SSL_do_handshake(channel->ssl);
		if (rc == 1)
		{
			channel->handshaking = channel->handshake_writes = false;
			if (qdb_tls_read_peer(channel->ssl, &channel->peer))
				channel->state = QDB_CHANNEL_UP;
			else
				fail(channel, "the peer showed no certificate", 0);
			return;
		}
		error = SSL_get_error(channel->ssl, rc);
		channel->handshake_writes = error == SSL_ERROR_WANT_WRITE;
		if (error == SSL_ERROR_WANT_WRITE || (error == SSL_ERROR_WANT_READ && !read_raw(channel)))
			return;
		if (error != SSL_ERROR_WANT_READ)
			fail_tls(channel, "TLS handshake failed");
	}
}

/* Decrypts into input; false: nothing there now. */
static bool
read_tls(QdbChannel *channel)
{
	for (;;)
	{
		int			n;
		int			error;

		ERR_clear_error();
		n = SSL_read(channel->ssl, channel->input, READ_CHUNK);
		if (n > 0)
		{
			channel->input_start = 0;
			channel->input_end = n;
			return true;
		}
		error = SSL_get_error(channel->ssl, n);
		if (error == SSL_ERROR_ZERO_RETURN)
			fail(channel, "connection closed by the peer", 0);
		else if (error == SSL_ERROR_WANT_READ && read_raw(channel))
			continue;
		else if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
			fail_tls(channel, "could not receive");
		return false;
	}
}

/* Like send(): bytes taken, or -1 with EAGAIN or another errno. */
static ssize_t
send_tls(QdbChannel *channel, const uint8_t *data, size_t length)
{
	int			n;
	int			error;

	ERR_clear_error();
	n = SSL_write(channel->ssl, data, length > INT32_MAX ? INT32_MAX : (int) length);
	if (n > 0)
		return n;
	error = SSL_get_error(channel->ssl, n);
	ERR_clear_error();
	errno = error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ ? EAGAIN :
		error == SSL_ERROR_SYSCALL && errno != 0 ? errno : EPIPE;
	return -1;
}

const QdbPeerCert *
qdb_channel_peer(const QdbChannel *channel)
{
	return channel->peer.cert != NULL ? &channel->peer : NULL;
}

/* ---- connecting ---- */

/* TCP is there; TLS comes next. */
static void
connected(QdbChannel *channel)
{
	channel->tcp_up = true;
	if (channel->ssl == NULL)
		channel->state = QDB_CHANNEL_UP;
	else
		shake_hands(channel);
}

static QdbChannel *
connect_to(const char *host, int port, SSL *ssl, const char *why)
{
	QdbChannel *channel = new_channel(-1, QDB_CHANNEL_CONNECTING);
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	char		service[16];
	int			rc;

	if (channel == NULL)
	{
		SSL_free(ssl);
		return NULL;
	}
	if (!qdb_plaintext())
		start_tls(channel, ssl, why);
	if (channel->state == QDB_CHANNEL_FAILED)
		return channel;
	snprintf(service, sizeof(service), "%d", port);
	rc = getaddrinfo(host, service, &hints, &list);
	if (rc != 0)
	{
		fail(channel, gai_strerror(rc), 0);
		return channel;
	}
	/* Prefer IPv4: "localhost" listens on both, a peer's name may not. */
	for (struct addrinfo *a = list; a; a = a->ai_next)
	{
		if (a->ai_family != AF_INET && a->ai_next != NULL)
			continue;
		channel->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (channel->fd < 0)
		{
			fail(channel, "could not create a socket", errno);
			break;
		}
		set_options(channel->fd);
		if (connect(channel->fd, a->ai_addr, a->ai_addrlen) == 0)
			connected(channel);
		else if (errno != EINPROGRESS)
			fail(channel, "could not connect", errno);
		break;
	}
	freeaddrinfo(list);
	return channel;
}

QdbChannel *
qdb_channel_connect(const char *host, int port)
{
	const char *why = "";

	return connect_to(host, port, qdb_plaintext() ? NULL : qdb_tls_connect(&why), why);
}

QdbChannel *
qdb_channel_join(const char *host, int port, EVP_PKEY *key, const uint8 *ca_hash)
{
	const char *why = "";

	return connect_to(host, port, qdb_plaintext() ? NULL : qdb_tls_join(key, ca_hash, &why), why);
}

QdbChannel *
qdb_channel_accepted(int fd, bool strangers)
{
	QdbChannel *channel;
	const char *why = "";
	SSL		   *ssl = qdb_plaintext() ? NULL : qdb_tls_accept(strangers, &why);

	set_options(fd);
	channel = new_channel(fd, QDB_CHANNEL_CONNECTING);
	if (channel == NULL || (ssl == NULL && !qdb_plaintext()))
	{
		SSL_free(ssl);
		if (channel == NULL)
			close(fd);
		else
			qdb_channel_close(channel);
		return NULL;
	}
	if (ssl != NULL)
		start_tls(channel, ssl, why);
	if (channel->state != QDB_CHANNEL_FAILED)
		connected(channel);
	return channel;
}

void
qdb_channel_close(QdbChannel *channel)
{
	if (channel == NULL)
		return;
	if (channel->ssl != NULL)
	{
		/* Says that nothing is missing at the end; does not wait. */
		if (channel->state == QDB_CHANNEL_UP)
			(void) SSL_shutdown(channel->ssl);
		SSL_free(channel->ssl);
		ERR_clear_error();
	}
	X509_free(channel->peer.cert);
	if (channel->fd >= 0)
		close(channel->fd);
	free(channel->raw);
	free(channel->payload);
	free(channel->input);
	free(channel->queue);
	free(channel);
}

int
qdb_channel_fd(const QdbChannel *channel)
{
	return channel->fd;
}

QdbChannelState
qdb_channel_state(const QdbChannel *channel)
{
	return channel->state;
}

const char *
qdb_channel_error(const QdbChannel *channel)
{
	return channel->error;
}

int
qdb_channel_errno(const QdbChannel *channel)
{
	return channel->connect_errno;
}

size_t
qdb_channel_queued(const QdbChannel *channel)
{
	return channel->queue_end - channel->queue_start;
}

bool
qdb_channel_wants_write(const QdbChannel *channel)
{
	return (channel->state == QDB_CHANNEL_CONNECTING && (!channel->tcp_up || channel->handshake_writes)) ||
		(channel->state == QDB_CHANNEL_UP && qdb_channel_queued(channel) > 0);
}

void
qdb_channel_set_queue_limit(QdbChannel *channel, size_t bytes)
{
	channel->queue_limit = bytes;
}

uint64_t
qdb_channel_bytes_sent(const QdbChannel *channel)
{
	return channel->sent;
}

uint64_t
qdb_channel_bytes_received(const QdbChannel *channel)
{
	return channel->received;
}

int64_t
qdb_channel_created_us(const QdbChannel *channel)
{
	return channel->created_us;
}

static void
finish_connect(QdbChannel *channel)
{
	int			error = 0;
	socklen_t	len = sizeof(error);
	struct sockaddr_storage peer;
	socklen_t	peer_len = sizeof(peer);

	if (getsockopt(channel->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
		error = errno;
	if (error != 0)
		fail(channel, "could not connect", error);
	else if (getpeername(channel->fd, (struct sockaddr *) &peer, &peer_len) == 0)
		connected(channel);
	/* else: still under way */
}

/* Refills input when it is used up; false: nothing there now, or enough for this time. */
static bool
read_input(QdbChannel *channel)
{
	ssize_t		n;

	if (channel->input_start < channel->input_end)
		return true;
	if (channel->state != QDB_CHANNEL_UP)
		return false;
	if (channel->ssl != NULL)
		return read_tls(channel);
	if (channel->budget == 0)
		return false;
	do
		n = recv(channel->fd, channel->input, READ_CHUNK, 0);
	while (n < 0 && errno == EINTR);
	if (n > 0)
	{
		channel->input_start = 0;
		channel->input_end = n;
		channel->received += n;
		channel->budget -= (size_t) n < channel->budget ? (size_t) n : channel->budget;
		return true;
	}
	if (n == 0)
		fail(channel, "connection closed by the peer", 0);
	else if (errno != EAGAIN && errno != EWOULDBLOCK)
		fail(channel, "could not receive", errno);
	return false;
}

/* Writes what the connection takes; 0: nothing now, or it failed. */
static size_t
write_some(QdbChannel *channel, const uint8_t *bytes, size_t length)
{
	ssize_t		n;
	int			error;

	do
		n = channel->ssl != NULL ? send_tls(channel, bytes, length) :
			send(channel->fd, bytes, length, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n > 0)
	{
		if (channel->ssl == NULL)
			channel->sent += n;
		return n;
	}
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	error = n < 0 ? errno : EPIPE;
	/* What the peer said last, a refusal perhaps, is still readable. */
	(void) read_input(channel);
	fail(channel, "could not send", error);
	return 0;
}

static void
flush_queue(QdbChannel *channel)
{
	while (channel->state == QDB_CHANNEL_UP && channel->queue_start < channel->queue_end)
	{
		size_t		n = write_some(channel, channel->queue + channel->queue_start,
								   channel->queue_end - channel->queue_start);

		if (n == 0)
			break;
		channel->queue_start += n;
	}
	if (channel->queue_start == channel->queue_end)
		channel->queue_start = channel->queue_end = 0;
}

/* Moves up to want bytes from input; returns how many. */
static size_t
take_input(QdbChannel *channel, uint8_t *out, size_t want)
{
	size_t		n = channel->input_end - channel->input_start;

	if (n > want)
		n = want;
	memcpy(out, channel->input + channel->input_start, n);
	channel->input_start += n;
	return n;
}

void
qdb_channel_drive(QdbChannel *channel)
{
	channel->budget = READ_BUDGET;
	if (channel->state == QDB_CHANNEL_CONNECTING && channel->tcp_up)
		shake_hands(channel);
	else if (channel->state == QDB_CHANNEL_CONNECTING)
		finish_connect(channel);
	flush_queue(channel);
	/* An early look: a closed peer is noticed although nobody receives. */
	(void) read_input(channel);
}

static bool
accept_header(QdbChannel *channel)
{
	const char *why = NULL;

	if (!qdb_frame_decode_header(channel->header, &channel->frame, &why))
	{
		fail(channel, why, 0);
		return false;
	}
	if (channel->frame.length > channel->payload_size)
	{
		uint8_t    *larger = realloc(channel->payload, channel->frame.length);

		if (larger == NULL)
		{
			fail(channel, "out of memory", 0);
			return false;
		}
		channel->payload = larger;
		channel->payload_size = channel->frame.length;
	}
	channel->header_checked = true;
	channel->payload_used = 0;
	return true;
}

bool
qdb_channel_receive(QdbChannel *channel, QdbFrame *frame)
{
	/* Frames that arrived before a failure are still handed out. */
	for (;;)
	{
		if (channel->header_used == QDB_FRAME_HEADER_SIZE && !channel->header_checked &&
			!accept_header(channel))
			return false;
		if (channel->header_checked && channel->payload_used == channel->frame.length)
			break;
		if (!read_input(channel))
			return false;
		if (!channel->header_checked)
			channel->header_used += take_input(channel, channel->header + channel->header_used,
											   QDB_FRAME_HEADER_SIZE - channel->header_used);
		else
			channel->payload_used += take_input(channel, channel->payload + channel->payload_used,
												channel->frame.length - channel->payload_used);
	}
	channel->header_used = 0;
	channel->header_checked = false;
	if (!qdb_frame_check(channel->header, channel->payload, channel->frame.length))
	{
		fail(channel, "checksum of a frame is wrong", 0);
		channel->input_start = channel->input_end;
		return false;
	}
	frame->type = channel->frame.type;
	frame->length = channel->frame.length;
	frame->payload = channel->payload;
	return true;
}

static bool
make_room(QdbChannel *channel, size_t need)
{
	size_t		queued = qdb_channel_queued(channel);
	size_t		size = channel->queue_size ? channel->queue_size : READ_CHUNK;
	uint8_t    *larger;

	if (channel->queue_end + need <= channel->queue_size)
		return true;
	if (channel->queue_start > 0)
	{
		memmove(channel->queue, channel->queue + channel->queue_start, queued);
		channel->queue_start = 0;
		channel->queue_end = queued;
	}
	while (size < queued + need)
		size *= 2;
	if (size == channel->queue_size)
		return true;
	larger = realloc(channel->queue, size);
	if (larger == NULL)
		return false;
	channel->queue = larger;
	channel->queue_size = size;
	return true;
}

bool
qdb_channel_send(QdbChannel *channel, uint8_t type, const void *payload, uint32_t length)
{
	size_t		need = QDB_FRAME_HEADER_SIZE + (size_t) length;

	if (channel->state == QDB_CHANNEL_FAILED || length > qdb_frame_max_length(type) ||
		(qdb_channel_queued(channel) > 0 && qdb_channel_queued(channel) + need > channel->queue_limit) ||
		!make_room(channel, need))
		return false;
	qdb_frame_encode_header(channel->queue + channel->queue_end, type, payload, length);
	if (length > 0)
		memcpy(channel->queue + channel->queue_end + QDB_FRAME_HEADER_SIZE, payload, length);
	channel->queue_end += need;
	flush_queue(channel);
	return true;
}

size_t
qdb_channel_write(QdbChannel *channel, const void *bytes, size_t length)
{
	size_t		done = 0;

	while (done < length && channel->state == QDB_CHANNEL_UP && qdb_channel_queued(channel) == 0)
	{
		size_t		n = write_some(channel, (const uint8_t *) bytes + done, length - done);

		if (n == 0)
			break;
		done += n;
	}
	return done;
}

bool
qdb_channel_queue_rest(QdbChannel *channel, const void *bytes, size_t length)
{
	if (channel->state == QDB_CHANNEL_FAILED || !make_room(channel, length))
		return false;
	memcpy(channel->queue + channel->queue_end, bytes, length);
	channel->queue_end += length;
	flush_queue(channel);
	return true;
}

void
qdb_channel_set_send_buffer(QdbChannel *channel, size_t bytes)
{
	set_option(channel->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, (int) bytes);
}
