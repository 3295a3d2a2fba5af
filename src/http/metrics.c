/*-------------------------------------------------------------------------
 *
 * metrics.c
 *		/metrics in Prometheus text.
 *
 * Base units, names by its conventions, HELP and TYPE once a family.  What is
 * unknown is left out instead of a number that means it.  Every member shows
 * its own view of all nodes, so that one scrape of any of them tells about a
 * node that cannot be scraped.
 *
 *-------------------------------------------------------------------------
 */
#include "http/http.h"

#include <sys/statvfs.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"

static void
put_family(StringInfo out, const char *name, const char *type, const char *help)
{
	appendStringInfo(out, "# HELP quantadb_%s %s\n# TYPE quantadb_%s %s\n", name, help, name, type);
}

/* Backslash, quote and newline are what the format wants escaped. */
static void
put_label(StringInfo out, const char *value)
{
	appendStringInfoChar(out, '"');
	for (value = qdb_valid_utf8(value); *value != '\0'; value++)
	{
		if (*value == '\n')
			appendStringInfoString(out, "\\n");
		else
		{
			if (*value == '\\' || *value == '"')
				appendStringInfoChar(out, '\\');
			appendStringInfoChar(out, *value);
		}
	}
	appendStringInfoChar(out, '"');
}

/* label NULL: none. */
static void
put_sample(StringInfo out, const char *name, const char *label, const char *value, double number)
{
	appendStringInfo(out, "quantadb_%s", name);
	if (label != NULL)
	{
		appendStringInfo(out, "{%s=", label);
		put_label(out, value);
		appendStringInfoChar(out, '}');
	}
	appendStringInfo(out, " %.17g\n", number);
}

static void
put_one(StringInfo out, const char *name, const char *type, const char *help, double number)
{
	put_family(out, name, type, help);
	put_sample(out, name, NULL, NULL, number);
}

/* One sample a state, 1 for the current one. */
static void
put_states(StringInfo out, const char *name, const char *help, const char *const *states, const char *now)
{
	put_family(out, name, "gauge", help);
	for (int i = 0; states[i] != NULL; i++)
		put_sample(out, name, "state", states[i], strcmp(states[i], now) == 0);
}

static void
put_histogram(StringInfo out, const char *name, const char *help, QdbHistogram *histogram)
{
	uint64		sum = 0;

	put_family(out, name, "histogram", help);
	for (int i = 0; i < QDB_NBUCKETS; i++)
	{
		sum += pg_atomic_read_u64(&histogram->counts[i]);
		appendStringInfo(out, "quantadb_%s_bucket{le=\"%g\"} " UINT64_FORMAT "\n", name,
						 qdb_bucket_bounds[i] / 1e6, sum);
	}
	sum += pg_atomic_read_u64(&histogram->counts[QDB_NBUCKETS]);
	appendStringInfo(out, "quantadb_%s_bucket{le=\"+Inf\"} " UINT64_FORMAT "\n", name, sum);
	appendStringInfo(out, "quantadb_%s_sum %.6f\n", name, pg_atomic_read_u64(&histogram->sum_us) / 1e6);
	appendStringInfo(out, "quantadb_%s_count " UINT64_FORMAT "\n", name, sum);
}

static void
put_node(StringInfo out, const QdbStatus *status)
{
	static const char *const states[] = {"inert", "follower", "replica", "primary", "standby", "fenced", NULL};

	put_family(out, "info", "gauge", "Names of this node and its cluster.");
	appendStringInfoString(out, "quantadb_info{cluster=");
	put_label(out, status->state->cluster_name);
	appendStringInfoString(out, ",node=");
	put_label(out, qdb_own_name(status));
	appendStringInfoString(out, "} 1\n");
	put_states(out, "node_state", "State of this node.", states, qdb_own_state(status));
	put_one(out, "healthy", "gauge", "1 when a primary is open and a majority of the voters is there.",
			qdb_cluster_is_healthy(status));
	put_one(out, "majority", "gauge", "1 when this node hears a majority of the voters.", status->majority);
	put_one(out, "can_lose_nodes", "gauge", "How many more voters the cluster survives the loss of.",
			status->can_lose);
	put_one(out, "coordinator_up", "gauge", "1 while the coordinator of this node turns.",
			qdb_coordinator_beats(status));
	put_one(out, "fenced", "gauge", "1 while this node holds the seat and refuses writes.", status->fenced);
	put_one(out, "lease_remaining_seconds", "gauge", "Rest of this node's lease; 0 where it has none.",
			status->lease_left_us / 1e6);
}

static void
put_raft(StringInfo out, const QdbStatus *status)
{
	static const char *const states[] = {"unavailable", "follower", "candidate", "leader", NULL};

	put_states(out, "raft_state", "Raft state of this node.", states,
			   status->member ? qdb_raft_state_text(status->raft_state) : "unavailable");
	put_one(out, "raft_term", "gauge", "Raft term.", status->raft_term);
	put_one(out, "raft_last_index", "gauge", "Index of the last entry in this node's Raft log.",
			status->raft_last_index);
	put_histogram(out, "raft_commit_duration_seconds",
				  "Time from this node's proposal of a command to the answer that it is committed.",
				  &qdb_shared->counters.proposals);
}

