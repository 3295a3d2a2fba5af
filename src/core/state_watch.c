/*-------------------------------------------------------------------------
 *
 * state_watch.c
 *		What the replicated state keeps for those who watch it: who is lost,
 *		how long nobody could write, and what the webhooks were told.
 *
 * None of it decides anything.  It is replicated so that each event has one
 * number in the cluster, and so that the next leader neither repeats nor
 * forgets one.
 *
 *-------------------------------------------------------------------------
 */
#include "core/state_internal.h"

#include <string.h>

/* Epochs that find no primary belong to one outage: the first one counts. */
void
qdb_note_outage(QdbState *state, const QdbCommand *command)
{
	int64_t		since = command->time_us;

	if (command->since_us > 0 && command->since_us < since)
		since = command->since_us;
	if (state->outage_since_us == 0)
		state->outage_since_us = since;
}

void
qdb_end_outage(QdbState *state, const QdbCommand *command)
{
	int64_t		length = command->time_us - state->outage_since_us;

	/* Two clocks: the later one may be behind. */
	if (state->outage_since_us != 0)
		state->last_outage_us = length > 0 ? length : 0;
	state->outage_since_us = 0;
	state->last_open_us = command->time_us;
}

static uint64_t *
find_lost(QdbState *state, uint64_t member)
{
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
		if (state->lost[i] == member)
			return &state->lost[i];
	return NULL;
}

void
qdb_forget_presence(QdbState *state, uint64_t member)
{
	uint64_t   *lost = find_lost(state, member);

	if (lost != NULL)
		*lost = 0;
}

QdbResult
qdb_apply_presence(QdbState *state, const QdbCommand *command)
{
	const QdbMember *member = qdb_member_by_id(state, command->member.id);
	bool		back = command->type == QDB_CMD_MEMBER_BACK;
	uint64_t   *lost;

	if (member == NULL)
		return QDB_NO_MEMBER;
	lost = find_lost(state, member->id);
	if ((lost == NULL) == back)
		return QDB_UNCHANGED;
	if (!back)
		lost = find_lost(state, 0);
	if (lost == NULL)
		return QDB_TOO_MANY;
	*lost = back ? 0 : member->id;
	qdb_add_journal(state, command, back ? "node_back" : "node_lost", member->name,
					back ? "it is heard again" : "it is not heard any more");
	return QDB_OK;
}

/* The length of the first URL of a list separated by single spaces. */
static size_t
url_length(const char *list)
{
	return strcspn(list, " ");
}

static bool
is_url(const char *url, size_t len)
{
	size_t		scheme = strncmp(url, "https://", 8) == 0 ? 8 : strncmp(url, "http://", 7) == 0 ? 7 : 0;

	if (scheme == 0 || len <= scheme)
		return false;
	for (size_t i = 0; i < len; i++)
		if (url[i] <= ' ' || url[i] > '~' || url[i] == '"' || url[i] == '\\')
			return false;
	return true;
}

/* Place of a URL in the list, or -1. */
static int
url_index(const char *list, const char *url, size_t len)
{
	for (int i = 0; *list != '\0'; i++)
	{
		size_t		n = url_length(list);

		if (n == len && memcmp(list, url, n) == 0)
			return i;
		list += n + (list[n] == ' ');
	}
	return -1;
}

/*
 * URLs separated by spaces or commas, into a list (QDB_VALUE_SIZE bytes) with single
 * spaces.  False: not valid.
 */
bool
qdb_parse_webhooks(const char *value, char *list)
{
	size_t		used = 0;

	list[0] = '\0';
	for (int n = 0; *(value += strspn(value, " ,")) != '\0'; n++)
	{
		size_t		len = strcspn(value, " ,");

		if (n == QDB_MAX_WEBHOOKS || !is_url(value, len) || url_index(list, value, len) >= 0 ||
			used + (used > 0) + len >= QDB_VALUE_SIZE)
			return false;
		if (used > 0)
			list[used++] = ' ';
		memcpy(list + used, value, len);
		used += len;
		list[used] = '\0';
		value += len;
	}
	return true;
}

/*
 * A URL that was there before goes on where it was; a new one begins with the entry
 * that says that it was set.  False: not valid, nothing was changed.
 */
bool
qdb_set_webhooks(QdbState *state, const char *value)
{
	char		list[QDB_VALUE_SIZE] = "";
	uint64_t	told[QDB_MAX_WEBHOOKS] = {0};
	const char *url = list;

	if (!qdb_parse_webhooks(value, list))
		return false;
	for (int n = 0; *url != '\0'; n++)
	{
		size_t		len = url_length(url);
		int			before = url_index(state->settings.webhooks, url, len);

		told[n] = before >= 0 ? state->webhook_told[before] : state->journal_next - 1;
		url += len + (url[len] == ' ');
	}
	qdb_copy_text(state->settings.webhooks, sizeof(state->settings.webhooks), list, sizeof(list));
	memcpy(state->webhook_told, told, sizeof(told));
	return true;
}

bool
qdb_next_webhook(const char **list, char *url)
{
	size_t		len = url_length(*list);

	if (len >= QDB_VALUE_SIZE)
		len = QDB_VALUE_SIZE - 1;
	memcpy(url, *list, len);
	url[len] = '\0';
	*list += len;
	*list += **list == ' ';
	return len > 0;
}

const char *
qdb_url_host(const char *url, size_t *length)
{
	const char *host = strstr(url, "//");
	const char *at;

	host = host != NULL ? host + 2 : url;
	*length = strcspn(host, "/?#");
	at = memchr(host, '@', *length);
	if (at != NULL)
	{
		*length -= (size_t) (at + 1 - host);
		host = at + 1;
	}
	return host;
}

QdbResult
qdb_apply_webhook_told(QdbState *state, const QdbCommand *command)
{
	int			i;

	if (memchr(command->value, '\0', QDB_VALUE_SIZE) == NULL || command->number >= state->journal_next)
		return QDB_BAD_VALUE;
	i = url_index(state->settings.webhooks, command->value, strlen(command->value));
	if (i < 0)
		return QDB_STALE;
	if (command->number <= state->webhook_told[i])
		return QDB_UNCHANGED;
	state->webhook_told[i] = command->number;
	return QDB_OK;
}
