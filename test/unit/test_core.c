/*-------------------------------------------------------------------------
 *
 * test_core.c
 *		Unit tests of src/core: what a command may do to the state, the
 *		arithmetic of quorums, and the codecs.
 *
 * Prints TAP.  A failed check says its line; the exit status is 1 then.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "core/failover.h"
#include "core/frame.h"
#include "core/plan.h"
#include "core/retain.h"
#include "core/rewind.h"
#include "core/quorum.h"
#include "core/state.h"
#include "core/token_text.h"
#include "fixture.h"

static void
apply_rejects_stale_epoch(void)
{
	make_cluster(3);
	command(QDB_CMD_OPEN_EPOCH);
	c.epoch = 1;
	APPLY(QDB_STALE);
	c.epoch = 3;
	APPLY(QDB_STALE);
	c.epoch = 2;
	APPLY(QDB_OK);
	APPLY(QDB_STALE);
	CHECK(qdb_current_grant(&s) == NULL);
	report(2, 1, 0x5000);
	APPLY(QDB_OK);
	open_epoch();				/* supersedes, and forgets the reports */
	CHECK(s.epoch == 3 && s.nreports == 0);
	report(2, 1, 0x5000);
	c.epoch = 2;
	APPLY(QDB_STALE);
}

static void
apply_needs_init_once(void)
{
	qdb_state_init(&s);
	command(QDB_CMD_NOTE);
	APPLY(QDB_NOT_INITIALIZED);
	init_cluster();
	CHECK(s.membership == 1 && s.epoch == 1 && s.greatest_timeline == 1);
	CHECK(s.system_identifier == 77 && s.members[0].role == QDB_ROLE_VOTER);
	CHECK(qdb_current_grant(&s)->opened && s.settings.lease_ms == 400);
	command(QDB_CMD_INIT);
	strcpy(c.value, "other");
	APPLY(QDB_ALREADY_INITIALIZED);
	command(99);
	APPLY(QDB_MALFORMED);
}

static void
reports_are_replaced_by_newer_boots_only(void)
{
	make_cluster(3);
	report(1, 1, 0x5000);
	APPLY(QDB_STALE);			/* no epoch open */
	open_epoch();
	report(1, 1, 0x5000);
	APPLY(QDB_OK);
	APPLY(QDB_UNCHANGED);
	c.report.boot = 2;
	APPLY(QDB_OK);
	c.report.boot = 1;
	APPLY(QDB_STALE);
	c.report.incarnation = 999;
	APPLY(QDB_STALE);
	report(9, 1, 0x5000);
	APPLY(QDB_NO_MEMBER);
	report(2, 2, 0x5000);		/* claims the epoch that has no seat */
	APPLY(QDB_BAD_VALUE);
}

static void
seat_needs_maximum_report(void)
{
	uint64_t	dead = 2;
	QdbGrant	g;
	char		why[64];

	make_cluster(3);
	open_epoch();
	report(2, 1, 0x6000);
	APPLY(QDB_OK);
	seat(2);
	APPLY(QDB_NO_MAJORITY);
	CHECK(!qdb_choose_seat(&s, anyone, NULL, &g, why, sizeof(why)) && why[0] != '\0');
	report(3, 1, 0x5000);
	APPLY(QDB_OK);
	seat(3);
	APPLY(QDB_NO_MAJORITY);		/* I6 */
	CHECK(!qdb_choose_seat(&s, anyone, &dead, &g, why, sizeof(why)));
	CHECK(qdb_choose_seat(&s, anyone, NULL, &g, why, sizeof(why)) && g.holder == 2);
	seat(2);
	CHECK(memcmp(&c.grant.fork, &g.fork, sizeof(g.fork)) == 0 && c.grant.timeline == g.timeline);
	c.grant.boot = 7;
	APPLY(QDB_STALE);
	seat(2);
	c.grant.timeline = 1;
	APPLY(QDB_STALE);			/* I1 */
	seat(2);
	c.grant.fork--;
	APPLY(QDB_STALE);
	seat(2);
	c.grant.epoch--;
	APPLY(QDB_STALE);
	seat(2);
	APPLY(QDB_OK);
	APPLY(QDB_UNCHANGED);
	CHECK(qdb_current_grant(&s)->holder == 2 && !qdb_current_grant(&s)->opened);
	CHECK(qdb_grant_of_timeline(&s, 2)->epoch == 2);
	report(1, 1, 0x7000);
	APPLY(QDB_STALE);
}

static void
seat_ties_go_by_priority_then_id(void)
{
	QdbGrant	g;
	char		why[64];

	make_cluster(3);
	open_epoch();
	for (uint64_t id = 3; id >= 1; id--)
	{
		report(id, 1, 0x6000);
		APPLY(QDB_OK);
	}
	CHECK(qdb_choose_seat(&s, anyone, NULL, &g, why, sizeof(why)) && g.holder == 1);
	s.members[2].priority = 200;
	CHECK(qdb_choose_seat(&s, anyone, NULL, &g, why, sizeof(why)) && g.holder == 3);
	s.settings.auto_failover = false;	/* paused: the last holder only */
	CHECK(qdb_choose_seat(&s, anyone, NULL, &g, why, sizeof(why)) && g.holder == 1);
	s.members[0].priority = 0;
	CHECK(!qdb_choose_seat(&s, anyone, NULL, &g, why, sizeof(why)));
	seat(1);
	APPLY(QDB_NO_MAJORITY);
}

static void
later_epoch_wins_over_longer_log(void)
{
	make_cluster(3);
	open_epoch();
	report(2, 1, 0x6000);
	APPLY(QDB_OK);
	report(3, 1, 0x6000);
	APPLY(QDB_OK);
	seat(2);
	APPLY(QDB_OK);
	open_epoch();
	report(1, 1, 0x9000);
	APPLY(QDB_OK);
	report(2, 2, 0x6100);
	APPLY(QDB_OK);
	seat(1);
	APPLY(QDB_NO_MAJORITY);
	seat(2);
	APPLY(QDB_OK);
	CHECK(s.greatest_timeline == 3 && s.ngrants == 3);
}

