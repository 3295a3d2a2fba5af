/*-------------------------------------------------------------------------
 *
 * views.c
 *		quantadb_status() and the functions behind the views.
 *
 * They show what this node knows, without asking others.  On a server that is
 * no member the views are empty, and the status says "inert".
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "api/sql.h"

#define MAX_COLUMNS		24

PG_FUNCTION_INFO_V1(qdb_sql_status);
PG_FUNCTION_INFO_V1(qdb_sql_nodes);
PG_FUNCTION_INFO_V1(qdb_sql_replication);
PG_FUNCTION_INFO_V1(qdb_sql_journal);
PG_FUNCTION_INFO_V1(qdb_sql_settings);

/* A row under construction: columns are added in order. */
typedef struct Row
{
	int			n;
	Datum		values[MAX_COLUMNS];
	bool		nulls[MAX_COLUMNS];
} Row;

static void
add_datum(Row *row, Datum value, bool null)
{
	Assert(row->n < MAX_COLUMNS);
	row->values[row->n] = value;
	row->nulls[row->n] = null;
	row->n++;
}

static void
add_text(Row *row, const char *value)
{
	bool		null = (value == NULL || value[0] == '\0');

	add_datum(row, null ? (Datum) 0 : qdb_text_datum(value), null);
}

static void
add_int8(Row *row, int64 value)
{
	add_datum(row, Int64GetDatum(value), false);
}

static void
add_int4(Row *row, int32 value)
{
	add_datum(row, Int32GetDatum(value), false);
}

static void
add_bool(Row *row, bool value)
{
	add_datum(row, BoolGetDatum(value), false);
}

static void
add_lsn(Row *row, XLogRecPtr value)
{
	add_datum(row, LSNGetDatum(value), value == InvalidXLogRecPtr);
}

/* Negative: unknown. */
static void
add_known(Row *row, int64 value)
{
	add_datum(row, Int64GetDatum(value), value < 0);
}

static int64
ms_of_us(int64 us)
{
	return us < 0 ? -1 : us / 1000;
}

static TimestampTz
timestamp_of_unix(int64 unix_us)
{
	return unix_us - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
}

static void
put_row(FunctionCallInfo fcinfo, Row *row)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row->values, row->nulls);
}

/* Starts a set; false: no member, the set stays empty. */
static bool
begin_set(FunctionCallInfo fcinfo)
{
	qdb_require_loaded();
	InitMaterializedSRF(fcinfo, 0);
	return qdb_shared->member;
}

static const char *
member_name(const QdbState *state, uint64 id)
{
	const QdbMember *member = qdb_member_by_id(state, id);

	return member ? member->name : NULL;
}

static void
add_raft(Row *row, const QdbStatus *status)
{
	add_text(row, status->member ? qdb_raft_state_text(status->raft_state) : NULL);
	add_datum(row, Int64GetDatum(status->raft_term), !status->member);
	add_text(row, member_name(status->state, status->raft_leader));
	add_datum(row, Int64GetDatum(status->raft_last_index), !status->member);
}

Datum
qdb_sql_status(PG_FUNCTION_ARGS)
{
	Row			row = {0};
	TupleDesc	desc;
	QdbStatus  *status;
	bool		outside;

	qdb_require_loaded();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	desc = BlessTupleDesc(desc);
	status = qdb_collect_status();
	outside = !status->member;

	add_text(&row, status->state->cluster_name);
	add_text(&row, outside ? qdb_node_name : qdb_shared->identity.name);
	add_text(&row, qdb_node_state_text(outside ? QDB_NODE_INERT : status->node_state));
	add_datum(&row, Int64GetDatum(status->state->epoch), outside);
	add_int4(&row, status->timeline);
	add_text(&row, status->primary ? status->primary->name : NULL);
	add_raft(&row, status);
	add_lsn(&row, outside ? InvalidXLogRecPtr : status->quorum_lsn);
	add_datum(&row, Int64GetDatum(status->lease_left_us / 1000), outside);
	add_datum(&row, Int32GetDatum(status->can_lose), outside);
	add_datum(&row, BoolGetDatum(!status->state->settings.auto_failover), outside);
	add_text(&row, outside ? NULL : status->why_not);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, row.values, row.nulls)));
}

Datum
qdb_sql_nodes(PG_FUNCTION_ARGS)
{
	QdbStatus  *status;
	TimestampTz now = GetCurrentTimestamp();

	if (!begin_set(fcinfo))
		return (Datum) 0;
	status = qdb_collect_status();
	for (int i = 0; i < status->nnodes; i++)
	{
		const QdbNodeStatus *node = &status->nodes[i];
		const QdbMember *member = node->member;
		Row			row = {0};

		add_text(&row, member->name);
		add_text(&row, node->role);
		add_text(&row, node->state);
		add_text(&row, member->host);
		add_int4(&row, member->sql_port);
		add_int4(&row, member->raft_port);
		add_int4(&row, member->replication_port);
		add_int4(&row, member->http_port);
		add_bool(&row, node->connected);
		if (node->self)
			add_datum(&row, TimestampTzGetDatum(now), false);
		else
			add_datum(&row, TimestampTzGetDatum(now - node->seen_ago_us), node->seen_ago_us < 0);
		add_lsn(&row, node->wal_end);
		add_known(&row, node->lag_bytes);
		add_known(&row, ms_of_us(node->lag_us));
		add_int4(&row, member->priority);
		add_bool(&row, node->eligible);
		add_text(&row, node->why_not);
		add_text(&row, node->progress.step);
		add_known(&row, node->progress.step[0] != '\0' ? (int64) node->progress.done : -1);
		add_known(&row, node->progress.total != 0 ? (int64) node->progress.total : -1);
		add_known(&row, node->kept_bytes);
		add_text(&row, node->upstream != NULL ? node->upstream->name : NULL);
		put_row(fcinfo, &row);
	}
	return (Datum) 0;
}

