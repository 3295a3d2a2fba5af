/*-------------------------------------------------------------------------
 *
 * routes.c
 *		Paths and their answers.
 *
 * One table names every path, the methods it knows and what answers it.
 * Health paths say 200 or 503 and why in a JSON body; a load balancer looks at
 * the status only.
 *
 *-------------------------------------------------------------------------
 */
#include "http/http.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_type_d.h"
#include "postmaster/postmaster.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "base/status.h"

/* The coordinator turns many times a second; one that stands still is stuck. */
#define COORDINATOR_STUCK_US	(5 * INT64CONST(1000000))

typedef void (*RouteHandler) (const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status);

typedef struct Route
{
	const char *path;
	RouteHandler handler;		/* NULL: control */
} Route;

static void
put_key(StringInfo body, const char *key)
{
	char		last = body->len > 0 ? body->data[body->len - 1] : '{';

	if (last != '{' && last != '[')
		appendStringInfoString(body, ", ");
	escape_json(body, key);
	appendStringInfoString(body, ": ");
}

static void
put_string(StringInfo body, const char *key, const char *value)
{
	put_key(body, key);
	if (value == NULL || value[0] == '\0')
		appendStringInfoString(body, "null");
	else
		escape_json(body, value);
}

static void
put_int(StringInfo body, const char *key, int64 value)
{
	put_key(body, key);
	appendStringInfo(body, INT64_FORMAT, value);
}

/* Negative: unknown. */
static void
put_known(StringInfo body, const char *key, int64 value)
{
	if (value < 0)
		put_string(body, key, NULL);
	else
		put_int(body, key, value);
}

static void
put_bool(StringInfo body, const char *key, bool value)
{
	put_key(body, key);
	appendStringInfoString(body, value ? "true" : "false");
}

static void
put_lsn(StringInfo body, const char *key, XLogRecPtr lsn)
{
	put_key(body, key);
	if (lsn == InvalidXLogRecPtr)
		appendStringInfoString(body, "null");
	else
		appendStringInfo(body, "\"%X/%X\"", LSN_FORMAT_ARGS(lsn));
}

static void
put_time(StringInfo body, const char *key, int64 unix_us)
{
	TimestampTz time = unix_us - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	char		buf[MAXDATELEN + 1];

	JsonEncodeDateTime(buf, TimestampTzGetDatum(time), TIMESTAMPTZOID, NULL);
	put_string(body, key, buf);
}

static const char *
own_name(const QdbStatus *status)
{
	return status->member ? qdb_shared->identity.name : qdb_node_name;
}

static const char *
own_state(const QdbStatus *status)
{
	return qdb_node_state_text(status->member ? status->node_state : QDB_NODE_INERT);
}

/* The body of every health answer. */
static void
answer_health(QdbHttpAnswer *answer, const QdbStatus *status, bool good, const char *reason)
{
	StringInfo	body = &answer->body;

	answer->status = good ? 200 : 503;
	appendStringInfoChar(body, '{');
	put_bool(body, "ok", good);
	put_string(body, "node", own_name(status));
	put_string(body, "state", own_state(status));
	put_string(body, "primary", status->primary ? status->primary->name : NULL);
	put_int(body, "epoch", status->state->epoch);
	put_int(body, "timeline", status->timeline);
	if (!good)
		put_string(body, "reason", reason);
}

static void
end_object(QdbHttpAnswer *answer)
{
	appendStringInfoString(&answer->body, "}\n");
}

/* Seat, live lease, open. */
static bool
is_primary(const QdbStatus *status)
{
	return status->member && !status->in_recovery && status->may_write && status->lease_alive;
}

static void
get_primary(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	answer_health(answer, status, is_primary(status),
				  !status->member ? "this server is not a member of a cluster" :
				  status->in_recovery ? "this node is not the primary" :
				  status->open_epoch == 0 ? "the new primary is not open yet" :
				  "this node holds no live lease");
	end_object(answer);
}

