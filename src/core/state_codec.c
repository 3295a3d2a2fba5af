/*-------------------------------------------------------------------------
 *
 * state_codec.c
 *		Commands and states as bytes: Raft log entries and snapshots.
 *
 * One function a struct walks over its fields, for writing and for reading
 * alike, so that the two cannot drift apart.  Reading is strict: whatever
 * writing would not have produced is refused, and the bytes of a value are
 * unique.  Each encoding begins with its format number; another number is
 * refused whole, nothing is guessed.  The end is filled with zeros to a
 * multiple of 8, which libraft wants.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "core/frame.h"
#include "core/state.h"

#define COMMAND_MAGIC	0x43424451	/* "QDBC" */
#define STATE_MAGIC		0x53424451	/* "QDBS" */

/*
 * Either a writer or a reader; bad is set by what must not be.  A writer never
 * stores into what it walks over: that may be in memory that others read.
 */
typedef struct Codec
{
	bool		writing;
	QdbWriter	w;
	QdbReader	r;
	bool		bad;
} Codec;

static void
walk_u8(Codec *c, uint8_t *v)
{
	if (c->writing)
		qdb_put_u8(&c->w, *v);
	else
		*v = qdb_get_u8(&c->r);
}

static void
walk_u16(Codec *c, uint16_t *v)
{
	if (c->writing)
		qdb_put_u16(&c->w, *v);
	else
		*v = qdb_get_u16(&c->r);
}

static void
walk_u32(Codec *c, uint32_t *v)
{
	if (c->writing)
		qdb_put_u32(&c->w, *v);
	else
		*v = qdb_get_u32(&c->r);
}

static void
walk_u64(Codec *c, uint64_t *v)
{
	if (c->writing)
		qdb_put_u64(&c->w, *v);
	else
		*v = qdb_get_u64(&c->r);
}

static void
walk_i32(Codec *c, int32_t *v)
{
	uint32_t	u = (uint32_t) *v;

	walk_u32(c, &u);
	if (!c->writing)
		*v = (int32_t) u;
}

static void
walk_i64(Codec *c, int64_t *v)
{
	uint64_t	u = (uint64_t) *v;

	walk_u64(c, &u);
	if (!c->writing)
		*v = (int64_t) u;
}

static void
walk_bool(Codec *c, bool *v)
{
	uint8_t		u = *v;

	walk_u8(c, &u);
	c->bad |= u > 1;
	if (!c->writing)
		*v = u == 1;
}

/* A number that must not be greater than max; then it may be used as a count. */
static uint32_t
walk_count(Codec *c, uint32_t *v, uint32_t max)
{
	walk_u32(c, v);
	if (*v > max)
	{
		c->bad = true;
		if (!c->writing)
			*v = 0;
		return 0;
	}
	return *v;
}

static void
walk_role(Codec *c, uint8_t *role)
{
	walk_u8(c, role);
	c->bad |= *role > QDB_ROLE_VOTER;
}

static void
walk_text(Codec *c, char *text, size_t size)
{
	if (!c->writing)
		qdb_get_string(&c->r, text, size);
	else if (memchr(text, '\0', size) == NULL)
		c->bad = true;
	else
		qdb_put_string(&c->w, text);
}

static void
walk_hash(Codec *c, uint8_t *hash)
{
	if (c->writing)
		qdb_put_bytes(&c->w, hash, QDB_SECRET_HASH_SIZE);
	else
	{
		const uint8_t *p = qdb_get_bytes(&c->r, QDB_SECRET_HASH_SIZE);

		if (p != NULL)
			memcpy(hash, p, QDB_SECRET_HASH_SIZE);
	}
}

static void
walk_member(Codec *c, QdbMember *m)
{
	walk_u64(c, &m->id);
	walk_u64(c, &m->incarnation);
	walk_text(c, m->name, sizeof(m->name));
	walk_text(c, m->host, sizeof(m->host));
	walk_u16(c, &m->sql_port);
	walk_u16(c, &m->raft_port);
	walk_u16(c, &m->replication_port);
	walk_u16(c, &m->http_port);
	walk_role(c, &m->role);
	walk_bool(c, &m->alone);
	walk_i32(c, &m->priority);
	walk_hash(c, m->key_hash);
	walk_hash(c, m->previous_key_hash);
}

static void
walk_grant(Codec *c, QdbGrant *g)
{
	walk_u64(c, &g->epoch);
	walk_u32(c, &g->timeline);
	walk_u32(c, &g->parent_timeline);
	walk_u64(c, &g->fork);
	walk_u64(c, &g->holder);
	walk_u64(c, &g->incarnation);
	walk_u64(c, &g->boot);
	walk_bool(c, &g->opened);
	walk_u32(c, &g->lease_ms);
}

static void
walk_report(Codec *c, QdbReport *r)
{
	walk_u64(c, &r->member);
	walk_u64(c, &r->incarnation);
	walk_u64(c, &r->boot);
	walk_u64(c, &r->last_epoch);
	walk_u32(c, &r->last_timeline);
	walk_u64(c, &r->end_lsn);
}