/* The streams that leave this node. */
Datum
qdb_sql_replication(PG_FUNCTION_ARGS)
{
	QdbStreamStatus streams[QDB_MAX_MEMBERS];
	QdbStatus  *status;

	if (!begin_set(fcinfo))
		return (Datum) 0;
	status = qdb_collect_status();
	SpinLockAcquire(&qdb_shared->mutex);
	memcpy(streams, qdb_shared->streams, sizeof(streams));
	SpinLockRelease(&qdb_shared->mutex);
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		const QdbStreamStatus *stream = &streams[i];
		Row			row = {0};

		if (stream->member == 0)
			continue;
		add_text(&row, member_name(status->state, stream->member));
		add_text(&row, stream->streaming ? "streaming" : "connecting");
		add_lsn(&row, stream->sent);
		add_lsn(&row, stream->write);
		add_lsn(&row, stream->flush);
		add_lsn(&row, stream->apply);
		add_known(&row, stream->apply == InvalidXLogRecPtr ? -1 :
				  (int64) (status->wal_end - Min(stream->apply, status->wal_end)));
		add_known(&row, ms_of_us(stream->apply_lag_us));
		add_int8(&row, stream->bytes_raw);
		add_int8(&row, stream->bytes_wire);
		add_int8(&row, stream->reconnects);
		put_row(fcinfo, &row);
	}
	return (Datum) 0;
}

Datum
qdb_sql_journal(PG_FUNCTION_ARGS)
{
	QdbState   *state;
	uint64		first;

	if (!begin_set(fcinfo))
		return (Datum) 0;
	state = qdb_copy_state();
	first = state->journal_next - Min(Min(state->njournal, QDB_MAX_JOURNAL), state->journal_next);
	for (uint64 number = Max(first, 1); number < state->journal_next; number++)
	{
		const QdbJournalEntry *entry = &state->journal[(number - 1) % QDB_MAX_JOURNAL];
		Row			row = {0};

		add_int8(&row, entry->number);
		add_datum(&row, TimestampTzGetDatum(timestamp_of_unix(entry->time_us)), false);
		add_int8(&row, entry->epoch);
		add_text(&row, entry->event);
		add_text(&row, entry->node);
		add_text(&row, entry->reason);
		put_row(fcinfo, &row);
	}
	return (Datum) 0;
}

static void
put_setting(FunctionCallInfo fcinfo, const char *name, const char *value, const char *description)
{
	Row			row = {0};

	add_text(&row, name);
	add_text(&row, value);
	add_text(&row, description);
	put_row(fcinfo, &row);
}

/* "https://host:port/... http://other/..." */
static char *
hidden_urls(const char *urls)
{
	StringInfoData text;

	initStringInfo(&text);
	while (*urls != '\0')
	{
		size_t		scheme = strcspn(urls, ":") + strlen("://");
		size_t		host = scheme + strcspn(urls + scheme, "/?# ");
		const char *at = memchr(urls + scheme, '@', host - scheme);
		size_t		len = strcspn(urls, " ");

		if (text.len > 0)
			appendStringInfoChar(&text, ' ');
		appendBinaryStringInfo(&text, urls, (int) scheme);
		if (at != NULL)
			appendBinaryStringInfo(&text, at + 1, (int) (urls + host - at - 1));
		else
			appendBinaryStringInfo(&text, urls + scheme, (int) (host - scheme));
		appendStringInfoString(&text, host < len ? "/..." : "");
		urls += len;
		urls += *urls == ' ';
	}
	return text.data;
}

Datum
qdb_sql_settings(PG_FUNCTION_ARGS)
{
	QdbClusterSettings settings;
	QdbState   *state;

	if (!begin_set(fcinfo))
		return (Datum) 0;
	state = qdb_copy_state();
	settings = state->settings;
	put_setting(fcinfo, "lease_duration", psprintf("%ums", settings.lease_ms),
				"How long a majority promises not to follow a new primary; strict reads need it.");
	put_setting(fcinfo, "failover_timeout", psprintf("%ums", settings.failover_ms),
				"Silence of the primary after which the others may replace it.");
	put_setting(fcinfo, "open_timeout", psprintf("%ums", settings.open_ms),
				"Time for a new primary to open before another is chosen.");
	put_setting(fcinfo, "min_failover_interval", psprintf("%ums", settings.min_failover_ms),
				"Shortest time between two failovers on suspicion.");
	put_setting(fcinfo, "webhooks", hidden_urls(settings.webhooks),
				"URLs that are told what happens; shown without their paths, which may be secret.");
	put_setting(fcinfo, "webhook_secret", settings.webhook_secret[0] != '\0' ? "(set)" : NULL,
				"Key of the signature in each webhook call.");
	put_setting(fcinfo, "durability", settings.async ? "async" : "quorum",
				"What an acknowledged commit is on: a quorum, or the primary alone.");
	put_setting(fcinfo, "max_lag_on_failover", psprintf(UINT64_FORMAT "B", settings.max_lag_bytes),
				"Under async: WAL that an automatic failover may lose at most.");
	put_setting(fcinfo, "auto_failover", settings.auto_failover ? "on" : "off",
				"Whether the cluster replaces a lost primary by itself.");
	return (Datum) 0;
}