static void
seat_needs_both_majorities_while_change_open(void)
{
	uint64_t	without_2[] = {1, 3}, both[] = {1, 2};

	make_cluster(2);
	add_member(3);
	APPLY(QDB_OK);
	set_role(3, QDB_ROLE_VOTER);
	APPLY(QDB_OK);
	CHECK(!qdb_is_majority(&s, without_2, 2));	/* 2 of 3, but 1 of 2 before */
	CHECK(qdb_is_majority(&s, both, 2));
	open_epoch();
	report(1, 1, 0x5000);
	APPLY(QDB_OK);
	report(3, 1, 0x5000);
	APPLY(QDB_OK);
	seat(1);
	APPLY(QDB_NO_MAJORITY);
	report(2, 1, 0x4000);
	APPLY(QDB_OK);
	close_change();
	APPLY(QDB_CHANGE_OPEN);
	seat(1);
	APPLY(QDB_OK);
}

static void
removed_voter_counts_until_the_change_closes(void)
{
	uint64_t	one[] = {1}, both[] = {1, 2};

	make_cluster(3);
	command(QDB_CMD_MEMBER_REMOVE);
	c.member.id = 1;
	c.membership = s.membership;
	APPLY(QDB_HOLDS_SEAT);
	c.member.id = 3;
	c.membership--;
	APPLY(QDB_STALE);
	c.membership++;
	APPLY(QDB_OK);
	CHECK(s.has_removed && s.nmembers == 2);
	CHECK(!qdb_is_majority(&s, one, 1) && qdb_is_majority(&s, both, 2));
	open_epoch();
	report(3, 1, 0x5000);
	APPLY(QDB_OK);				/* under the number before it votes */
	report(1, 1, 0x5000);
	APPLY(QDB_OK);
	seat(3);
	APPLY(QDB_NO_MAJORITY);		/* but it cannot win */
	seat(1);
	APPLY(QDB_NO_MAJORITY);		/* nor is it a majority of the two */
	report(2, 1, 0x4000);
	APPLY(QDB_OK);
	seat(1);
	APPLY(QDB_OK);
	close_change();
	APPLY(QDB_OK);
	APPLY(QDB_UNCHANGED);
	CHECK(!s.has_removed && !qdb_is_majority(&s, one, 1));
}

/* Who is removed does nothing more, and of two both are needed to close the change. */
static void
second_voter_hands_its_vote_back_first(void)
{
	uint64_t	one[] = {1};

	make_cluster(2);
	command(QDB_CMD_MEMBER_REMOVE);
	c.member.id = 2;
	c.membership = s.membership;
	APPLY(QDB_CHANGE_OPEN);
	set_role(2, QDB_ROLE_REPLICA);
	APPLY(QDB_OK);
	close_change();
	APPLY(QDB_OK);
	command(QDB_CMD_MEMBER_REMOVE);
	c.member.id = 2;
	c.membership = s.membership;
	APPLY(QDB_OK);
	CHECK(s.nmembers == 1 && qdb_is_majority(&s, one, 1));
}

static void
one_membership_change_at_a_time(void)
{
	make_cluster(3);
	add_member(4);
	APPLY(QDB_OK);
	CHECK(s.members[3].role == QDB_ROLE_LEARNER && !s.change_open);
	set_role(4, QDB_ROLE_VOTER);
	c.membership = 1;
	APPLY(QDB_STALE);
	set_role(1, QDB_ROLE_LEARNER);
	APPLY(QDB_HOLDS_SEAT);
	set_role(3, QDB_ROLE_LEARNER);
	c.member.incarnation = 500; /* came back without its data */
	APPLY(QDB_OK);
	CHECK(s.members[2].incarnation == 500 && s.change_open);
	set_role(4, QDB_ROLE_VOTER);
	APPLY(QDB_CHANGE_OPEN);
	command(QDB_CMD_MEMBER_REMOVE);
	c.member.id = 3;
	c.membership = s.membership;
	APPLY(QDB_CHANGE_OPEN);		/* still votes under the number before */
	c.member.id = 4;
	APPLY(QDB_OK);				/* a learner goes freely */
	close_change();
	APPLY(QDB_OK);
	open_epoch();
	set_role(2, QDB_ROLE_LEARNER);
	APPLY(QDB_CHANGE_OPEN);
}

static void
api_tokens_come_and_go(void)
{
	uint8_t		hash[QDB_SECRET_HASH_SIZE] = {7};

	init_cluster();
	command(QDB_CMD_API_TOKEN_ADD);
	c.api_token.id = 5;
	memcpy(c.api_token.secret_hash, hash, sizeof(hash));
	c.api_token.expires_us = 5000;
	strcpy(c.api_token.creator, "alice");
	APPLY(QDB_BAD_VALUE);		/* no role */
	c.api_token.role = QDB_API_ADMIN;
	APPLY(QDB_OK);
	APPLY(QDB_UNCHANGED);
	c.api_token.secret_hash[0] = 8;
	APPLY(QDB_BAD_TOKEN);		/* nobody takes over an id */
	CHECK(qdb_find_api_token(&s, 5, hash, 4999) != NULL);
	CHECK(qdb_find_api_token(&s, 5, hash, 5000) == NULL);
	CHECK(qdb_find_api_token(&s, 6, hash, 0) == NULL);
	hash[31] = 1;
	CHECK(qdb_find_api_token(&s, 5, hash, 0) == NULL);
	memset(hash, 0, sizeof(hash));
	CHECK(qdb_find_api_token(&s, 0, hash, -1) == NULL); /* an empty slot is none */
	command(QDB_CMD_API_TOKEN_REVOKE);
	c.api_token.id = 5;
	APPLY(QDB_OK);
	hash[0] = 7;
	CHECK(qdb_find_api_token(&s, 5, hash, 0) == NULL);
	APPLY(QDB_BAD_TOKEN);
	command(QDB_CMD_API_TOKEN_ADD);
	c.api_token.role = QDB_API_MONITOR;
	c.api_token.expires_us = 5000;
	strcpy(c.api_token.creator, "bob");
	for (uint64_t id = 1; id <= QDB_MAX_API_TOKENS; id++)
	{
		c.api_token.id = id;
		APPLY(QDB_OK);
	}
	c.api_token.id = 1000;
	APPLY(QDB_TOO_MANY);
	c.time_us = 5000;			/* the others have expired */
	c.api_token.expires_us = 6000;
	APPLY(QDB_OK);
}

