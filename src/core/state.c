/*-------------------------------------------------------------------------
 *
 * state.c
 *		The replicated state: look-ups, the journal, and the commands about
 *		epochs and seats.
 *
 * Every command first checks all it needs and only then changes anything, so
 * that a refused one leaves no trace.  That makes it safe to propose a command
 * twice, or to propose it from an old view of the state: what does not fit any
 * more is refused by every member alike.
 *
 * The seat rules are checked here and not only where a seat is chosen: a
 * leader with an old view, or a wrong one, cannot seat a node that is not the
 * maximum of a majority (I6).
 *
 *-------------------------------------------------------------------------
 */
#include "core/state_internal.h"

#include <stdio.h>
#include <string.h>

#include "core/quorum.h"
#include "core/rules.h"

void
qdb_copy_text(char *target, size_t target_size, const char *source, size_t source_size)
{
	size_t		len = 0;

	while (len < source_size && len < target_size - 1 && source[len] != '\0')
		len++;
	memmove(target, source, len);
	memset(target + len, 0, target_size - len);
}

bool
qdb_is_filled_text(const char *text, size_t size)
{
	return text[0] != '\0' && memchr(text, '\0', size) != NULL;
}

void
qdb_state_init(QdbState *state)
{
	memset(state, 0, sizeof(*state));
	state->next_member_id = 1;
	state->journal_next = 1;
	qdb_default_settings(&state->settings);
}

int
qdb_member_index(const QdbState *state, uint64_t id)
{
	for (uint32_t i = 0; i < state->nmembers; i++)
		if (state->members[i].id == id)
			return (int) i;
	return -1;
}

const QdbMember *
qdb_member_by_id(const QdbState *state, uint64_t id)
{
	int			i = qdb_member_index(state, id);

	return i < 0 ? NULL : &state->members[i];
}

const QdbMember *
qdb_member_by_name(const QdbState *state, const char *name)
{
	for (uint32_t i = 0; i < state->nmembers; i++)
		if (strncmp(state->members[i].name, name, QDB_NAME_SIZE) == 0)
			return &state->members[i];
	return NULL;
}

const QdbGrant *
qdb_grant_of_epoch(const QdbState *state, uint64_t epoch)
{
	for (uint32_t i = state->ngrants; i > 0; i--)
		if (state->grants[i - 1].epoch == epoch)
			return &state->grants[i - 1];
	return NULL;
}

const QdbGrant *
qdb_grant_of_timeline(const QdbState *state, uint32_t timeline)
{
	for (uint32_t i = state->ngrants; i > 0; i--)
		if (state->grants[i - 1].timeline == timeline)
			return &state->grants[i - 1];
	return NULL;
}

const QdbGrant *
qdb_current_grant(const QdbState *state)
{
	return state->epoch_open ? NULL : qdb_grant_of_epoch(state, state->epoch);
}

const QdbReport *
qdb_report_of(const QdbState *state, uint64_t member)
{
	for (uint32_t i = 0; i < state->nreports; i++)
		if (state->reports[i].member == member)
			return &state->reports[i];
	return NULL;
}

void
qdb_add_journal(QdbState *state, const QdbCommand *command, const char *event,
				const char *node, const char *default_reason)
{
	QdbJournalEntry *entry = &state->journal[(state->journal_next - 1) % QDB_MAX_JOURNAL];
	bool		told = command->type != QDB_CMD_INIT && command->text[0] != '\0';

	entry->number = state->journal_next++;
	entry->time_us = command->time_us;
	entry->epoch = state->epoch;
	qdb_copy_text(entry->event, sizeof(entry->event), event, QDB_VALUE_SIZE);
	qdb_copy_text(entry->node, sizeof(entry->node), node, QDB_NAME_SIZE);
	if (told)
		qdb_copy_text(entry->reason, sizeof(entry->reason), command->text, sizeof(command->text));
	else
		qdb_copy_text(entry->reason, sizeof(entry->reason), default_reason, QDB_REASON_SIZE);
	if (state->njournal < QDB_MAX_JOURNAL)
		state->njournal++;
}

/* Name for the journal, also of a member that was just removed. */
static const char *
name_of(const QdbState *state, uint64_t id)
{
	const QdbMember *member = qdb_member_by_id(state, id);

	if (member == NULL && state->has_removed && state->removed.id == id)
		member = &state->removed;
	return member == NULL ? "" : member->name;
}

