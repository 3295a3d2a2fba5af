/*-------------------------------------------------------------------------
 *
 * cluster.c
 *		/cluster/status, /cluster/nodes, /cluster/journal and /cluster/rehearse.
 *
 *-------------------------------------------------------------------------
 */
#include "http/http.h"

#include "access/xlog.h"
#include "postmaster/postmaster.h"

static void
put_progress(StringInfo body, const QdbProgress *progress)
{
	qdb_put_text(body, "resync", progress->step);
	qdb_put_known(body, "resync_done", progress->step[0] != '\0' ? (int64) progress->done : -1);
	qdb_put_known(body, "resync_total", progress->total != 0 ? (int64) progress->total : -1);
}

static void
put_nodes(StringInfo body, const QdbStatus *status)
{
	qdb_put_key(body, "nodes");
	appendStringInfoChar(body, '[');
	for (int i = 0; i < status->nnodes; i++)
	{
		const QdbNodeStatus *node = &status->nodes[i];
		const QdbMember *member = node->member;

		appendStringInfoString(body, i == 0 ? "{" : ", {");
		qdb_put_text(body, "name", member->name);
		qdb_put_text(body, "role", node->role);
		qdb_put_text(body, "state", node->state);
		qdb_put_text(body, "host", member->host);
		qdb_put_int(body, "sql_port", member->sql_port);
		qdb_put_int(body, "raft_port", member->raft_port);
		qdb_put_int(body, "replication_port", member->replication_port);
		qdb_put_int(body, "http_port", member->http_port);
		qdb_put_flag(body, "connected", node->connected);
		qdb_put_known(body, "seen_ms_ago", node->self ? 0 : node->seen_ago_us < 0 ? -1 : node->seen_ago_us / 1000);
		qdb_put_lsn(body, "wal_end", node->wal_end);
		qdb_put_known(body, "lag_bytes", node->lag_bytes);
		qdb_put_known(body, "lag_ms", node->lag_us < 0 ? -1 : node->lag_us / 1000);
		qdb_put_int(body, "priority", member->priority);
		qdb_put_flag(body, "eligible", node->eligible);
		qdb_put_text(body, "why_not", node->why_not);
		put_progress(body, &node->progress);
		qdb_put_known(body, "wal_kept_bytes", node->kept_bytes);
		qdb_put_text(body, "upstream", node->upstream != NULL ? node->upstream->name : NULL);
		appendStringInfoChar(body, '}');
	}
	appendStringInfoChar(body, ']');
}

void
qdb_get_nodes(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	answer->status = 200;
	appendStringInfoChar(&answer->body, '{');
	put_nodes(&answer->body, status);
	appendStringInfoString(&answer->body, "}\n");
}

static void
put_failover(StringInfo body, const QdbStatus *status)
{
	const QdbState *state = status->state;

	qdb_put_flag(body, "healthy", qdb_cluster_is_healthy(status));
	qdb_put_flag(body, "majority", status->majority);
	qdb_put_flag(body, "fenced", status->fenced);
	qdb_put_known(body, "last_outage_ms", state->last_outage_us > 0 ? state->last_outage_us / 1000 : -1);
	qdb_put_time(body, "primary_since", state->last_open_us);
	qdb_put_time(body, "no_primary_since", state->outage_since_us);
}