/* "/" has the status of /primary; a browser gets the page. */
static void
get_root(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	get_primary(request, answer, status);
	if (!request->wants_html)
		return;
	resetStringInfo(&answer->body);
	appendStringInfoString(&answer->body, qdb_http_page());
	answer->content_type = "text/html; charset=utf-8";
}

/* Bytes that this node's replay is behind the primary's WAL; -1 unknown. */
static int64
replay_lag(const QdbStatus *status)
{
	XLogRecPtr	replayed = GetXLogReplayRecPtr(NULL);

	for (int i = 0; i < status->nnodes; i++)
	{
		const QdbNodeStatus *node = &status->nodes[i];

		if (node->primary && node->wal_end != InvalidXLogRecPtr)
			return node->wal_end > replayed ? (int64) (node->wal_end - replayed) : 0;
	}
	return -1;
}

/* A malformed argument is the caller's error, not a sick node. */
static void
answer_bad_argument(QdbHttpAnswer *answer, const char *name)
{
	answer->status = 400;
	appendStringInfoChar(&answer->body, '{');
	put_string(&answer->body, "error", "invalid argument");
	put_string(&answer->body, "argument", name);
	end_object(answer);
}

static void
get_replica(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	XLogRecPtr	min_lsn = InvalidXLogRecPtr;
	XLogRecPtr	replayed = GetXLogReplayRecPtr(NULL);
	int64		lag = replay_lag(status);
	int			limit = -1;
	int64		lag_bytes;
	int64		lag_us;
	const char *reason = NULL;
	bool		bad = false;

	if (request->min_lsn != NULL)
		min_lsn = pg_lsn_in_internal(request->min_lsn, &bad);
	if (bad)
	{
		answer_bad_argument(answer, "min_lsn");
		return;
	}
	/* A plain number is bytes. */
	if (request->lag != NULL && (!parse_int(request->lag, &limit, GUC_UNIT_BYTE, NULL) || limit < 0))
	{
		answer_bad_argument(answer, "lag");
		return;
	}

	if (!status->member)
		reason = "this server is not a member of a cluster";
	else if (!status->in_recovery || status->node_state != QDB_NODE_REPLICA)
		reason = "this node is not a streaming replica";
	else if (qdb_replica_lag_exceeded(&lag_bytes, &lag_us))
		reason = "this node is further behind than quantadb.max_replica_lag";
	else if (request->lag != NULL && (lag < 0 || lag > limit))
		reason = "this node is too far behind the primary";
	else if (min_lsn != InvalidXLogRecPtr && replayed < min_lsn)
		reason = "this node does not show that LSN yet";
	answer_health(answer, status, reason == NULL, reason);
	put_lsn(&answer->body, "replayed", replayed);
	put_known(&answer->body, "lag_bytes", lag);
	end_object(answer);
}

/* Serves reads: not what is still closed (I8) or resynchronises. */
static bool
serves_reads(const QdbStatus *status)
{
	if (!status->member)
		return !status->in_recovery || HotStandbyActive();
	if (!status->in_recovery)
		return status->open_epoch != 0;
	return HotStandbyActive() && status->node_state != QDB_NODE_STANDBY;
}

static void
get_read_only(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	bool		stale = status->member && !is_primary(status) &&
	(!status->majority || status->primary == NULL || status->node_state != QDB_NODE_REPLICA);

	answer_health(answer, status, serves_reads(status), "this node does not serve reads now");
	put_bool(&answer->body, "stale", stale);
	end_object(answer);
}

static void
get_health(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	answer_health(answer, status, true, NULL);
	end_object(answer);
}

