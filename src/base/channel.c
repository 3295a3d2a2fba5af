/*-------------------------------------------------------------------------
 *
 * channel.c
 *		Non-blocking framed connections over TCP.
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

static bool
is_loopback(const struct sockaddr *address)
{
	if (address->sa_family == AF_INET)
		return (ntohl(((const struct sockaddr_in *) address)->sin_addr.s_addr) >> 24) == 127;
	if (address->sa_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *) address)->sin6_addr);
	return false;
}

static int
listen_one(const struct addrinfo *address, const char *host, int port, char *why, size_t why_size)
{
	const char *plaintext = getenv("QUANTADB_TEST_PLAINTEXT");
	int			fd;

	if (!is_loopback(address->ai_addr) && (plaintext == NULL || strcmp(plaintext, "1") != 0))
	{
		snprintf(why, why_size,
				 "address \"%s\" is not a loopback address, and connections are not encrypted yet", host);
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

QdbChannel *
qdb_channel_connect(const char *host, int port)
{
	QdbChannel *channel = new_channel(-1, QDB_CHANNEL_CONNECTING);
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	char		service[16];
	int			rc;

	if (channel == NULL)
		return NULL;
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
			channel->state = QDB_CHANNEL_UP;
		else if (errno != EINPROGRESS)
			fail(channel, "could not connect", errno);
		break;
	}
	freeaddrinfo(list);
	return channel;
}

QdbChannel *
qdb_channel_accept(int listen_fd)
{
	int			fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	QdbChannel *channel;

	if (fd < 0)
		return NULL;
	set_options(fd);
	channel = new_channel(fd, QDB_CHANNEL_UP);
	if (channel == NULL)
		close(fd);
	return channel;
}

void
qdb_channel_close(QdbChannel *channel)
{
	if (channel == NULL)
		return;
	if (channel->fd >= 0)
		close(channel->fd);
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
	return channel->state == QDB_CHANNEL_CONNECTING ||
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
		channel->state = QDB_CHANNEL_UP;
	/* else: still under way */
}

/* Refills input when it is used up; false: nothing there now, or enough for this time. */
static bool
read_input(QdbChannel *channel)
{
	ssize_t		n;

	if (channel->input_start < channel->input_end)
		return true;
	if (channel->state != QDB_CHANNEL_UP || channel->budget == 0)
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
		n = send(channel->fd, bytes, length, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n > 0)
	{
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
	if (channel->state == QDB_CHANNEL_CONNECTING)
		finish_connect(channel);
	channel->budget = READ_BUDGET;
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
