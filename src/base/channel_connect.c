/*-------------------------------------------------------------------------
 *
 * channel_connect.c
 *		Listening sockets, and how a channel comes up on either side.
 *
 * In the clear (quantadb.development_plaintext) only loopback addresses are
 * listened on.
 *
 *-------------------------------------------------------------------------
 */
#include "base/channel_internal.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LISTEN_BACKLOG			128
#define USER_TIMEOUT_MS			10000

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

	if (channel == NULL || (channel->input = malloc(QDB_CHANNEL_READ_CHUNK)) == NULL)
	{
		free(channel);
		return NULL;
	}
	clock_gettime(CLOCK_MONOTONIC, &ts);
	channel->created_us = (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
	channel->fd = fd;
	channel->state = state;
	channel->queue_limit = QDB_CHANNEL_QUEUE_LIMIT;
	channel->budget = QDB_CHANNEL_READ_BUDGET;
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

/* TCP is there; TLS comes next. */
static void
connected(QdbChannel *channel)
{
	channel->tcp_up = true;
	if (channel->ssl == NULL)
		channel->state = QDB_CHANNEL_UP;
	else
		qdb_channel_shake_hands(channel);
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
		qdb_channel_start_tls(channel, ssl, why);
	if (channel->state == QDB_CHANNEL_FAILED)
		return channel;
	snprintf(service, sizeof(service), "%d", port);
	rc = getaddrinfo(host, service, &hints, &list);
	if (rc != 0)
	{
		qdb_channel_fail(channel, gai_strerror(rc), 0);
		return channel;
	}
	/* Prefer IPv4: "localhost" listens on both, a peer's name may not. */
	for (struct addrinfo *a = list; a; a = a->ai_next)
	{
		if (a->ai_family != AF_INET && a->ai_next != NULL)
			continue;
		if (qdb_plaintext() && !qdb_is_loopback(a->ai_addr))
		{
			qdb_channel_fail(channel, "quantadb.development_plaintext is on, and this is not a loopback address", 0);
			break;
		}
		channel->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (channel->fd < 0)
		{
			qdb_channel_fail(channel, "could not create a socket", errno);
			break;
		}
		set_options(channel->fd);
		if (connect(channel->fd, a->ai_addr, a->ai_addrlen) == 0)
			connected(channel);
		else if (errno != EINPROGRESS)
			qdb_channel_fail(channel, "could not connect", errno);
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
		qdb_channel_start_tls(channel, ssl, why);
	if (channel->state != QDB_CHANNEL_FAILED)
		connected(channel);
	return channel;
}

void
qdb_channel_finish_connect(QdbChannel *channel)
{
	int			error = 0;
	socklen_t	len = sizeof(error);
	struct sockaddr_storage peer;
	socklen_t	peer_len = sizeof(peer);

	if (getsockopt(channel->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
		error = errno;
	if (error != 0)
		qdb_channel_fail(channel, "could not connect", error);
	else if (getpeername(channel->fd, (struct sockaddr *) &peer, &peer_len) == 0)
		connected(channel);
	/* else: still under way */
}

void
qdb_channel_set_send_buffer(QdbChannel *channel, size_t bytes)
{
	set_option(channel->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, (int) bytes);
}