static void
put_failover(StringInfo out, const QdbStatus *status)
{
	static const char *const states[] = {"seated", "opening", "choosing", "released", "none", NULL};
	const QdbState *state = status->state;
	const QdbGrant *grant = qdb_current_grant(state);

	put_states(out, "failover_state", "Where the cluster stands between two primaries.", states,
			   state->epoch == 0 ? "none" : grant == NULL ? "choosing" : state->seat_released ? "released" :
			   grant->opened ? "seated" : "opening");
	put_one(out, "epoch", "gauge", "Number of the last seat that was opened or granted.", state->epoch);
	put_one(out, "timeline", "gauge", "Timeline of this node.", status->timeline);
	put_one(out, "paused", "gauge", "1 while automatic failover is off.",
			status->member && !state->settings.auto_failover);
	put_one(out, "journal_entries_total", "counter", "Decisions that were ever put into the journal.",
			state->journal_next - 1);
	if (state->last_open_us != 0)
		put_one(out, "failover_last_transition_timestamp_seconds", "gauge",
				"Unix time when the current primary opened.", state->last_open_us / 1e6);
	if (state->last_outage_us != 0)
		put_one(out, "failover_last_outage_seconds", "gauge",
				"How long nobody could write at the last change of the primary.", state->last_outage_us / 1e6);
	put_one(out, "failover_outage_seconds", "gauge", "How long there has been no primary; 0 while there is one.",
			state->outage_since_us == 0 ? 0 : Max(qdb_unix_us() - state->outage_since_us, 0) / 1e6);
}

static void
put_nodes(StringInfo out, const QdbStatus *status)
{
	put_family(out, "member_up", "gauge", "1 for each member that this node hears.");
	for (int i = 0; i < status->nnodes; i++)
		put_sample(out, "member_up", "node", status->nodes[i].member->name, status->nodes[i].connected);
	put_family(out, "member_primary", "gauge", "1 for the member that holds the seat.");
	for (int i = 0; i < status->nnodes; i++)
		put_sample(out, "member_primary", "node", status->nodes[i].member->name, status->nodes[i].primary);
	put_family(out, "member_eligible", "gauge", "1 for each member that could become primary now.");
	for (int i = 0; i < status->nnodes; i++)
		put_sample(out, "member_eligible", "node", status->nodes[i].member->name, status->nodes[i].eligible);
	put_family(out, "replication_lag_bytes", "gauge", "WAL that a member has not flushed yet.");
	for (int i = 0; i < status->nnodes; i++)
	{
		if (status->nodes[i].lag_bytes >= 0)
			put_sample(out, "replication_lag_bytes", "node", status->nodes[i].member->name,
					   status->nodes[i].lag_bytes);
	}
	put_family(out, "replication_lag_seconds", "gauge",
			   "Age of what a member has not replayed yet, as the primary measures it.");
	for (int i = 0; i < status->nnodes; i++)
	{
		if (status->nodes[i].lag_us >= 0)
			put_sample(out, "replication_lag_seconds", "node", status->nodes[i].member->name,
					   status->nodes[i].lag_us / 1e6);
	}
	put_family(out, "wal_kept_bytes", "gauge", "WAL that this node keeps for a member; for itself: for all.");
	for (int i = 0; i < status->nnodes; i++)
	{
		if (status->nodes[i].kept_bytes >= 0)
			put_sample(out, "wal_kept_bytes", "node", status->nodes[i].member->name,
					   status->nodes[i].kept_bytes);
	}
	put_family(out, "resync_done_bytes", "gauge", "How far a clone or rewind of a member has come.");
	for (int i = 0; i < status->nnodes; i++)
	{
		if (status->nodes[i].progress.step[0] != '\0')
			put_sample(out, "resync_done_bytes", "node", status->nodes[i].member->name,
					   status->nodes[i].progress.done);
	}
	put_family(out, "resync_size_bytes", "gauge", "How much a clone or rewind of a member has to do.");
	for (int i = 0; i < status->nnodes; i++)
	{
		if (status->nodes[i].progress.total != 0)
			put_sample(out, "resync_size_bytes", "node", status->nodes[i].member->name,
					   status->nodes[i].progress.total);
	}
}

static const char *
stream_name(const QdbStatus *status, const QdbStreamStatus *stream)
{
	const QdbMember *member = qdb_member_by_id(status->state, stream->member);

	return member != NULL ? member->name : NULL;
}

static void
put_stream(StringInfo out, const QdbStatus *status, const QdbStreamStatus *streams,
		   const char *name, const char *type, const char *help, size_t offset)
{
	put_family(out, name, type, help);
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		const char *node = streams[i].member != 0 ? stream_name(status, &streams[i]) : NULL;

		if (node == NULL)
			continue;
		if (offset == offsetof(QdbStreamStatus, streaming))
			put_sample(out, name, "node", node, streams[i].streaming);
		else
			put_sample(out, name, "node", node, *(const uint64 *) ((const char *) &streams[i] + offset));
	}
}

