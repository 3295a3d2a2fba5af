/* http.h - what the files of the HTTP worker share; inside of this folder only */
#ifndef QDB_HTTP_H
#define QDB_HTTP_H

#include "postgres.h"

#include "lib/stringinfo.h"

#include "base/status.h"

#define QDB_HTTP_MAX_BODY	8192

/* Methods a path knows; each path that knows GET knows HEAD and OPTIONS too. */
#define QDB_METHOD_GET		0x01
#define QDB_METHOD_POST		0x02
#define QDB_METHOD_PATCH	0x04
#define QDB_METHOD_DELETE	0x08
#define QDB_METHOD_OPTIONS	0x10
#define QDB_METHOD_OTHER	0x20

typedef struct QdbHttpRequest
{
	int			method;			/* one of the above; HEAD counts as GET */
	const char *path;
	bool		wants_html;
	const char *lag;			/* query arguments; NULL: not given, "": no
								 * value */
	const char *min_lsn;
	const char *node;
	const char *repeated;		/* one of these that comes twice; NULL: none
								 * does */
	const char *authorization;	/* header; NULL: none */
	const char *member;			/* a present member, by its client
								 * certificate; NULL: none */
	const char *body;			/* terminated; "" without one */
} QdbHttpRequest;

typedef struct QdbHttpAnswer
{
	unsigned int status;
	const char *content_type;
	const char *allow;			/* NULL, or the Allow header */
	const char *policy;			/* NULL, or the Content-Security-Policy */
	bool		challenge;		/* say that a bearer token is wanted */
	bool		closes;			/* nothing more is read from this connection */
	StringInfoData body;
} QdbHttpAnswer;

/*
 * A control call that waits for the coordinator.  First its entry for the
 * journal is committed, then what it asks for.
 */
typedef struct QdbControl
{
	int			slot;			/* of the mailbox; -1: none */
	bool		noted;			/* the journal has it */
	int64		deadline_us;	/* monotonic */
	const char *what;			/* "promote the node" */
	QdbRequest	request;		/* what follows the note */
} QdbControl;

/* ---- json.c ---- */

/* The text, or a copy with "?" for each byte that is no UTF-8: one that was cut off, or is older than the check. */
extern const char *qdb_valid_utf8(const char *text);

extern void qdb_put_key(StringInfo body, const char *key);
extern void qdb_put_text(StringInfo body, const char *key, const char *value);	/* NULL, "": null */
extern void qdb_put_int(StringInfo body, const char *key, int64 value);
extern void qdb_put_known(StringInfo body, const char *key, int64 value);	/* negative: null */
extern void qdb_put_flag(StringInfo body, const char *key, bool value);
extern void qdb_put_lsn(StringInfo body, const char *key, XLogRecPtr lsn);
extern void qdb_put_time(StringInfo body, const char *key, int64 unix_us);	/* 0: null */

/* {"error": ..., "detail": ..., "hint": ...}; detail and hint may be NULL. */
extern void qdb_answer_error(QdbHttpAnswer *answer, unsigned int status, const char *error,
							 const char *detail, const char *hint);

/* ---- routes.c ---- */

/*
 * Fills the answer.  True: it has to wait for control to finish, poll
 * qdb_control_poll.  May raise errors, so the caller catches.
 */
extern bool qdb_route_request(const QdbHttpRequest *request, QdbHttpAnswer *answer, QdbControl *control);

/* May this request have a body?  Judged by its header alone. */
extern bool qdb_route_takes_body(const QdbHttpRequest *request, QdbHttpAnswer *answer);

/* An argument that comes twice is refused: which one is meant? */
extern bool qdb_refuse_repeated(const QdbHttpRequest *request, QdbHttpAnswer *answer);

/* ---- health.c, cluster.c, metrics.c ---- */
typedef void (*QdbRouteHandler) (const QdbHttpRequest *request, QdbHttpAnswer *answer,
								 const QdbStatus *status);

extern void qdb_get_root(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status);
extern void qdb_get_primary(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status);
extern void qdb_get_replica(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status);
extern void qdb_get_read_only(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status);
extern void qdb_get_health(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status);
extern void qdb_get_cluster_health(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status);
extern void qdb_get_liveness(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status);
extern void qdb_get_readiness(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status);
extern void qdb_get_nodes(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status);
extern void qdb_get_status(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status);
extern void qdb_get_journal(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status);
extern void qdb_get_rehearse(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status);
extern void qdb_get_metrics(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status);

extern bool qdb_is_open_primary(const QdbStatus *status);
extern bool qdb_serves_reads(const QdbStatus *status);
extern bool qdb_cluster_is_healthy(const QdbStatus *status);
extern const char *qdb_own_name(const QdbStatus *status);
extern const char *qdb_own_state(const QdbStatus *status);

/* The coordinator turns; true where it does. */
extern bool qdb_coordinator_beats(const QdbStatus *status);

/* ---- pgstats.c ---- */
typedef struct QdbServerStats
{
	int64		commits;
	int64		rollbacks;
	int64		rows_read;
	int64		rows_written;
	int64		deadlocks;
	int64		temp_bytes;
} QdbServerStats;

/* Sums over all databases; at most as old as a few seconds. */
extern void qdb_read_server_stats(QdbServerStats *stats);

/* Backends that wait for the quorum now. */
extern int	qdb_count_waiting_commits(void);

/* ---- control.c ---- */
extern bool qdb_start_control(const QdbHttpRequest *request, QdbHttpAnswer *answer, QdbControl *control);

/* True: finished, answer is filled.  The caller catches errors. */
extern bool qdb_control_poll(QdbControl *control, QdbHttpAnswer *answer);
extern void qdb_control_abandon(QdbControl *control);

/* False: answer says why (401, 403). */
extern bool qdb_authorize(const QdbHttpRequest *request, QdbHttpAnswer *answer, char *who, size_t who_size);

/* ---- dashboard.c ---- */
extern void qdb_prepare_dashboard(void);
extern void qdb_put_dashboard(QdbHttpAnswer *answer);

/* ---- webhooks.c ---- */

/* Starts, continues and ends calls; never waits.  Returns ms until it wants to run again. */
extern long qdb_webhooks_turn(void);
extern void qdb_webhooks_stop(void);

/* ---- notify.c ---- */
extern void qdb_notify_turn(void);

#endif							/* QDB_HTTP_H */
