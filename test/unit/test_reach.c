/*-------------------------------------------------------------------------
 *
 * test_reach.c
 *		Random commands, one after the other: what must hold of every state that
 *		they lead to.
 *
 *	- it can be a snapshot, and the snapshot is all of it: who began with one goes the same way
 *	- a command that is refused, or changes nothing, leaves it as it was
 *	- the epoch, the membership and the timelines that were given out only grow
 *
 * Commands are made from the state that they meet, mostly fitting and sometimes not, so that
 * most of them are applied.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/failover.h"
#include "core/state.h"

#define ROUNDS		40
#define COMMANDS	400

static QdbState s;
static QdbState before;
static QdbState other;			/* of a member that began with a snapshot */
static QdbCommand c;
static uint8_t bytes[QDB_STATE_MAX_BYTES];
static unsigned long applied[QDB_CMD_DONATE + 1];
static uint64_t seed;

static uint32_t
below(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t) ((seed >> 11) % n);
}

/* A member that is there, or one that is not yet. */
static void
fill_member(void)
{
	uint32_t	i = s.nmembers > 0 ? below(s.nmembers + 1) : 0;

	if (i < s.nmembers)
		c.member = s.members[i];
	else
	{
		c.member.id = s.next_member_id;
		c.member.incarnation = 1 + below(3);
		c.member.priority = (int32_t) below(3);
		snprintf(c.member.name, sizeof(c.member.name), "n%u", below(40));
	}
	if (below(4) > 0)
		c.member.role = (uint8_t) below(3);
	if (below(6) == 0)
		c.member.incarnation++;
	if (c.type == QDB_CMD_MEMBER_UPDATE)
		c.member.sql_port = (uint16_t) below(3);
}

static void
fill_report(void)
{
	const QdbMember *member = s.has_removed && below(4) == 0 ? &s.removed : &s.members[below(s.nmembers)];
	const QdbGrant *grant = &s.grants[below(s.ngrants)];

	c.epoch = s.epoch;
	c.report.member = member->id;
	c.report.incarnation = member->incarnation;
	c.report.boot = 1 + below(3);
	c.report.last_epoch = grant->epoch;
	c.report.last_timeline = grant->timeline;
	c.report.end_lsn = 100 + below(50);
}

static void
fill_seat(void)
{
	const QdbReport *report = &s.reports[s.nreports > 0 ? below(s.nreports) : 0];

	c.grant = (QdbGrant) {.epoch = s.epoch,.timeline = s.greatest_timeline + 1,.parent_timeline = report->last_timeline,
		.fork = report->end_lsn,.holder = report->member,.incarnation = report->incarnation,.boot = report->boot,
		.lease_ms = 1 + below(100)};
}

static void
fill_setting(void)
{
	static const char *const names[] = {"durability", "auto_failover", "lease_duration", "webhooks",
	"webhook_secret", "max_lag_on_failover"};
	static const char *const values[] = {"async", "quorum", "on", "off", "200ms", "http://a/b http://c/d", "1MB", ""};

	snprintf(c.node, sizeof(c.node), "%s", names[below(6)]);
	snprintf(c.value, sizeof(c.value), "%s", values[below(8)]);
}

static void
fill_by_type(void)
{
	switch (c.type)
	{
		case QDB_CMD_REPORT:
			fill_report();
			break;
		case QDB_CMD_SEAT:
			fill_seat();
			break;
		case QDB_CMD_GATE_OPEN:
		case QDB_CMD_RELEASE:
			c.grant = s.grants[s.ngrants - 1];
			break;
		case QDB_CMD_SETTING:
			fill_setting();
			break;
		case QDB_CMD_TOKEN_ADD:
		case QDB_CMD_MEMBER_ADD:
			c.token = (QdbToken) {.id = 1 + below(4),.role = (uint8_t) below(3),.expires_us = c.time_us + 1000000000};
			break;
		case QDB_CMD_API_TOKEN_ADD:
		case QDB_CMD_API_TOKEN_REVOKE:
			c.api_token = (QdbApiToken) {.id = 1 + below(40),.role = (uint8_t) below(4),
				.expires_us = c.time_us + below(100) * 1000000,.creator = "somebody"};
			break;
		case QDB_CMD_WEBHOOK_TOLD:
			snprintf(c.value, sizeof(c.value), "http://a/b");
			c.number = below((uint32_t) s.journal_next + 1);
			break;
		case QDB_CMD_MOVE:
			c.epoch = s.epoch;
			if (below(4) == 0)
				c.member.id = 0;
			break;
		case QDB_CMD_MEMBER_KEY:
			memset(c.member.previous_key_hash, 0, QDB_KEY_HASH_SIZE);
			if (below(2) == 0)
			{
				memcpy(c.member.previous_key_hash, c.member.key_hash, QDB_KEY_HASH_SIZE);
				c.member.key_hash[0] = (uint8_t) (1 + below(3));
			}
			break;
		case QDB_CMD_DONATE:
			c.epoch = s.epoch;
			c.grant.holder = s.reports[below(QDB_MAX_MEMBERS) % (s.nreports + 1)].member;
			c.member.id = s.reports[below(QDB_MAX_MEMBERS) % (s.nreports + 1)].member;
			break;
		default:
			break;
	}
}

