/*-------------------------------------------------------------------------
 *
 * door.c
 *		Accept connections and let them wait, within bounds, until they have
 *		shown who they are.
 *
 * One epoll descriptor holds the listeners and all that wait, so that the
 * worker's own wait set need not change with each of them.
 *
 *-------------------------------------------------------------------------
 */
#include "base/door.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define MAX_LISTENERS		8
#define MAX_WAITING			256
#define MAX_PER_ADDRESS		64
#define MAX_RAW_PER_ADDRESS 128 /* as many as are served */
#define ACCEPTS_PER_TURN	64
#define DEADLINE_US			INT64CONST(5000000)

typedef struct Waiting
{
	int			fd;				/* -1: place is free */
	QdbChannel *channel;		/* NULL for RAW */
	int64		since_us;
	uint32		events;
	struct sockaddr_storage address;
	socklen_t	address_length;
} Waiting;

struct QdbDoor
{
	QdbDoorKind kind;
	int			epoll_fd;
	int			nlisteners;
	int			listeners[MAX_LISTENERS];
	Waiting		waiting[MAX_WAITING];
};

QdbDoor *
qdb_door_open(const char *addresses, int port, QdbDoorKind kind, char *why, size_t why_size)
{
	QdbDoor    *door = calloc(1, sizeof(QdbDoor));

	if (door == NULL)
	{
		strlcpy(why, "out of memory", why_size);
		return NULL;
	}
	door->kind = kind;
	for (int i = 0; i < MAX_WAITING; i++)
		door->waiting[i].fd = -1;
	door->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	door->nlisteners = door->epoll_fd < 0 ? -1 :
		qdb_listen(addresses, port, door->listeners, MAX_LISTENERS, why, why_size);
	if (door->epoll_fd < 0)
		snprintf(why, why_size, "could not create an epoll descriptor: %s", strerror(errno));
	for (int i = 0; i < door->nlisteners; i++)
	{
		struct epoll_event event = {.events = EPOLLIN,.data.u32 = MAX_WAITING + i};

		if (epoll_ctl(door->epoll_fd, EPOLL_CTL_ADD, door->listeners[i], &event) != 0)
		{
			snprintf(why, why_size, "could not wait for connections: %s", strerror(errno));
			qdb_door_close(door);
			return NULL;
		}
	}
	if (door->nlisteners > 0)
		return door;
	qdb_door_close(door);
	return NULL;
}

/* Closing a socket takes it out of the epoll set. */
static void
turn_away(Waiting *waiting)
{
	if (waiting->channel != NULL)
		qdb_channel_close(waiting->channel);
	else if (waiting->fd >= 0)
		close(waiting->fd);
	waiting->channel = NULL;
	waiting->fd = -1;
}

void
qdb_door_close(QdbDoor *door)
{
	if (door == NULL)
		return;
	for (int i = 0; i < MAX_WAITING; i++)
		turn_away(&door->waiting[i]);
	for (int i = 0; i < door->nlisteners; i++)
		close(door->listeners[i]);
	if (door->epoll_fd >= 0)
		close(door->epoll_fd);
	free(door);
}

int
qdb_door_fd(const QdbDoor *door)
{
	return door->epoll_fd;
}

bool
qdb_same_client(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	if (a->ss_family != b->ss_family)
		return false;
	if (a->ss_family == AF_INET)
		return ((const struct sockaddr_in *) a)->sin_addr.s_addr ==
			((const struct sockaddr_in *) b)->sin_addr.s_addr;
	/* A host has a whole /64. */
	return memcmp(&((const struct sockaddr_in6 *) a)->sin6_addr,
				  &((const struct sockaddr_in6 *) b)->sin6_addr, 8) == 0;
}

/* A free place, if need be that of the one that has waited longest. */
static Waiting *
find_place(QdbDoor *door, const struct sockaddr_storage *address)
{
	Waiting    *spare = NULL;
	Waiting    *oldest = NULL;
	Waiting    *oldest_same = NULL;
	int			same = 0;

	for (int i = 0; i < MAX_WAITING; i++)
	{
		Waiting    *w = &door->waiting[i];

		if (w->fd < 0)
		{
			spare = w;
			continue;
		}
		if (oldest == NULL || w->since_us < oldest->since_us)
			oldest = w;
		if (!qdb_same_client(&w->address, address))
			continue;
		same++;
		if (oldest_same == NULL || w->since_us < oldest_same->since_us)
			oldest_same = w;
	}
	if (same >= (door->kind == QDB_DOOR_RAW ? MAX_RAW_PER_ADDRESS : MAX_PER_ADDRESS))
		spare = oldest_same;
	else if (spare == NULL)
		spare = oldest;
	turn_away(spare);
	return spare;
}