/* Does another one, or the next, begin where it ends? */
static bool
is_parent(const QdbState *state, const QdbGrant *grant, const QdbGrant *next)
{
	for (uint32_t i = 0; i < state->ngrants; i++)
		if (state->grants[i].parent_timeline == grant->timeline)
			return true;
	return next->parent_timeline == grant->timeline;
}

/*
 * Which one is given up where there is no room?  The oldest, unless it is the last that was
 * opened: the WAL of all others counts by it, and were it gone, that would count for
 * nothing and nobody could be primary any more.  Then it is a seat that was never opened,
 * so that nothing was acknowledged under it, and that no other one came from.
 */
static uint32_t
choose_oldest(const QdbState *state, const QdbGrant *next)
{
	for (uint32_t i = 1; i < state->ngrants; i++)
		if (state->grants[i].opened)
			return 0;
	for (uint32_t i = 1; i < state->ngrants && state->grants[0].opened; i++)
		if (!is_parent(state, &state->grants[i], next))
			return i;
	return 0;
}

static void
add_grant(QdbState *state, const QdbGrant *grant)
{
	if (state->ngrants == QDB_MAX_GRANTS)
	{
		uint32_t	i = choose_oldest(state, grant);

		memmove(&state->grants[i], &state->grants[i + 1], (QDB_MAX_GRANTS - 1 - i) * sizeof(QdbGrant));
		state->ngrants--;
	}
	state->grants[state->ngrants++] = *grant;
	state->greatest_timeline = grant->timeline;
}

static QdbResult
apply_init(QdbState *state, const QdbCommand *command)
{
	const QdbMember *member = &command->member;
	QdbGrant	grant = command->grant;

	if (state->cluster_id[0] != '\0')
		return strncmp(state->cluster_id, command->value, QDB_CLUSTER_ID_SIZE) == 0 ?
			QDB_UNCHANGED : QDB_ALREADY_INITIALIZED;
	if (!qdb_is_filled_text(command->value, QDB_CLUSTER_ID_SIZE) ||
		!qdb_is_filled_text(command->text, QDB_NAME_SIZE) ||
		!qdb_is_filled_text(member->name, QDB_NAME_SIZE) ||
		member->id != 1 || member->priority < 0 ||
		grant.epoch != 1 || grant.holder != 1 || grant.timeline == 0 || grant.parent_timeline != 0 ||
		grant.incarnation != member->incarnation)
		return QDB_BAD_VALUE;

	qdb_copy_text(state->cluster_id, sizeof(state->cluster_id), command->value, sizeof(command->value));
	qdb_copy_text(state->cluster_name, sizeof(state->cluster_name), command->text, sizeof(command->text));
	state->system_identifier = command->system_identifier;
	state->members[0] = *member;
	state->members[0].role = QDB_ROLE_VOTER;
	state->nmembers = 1;
	state->next_member_id = 2;
	state->membership = 1;
	state->epoch = 1;
	state->epoch_time_us = command->time_us;
	state->last_open_us = command->time_us;

	/* Its epoch record was written before: one voter is its own quorum. */
	grant.opened = true;
	if (grant.lease_ms == 0)
		grant.lease_ms = state->settings.lease_ms;
	add_grant(state, &grant);
	qdb_add_journal(state, command, "init", member->name, "cluster created");
	return QDB_OK;
}

static QdbResult
apply_note(QdbState *state, const QdbCommand *command)
{
	if (command->value[0] == '\0')
		return QDB_BAD_VALUE;
	qdb_add_journal(state, command, command->value, command->node, "");
	return QDB_OK;
}

/*
 * The next epoch.  Also while the current one waits for its seat, which it
 * then never gets.  Reports belong to one epoch: the promise behind an older
 * one is weaker (I6).
 */
static QdbResult
apply_open_epoch(QdbState *state, const QdbCommand *command)
{
	if (command->epoch != state->epoch + 1)
		return QDB_STALE;		/* I1 */

	state->epoch = command->epoch;
	state->epoch_open = true;
	state->epoch_time_us = command->time_us;
	state->seat_released = false;
	qdb_note_outage(state, command);
	state->nreports = 0;
	memset(state->reports, 0, sizeof(state->reports));
	if (command->flag)
		state->suspected_us = command->time_us;
	qdb_add_journal(state, command, "open_epoch", name_of(state, command->member.id),
					"a new primary is needed");
	return QDB_OK;
}