static void
put_streams(StringInfo out, const QdbStatus *status)
{
	QdbStreamStatus *streams = palloc(sizeof(qdb_shared->streams));

	SpinLockAcquire(&qdb_shared->mutex);
	memcpy(streams, qdb_shared->streams, sizeof(qdb_shared->streams));
	SpinLockRelease(&qdb_shared->mutex);
	put_stream(out, status, streams, "stream_up", "gauge", "1 for each stream from this node that is up.",
			   offsetof(QdbStreamStatus, streaming));
	put_stream(out, status, streams, "stream_raw_bytes_total", "counter",
			   "WAL sent to a node, before compression.", offsetof(QdbStreamStatus, bytes_raw));
	put_stream(out, status, streams, "stream_wire_bytes_total", "counter",
			   "Bytes sent to a node.", offsetof(QdbStreamStatus, bytes_wire));
	put_stream(out, status, streams, "stream_reconnects_total", "counter",
			   "Times that a node's stream was made again.", offsetof(QdbStreamStatus, reconnects));
}

static void
put_server(StringInfo out, const QdbStatus *status)
{
	QdbServerStats stats;
	XLogRecPtr	end = status->wal_end;

	qdb_read_server_stats(&stats);
	put_family(out, "transactions_total", "counter", "Transactions of all databases, by how they ended.");
	put_sample(out, "transactions_total", "result", "commit", stats.commits);
	put_sample(out, "transactions_total", "result", "rollback", stats.rollbacks);
	put_one(out, "queries_total", "counter", "Queries that were started.",
			pg_atomic_read_u64(&qdb_shared->counters.queries));
	put_one(out, "rows_read_total", "counter", "Rows read by scans of all databases.", stats.rows_read);
	put_one(out, "rows_written_total", "counter", "Rows inserted, updated or deleted.", stats.rows_written);
	put_one(out, "deadlocks_total", "counter", "Deadlocks in all databases.", stats.deadlocks);
	put_one(out, "temp_bytes_total", "counter", "Bytes written to temporary files.", stats.temp_bytes);
	put_one(out, "wal_end_bytes", "gauge", "End of this node's durable WAL, as a byte position.", end);
	put_one(out, "quorum_wal_bytes", "gauge", "WAL that a majority has, as a byte position; 0 off the primary.",
			status->quorum_lsn);
	put_one(out, "commits_waiting", "gauge", "Sessions that wait for the quorum.", qdb_count_waiting_commits());
	put_histogram(out, "commit_duration_seconds",
				  "Time from the commit of a writing transaction to its acknowledgement, local flush and quorum included.",
				  &qdb_shared->counters.commits);
}

static void
put_disk(StringInfo out)
{
	static const char *const folders[] = {".", XLOGDIR};
	static const char *const names[] = {"data", "wal"};
	struct statvfs fs[lengthof(folders)];
	bool		known[lengthof(folders)];

	for (int i = 0; i < lengthof(folders); i++)
		known[i] = statvfs(folders[i], &fs[i]) == 0;
	put_family(out, "disk_free_bytes", "gauge", "Free space for this server where its data and its WAL are.");
	for (int i = 0; i < lengthof(folders); i++)
	{
		if (known[i])
			put_sample(out, "disk_free_bytes", "folder", names[i], (double) fs[i].f_bavail * fs[i].f_frsize);
	}
	put_family(out, "disk_size_bytes", "gauge", "Size of these file systems.");
	for (int i = 0; i < lengthof(folders); i++)
	{
		if (known[i])
			put_sample(out, "disk_size_bytes", "folder", names[i], (double) fs[i].f_blocks * fs[i].f_frsize);
	}
}

static void
put_webhooks(StringInfo out, const QdbStatus *status)
{
	const QdbState *state = status->state;
	uint64		waiting = 0;

	for (int i = 0; i < QDB_MAX_WEBHOOKS; i++)
	{
		if (state->webhook_told[i] != 0)
			waiting = Max(waiting, state->journal_next - 1 - state->webhook_told[i]);
	}
	put_one(out, "webhook_backlog_events", "gauge", "Events that the slowest webhook was not told yet.", waiting);
	put_family(out, "webhook_calls_total", "counter", "Webhook calls of this node, by result.");
	put_sample(out, "webhook_calls_total", "result", "ok", pg_atomic_read_u64(&qdb_shared->counters.webhooks_sent));
	put_sample(out, "webhook_calls_total", "result", "failed", pg_atomic_read_u64(&qdb_shared->counters.webhooks_failed));
	put_one(out, "webhook_events_lost_total", "counter", "Events that a webhook was never told.",
			pg_atomic_read_u64(&qdb_shared->counters.webhooks_lost));
}

void
qdb_get_metrics(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	StringInfo	out = &answer->body;

	answer->status = 200;
	answer->content_type = "text/plain; version=0.0.4; charset=utf-8";
	put_node(out, status);
	put_raft(out, status);
	put_failover(out, status);
	put_nodes(out, status);
	put_streams(out, status);
	put_server(out, status);
	put_disk(out);
	put_webhooks(out, status);
}