static void
token_text_is_exact(void)
{
	QdbTokenText t = {.join = true,.id = 0xabc};
	QdbTokenText u;
	char		text[QDB_TOKEN_TEXT_SIZE];
	char		broken[QDB_TOKEN_TEXT_SIZE + 1];

	for (int i = 0; i < 2; i++)
	{
		t.join = i == 0;
		memset(t.secret, 0x5a, sizeof(t.secret));
		memset(t.ca_hash, t.join ? 0xa5 : 0, sizeof(t.ca_hash));
		qdb_token_format(&t, text);
		CHECK(strlen(text) < sizeof(text));
		CHECK(qdb_token_parse(text, &u) && u.join == t.join && u.id == t.id);
		CHECK(memcmp(u.secret, t.secret, sizeof(u.secret)) == 0);
		CHECK(memcmp(u.ca_hash, t.ca_hash, sizeof(u.ca_hash)) == 0);
		for (size_t n = 0; n < strlen(text); n++)
		{
			memcpy(broken, text, n);
			broken[n] = '\0';
			CHECK(!qdb_token_parse(broken, &u));
			strcpy(broken, text);
			broken[n] = 'X';
			CHECK(!qdb_token_parse(broken, &u));
		}
		sprintf(broken, "%sa", text);
		CHECK(!qdb_token_parse(broken, &u));
	}
	t.id = 0;
	qdb_token_format(&t, text);
	CHECK(!qdb_token_parse(text, &u));
}

static void
join_consumes_its_token(void)
{
	init_cluster();
	add_member(2);
	c.token.secret_hash[0] = 9;
	APPLY(QDB_BAD_TOKEN);
	c.token.secret_hash[0] = 2;
	c.time_us = 5000;
	APPLY(QDB_BAD_TOKEN);		/* expired */
	c.time_us = 1000;
	c.member.id = 3;
	APPLY(QDB_STALE);
	c.member.id = 2;
	strcpy(c.member.name, "n1");
	APPLY(QDB_DUPLICATE_NAME);
	strcpy(c.member.name, "n2");
	APPLY(QDB_OK);
	APPLY(QDB_UNCHANGED);
	c.member.id = 3;
	strcpy(c.member.name, "n3");
	APPLY(QDB_BAD_TOKEN);		/* used */
	CHECK(s.nmembers == 2 && s.membership == 1);
}

static void
only_the_seated_boot_opens_and_releases(void)
{
	make_cluster(1);
	open_epoch();
	command(QDB_CMD_GATE_OPEN);
	c.grant = s.grants[0];
	APPLY(QDB_STALE);
	report(1, 1, 0x5000);
	APPLY(QDB_OK);
	seat(1);
	APPLY(QDB_OK);
	command(QDB_CMD_GATE_OPEN);
	c.grant = *qdb_current_grant(&s);
	c.grant.boot++;
	APPLY(QDB_STALE);
	c.grant.boot--;
	APPLY(QDB_OK);
	APPLY(QDB_UNCHANGED);
	CHECK(qdb_current_grant(&s)->opened);
	c.type = QDB_CMD_RELEASE;
	APPLY(QDB_OK);
	APPLY(QDB_UNCHANGED);
	CHECK(s.seat_released);
}

static void
settings_are_checked(void)
{
	static const struct
	{
		const char *name, *value;
		QdbResult	result;
	}			cases[] = {
		{"lease_duration", "2s", QDB_OK}, {"lease_duration", "2000", QDB_UNCHANGED},
		{"lease_duration", "0", QDB_BAD_VALUE}, {"lease_duration", "99999999999999999999", QDB_BAD_VALUE},
		{"failover_timeout", "700ms", QDB_OK}, {"failover_timeout", "-1", QDB_BAD_VALUE},
		{"open_timeout", "1 min", QDB_OK}, {"open_timeout", "1 week", QDB_BAD_VALUE},
		{"min_failover_interval", "1h", QDB_OK}, {"auto_failover", "off", QDB_OK},
		{"auto_failover", "maybe", QDB_BAD_VALUE}, {"nothing", "1", QDB_BAD_VALUE}, {"", "1", QDB_BAD_VALUE},
		{"webhooks", "https://a, http://b", QDB_OK}, {"webhooks", "ftp://a", QDB_BAD_VALUE},
		{"webhooks", "http://a http://a", QDB_BAD_VALUE}, {"webhook_secret", "s", QDB_OK},
	};

	char		why[QDB_REASON_SIZE];

	init_cluster();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		command(QDB_CMD_SETTING);
		strcpy(c.node, cases[i].name);
		strcpy(c.value, cases[i].value);
		APPLY(cases[i].result);
		why[0] = '\0';
		CHECK(qdb_check_setting(c.node, c.value, why, sizeof(why)) == (cases[i].result != QDB_BAD_VALUE));
		CHECK((strstr(why, cases[i].name) != NULL && why[0] != '\0') == (cases[i].result == QDB_BAD_VALUE));
	}
	CHECK(s.settings.lease_ms == 2000 && s.settings.failover_ms == 700 && s.settings.open_ms == 60000);
	CHECK(s.settings.min_failover_ms == 3600000 && !s.settings.auto_failover);
}