/*
 * May this member report?  Voters of the membership, and under an open change
 * those of the one before (I13).  Returns it, or NULL.
 */
static const QdbMember *
find_reporter(const QdbState *state, uint64_t id)
{
	int			i = qdb_member_index(state, id);

	if (i < 0)
		return state->change_open && state->has_removed && state->removed.id == id &&
			state->removed.role == QDB_ROLE_VOTER ? &state->removed : NULL;
	if (state->members[i].role == QDB_ROLE_VOTER)
		return &state->members[i];
	if (state->change_open && state->previous_roles[i] == QDB_ROLE_VOTER)
		return &state->members[i];
	return NULL;
}

/* Does a report name an epoch and a timeline that this state has granted? */
static bool
is_known_origin(const QdbState *state, const QdbReport *report)
{
	const QdbGrant *grant = qdb_grant_of_epoch(state, report->last_epoch);

	if (report->last_epoch >= state->epoch)
		return false;
	if (grant != NULL)
		return grant->timeline == report->last_timeline;
	/* Nothing counted yet, or older than the grants we still have. */
	return report->last_epoch == 0 || report->last_epoch < state->grants[0].epoch;
}

static QdbResult
apply_report(QdbState *state, const QdbCommand *command)
{
	const QdbReport *report = &command->report;
	const QdbMember *member;
	QdbReport  *stored;
	char		text[QDB_REASON_SIZE];

	if (!state->epoch_open || command->epoch != state->epoch)
		return QDB_STALE;
	member = find_reporter(state, report->member);
	if (member == NULL)
		return QDB_NO_MEMBER;
	if (report->incarnation != member->incarnation)
		return QDB_STALE;		/* I16: not the data that votes */
	if (!is_known_origin(state, report))
		return QDB_BAD_VALUE;

	stored = (QdbReport *) qdb_report_of(state, report->member);
	if (stored != NULL && report->boot < stored->boot)
		return QDB_STALE;
	if (stored != NULL && report->boot == stored->boot &&
		report->last_timeline == stored->last_timeline && qdb_report_compare(report, stored) == 0)
		return QDB_UNCHANGED;
	if (stored == NULL)
	{
		if (state->nreports == QDB_MAX_MEMBERS)
			return QDB_TOO_MANY;
		stored = &state->reports[state->nreports++];
	}
	*stored = *report;
	snprintf(text, sizeof(text), "WAL ends in epoch %llu at %X/%X",
			 (unsigned long long) report->last_epoch,
			 (unsigned) (report->end_lsn >> 32), (unsigned) report->end_lsn);
	qdb_add_journal(state, command, "report", member->name, text);
	return QDB_OK;
}

/* Is this the maximum of a majority's reports, in the boot that reported? */
static QdbResult
check_seat(const QdbState *state, const QdbGrant *grant)
{
	const QdbMember *holder = qdb_member_by_id(state, grant->holder);
	const QdbReport *report = qdb_report_of(state, grant->holder);
	uint64_t	ids[QDB_MAX_MEMBERS];

	for (uint32_t i = 0; i < state->nreports; i++)
		ids[i] = state->reports[i].member;
	if (report == NULL ||
		QDB_KEEPS(QDB_RULE_REPORT_MAJORITY, !qdb_is_majority(state, ids, state->nreports)))
		return QDB_NO_MAJORITY;
	if (!qdb_is_maximum(state, report) && !qdb_is_forced(state, grant->holder))
		return QDB_NO_MAJORITY; /* I6 */
	if (report->last_epoch == 0)
		return QDB_NO_MAJORITY; /* nothing in its WAL counts */
	if (holder == NULL || holder->role != QDB_ROLE_VOTER || holder->priority <= 0)
		return QDB_NO_MAJORITY;
	if (grant->incarnation != report->incarnation || grant->boot != report->boot)
		return QDB_STALE;		/* I1: one timeline per boot */
	if (grant->fork != report->end_lsn || grant->parent_timeline != report->last_timeline)
		return QDB_STALE;
	if (state->greatest_timeline == UINT32_MAX || grant->timeline != state->greatest_timeline + 1)
		return QDB_STALE;		/* I1 */
	return grant->lease_ms == 0 ? QDB_BAD_VALUE : QDB_OK;
}

