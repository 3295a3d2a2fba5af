/*-------------------------------------------------------------------------
 *
 * state_codec.c
 *		Commands and states as bytes: Raft log entries and snapshots.
 *
 * The bytes of a value are unique (walk.h).  Each encoding begins with its
 * format number; another number is refused whole, nothing is guessed.  The end
 * is filled with zeros to a multiple of 8, which libraft wants.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "core/state.h"
#include "core/walk.h"

#define COMMAND_MAGIC	0x43424451	/* "QDBC" */
#define STATE_MAGIC		0x53424451	/* "QDBS" */

static void
walk_role(QdbWalker *w, uint8_t *role)
{
	qdb_walk_u8(w, role);
	w->bad |= *role > QDB_ROLE_VOTER;
}

static void
walk_hash(QdbWalker *w, uint8_t *hash)
{
	qdb_walk_bytes(w, hash, QDB_SECRET_HASH_SIZE);
}

static void
walk_member(QdbWalker *w, QdbMember *m)
{
	qdb_walk_u64(w, &m->id);
	qdb_walk_u64(w, &m->incarnation);
	qdb_walk_text(w, m->name, sizeof(m->name));
	qdb_walk_text(w, m->host, sizeof(m->host));
	qdb_walk_u16(w, &m->sql_port);
	qdb_walk_u16(w, &m->raft_port);
	qdb_walk_u16(w, &m->replication_port);
	qdb_walk_u16(w, &m->http_port);
	walk_role(w, &m->role);
	qdb_walk_bool(w, &m->alone);
	qdb_walk_i32(w, &m->priority);
	walk_hash(w, m->key_hash);
	walk_hash(w, m->previous_key_hash);
}

static void
walk_grant(QdbWalker *w, QdbGrant *g)
{
	qdb_walk_u64(w, &g->epoch);
	qdb_walk_u32(w, &g->timeline);
	qdb_walk_u32(w, &g->parent_timeline);
	qdb_walk_u64(w, &g->fork);
	qdb_walk_u64(w, &g->holder);
	qdb_walk_u64(w, &g->incarnation);
	qdb_walk_u64(w, &g->boot);
	qdb_walk_bool(w, &g->opened);
	qdb_walk_u32(w, &g->lease_ms);
}

static void
walk_report(QdbWalker *w, QdbReport *r)
{
	qdb_walk_u64(w, &r->member);
	qdb_walk_u64(w, &r->incarnation);
	qdb_walk_u64(w, &r->boot);
	qdb_walk_u64(w, &r->last_epoch);
	qdb_walk_u32(w, &r->last_timeline);
	qdb_walk_u64(w, &r->end_lsn);
}

static void
walk_token(QdbWalker *w, QdbToken *t)
{
	qdb_walk_u64(w, &t->id);
	walk_hash(w, t->secret_hash);
	walk_role(w, &t->role);
	qdb_walk_i64(w, &t->expires_us);
}

static void
walk_api_token(QdbWalker *w, QdbApiToken *t)
{
	qdb_walk_u64(w, &t->id);
	walk_hash(w, t->secret_hash);
	qdb_walk_u8(w, &t->role);
	w->bad |= t->role > QDB_API_ADMIN;
	qdb_walk_i64(w, &t->created_us);
	qdb_walk_i64(w, &t->expires_us);
	qdb_walk_text(w, t->creator, sizeof(t->creator));
}

/* Magic and format first. */
static void
walk_format(QdbWalker *w, uint32_t magic, uint32_t format)
{
	uint32_t	m = magic;
	uint32_t	f = format;

	qdb_walk_u32(w, &m);
	qdb_walk_u32(w, &f);
	w->bad |= m != magic || f != format;
}

/* Zeros up to a multiple of 8, and nothing behind them. */
static bool
finish(QdbWalker *w, size_t *len)
{
	while (w->writing && !w->writer.failed && w->writer.used % 8 != 0)
		qdb_put_u8(&w->writer, 0);
	while (!w->writing && !w->reader.failed && w->reader.pos % 8 != 0)
		w->bad |= qdb_get_u8(&w->reader) != 0;
	if (!w->writing)
		return !w->bad && qdb_reader_done(&w->reader);
	if (w->bad || w->writer.failed)
		return false;
	*len = w->writer.used;
	return true;
}