static void
walk_token(Codec *c, QdbToken *t)
{
	walk_u64(c, &t->id);
	walk_hash(c, t->secret_hash);
	walk_role(c, &t->role);
	walk_i64(c, &t->expires_us);
}

static void
walk_api_token(Codec *c, QdbApiToken *t)
{
	walk_u64(c, &t->id);
	walk_hash(c, t->secret_hash);
	walk_u8(c, &t->role);
	c->bad |= t->role > QDB_API_ADMIN;
	walk_i64(c, &t->created_us);
	walk_i64(c, &t->expires_us);
	walk_text(c, t->creator, sizeof(t->creator));
}

/* Magic and format first. */
static void
walk_format(Codec *c, uint32_t magic, uint32_t format)
{
	uint32_t	m = magic;
	uint32_t	f = format;

	walk_u32(c, &m);
	walk_u32(c, &f);
	c->bad |= m != magic || f != format;
}

/* Zeros up to a multiple of 8, and nothing behind them. */
static bool
finish(Codec *c, size_t *len)
{
	while (c->writing && !c->w.failed && c->w.used % 8 != 0)
		qdb_put_u8(&c->w, 0);
	while (!c->writing && !c->r.failed && c->r.pos % 8 != 0)
		c->bad |= qdb_get_u8(&c->r) != 0;
	if (!c->writing)
		return !c->bad && qdb_reader_done(&c->r);
	if (c->bad || c->w.failed)
		return false;
	*len = c->w.used;
	return true;
}

static void
walk_command(Codec *c, QdbCommand *command)
{
	walk_format(c, COMMAND_MAGIC, QDB_COMMAND_FORMAT);
	walk_u8(c, &command->type);
	c->bad |= command->type < QDB_CMD_INIT || command->type > QDB_CMD_DONATE;
	walk_i64(c, &command->time_us);
	walk_u64(c, &command->epoch);
	walk_u64(c, &command->membership);
	walk_u64(c, &command->system_identifier);
	walk_i64(c, &command->since_us);
	walk_u64(c, &command->number);
	walk_member(c, &command->member);
	walk_grant(c, &command->grant);
	walk_report(c, &command->report);
	walk_token(c, &command->token);
	walk_api_token(c, &command->api_token);
	walk_bool(c, &command->flag);
	walk_text(c, command->node, sizeof(command->node));
	walk_text(c, command->value, sizeof(command->value));
	walk_text(c, command->text, sizeof(command->text));
}

/* A writing codec does not store, so the cast takes no promise back. */
bool
qdb_command_encode(const QdbCommand *command, uint8_t *buf, size_t *len)
{
	Codec		c = {.writing = true,.w = {buf, *len, 0, false}};

	walk_command(&c, (QdbCommand *) command);
	return finish(&c, len);
}

bool
qdb_command_decode(const uint8_t *buf, size_t len, QdbCommand *command)
{
	Codec		c = {.r = {buf, len, 0, false}};

	memset(command, 0, sizeof(*command));
	walk_command(&c, command);
	return finish(&c, NULL);
}

static void
walk_members(Codec *c, QdbState *s)
{
	uint32_t	n = walk_count(c, &s->nmembers, QDB_MAX_MEMBERS);

	for (uint32_t i = 0; i < n; i++)
	{
		QdbMember  *m = &s->members[i];

		walk_member(c, m);
		walk_role(c, &s->previous_roles[i]);
		c->bad |= !s->change_open && s->previous_roles[i] != 0;
		c->bad |= m->name[0] == '\0' || m->id == 0 || m->id >= s->next_member_id;
		for (uint32_t j = 0; j < i; j++)
			c->bad |= s->members[j].id == m->id || strcmp(s->members[j].name, m->name) == 0;
	}
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
		walk_u64(c, &s->lost[i]);
	walk_bool(c, &s->has_removed);
	c->bad |= s->has_removed && !s->change_open;
	if (s->has_removed)
		walk_member(c, &s->removed);
}

static void
walk_move(Codec *c, QdbState *s)
{
	QdbMove    *m = &s->move;
	QdbDonation *d = &s->donation;

	walk_u64(c, &m->target);
	walk_u64(c, &m->epoch);
	walk_bool(c, &m->force);
	walk_i64(c, &m->time_us);
	c->bad |= m->epoch > s->epoch;
	c->bad |= m->target == 0 && (m->epoch != 0 || m->force || m->time_us != 0);
	walk_u64(c, &d->epoch);
	walk_u64(c, &d->donor);
	walk_u64(c, &d->taker);
	c->bad |= d->epoch > s->epoch || (d->epoch == 0 && (d->donor != 0 || d->taker != 0));
	c->bad |= d->epoch != 0 && (d->donor == 0 || d->taker == 0 || d->donor == d->taker);
}