/* Why this voter did not get the seat, as far as the reports tell. */
static void
explain_loser(const QdbState *state, const QdbMember *member, const QdbReport *won, char *text)
{
	const QdbReport *report = qdb_report_of(state, member->id);
	const QdbMember *winner = qdb_member_by_id(state, won->member);
	unsigned long long epoch = report == NULL ? 0 : report->last_epoch;

	if (report == NULL)
		snprintf(text, QDB_REASON_SIZE, "it had not reported");
	else if (report->last_epoch < won->last_epoch)
		snprintf(text, QDB_REASON_SIZE, "its WAL ends in epoch %llu, the winner's in epoch %llu",
				 epoch, (unsigned long long) won->last_epoch);
	else if (report->last_epoch == won->last_epoch && report->end_lsn < won->end_lsn)
		snprintf(text, QDB_REASON_SIZE, "its WAL ends %llu bytes before the winner's",
				 (unsigned long long) (won->end_lsn - report->end_lsn));
	else if (qdb_report_compare(report, won) > 0)
		snprintf(text, QDB_REASON_SIZE, "it has more WAL, in epoch %llu up to %X/%X, but %s", epoch,
				 (unsigned) (report->end_lsn >> 32), (unsigned) report->end_lsn,
				 qdb_is_forced(state, won->member) ? "the promotion was forced" :
				 "could not take the seat, and a majority does without it");
	else if (won->member == state->move.target)
		snprintf(text, QDB_REASON_SIZE, "it has as much WAL, but the other was asked for");
	else if (winner != NULL && member->priority < winner->priority)
		snprintf(text, QDB_REASON_SIZE, "it has as much WAL and a lower priority");
	else if (winner != NULL && member->priority == winner->priority && member->id > winner->id)
		snprintf(text, QDB_REASON_SIZE, "it has as much WAL and the same priority: the older member wins");
	else
		snprintf(text, QDB_REASON_SIZE, "it has as much WAL, but could not take the seat");
}

/* The journal says for every voter why it was not chosen. */
static void
explain_losers(QdbState *state, const QdbCommand *command, uint64_t holder)
{
	const QdbReport *won = qdb_report_of(state, holder);
	QdbCommand	plain = *command;
	char		text[QDB_REASON_SIZE];

	plain.text[0] = '\0';
	for (uint32_t i = 0; i < state->nmembers && won != NULL; i++)
	{
		if (state->members[i].role != QDB_ROLE_VOTER || state->members[i].id == holder)
			continue;
		explain_loser(state, &state->members[i], won, text);
		qdb_add_journal(state, &plain, "not_chosen", state->members[i].name, text);
	}
}

static bool
is_same_seat(const QdbGrant *a, const QdbGrant *b)
{
	return a->epoch == b->epoch && a->holder == b->holder &&
		a->incarnation == b->incarnation && a->boot == b->boot;
}

static QdbResult
apply_seat(QdbState *state, const QdbCommand *command)
{
	const QdbGrant *current = qdb_current_grant(state);
	QdbGrant	grant = command->grant;
	QdbResult	result;

	if (current != NULL && is_same_seat(current, &grant) && current->timeline == grant.timeline)
		return QDB_UNCHANGED;
	if (!state->epoch_open || grant.epoch != state->epoch)
		return QDB_STALE;
	result = check_seat(state, &grant);
	if (result != QDB_OK)
		return result;

	grant.opened = false;
	add_grant(state, &grant);
	state->epoch_open = false;
	state->seat_released = false;
	qdb_add_journal(state, command, "seat", name_of(state, grant.holder),
					"its WAL is the maximum of a majority of the voters");
	explain_losers(state, command, grant.holder);
	qdb_clear_move(state);
	return QDB_OK;
}

/* GATE_OPEN and RELEASE: only by the boot that holds the seat now. */
static QdbResult
apply_holder_step(QdbState *state, const QdbCommand *command)
{
	QdbGrant   *current = (QdbGrant *) qdb_current_grant(state);
	bool		release = command->type == QDB_CMD_RELEASE;
	char		text[QDB_REASON_SIZE];

	if (current == NULL || !is_same_seat(current, &command->grant))
		return QDB_STALE;
	if (release ? state->seat_released : current->opened)
		return QDB_UNCHANGED;
	if (state->seat_released)
		return QDB_STALE;		/* what was given up does not open */

	if (release)
	{
		state->seat_released = true;
		qdb_note_outage(state, command);
		qdb_copy_text(text, sizeof(text), "the primary gave its seat up", sizeof(text));
	}
	else
	{
		current->opened = true; /* I8 */
		qdb_end_outage(state, command);
		snprintf(text, sizeof(text), "its epoch record is on a quorum; nobody could write for %lld ms",
				 (long long) (state->last_outage_us / 1000));
	}
	qdb_add_journal(state, command, release ? "release" : "gate_open",
					name_of(state, current->holder), text);
	return QDB_OK;
}

