/*-------------------------------------------------------------------------
 *
 * state_settings.c
 *		Cluster-wide settings: names, bounds, and how values are written.
 *
 * A duration is digits and an optional unit (ms, s, min, h); without a unit it
 * counts milliseconds, as in postgresql.conf.
 *
 *-------------------------------------------------------------------------
 */
#include "core/state_internal.h"

#include <stdio.h>
#include <string.h>

#define DEFAULT_MAX_LAG		(1024 * 1024)

typedef struct Duration
{
	const char *name;
	size_t		offset;			/* of the uint32_t in QdbClusterSettings */
	uint32_t	initial;
	uint32_t	least;
	uint32_t	greatest;
} Duration;

static const Duration durations[] = {
	{"lease_duration", offsetof(QdbClusterSettings, lease_ms), 400, 50, 60000},
	{"failover_timeout", offsetof(QdbClusterSettings, failover_ms), 500, 100, 600000},
	{"open_timeout", offsetof(QdbClusterSettings, open_ms), 5000, 500, 3600000},
	{"min_failover_interval", offsetof(QdbClusterSettings, min_failover_ms), 0, 0, 86400000},
};

#define NDURATIONS	(sizeof(durations) / sizeof(durations[0]))

static uint32_t *
duration_field(QdbClusterSettings *settings, const Duration *duration)
{
	return (uint32_t *) ((char *) settings + duration->offset);
}

void
qdb_default_settings(QdbClusterSettings *settings)
{
	for (size_t i = 0; i < NDURATIONS; i++)
		*duration_field(settings, &durations[i]) = durations[i].initial;
	settings->auto_failover = true;
	settings->max_lag_bytes = DEFAULT_MAX_LAG;
}

bool
qdb_is_async(const QdbState *state)
{
	return state->settings.async || (state->change_open && state->settings.async_before);
}

static bool
parse_duration(const char *text, uint32_t *ms)
{
	static const struct
	{
		const char *unit;
		uint64_t	ms;
	}			units[] = {{"", 1}, {"ms", 1}, {"s", 1000}, {"min", 60000}, {"h", 3600000}};
	uint64_t	n = 0;
	const char *p = text;

	if (*p < '0' || *p > '9')
		return false;
	for (; *p >= '0' && *p <= '9'; p++)
	{
		n = n * 10 + (uint64_t) (*p - '0');
		if (n > UINT32_MAX)
			return false;
	}
	while (*p == ' ')
		p++;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(p, units[i].unit) == 0)
		{
			n *= units[i].ms;	/* at most 2^32 * 3600000 */
			*ms = (uint32_t) n;
			return n <= UINT32_MAX;
		}
	return false;
}

static bool
parse_switch(const char *text, bool *value)
{
	static const char *const on[] = {"on", "true", "yes", "1"};
	static const char *const off[] = {"off", "false", "no", "0"};

	for (int i = 0; i < 4; i++)
		if (strcmp(text, on[i]) == 0 || strcmp(text, off[i]) == 0)
		{
			*value = strcmp(text, on[i]) == 0;
			return true;
		}
	return false;
}

/* Digits and an optional unit, as in postgresql.conf; without one, bytes. */
static bool
parse_size(const char *text, uint64_t *bytes)
{
	static const struct
	{
		const char *unit;
		int			shift;
	}			units[] = {{"", 0}, {"B", 0}, {"kB", 10}, {"MB", 20}, {"GB", 30}, {"TB", 40}};
	uint64_t	n = 0;
	const char *p = text;

	if (*p < '0' || *p > '9')
		return false;
	for (; *p >= '0' && *p <= '9'; p++)
	{
		n = n * 10 + (uint64_t) (*p - '0');
		if (n > UINT32_MAX)
			return false;
	}
	while (*p == ' ')
		p++;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(p, units[i].unit) == 0)
		{
			*bytes = n << units[i].shift;
			return units[i].shift < 40 || n < 1024 * 1024;
		}
	return false;
}

/* Write the named setting into *settings; false if name or value is not valid. */
static bool
set_value(QdbClusterSettings *settings, const char *name, const char *value)
{
	if (strcmp(name, "auto_failover") == 0)
		return parse_switch(value, &settings->auto_failover);
	if (strcmp(name, "durability") == 0)
	{
		settings->async = strcmp(value, "async") == 0;
		return settings->async || strcmp(value, "quorum") == 0;
	}
	if (strcmp(name, "max_lag_on_failover") == 0)
		return parse_size(value, &settings->max_lag_bytes);
	for (size_t i = 0; i < NDURATIONS; i++)
		if (strcmp(name, durations[i].name) == 0)
		{
			uint32_t	ms;

			if (!parse_duration(value, &ms) || ms < durations[i].least || ms > durations[i].greatest)
				return false;
			*duration_field(settings, &durations[i]) = ms;
			return true;
		}
	return false;
}

