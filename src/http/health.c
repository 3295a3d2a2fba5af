/*-------------------------------------------------------------------------
 *
 * health.c
 *		Paths for load balancers and service managers: 200 or 503, and why.
 *
 * A load balancer looks at the status only; the JSON body is for the person
 * who asks why.
 *
 *-------------------------------------------------------------------------
 */
#include "http/http.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "utils/guc.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

/* The coordinator turns many times a second; one that stands still is stuck. */
#define COORDINATOR_STUCK_US	(5 * INT64CONST(1000000))

const char *
qdb_own_name(const QdbStatus *status)
{
	return status->member ? qdb_shared->identity.name : qdb_node_name;
}

const char *
qdb_own_state(const QdbStatus *status)
{
	return qdb_node_state_text(status->member ? status->node_state : QDB_NODE_INERT);
}

/* The body of every health answer; the caller ends the object. */
static void
answer_health(QdbHttpAnswer *answer, const QdbStatus *status, bool good, const char *reason)
{
	StringInfo	body = &answer->body;

	answer->status = good ? 200 : 503;
	appendStringInfoChar(body, '{');
	qdb_put_flag(body, "ok", good);
	qdb_put_text(body, "node", qdb_own_name(status));
	qdb_put_text(body, "state", qdb_own_state(status));
	qdb_put_text(body, "primary", status->primary ? status->primary->name : NULL);
	qdb_put_int(body, "epoch", status->state->epoch);
	qdb_put_int(body, "timeline", status->timeline);
	if (!good)
		qdb_put_text(body, "reason", reason);
}

static void
end_object(QdbHttpAnswer *answer)
{
	appendStringInfoString(&answer->body, "}\n");
}

/* Seat, live lease, open. */
bool
qdb_is_open_primary(const QdbStatus *status)
{
	return status->member && !status->in_recovery && status->may_write && status->lease_alive;
}

void
qdb_get_primary(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	answer_health(answer, status, qdb_is_open_primary(status),
				  !status->member ? "this server is not a member of a cluster" :
				  status->in_recovery ? "this node is not the primary" :
				  status->open_epoch == 0 ? "the new primary is not open yet" :
				  "this node holds no live lease");
	end_object(answer);
}

/* "/" has the status of /primary; a browser gets the page. */
void
qdb_get_root(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	qdb_get_primary(request, answer, status);
	if (request->wants_html)
		qdb_put_dashboard(answer);
}

/* Bytes that this node's replay is behind the primary's WAL; -1 unknown, or none of a replica. */
static int64
replay_lag(const QdbStatus *status, XLogRecPtr replayed)
{
	if (!status->in_recovery || replayed == InvalidXLogRecPtr)
		return -1;
	for (int i = 0; i < status->nnodes; i++)
	{
		const QdbNodeStatus *node = &status->nodes[i];

		if (node->primary && node->wal_end != InvalidXLogRecPtr)
			return node->wal_end > replayed ? (int64) (node->wal_end - replayed) : 0;
	}
	return -1;
}

/* "10MB" or a plain number: bytes; "5s": time.  False: neither. */
static bool
parse_lag(const char *text, int64 *bytes, int64 *ms)
{
	double		value;

	*bytes = *ms = -1;
	if (parse_real(text, &value, GUC_UNIT_BYTE, NULL))
		*bytes = value >= 0 && value < 1e18 ? (int64) value : -1;
	else if (parse_real(text, &value, GUC_UNIT_MS, NULL))
		*ms = value >= 0 && value < 1e15 ? (int64) value : -1;
	return *bytes >= 0 || *ms >= 0;
}