void
qdb_get_status(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	StringInfo	body = &answer->body;
	const QdbMember *leader = qdb_member_by_id(status->state, status->raft_leader);
	char		identifier[32];

	snprintf(identifier, sizeof(identifier), UINT64_FORMAT, GetSystemIdentifier());
	answer->status = 200;
	appendStringInfoChar(body, '{');
	qdb_put_text(body, "cluster", status->state->cluster_name);
	qdb_put_text(body, "cluster_id", status->state->cluster_id);
	qdb_put_text(body, "system_identifier", identifier);
	qdb_put_text(body, "node", qdb_own_name(status));
	qdb_put_text(body, "state", qdb_own_state(status));
	qdb_put_time(body, "time", qdb_unix_us());
	qdb_put_int(body, "epoch", status->state->epoch);
	qdb_put_int(body, "timeline", status->timeline);
	qdb_put_text(body, "primary", status->primary ? status->primary->name : NULL);
	qdb_put_text(body, "raft_state", status->member ? qdb_raft_state_text(status->raft_state) : NULL);
	qdb_put_int(body, "raft_term", status->raft_term);
	qdb_put_text(body, "raft_leader", leader ? leader->name : NULL);
	qdb_put_int(body, "raft_last_index", status->raft_last_index);
	qdb_put_lsn(body, "quorum_lsn", status->quorum_lsn);
	qdb_put_int(body, "lease_ms", status->lease_left_us / 1000);
	qdb_put_int(body, "can_lose", status->can_lose);
	qdb_put_flag(body, "paused", status->member && !status->state->settings.auto_failover);
	put_failover(body, status);
	qdb_put_int(body, "commits_waiting", qdb_count_waiting_commits());
	qdb_put_int(body, "sql_port", PostPortNumber);
	qdb_put_int(body, "raft_port", qdb_raft_port);
	qdb_put_int(body, "replication_port", qdb_replication_port);
	qdb_put_int(body, "http_port", qdb_http_port);
	put_progress(body, &status->progress);
	put_nodes(body, status);
	appendStringInfoString(body, "}\n");
}

void
qdb_get_journal(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	StringInfo	body = &answer->body;
	const QdbState *state = status->state;
	uint64		kept = Min(Min(state->njournal, QDB_MAX_JOURNAL), state->journal_next);
	bool		first = true;

	answer->status = 200;
	appendStringInfoChar(body, '{');
	qdb_put_key(body, "journal");
	appendStringInfoChar(body, '[');
	for (uint64 number = Max(state->journal_next - kept, 1); number < state->journal_next; number++)
	{
		const QdbJournalEntry *entry = &state->journal[(number - 1) % QDB_MAX_JOURNAL];

		appendStringInfoString(body, first ? "{" : ", {");
		first = false;
		qdb_put_int(body, "number", entry->number);
		qdb_put_time(body, "time", entry->time_us);
		qdb_put_int(body, "epoch", entry->epoch);
		qdb_put_text(body, "event", entry->event);
		qdb_put_text(body, "node", entry->node);
		qdb_put_text(body, "reason", entry->reason);
		appendStringInfoChar(body, '}');
	}
	appendStringInfoString(body, "]}\n");
}

void
qdb_get_rehearse(const QdbHttpRequest *request, QdbHttpAnswer *answer, const QdbStatus *status)
{
	StringInfo	body = &answer->body;
	QdbRehearsal rehearsal;
	const QdbMember *chosen;

	if (request->method == QDB_METHOD_OPTIONS)
	{
		answer->status = 204;
		return;
	}
	if (qdb_refuse_repeated(request, answer))
		return;
	if (request->node == NULL || !qdb_rehearse_now(status, request->node, &rehearsal))
	{
		qdb_answer_error(answer, 400, "invalid argument \"node\"",
						 request->node == NULL ? "It is missing." : "There is no such node.",
						 "Name a member, as in /cluster/rehearse?node=n2; /cluster/nodes lists them.");
		return;
	}
	chosen = qdb_member_by_id(status->state, rehearsal.chosen);
	answer->status = 200;
	appendStringInfoChar(body, '{');
	qdb_put_text(body, "name", request->node);
	qdb_put_text(body, "chosen", chosen != NULL ? chosen->name : NULL);
	qdb_put_text(body, "why_not", rehearsal.why_not);
	qdb_put_known(body, "bytes_behind", rehearsal.bytes_behind);
	qdb_put_known(body, "replay_lag_ms", rehearsal.replay_lag_us < 0 ? -1 : rehearsal.replay_lag_us / 1000);
	qdb_put_known(body, "failover_wait_ms", rehearsal.failover_us < 0 ? -1 : rehearsal.failover_us / 1000);
	qdb_put_known(body, "switchover_wait_ms", rehearsal.switchover_us < 0 ? -1 : rehearsal.switchover_us / 1000);
	qdb_put_known(body, "last_outage_ms", status->state->last_outage_us > 0 ? status->state->last_outage_us / 1000 : -1);
	qdb_put_known(body, "loss_bytes", rehearsal.loss_bytes);
	appendStringInfoString(body, "}\n");
}
