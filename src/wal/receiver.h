/*-------------------------------------------------------------------------
 *
 * receiver.h
 *		The receiver's link: connect and handshake (link.c), used by the
 *		walreceiver's function table (receiver.c).
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_WAL_RECEIVER_H
#define QDB_WAL_RECEIVER_H

#include "base/base.h"
#include "base/channel.h"
#include "wal/messages.h"

typedef struct QdbReceiverLink
{
	QdbChannel *channel;
	uint64		epoch;			/* target and promise it was made under */
	uint64		member;
	char		host[QDB_HOST_SIZE];
	uint16		port;
	QdbStreamWelcome welcome;
} QdbReceiverLink;

/*
 * Waits for a target, connects and shakes hands; ends only with a connection,
 * with a refusal that will not pass by itself (false, *err palloc'd), or by an
 * interrupt.  True: receiver_epoch is set.
 */
extern bool qdb_link_connect(QdbReceiverLink *link, char **err);

/* Waits for the channel's socket, the latch or the time, whichever is first. */
extern void qdb_link_wait(QdbChannel *channel, int timeout_ms);

/* Shows why the last attempt failed; empty: it did not. */
extern void qdb_note_refusal(const char *text);

#endif							/* QDB_WAL_RECEIVER_H */