static void
walk_command(QdbWalker *w, QdbCommand *command)
{
	walk_format(w, COMMAND_MAGIC, QDB_COMMAND_FORMAT);
	qdb_walk_u8(w, &command->type);
	w->bad |= command->type < QDB_CMD_INIT || command->type > QDB_CMD_DONATE;
	qdb_walk_i64(w, &command->time_us);
	qdb_walk_u64(w, &command->epoch);
	qdb_walk_u64(w, &command->membership);
	qdb_walk_u64(w, &command->system_identifier);
	qdb_walk_i64(w, &command->since_us);
	qdb_walk_u64(w, &command->number);
	walk_member(w, &command->member);
	walk_grant(w, &command->grant);
	walk_report(w, &command->report);
	walk_token(w, &command->token);
	walk_api_token(w, &command->api_token);
	qdb_walk_bool(w, &command->flag);
	qdb_walk_text(w, command->node, sizeof(command->node));
	qdb_walk_text(w, command->value, sizeof(command->value));
	qdb_walk_text(w, command->text, sizeof(command->text));
}

/* A writing walker does not store, so the cast takes no promise back. */
bool
qdb_command_encode(const QdbCommand *command, uint8_t *buf, size_t *len)
{
	QdbWalker	w = {.writing = true,.writer = {.buf = buf,.size = *len}};

	walk_command(&w, (QdbCommand *) command);
	return finish(&w, len);
}

bool
qdb_command_decode(const uint8_t *buf, size_t len, QdbCommand *command)
{
	QdbWalker	w = {.reader = {.buf = buf,.size = len}};

	memset(command, 0, sizeof(*command));
	walk_command(&w, command);
	return finish(&w, NULL);
}

static void
walk_members(QdbWalker *w, QdbState *s)
{
	uint32_t	n = qdb_walk_count(w, &s->nmembers, QDB_MAX_MEMBERS);

	for (uint32_t i = 0; i < n; i++)
	{
		QdbMember  *m = &s->members[i];

		walk_member(w, m);
		walk_role(w, &s->previous_roles[i]);
		w->bad |= !s->change_open && s->previous_roles[i] != 0;
		w->bad |= m->name[0] == '\0' || m->id == 0 || m->id >= s->next_member_id;
		for (uint32_t j = 0; j < i; j++)
			w->bad |= s->members[j].id == m->id || strcmp(s->members[j].name, m->name) == 0;
	}
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
		qdb_walk_u64(w, &s->lost[i]);
	qdb_walk_bool(w, &s->has_removed);
	w->bad |= s->has_removed && !s->change_open;
	if (s->has_removed)
		walk_member(w, &s->removed);
}

static void
walk_move(QdbWalker *w, QdbState *s)
{
	QdbMove    *m = &s->move;
	QdbDonation *d = &s->donation;

	qdb_walk_u64(w, &m->target);
	qdb_walk_u64(w, &m->epoch);
	qdb_walk_bool(w, &m->force);
	qdb_walk_i64(w, &m->time_us);
	w->bad |= m->epoch > s->epoch;
	w->bad |= m->target == 0 && (m->epoch != 0 || m->force || m->time_us != 0);
	qdb_walk_u64(w, &d->epoch);
	qdb_walk_u64(w, &d->donor);
	qdb_walk_u64(w, &d->taker);
	w->bad |= d->epoch > s->epoch || (d->epoch == 0 && (d->donor != 0 || d->taker != 0));
	w->bad |= d->epoch != 0 && (d->donor == 0 || d->taker == 0 || d->donor == d->taker);
}

static void
walk_epochs(QdbWalker *w, QdbState *s)
{
	uint32_t	n;

	qdb_walk_u64(w, &s->epoch);
	qdb_walk_bool(w, &s->epoch_open);
	qdb_walk_i64(w, &s->epoch_time_us);
	qdb_walk_bool(w, &s->seat_released);
	qdb_walk_i64(w, &s->suspected_us);
	walk_move(w, s);
	qdb_walk_u32(w, &s->greatest_timeline);
	qdb_walk_i64(w, &s->outage_since_us);
	qdb_walk_i64(w, &s->last_outage_us);
	qdb_walk_i64(w, &s->last_open_us);
	n = qdb_walk_count(w, &s->nreports, QDB_MAX_MEMBERS);
	for (uint32_t i = 0; i < n; i++)
	{
		walk_report(w, &s->reports[i]);
		for (uint32_t j = 0; j < i; j++)
			w->bad |= s->reports[j].member == s->reports[i].member;
	}
	n = qdb_walk_count(w, &s->ngrants, QDB_MAX_GRANTS);
	for (uint32_t i = 0; i < n; i++)
	{
		QdbGrant   *g = &s->grants[i];

		walk_grant(w, g);
		/* I1: epochs and timelines only grow. */
		w->bad |= g->epoch > s->epoch || g->timeline > s->greatest_timeline;
		w->bad |= i > 0 && (g->epoch <= g[-1].epoch || g->timeline <= g[-1].timeline);
	}
	w->bad |= s->epoch_open && n > 0 && s->grants[n - 1].epoch == s->epoch;
	w->bad |= !s->epoch_open && s->epoch > 0 && (n == 0 || s->grants[n - 1].epoch != s->epoch);
}