bool
qdb_check_setting(const char *name, const char *value, char *why, size_t size)
{
	QdbClusterSettings settings = {0};
	char		list[QDB_VALUE_SIZE];
	bool		webhooks = strcmp(name, "webhooks") == 0;
	bool		secret = strcmp(name, "webhook_secret") == 0;

	if (webhooks ? qdb_parse_webhooks(value, list) :
		secret ? strlen(value) < QDB_WEBHOOK_SECRET_SIZE : set_value(&settings, name, value))
		return true;
	if (strcmp(name, "auto_failover") == 0)
		snprintf(why, size, "%s is on or off", name);
	else if (strcmp(name, "durability") == 0)
		snprintf(why, size, "%s is quorum or async", name);
	else if (strcmp(name, "max_lag_on_failover") == 0)
		snprintf(why, size, "%s is a size such as 16MB, less than 1048576 TB", name);
	else if (webhooks)
		snprintf(why, size, "%s is at most %d different URLs with http:// or https://, separated by spaces",
				 name, QDB_MAX_WEBHOOKS);
	else if (secret)
		snprintf(why, size, "%s has at most %d bytes", name, QDB_WEBHOOK_SECRET_SIZE - 1);
	else
		snprintf(why, size, "there is no setting \"%.64s\"", name);
	for (size_t i = 0; i < NDURATIONS; i++)
		if (strcmp(name, durations[i].name) == 0)
			snprintf(why, size, "%s is a time from %u to %u ms, such as 800ms or 1s",
					 name, durations[i].least, durations[i].greatest);
	return false;
}

/* Text that is kept and never shown; both may be emptied. */
static QdbResult
apply_hidden(QdbState *state, const QdbCommand *command)
{
	QdbClusterSettings *settings = &state->settings;
	bool		secret = strcmp(command->node, "webhook_secret") == 0;
	const char *old = secret ? settings->webhook_secret : settings->webhooks;
	char		text[QDB_REASON_SIZE];

	if (memchr(command->value, '\0', QDB_VALUE_SIZE) == NULL ||
		(secret && strlen(command->value) >= QDB_WEBHOOK_SECRET_SIZE))
		return QDB_BAD_VALUE;
	if (strcmp(old, command->value) == 0)
		return QDB_UNCHANGED;
	if (secret)
		qdb_copy_text(settings->webhook_secret, sizeof(settings->webhook_secret),
					  command->value, sizeof(command->value));
	else if (!qdb_set_webhooks(state, command->value))
		return QDB_BAD_VALUE;
	snprintf(text, sizeof(text), "%s was %s", command->node,
			 command->value[0] == '\0' ? "emptied" : "set");
	qdb_add_journal(state, command, "set", "", text);
	return QDB_OK;
}

QdbResult
qdb_apply_setting(QdbState *state, const QdbCommand *command)
{
	QdbClusterSettings settings = state->settings;
	const QdbClusterSettings *old = &state->settings;
	char		text[QDB_REASON_SIZE];

	if (strcmp(command->node, "webhooks") == 0 || strcmp(command->node, "webhook_secret") == 0)
		return apply_hidden(state, command);
	if (!qdb_is_filled_text(command->node, QDB_NAME_SIZE) ||
		!qdb_is_filled_text(command->value, QDB_VALUE_SIZE) ||
		!set_value(&settings, command->node, command->value))
		return QDB_BAD_VALUE;
	if (settings.lease_ms == old->lease_ms && settings.failover_ms == old->failover_ms &&
		settings.open_ms == old->open_ms && settings.min_failover_ms == old->min_failover_ms &&
		settings.auto_failover == old->auto_failover &&
		settings.async == old->async && settings.max_lag_bytes == old->max_lag_bytes)
		return QDB_UNCHANGED;

	/* What commits wait for changes under a number of its own (I13). */
	if (settings.async != old->async)
	{
		if (state->change_open || state->epoch_open)
			return QDB_CHANGE_OPEN;
		qdb_open_change(state);
		settings.async_before = state->settings.async_before;
	}
	state->settings = settings;
	snprintf(text, sizeof(text), "%s = %.64s", command->node, command->value);
	qdb_add_journal(state, command, "set", "", text);
	return QDB_OK;
}