static void
walk_epochs(Codec *c, QdbState *s)
{
	uint32_t	n;

	walk_u64(c, &s->epoch);
	walk_bool(c, &s->epoch_open);
	walk_i64(c, &s->epoch_time_us);
	walk_bool(c, &s->seat_released);
	walk_i64(c, &s->suspected_us);
	walk_move(c, s);
	walk_u32(c, &s->greatest_timeline);
	walk_i64(c, &s->outage_since_us);
	walk_i64(c, &s->last_outage_us);
	walk_i64(c, &s->last_open_us);
	n = walk_count(c, &s->nreports, QDB_MAX_MEMBERS);
	for (uint32_t i = 0; i < n; i++)
	{
		walk_report(c, &s->reports[i]);
		for (uint32_t j = 0; j < i; j++)
			c->bad |= s->reports[j].member == s->reports[i].member;
	}
	n = walk_count(c, &s->ngrants, QDB_MAX_GRANTS);
	for (uint32_t i = 0; i < n; i++)
	{
		QdbGrant   *g = &s->grants[i];

		walk_grant(c, g);
		/* I1: epochs and timelines only grow. */
		c->bad |= g->epoch > s->epoch || g->timeline > s->greatest_timeline;
		c->bad |= i > 0 && (g->epoch <= g[-1].epoch || g->timeline <= g[-1].timeline);
	}
	c->bad |= s->epoch_open && n > 0 && s->grants[n - 1].epoch == s->epoch;
	c->bad |= !s->epoch_open && s->epoch > 0 && (n == 0 || s->grants[n - 1].epoch != s->epoch);
}

static void
walk_settings(Codec *c, QdbState *s)
{
	walk_u32(c, &s->settings.lease_ms);
	walk_u32(c, &s->settings.failover_ms);
	walk_u32(c, &s->settings.open_ms);
	walk_u32(c, &s->settings.min_failover_ms);
	walk_bool(c, &s->settings.auto_failover);
	walk_bool(c, &s->settings.async);
	walk_bool(c, &s->settings.async_before);
	walk_u64(c, &s->settings.max_lag_bytes);
	walk_text(c, s->settings.webhooks, sizeof(s->settings.webhooks));
	walk_text(c, s->settings.webhook_secret, sizeof(s->settings.webhook_secret));
	for (int i = 0; i < QDB_MAX_WEBHOOKS; i++)
		walk_u64(c, &s->webhook_told[i]);
	for (int i = 0; i < QDB_MAX_TOKENS; i++)
		walk_token(c, &s->tokens[i]);
	for (int i = 0; i < QDB_MAX_API_TOKENS; i++)
		walk_api_token(c, &s->api_tokens[i]);
	walk_u64(c, &s->key_rotation);
}

/* Oldest first; an entry's number says where it belongs. */
static void
walk_journal(Codec *c, QdbState *s)
{
	uint32_t	n;

	walk_u64(c, &s->journal_next);
	n = walk_count(c, &s->njournal, QDB_MAX_JOURNAL);
	if (s->journal_next == 0 ||
		n != (s->journal_next - 1 < QDB_MAX_JOURNAL ? s->journal_next - 1 : QDB_MAX_JOURNAL))
	{
		c->bad = true;
		return;
	}
	for (uint64_t number = s->journal_next - n; number < s->journal_next; number++)
	{
		QdbJournalEntry *e = &s->journal[(number - 1) % QDB_MAX_JOURNAL];

		if (!c->writing)
			e->number = number;
		walk_i64(c, &e->time_us);
		walk_u64(c, &e->epoch);
		walk_text(c, e->event, sizeof(e->event));
		walk_text(c, e->node, sizeof(e->node));
		walk_text(c, e->reason, sizeof(e->reason));
	}
}

static void
walk_state(Codec *c, QdbState *s)
{
	walk_format(c, STATE_MAGIC, QDB_STATE_FORMAT);
	walk_text(c, s->cluster_id, sizeof(s->cluster_id));
	walk_text(c, s->cluster_name, sizeof(s->cluster_name));
	walk_u64(c, &s->system_identifier);
	walk_u64(c, &s->next_member_id);
	walk_u64(c, &s->membership);
	walk_bool(c, &s->change_open);
	walk_members(c, s);
	walk_epochs(c, s);
	walk_settings(c, s);
	walk_journal(c, s);
	/* Before INIT there is nothing, after it there is a member and an epoch. */
	c->bad |= (s->cluster_id[0] == '\0') != (s->nmembers == 0);
	c->bad |= (s->cluster_id[0] == '\0') != (s->epoch == 0);
}

bool
qdb_state_encode(const QdbState *state, uint8_t *buf, size_t *len)
{
	Codec		c = {.writing = true,.w = {buf, *len, 0, false}};

	walk_state(&c, (QdbState *) state);
	return finish(&c, len);
}

bool
qdb_state_decode(const uint8_t *buf, size_t len, QdbState *state)
{
	Codec		c = {.r = {buf, len, 0, false}};

	memset(state, 0, sizeof(*state));
	walk_state(&c, state);
	return finish(&c, NULL);
}