static QdbResult
set_webhooks(const char *value)
{
	command(QDB_CMD_SETTING);
	strcpy(c.node, "webhooks");
	strcpy(c.value, value);
	return qdb_state_apply(&s, &c);
}

static QdbResult
webhook_told(const char *url, uint64_t number)
{
	command(QDB_CMD_WEBHOOK_TOLD);
	strcpy(c.value, url);
	c.number = number;
	return qdb_state_apply(&s, &c);
}

static void
webhooks_go_on_where_they_were(void)
{
	uint64_t	first;

	init_cluster();
	first = s.journal_next;
	CHECK(set_webhooks("ftp://a/") == QDB_BAD_VALUE && set_webhooks("https://") == QDB_BAD_VALUE);
	CHECK(set_webhooks("https://a/ https://a/") == QDB_BAD_VALUE);
	CHECK(set_webhooks("http://a http://b http://c http://d http://e") == QDB_BAD_VALUE);
	CHECK(s.journal_next == first);
	CHECK(set_webhooks(" https://a/x,  http://b ") == QDB_OK);
	CHECK(strcmp(s.settings.webhooks, "https://a/x http://b") == 0);
	CHECK(s.webhook_told[0] == first - 1 && s.webhook_told[1] == first - 1);
	CHECK(strstr(s.journal[first - 1].reason, "a/x") == NULL);	/* may be a secret */
	CHECK(webhook_told("http://b", first) == QDB_OK && webhook_told("http://b", first) == QDB_UNCHANGED);
	CHECK(webhook_told("http://b", first + 1) == QDB_BAD_VALUE);	/* has not happened */
	CHECK(webhook_told("http://x", first) == QDB_STALE);
	CHECK(set_webhooks("http://b") == QDB_OK && s.webhook_told[0] == first && s.webhook_told[1] == 0);
	CHECK(set_webhooks("") == QDB_OK && s.settings.webhooks[0] == '\0');
	command(QDB_CMD_SETTING);
	strcpy(c.node, "webhook_secret");
	memset(c.value, 'k', QDB_WEBHOOK_SECRET_SIZE);
	APPLY(QDB_BAD_VALUE);
	c.value[QDB_WEBHOOK_SECRET_SIZE - 1] = '\0';
	APPLY(QDB_OK);
	CHECK(strchr(s.journal[s.journal_next - 2].reason, 'k') == strstr(s.journal[s.journal_next - 2].reason, "k_"));
}

static void
loss_and_return_are_said_once(void)
{
	make_cluster(3);
	command(QDB_CMD_MEMBER_LOST);
	c.member.id = 9;
	APPLY(QDB_NO_MEMBER);
	c.member.id = 3;
	APPLY(QDB_OK);
	APPLY(QDB_UNCHANGED);
	c.type = QDB_CMD_MEMBER_BACK;
	APPLY(QDB_OK);
	APPLY(QDB_UNCHANGED);
	c.type = QDB_CMD_MEMBER_LOST;
	APPLY(QDB_OK);
	CHECK(strcmp(s.journal[s.journal_next - 2].event, "node_lost") == 0);
	command(QDB_CMD_MEMBER_REMOVE);
	c.member.id = 3;
	c.membership = s.membership;
	APPLY(QDB_OK);
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
		CHECK(s.lost[i] == 0);
}

/* From the first sign of the loss, over an epoch that found nobody, to the open gate. */
static void
outage_is_counted_from_the_first_sign(void)
{
	make_cluster(3);
	s.last_outage_us = 0;
	command(QDB_CMD_OPEN_EPOCH);
	c.epoch = 2;
	c.time_us = 1500000;
	c.since_us = 1000000;
	APPLY(QDB_OK);
	c.epoch = 3;
	c.time_us = 2500000;
	c.since_us = 0;
	APPLY(QDB_OK);
	CHECK(s.outage_since_us == 1000000);
	report(2, 1, 0x5000);
	APPLY(QDB_OK);
	report(3, 1, 0x4000);
	APPLY(QDB_OK);
	seat(2);
	APPLY(QDB_OK);
	command(QDB_CMD_GATE_OPEN);
	c.grant = *qdb_current_grant(&s);
	c.time_us = 3000000;
	APPLY(QDB_OK);
	CHECK(s.last_outage_us == 2000000 && s.outage_since_us == 0 && s.last_open_us == 3000000);
	CHECK(strstr(s.journal[s.journal_next - 2].reason, "2000 ms") != NULL);
	command(QDB_CMD_RELEASE);
	c.grant = *qdb_current_grant(&s);
	c.time_us = 9000000;
	c.since_us = 8900000;
	APPLY(QDB_OK);
	CHECK(s.outage_since_us == 8900000 && s.last_outage_us == 2000000);
}