static void
watch(QdbDoor *door, Waiting *waiting, int operation, uint32 events)
{
	struct epoll_event event = {.events = events,.data.u32 = waiting - door->waiting};

	waiting->events = events;
	if (epoll_ctl(door->epoll_fd, operation, waiting->fd, &event) != 0)
		turn_away(waiting);
}

static uint32
wanted_events(const Waiting *waiting)
{
	return EPOLLIN |
		(waiting->channel != NULL && qdb_channel_wants_write(waiting->channel) ? EPOLLOUT : 0);
}

static void
accept_some(QdbDoor *door, int listener)
{
	for (int i = 0; i < ACCEPTS_PER_TURN; i++)
	{
		struct sockaddr_storage address;
		socklen_t	length = sizeof(address);
		int			fd = accept4(listener, (struct sockaddr *) &address, &length,
								 SOCK_NONBLOCK | SOCK_CLOEXEC);
		Waiting    *waiting;

		if (fd < 0)
			return;
		waiting = find_place(door, &address);
		if (door->kind != QDB_DOOR_RAW)
		{
			waiting->channel = qdb_channel_accepted(fd, door->kind == QDB_DOOR_STRANGERS);
			if (waiting->channel == NULL)
				continue;
		}
		waiting->fd = fd;
		waiting->since_us = qdb_now_us();
		waiting->address = address;
		waiting->address_length = length;
		watch(door, waiting, EPOLL_CTL_ADD, wanted_events(waiting));
	}
}

static void
drive(QdbDoor *door, Waiting *waiting)
{
	if (waiting->fd < 0 || waiting->channel == NULL)
		return;
	if (qdb_channel_state(waiting->channel) == QDB_CHANNEL_CONNECTING)
		qdb_channel_drive(waiting->channel);
	if (qdb_channel_state(waiting->channel) == QDB_CHANNEL_FAILED)
	{
		ereport(DEBUG1, (errmsg_internal("[cluster] refused a connection: %s",
										 qdb_channel_error(waiting->channel))));
		turn_away(waiting);
	}
	else if (wanted_events(waiting) != waiting->events)
		watch(door, waiting, EPOLL_CTL_MOD, wanted_events(waiting));
}

void
qdb_door_turn(QdbDoor *door)
{
	struct epoll_event events[MAX_LISTENERS + ACCEPTS_PER_TURN];
	int			n = epoll_wait(door->epoll_fd, events, lengthof(events), 0);
	int64		now = qdb_now_us();

	for (int i = 0; i < n; i++)
	{
		uint32		place = events[i].data.u32;

		if (place >= MAX_WAITING)
			accept_some(door, door->listeners[place - MAX_WAITING]);
		else
			drive(door, &door->waiting[place]);
	}
	for (int i = 0; i < MAX_WAITING; i++)
	{
		Waiting    *w = &door->waiting[i];

		if (w->fd >= 0 && now - w->since_us > DEADLINE_US)
			turn_away(w);
	}
}

/* Out of the set: the socket now belongs to another one. */
static void
leave(QdbDoor *door, Waiting *waiting)
{
	(void) epoll_ctl(door->epoll_fd, EPOLL_CTL_DEL, waiting->fd, NULL);
	waiting->channel = NULL;
	waiting->fd = -1;
}

QdbChannel *
qdb_door_take(QdbDoor *door)
{
	for (int i = 0; i < MAX_WAITING; i++)
	{
		Waiting    *w = &door->waiting[i];
		QdbChannel *channel = w->channel;

		if (w->fd >= 0 && channel != NULL && qdb_channel_state(channel) == QDB_CHANNEL_UP)
		{
			leave(door, w);
			return channel;
		}
	}
	return NULL;
}

int
qdb_door_take_socket(QdbDoor *door, struct sockaddr_storage *address, socklen_t *length)
{
	for (int i = 0; i < MAX_WAITING; i++)
	{
		Waiting    *w = &door->waiting[i];
		int			fd = w->fd;
		char		byte;
		ssize_t		n;

		if (fd < 0)
			continue;
		n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
			continue;
		if (n <= 0)
		{
			turn_away(w);
			continue;
		}
		*address = w->address;
		*length = w->address_length;
		leave(door, w);
		return fd;
	}
	return -1;
}