static void
get_cluster_health(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	bool		connected = false;

	for (int i = 0; i < status->nnodes; i++)
	{
		if (status->nodes[i].primary)
			connected = status->nodes[i].self ? is_primary(status) : status->nodes[i].connected;
	}
	answer_health(answer, status, connected && status->majority,
				  !status->member ? "this server is not a member of a cluster" :
				  !status->majority ? "no majority of the voters is there" :
				  "no primary is open");
	put_int(&answer->body, "can_lose", status->can_lose);
	end_object(answer);
}

/* The workers: the one that answers, and the coordinator, which beats. */
static void
get_liveness(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	pid_t		coordinator;
	int64		beat;
	bool		alive;

	SpinLockAcquire(&qdb_shared->mutex);
	coordinator = qdb_shared->coordinator_pid;
	beat = qdb_shared->coordinator_beat_us;
	SpinLockRelease(&qdb_shared->mutex);
	alive = coordinator != 0 &&
		(!status->member || qdb_now_us() - beat < COORDINATOR_STUCK_US);
	answer_health(answer, status, alive, "the coordinator does not run");
	end_object(answer);
}

static void
get_readiness(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	answer_health(answer, status, serves_reads(status), "this node does not serve queries now");
	end_object(answer);
}

static void
put_nodes(StringInfo body, const QdbStatus *status)
{
	put_key(body, "nodes");
	appendStringInfoChar(body, '[');
	for (int i = 0; i < status->nnodes; i++)
	{
		const QdbNodeStatus *node = &status->nodes[i];
		const QdbMember *member = node->member;

		appendStringInfoString(body, i == 0 ? "{" : ", {");
		put_string(body, "name", member->name);
		put_string(body, "role", node->role);
		put_string(body, "state", node->state);
		put_string(body, "host", member->host);
		put_int(body, "sql_port", member->sql_port);
		put_int(body, "raft_port", member->raft_port);
		put_int(body, "replication_port", member->replication_port);
		put_int(body, "http_port", member->http_port);
		put_bool(body, "connected", node->connected);
		put_known(body, "seen_ms_ago", node->self ? 0 : node->seen_ago_us < 0 ? -1 : node->seen_ago_us / 1000);
		put_lsn(body, "wal_end", node->wal_end);
		put_known(body, "lag_bytes", node->lag_bytes);
		put_known(body, "lag_ms", node->lag_us < 0 ? -1 : node->lag_us / 1000);
		put_int(body, "priority", member->priority);
		put_bool(body, "eligible", node->eligible);
		put_string(body, "why_not", node->why_not);
		appendStringInfoChar(body, '}');
	}
	appendStringInfoChar(body, ']');
}

static void
get_nodes(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	answer->status = 200;
	appendStringInfoChar(&answer->body, '{');
	put_nodes(&answer->body, status);
	end_object(answer);
}

static void
get_status(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	StringInfo	body = &answer->body;
	const QdbMember *leader = qdb_member_by_id(status->state, status->raft_leader);
	char		identifier[32];

	snprintf(identifier, sizeof(identifier), UINT64_FORMAT, GetSystemIdentifier());
	answer->status = 200;
	appendStringInfoChar(body, '{');
	put_string(body, "cluster", status->state->cluster_name);
	put_string(body, "cluster_id", status->state->cluster_id);
	put_string(body, "system_identifier", identifier);
	put_string(body, "node", own_name(status));
	put_string(body, "state", own_state(status));
	put_int(body, "epoch", status->state->epoch);
	put_int(body, "timeline", status->timeline);
	put_string(body, "primary", status->primary ? status->primary->name : NULL);
	put_string(body, "raft_state", status->member ? qdb_raft_state_text(status->raft_state) : NULL);
	put_int(body, "raft_term", status->raft_term);
	put_string(body, "raft_leader", leader ? leader->name : NULL);
	put_int(body, "raft_last_index", status->raft_last_index);
	put_lsn(body, "quorum_lsn", status->quorum_lsn);
	put_int(body, "lease_ms", status->lease_left_us / 1000);
	put_int(body, "can_lose", status->can_lose);
	put_bool(body, "paused", status->member && !status->state->settings.auto_failover);
	put_int(body, "sql_port", PostPortNumber);
	put_int(body, "raft_port", qdb_raft_port);
	put_int(body, "replication_port", qdb_replication_port);
	put_int(body, "http_port", qdb_http_port);
	put_nodes(body, status);
	end_object(answer);
}