static void
quorum_lsn_is_what_a_majority_has(void)
{
	QdbAck		acks[] = {{1, 300}, {2, 200}, {3, 100}, {4, 50}, {9, 999}};

	make_cluster(1);
	CHECK(qdb_quorum_lsn(&s, acks, 5) == 300);
	make_cluster(2);
	CHECK(qdb_quorum_lsn(&s, acks, 5) == 200);
	CHECK(qdb_quorum_lsn(&s, acks, 1) == 0);
	make_cluster(3);
	CHECK(qdb_quorum_lsn(&s, acks, 5) == 200);
	CHECK(qdb_quorum_lsn(&s, acks, 2) == 200);
	add_member(4);
	APPLY(QDB_OK);
	CHECK(qdb_quorum_lsn(&s, acks, 5) == 200);	/* a learner counts nowhere */
	set_role(4, QDB_ROLE_VOTER);
	APPLY(QDB_OK);
	CHECK(qdb_quorum_lsn(&s, acks, 5) == 100);	/* 3 of 4 */
	make_cluster(2);
	add_member(3);
	APPLY(QDB_OK);
	set_role(3, QDB_ROLE_VOTER);
	APPLY(QDB_OK);
	acks[1].lsn = 50;
	CHECK(qdb_quorum_lsn(&s, acks, 5) == 50);	/* the number before says less */
	close_change();
	APPLY(QDB_OK);
	CHECK(qdb_quorum_lsn(&s, acks, 5) == 100);
	qdb_state_init(&s);
	CHECK(qdb_quorum_lsn(&s, acks, 5) == 0);
}

static void
lease_lasts_as_long_as_a_majority_says(void)
{
	QdbLeaseGrant grants[] = {{1, 900}, {2, 500}, {3, 700}};
	uint64_t	live[] = {1, 2, 3};

	make_cluster(3);
	CHECK(qdb_lease_until(&s, grants, 3) == 700);
	CHECK(qdb_lease_until(&s, grants, 2) == 500);
	CHECK(qdb_lease_until(&s, grants, 1) == 0);
	CHECK(qdb_can_lose(&s, live, 3) == 1 && qdb_can_lose(&s, live, 2) == 0 && qdb_can_lose(&s, live, 1) == 0);
}

static uint8_t bytes[QDB_STATE_MAX_BYTES], again[QDB_STATE_MAX_BYTES];
static QdbState decoded;

/* Encodes, decodes, encodes: equal bytes; returns their number. */
static size_t
round_trip_state(void)
{
	size_t		n = sizeof(bytes), m = sizeof(again);

	CHECK(qdb_state_encode(&s, bytes, &n) && n % 8 == 0);
	CHECK(qdb_state_decode(bytes, n, &decoded));
	CHECK(qdb_state_encode(&decoded, again, &m) && m == n && memcmp(bytes, again, n) == 0);
	CHECK(!qdb_state_decode(bytes, n - 8, &decoded));
	return n;
}

static uint64_t random_state = 42;

static uint32_t
next_random(void)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t) (random_state >> 33);
}

static void
codec_round_trips(void)
{
	size_t		n;
	QdbCommand	d;

	qdb_state_init(&s);
	round_trip_state();
	make_cluster(5);
	for (int i = 0; i < 100; i++)	/* the journal and the grants wrap */
	{
		open_epoch();
		for (uint64_t id = 1; id <= 3; id++)
		{
			report(id, s.epoch - 1, 0x5000 + i);
			APPLY(QDB_OK);
		}
		round_trip_state();
		seat(1);
		APPLY(QDB_OK);
	}
	CHECK(s.ngrants == QDB_MAX_GRANTS && s.njournal == QDB_MAX_JOURNAL);
	set_role(2, QDB_ROLE_REPLICA);
	APPLY(QDB_CHANGE_OPEN);		/* I13: not before the gate */
	command(QDB_CMD_GATE_OPEN);
	c.grant = *qdb_current_grant(&s);
	APPLY(QDB_OK);
	set_role(2, QDB_ROLE_REPLICA);
	APPLY(QDB_OK);
	n = round_trip_state();
	bytes[4]++;
	CHECK(!qdb_state_decode(bytes, n, &decoded));	/* another format */

	seat(1);
	strcpy(c.text, "why");
	n = QDB_COMMAND_MAX_BYTES;
	CHECK(qdb_command_encode(&c, bytes, &n) && n % 8 == 0);
	CHECK(qdb_command_decode(bytes, n, &d));
	CHECK(d.type == c.type && d.grant.fork == c.grant.fork && strcmp(d.text, "why") == 0);
	CHECK(!qdb_command_decode(bytes, n - 1, &d) && !qdb_command_decode(bytes, 0, &d));
	n = 16;
	CHECK(!qdb_command_encode(&c, bytes, &n));
	memset(c.text, 'x', sizeof(c.text));
	n = sizeof(bytes);
	CHECK(!qdb_command_encode(&c, bytes, &n));	/* not terminated */
}

/*
 * However many seats are never opened, the epoch of what was acknowledged is known, and
 * each history leads back to it: WAL that counts for nothing could never be primary.
 */
static void
seats_that_never_open_leave_the_last_that_did(void)
{
	uint64_t	own[4] = {1, 1, 1, 1};	/* epoch of a member's last byte */

	make_cluster(3);
	for (int i = 0; i < 500 && !failed; i++)
	{
		uint64_t	winner = next_random() % 3 + 1;

		open_epoch();
		for (uint64_t id = 1; id <= 3; id++)
		{
			if (qdb_grant_of_epoch(&s, own[id]) == NULL)
				own[id] = 1;	/* its tail is nobody's */
			report(id, own[id], 0x5000);
			APPLY(QDB_OK);
		}
		s.move.force = true;
		s.move.target = winner;
		seat(winner);
		APPLY(QDB_OK);
		/* Now and then it comes as far as its epoch record. */
		if (next_random() % 16 == 0)
			own[winner] = s.epoch;
		CHECK(s.grants[0].epoch == 1 && s.grants[0].opened);
		CHECK(s.grants[s.ngrants - 1].epoch == s.epoch && s.ngrants <= QDB_MAX_GRANTS);
		for (uint32_t k = 1; k < s.ngrants; k++)
			CHECK(qdb_grant_of_timeline(&s, s.grants[k].parent_timeline) != NULL &&
				  s.grants[k].epoch > s.grants[k - 1].epoch);
		round_trip_state();
	}
	/* Once one has opened, the older ones go. */
	command(QDB_CMD_GATE_OPEN);
	c.grant = *qdb_current_grant(&s);
	APPLY(QDB_OK);
	open_epoch();
	for (uint64_t id = 1; id <= 2; id++)
	{
		report(id, s.epoch - 1, 0x6000);
		APPLY(QDB_OK);
	}
	seat(2);
	APPLY(QDB_OK);
	CHECK(s.ngrants == QDB_MAX_GRANTS && s.grants[0].epoch > 1);
}