void
qdb_get_replica(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	XLogRecPtr	min_lsn = InvalidXLogRecPtr;
	XLogRecPtr	replayed = GetXLogReplayRecPtr(NULL);
	int64		lag = replay_lag(status, replayed);
	int64		lag_bytes;
	int64		lag_us;
	bool		exceeded = qdb_replica_lag_exceeded(&lag_bytes, &lag_us);
	int64		lag_ms = lag == 0 ? 0 : !status->in_recovery || lag_us < 0 ? -1 : lag_us / 1000;
	int64		limit = -1;
	int64		limit_ms = -1;
	const char *reason = NULL;
	bool		bad = false;

	if (qdb_refuse_repeated(request, answer))
		return;
	if (request->min_lsn != NULL)
		min_lsn = pg_lsn_in_internal(request->min_lsn, &bad);
	if (bad)
	{
		qdb_answer_error(answer, 400, "invalid argument \"min_lsn\"", "It is not a WAL position.",
						 "Give what quantadb_last_commit_lsn() returned, for example 0/3000148.");
		return;
	}
	if (request->lag != NULL && !parse_lag(request->lag, &limit, &limit_ms))
	{
		qdb_answer_error(answer, 400, "invalid argument \"lag\"", "It is neither a size nor a time.",
						 "Give bytes (10485760, 10MB, 1GB) or a time (500ms, 5s, 1min).");
		return;
	}
	if (!status->member)
		reason = "this server is not a member of a cluster";
	else if (!status->in_recovery || status->node_state != QDB_NODE_REPLICA)
		reason = "this node is not a streaming replica";
	else if (exceeded)
		reason = "this node is further behind than quantadb.max_replica_lag";
	else if ((limit >= 0 && (lag < 0 || lag > limit)) ||
			 (limit_ms >= 0 && (lag_ms < 0 || lag_ms > limit_ms)))
		reason = "this node is too far behind the primary";
	else if (min_lsn != InvalidXLogRecPtr && replayed < min_lsn)
		reason = "this node does not show that LSN yet";
	answer_health(answer, status, reason == NULL, reason);
	qdb_put_lsn(&answer->body, "replayed", replayed);
	qdb_put_known(&answer->body, "lag_bytes", lag);
	qdb_put_known(&answer->body, "lag_ms", lag_ms);
	end_object(answer);
}

/* Serves reads: not what is still closed (I8) or resynchronises. */
bool
qdb_serves_reads(const QdbStatus *status)
{
	if (!status->member)
		return !status->in_recovery || HotStandbyActive();
	if (!status->in_recovery)
		return status->open_epoch != 0;
	return HotStandbyActive() && status->node_state != QDB_NODE_STANDBY;
}

void
qdb_get_read_only(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	bool		stale = status->member && !qdb_is_open_primary(status) &&
	(!status->majority || status->primary == NULL || status->node_state != QDB_NODE_REPLICA);

	answer_health(answer, status, qdb_serves_reads(status), "this node does not serve reads now");
	qdb_put_flag(&answer->body, "stale", stale);
	end_object(answer);
}

void
qdb_get_health(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	answer_health(answer, status, true, NULL);
	end_object(answer);
}

/* A primary that this node hears, and a majority. */
bool
qdb_cluster_is_healthy(const QdbStatus *status)
{
	for (int i = 0; i < status->nnodes; i++)
	{
		if (status->nodes[i].primary)
			return status->majority &&
				(status->nodes[i].self ? qdb_is_open_primary(status) : status->nodes[i].connected);
	}
	return false;
}

void
qdb_get_cluster_health(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	answer_health(answer, status, qdb_cluster_is_healthy(status),
				  !status->member ? "this server is not a member of a cluster" :
				  !status->majority ? "no majority of the voters is there" :
				  "no primary is open");
	qdb_put_int(&answer->body, "can_lose", status->can_lose);
	end_object(answer);
}

bool
qdb_coordinator_beats(const QdbStatus *status)
{
	pid_t		coordinator;
	int64		beat;

	SpinLockAcquire(&qdb_shared->mutex);
	coordinator = qdb_shared->coordinator_pid;
	beat = qdb_shared->coordinator_beat_us;
	SpinLockRelease(&qdb_shared->mutex);
	return coordinator != 0 && (!status->member || qdb_now_us() - beat < COORDINATOR_STUCK_US);
}

/* The workers: the one that answers, and the coordinator, which beats. */
void
qdb_get_liveness(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	answer_health(answer, status, qdb_coordinator_beats(status), "the coordinator does not run");
	end_object(answer);
}

void
qdb_get_readiness(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	answer_health(answer, status, qdb_serves_reads(status), "this node does not serve queries now");
	end_object(answer);
}
