/*-------------------------------------------------------------------------
 *
 * channel_tls.c
 *		The TLS of a channel: handshake, reading, writing.
 *
 * OpenSSL reads from a buffer of ours, never from the socket: whatever was
 * received is decrypted before anybody waits for the socket again, and the budget
 * counts what came in.  It writes to the socket directly, a frame's record with
 * one system call.
 *
 *-------------------------------------------------------------------------
 */
#include "base/channel_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/bio.h>
#include <openssl/err.h>

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
void
qdb_channel_start_tls(QdbChannel *channel, SSL *ssl, const char *why)
{
	BIO		   *bio = ssl != NULL ? new_bio(channel) : NULL;

	channel->ssl = ssl;
	channel->raw = malloc(QDB_CHANNEL_READ_CHUNK);
	if (bio == NULL || channel->raw == NULL)
	{
		BIO_free(bio);
		qdb_channel_fail(channel, ssl == NULL ? why : "out of memory", 0);
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
	char		text[160];

	if (channel->raw_errno != 0)
		qdb_channel_fail(channel, what, channel->raw_errno);
	else if (channel->handshaking && verify != X509_V_OK)
	{
		snprintf(text, sizeof(text), "%s: %s", what, X509_verify_cert_error_string(verify));
		qdb_channel_fail(channel, text, 0);
	}
	else if (channel->raw_eof && why == NULL)
		qdb_channel_fail(channel, "connection closed by the peer", 0);
	else
	{
		snprintf(text, sizeof(text), "%s: %s", what, why != NULL ? why : "unknown TLS error");
		qdb_channel_fail(channel, text, 0);
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
		n = recv(channel->fd, channel->raw, QDB_CHANNEL_READ_CHUNK, 0);
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
void
qdb_channel_shake_hands(QdbChannel *channel)
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
				qdb_channel_fail(channel, "the peer showed no certificate", 0);
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
bool
qdb_channel_read_tls(QdbChannel *channel)
{
	/*
	 * OpenSSL keeps no whole record back, so without new bytes there is
	 * nothing to ask it for.
	 */
	if (SSL_pending(channel->ssl) == 0 && !read_raw(channel))
		return false;
	for (;;)
	{
		int			n;
		int			error;

		ERR_clear_error();
		n = SSL_read(channel->ssl, channel->input, QDB_CHANNEL_READ_CHUNK);
		if (n > 0)
		{
			channel->input_start = 0;
			channel->input_end = n;
			return true;
		}
		error = SSL_get_error(channel->ssl, n);
		if (error == SSL_ERROR_ZERO_RETURN)
			qdb_channel_fail(channel, "connection closed by the peer", 0);
		else if (error == SSL_ERROR_WANT_READ && read_raw(channel))
			continue;
		else if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
			fail_tls(channel, "could not receive");
		return false;
	}
}

/* Like send(): bytes taken, or -1 with EAGAIN or another errno. */
ssize_t
qdb_channel_send_tls(QdbChannel *channel, const uint8_t *data, size_t length)
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