static void
largest_values_fit_their_caps(void)
{
	size_t		n = QDB_STATE_MAX_BYTES;

	init_cluster();
	command(QDB_CMD_NOTE);
	memset(c.member.name, 'x', QDB_NAME_SIZE - 1);
	memset(c.member.host, 'x', QDB_HOST_SIZE - 1);
	memset(c.node, 'x', QDB_NAME_SIZE - 1);
	memset(c.value, 'x', QDB_VALUE_SIZE - 1);
	memset(c.text, 'x', QDB_REASON_SIZE - 1);
	for (int i = 0; i < QDB_MAX_JOURNAL; i++)
		APPLY(QDB_OK);
	s.nmembers = s.nreports = QDB_MAX_MEMBERS;
	s.next_member_id = s.epoch = s.greatest_timeline = 100;
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		s.members[i] = c.member;
		s.members[i].name[0] = (char) ('A' + i);
		s.members[i].id = s.reports[i].member = i + 1;
	}
	s.ngrants = QDB_MAX_GRANTS;
	for (int i = 0; i < QDB_MAX_GRANTS; i++)
		s.grants[i].epoch = s.grants[i].timeline = 100 - QDB_MAX_GRANTS + 1 + i;
	CHECK(qdb_state_encode(&s, bytes, &n) && n < 64 * 1024);
	CHECK(qdb_state_decode(bytes, n, &decoded));
	n = QDB_COMMAND_MAX_BYTES;
	CHECK(qdb_command_encode(&c, bytes, &n) && n < 1536);
}

/* What decodes must encode to the same bytes; nothing may crash. */
static void
random_bytes_are_refused_or_canonical(void)
{
	static uint8_t command_bytes[QDB_COMMAND_MAX_BYTES], state_bytes[8192], x[8192];
	size_t		nc = sizeof(command_bytes), ns = sizeof(state_bytes), m;
	QdbCommand	d;
	int			accepted = 0;

	make_cluster(2);
	open_epoch();
	CHECK(qdb_state_encode(&s, state_bytes, &ns));
	report(1, 1, 0x5000);
	CHECK(qdb_command_encode(&c, command_bytes, &nc));
	for (int i = 0; i < 100000 && !failed; i++)
	{
		bool		state = i % 8 == 0;
		size_t		n = state ? ns : nc;

		memcpy(x, state ? state_bytes : command_bytes, n);
		for (uint32_t k = next_random() % 4 + 1; k > 0; k--)
			x[next_random() % n] = (uint8_t) (next_random() % 3 == 0 ? 1 : next_random());
		if (next_random() % 8 == 0)
			n = next_random() % (n + 1);
		if (next_random() % 16 == 0)
			for (size_t k = 0; k < n; k++)
				x[k] = (uint8_t) next_random();
		m = sizeof(again);
		if (state && qdb_state_decode(x, n, &decoded))
			CHECK(++accepted && qdb_state_encode(&decoded, again, &m) && m == n && memcmp(x, again, n) == 0);
		else if (!state && qdb_command_decode(x, n, &d))
		{
			CHECK(++accepted && qdb_command_encode(&d, again, &m) && m == n && memcmp(x, again, n) == 0);
			memcpy(&decoded, &s, sizeof(s));
			if (qdb_state_apply(&decoded, &d) != QDB_OK)
				CHECK(memcmp(&decoded, &s, sizeof(s)) == 0);
			else
			{
				m = sizeof(again);
				CHECK(qdb_state_encode(&decoded, again, &m) && qdb_state_decode(again, m, &decoded));
			}
		}
	}
	CHECK(accepted > 1000);
}

static void
frames_are_capped_and_checked(void)
{
	uint8_t		h[QDB_FRAME_HEADER_SIZE];
	QdbFrameHeader header;
	const char *why;
	uint8_t		payload[64] = "payload";

	CHECK(qdb_crc32c(0, "123456789", 9) == 0xE3069283);
	CHECK(qdb_crc32c(qdb_crc32c(0, "1234", 4), "56789", 5) == 0xE3069283);
	CHECK(qdb_frame_max_length(0) == 0 && qdb_frame_max_length(31) == 0 && qdb_frame_max_length(255) == 0);
	CHECK(qdb_frame_max_length(QDB_FRAME_RAFT) == 1048576 && qdb_frame_max_length(QDB_FRAME_REPLY) == 256);
	qdb_frame_encode_header(h, QDB_FRAME_START, payload, 64);
	CHECK(qdb_frame_decode_header(h, &header, &why) && header.length == 64);
	CHECK(qdb_frame_check(h, payload, 64));
	payload[3] ^= 1;
	CHECK(!qdb_frame_check(h, payload, 64) && !qdb_frame_check(h, payload, 63));
	h[8]++;
	CHECK(!qdb_frame_decode_header(h, &header, &why) && strstr(why, "long") != NULL);
	h[8]--;
	for (int i = 0; i < 8; i++)
	{
		h[i] ^= 0x80;
		CHECK(!qdb_frame_decode_header(h, &header, &why));
		h[i] ^= 0x80;
	}
}