static void
walk_settings(QdbWalker *w, QdbState *s)
{
	qdb_walk_u32(w, &s->settings.lease_ms);
	qdb_walk_u32(w, &s->settings.failover_ms);
	qdb_walk_u32(w, &s->settings.open_ms);
	qdb_walk_u32(w, &s->settings.min_failover_ms);
	qdb_walk_bool(w, &s->settings.auto_failover);
	qdb_walk_bool(w, &s->settings.async);
	qdb_walk_bool(w, &s->settings.async_before);
	qdb_walk_u64(w, &s->settings.max_lag_bytes);
	qdb_walk_text(w, s->settings.webhooks, sizeof(s->settings.webhooks));
	qdb_walk_text(w, s->settings.webhook_secret, sizeof(s->settings.webhook_secret));
	for (int i = 0; i < QDB_MAX_WEBHOOKS; i++)
		qdb_walk_u64(w, &s->webhook_told[i]);
	for (int i = 0; i < QDB_MAX_TOKENS; i++)
		walk_token(w, &s->tokens[i]);
	for (int i = 0; i < QDB_MAX_API_TOKENS; i++)
		walk_api_token(w, &s->api_tokens[i]);
	qdb_walk_u64(w, &s->key_rotation);
}

/* Oldest first; an entry's number says where it belongs. */
static void
walk_journal(QdbWalker *w, QdbState *s)
{
	uint32_t	n;

	qdb_walk_u64(w, &s->journal_next);
	n = qdb_walk_count(w, &s->njournal, QDB_MAX_JOURNAL);
	if (s->journal_next == 0 ||
		n != (s->journal_next - 1 < QDB_MAX_JOURNAL ? s->journal_next - 1 : QDB_MAX_JOURNAL))
	{
		w->bad = true;
		return;
	}
	for (uint64_t number = s->journal_next - n; number < s->journal_next; number++)
	{
		QdbJournalEntry *e = &s->journal[(number - 1) % QDB_MAX_JOURNAL];

		if (!w->writing)
			e->number = number;
		qdb_walk_i64(w, &e->time_us);
		qdb_walk_u64(w, &e->epoch);
		qdb_walk_text(w, e->event, sizeof(e->event));
		qdb_walk_text(w, e->node, sizeof(e->node));
		qdb_walk_text(w, e->reason, sizeof(e->reason));
	}
}

static void
walk_state(QdbWalker *w, QdbState *s)
{
	walk_format(w, STATE_MAGIC, QDB_STATE_FORMAT);
	qdb_walk_text(w, s->cluster_id, sizeof(s->cluster_id));
	qdb_walk_text(w, s->cluster_name, sizeof(s->cluster_name));
	qdb_walk_u64(w, &s->system_identifier);
	qdb_walk_u64(w, &s->next_member_id);
	qdb_walk_u64(w, &s->membership);
	qdb_walk_bool(w, &s->change_open);
	walk_members(w, s);
	walk_epochs(w, s);
	walk_settings(w, s);
	walk_journal(w, s);
	/* Before INIT there is nothing, after it there is a member and an epoch. */
	w->bad |= (s->cluster_id[0] == '\0') != (s->nmembers == 0);
	w->bad |= (s->cluster_id[0] == '\0') != (s->epoch == 0);
}

bool
qdb_state_encode(const QdbState *state, uint8_t *buf, size_t *len)
{
	QdbWalker	w = {.writing = true,.writer = {.buf = buf,.size = *len}};

	walk_state(&w, (QdbState *) state);
	return finish(&w, len);
}

bool
qdb_state_decode(const uint8_t *buf, size_t len, QdbState *state)
{
	QdbWalker	w = {.reader = {.buf = buf,.size = len}};

	memset(state, 0, sizeof(*state));
	walk_state(&w, state);
	return finish(&w, NULL);
}