static void
get_journal(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	StringInfo	body = &answer->body;
	const QdbState *state = status->state;
	uint64		kept = Min(Min(state->njournal, QDB_MAX_JOURNAL), state->journal_next);
	bool		first = true;

	answer->status = 200;
	appendStringInfoChar(body, '{');
	put_key(body, "journal");
	appendStringInfoChar(body, '[');
	for (uint64 number = Max(state->journal_next - kept, 1); number < state->journal_next; number++)
	{
		const QdbJournalEntry *entry = &state->journal[(number - 1) % QDB_MAX_JOURNAL];

		appendStringInfoString(body, first ? "{" : ", {");
		first = false;
		put_int(body, "number", entry->number);
		put_time(body, "time", entry->time_us);
		put_int(body, "epoch", entry->epoch);
		put_string(body, "event", entry->event);
		put_string(body, "node", entry->node);
		put_string(body, "reason", entry->reason);
		appendStringInfoChar(body, '}');
	}
	appendStringInfoChar(body, ']');
	end_object(answer);
}

static const Route routes[] = {
	{"/", get_root},
	{"/primary", get_primary},
	{"/leader", get_primary},
	{"/read-write", get_primary},
	{"/replica", get_replica},
	{"/read-only", get_read_only},
	{"/health", get_health},
	{"/cluster/health", get_cluster_health},
	{"/liveness", get_liveness},
	{"/readiness", get_readiness},
	{"/cluster/status", get_status},
	{"/cluster/nodes", get_nodes},
	{"/cluster/journal", get_journal},
	{"/cluster/promote", NULL},
	{"/cluster/pause", NULL},
	{"/cluster/resume", NULL},
	{"/cluster/join", NULL},
	{"/cluster/settings", NULL},
};

static void
answer_error(QdbHttpAnswer *answer, unsigned int status, const char *allow, const char *text)
{
	answer->status = status;
	answer->allow = allow;
	appendStringInfoChar(&answer->body, '{');
	put_string(&answer->body, "error", text);
	end_object(answer);
}

/* Nodes have their own paths: /cluster/nodes/NAME and /cluster/nodes/NAME/role. */
static bool
is_control(const char *path, const Route *route)
{
	return (route != NULL && route->handler == NULL) ||
		(route == NULL && strncmp(path, "/cluster/nodes/", strlen("/cluster/nodes/")) == 0);
}

void
qdb_route_request(const QdbHttpRequest *request, QdbHttpAnswer *answer)
{
	const Route *route = NULL;
	bool		control;

	initStringInfo(&answer->body);
	for (int i = 0; i < lengthof(routes) && route == NULL; i++)
	{
		if (strcmp(routes[i].path, request->path) == 0)
			route = &routes[i];
	}
	control = is_control(request->path, route);
	if (route == NULL && !control)
		answer_error(answer, 404, NULL, "no such path");
	else if (control && strcmp(request->method, "OPTIONS") == 0)
	{
		answer->status = 204;
		answer->allow = "POST, PATCH, DELETE, OPTIONS";
	}
	else if (control)
		answer_error(answer, 403, NULL,
					 "control over HTTP needs authentication, which is not available yet; use SQL");
	else if (strcmp(request->method, "GET") != 0 && strcmp(request->method, "HEAD") != 0 &&
			 strcmp(request->method, "OPTIONS") != 0)	/* what HAProxy sends by
														 * default */
		answer_error(answer, 405, "GET, HEAD, OPTIONS", "this path can only be read");
	else
		route->handler(request, answer, qdb_collect_status());
}
