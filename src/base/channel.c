/*-------------------------------------------------------------------------
 *
 * channel.c
 *		Non-blocking framed connections over TLS: frames and the send queue.
 *
 * Received bytes are kept until a frame is complete.  Its header is checked
 * before its payload gets any memory.  One drive reads at most QDB_CHANNEL_READ_BUDGET
 * bytes, so that a peer which never stops sending cannot keep its caller busy.
 * Sent frames are appended to one queue with a cap; a peer that does not
 * read makes its channel refuse more, and the caller decides.
 *
 *-------------------------------------------------------------------------
 */
#include "base/channel_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>

void
qdb_channel_fail(QdbChannel *channel, const char *what, int error)
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
		return qdb_channel_read_tls(channel);
	if (channel->budget == 0)
		return false;
	do
		n = recv(channel->fd, channel->input, QDB_CHANNEL_READ_CHUNK, 0);
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
		qdb_channel_fail(channel, "connection closed by the peer", 0);
	else if (errno != EAGAIN && errno != EWOULDBLOCK)
		qdb_channel_fail(channel, "could not receive", errno);
	return false;
}

/* Writes what the connection takes; 0: nothing now, or it failed. */
static size_t
write_some(QdbChannel *channel, const uint8_t *bytes, size_t length)
{
	ssize_t		n;
	int			error;

	do
		n = channel->ssl != NULL ? qdb_channel_send_tls(channel, bytes, length) :
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
	qdb_channel_fail(channel, "could not send", error);
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
	channel->budget = QDB_CHANNEL_READ_BUDGET;
	if (channel->state == QDB_CHANNEL_CONNECTING && channel->tcp_up)
		qdb_channel_shake_hands(channel);
	else if (channel->state == QDB_CHANNEL_CONNECTING)
		qdb_channel_finish_connect(channel);
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
		qdb_channel_fail(channel, why, 0);
		return false;
	}
	if (channel->frame.length > channel->payload_size)
	{
		uint8_t    *larger = realloc(channel->payload, channel->frame.length);

		if (larger == NULL)
		{
			qdb_channel_fail(channel, "out of memory", 0);
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
		qdb_channel_fail(channel, "checksum of a frame is wrong", 0);
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
	size_t		size = channel->queue_size ? channel->queue_size : QDB_CHANNEL_READ_CHUNK;
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