static void
reader_and_writer_stay_in_bounds(void)
{
	uint8_t		buf[16];
	char		text[4];
	QdbWriter	w = {buf, sizeof(buf), 0, false};
	QdbReader	r = {buf, 0, 0, false};

	qdb_put_u64(&w, UINT64_MAX);
	qdb_put_string(&w, "abc");
	CHECK(!w.failed && w.used == 13);
	qdb_put_u32(&w, 1);
	CHECK(w.failed && w.used == 13);
	r.size = w.used;
	CHECK(qdb_get_u64(&r) == UINT64_MAX);
	qdb_get_string(&r, text, sizeof(text));
	CHECK(strcmp(text, "abc") == 0 && qdb_reader_done(&r));
	CHECK(qdb_get_u8(&r) == 0 && r.failed && !qdb_reader_done(&r));
	r = (QdbReader) {buf, 13, 8, false};
	qdb_get_string(&r, text, 3);
	CHECK(r.failed && text[0] == '\0');
}

static void
plan_touches_only_what_it_may(void)
{
	static const char *const bad[] = {
		"", ".", "..", "/etc/passwd", "base/../postgresql.conf", "base//1", "base/", "./base",
		"quantadb", "quantadb/promise", "quantadb/stage", "quantadb/stage/journal",
		"quantadb/stage/progress", "quantadb/stage/../promise", "postgresql.conf",
		"postgresql.auto.conf", "pg_hba.conf", "postmaster.pid"
	};
	static const char *const good[] = {
		"base/1/1259", "global/pg_control", "pg_wal", "pg_tblspc/16384/PG_15_202209061/1/2",
		"quantadb/stage/new/base", "quantadb2", "base/.hidden"
	};
	QdbStep		step = {.kind = QDB_STEP_REMOVE};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK(!qdb_plan_path_ok(bad[i]));
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		CHECK(qdb_plan_path_ok(good[i]));

	strcpy(step.path, "global/pg_control");
	CHECK(qdb_step_problem(&step) != NULL);
	step.kind = QDB_STEP_PUT;
	CHECK(qdb_step_problem(&step) != NULL);
	strcpy(step.other, "base/1/1259");
	CHECK(qdb_step_problem(&step) != NULL);
	strcpy(step.other, "quantadb/stage/control");
	CHECK(qdb_step_problem(&step) == NULL);
	step.kind = QDB_STEP_SYMLINK;
	CHECK(qdb_step_problem(&step) != NULL);
	strcpy(step.path, "pg_tblspc/16384");
	strcpy(step.other, "/mnt/fast");
	CHECK(qdb_step_problem(&step) == NULL);
	step.kind = QDB_STEP_RENAME;
	strcpy(step.path, "quantadb/stage/old/global");
	strcpy(step.other, "global");
	CHECK(qdb_step_problem(&step) != NULL);
	strcpy(step.other, "base");
	CHECK(qdb_step_problem(&step) == NULL);
}

static void
fork_is_the_end_of_the_common_history(void)
{
	const QdbTimelinePart one[] = {{1, 0, UINT64_MAX}};
	const QdbTimelinePart two[] = {{1, 0, 100}, {2, 100, UINT64_MAX}};
	const QdbTimelinePart three[] = {{1, 0, 100}, {3, 100, UINT64_MAX}};
	const QdbTimelinePart later[] = {{1, 0, 300}, {4, 300, UINT64_MAX}};
	const QdbTimelinePart other[] = {{7, 0, UINT64_MAX}};
	uint32_t	timeline;
	uint64_t	fork;

	CHECK(qdb_rewind_fork(one, 1, two, 2, &timeline, &fork) && timeline == 1 && fork == 100);
	CHECK(qdb_rewind_fork(two, 2, three, 2, &timeline, &fork) && timeline == 1 && fork == 100);
	CHECK(qdb_rewind_fork(later, 2, two, 2, &timeline, &fork) && timeline == 1 && fork == 100);
	CHECK(!qdb_rewind_fork(other, 1, two, 2, &timeline, &fork));
	CHECK(!qdb_rewind_fork(one, 1, one, 1, &timeline, &fork));
}

static void
replay_starts_before_what_either_side_needs(void)
{
	const QdbRewindLimits limits = {.fork = 1000,.own_redo = 500,.source_redo = 600,.oldest_xid = 50};
	QdbCheckpointView view = {.end = 900,.redo = 400,.full_page_writes = true,.next_xid = 50};

	CHECK(qdb_rewind_may_start(&view, &limits));
	view.end = 1001;
	CHECK(!qdb_rewind_may_start(&view, &limits));
	view.end = 1000;
	view.redo = 501;			/* I12 */
	CHECK(!qdb_rewind_may_start(&view, &limits));
	view.redo = 500;
	view.next_xid = 51;
	CHECK(!qdb_rewind_may_start(&view, &limits));
	view.next_xid = 1;
	view.full_page_writes = false;
	CHECK(!qdb_rewind_may_start(&view, &limits));
}

static void
segments_change_as_their_sizes_say(void)
{
	QdbSegmentView view = {.exists = true,.local_size = 80,.source_size = 80,.cut_block = QDB_NO_BLOCK};
	QdbSegmentChange change = qdb_rewind_segment(&view, 8);

	CHECK(!change.whole && !change.truncate && change.tail_from == QDB_NO_BLOCK && change.nblocks == 10);
	view.source_size = 96;
	view.local_size = 84;		/* a block that was not written whole */
	change = qdb_rewind_segment(&view, 8);
	CHECK(!change.truncate && change.tail_from == 10 && change.nblocks == 12);
	view.source_size = 40;
	change = qdb_rewind_segment(&view, 8);
	CHECK(change.truncate && change.tail_from == QDB_NO_BLOCK);
	view.source_size = 80;
	view.cut_block = 3;
	change = qdb_rewind_segment(&view, 8);
	CHECK(change.tail_from == 3);
	view.recreated = true;
	CHECK(qdb_rewind_segment(&view, 8).whole);
	view.recreated = view.exists = false;
	CHECK(qdb_rewind_segment(&view, 8).whole);
}