QdbResult
qdb_state_apply(QdbState *state, const QdbCommand *command)
{
	if (command->type != QDB_CMD_INIT && state->cluster_id[0] == '\0')
		return QDB_NOT_INITIALIZED;

	switch (command->type)
	{
		case QDB_CMD_INIT:
			return apply_init(state, command);
		case QDB_CMD_NOTE:
			return apply_note(state, command);
		case QDB_CMD_OPEN_EPOCH:
			return apply_open_epoch(state, command);
		case QDB_CMD_REPORT:
			return apply_report(state, command);
		case QDB_CMD_SEAT:
			return apply_seat(state, command);
		case QDB_CMD_GATE_OPEN:
		case QDB_CMD_RELEASE:
			return apply_holder_step(state, command);
		case QDB_CMD_MEMBER_ADD:
			return qdb_apply_member_add(state, command);
		case QDB_CMD_MEMBER_UPDATE:
			return qdb_apply_member_update(state, command);
		case QDB_CMD_MEMBER_ROLE:
			return qdb_apply_member_role(state, command);
		case QDB_CMD_MEMBER_REMOVE:
			return qdb_apply_member_remove(state, command);
		case QDB_CMD_MEMBERSHIP_CLOSE:
			return qdb_apply_membership_close(state, command);
		case QDB_CMD_SETTING:
			return qdb_apply_setting(state, command);
		case QDB_CMD_TOKEN_ADD:
			return qdb_apply_token_add(state, command);
		case QDB_CMD_API_TOKEN_ADD:
			return qdb_apply_api_token_add(state, command);
		case QDB_CMD_MEMBER_KEY:
			return qdb_apply_member_key(state, command);
		case QDB_CMD_ROTATE_KEYS:
			return qdb_apply_rotate_keys(state, command);
		case QDB_CMD_API_TOKEN_REVOKE:
			return qdb_apply_api_token_revoke(state, command);
		case QDB_CMD_MEMBER_LOST:
		case QDB_CMD_MEMBER_BACK:
			return qdb_apply_presence(state, command);
		case QDB_CMD_WEBHOOK_TOLD:
			return qdb_apply_webhook_told(state, command);
		case QDB_CMD_MOVE:
			return qdb_apply_move(state, command);
		case QDB_CMD_DONATE:
			return qdb_apply_donate(state, command);
		default:
			return QDB_MALFORMED;
	}
}

const char *
qdb_result_text(QdbResult result)
{
	static const char *const texts[] = {
		[QDB_OK] = "done",
		[QDB_UNCHANGED] = "nothing to change",
		[QDB_STALE] = "superseded by a newer epoch, boot or membership",
		[QDB_NOT_INITIALIZED] = "the cluster is not initialized",
		[QDB_ALREADY_INITIALIZED] = "the cluster is already initialized",
		[QDB_NO_MAJORITY] = "not the maximum of the reports of a majority",
		[QDB_NO_MEMBER] = "there is no such member",
		[QDB_DUPLICATE_NAME] = "a member with this name exists",
		[QDB_TOO_MANY] = "the limit is reached",
		[QDB_BAD_TOKEN] = "the token is unknown, used or expired",
		[QDB_CHANGE_OPEN] = "another membership change or a failover is under way",
		[QDB_LAST_VOTER] = "this is the last voter",
		[QDB_HOLDS_SEAT] = "the node is the primary",
		[QDB_NOT_VOTER] = "the node is no voter",
		[QDB_PRIORITY_ZERO] = "the priority of the node is 0",
		[QDB_PAUSED] = "the cluster is paused, and then only the last primary gets the seat",
		[QDB_MOVE_OPEN] = "the promotion of another node is under way",
		[QDB_BAD_VALUE] = "the value is not valid",
		[QDB_MALFORMED] = "malformed command",
	};

	if ((unsigned) result >= sizeof(texts) / sizeof(texts[0]))
		return "unknown result";
	return texts[result];
}