static void
make_command(int i)
{
	memset(&c, 0, sizeof(c));
	c.time_us = 1000 + i * INT64_C(1000000);
	if (i == 0)
	{
		c.type = QDB_CMD_INIT;
		c.member = (QdbMember) {.id = 1,.incarnation = 1,.priority = 1,.name = "n1",.key_hash = {1}};
		c.grant = (QdbGrant) {.epoch = 1,.timeline = 1 + below(3),.holder = 1,.incarnation = 1,.boot = 1,.lease_ms = 100};
		snprintf(c.value, sizeof(c.value), "11111111-2222-3333-4444-555555555555");
		snprintf(c.text, sizeof(c.text), "main");
		return;
	}
	c.type = (uint8_t) (QDB_CMD_NOTE + below(QDB_CMD_DONATE - QDB_CMD_NOTE + 1));
	/* An open epoch lasts for a while, and is reported for. */
	if (s.epoch_open && below(4) > 0 && (c.type == QDB_CMD_OPEN_EPOCH || c.type == QDB_CMD_SEAT || c.type == QDB_CMD_NOTE))
		c.type = below(3) > 0 ? QDB_CMD_REPORT : QDB_CMD_DONATE;
	c.epoch = s.epoch + below(3);
	c.membership = s.membership + (below(8) == 0);
	c.flag = below(2) == 0;
	snprintf(c.value, sizeof(c.value), "%s", below(4) > 0 ? "test" : "");
	snprintf(c.text, sizeof(c.text), "%s", below(2) > 0 ? "why" : "");
	fill_member();
	fill_by_type();
}

/* What failed; NULL: nothing. */
static const char *
step(int i)
{
	size_t		length = sizeof(bytes);
	QdbResult	result;

	make_command(i);
	memcpy(&before, &s, sizeof(s));
	result = qdb_state_apply(&s, &c);
	if (result != QDB_OK && memcmp(&before, &s, sizeof(s)) != 0)
		return "a command that was not applied has changed the state";
	if (qdb_state_apply(&other, &c) != result || memcmp(&other, &s, sizeof(s)) != 0)
		return "a member that began with a snapshot went another way";
	if (s.epoch < before.epoch || s.membership < before.membership || s.greatest_timeline < before.greatest_timeline)
		return "the epoch, the membership or a timeline went back";
	if (!qdb_state_encode(&s, bytes, &length))
		return "no snapshot can be made";
	if (!qdb_state_decode(bytes, length, &other) || memcmp(&other, &s, sizeof(s)) != 0)
		return "the snapshot is not the state";
	applied[c.type] += result == QDB_OK;
	return NULL;
}

int
main(int argc, char **argv)
{
	int			rounds = argc > 1 ? atoi(argv[1]) : ROUNDS;
	const char *problem = NULL;
	bool		all = true;

	for (int round = 0; round < rounds && problem == NULL; round++)
	{
		seed = (uint64_t) round * 2654435761u + UINT64_C(88172645463325252);
		qdb_state_init(&s);
		qdb_state_init(&other);
		for (int i = 0; i < COMMANDS && problem == NULL; i++)
		{
			problem = step(i);
			if (problem != NULL)
				printf("# round %d, command %d of type %d: %s\n", round, i, c.type, problem);
		}
	}
	for (int type = QDB_CMD_INIT; type <= QDB_CMD_DONATE; type++)
	{
		all = all && applied[type] > 0;
		if (applied[type] == 0)
			printf("# no command of type %d was applied\n", type);
	}
	printf("1..2\n");
	printf("%sok 1 - reach_every_state_is_a_snapshot\n", problem == NULL ? "" : "not ");
	printf("%sok 2 - reach_every_command_was_applied\n", all ? "" : "not ");
	return problem != NULL || !all;
}