static void
wal_is_kept_for_the_slowest(void)
{
	uint64_t	needs[3] = {500, 300, 400};

	CHECK(qdb_retain_from(needs, 3, 1000, 900) == 300);
	CHECK(qdb_retain_from(needs, 3, 1000, 600) == 400);
	CHECK(qdb_retain_from(needs, 0, 1000, 600) == 1000);
	/* Not heard yet: only the limit lets go. */
	needs[1] = 0;
	CHECK(qdb_retain_from(needs, 3, 1000, 2000) == 0);
	CHECK(qdb_retain_from(needs, 3, 1000, 600) == 400);

	CHECK(qdb_retain_needs(0, 0, false, 0) == 0);
	CHECK(qdb_retain_needs(0, 70, false, 0) == 70);
	CHECK(qdb_retain_needs(50, 70, true, 60) == 70);
	/* One that went away keeps what it needed; past a fork, from the fork on. */
	CHECK(qdb_retain_needs(50, 70, false, 60) == 50);
	CHECK(qdb_retain_needs(70, 70, false, 60) == 60);
	CHECK(qdb_retain_needs(70, 0, true, 60) == 70);
}

static void
ladder_ends_at_a_clone(void)
{
	QdbLadder	ladder = {.now_us = 10};

	CHECK(qdb_ladder_rung(&ladder) == QDB_RUNG_WAIT);
	ladder.diverged = true;
	CHECK(qdb_ladder_rung(&ladder) == QDB_RUNG_REWIND);
	ladder.not_before_us = 11;
	CHECK(qdb_ladder_rung(&ladder) == QDB_RUNG_WAIT);
	ladder.not_before_us = 0;
	ladder.rewinds = QDB_REWIND_TRIES;
	CHECK(qdb_ladder_rung(&ladder) == QDB_RUNG_CLONE);
	ladder.rewinds = 0;
	ladder.failures = QDB_REWIND_FAILURES;
	CHECK(qdb_ladder_rung(&ladder) == QDB_RUNG_CLONE);
	ladder.failures = 0;
	ladder.rewind_useless = true;
	CHECK(qdb_ladder_rung(&ladder) == QDB_RUNG_CLONE);
	ladder.rewind_useless = ladder.diverged = false;
	ladder.lacks_wal = true;
	CHECK(qdb_ladder_rung(&ladder) == QDB_RUNG_CLONE);
}

static void
plan_is_read_as_written_or_refused(void)
{
	QdbStep		step = {.kind = QDB_STEP_BLOCKS,.number = 77};
	QdbStep		read;
	uint8_t		buf[QDB_PLAN_STEP_MAX];
	uint8_t		head[QDB_PLAN_HEADER_SIZE];
	QdbWriter	w = {.buf = buf,.size = sizeof(buf)};
	QdbReader	r;
	QdbPlanHeader header = {.nsteps = 3,.length = 99,.inode = 12345,.crc = 0xABCD};
	QdbPlanHeader same = {0};

	strcpy(step.path, "base/5/1234");
	strcpy(step.other, "quantadb/stage/blocks/7");
	qdb_step_encode(&step, &w);
	CHECK(!w.failed);
	for (size_t length = 0; length <= w.used; length++)
	{
		r = (QdbReader)
		{
			.buf = buf,.size = length
		};
		memset(&read, 0, sizeof(read));
		qdb_step_decode(&r, &read);
		CHECK(r.failed == (length < w.used));
	}
	CHECK(memcmp(&read, &step, sizeof(step)) == 0);

	qdb_plan_header_encode(&header, head);
	CHECK(qdb_plan_header_decode(head, &same) && same.nsteps == header.nsteps &&
		  same.length == header.length && same.inode == header.inode && same.crc == header.crc);
	for (size_t i = 0; i < sizeof(head); i++)
	{
		head[i] ^= 1;
		CHECK(!qdb_plan_header_decode(head, &same));
		head[i] ^= 1;
	}
}

static const Test tests[] = {
	TEST(apply_needs_init_once),
	TEST(apply_rejects_stale_epoch),
	TEST(reports_are_replaced_by_newer_boots_only),
	TEST(seat_needs_maximum_report),
	TEST(seat_ties_go_by_priority_then_id),
	TEST(later_epoch_wins_over_longer_log),
	TEST(seat_needs_both_majorities_while_change_open),
	TEST(removed_voter_counts_until_the_change_closes),
	TEST(second_voter_hands_its_vote_back_first),
	TEST(one_membership_change_at_a_time),
	TEST(join_consumes_its_token),
	TEST(api_tokens_come_and_go),
	TEST(token_text_is_exact),
	TEST(only_the_seated_boot_opens_and_releases),
	TEST(settings_are_checked),
	TEST(webhooks_go_on_where_they_were),
	TEST(loss_and_return_are_said_once),
	TEST(outage_is_counted_from_the_first_sign),
	TEST(quorum_lsn_is_what_a_majority_has),
	TEST(lease_lasts_as_long_as_a_majority_says),
	TEST(codec_round_trips),
	TEST(seats_that_never_open_leave_the_last_that_did),
	TEST(largest_values_fit_their_caps),
	TEST(random_bytes_are_refused_or_canonical),
	TEST(frames_are_capped_and_checked),
	TEST(reader_and_writer_stay_in_bounds),
	TEST(plan_touches_only_what_it_may),
	TEST(plan_is_read_as_written_or_refused),
	TEST(fork_is_the_end_of_the_common_history),
	TEST(replay_starts_before_what_either_side_needs),
	TEST(segments_change_as_their_sizes_say),
	TEST(wal_is_kept_for_the_slowest),
	TEST(ladder_ends_at_a_clone),
};

int
main(void)
{
	return run_tests(tests, (int) (sizeof(tests) / sizeof(tests[0])));
}
