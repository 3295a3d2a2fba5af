/*-------------------------------------------------------------------------
 *
 * door.h
 *		Where strangers wait: connections that were accepted and have not
 *		shown who they are.
 *
 * Everything that costs something before a peer is known is bounded here: how
 * many wait, how many of one address, how long, and how many are taken a turn.
 * When all places are taken the one that has waited longest has to go, not the
 * newcomer: an attacker who opens thousands of connections pushes out its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_BASE_DOOR_H
#define QDB_BASE_DOOR_H

#include <sys/socket.h>

#include "base/channel.h"

typedef struct QdbDoor QdbDoor;

typedef enum QdbDoorKind
{
	QDB_DOOR_MEMBERS,			/* TLS with a member's certificate */
	QDB_DOOR_STRANGERS,			/* also such that want to join */
	QDB_DOOR_RAW				/* sockets that have sent something */
} QdbDoorKind;

/* Listens; NULL with why. */
extern QdbDoor *qdb_door_open(const char *addresses, int port, QdbDoorKind kind,
							  char *why, size_t why_size);
extern void qdb_door_close(QdbDoor *door);

/* Readable when there is something to do for qdb_door_turn. */
extern int	qdb_door_fd(const QdbDoor *door);

/* Accepts, goes on with handshakes, drops what is late. */
extern void qdb_door_turn(QdbDoor *door);

/*
 * The next connection that is through; NULL: none.  It may hold frames already that
 * came with the end of the handshake: receive before waiting.
 */
extern QdbChannel *qdb_door_take(QdbDoor *door);

/* RAW: the next socket with its first byte still to be read; -1: none. */
extern int	qdb_door_take_socket(QdbDoor *door, struct sockaddr_storage *address, socklen_t *length);

/* Do two addresses belong to one client, for the limits?  A host has a whole IPv6 /64. */
extern bool qdb_same_client(const struct sockaddr_storage *a, const struct sockaddr_storage *b);

#endif							/* QDB_BASE_DOOR_H */
