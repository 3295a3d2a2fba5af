/*-------------------------------------------------------------------------
 *
 * accept.h
 *		HTTP and HTTPS on one port; inside of this folder only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_HTTP_ACCEPT_H
#define QDB_HTTP_ACCEPT_H

#include "postgres.h"

#include <microhttpd.h>

#define QDB_HTTP_MAX_FDS	3

/* Listens; false: logged, try again later. */
extern bool qdb_http_open(MHD_AccessHandlerCallback handler, MHD_RequestCompletedCallback completed);
extern void qdb_http_close(void);

/* HTTPS with the newest certificate; may_restart: no request is suspended. */
extern void qdb_http_follow_keys(bool may_restart);

/* Accepts and serves what is there now; woken: the wait ended since something is. */
extern void qdb_http_turn(bool woken);

/* What to wait for; raises *changed when it is not what it was at the last call. */
extern int	qdb_http_fds(int *fds, bool *changed);

/* ms until qdb_http_turn is due again, at most limit. */
extern long qdb_http_timeout(long limit);

/*
 * Does this connection come with the certificate of a present member?  Fills who
 * for the journal, e.g. "member n2".
 */
extern bool qdb_http_member_certificate(struct MHD_Connection *connection, char *who, size_t who_size);

#endif							/* QDB_HTTP_ACCEPT_H */
