/*-------------------------------------------------------------------------
 *
 * hello.h
 *		The first frame on a connection between members: who speaks, and is he
 *		the one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CLUSTER_HELLO_H
#define QDB_CLUSTER_HELLO_H

#include "cluster/mesh.h"
#include "core/peer.h"

extern bool qdb_send_hello(QdbChannel *channel);
extern bool qdb_read_hello(const QdbFrame *frame, QdbHello *hello);

/* Why the sender is not let in; NULL: it is the member that it says it is. */
extern const char *qdb_judge_hello(const QdbHello *hello, const QdbChannel *channel);

/* Does this node's state say that the sender was removed?  Then the answer says so. */
extern bool qdb_was_removed(const QdbHello *hello);

extern bool qdb_send_removed(QdbChannel *channel, const QdbHello *hello);

/* The other side of that: may this answer of a peer be believed? */
extern bool qdb_says_removed(const QdbPeer *peer, const QdbFrame *frame);

/* quietly: nobody needs to see it. */
extern void qdb_log_refusal(const QdbHello *hello, const QdbChannel *channel, const char *why, bool quietly);

#endif							/* QDB_CLUSTER_HELLO_H */
